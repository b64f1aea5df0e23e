"""Shape-based interpolation between reference slices, and caps beyond the outermost ones.

Between references the signed distances of the nearest four are interpolated per pixel by a monotone
cubic (PCHIP), after the shapes were moved a share of the way onto a common centre; the result is moved
back along a smooth path of centres and cut at the level that gives it the area a monotone cubic through
the drawn areas foretells. The distances carry the shape, the areas the size: distances alone shrink a
rounded structure too early (a ball's area is a parabola over the slices, its radius is not).

Where a structure ends (beyond the outermost reference, or towards a reference drawn empty) it is
closed by a cap: the last shape, its area falling as a spheroid's does.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from Mem3DPropagateLib.shapes import Stack, centre_px, equivalent_radius_mm, signed_distance_mm

FAR_MM = np.float32(-1e6)
"""Level of a pixel on a slice where the structure is not."""

CAP_DRIFT = 0.5
"""Share of the outermost gap's sideways motion that a cap goes on with."""


class Interpolant:
    """A structure followed through its references.

    Parameters
    ----------
    stack : Stack
        References; at least one holds a voxel.
    follow : float
        Share of the centre's motion that shapes follow, 0..1: 1 for a structure that moves sideways
        from slice to slice, 0 for one that changes where it is.
    reach : int or None
        Slices to go on beyond the outermost references; None: until the structure has closed.
    """

    def __init__(self, stack: Stack, follow: float, reach: int | None = 0) -> None:
        self._shape = stack.masks.shape[1:]
        self._runs: list[_Run] = []
        self._caps: list[_Cap] = []
        for first, stop in _neighbours_that_hold_it(stack):
            run = _Run(stack.with_masks(stack.slices[first:stop], stack.masks[first:stop]), follow)
            gap_before = int(stack.slices[first] - stack.slices[first - 1]) if first else None
            gap_after = int(stack.slices[stop] - stack.slices[stop - 1]) if stop < len(stack.slices) else None
            self._runs.append(run)
            self._caps += [_Cap(run, True, gap_before, reach), _Cap(run, False, gap_after, reach)]

    @property
    def span(self) -> tuple[int, int]:
        """First and last slice (inclusive) the structure may reach."""
        ends = [cap.last_slice for cap in self._caps]
        return min(ends), max(ends)

    def level(self, index: int) -> np.ndarray:
        """Level of one slice, float32, shape (rows, columns): >= 0 inside, roughly millimetres."""
        for run in self._runs:
            if run.first <= index <= run.last:
                return run.level(index)
        levels = [cap.level(index) for cap in self._caps if cap.covers(index)]
        return np.maximum.reduce(levels) if levels else np.full(self._shape, FAR_MM)


def _neighbours_that_hold_it(stack: Stack) -> list[tuple[int, int]]:
    """Half-open ranges of neighbouring references that hold the structure."""
    drawn = stack.holds
    edges = np.flatnonzero(np.diff(np.concatenate(([False], drawn, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


class _Run:
    """Interpolation over neighbouring references that all hold the structure."""

    def __init__(self, stack: Stack, follow: float) -> None:
        self.stack = stack
        self.first, self.last = int(stack.slices[0]), int(stack.slices[-1])
        self.areas_px = np.count_nonzero(stack.masks, axis=(1, 2)).astype(float)
        self.centres_px = np.stack([centre_px(mask) for mask in stack.masks])
        self._follow = follow
        # The gap at hand is kept: slices are asked for in order, and a gap is costly to set up.
        self._gap = lru_cache(maxsize=1)(self._make_gap)

    def level(self, index: int) -> np.ndarray:
        """Level at a slice between the first and the last reference, inclusive."""
        after = int(np.clip(np.searchsorted(self.stack.slices, index), 1, max(len(self.areas_px) - 1, 1)))
        if len(self.areas_px) == 1:
            return signed_distance_mm(self.stack.masks[0], self.stack.pixel_mm)
        return self._gap(after).level(index)

    def _make_gap(self, after: int) -> _Gap:
        # A monotone cubic's slope at a point depends on its two neighbours only: four references
        # around a gap give what all of them would.
        window = slice(max(after - 2, 0), after + 2)
        local = self.stack.with_masks(self.stack.slices[window], self.stack.masks[window])
        return _Gap(local, self.areas_px[window], self.centres_px[window], self._follow)

    def area_slope_px(self, at_first: bool) -> float:
        """Change of area per slice, outwards, at one end."""
        if self.first == self.last:
            return 0.0
        slope = PchipInterpolator(self.stack.slices, self.areas_px).derivative()
        return -float(slope(self.first)) if at_first else float(slope(self.last))

    def drift_px(self, at_first: bool) -> np.ndarray:
        """Motion of the centre per slice, outwards, at one end: mean over the outermost gap."""
        if self.first == self.last:
            return np.zeros(2)
        inner, outer = (1, 0) if at_first else (-2, -1)
        gap = abs(int(self.stack.slices[inner] - self.stack.slices[outer]))
        return (self.centres_px[outer] - self.centres_px[inner]) / gap


class _Gap:
    """Interpolation between two references, set up from them and one neighbour on each side."""

    def __init__(self, stack: Stack, areas_px: np.ndarray, centres_px: np.ndarray, follow: float) -> None:
        offsets_px = follow * (centres_px - centres_px.mean(axis=0))
        self._pad = int(np.ceil(np.abs(offsets_px).max())) + 1
        padded = np.pad(stack.masks, ((0, 0), (self._pad,) * 2, (self._pad,) * 2))
        distances = [
            _moved(signed_distance_mm(mask, stack.pixel_mm), -offset)
            for mask, offset in zip(padded, offsets_px, strict=True)
        ]
        self._distance_mm = PchipInterpolator(stack.slices, np.stack(distances), axis=0)
        self._offset_px = PchipInterpolator(stack.slices, offsets_px, axis=0)
        self._area_px = PchipInterpolator(stack.slices, areas_px)

    def level(self, index: int) -> np.ndarray:
        level = _moved(self._distance_mm(index).astype(np.float32), self._offset_px(index))
        inner = level[self._pad : -self._pad, self._pad : -self._pad]
        return cut_at_area(inner, float(self._area_px(index)))


class _Cap:
    """The closing of a run at one end.

    Parameters
    ----------
    run : _Run
    at_first : bool
        The end towards lower slice indices, or the other.
    gap : int or None
        Slices to the neighbouring reference, drawn empty; None where there is none. The structure is
        then taken to end half-way.
    reach : int or None
        See `Interpolant`; for an end without such a neighbour.
    """

    def __init__(self, run: _Run, at_first: bool, gap: int | None, reach: int | None) -> None:
        self._run = run
        self._at_first = at_first
        self._end = run.first if at_first else run.last
        position = 0 if at_first else -1
        self._area_px = float(run.areas_px[position])
        self._mask = run.stack.masks[position]
        self._least_px = 0.0
        if gap is not None:
            self._closes_after = 0.5 * gap
            self._steps = gap - 1
        elif reach is None:
            self._closes_after = self._natural_length()
            self._steps = max(int(np.ceil(self._closes_after)) - 1, 0)
        else:
            # A stated number of slices is filled even where the structure would have closed before.
            self._closes_after = max(self._natural_length(), reach + 1.0)
            self._steps = reach
            self._least_px = 1.0

    def _natural_length(self) -> float:
        """Slices until the structure has closed: a half ball, or sooner where its area already falls."""
        stack = self._run.stack
        ball = equivalent_radius_mm(self._area_px, stack.pixel_mm) / stack.slice_mm
        slope_px = self._run.area_slope_px(self._at_first)
        return min(ball, self._area_px / -slope_px) if slope_px < 0 else ball

    @property
    def last_slice(self) -> int:
        return self._end - self._steps if self._at_first else self._end + self._steps

    def covers(self, index: int) -> bool:
        steps = self._end - index if self._at_first else index - self._end
        return 0 < steps <= self._steps

    def level(self, index: int) -> np.ndarray:
        steps = min(abs(index - self._end), self._closes_after)
        area_px = max(self._area_px * (1.0 - (steps / self._closes_after) ** 2), self._least_px)
        distance_mm = signed_distance_mm(self._mask, self._run.stack.pixel_mm)
        return cut_at_area(_moved(distance_mm, CAP_DRIFT * steps * self._run.drift_px(self._at_first)), area_px)


def cut_at_area(level: np.ndarray, area_px: float) -> np.ndarray:
    """Shift a level so that ``area_px`` pixels (rounded) lie at or above 0; far below 0 for none."""
    wanted = min(round(area_px), level.size)
    if wanted < 1:
        return np.full(level.shape, FAR_MM)
    flat = level.ravel()
    return level - np.partition(flat, flat.size - wanted)[flat.size - wanted]


def _moved(image: np.ndarray, by_px: np.ndarray) -> np.ndarray:
    """An image moved by a fraction of pixels (row, column), linear, its border repeated."""
    if not np.any(by_px):
        return image
    return ndimage.shift(image, by_px, order=1, mode="nearest")
