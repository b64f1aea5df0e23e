"""From a CT to what an encoder reads, and back: a grid around the lungs, windows, and the exact way back for masks.

A layout fixes the grid's shape and windows. Its grid runs along the patient's axes whatever the CT's
orientation (i to the left, j to posterior, k to superior), centred on the lungs; they are found on a
coarse grid by classical means, so the place is the same whoever asks.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np

from CTReportLib.lungs import find_lungs
from CTReportLib.workgrid import AIR_HU, working_grid
from MedAILib.atomic import replacing
from MedAILib.errors import GeometryMismatch
from MedAILib.grids import Resampler, resampled
from MedAILib.volume import Geometry, Volume

VERSION = 2
"""Changes with anything that changes a voxel of what is prepared; part of the cache's key."""
_COARSE_MM = 6.0
_LEAST_LUNG_ML = 250.0
_CHUNK = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """Hounsfield units from `low` to `high` become `bottom` to `top`, clipped."""

    low: float
    high: float
    bottom: float = 0.0
    top: float = 1.0

    @classmethod
    def around(cls, centre: float, width: float) -> Window:
        """A radiologist's window, to 0..1."""
        return cls(centre - width / 2, centre + width / 2)

    def applied(self, hu: np.ndarray) -> np.ndarray:
        """The windowed values, float32."""
        scale = np.float32((self.top - self.bottom) / (self.high - self.low))
        shift = np.float32(self.bottom) - np.float32(self.low) * scale
        values = np.empty(hu.shape, np.float32)
        source, target = hu.reshape(-1), values.reshape(-1)
        for start in range(0, source.size, _CHUNK):  # as much at a time as the processor's cache holds
            into = target[start : start + _CHUNK]
            np.multiply(source[start : start + _CHUNK], scale, out=into, casting="same_kind")
            into += shift
            np.clip(into, self.bottom, self.top, out=into)
        return values


LUNG_WINDOW = Window.around(-600.0, 1500.0)
MEDIASTINAL_WINDOW = Window.around(40.0, 400.0)
BONE_WINDOW = Window.around(400.0, 1800.0)
WIDE_WINDOW = Window(-1000.0, 1000.0, -1.0, 1.0)


@dataclass(frozen=True)
class Layout:
    """What an encoder reads.

    Attributes
    ----------
    name : str
        Part of the cache's key, with the numbers below.
    shape_kji : tuple of int
    spacing_mm : float or None
        Isotropic spacing around the lungs' centre; None to fit the grid to the lungs and `margin_mm` around
        them, square in the axial plane.
    windows : tuple of Window
        One channel each.
    margin_mm : float
    """

    name: str
    shape_kji: tuple[int, int, int]
    spacing_mm: float | None
    windows: tuple[Window, ...]
    margin_mm: float = 12.0


PRIMUS_LAYOUT = Layout("primus", (192, 192, 192), 2.0, (WIDE_WINDOW,))
"""2 mm, 192 voxels a side, -1000 to 1000 HU as -1 to 1: what the encoders of 2026 read."""
RECT_LAYOUT = Layout("rect", (64, 512, 512), None, (LUNG_WINDOW, MEDIASTINAL_WINDOW, BONE_WINDOW))
"""64 axial slices of 512 x 512 in three windows; the mediastinal window alone, as published, shows lung as black."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A CT as an encoder reads it.

    Attributes
    ----------
    hu : ndarray, shape (k, j, i), int16
        Hounsfield units on the layout's grid; air outside the CT.
    geometry : Geometry
        The layout's grid in space.
    volume : Volume
        The CT it was made of.
    layout : Layout
    """

    hu: np.ndarray
    geometry: Geometry
    volume: Volume
    layout: Layout

    @cached_property
    def key(self) -> str:
        """Hash of the CT's voxels and place, the layout and `VERSION`."""
        return content_key(self.volume, self.layout)

    @property
    def source(self) -> Geometry:
        """The CT's own grid."""
        return self.volume.geometry

    @property
    def channels(self) -> np.ndarray:
        """The windowed channels: float32, shape (channels, k, j, i)."""
        return np.stack([window.applied(self.hu) for window in self.layout.windows])

    def back(self, mask: np.ndarray, name: str = "") -> Volume:
        """A mask (k, j, i) of the layout's grid on the CT's grid: uint8 0 and 1, nearest voxel, 0 outside the layout.

        Raises
        ------
        GeometryMismatch
            Where the mask has another shape than the layout.
        """
        if mask.shape != self.geometry.shape_kji:
            raise GeometryMismatch(
                f"A mask of {mask.shape} voxels does not belong to a layout of {self.geometry.shape_kji} (k, j, i)."
            )
        here = Volume((mask != 0).astype(np.uint8), self.geometry.ijk_to_ras, name)
        return resampled(here, self.source, "nearest")

    def forward(self, mask: Volume) -> np.ndarray:
        """A mask on any grid (of regions, of lungs) on the layout's grid: nearest voxel, its own type, (k, j, i)."""
        return resampled(mask, self.geometry, "nearest").array


def prepare(volume: Volume, layout: Layout = PRIMUS_LAYOUT, *, cache: Path | None = None) -> Prepared:
    """Read a CT on the grid of a layout.

    Parameters
    ----------
    volume : Volume
        Hounsfield units, any orientation.
    layout : Layout
    cache : Path, optional
        A folder in which results are kept by content; damaged entries are made again.

    Raises
    ------
    OutputError
        Where the cache's folder cannot be written.
    """
    kept = cache / f"{content_key(volume, layout)}.npz" if cache else None
    if kept and (found := _load(kept, layout)):
        hu, matrix = found
        return Prepared(hu, Geometry(layout.shape_kji, matrix), volume, layout)
    resampler = Resampler(volume)
    geometry = layout_grid(resampler, layout)
    hu = _int16(resampler.at(geometry, fill=AIR_HU).array)
    if kept:
        with replacing(kept) as partial, partial.open("wb") as stream:
            np.savez(stream, hu=hu, ijk_to_ras=geometry.ijk_to_ras)
    return Prepared(hu, geometry, volume, layout)


def layout_grid(volume: Volume | Resampler, layout: Layout) -> Geometry:
    """Where a layout lies for a CT: around its lungs, or around its middle where it has none."""
    low, high = _lung_bounds(volume)
    centre, extent = (low + high) / 2, high - low + 2 * layout.margin_mm
    k, j, i = layout.shape_kji
    if layout.spacing_mm is not None:
        spacing = np.full(3, layout.spacing_mm)
    else:
        in_plane = max(extent[0] / i, extent[1] / j)
        spacing = np.array([in_plane, in_plane, extent[2] / k])
    step = np.array([-1.0, -1.0, 1.0]) * spacing
    origin = centre - step * (np.array([i, j, k]) - 1) / 2
    if layout.spacing_mm is not None:
        source = volume.volume if isinstance(volume, Resampler) else volume
        first = _first_corner(source.geometry)
        origin = first + step * np.rint((origin - first) / step)
    matrix = np.diag([*step, 1.0])
    matrix[:3, 3] = origin
    return Geometry(layout.shape_kji, matrix)


def _first_corner(source: Geometry) -> np.ndarray:
    """The voxel centre furthest to the right, front and below (R, A, S mm): where usual chains start their grids.

    On that lattice our voxels are those that "reorient to LPS, then resample" gives, as published encoders were fed.
    """
    ends = [(0, count - 1) for count in reversed(source.shape_kji)]
    corners = np.array([source.ijk_to_ras[:3] @ (*ijk, 1) for ijk in product(*ends)])
    (right, front, _), below = corners.max(axis=0), corners[:, 2].min()
    return np.array([right, front, below])


def content_key(volume: Volume, layout: Layout) -> str:
    """A hash (hexadecimal) of a CT's voxels and place, of the layout, and of this code's version."""
    digest = hashlib.blake2b(digest_size=20)
    shape = f"{volume.array.dtype.str} {volume.array.shape} {layout.name} {layout.shape_kji} {layout.spacing_mm}"
    digest.update(f"{VERSION} {shape} {layout.margin_mm}".encode())
    digest.update(np.ascontiguousarray(volume.ijk_to_ras).tobytes())
    for plane in volume.array:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def _lung_bounds(volume: Volume | Resampler) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest R, A, S (mm) of the lungs on a coarse grid, or of the volume where it has none."""
    grid = working_grid(volume, _COARSE_MM)
    both = find_lungs(grid).both
    if both.sum() * grid.voxel_ml < _LEAST_LUNG_ML:
        both = np.ones_like(both)
    hits = [np.flatnonzero(both.any(axis=axes)) for axes in ((0, 1), (0, 2), (1, 2))]
    origin = grid.geometry.ijk_to_ras[:3, 3]
    low, high = (origin + grid.spacing_mm * np.array([h[end] for h in hits], dtype=float) for end in (0, -1))
    return low, high


def _load(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        with np.load(path, allow_pickle=False) as kept:
            hu, matrix = kept["hu"], kept["ijk_to_ras"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, _bad_zip()) as error:
        _log.warning("The cached '%s' is damaged and is made again: %s", path.name, error)
        return None
    if hu.shape != layout.shape_kji or hu.dtype != np.int16 or matrix.shape != (4, 4):
        _log.warning("The cached '%s' is not what it should be and is made again.", path.name)
        return None
    return hu, matrix


def _bad_zip() -> type[Exception]:
    from zipfile import BadZipFile

    return BadZipFile


def _int16(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.int16:
        return values
    finite = np.nan_to_num(values, nan=AIR_HU, posinf=32767, neginf=-32768) if values.dtype.kind == "f" else values
    return np.clip(np.rint(finite), -32768, 32767).astype(np.int16)
