"""A template's points laid onto a surface: rotation, translation and one scale.

Iterated closest points with distances along the surface's normals, solved for small steps. What has no counterpart
(an osteophyte, a bone cut short) is far from the surface and drops out of the sum; what lies outside the image is not
looked for. Closest points alone would let a template shrink into a corner of the surface, so the scale is found
last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from KneeAnalysisLib.surface import SurfacePoints
from MedAILib.volume import Geometry

_MOST_STEPS = 60
_TURN_DONE, _SHIFT_DONE_MM = 2e-5, 2e-3
_FAR = 4.0
"""A point farther from the surface than so many median distances has no counterpart."""
_TUKEY = 4.685
_SCALE_RANGE = (0.7, 1.4)
_COARSE_STEPS = 25
_COARSE_POINTS = 400
_FEWEST_POINTS = 30


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale * rotation @ x + translation.

    Attributes
    ----------
    rotation : ndarray, shape (3, 3)
        Its determinant is 1, or -1 where it mirrors.
    translation_mm : ndarray, shape (3,)
    scale : float
    """

    rotation: np.ndarray
    translation_mm: np.ndarray
    scale: float = 1.0

    def applied(self, points_mm: np.ndarray) -> np.ndarray:
        return self.scale * points_mm @ self.rotation.T + self.translation_mm

    def inverted(self, points_mm: np.ndarray) -> np.ndarray:
        """The points that are mapped to the given ones."""
        return (points_mm - self.translation_mm) @ self.rotation / self.scale


@dataclass(frozen=True, eq=False)
class Alignment:
    """A similarity found by `aligned`.

    Attributes
    ----------
    similarity : Similarity
        From the template to the surface.
    residual_mm : float
        Median distance of the template's points from the surface.
    """

    similarity: Similarity
    residual_mm: float


def aligned(
    template_mm: np.ndarray,
    surface: SurfacePoints,
    starts: Sequence[Similarity],
    within: Geometry | None = None,
) -> Alignment:
    """The best of the alignments reached from several starts.

    Parameters
    ----------
    template_mm : ndarray, shape (n, 3)
        In random order: the first few hundred points decide between the starts.
    surface : SurfacePoints
    starts : sequence of Similarity
    within : Geometry, optional
        The image the surface was found in; points of the template outside it have no counterpart.
    """
    search = _Search(surface, within)
    few = template_mm[:: max(len(template_mm) // _COARSE_POINTS, 1)]
    coarse = [search.iterated(few, start, _COARSE_STEPS, free_scale=False) for start in starts]
    best = min(coarse, key=lambda alignment: alignment.residual_mm)
    return search.iterated(template_mm, best.similarity, _MOST_STEPS, free_scale=True)


def from_landmarks(template_mm: np.ndarray, points_mm: np.ndarray, mirrored: bool = False) -> Similarity:
    """The rotation and translation (no scale) that fit corresponding points best (Kabsch)."""
    centre_from, centre_to = template_mm.mean(axis=0), points_mm.mean(axis=0)
    u, _, vt = np.linalg.svd((points_mm - centre_to).T @ (template_mm - centre_from))
    handed = np.sign(np.linalg.det(u @ vt)) * (-1.0 if mirrored else 1.0)
    rotation = u @ np.diag([1.0, 1.0, handed]) @ vt
    return Similarity(rotation, centre_to - rotation @ centre_from)


def turned(axis: int, degrees: float) -> np.ndarray:
    """The rotation matrix about a coordinate axis."""
    return _rotation(np.deg2rad(degrees) * np.eye(3)[axis])


class _Search:
    """Closest points on one surface."""

    def __init__(self, surface: SurfacePoints, within: Geometry | None) -> None:
        from scipy.spatial import cKDTree

        self._surface = surface
        self._tree = cKDTree(surface.points_ras_mm)
        self._within = within

    def iterated(self, template_mm: np.ndarray, start: Similarity, steps: int, *, free_scale: bool) -> Alignment:
        current = start
        residual_mm = np.inf
        for _ in range(steps):
            points = current.applied(template_mm)
            points = points[self._visible(points)]
            if len(points) < _FEWEST_POINTS:
                return Alignment(current, np.inf)
            distance_mm, nearest = self._tree.query(points)
            residual_mm = float(np.median(distance_mm))
            normals = self._surface.normals_ras[nearest]
            along = np.einsum("nc,nc->n", self._surface.points_ras_mm[nearest] - points, normals)
            weights = (distance_mm <= _FAR * residual_mm) * _tukey(along, distance_mm <= _FAR * residual_mm)
            current, turn, shift_mm = _step(current, points, normals, along, weights, free_scale)
            if turn < _TURN_DONE and shift_mm < _SHIFT_DONE_MM:
                break
        return Alignment(current, residual_mm)

    def _visible(self, points_ras_mm: np.ndarray) -> np.ndarray:
        if self._within is None:
            return np.ones(len(points_ras_mm), bool)
        ras_to_ijk = np.linalg.inv(self._within.ijk_to_ras)
        ijk = points_ras_mm @ ras_to_ijk[:3, :3].T + ras_to_ijk[:3, 3]
        last_ijk = np.array(self._within.shape_kji[::-1]) - 1
        return np.all((ijk >= 0) & (ijk <= last_ijk), axis=1)


def _tukey(along: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Weights that fall to zero for distances much larger than the usual ones."""
    spread = 1.4826 * np.median(np.abs(along[near])) + 1e-3
    return np.square(np.maximum(1.0 - np.square(along / (_TUKEY * spread)), 0.0))


def _step(
    current: Similarity,
    points: np.ndarray,
    normals: np.ndarray,
    along: np.ndarray,
    weights: np.ndarray,
    free_scale: bool,
) -> tuple[Similarity, float, float]:
    """One weighted least-squares step for a small turn, shift and change of scale about the points' centre."""
    centre = weights @ points / weights.sum()
    arm = points - centre
    jacobian = np.hstack([np.cross(arm, normals), normals, np.einsum("nc,nc->n", arm, normals)[:, None]])
    curvature = (jacobian * weights[:, None]).T @ jacobian
    gradient = (jacobian * weights[:, None]).T @ along
    free = 7 if free_scale else 6
    ridge = 1e-9 * np.diag(np.diag(curvature)) + 1e-12 * np.eye(7)
    change = np.zeros(7)
    change[:free] = np.linalg.solve((curvature + ridge)[:free, :free], gradient[:free])
    rotation = _rotation(change[:3])
    scale = float(np.clip(current.scale * (1.0 + change[6]), *_SCALE_RANGE))
    growth = scale / current.scale
    translation = growth * rotation @ (current.translation_mm - centre) + centre + change[3:6]
    moved = Similarity(rotation @ current.rotation, translation, scale)
    return moved, float(np.linalg.norm(change[:3])), float(np.linalg.norm(change[3:6]))


def _rotation(turn: np.ndarray) -> np.ndarray:
    """The matrix of a rotation vector (Rodrigues)."""
    angle = float(np.linalg.norm(turn))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = turn / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
