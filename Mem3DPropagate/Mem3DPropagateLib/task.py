"""The propagation task: drawings in, whole structures out, with a confidence for every slice."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from MedAILib.errors import InputError, NothingDrawn
from MedAILib.jobs.task import Context
from Mem3DPropagateLib.methods import Maker
from Mem3DPropagateLib.part import Part, separate
from Mem3DPropagateLib.request import PropagateRequest, PropagateResult


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
        maker = Maker(request, context)
        with maker.computing():
            return self._propagate(request, maker, context)

    def _propagate(self, request: PropagateRequest, maker: Maker, context: Context) -> PropagateResult:
        parts = []
        for number, drawing in enumerate(request.drawings):
            context.progress("Comparing methods", 0.3 * number / len(request.drawings))
            parts.append(Part(drawing, request, maker))
        if maker.predicts_together:
            _predict(parts, maker, context)
        apart = [(a, b) for a, b in itertools.combinations(parts, 2) if not a.overlaps(b)]

        slices = sorted(set().union(*(part.slices for part in parts)))
        for number, index in enumerate(slices):
            context.progress("Propagating", 0.3 + 0.65 * number / len(slices))
            for part in parts:
                part.propagate(index)
            for a, b in apart:
                separate(a, b, index)

        context.progress("Measuring confidence", 0.95)
        segments = tuple(part.result(request.axis) for part in parts)
        for text in (f"{part.drawing.name}: {text}" for part in parts for text in part.warnings):
            context.warn(text)
        return PropagateResult(request.axis, segments, tuple(context.warnings))


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


def _predict(parts: Sequence[Part], maker: Maker, context: Context) -> None:
    """Let a memory network predict all slices, the structures drawn on the same slices together."""
    groups: dict[tuple[int, ...], list[Part]] = {}
    for part in parts:
        groups.setdefault(part.drawing.slices, []).append(part)
    for group in groups.values():
        predicted = maker.predicted(
            [part.stack for part in group],
            [part.window for part in group],
            lambda number: context.progress("Predicting", 0.3, f"slice {number + 1}"),
        )
        for part, source in zip(group, predicted, strict=True):
            part.take(source)
