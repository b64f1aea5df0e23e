"""Images as values: a voxel grid in space, a volume on it, a label map on it.

Arrays are in k, j, i order (numpy's last axis is Slicer's first, i), matrices map voxel indices
(i, j, k) to RAS millimetres at voxel centres. All values are immutable: arrays are read-only views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from MedAILib.errors import InputError


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in space.

    Attributes
    ----------
    shape_kji : tuple of int
        Number of voxels along k, j, i.
    ijk_to_ras : ndarray, shape (4, 4), float64
        Homogeneous matrix from voxel indices (i, j, k) to RAS millimetres.
    """

    shape_kji: tuple[int, int, int]
    ijk_to_ras: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape_kji)
        if len(shape) != 3 or min(shape) < 1:
            raise InputError(
                f"A volume needs three dimensions of at least one voxel, got shape {shape}.",
                todo="Use a 3D image, or take one volume out of a time series first.",
            )
        matrix = np.array(self.ijk_to_ras, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
            raise InputError(
                "The image's orientation matrix cannot be inverted.",
                why="Its header gives a zero spacing or directions that are not independent.",
                todo="Repair the header, for example by converting the DICOM series again.",
            )
        matrix.setflags(write=False)
        object.__setattr__(self, "shape_kji", shape)
        object.__setattr__(self, "ijk_to_ras", matrix)

    @property
    def spacing_ijk_mm(self) -> tuple[float, float, float]:
        return tuple(float(s) for s in np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0))  # type: ignore[return-value]

    @property
    def spacing_kji_mm(self) -> tuple[float, float, float]:
        i, j, k = self.spacing_ijk_mm
        return (k, j, i)

    def same_grid_as(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """True where both grids have the same shape and every voxel lies within the tolerance."""
        if self.shape_kji != other.shape_kji:
            return False
        k, j, i = self.shape_kji
        corners_ijk = np.array([[a, b, c, 1.0] for a in (0, i - 1) for b in (0, j - 1) for c in (0, k - 1)])
        moved_mm = corners_ijk @ (self.ijk_to_ras - other.ijk_to_ras).T
        return bool(np.abs(moved_mm).max() <= tolerance_mm)


@final
@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar image on a voxel grid.

    Attributes
    ----------
    array : ndarray, shape (k, j, i)
        Voxel values in the modality's own unit; a read-only view.
    ijk_to_ras : ndarray, shape (4, 4), float64
    name : str
    """

    array: np.ndarray
    ijk_to_ras: np.ndarray
    name: str = ""

    def __post_init__(self) -> None:
        geometry = Geometry(np.shape(self.array), self.ijk_to_ras)
        object.__setattr__(self, "array", _read_only(self.array))
        object.__setattr__(self, "ijk_to_ras", geometry.ijk_to_ras)

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.array.shape, self.ijk_to_ras)


@dataclass(frozen=True)
class SegmentInfo:
    """What is known of a segment besides its voxels; the fields of a ``.seg.nrrd`` header.

    Attributes
    ----------
    id : str
        Stable identifier within the segmentation.
    name : str
    label_value : int
        Value of the segment's voxels in its layer.
    layer : int
        Index of the layer that holds it; segments that overlap lie in different layers.
    color_rgb : tuple of float
        0..1.
    tags : mapping of str to str
        Terminology (``TerminologyEntry``) and any other tag, kept as they came.
    """

    id: str
    name: str
    label_value: int
    layer: int = 0
    color_rgb: tuple[float, float, float] = (0.5, 0.68, 0.5)
    tags: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, eq=False)
class LabelMap:
    """Segments on a voxel grid: one or more layers of integer labels and what each label means.

    Attributes
    ----------
    layers : tuple of ndarray, shape (k, j, i), unsigned integers
        Read-only; 0 is background. One layer unless segments overlap.
    ijk_to_ras : ndarray, shape (4, 4), float64
    segments : tuple of SegmentInfo
    name : str
    """

    layers: tuple[np.ndarray, ...]
    ijk_to_ras: np.ndarray
    segments: tuple[SegmentInfo, ...]
    name: str = ""

    def __post_init__(self) -> None:
        shapes = {np.shape(layer) for layer in self.layers}
        if len(shapes) != 1:
            raise InputError(f"The layers of a label map must have one shape, got {sorted(shapes)}.")
        geometry = Geometry(shapes.pop(), self.ijk_to_ras)
        ids = [info.id for info in self.segments]
        if len(set(ids)) != len(ids):
            raise InputError(f"The segments of a label map need different ids, got {', '.join(ids)}.")
        if any(not 0 <= info.layer < len(self.layers) for info in self.segments):
            raise InputError(f"A segment refers to a layer that is not among the {len(self.layers)} of its label map.")
        object.__setattr__(self, "layers", tuple(_read_only(layer) for layer in self.layers))
        object.__setattr__(self, "ijk_to_ras", geometry.ijk_to_ras)

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.layers[0].shape, self.ijk_to_ras)

    def segment(self, segment_id: str) -> SegmentInfo:
        """The segment of that id, or else of that name; `InputError` where there is none."""
        for wanted in ("id", "name"):
            for info in self.segments:
                if getattr(info, wanted) == segment_id:
                    return info
        raise InputError(
            f"There is no segment '{segment_id}' here.",
            todo="The segments are: " + ", ".join(f"{s.id} ({s.name})" for s in self.segments) + ".",
        )

    def mask(self, segment_id: str) -> np.ndarray:
        """Voxels of one segment: bool, shape (k, j, i)."""
        info = self.segment(segment_id)
        return self.layers[info.layer] == info.label_value


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.asarray(array).view()
    view.setflags(write=False)
    return view
