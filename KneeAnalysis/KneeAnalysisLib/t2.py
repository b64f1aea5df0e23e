"""T2 maps of the knee, from qDESS or from multi-echo spin echo, and their statistics by region."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from KneeAnalysisLib.decay import NoiseFloor, log_linear, non_linear
from KneeAnalysisLib.echoes import EchoKind, EchoSeries
from KneeAnalysisLib.labels import Region, Tissue
from KneeAnalysisLib.qdess import CARTILAGE_DIFFUSIVITY, QdessFormula, chosen_formula, qdess_t2_ms
from MedAILib.errors import InputError
from MedAILib.grids import resampled
from MedAILib.volume import Geometry, LabelMap, Volume

UNIFORM_T1_MS: Mapping[Tissue, float] = {}
"""One T1 (`T2Options.t1_elsewhere_ms`) for every tissue, as the reference pipeline has it."""

TISSUE_T1_MS: Mapping[Tissue, float] = {
    Tissue.FEMORAL_CARTILAGE: 1200.0,
    Tissue.MEDIAL_TIBIAL_CARTILAGE: 1000.0,
    Tissue.LATERAL_TIBIAL_CARTILAGE: 1000.0,
    Tissue.PATELLAR_CARTILAGE: 1000.0,
    Tissue.MEDIAL_MENISCUS: 1000.0,
    Tissue.LATERAL_MENISCUS: 1000.0,
}
"""T1 at 3 T assumed in qDESS, as DOSMA has it. T2 depends on it: 1000 instead of 1200 ms reads 1.5 % higher at 10 ms
and 13 % higher at 80 ms, so values of maps with different assumptions must not be compared."""

_MASKED_BACKGROUND = 0.5
"""Share of zeros in a corner from which on the scanner is taken to have blanked the air."""
_RAYLEIGH_MEDIAN = np.sqrt(2.0 * np.log(2.0))
"""Median magnitude of pure noise, in its SD."""
_RAYLEIGH_SPREAD = 0.770
"""Its interquartile range over its median."""
_SPREAD_TOLERANCE = 0.25
_DECAY_TOLERANCE = 0.25
"""Of the air's median from the first to the last echo."""


class DecayFit(Enum):
    """How multi-echo spin echo is fitted."""

    NON_LINEAR = "non_linear"
    LOG_LINEAR = "log_linear"


@dataclass(frozen=True)
class T2Options:
    """What a T2 map is made with.

    Attributes
    ----------
    fit : DecayFit
        Of multi-echo series.
    floor : NoiseFloor
        Of the non-linear fit.
    noise_sd : float or None
        For `NoiseFloor.RICIAN`; None estimates it from the air around the knee.
    skip_first_echo : bool
        Leaves out the first echo of a multi-echo series, which stimulated echoes make too low.
    formula : QdessFormula or None
        Of qDESS; None takes the spoiled one where the header allows it.
    t1_ms : mapping of Tissue to float
        Of qDESS.
    t1_elsewhere_ms : float
        Where there is no tissue of `t1_ms`.
    longest_ms : float
        Values above it, and those that are not above zero, are no values.
    least_r2 : float
        Multi-echo voxels that the decay fits less well are no values.
    """

    fit: DecayFit = DecayFit.NON_LINEAR
    floor: NoiseFloor = NoiseFloor.RICIAN
    noise_sd: float | None = None
    skip_first_echo: bool = False
    formula: QdessFormula | None = None
    t1_ms: Mapping[Tissue, float] = field(default_factory=lambda: TISSUE_T1_MS)
    t1_elsewhere_ms: float = 1200.0
    longest_ms: float = 100.0
    least_r2: float = 0.7


@dataclass(frozen=True, eq=False)
class T2Map:
    """T2 of every voxel and how it was found.

    Attributes
    ----------
    t2_ms : Volume
        float32; 0 where there is no value.
    r2 : Volume or None
        Coefficient of determination of the fit, float32, 0 where there is none; None for qDESS, whose two echoes
        determine T2 exactly.
    method : str
        ``"spoiled"``, ``"low_spoiling"``, ``"non_linear"``, ``"log_linear"``.
    stated : str
        The assumptions in a sentence, for report and header.
    """

    t2_ms: Volume
    r2: Volume | None
    method: str
    stated: str

    @property
    def geometry(self) -> Geometry:
        return self.t2_ms.geometry


@dataclass(frozen=True)
class T2Statistics:
    """T2 within one region.

    Attributes
    ----------
    key : str
        ``med_tib_cart``, or with a depth ``med_tib_cart_deep``.
    mean_ms, std_ms, median_ms : float
        Over the voxels with a value in range; not a number where there is none.
    voxels : int
        Voxels of the region on the T2 grid.
    used : int
        Those of them with a value in range.
    """

    key: str
    mean_ms: float
    std_ms: float
    median_ms: float
    voxels: int
    used: int


def t2_map(series: EchoSeries, options: T2Options | None = None, tissues: LabelMap | None = None) -> T2Map:
    """T2 of a series, by the formula that its kind asks for.

    Parameters
    ----------
    series : EchoSeries
    options : T2Options, optional
    tissues : LabelMap, optional
        Canonical tissues, on any grid; tells qDESS where which T1 holds. Not used for multi-echo series.

    Raises
    ------
    InputError
        The header lacks what the formula needs, or there are too few echoes for the fit.
    """
    chosen = options or T2Options()
    if series.kind is EchoKind.QDESS:
        return _from_qdess(series, chosen, tissues)
    return _from_decay(series, chosen)


def t2_by_region(
    found: T2Map, labels: LabelMap, regions: Iterable[Region], *, above_ms: float = 0.0, below_ms: float = 80.0
) -> tuple[T2Statistics, ...]:
    """Statistics of T2 in every region that has voxels.

    Parameters
    ----------
    found : T2Map
    labels : LabelMap
        Sub-region labels (one layer) in any grid and orientation; read at the T2 map's voxels.
    regions : iterable of Region
        Each gathers its `Region.members`.
    above_ms, below_ms : float
        Values outside, bounds included, are left out; fluid at the surface reads high.
    """
    there = labels if labels.geometry.same_grid_as(found.geometry) else resampled(labels, found.geometry)
    layer, t2_ms = there.layers[0], found.t2_ms.array
    return tuple(
        entry
        for region in regions
        if (entry := _statistics(region.key, t2_ms[np.isin(layer, region.members)], above_ms, below_ms)).voxels
    )


def background_noise_sd(series: EchoSeries) -> float:
    """Noise SD of one channel from the air around the knee; 0 where there is no air, or the scanner blanked it.

    Looks at the four in-plane corners of the stack (a tenth of each side) and takes the darkest: the median of a
    magnitude that is all noise is 1.18 SD. It is air if it spreads as such magnitudes do and does not decay.
    """
    first, last = series.echoes[0].array, series.echoes[-1].array
    rows, columns = (max(size // 10, 1) for size in last.shape[1:])
    ends = [
        (slice(None), y, x) for y in (slice(rows), slice(-rows, None)) for x in (slice(columns), slice(-columns, None))
    ]
    corner = min(ends, key=lambda end: float(np.median(last[end])))
    lower, median, upper = np.quantile(last[corner], (0.25, 0.5, 0.75))
    if (last[corner] <= 0).mean() > _MASKED_BACKGROUND or median <= 0:
        return 0.0
    spreads = abs((upper - lower) / median - _RAYLEIGH_SPREAD) < _SPREAD_TOLERANCE
    stays = abs(float(np.median(first[corner])) / median - 1.0) < _DECAY_TOLERANCE
    return float(median / _RAYLEIGH_MEDIAN) if spreads and stays else 0.0


def _from_qdess(series: EchoSeries, options: T2Options, tissues: LabelMap | None) -> T2Map:
    formula = chosen_formula(series, options.formula)
    t1_ms = _t1_map(series.geometry, options, tissues)
    values = qdess_t2_ms(series, t1_ms, formula)
    stated = f"qDESS, {formula.value.replace('_', ' ')} formula; {_t1_stated(options, tissues)}"
    if formula is QdessFormula.SPOILED:
        stated += f"; diffusivity {CARTILAGE_DIFFUSIVITY:g} m^2/s"
    return T2Map(_volume(series, _in_range(values, options), "T2"), None, formula.value, stated + ".")


def _t1_map(geometry: Geometry, options: T2Options, tissues: LabelMap | None) -> np.ndarray | float:
    if tissues is None or not options.t1_ms:
        return options.t1_elsewhere_ms
    there = tissues if tissues.geometry.same_grid_as(geometry) else resampled(tissues, geometry)
    table = np.full(256, options.t1_elsewhere_ms, np.float32)
    for tissue, t1_ms in options.t1_ms.items():
        table[tissue] = t1_ms
    return table[there.layers[0]]


def _t1_stated(options: T2Options, tissues: LabelMap | None) -> str:
    if tissues is None or not options.t1_ms:
        return f"T1 {options.t1_elsewhere_ms:g} ms"
    each = ", ".join(f"{tissue.title.lower()} {t1_ms:g}" for tissue, t1_ms in options.t1_ms.items())
    return f"T1 in ms: {each}, elsewhere {options.t1_elsewhere_ms:g}"


def _from_decay(series: EchoSeries, options: T2Options) -> T2Map:
    first = 1 if options.skip_first_echo else 0
    times_ms = np.array(series.echo_times_ms[first:])
    needed = 4 if options.fit is DecayFit.NON_LINEAR and options.floor is NoiseFloor.OFFSET else 2
    if len(times_ms) < needed:
        raise InputError(
            f"This fit needs {needed} echoes, there are {len(times_ms)}.",
            todo="Fit without an offset, or keep the first echo." if needed > 2 else "Keep the first echo.",
        )
    signals = np.stack([echo.array for echo in series.echoes[first:]]).reshape(len(times_ms), -1)
    stated = f"Mono-exponential decay of {len(times_ms)} echoes, {times_ms[0]:g} to {times_ms[-1]:g} ms"
    if options.fit is DecayFit.LOG_LINEAR:
        decay = log_linear(signals, times_ms)
        stated += ", straight line through the logarithms"
    else:
        noise_sd = background_noise_sd(series) if options.noise_sd is None else options.noise_sd
        floor = NoiseFloor.NONE if options.floor is NoiseFloor.RICIAN and noise_sd <= 0 else options.floor
        decay = non_linear(signals, times_ms, floor=floor, noise_sd=noise_sd)
        stated += ", least squares on the signal, noise floor: " + (
            f"Rician, noise SD {noise_sd:.3g}" if floor is NoiseFloor.RICIAN else floor.value
        )
    shape = series.geometry.shape_kji
    r2 = np.nan_to_num(decay.r2, nan=0.0).reshape(shape)
    t2_ms = _in_range(decay.t2_ms.reshape(shape), options)
    t2_ms[r2 < options.least_r2] = 0.0
    stated += f"; values up to {options.longest_ms:g} ms with R2 of at least {options.least_r2:g}."
    return T2Map(_volume(series, t2_ms, "T2"), _volume(series, r2, "R2"), options.fit.value, stated)


def _in_range(t2_ms: np.ndarray, options: T2Options) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where((t2_ms > 0) & (t2_ms <= options.longest_ms), t2_ms, 0.0).astype(np.float32)


def _volume(series: EchoSeries, array: np.ndarray, what: str) -> Volume:
    return Volume(array, series.geometry.ijk_to_ras, f"{series.name} {what}".strip())


def _statistics(key: str, values: np.ndarray, above_ms: float, below_ms: float) -> T2Statistics:
    used = values[(values > above_ms) & (values < below_ms)].astype(np.float64)
    if not used.size:
        return T2Statistics(key, np.nan, np.nan, np.nan, int(values.size), 0)
    return T2Statistics(
        key, float(used.mean()), float(used.std()), float(np.median(used)), int(values.size), int(used.size)
    )
