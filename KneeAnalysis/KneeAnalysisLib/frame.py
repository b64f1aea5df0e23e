"""The anatomical axes of a knee, found from its bones and not from how it lay in the scanner.

The femur's frame comes from a template of a distal femur that is laid onto the segmented one, whatever part of the
shaft the image shows. It lies in the package; nothing is fetched. Coordinates in a frame are x to lateral, y to
anterior, z to superior, in mm, for left and for right knees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from KneeAnalysisLib.alignment import Similarity, aligned, from_landmarks, turned
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import Tissue
from KneeAnalysisLib.side import Side
from KneeAnalysisLib.surface import surface_points
from MedAILib.errors import InputError
from MedAILib.volume import Geometry

TEMPLATE_FILE = Path(__file__).with_name("femur_template.npz")

LANDMARK_TISSUES = (
    Tissue.FEMORAL_CARTILAGE,
    Tissue.PATELLAR_CARTILAGE,
    Tissue.MEDIAL_TIBIAL_CARTILAGE,
    Tissue.LATERAL_TIBIAL_CARTILAGE,
)
"""Their centres tell roughly how a knee lies, in whatever direction."""

_FLEXIONS_DEG = (-30.0, 0.0, 30.0)
"""Starts about the scanner's axes, where centres are too few or mislead."""
_ROUGH_STEP_KJI = (2, 3, 3)
_POOR_FIT_MM = 2.5
"""Femurs of other people are 0.5 to 1 mm from the template."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Anatomical axes.

    Attributes
    ----------
    origin_ras_mm : ndarray, shape (3,)
    axes_ras : ndarray, shape (3, 3)
        Rows: unit vectors to lateral, anterior and superior. Its determinant is -1 for a left knee.
    scale : float
        Size relative to the template; 1 where there is none.
    residual_mm : float
        Median distance of the template from the bone; 0 where there is none.
    notes : tuple of str
        What the user should know.
    """

    origin_ras_mm: np.ndarray
    axes_ras: np.ndarray
    scale: float = 1.0
    residual_mm: float = 0.0
    notes: tuple[str, ...] = ()

    def coordinates_mm(self, points_ras_mm: np.ndarray) -> np.ndarray:
        """Points (n, 3) in RAS mm as (lateral, anterior, superior) mm from the origin."""
        return (points_ras_mm - self.origin_ras_mm) @ self.axes_ras.T

    def points_ras_mm(self, coordinates_mm: np.ndarray) -> np.ndarray:
        """The way back from `coordinates_mm`."""
        return coordinates_mm @ self.axes_ras + self.origin_ras_mm

    @property
    def tilt_deg(self) -> float:
        """Angle of the whole rotation between these axes and the patient axes (R or L, A, S)."""
        patient = np.diag([np.sign(np.linalg.det(self.axes_ras)), 1.0, 1.0])
        cosine = (np.trace(self.axes_ras @ patient) - 1.0) / 2.0
        return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


@dataclass(frozen=True, eq=False)
class FemurTemplate:
    """A distal femur in its frame; the origin is the front of the intercondylar notch in the axial projection.

    Attributes
    ----------
    points_mm : ndarray, shape (n, 3)
        On the bone's surface, condyles and a part of the metaphysis.
    centres_mm : ndarray, shape (len(LANDMARK_TISSUES), 3)
        Of cartilages around it.
    posterior_mm : float
        y of the posterior end of its cartilage, below zero.
    """

    points_mm: np.ndarray
    centres_mm: np.ndarray
    posterior_mm: float


@cache
def femur_template() -> FemurTemplate:
    """The template of the package: one right knee (DESS, 0.36 x 0.36 x 0.7 mm), in the axes of its scan.

    3000 surface points in hundredths of a millimetre, from the label map SAG_3D_DESS_RIGHT of github.com/gattia/pymskt
    (MIT licence), made by ``Testing/benchmarks/knee_regions.py --write-template``.
    """
    with np.load(TEMPLATE_FILE) as stored:
        hundredths = stored["points_hundredths_mm"].astype(np.float64)
        return FemurTemplate(hundredths / 100.0, stored["centres_mm"], float(stored["posterior_mm"]))


def femoral_frame(knee: Knee) -> Frame:
    """The frame of the femur.

    Raises
    ------
    InputError
        There is no femur, or its side is not known.
    """
    side = _side_of(knee)
    femur = knee.mask(Tissue.FEMUR)
    if not femur.any():
        raise InputError("The femur's axes cannot be found: no femur is segmented.")
    template = femur_template()
    surface = surface_points(femur, knee.geometry)
    found = aligned(template.points_mm, surface, _starts(knee, side, template, surface.points_ras_mm), knee.geometry)
    notes: tuple[str, ...] = ()
    if found.residual_mm > _POOR_FIT_MM:
        notes = (
            f"The femur fits the template poorly ({found.residual_mm:.1f} mm): check the sub-regions of the femur.",
        )
    similarity = found.similarity
    return Frame(similarity.translation_mm, similarity.rotation.T, similarity.scale, found.residual_mm, notes)


def tibial_frame(knee: Knee) -> Frame:
    """The frame of the tibial plateau: its plane, and the line from its medial to its lateral cartilage.

    Raises
    ------
    InputError
        One of the two cartilages is missing.
    """
    medial, lateral = (
        voxel_points_ras_mm(knee.mask(tissue), knee.geometry)
        for tissue in (Tissue.MEDIAL_TIBIAL_CARTILAGE, Tissue.LATERAL_TIBIAL_CARTILAGE)
    )
    if not len(medial) or not len(lateral):
        raise InputError("The tibia's axes cannot be found: they need its medial and its lateral cartilage.")
    centres = medial.mean(axis=0), lateral.mean(axis=0)
    scatter = _scatter(medial - centres[0]) + _scatter(lateral - centres[1])
    across = centres[1] - centres[0]
    superior = _flattest_direction(scatter, across / np.linalg.norm(across))
    if superior[2] < 0:
        superior = -superior
    lateral_axis = across - (across @ superior) * superior
    lateral_axis /= np.linalg.norm(lateral_axis)
    anterior = np.cross(superior, lateral_axis)
    if anterior[1] < 0:
        anterior = -anterior
    return Frame((centres[0] + centres[1]) / 2.0, np.stack([lateral_axis, anterior, superior]))


def patient_frame(knee: Knee) -> Frame:
    """The patient axes as a frame, for a knee without a femur: not corrected for how the knee lay."""
    lateral = 1.0 if _side_of(knee) is Side.RIGHT else -1.0
    points = voxel_points_ras_mm(knee.labels > 0, knee.geometry)
    return Frame(points.mean(axis=0), np.diag([lateral, 1.0, 1.0]))


def voxel_points_ras_mm(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Centres of a mask's voxels: shape (n, 3), in the order of `numpy.nonzero`."""
    ijk = np.stack(np.nonzero(mask)[::-1], axis=1)
    return ijk @ geometry.ijk_to_ras[:3, :3].T + geometry.ijk_to_ras[:3, 3]


def _side_of(knee: Knee) -> Side:
    if knee.side is None:
        raise InputError(
            "Medial and lateral cannot be told apart: the side of this knee is not known.",
            why="The label map holds no pair of medial and lateral structures.",
            todo="Say whether it is a left or a right knee.",
        )
    return knee.side


def _starts(knee: Knee, side: Side, template: FemurTemplate, surface_ras_mm: np.ndarray) -> list[Similarity]:
    mirrored = side is Side.LEFT
    mirror = np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0])
    starts = []
    places = [_rough_centre_ras_mm(knee, tissue) for tissue in LANDMARK_TISSUES]
    found = [n for n, place in enumerate(places) if place is not None]
    if len(found) >= 3:
        centres = np.array([places[n] for n in found])
        starts.append(from_landmarks(template.centres_mm[found], centres, mirrored))
    low = surface_ras_mm[:, 2] <= surface_ras_mm[:, 2].min() + np.ptp(template.points_mm[:, 2])
    centre = surface_ras_mm[low].mean(axis=0)
    for flexion in _FLEXIONS_DEG:
        rotation = turned(0, flexion) @ mirror
        starts.append(Similarity(rotation, centre - rotation @ template.points_mm.mean(axis=0)))
    return starts


def _rough_centre_ras_mm(knee: Knee, tissue: Tissue) -> np.ndarray | None:
    """Mean of every few voxels of a tissue; None where there are none."""
    step = np.array(_ROUGH_STEP_KJI)
    ijk = np.argwhere(knee.labels[:: step[0], :: step[1], :: step[2]] == tissue) * step
    return None if not len(ijk) else knee.geometry.ijk_to_ras[:3] @ np.append(ijk.mean(axis=0)[::-1], 1.0)


def _scatter(from_centre: np.ndarray) -> np.ndarray:
    return from_centre.T @ from_centre / len(from_centre)


def _flattest_direction(scatter: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The direction of least spread among those at right angles to `across`."""
    plane = np.linalg.svd(across[None])[2][1:]
    _, vectors = np.linalg.eigh(plane @ scatter @ plane.T)
    return vectors[:, 0] @ plane
