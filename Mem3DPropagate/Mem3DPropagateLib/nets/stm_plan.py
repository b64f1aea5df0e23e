"""In which order slices are predicted, and what each of them may remember."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """Slices predicted one after the other, away from one reference.

    Attributes
    ----------
    reference : int
        Slice index of the reference that it begins at.
    slices : tuple of int
        In order of distance.
    is_outward : bool
        Whether no reference lies further out on that side.
    """

    reference: int
    slices: tuple[int, ...]
    is_outward: bool


def runs(references: Sequence[int], wanted: Sequence[int]) -> Iterator[Run]:
    """Every wanted slice once, each in the run of its nearest reference, with all slices on the way to it.

    Parameters
    ----------
    references : sequence of int
        Slice indices, ascending.
    wanted : sequence of int
        Slice indices; references among them are left out.
    """
    left = sorted(set(wanted) - set(references))
    for place, reference in enumerate(references):
        for side in (-1, 1):
            beyond = place + side
            is_outward = not 0 <= beyond < len(references)
            far = None if is_outward else references[beyond]
            mine = [index for index in left if (index - reference) * side > 0 and _is_nearer(index, reference, far)]
            if mine:
                farthest = mine[0] if side < 0 else mine[-1]
                yield Run(reference, tuple(range(reference + side, farthest + side, side)), is_outward)


def nearest(references: Sequence[int], index: int, count: int) -> tuple[int, ...]:
    """The references that a slice remembers, ascending: those on both sides of it, and the nearest of the others."""
    below = [reference for reference in references if reference < index][-1:]
    above = [reference for reference in references if reference > index][:1]
    others = [reference for reference in references if reference not in (*below, *above, index)]
    others.sort(key=lambda reference: (abs(reference - index), reference))
    return tuple(sorted([*below, *above, *others][: max(count, 1)]))


def _is_nearer(index: int, reference: int, far: int | None) -> bool:
    """Whether a slice belongs to this reference rather than to the next one on its side; the lower one of equals."""
    if far is None:
        return True
    ours, theirs = abs(index - reference), abs(index - far)
    if (far - reference) * (index - reference) > 0 and abs(index - reference) >= abs(far - reference):
        return False
    return ours < theirs or (ours == theirs and reference < far)
