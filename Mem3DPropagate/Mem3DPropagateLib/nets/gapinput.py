"""What our network is shown: a working grid around the structure, image planes on it, and plain numbers.

Training and propagation make the input with the same functions, so that the network meets what it was trained on.
Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

STRIDE = 8
"""Rows and columns of the working grid are multiples of it."""

ROOM = 1.6
"""Side of the working grid in terms of the structure's."""

WIDEST_PX = 112
"""Side of the working grid at most, rounded up to `STRIDE`."""

FINEST = 0.5
"""Working pixels are at least this share of the image's own."""

RING_PX = 8.0
"""Width of the surroundings a structure is told apart from, in working pixels."""

BINS = 32
LEAST_SHARE = 0.004
"""Of a bin's probability: what was never seen is unlikely, not impossible."""
LARGEST_RATIO = 3.0
"""Log likelihood ratios are clipped to it and divided by it."""
BRIGHTEST = 1.5
"""Brightness is -1..1 over the structure and its surroundings and clipped to this."""

FARTHEST_PX = 16.0
"""Signed distances are clipped to it."""


@dataclass(frozen=True)
class WorkingGrid:
    """Square pixels over a window of a slice.

    Attributes
    ----------
    origin_px : tuple of float
        Row and column, in the slice's pixels, of the first working pixel's centre.
    step_px : tuple of float
        Rows and columns of the slice per working pixel.
    shape : tuple of int
        Working rows and columns, multiples of `STRIDE`.
    pixel_mm : float
    """

    origin_px: tuple[float, float]
    step_px: tuple[float, float]
    shape: tuple[int, int]
    pixel_mm: float

    @classmethod
    def around(cls, masks: np.ndarray, pixel_mm: tuple[float, float], room: float = ROOM) -> WorkingGrid:
        """The grid around what masks, shape (n, rows, columns), hold; at least one holds a pixel."""
        drawn = np.asarray(masks.any(axis=0))
        spans = [np.flatnonzero(drawn.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
        sides_mm = [(last - first + 1) * mm for (first, last), mm in zip(spans, pixel_mm, strict=True)]
        roomy_mm = [side * room for side in sides_mm]
        pixel = max(max(roomy_mm) / WIDEST_PX, FINEST * min(pixel_mm))
        shape = [_rounded_up(side / pixel + 2 * RING_PX * (pixel > max(roomy_mm) / WIDEST_PX)) for side in roomy_mm]
        step = [pixel / mm for mm in pixel_mm]
        centre = [(first + last) / 2 for first, last in spans]
        origin = [c - s * (n - 1) / 2 for c, s, n in zip(centre, step, shape, strict=True)]
        return cls((origin[0], origin[1]), (step[0], step[1]), (shape[0], shape[1]), float(pixel))

    def sample(self, image: np.ndarray) -> np.ndarray:
        """A slice on this grid, linear, averaged where its pixels are finer: float32. Its border goes on beyond it."""
        image = np.asarray(image, np.float32)
        blur = [0.35 * step if step > 1.25 else 0.0 for step in self.step_px]
        if any(blur):
            image = ndimage.gaussian_filter(image, blur, mode="nearest", truncate=2.5)
        return ndimage.affine_transform(
            image, self.step_px, self.origin_px, self.shape, np.float32, 1, "nearest", prefilter=False
        )

    def back(self, image: np.ndarray, shape: tuple[int, int], outside: float) -> np.ndarray:
        """An image on this grid back in the pixels of a slice of that shape, linear; float32."""
        step = [1.0 / s for s in self.step_px]
        origin = [-o / s for o, s in zip(self.origin_px, self.step_px, strict=True)]
        image = np.asarray(image, np.float32)
        return ndimage.affine_transform(image, step, origin, shape, np.float32, 1, "constant", outside, prefilter=False)

    def within(self, shape: tuple[int, ...], margin_px: int = 3) -> tuple[slice, slice]:
        """Rows and columns of a slice of that shape which this grid covers."""
        parts = []
        for origin, step, count, length in zip(self.origin_px, self.step_px, self.shape, shape, strict=True):
            first = int(np.floor(origin)) - margin_px
            last = int(np.ceil(origin + step * (count - 1))) + margin_px
            parts.append(slice(min(max(first, 0), length - 1), max(min(last + 1, length), 1)))
        return parts[0], parts[1]

    def moved(self, rows: int, columns: int) -> WorkingGrid:
        """The grid as seen from a window of the slice that begins at that row and column."""
        origin = (self.origin_px[0] - rows, self.origin_px[1] - columns)
        return WorkingGrid(origin, self.step_px, self.shape, self.pixel_mm)


def _rounded_up(side_px: float) -> int:
    return max(int(np.ceil(side_px / STRIDE)), 2) * STRIDE


@dataclass(frozen=True, eq=False)
class Appearance:
    """How a structure looks on its references: brightness range, and how likely a brightness is inside it.

    Attributes
    ----------
    low, high : float
        Image values that become -1 and 1: the range of the structure and its surroundings.
    log_ratio : ndarray, shape (BINS,), float32
        Log likelihood ratio, inside against around, over -`BRIGHTEST`..`BRIGHTEST`; scaled to -1..1.
    """

    low: float
    high: float
    log_ratio: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, distances_px: np.ndarray) -> Appearance:
        """The look of references.

        Parameters
        ----------
        images, distances_px : ndarray, shape (n, rows, columns), float32
            Image values and signed distances (positive inside) on the working grid.
        """
        inside = images[distances_px >= 0]
        around = images[(distances_px < 0) & (distances_px > -RING_PX)]
        if not inside.size or not around.size:
            inside = around = images.ravel()
        ends = np.concatenate([np.percentile(part, (3, 97)) for part in (inside, around)])
        low, high = float(ends.min()), float(ends.max())
        if high <= low:
            high = low + 1.0
        scaled = [_brightness(part, low, high) for part in (inside, around)]
        shares = [_smooth_shares(part) for part in scaled]
        ratio = np.clip(np.log(shares[0] / shares[1]), -LARGEST_RATIO, LARGEST_RATIO) / LARGEST_RATIO
        return cls(low, high, ratio.astype(np.float32))

    def planes(self, before: np.ndarray, here: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Input planes of slices, each shape (n, rows, columns): float32, shape (n, 4, rows, columns)."""
        images = [_brightness(image, self.low, self.high) for image in (here, before, after)]
        place = (images[0] + BRIGHTEST) * (BINS / (2 * BRIGHTEST)) - 0.5
        below = np.clip(np.floor(place).astype(np.intp), 0, BINS - 2)
        share = np.clip(place - below, 0, 1).astype(np.float32)
        likely = self.log_ratio[below] * (1 - share) + self.log_ratio[below + 1] * share
        return np.stack((*images, likely), axis=1)


def _brightness(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((image - np.float32(low)) * np.float32(2 / (high - low)) - 1, -BRIGHTEST, BRIGHTEST)


def _smooth_shares(values: np.ndarray) -> np.ndarray:
    counts = np.histogram(values, BINS, (-BRIGHTEST, BRIGHTEST))[0].astype(float)
    return ndimage.gaussian_filter1d(counts / max(counts.sum(), 1.0), 1.0, mode="nearest") + LEAST_SHARE


def clipped(distance_px: np.ndarray) -> np.ndarray:
    """Signed distances within `FARTHEST_PX`: float32."""
    return np.clip(distance_px, -FARTHEST_PX, FARTHEST_PX).astype(np.float32)


def shape_planes(distances_px: np.ndarray) -> np.ndarray:
    """Planes of drawn references from their signed distances: float32, shape (n, 2, rows, columns)."""
    return np.stack((clipped(distances_px) / 8, (distances_px >= 0).astype(np.float32)), axis=1)


@dataclass(frozen=True)
class Whereabouts:
    """Where a wanted slice lies among what is known.

    Attributes
    ----------
    steps : int
        Slices to the nearest reference.
    near_px : float
        Distance to it, in working pixels; in a roll-out, to the slice that the prior comes from.
    far_px : float or None
        Distance to the reference on the other side; None where there is none.
    drawn_px : float
        Distance to the nearest slice the user drew.
    """

    steps: int
    near_px: float
    far_px: float | None
    drawn_px: float

    def scalars(self, prior_px: np.ndarray) -> np.ndarray:
        """The numbers the network is told, with the prior's signed distance: float32, shape (7,)."""
        radius_px = float(np.sqrt(np.count_nonzero(prior_px >= 0) / np.pi))
        return np.array(
            (
                np.log1p(self.near_px) / 3,
                0.0 if self.far_px is None else np.log1p(self.far_px) / 3,
                float(self.far_px is None),
                np.log1p(self.steps) / 2,
                np.log1p(radius_px) / 4,
                np.log1p(self.near_px / (radius_px + 1)),
                np.log1p(self.drawn_px) / 3,
            ),
            np.float32,
        )
