"""The propagation task: drawings in, whole structures out, with a confidence for every slice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from MedAILib.errors import InputError, NothingDrawn
from MedAILib.jobs.task import Context
from Mem3DPropagateLib.advice import advise
from Mem3DPropagateLib.confidence import bracket, expected_dice, overall
from Mem3DPropagateLib.geometry import Choice, FittedVariant, choose_variant
from Mem3DPropagateLib.request import (
    Axis,
    Drawing,
    PropagatedSegment,
    PropagateRequest,
    PropagateResult,
    SliceMethod,
    SliceQuality,
)
from Mem3DPropagateLib.shapes import Stack, window_around


class PropagateTask:
    """Propagates every drawing of a request; references come back as they were drawn."""

    def run(self, request: PropagateRequest, context: Context) -> PropagateResult:
        """Run the request.

        Raises
        ------
        NothingDrawn
            A drawing has no voxel on any of its slices.
        InputError
            Slices out of range or masks of another size than the volume's slices.
        Cancelled
        """
        validate(request)
        parts = []
        for number, drawing in enumerate(request.drawings):
            context.progress("Comparing methods", 0.3 * number / len(request.drawings))
            parts.append(_Part(drawing, request))
        apart = [(a, b) for a, b in itertools.combinations(parts, 2) if not a.overlaps(b)]

        slices = sorted(set().union(*(part.slices for part in parts)))
        for number, index in enumerate(slices):
            context.progress("Propagating", 0.3 + 0.65 * number / len(slices))
            for part in parts:
                part.propagate(index)
            for a, b in apart:
                _separate(a, b, index)

        context.progress("Measuring confidence", 0.95)
        segments = tuple(part.result(request.axis) for part in parts)
        warnings = tuple(f"{part.drawing.name}: {text}" for part in parts for text in part.warnings)
        for text in warnings:
            context.warn(text)
        return PropagateResult(request.axis, segments, warnings)


def validate(request: PropagateRequest) -> None:
    """Say every problem of a request at once."""
    shape = request.volume.geometry.shape_kji
    count = shape[request.axis.array_axis]
    plane = tuple(n for axis, n in enumerate(shape) if axis != request.axis.array_axis)
    problems = []
    if not request.drawings:
        problems.append("no segment is given")
    for drawing in request.drawings:
        if list(drawing.slices) != sorted(set(drawing.slices)) or len(drawing.slices) != len(drawing.masks):
            problems.append(f"the slices of '{drawing.name}' are not ascending or do not match its masks")
        outside = [s for s in drawing.slices if not 0 <= s < count]
        if outside:
            problems.append(f"slices {outside} of '{drawing.name}' lie outside the volume (0 to {count - 1})")
        if drawing.masks.shape[1:] != plane:
            problems.append(f"masks of '{drawing.name}' are {drawing.masks.shape[1:]}, slices of the volume {plane}")
    if request.extend is not None and request.extend < 0:
        problems.append(f"extend is {request.extend}; it must be 0 or more")
    if problems:
        raise InputError("The propagation cannot start: " + "; ".join(problems) + ".")
    empty = [drawing.name for drawing in request.drawings if not drawing.masks.any()]
    if empty:
        raise NothingDrawn(
            f"Nothing is drawn on any reference slice of {', '.join(repr(name) for name in empty)}.",
            why="The segment is empty, or only slices were named on which it is.",
            todo="Draw the structure on three to five slices first, its middle and its ends among them.",
        )


@dataclass(eq=False)
class _Part:
    """One drawing on its way through the task, within a window around what is drawn."""

    drawing: Drawing
    request: PropagateRequest
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        geometry = self.request.volume.geometry
        axis = self.request.axis.array_axis
        spacing_mm = geometry.spacing_kji_mm
        pixel_mm = tuple(s for a, s in enumerate(spacing_mm) if a != axis)
        self.window = window_around(self.drawing.masks)
        self.stack = Stack(
            np.array(self.drawing.slices),
            np.ascontiguousarray(self.drawing.masks[(slice(None), *self.window)], dtype=bool),
            (pixel_mm[0], pixel_mm[1]),
            spacing_mm[axis],
        )
        self.choice: Choice = choose_variant(self.stack)
        reach = self.request.extend
        self._fitted = FittedVariant(self.choice.variant, self.stack, reach)
        self._masks: dict[int, np.ndarray] = {}
        self._levels: tuple[int, np.ndarray] | None = None
        self.slices = self._slices_to_fill(geometry.shape_kji[axis])

    def _slices_to_fill(self, count: int) -> range:
        first, last = self._fitted.span
        if self.request.only_slices is not None:
            first, last = max(first, self.request.only_slices[0]), min(last, self.request.only_slices[1])
        clipped = range(max(first, 0), min(last, count - 1) + 1)
        if self.request.extend is None and (first < 0 or last >= count):
            self.warnings.append("the structure was still open at the edge of the volume.")
        return clipped

    def overlaps(self, other: _Part) -> bool:
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
            self._levels = (index, self._fitted.level(index))
            mask = self._levels[1] >= 0
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
            advice=advise(qualities, areas),
        )

    def _quality(self, index: int) -> SliceQuality:
        if index in self.drawing.slices:
            return SliceQuality(index, SliceMethod.FALLBACK, 1.0, True, (index,), 0.0)
        around = bracket(self.stack.slices, index)
        return SliceQuality(
            index=index,
            method=SliceMethod.FALLBACK,
            confidence=expected_dice(self.stack, index, self._masks[index], self.choice.mean_left_out_dice),
            is_reference=False,
            used_slices=tuple(int(self.stack.slices[p]) for p in around.positions),
            distance_to_nearest_mm=min(around.steps) * self.stack.slice_mm,
        )


def _separate(a: _Part, b: _Part, index: int) -> None:
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
