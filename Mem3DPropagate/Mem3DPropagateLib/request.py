"""What a propagation is asked and what it answers: plain values that cross any process border.

A *slice* is a plane of voxels across the stacking ``axis`` of the volume; its mask has the two other
array axes in their k, j, i order. A *reference* is a slice the user drew (or declared empty): it is
kept to the last voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from MedAILib.volume import Volume

TASK = "Mem3DPropagateLib.task:PropagateTask"
"""The task that answers a `PropagateRequest`, as runners know it."""


class Axis(Enum):
    """The array axis along which slices are stacked, named as the voxel index is."""

    K = "k"
    J = "j"
    I = "i"  # noqa: E741  the field's name of this axis

    @property
    def array_axis(self) -> int:
        """0, 1 or 2: the axis of a k, j, i array."""
        return "kji".index(self.value)


class Method(Enum):
    """How to propagate."""

    AUTO = "auto"
    """Our network where it was measured to be better and can run, else geometry."""
    GEOMETRY = "geometry"
    """The drawn shapes alone."""
    NETWORK = "network"
    """Our own network, which corrects geometry by the image."""
    STM = "stm"
    """A space-time memory network (STM, VMN) with weights of the user's own."""


class SliceMethod(Enum):
    """How a slice came to be; the names of the published Mem3D service, kept for its clients."""

    MEMORY = "mem3d_memory"
    """A memory network looked at the image."""
    FALLBACK = "mem3d_fallback"
    """Geometry: the shapes of the references alone."""
    NO_MEMORY = "mem3d_no_memory"
    """No reference reaches this slice: nothing was propagated."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """One segment as drawn: its reference slices only.

    Attributes
    ----------
    segment_id, name : str
    slices : tuple of int
        Indices of the references along the axis, ascending.
    masks : ndarray, shape (len(slices), rows, columns), bool
        The drawn masks; an all-False mask says "the structure is not here".
    """

    segment_id: str
    name: str
    slices: tuple[int, ...]
    masks: np.ndarray


@dataclass(frozen=True, eq=False)
class PropagateRequest:
    """Propagate drawings through a volume.

    Attributes
    ----------
    volume : Volume
        The image; geometry uses its grid only, networks look at it.
    axis : Axis
    drawings : tuple of Drawing
        At least one, each with at least one non-empty mask.
    extend : int or None
        Slices to go on beyond the outermost references; None: until the structure vanishes.
    only_slices : tuple of (int, int) or None
        First and last slice (inclusive) to recompute, for a correction; None: all.
    method : Method
    weights : str
        For `Method.STM` the weight file; for our network another one than that which comes with it. Empty: none.
    """

    volume: Volume
    axis: Axis
    drawings: tuple[Drawing, ...]
    extend: int | None = 0
    only_slices: tuple[int, int] | None = None
    method: Method = Method.AUTO
    weights: str = ""


@dataclass(frozen=True)
class SliceQuality:
    """How far to trust one slice of the result.

    Attributes
    ----------
    index : int
        Slice index along the axis.
    method : SliceMethod
    confidence : float
        Expected Dice overlap with what the user would have drawn, 0..1, calibrated; 1 for references.
    is_reference : bool
    used_slices : tuple of int
        The references it rests on.
    distance_to_nearest_mm : float
        Distance to the nearest reference along the axis.
    """

    index: int
    method: SliceMethod
    confidence: float
    is_reference: bool
    used_slices: tuple[int, ...]
    distance_to_nearest_mm: float


@dataclass(frozen=True)
class Advice:
    """The next slice worth drawing.

    Attributes
    ----------
    slice : int or None
        None: nothing left worth drawing.
    reason : str
        One sentence for the user.
    expected_gain : float
        Expected rise of the segment's volume Dice, 0..1.
    """

    slice: int | None
    reason: str
    expected_gain: float = 0.0


@dataclass(frozen=True, eq=False)
class PropagatedSegment:
    """One segment after propagation.

    Attributes
    ----------
    segment_id, name : str
    origin_kji : tuple of int
        Array index of the block's first voxel.
    block : ndarray, shape (k, j, i), bool
        The segment within its block; all recomputed slices lie in it, everything outside the block
        on those slices is background.
    slices : tuple of SliceQuality
        Every slice of the result, references included, ascending. With ``only_slices``: those alone.
    variant : str
        The geometric variant chosen, for the report.
    model : str
        Id of the network that answered slices; empty where none did.
    confidence : float
        Mean expected Dice of the propagated slices, weighted by their area.
    quality_score : float
        Lowest expected Dice of the propagated slices: where the result is worst.
    advice : Advice
    """

    segment_id: str
    name: str
    origin_kji: tuple[int, int, int]
    block: np.ndarray
    slices: tuple[SliceQuality, ...]
    variant: str
    confidence: float
    quality_score: float
    advice: Advice
    model: str = ""

    @property
    def method(self) -> SliceMethod:
        """How the propagated slices came to be; `SliceMethod.NO_MEMORY` where there are none."""
        methods = [q.method for q in self.slices if not q.is_reference]
        return max(methods, key=methods.count) if methods else SliceMethod.NO_MEMORY

    @property
    def used_slices(self) -> tuple[int, ...]:
        """The references that the propagated slices rest on."""
        return tuple(sorted({index for q in self.slices for index in q.used_slices}))

    @property
    def distance_to_nearest(self) -> float:
        """Largest distance of a propagated slice from its nearest reference, in millimetres."""
        return max((q.distance_to_nearest_mm for q in self.slices), default=0.0)


@dataclass(frozen=True, eq=False)
class PropagateResult:
    """All segments of a request, in its order.

    Attributes
    ----------
    axis : Axis
    segments : tuple of PropagatedSegment
    warnings : tuple of str
    """

    axis: Axis
    segments: tuple[PropagatedSegment, ...]
    warnings: tuple[str, ...] = field(default_factory=tuple)

    def segment(self, segment_id: str) -> PropagatedSegment:
        """The segment of that id or name; `KeyError` where there is none."""
        for segment in self.segments:
            if segment_id in (segment.segment_id, segment.name):
                return segment
        raise KeyError(segment_id)
