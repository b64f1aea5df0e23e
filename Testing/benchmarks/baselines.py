"""What users would do instead of our interpolation: copying and the plain interpolations others use.

Each takes masks of shape (slices, rows, columns) of which only the references are looked at, the
references' indices and the spacings, and answers all slices.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline, PchipInterpolator

from Mem3DPropagateLib.shapes import centre_px, signed_distance_mm

Baseline = Callable[[np.ndarray, np.ndarray, tuple[float, float], float], np.ndarray]


def copying(truth: np.ndarray, references: np.ndarray, pixel_mm: tuple[float, float], slice_mm: float) -> np.ndarray:
    """Every slice is a copy of its nearest reference."""
    nearest = np.abs(np.arange(len(truth))[:, None] - references[None]).argmin(axis=1)
    return _between(truth[references[nearest]], references)


def linear_mean(
    truth: np.ndarray, references: np.ndarray, pixel_mm: tuple[float, float], slice_mm: float
) -> np.ndarray:
    """Linear mean of the two neighbouring masks, cut at one half."""
    return _pairwise(truth, references, lambda mask: mask.astype(np.float32) - np.float32(0.5), inclusive=True)


def signed_distances(
    truth: np.ndarray, references: np.ndarray, pixel_mm: tuple[float, float], slice_mm: float
) -> np.ndarray:
    """Linear mean of the two neighbouring signed distances (Raya and Udupa 1990)."""
    return _pairwise(truth, references, lambda mask: _distance_or_far(mask, pixel_mm))


def signed_distances_centred(
    truth: np.ndarray, references: np.ndarray, pixel_mm: tuple[float, float], slice_mm: float
) -> np.ndarray:
    """Linear mean of signed distances after moving both shapes onto a common, linearly moving centre."""
    result = np.zeros(truth.shape, bool)
    pad = max(truth.shape[1:]) // 2
    for a, b in itertools.pairwise(references):
        drawn = [q for q in (a, b) if truth[q].any()]
        ca, cb = (centre_px(truth[q if q in drawn else drawn[0]]) if drawn else np.zeros(2) for q in (a, b))
        wide = [_distance_or_far(np.pad(truth[q], pad), pixel_mm) for q in (a, b)]
        for q in range(int(a), int(b) + 1):
            share = (q - a) / (b - a)
            centre = (1 - share) * ca + share * cb
            moved = [ndimage.shift(d, centre - c, order=1, mode="nearest") for d, c in zip(wide, (ca, cb), strict=True)]
            result[q] = ((1 - share) * moved[0] + share * moved[1])[pad:-pad, pad:-pad] > 0
    return result


def cubic_distances(
    truth: np.ndarray, references: np.ndarray, pixel_mm: tuple[float, float], slice_mm: float
) -> np.ndarray:
    """Monotone cubic through the signed distances of all references, moved along a smooth path of centres."""
    drawn = np.array([truth[q].any() for q in references])
    centres = np.stack([centre_px(truth[q]) for q in references[drawn]])
    centres = np.column_stack([np.interp(references, references[drawn], centres[:, a]) for a in (0, 1)])
    home = centres.mean(axis=0)
    pad = int(np.ceil(np.abs(centres - home).max())) + 2
    distances = [
        ndimage.shift(_distance_or_far(np.pad(truth[q], pad), pixel_mm), home - c, order=1, mode="nearest")
        for q, c in zip(references, centres, strict=True)
    ]
    level, path = PchipInterpolator(references, np.stack(distances), axis=0), CubicSpline(references, centres)
    result = np.zeros(truth.shape, bool)
    for q in range(int(references[0]), int(references[-1]) + 1):
        moved = ndimage.shift(level(q), path(q) - home, order=1, mode="nearest")
        result[q] = moved[pad:-pad, pad:-pad] > 0
    return result


def nearest_three(
    truth: np.ndarray, references: np.ndarray, pixel_mm: tuple[float, float], slice_mm: float
) -> np.ndarray:
    """The public Mem3D service's fallback: its three nearest masks weighted by exp(-0.3 x mm), cut at 0.3, smoothed."""
    cross = np.ones((3, 3), bool)
    result = np.zeros(truth.shape, bool)
    for q in range(len(truth)):
        distance_mm = np.abs(references - q) * slice_mm
        near = np.argsort(distance_mm, kind="stable")[:3]
        weights = np.exp(-0.3 * distance_mm[near]) + 1e-300
        mean = np.tensordot(weights / weights.sum(), truth[references[near]].astype(float), axes=1)
        result[q] = ndimage.binary_opening(ndimage.binary_closing(mean > 0.3, cross), cross)
    return _between(result, references)


BASELINES: dict[str, Baseline] = {
    "copying": copying,
    "linear": linear_mean,
    "nearest 3": nearest_three,
    "distances": signed_distances,
    "centred": signed_distances_centred,
    "cubic": cubic_distances,
}


def _pairwise(
    truth: np.ndarray, references: np.ndarray, level: Callable[[np.ndarray], np.ndarray], inclusive: bool = False
) -> np.ndarray:
    result = np.zeros(truth.shape, bool)
    for a, b in itertools.pairwise(references):
        below, above = level(truth[a]), level(truth[b])
        for q in range(int(a), int(b) + 1):
            share = (q - a) / (b - a)
            mean = (1 - share) * below + share * above
            result[q] = mean >= 0 if inclusive else mean > 0
    return result


def _distance_or_far(mask: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    """Signed distances; far outside everywhere on an empty slice."""
    return signed_distance_mm(mask, pixel_mm) if mask.any() else np.full(mask.shape, np.float32(-1e3))


def _between(result: np.ndarray, references: np.ndarray) -> np.ndarray:
    result[: references[0]] = False
    result[references[-1] + 1 :] = False
    return result
