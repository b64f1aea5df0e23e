"""Label maps of bodies whose cartilage thickness is known, sampled at voxel centres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import Tissue
from KneeAnalysisLib.side import Side
from MedAILib.volume import Geometry, LabelMap, SegmentInfo

FINE_KJI_MM = (0.7, 0.3646, 0.3646)
"""Voxels of a DESS series."""
THICK_KJI_MM = (1.6, 0.3125, 0.3125)
"""Voxels of a qDESS series."""
RADIUS_MM = 20.0
CAP_DEGREES, CORE_DEGREES = 60.0, 45.0
_END_MM = 5.0


@dataclass(frozen=True, eq=False)
class Shell:
    """A layer of cartilage on a part of a ball, or of a cylinder along the slices.

    Attributes
    ----------
    knee : Knee
        The body is a patella (bones of other names would be cropped).
    round_axes : tuple of int
        RAS axes that are curved.
    half_length_mm : float
        Of a cylinder's middle part that counts; infinite for a ball.
    """

    knee: Knee
    thickness_mm: float
    round_axes: tuple[int, ...]
    towards: np.ndarray
    half_length_mm: float
    true_area_mm2: float

    def core(self, points_ras_mm: np.ndarray) -> np.ndarray:
        """Points well within the layer: bool."""
        flat = np.zeros_like(points_ras_mm, dtype=float)
        flat[:, self.round_axes] = points_ras_mm[:, self.round_axes]
        cosine = flat @ self.towards / np.maximum(np.linalg.norm(flat, axis=1), 1e-9)
        return (cosine > np.cos(np.radians(CORE_DEGREES))) & (np.abs(points_ras_mm[:, 0]) < self.half_length_mm)


def shell(
    shape: str,
    thickness_mm: float,
    spacing_kji_mm: tuple[float, float, float] = FINE_KJI_MM,
    *,
    offset_kji_mm: tuple[float, float, float] = (0.13, 0.07, 0.11),
    hole_mm: float = 0.0,
    gap_mm: float = 0.0,
) -> Shell:
    """A cap of 60 degrees around the anterior direction.

    Parameters
    ----------
    shape : {"sphere", "cylinder"}
    offset_kji_mm : tuple of float
        Where the centre lies between voxels.
    hole_mm : float
        Radius of a round hole in the layer around the anterior pole.
    gap_mm : float
        Unlabelled space between bone and layer.
    """
    half_mm = RADIUS_MM + thickness_mm + gap_mm + 4
    sizes = [int(np.ceil(2 * half_mm / s)) for s in spacing_kji_mm]
    axes = [
        (np.arange(n) - (n - 1) / 2) * s + o for n, s, o in zip(sizes, spacing_kji_mm, offset_kji_mm, strict=True)
    ]  # fmt: skip
    right, down, back = np.meshgrid(*axes, indexing="ij")
    is_ball = shape == "sphere"
    inside = np.abs(right) < (np.inf if is_ball else half_mm - _END_MM)
    distance = np.sqrt(down**2 + back**2 + (right**2 if is_ball else 0))
    cosine = -back / np.maximum(distance, 1e-9)
    cap = (cosine > np.cos(np.radians(CAP_DEGREES))) & inside
    if hole_mm:
        cap &= (down**2 + right**2 > hole_mm**2) | (back > 0)
    labels = np.zeros(sizes, dtype=np.uint8)
    labels[(distance < RADIUS_MM) & inside] = Tissue.PATELLA
    inner = RADIUS_MM + gap_mm
    labels[cap & (distance >= inner) & (distance < inner + thickness_mm)] = Tissue.PATELLAR_CARTILAGE
    # i to posterior, j to inferior, k to the right
    matrix = np.zeros((4, 4))
    matrix[1, 0], matrix[2, 1], matrix[0, 2], matrix[3, 3] = (
        -spacing_kji_mm[2],
        -spacing_kji_mm[1],
        spacing_kji_mm[0],
        1,
    )
    matrix[:3, 3] = axes[0][0], -axes[2][0], -axes[1][0]
    if is_ball:
        area, length = 2 * np.pi * RADIUS_MM**2 * (1 - np.cos(np.radians(CAP_DEGREES))), np.inf
    else:
        area, length = 2 * np.radians(CAP_DEGREES) * RADIUS_MM * 2 * (half_mm - _END_MM), half_mm - 2 * _END_MM
    return Shell(
        Knee(labels, Geometry(labels.shape, matrix), None),
        thickness_mm, (0, 1, 2) if is_ball else (1, 2), np.array([0.0, 1.0, 0.0]), length, float(area),
    )  # fmt: skip


def knee_label_map(side: Side = Side.RIGHT, spacing_kji_mm: tuple[float, float, float] = (0.7, 0.5, 0.5)) -> LabelMap:
    """A small knee of simple bodies, canonical labels: thickness 2 mm on femur and patella, tibia 1.5 and 2.5 mm.

    The femur is a cylinder under a block, the tibia a block, the patella a block in front; medial lies
    to the left in a right knee.
    """
    size_mm = (36.0, 64.0, 56.0)
    shape = [round(a / s) for a, s in zip(size_mm, spacing_kji_mm, strict=True)]
    k, j, i = np.meshgrid(
        *[(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing_kji_mm, strict=True)], indexing="ij"
    )  # fmt: skip
    across = np.abs(k - 18)
    wide = across < 14
    distance = np.hypot(j - 22, i - 32)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[wide & ((distance < 14) | ((j > 3) & (j < 22) & (np.abs(i - 32) < 10)))] = Tissue.FEMUR
    lower = (j - 22 > 0.3 * distance) | (i - 32 < -0.75 * distance)
    labels[(across < 12) & lower & (distance >= 14) & (distance < 16)] = Tissue.FEMORAL_CARTILAGE
    labels[wide & (j >= 41) & (j < 61) & (np.abs(i - 32) < 16)] = Tissue.TIBIA
    medial_is_left = side is Side.RIGHT
    for centre, height, is_left in ((11, 1.5, True), (25, 2.5, False)):
        tissue = Tissue.MEDIAL_TIBIAL_CARTILAGE if is_left == medial_is_left else Tissue.LATERAL_TIBIAL_CARTILAGE
        thick = height if medial_is_left else 4.0 - height
        labels[(np.hypot(k - centre, i - 32) < 5.5) & (j < 41) & (j >= 41 - thick)] = tissue
        meniscus = Tissue.MEDIAL_MENISCUS if is_left == medial_is_left else Tissue.LATERAL_MENISCUS
        ring = np.hypot(k - centre, i - 32)
        labels[(ring >= 6) & (ring < 7) & (j < 41) & (j >= 39) & (labels == 0)] = meniscus
    labels[(across < 9) & (np.abs(j - 20) < 9) & (i >= 3) & (i < 10)] = Tissue.PATELLA
    labels[(across < 7) & (np.abs(j - 20) < 7) & (i >= 10) & (i < 12)] = Tissue.PATELLAR_CARTILAGE
    matrix = np.zeros((4, 4))
    matrix[1, 0], matrix[2, 1], matrix[0, 2], matrix[3, 3] = (
        -spacing_kji_mm[2],
        -spacing_kji_mm[1],
        spacing_kji_mm[0],
        1,
    )
    matrix[:3, 3] = 5.0, 20.0, 30.0
    segments = tuple(SegmentInfo(t.key, t.title, int(t)) for t in Tissue if (labels == t).any())
    return LabelMap((labels,), matrix, segments, "phantom knee")


def without(label_map: LabelMap, *tissues: Tissue) -> LabelMap:
    """The label map with these tissues erased."""
    labels = np.where(np.isin(label_map.layers[0], [int(t) for t in tissues]), 0, label_map.layers[0])
    segments = tuple(info for info in label_map.segments if info.label_value not in tissues)
    return LabelMap((labels.astype(np.uint8),), label_map.ijk_to_ras, segments, label_map.name)
