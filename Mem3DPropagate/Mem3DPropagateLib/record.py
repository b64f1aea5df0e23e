"""What is remembered of a propagation in a segment's tag, so that work goes on after saving and loading.

Each slice's fingerprint tells later which slices the user has drawn or corrected since.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace

import numpy as np

from MedAILib.errors import InputError
from Mem3DPropagateLib.advice import advise, pixel_slices
from Mem3DPropagateLib.confidence import overall
from Mem3DPropagateLib.request import Advice, Axis, PropagatedSegment, SliceMethod, SliceQuality
from Mem3DPropagateLib.shapes import holds

TAG = "MedAI.Propagation"
VERSION = 1


@dataclass(frozen=True)
class Record:
    """The last propagation of a segment.

    Attributes
    ----------
    axis : Axis
    run_id : str
        Of the run that made it; the run report bears the same.
    variant : str
    extend : int or None
    shape_kji : tuple of int
    ijk_to_local : tuple of tuple of float
        The voxel grid whose slices are counted: its shape, and its 4 x 4 matrix from (i, j, k) to the
        segmentation node's own RAS millimetres.
    slices : tuple of SliceQuality
    fingerprints : mapping of int to int
        By slice index, of the segment as it was written.
    confidence, quality_score : float
        As of `PropagatedSegment`.
    advice : Advice
    model : str
        Id of the network that answered slices; empty where none did.
    """

    axis: Axis
    run_id: str
    variant: str
    extend: int | None
    shape_kji: tuple[int, int, int]
    ijk_to_local: tuple[tuple[float, ...], ...]
    slices: tuple[SliceQuality, ...]
    fingerprints: Mapping[int, int]
    confidence: float
    quality_score: float
    advice: Advice
    model: str = ""

    @property
    def references(self) -> tuple[int, ...]:
        return tuple(q.index for q in self.slices if q.is_reference)

    def to_json(self) -> str:
        """Compact JSON for a segment's tag."""
        stored = asdict(self)
        stored["axis"] = self.axis.value
        stored["slices"] = [
            [q.index, q.method.value, round(q.confidence, 4), q.is_reference, q.used_slices, q.distance_to_nearest_mm]
            for q in self.slices
        ]
        return json.dumps({"version": VERSION, **stored}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read a tag.

        Raises
        ------
        InputError
            Not ours, damaged, or of a newer version.
        """
        try:
            stored = json.loads(text)
            if stored.pop("version") != VERSION:
                raise ValueError("another version")
            return cls(
                **{
                    **stored,
                    "axis": Axis(stored["axis"]),
                    "shape_kji": _shape(stored["shape_kji"]),
                    "ijk_to_local": _rows(stored["ijk_to_local"]),
                    "slices": tuple(
                        SliceQuality(index, SliceMethod(method), confidence, is_reference, tuple(used), distance)
                        for index, method, confidence, is_reference, used, distance in stored["slices"]
                    ),
                    "fingerprints": {int(index): value for index, value in stored["fingerprints"].items()},
                    "advice": Advice(**stored["advice"]),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "What this segment remembers of its last propagation cannot be read.",
                why="It was written by a newer version of MedAI, or changed by hand.",
                todo=f"Remove the segment's tag '{TAG}' to start afresh; all drawn slices then count as references.",
            ) from error


def changed_slices(record: Record, mask_kji: np.ndarray) -> tuple[set[int], set[int]]:
    """What the user has done to a segment since: slices drawn or corrected, slices emptied.

    Parameters
    ----------
    record : Record
    mask_kji : ndarray, shape (k, j, i), bool
        The segment as it is now, on the volume's grid.
    """
    now = fingerprints(mask_kji, record.axis)
    drawn = {index for index, value in now.items() if record.fingerprints.get(index) != value}
    return drawn, {index for index, value in record.fingerprints.items() if value != EMPTY and index not in now}


def fingerprints(mask_kji: np.ndarray, axis: Axis) -> dict[int, int]:
    """Fingerprints of all slices that hold a voxel, by slice index."""
    planes = np.moveaxis(mask_kji, axis.array_axis, 0)
    return {int(index): fingerprint(planes[index]) for index in np.flatnonzero(holds(planes))}


def fingerprint(mask: np.ndarray) -> int:
    """A number that changes with any voxel of a whole slice: bool, shape (rows, columns)."""
    return zlib.crc32(np.flatnonzero(mask).astype(np.int64).tobytes())


EMPTY = fingerprint(np.zeros((1, 1), bool))


def new_record(
    segment: PropagatedSegment,
    mask_kji: np.ndarray,
    axis: Axis,
    run_id: str,
    extend: int | None,
    ijk_to_local: np.ndarray,
) -> Record:
    """The record of a result.

    Parameters
    ----------
    segment : PropagatedSegment
    mask_kji : ndarray, shape (k, j, i), bool
        The segment after it was written.
    axis, run_id, extend, ijk_to_local
        See `Record`.
    """
    written = fingerprints(mask_kji, axis)
    here = {q.index: written.get(q.index, EMPTY) for q in segment.slices}
    return Record(
        axis=axis,
        run_id=run_id,
        variant=segment.variant,
        extend=extend,
        shape_kji=_shape(mask_kji.shape),
        ijk_to_local=_rows(ijk_to_local.tolist()),
        slices=segment.slices,
        fingerprints=here,
        confidence=segment.confidence,
        quality_score=segment.quality_score,
        advice=segment.advice,
        model=segment.model,
    )


def gaps_around(changed: Set[int], references: Iterable[int], count: int) -> frozenset[int]:
    """Slices from the last unchanged reference before each changed slice to the first one after it.

    Parameters
    ----------
    changed : set of int
        Slices drawn, corrected or emptied.
    references : iterable of int
        All references as they are now.
    count : int
        Slices of the volume: where no reference follows a gap goes on to its edge.
    """
    unchanged = sorted(set(references) - changed)
    gaps: set[int] = set()
    for index in changed:
        first = max((r for r in unchanged if r < index), default=0)
        last = min((r for r in unchanged if r > index), default=count - 1)
        gaps.update(range(first, last + 1))
    return frozenset(gaps)


def merged(record: Record, update: Record, gaps: Set[int], mask_kji: np.ndarray) -> Record:
    """A record after a correction: the update within the gaps, the rest as it was; judged and advised on anew."""
    kept = {q.index: q for q in record.slices if q.index not in gaps}
    new = {q.index: q for q in update.slices if q.index in gaps}
    slices = tuple(q for _, q in sorted({**kept, **new}.items()))
    fingerprints_of = {q.index: (update if q.index in gaps else record).fingerprints[q.index] for q in slices}
    planes = np.moveaxis(mask_kji, update.axis.array_axis, 0)
    areas_px = [int(np.count_nonzero(planes[q.index])) for q in slices]
    confidence, quality_score = overall(slices, areas_px)
    room = (0, 0) if update.extend == 0 else (slices[0].index, len(planes) - 1 - slices[-1].index)
    return replace(
        update,
        slices=slices,
        fingerprints=fingerprints_of,
        confidence=confidence,
        quality_score=quality_score,
        advice=advise(slices, areas_px, room, _pixel_slices(update)),
        model=update.model or record.model,
    )


def _pixel_slices(record: Record) -> float:
    spacing_kji_mm = np.linalg.norm(np.array(record.ijk_to_local)[:3, :3], axis=0)[::-1]
    axis = record.axis.array_axis
    rows_mm, columns_mm = np.delete(spacing_kji_mm, axis)
    return pixel_slices((float(rows_mm), float(columns_mm)), float(spacing_kji_mm[axis]))


def _shape(numbers: Sequence[int]) -> tuple[int, int, int]:
    k, j, i = (int(n) for n in numbers)
    return k, j, i


def _rows(matrix: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    rows = tuple(tuple(float(value) for value in row) for row in matrix)
    if [len(row) for row in rows] != [4, 4, 4, 4]:
        raise ValueError("not a 4 x 4 matrix")
    return rows
