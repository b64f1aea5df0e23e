"""One drawing on its way through the propagation: its window, its source of levels, its masks and their quality."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from Mem3DPropagateLib.advice import advise, pixel_slices
from Mem3DPropagateLib.confidence import bracket, expected_dice, overall
from Mem3DPropagateLib.geometry import Choice, choose_variant
from Mem3DPropagateLib.methods import Maker
from Mem3DPropagateLib.request import Axis, Drawing, PropagatedSegment, PropagateRequest, SliceMethod, SliceQuality
from Mem3DPropagateLib.shapes import Stack
from Mem3DPropagateLib.sources import Source


@dataclass(eq=False)
class Part:
    """One drawing on its way through the task, within a window around what is drawn."""

    drawing: Drawing
    request: PropagateRequest
    maker: Maker
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        geometry = self.request.volume.geometry
        axis = self.request.axis.array_axis
        spacing_mm = geometry.spacing_kji_mm
        pixel_mm = tuple(s for a, s in enumerate(spacing_mm) if a != axis)
        self.window = self.maker.window(self.drawing.masks, (pixel_mm[0], pixel_mm[1]))
        self.stack = Stack(
            np.array(self.drawing.slices),
            np.ascontiguousarray(self.drawing.masks[(slice(None), *self.window)], dtype=bool),
            (pixel_mm[0], pixel_mm[1]),
            spacing_mm[axis],
        )
        self.choice: Choice = choose_variant(self.stack)
        self._masks: dict[int, np.ndarray] = {}
        self._told: dict[int, tuple[SliceMethod, float | None]] = {}
        self._levels: tuple[int, np.ndarray] | None = None
        self.slices = range(0)
        if not self.maker.predicts_together:
            self.take(self.maker.source(self.stack, self.window, self.choice))

    def take(self, source: Source) -> None:
        """Use that source."""
        self._source = source
        self.slices = self._slices_to_fill(self.request.volume.geometry.shape_kji[self.request.axis.array_axis])

    def _slices_to_fill(self, count: int) -> range:
        first, last = self._source.span
        if self.request.extend is None and (first < 0 or last >= count):
            self.warnings.append("the structure was still open at the edge of the volume.")
        if self.request.only_slices is not None:
            first, last = max(first, self.request.only_slices[0]), min(last, self.request.only_slices[1])
        return range(max(first, 0), min(last, count - 1) + 1)

    def overlaps(self, other: Part) -> bool:
        """True where the user drew both segments over each other."""
        for index in set(self.drawing.slices) & set(other.drawing.slices):
            mine = self.drawing.masks[self.drawing.slices.index(index)]
            if (mine & other.drawing.masks[other.drawing.slices.index(index)]).any():
                return True
        return False

    def propagate(self, index: int) -> None:
        if index not in self.slices:
            return
        if index in self.drawing.slices:
            mask = self.stack.masks[self.drawing.slices.index(index)]
            self._levels = (index, np.where(mask, np.float32(np.inf), np.float32(-np.inf)))
        else:
            answer = self._source.answer(index, self.slices)
            self._levels = (index, answer.level_mm)
            self._told[index] = (answer.method, answer.expected_dice)
            mask = answer.level_mm >= 0
        self._masks[index] = mask.copy()

    def level(self, index: int) -> np.ndarray | None:
        """Level of the slice just propagated; None where this part does not reach it."""
        return self._levels[1] if self._levels is not None and self._levels[0] == index else None

    def mask(self, index: int) -> np.ndarray:
        return self._masks[index]

    def result(self, axis: Axis) -> PropagatedSegment:
        qualities = tuple(self._quality(index) for index in self.slices)
        areas = [int(np.count_nonzero(self._masks[index])) for index in self.slices]
        confidence, quality_score = overall(qualities, areas)
        block = np.stack([self._masks[index] for index in self.slices]) if self.slices else self.stack.masks[:0]
        origin = [rows_or_columns.start for rows_or_columns in self.window]
        origin.insert(axis.array_axis, self.slices.start)
        return PropagatedSegment(
            segment_id=self.drawing.segment_id,
            name=self.drawing.name,
            origin_kji=(origin[0], origin[1], origin[2]),
            block=np.ascontiguousarray(np.moveaxis(block, 0, axis.array_axis)),
            slices=qualities,
            variant=self.choice.variant.name,
            confidence=confidence,
            quality_score=quality_score,
            advice=advise(qualities, areas, self._room(), pixel_slices(self.stack.pixel_mm, self.stack.slice_mm)),
            model=self.maker.model if any(q.method is SliceMethod.MEMORY for q in qualities) else "",
        )

    def _room(self) -> tuple[int, int]:
        """Slices before and after the result into which the structure may go on."""
        if self.request.extend == 0 or not self.slices:
            return 0, 0
        count = self.request.volume.geometry.shape_kji[self.request.axis.array_axis]
        return self.slices.start, count - self.slices.stop

    def _quality(self, index: int) -> SliceQuality:
        if index in self.drawing.slices:
            return SliceQuality(index, SliceMethod.FALLBACK, 1.0, True, (index,), 0.0)
        around = bracket(self.stack.slices, index)
        method, told = self._told[index]
        return SliceQuality(
            index=index,
            method=method,
            confidence=expected_dice(self.stack, index, self._masks[index], self.choice.mean_left_out_dice, told),
            is_reference=False,
            used_slices=tuple(int(self.stack.slices[p]) for p in around.positions),
            distance_to_nearest_mm=min(around.steps) * self.stack.slice_mm,
        )


def separate(a: Part, b: Part, index: int) -> None:
    """Give every voxel both parts claim to the one that is deeper inside there; references always win."""
    level_a, level_b = a.level(index), b.level(index)
    if level_a is None or level_b is None:
        return
    both = [slice(max(x.start, y.start), min(x.stop, y.stop)) for x, y in zip(a.window, b.window, strict=True)]
    if any(s.start >= s.stop for s in both):
        return
    in_a, in_b = (_within(both, part.window) for part in (a, b))
    a_wins = level_a[in_a] >= level_b[in_b]
    shared = a.mask(index)[in_a] & b.mask(index)[in_b]
    a.mask(index)[in_a] &= ~(shared & ~a_wins)
    b.mask(index)[in_b] &= ~(shared & a_wins)


def _within(part: Iterable[slice], window: Iterable[slice]) -> tuple[slice, ...]:
    """A part of the slice in the window's own indices."""
    return tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, window, strict=True))
