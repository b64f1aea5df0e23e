"""T2 from the two echoes of a qDESS acquisition.

The ratio of the echoes depends on T2, and weakly on T1, on the flip angle and, with a strong spoiler between the
echoes, on diffusion: B. Sveinsson, A. S. Chaudhari, G. E. Gold, B. A. Hargreaves, "A simple analytic method for
estimating T2 in the knee from DESS", Magn Reson Imaging 38 (2017) 63-70.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from KneeAnalysisLib.echoes import EchoKind, EchoSeries
from MedAILib.errors import InputError

GYROMAGNETIC_RATIO = 4258.0 * 2.0 * np.pi
"""Of hydrogen, rad / (G s)."""

CARTILAGE_DIFFUSIVITY = 1.25e-9
"""m^2 / s."""


class QdessFormula(Enum):
    """Whether diffusion during the spoiler is part of the formula."""

    SPOILED = "spoiled"
    """With diffusion; needs the spoiler's area and duration."""
    LOW_SPOILING = "low_spoiling"
    """Without; reads up to 6 % too low at 80 ms where the spoiler was strong."""


@dataclass(frozen=True)
class QdessTerms:
    """The two constants of T2 = -2 (TR - TE) / (ln(S2 / (S1 k)) + c).

    Attributes
    ----------
    gain : ndarray or float
        k, of the flip angle, T1 and the repetition time.
    diffusion : float
        c, zero without spoiling.
    """

    gain: np.ndarray | float
    diffusion: float


def chosen_formula(series: EchoSeries, wanted: QdessFormula | None = None) -> QdessFormula:
    """The formula asked for, else the spoiled one where the header gives the spoiler.

    Raises
    ------
    InputError
        Where the spoiled formula is asked for and the header lacks the spoiler.
    """
    if wanted is QdessFormula.SPOILED and not series.spoiler_known:
        raise InputError(
            "The spoiled qDESS formula needs the spoiler's area and duration.",
            why="The header lacks GE's private elements (0019,10B6) and (0019,10B7); anonymisation often removes them.",
            todo="Use the low-spoiling formula, or export the series with its private elements.",
        )
    return wanted or (QdessFormula.SPOILED if series.spoiler_known else QdessFormula.LOW_SPOILING)


def qdess_terms(series: EchoSeries, t1_ms: np.ndarray | float, formula: QdessFormula) -> QdessTerms:
    """The constants of the formula for this acquisition and T1.

    Parameters
    ----------
    series : EchoSeries
    t1_ms : ndarray or float
        One for all, or one per voxel.
    formula : QdessFormula

    Raises
    ------
    InputError
        Where the header gives no repetition time or no flip angle.
    """
    protocol = series.protocol
    if not protocol.repetition_time_ms or not protocol.flip_angle_deg:
        raise InputError(
            "T2 from qDESS needs the repetition time and the flip angle.",
            why="The header does not state them.",
            todo="Export the series with its acquisition parameters.",
        )
    tr_s = protocol.repetition_time_ms / 1e3
    attenuation = tr_s / (np.asarray(t1_ms, dtype=np.float64) / 1e3)
    diffusion = 0.0
    if formula is QdessFormula.SPOILED:
        assert protocol.spoiler_area is not None and protocol.spoiler_time_us is not None
        spoiler_s = protocol.spoiler_time_us * 1e-6
        gradient_g_per_m = protocol.spoiler_area / protocol.spoiler_time_us * 100.0
        dephasing_per_m = GYROMAGNETIC_RATIO * gradient_g_per_m * spoiler_s
        rate_per_s = dephasing_per_m**2 * CARTILAGE_DIFFUSIVITY
        attenuation = attenuation + tr_s * rate_per_s
        diffusion = float((tr_s - spoiler_s / 3.0) * rate_per_s)
    e1 = np.exp(-attenuation)
    angle = np.deg2rad(protocol.flip_angle_deg)
    gain = np.sin(angle / 2.0) ** 2 * (1.0 + e1) / (1.0 - np.cos(angle) * e1)
    return QdessTerms(gain, diffusion)


def qdess_t2_ms(series: EchoSeries, t1_ms: np.ndarray | float, formula: QdessFormula) -> np.ndarray:
    """T2 of every voxel: float32 of shape (k, j, i), in ms; not a number where the echoes give none.

    Parameters
    ----------
    series : EchoSeries
        Of kind qDESS.
    t1_ms : ndarray of shape (k, j, i), or float
    formula : QdessFormula

    Raises
    ------
    InputError
        Where the series is no qDESS, or its header lacks what the formula needs.
    """
    if series.kind is not EchoKind.QDESS:
        raise InputError(f"The qDESS formula does not hold for a {series.kind.value} series.")
    terms = qdess_terms(series, t1_ms, formula)
    first, second = (np.abs(np.asarray(echo.array, dtype=np.float32)) for echo in series.echoes)
    assert series.protocol.repetition_time_ms is not None
    between_ms = 2.0 * (series.protocol.repetition_time_ms - series.echo_times_ms[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.log(second / (first * terms.gain)) + terms.diffusion
        t2_ms = -between_ms / exponent
    t2_ms[~((first > 0) & (second > 0) & (exponent < 0))] = np.nan
    return t2_ms.astype(np.float32, copy=False)
