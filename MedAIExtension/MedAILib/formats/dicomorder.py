"""Slices into the order of their positions, and whether they make one regular stack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from MedAILib.errors import UnreadableFile
from MedAILib.formats.dicomslice import DicomSlice

_Key = TypeVar("_Key", bound=Hashable)

_SAME_POSITION_MM = 1e-3
_STEP_TOLERANCE = 0.02
"""Of the slice distance: positions in headers are rounded, table positions vary a little."""
_STEP_TOLERANCE_MM = 0.02
_NAMED_AT_MOST = 12


def sorted_slices(slices: Sequence[DicomSlice]) -> list[DicomSlice]:
    """Slices in the direction of their normal, checked to be one regular stack.

    Raises
    ------
    UnreadableFile
        Missing or doubled slices, mixed sizes, spacings or steps; the files are named.
    """
    _check_same(slices, lambda part: part.shape, "sizes (rows, columns)")
    _check_same(slices, lambda part: tuple(round(mm, 4) for mm in part.spacing_mm), "pixel spacings in mm")
    ordered = sorted(slices, key=lambda part: (part.along_normal_mm, str(part.path), part.frame))
    steps = np.diff([part.along_normal_mm for part in ordered])
    _check_doubles(ordered, steps)
    if len(ordered) > 2:
        _check_steps(ordered, steps)
    return ordered


def repeats(slices: Sequence[DicomSlice]) -> bool:
    """Whether two of the slices lie at the same position."""
    along = np.sort([part.along_normal_mm for part in slices])
    return bool((np.diff(along) < _SAME_POSITION_MM).any())


def grouped(slices: Iterable[DicomSlice], key: Callable[[DicomSlice], _Key]) -> dict[_Key, list[DicomSlice]]:
    """Slices by what the key says of them, in the order met."""
    groups: dict[_Key, list[DicomSlice]] = defaultdict(list)
    for part in slices:
        groups[key(part)].append(part)
    return dict(groups)


def _check_same(slices: Sequence[DicomSlice], key: Callable[[DicomSlice], Hashable], what: str) -> None:
    groups = grouped(slices, key)
    if len(groups) > 1:
        listed = "; ".join(f"{value}: {_named(parts)}" for value, parts in groups.items())
        raise UnreadableFile(
            f"The slices of this series do not make one volume: they have different {what}.",
            why=f"{listed}.",
            todo="Move the slices that do not belong to it out of the folder.",
        )


def _check_doubles(ordered: Sequence[DicomSlice], steps: np.ndarray) -> None:
    doubled = np.flatnonzero(steps < _SAME_POSITION_MM)
    if doubled.size:
        pairs = [f"{ordered[n].name} and {ordered[n + 1].name}" for n in doubled[:_NAMED_AT_MOST]]
        raise UnreadableFile(
            f"This series has {doubled.size} slices twice, at the same position.",
            why="; ".join(pairs) + (" and more." if doubled.size > _NAMED_AT_MOST else "."),
            todo="Remove the copies, or separate the acquisitions into folders of their own.",
        )


def _check_steps(ordered: Sequence[DicomSlice], steps: np.ndarray) -> None:
    """Every step between neighbours must be the usual one; a multiple of it means missing slices."""
    usual = float(np.median(steps))
    tolerance = max(_STEP_TOLERANCE * usual, _STEP_TOLERANCE_MM)
    odd = np.flatnonzero(np.abs(steps - usual) > tolerance)
    if not odd.size:
        _check_straight(ordered, tolerance)
        return
    counts = np.rint(steps[odd] / usual).astype(int)
    missing = bool((counts > 1).all() and (np.abs(steps[odd] - counts * usual) <= tolerance * counts).all())
    listed = [
        (f"{count - 1} missing" if missing else f"{steps[n]:.3f} mm")
        + f" between {ordered[n].name} and {ordered[n + 1].name}"
        for n, count in zip(odd[:_NAMED_AT_MOST], counts, strict=False)
    ]
    lost = int((counts - 1).sum())
    raise UnreadableFile(
        ("1 slice of this series is missing." if lost == 1 else f"{lost} slices of this series are missing.")
        if missing
        else f"The slices of this series are not evenly spaced: most are {usual:.3f} mm apart.",
        why="; ".join(listed) + (" and more." if odd.size > _NAMED_AT_MOST else "."),
        todo="Export the series again completely, or resample it to even slices first.",
    )


def _check_straight(ordered: Sequence[DicomSlice], tolerance_mm: float) -> None:
    """Origins must lie on one line; it may be tilted against the slices (CT with a tilted gantry)."""
    origins = np.array([part.position_lps_mm for part in ordered])
    along = np.linspace(0.0, 1.0, len(ordered))[:, None]
    off_mm = np.linalg.norm(origins - (origins[0] + along * (origins[-1] - origins[0])), axis=1)
    worst = int(off_mm.argmax())
    if off_mm[worst] > max(tolerance_mm, 0.1 * min(ordered[0].spacing_mm)):
        raise UnreadableFile(
            "The slices of this series do not lie on a straight line.",
            why=f"{ordered[worst].name} is {off_mm[worst]:.2f} mm aside.",
            todo="Resample the series to a straight stack first.",
        )


def _named(slices: Sequence[DicomSlice]) -> str:
    names = ", ".join(part.name for part in slices[:_NAMED_AT_MOST])
    return names + (f" and {len(slices) - _NAMED_AT_MOST} more" if len(slices) > _NAMED_AT_MOST else "")
