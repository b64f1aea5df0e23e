"""What scans that were kept apart say of a localizer: from which probability, and from how much, a finding counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from CTReportLib.localised import LEAST_DRAWN_ML
from CTReportLib.train.request import TrainRequest
from CTReportLib.train.store import Store, bits
from MedAILib.jobs.task import Context
from MedAILib.multitask.train.measures import fitted_threshold

if TYPE_CHECKING:
    from CTReportLib.nets.heads_unet import TextUNet

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
FEWEST_JUDGED = 5
"""Held scans with a finding, and without it, that a least volume needs."""
_MOST_DRAWN = 40


@dataclass(frozen=True)
class Drawn:
    """What held scans say of the localizer.

    Attributes
    ----------
    threshold : float
        Probability from which a voxel is taken.
    dice : float or None
        That it gives, over the voxels of all held scans; None: none shows anything.
    least_ml : tuple of float
        Of each finding: what tells scans with it from scans without best; empty where nothing was held.
    """

    threshold: float = 0.5
    dice: float | None = None
    least_ml: tuple[float, ...] = ()


def judged(network: TextUNet, store: Store, findings: Sequence[int], request: TrainRequest, context: Context) -> Drawn:
    """Threshold and least volumes, from held scans."""
    from CTReportLib.nets.drawing import drawn

    network.eval()
    shown = [n for n in range(len(store)) if store.known[n, list(findings)].any()][:_MOST_DRAWN]
    counts = np.zeros((len(shown), len(THRESHOLDS), len(findings), 3))
    known = store.known[shown][:, list(findings)]
    for place, number in enumerate(shown):
        context.check()
        hu = np.asarray(store.hu[number])
        channels = np.stack([window.applied(hu) for window in request.localizer_layout.windows])
        raw = drawn(
            network, channels, len(findings), step=network.step, width=request.localizer_base, device=context.device
        )
        truth = bits(np.asarray(store.drawn[number]), findings) > 0
        for row, threshold in enumerate(THRESHOLDS):
            found = raw >= np.log(threshold / (1 - threshold))
            both = (found & truth).sum((1, 2, 3))
            counts[place, row] = np.stack([both, found.sum((1, 2, 3)), truth.sum((1, 2, 3))], axis=1)
    sums = (counts * known[:, None, :, None]).sum(axis=0)
    there = sums[0, :, 2] > 0
    if not there.any():
        return Drawn()
    means = (2 * sums[:, there, 0] / (sums[:, there, 1] + sums[:, there, 2])).mean(axis=1)
    best = int(means.argmax())
    voxel_ml = (request.localizer_layout.spacing_mm or 0.0) ** 3 / 1000
    least = tuple(
        _least_ml(counts[known[:, n], best, n, 1] * voxel_ml, counts[known[:, n], best, n, 2] > 0)
        for n in range(len(findings))
    )
    return Drawn(THRESHOLDS[best], float(means[best]), least if voxel_ml else ())


def _least_ml(drawn_ml: np.ndarray, there: np.ndarray) -> float:
    """Volume that tells scans best apart; 0 where too few were held.

    Between two neighbouring volumes the geometric mean: half way would lose what is small.
    """
    if min(there.sum(), (~there).sum()) < FEWEST_JUDGED:
        return 0.0
    split = fitted_threshold(drawn_ml, there)
    below, above = drawn_ml[drawn_ml < split], drawn_ml[drawn_ml >= split]
    if not len(below) or not len(above):
        return 0.0
    return float(np.sqrt(max(below.max(), LEAST_DRAWN_ML) * max(above.min(), LEAST_DRAWN_ML)))
