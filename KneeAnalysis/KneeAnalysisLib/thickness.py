"""Cartilage thickness at every point of a bone's surface, with the region it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from KneeAnalysisLib.coverage import (
    at_border,
    covered_points,
    enclosed_holes,
    nearest_labels,
    region_block,
    values_along,
)
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import CARTILAGES_OF, Tissue
from KneeAnalysisLib.measures import DEFAULT_OPTIONS, RayMeasures, ThicknessMethod, ThicknessOptions, ray_measures
from KneeAnalysisLib.meshes import SurfaceMesh, bone_mesh

THICKNESS_ARRAY = "thickness (mm)"
LABELS_ARRAY = "labels"
TWO_SURFACES_ARRAY = "thickness between cartilage surfaces (mm)"

_PLAIN_MM = 0.5
"""A layer of this height is cartilage even where the steps of thick slices let its ray pass between voxels."""


@dataclass(frozen=True, eq=False)
class BoneThickness:
    """A bone's surface and the cartilage on it.

    Attributes
    ----------
    bone : Tissue
    mesh : SurfaceMesh
        N points, RAS mm.
    thickness_mm : ndarray, shape (N,), float32
        By the chosen method; 0 where there is no cartilage.
    two_surfaces_mm : ndarray, shape (N,), float32
        By the definition of the reference pipeline, whatever the method.
    start_mm : ndarray, shape (N,), float32
        Where along the normal the measured piece begins; 0 where there is none.
    labels : ndarray, shape (N,), uint8
        Region of the cartilage over the point, or of its neighbours where the bone is denuded; 0 elsewhere.
    missing : tuple of Tissue
        Cartilages of this bone that the label map lacks.
    """

    bone: Tissue
    mesh: SurfaceMesh
    thickness_mm: np.ndarray
    two_surfaces_mm: np.ndarray
    start_mm: np.ndarray
    labels: np.ndarray
    missing: tuple[Tissue, ...] = ()

    @property
    def covered(self) -> np.ndarray:
        """Points with cartilage: bool, shape (N,)."""
        return self.thickness_mm > 0

    @property
    def denuded(self) -> np.ndarray:
        """Points within a cartilage's region that have none: bool, shape (N,)."""
        return (self.labels > 0) & (self.thickness_mm == 0)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Point arrays under the names that files and scenes use, the thickness first."""
        return {
            THICKNESS_ARRAY: self.thickness_mm,
            LABELS_ARRAY: self.labels,
            TWO_SURFACES_ARRAY: self.two_surfaces_mm,
        }


def measure_thickness(
    knee: Knee,
    regions: np.ndarray | None = None,
    options: ThicknessOptions = DEFAULT_OPTIONS,
    *,
    progress: Callable[[Tissue, float], None] | None = None,
) -> tuple[BoneThickness, ...]:
    """Thickness on every bone that the knee has with at least one of its cartilages.

    Parameters
    ----------
    knee : Knee
    regions : ndarray, shape of ``knee.labels``, optional
        Sub-region of every cartilage voxel; where it is 0 or not given, the cartilage's own label counts.
    options : ThicknessOptions
    progress : callable, optional
        Called before each bone with the fraction done; may raise to cancel.

    Returns
    -------
    tuple of BoneThickness
        Empty where no bone can be measured; ``knee.missing`` says why.

    Raises
    ------
    InputError
        A setting is out of range.
    GeometryMismatch
        The regions are not on the knee's grid.
    """
    options.validate()
    bones = knee.measurable_bones
    results = []
    for index, bone in enumerate(bones):
        if progress:
            progress(bone, index / len(bones))
        results.append(bone_thickness(knee, bone, regions, options))
    return tuple(results)


def bone_thickness(
    knee: Knee,
    bone: Tissue,
    regions: np.ndarray | None = None,
    options: ThicknessOptions = DEFAULT_OPTIONS,
    mesh: SurfaceMesh | None = None,
) -> BoneThickness:
    """Thickness of all cartilages of one bone; `InputError` where the knee lacks the bone.

    The surface is made as the options say where none is given.
    """
    if mesh is None:
        mesh = bone_mesh(knee, bone, options.mesh)
    rays = ray_measures(knee, bone, mesh.points_ras_mm, mesh.normals, options)
    thickness, start = _chosen(knee, bone, mesh, rays, options)
    bare = BoneThickness(
        bone=bone,
        mesh=mesh,
        thickness_mm=thickness.astype(np.float32),
        two_surfaces_mm=rays.two_surfaces_mm.astype(np.float32),
        start_mm=start.astype(np.float32),
        labels=np.zeros(len(mesh), dtype=np.uint8),
        missing=tuple(c for c in CARTILAGES_OF[bone] if not knee.voxels[c]),
    )
    return with_regions(bare, knee, regions, largest_hole_mm2=options.largest_hole_mm2)


def with_regions(
    measured: BoneThickness, knee: Knee, regions: np.ndarray | None, *, largest_hole_mm2: float = 300.0
) -> BoneThickness:
    """The same thickness with the regions of another scheme; nothing is measured again.

    Parameters
    ----------
    measured : BoneThickness
    knee : Knee
        The one it was measured on.
    regions : ndarray, shape of ``knee.labels``, optional
        As in `measure_thickness`.
    largest_hole_mm2 : float
        As in `ThicknessOptions`.
    """
    mesh = measured.mesh
    block = region_block(knee, measured.bone, regions)
    labels = values_along(block, mesh.points_ras_mm, mesh.normals, measured.start_mm, measured.thickness_mm)
    cut = at_border(knee, mesh.points_ras_mm)
    holes = enclosed_holes(mesh, measured.covered, cut, largest_hole_mm2)
    labels = nearest_labels(mesh, labels, (measured.covered & (labels == 0)) | holes)
    return replace(measured, labels=labels)


def _chosen(
    knee: Knee, bone: Tissue, mesh: SurfaceMesh, rays: RayMeasures, options: ThicknessOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Thickness and start by the chosen method, 0 where there is no cartilage."""
    if options.method is ThicknessMethod.TWO_SURFACES:
        return rays.two_surfaces_mm, rays.two_start_mm
    block = region_block(knee, bone, None)
    labelled = values_along(block, mesh.points_ras_mm, mesh.normals, rays.start_mm, rays.layer_mm) > 0
    labelled |= rays.layer_mm >= _PLAIN_MM
    certain = (rays.two_surfaces_mm > 0) & (rays.layer_mm > 0) & labelled
    covered = covered_points(mesh, labelled, certain, options.rim_mm)
    return np.where(covered, rays.layer_mm, 0.0), np.where(covered, rays.start_mm, 0.0)
