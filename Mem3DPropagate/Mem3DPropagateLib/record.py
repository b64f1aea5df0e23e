"""What is remembered of a propagation in a segment's tag, so that work goes on after saving and loading.

Each slice's fingerprint tells later which slices the user has drawn or corrected since.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from MedAILib.errors import InputError
from Mem3DPropagateLib.advice import advise
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
    slices : tuple of SliceQuality
    fingerprints : mapping of int to int
        By slice index, of the segment as it was written.
    confidence, quality_score : float
        As of `PropagatedSegment`.
    advice : Advice
    """

    axis: Axis
    run_id: str
    variant: str
    extend: int | None
    slices: tuple[SliceQuality, ...]
    fingerprints: Mapping[int, int]
    confidence: float
    quality_score: float
    advice: Advice

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


def new_record(segment: PropagatedSegment, mask_kji: np.ndarray, axis: Axis, run_id: str, extend: int | None) -> Record:
    """The record of a result: ``mask_kji`` is the segment after it was written."""
    written = fingerprints(mask_kji, axis)
    here = {q.index: written.get(q.index, EMPTY) for q in segment.slices}
    return Record(
        axis=axis,
        run_id=run_id,
        variant=segment.variant,
        extend=extend,
        slices=segment.slices,
        fingerprints=here,
        confidence=segment.confidence,
        quality_score=segment.quality_score,
        advice=segment.advice,
    )


def merged(record: Record, update: Record, mask_kji: np.ndarray) -> Record:
    """A record after a correction: the update's slices, the others as they were; judged and advised on anew."""
    by_index = {**{q.index: q for q in record.slices}, **{q.index: q for q in update.slices}}
    slices = tuple(by_index[index] for index in sorted(by_index))
    planes = np.moveaxis(mask_kji, update.axis.array_axis, 0)
    areas_px = [int(np.count_nonzero(planes[q.index])) for q in slices]
    confidence, quality_score = overall(slices, areas_px)
    return replace(
        update,
        slices=slices,
        fingerprints=dict(sorted({**record.fingerprints, **update.fingerprints}.items())),
        confidence=confidence,
        quality_score=quality_score,
        advice=advise(slices, areas_px),
    )
