"""Cartilage thickness along rays, by two definitions on the same rays.

layer
    From the bone's surface to the outer surface of bone and cartilage together. Both are borders of thick
    bodies, which smoothing leaves in place, so thin cartilage is neither under-read nor lost.
two surfaces
    Between the two crossings of the ray with the surface of the cartilage alone, 0 unless there are exactly
    two: the definition of the reference pipeline. A sheet about as thin as the smoothing kernel loses height
    in it, which moves its surface inwards: 1 mm reads 0.87 mm, and below 0.75 mm nothing is left to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from KneeAnalysisLib.fields import Field, Rays, crossing_mm, falls, rises, smoothed
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import CARTILAGES_OF, Tissue
from KneeAnalysisLib.meshes import MeshOptions, padded_block, padded_matrix
from MedAILib.errors import InputError
from MedAILib.grids import bounding_box

_MARGIN_MM = 4.0
"""Bone kept around the cartilage: rays of the layer measure stay within."""
_STEP_MM = 0.25
_FARTHEST_START_MM = 3.0
_LARGEST_DETACHMENT_MM = 2.0
_SEARCH_STEP_MM = 1.0
_RAYS_AT_ONCE = 16384


class ThicknessMethod(Enum):
    LAYER = "layer"
    TWO_SURFACES = "two-surfaces"


@dataclass(frozen=True)
class ThicknessOptions:
    """How thickness is measured.

    Attributes
    ----------
    mesh : MeshOptions
    method : ThicknessMethod
        Which measure becomes the thickness; the other one is kept beside it.
    inward_mm, outward_mm : float
        How far a ray starts inside the bone and ends outside it.
    bridged_gap_mm : float
        Unlabelled voxels between bone and cartilage, up to about this width, belong to neither.
    rim_mm : float
        Cartilage too thin to reach one half when smoothed counts from this far inside its edge only: at the
        edge it cannot be told from the blur of its neighbour. With this width the covered area
        is that of the reference pipeline on a real knee.
    largest_hole_mm2 : float
        Bare bone enclosed by cartilage is denuded where it is no larger than this; larger places are taken
        for bone that never bore cartilage.
    """

    mesh: MeshOptions = field(default_factory=MeshOptions)
    method: ThicknessMethod = ThicknessMethod.LAYER
    inward_mm: float = 2.5
    outward_mm: float = 10.0
    bridged_gap_mm: float = 0.75
    rim_mm: float = 0.65
    largest_hole_mm2: float = 300.0

    def validate(self) -> None:
        """Raise `InputError` where a setting is out of range."""
        self.mesh.validate()
        if min(self.inward_mm, self.outward_mm) <= 0 or max(self.inward_mm, self.outward_mm) > 50:
            raise InputError(f"A ray from {-self.inward_mm} to {self.outward_mm} mm measures no cartilage.")
        if min(self.bridged_gap_mm, self.rim_mm, self.largest_hole_mm2) < 0:
            raise InputError("Gap, rim and hole sizes cannot be negative.")


DEFAULT_OPTIONS = ThicknessOptions()


@dataclass(frozen=True, eq=False)
class RayMeasures:
    """Both measures for N rays, float64, 0 where there is nothing.

    Attributes
    ----------
    layer_mm, two_surfaces_mm : ndarray, shape (N,)
    start_mm, two_start_mm : ndarray, shape (N,)
        Where along the ray each measured piece begins.
    """

    layer_mm: np.ndarray
    two_surfaces_mm: np.ndarray
    start_mm: np.ndarray
    two_start_mm: np.ndarray

    @classmethod
    def nothing(cls, count: int) -> RayMeasures:
        return cls(*(np.zeros(count) for _ in range(4)))


@dataclass(frozen=True, eq=False)
class _Scene:
    """What the rays of one bone meet."""

    cartilage: Field
    inner: Field
    """Bone, and gaps between it and the cartilage."""
    reach: np.ndarray
    """Cartilage widened by the search step, bool, on the same block."""


def ray_measures(
    knee: Knee,
    bone: Tissue,
    points_ras_mm: np.ndarray,
    normals: np.ndarray,
    options: ThicknessOptions = DEFAULT_OPTIONS,
) -> RayMeasures:
    """Measure all cartilages of a bone along rays from points on its surface.

    Parameters
    ----------
    knee : Knee
    bone : Tissue
    points_ras_mm : ndarray, shape (N, 3)
        On the bone's surface, to about a millimetre.
    normals : ndarray, shape (N, 3)
        Outward unit vectors.
    """
    measures = RayMeasures.nothing(len(points_ras_mm))
    scene = _scene(knee, bone, options)
    if scene is None:
        return measures
    rays = Rays.along(points_ras_mm, normals, scene.cartilage.ijk_to_ras)
    candidates = np.flatnonzero(_near(rays, scene.reach, options))
    for start in range(0, candidates.size, _RAYS_AT_ONCE):
        chosen = candidates[start : start + _RAYS_AT_ONCE]
        part = _measured(scene, rays[chosen], options)
        for whole, piece in (
            (measures.layer_mm, part.layer_mm),
            (measures.two_surfaces_mm, part.two_surfaces_mm),
            (measures.start_mm, part.start_mm),
            (measures.two_start_mm, part.two_start_mm),
        ):
            whole[chosen] = piece
    return measures


def _scene(knee: Knee, bone: Tissue, options: ThicknessOptions) -> _Scene | None:
    cartilage = knee.mask(*CARTILAGES_OF[bone])
    spacing = knee.geometry.spacing_kji_mm
    box = bounding_box(cartilage, margin_mm=_MARGIN_MM, spacing_kji_mm=spacing)
    if box is None:
        return None
    matrix = padded_matrix(knee.geometry.ijk_to_ras, box)
    cartilage = padded_block(cartilage, box)
    inner = padded_block(knee.labels, box) == bone
    inner |= _gaps(inner, cartilage, spacing, options.bridged_gap_mm)
    variance = options.mesh.cartilage_variance_mm2
    reach = _widened(cartilage, [int(np.ceil(_SEARCH_STEP_MM / s)) for s in spacing])
    return _Scene(
        Field(smoothed(cartilage, spacing, variance), matrix), Field(smoothed(inner, spacing, variance), matrix), reach
    )


def _gaps(bone: np.ndarray, cartilage: np.ndarray, spacing_kji_mm: Sequence[float], width_mm: float) -> np.ndarray:
    """Background voxels that lie between bone and cartilage: what closing their union fills near both."""
    radii = [round(width_mm / 2 / s) for s in spacing_kji_mm]
    solid = bone | cartilage
    closed = _narrowed(_widened(solid, radii), radii)
    twice = [2 * r for r in radii]
    return closed & ~solid & _widened(bone, twice) & _widened(cartilage, twice)


def _widened(mask: np.ndarray, radii: Sequence[int]) -> np.ndarray:
    from scipy.ndimage import maximum_filter1d

    values = mask.view(np.uint8)
    for axis, radius in enumerate(radii):
        if radius:
            values = maximum_filter1d(values, 2 * radius + 1, axis=axis, mode="constant")
    return values.view(bool)


def _narrowed(mask: np.ndarray, radii: Sequence[int]) -> np.ndarray:
    return ~_widened(~mask, radii)


def _near(rays: Rays, reach: np.ndarray, options: ThicknessOptions) -> np.ndarray:
    """Rays that pass cartilage: bool, shape (N,)."""
    found = np.zeros(len(rays), dtype=bool)
    flat = reach.ravel()
    for distance in np.arange(-options.inward_mm, options.outward_mm + _SEARCH_STEP_MM, _SEARCH_STEP_MM):
        index, inside = nearest_voxels(rays.at(float(distance)), reach.shape)
        found |= flat[index] & inside
    return found


def nearest_voxels(places_kji: np.ndarray, shape_kji: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Flat index of the voxel nearest to each place, and whether it is inside the array.

    Shapes (3, ...) to (...); the index is 0 where it is outside.
    """
    k, j, i = np.rint(places_kji).astype(np.int32)
    inside = (k >= 0) & (j >= 0) & (i >= 0) & (k < shape_kji[0]) & (j < shape_kji[1]) & (i < shape_kji[2])
    return np.where(inside, (k * shape_kji[1] + j) * shape_kji[2] + i, 0), inside


def _measured(scene: _Scene, rays: Rays, options: ThicknessOptions) -> RayMeasures:
    distances = np.arange(-options.inward_mm, options.outward_mm + _STEP_MM / 2, _STEP_MM)
    in_cartilage = scene.cartilage.at(rays.sampled(distances))
    two, two_start = _between_two_surfaces(scene, rays, in_cartilage, distances)
    layer, start = _layer(scene, rays, in_cartilage, distances)
    detached = (two > 0) & (layer < two / 2) & (two_start - start <= _LARGEST_DETACHMENT_MM)
    return RayMeasures(np.where(detached, two, layer), two, np.where(detached, two_start, start), two_start)


def _between_two_surfaces(
    scene: _Scene, rays: Rays, profile: np.ndarray, distances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Thickness of rays that cross the cartilage's surface exactly twice, and where they enter it."""
    up, down = rises(profile), falls(profile)
    hit = np.flatnonzero((up.sum(axis=1) == 1) & (down.sum(axis=1) == 1) & (up.argmax(axis=1) < down.argmax(axis=1)))
    ends = [
        crossing_mm(scene.cartilage, rays[hit], profile[hit], change[hit].argmax(axis=1), distances)
        for change in (up, down)
    ]
    thickness, start = np.zeros(len(rays)), np.zeros(len(rays))
    thickness[hit], start[hit] = ends[1] - ends[0], ends[0]
    return thickness, start


def _layer(scene: _Scene, rays: Rays, in_cartilage: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance from where a ray leaves the bone to where it leaves bone and cartilage together."""
    near = int(np.searchsorted(distances, _FARTHEST_START_MM))
    in_bone = np.zeros_like(in_cartilage)
    in_bone[:, :near] = scene.inner.at(rays.sampled(distances[:near]))
    leaves_bone = falls(in_bone)
    first = np.where(leaves_bone, np.abs(distances[:-1] + _STEP_MM / 2), np.inf).argmin(axis=1)
    leaves_both = falls(in_bone + in_cartilage) & (np.arange(distances.size - 1) >= first[:, None])
    hit = np.flatnonzero(leaves_bone.any(axis=1) & leaves_both.any(axis=1))
    inner_mm = crossing_mm(scene.inner, rays[hit], in_bone[hit], first[hit], distances)
    outer_mm = crossing_mm(
        scene.inner + scene.cartilage,
        rays[hit],
        (in_bone + in_cartilage)[hit],
        leaves_both[hit].argmax(axis=1),
        distances,
    )
    thickness, start = np.zeros(len(rays)), np.zeros(len(rays))
    thickness[hit], start[hit] = np.maximum(outer_mm - inner_mm, 0), inner_mm
    return thickness, start
