"""Shaded pictures of coloured surfaces, drawn by numpy: no window, no graphics library, the same on every machine.

A surface is covered with samples about as dense as the picture's pixels; of those that fall on one pixel the nearest to
the eye is seen. A surface made from an image has about a triangle per pixel, so that this is quick.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from KneeAnalysisLib.meshes import SurfaceMesh

_FINENESS = 2
"""Pixels drawn for one pixel shown, along each side; their mean smooths edges."""
_FARTHEST_STEP = 2.8
"""Largest distance of samples, in pixels drawn: what is left open in between is closed from the neighbours."""
_LARGEST_SPLIT = 24
_BEHIND_MM = 1.0
"""A pixel that shows what lies so much farther away than its neighbours is a gap between samples."""
_AMBIENT, _DIFFUSE = 0.25, 0.75
_WHITE = 255
_DEPTHS = 65535


@dataclass(frozen=True, eq=False)
class Painting:
    """A surface ready to be seen from anywhere.

    Attributes
    ----------
    mesh : SurfaceMesh
    colors : ndarray, shape (N, 3), uint8
        Red, green, blue of its points.
    pixel_mm : float
        Side of a pixel shown.
    samples_ras_mm : ndarray, shape (3, n), float32
    triangle : ndarray, shape (n,), int32
        That each sample lies on.
    part : ndarray, shape (n,), int32
        Row of ``weights``.
    weights : ndarray, shape (p, 3), float32
        Barycentric coordinates.
    """

    mesh: SurfaceMesh
    colors: np.ndarray
    pixel_mm: float
    samples_ras_mm: np.ndarray
    triangle: np.ndarray
    part: np.ndarray
    weights: np.ndarray

    def seen(self, from_ras: np.ndarray, up_ras: np.ndarray, centre_ras_mm: np.ndarray, size_px: int) -> np.ndarray:
        """The surface seen from a direction, in parallel projection, lit from the eye.

        Parameters
        ----------
        from_ras, up_ras : ndarray, shape (3,)
            Unit vectors at a right angle: to the eye, and upwards in the picture.
        centre_ras_mm : ndarray, shape (3,)
            What is in the middle of the picture.
        size_px : int
            Height and width.

        Returns
        -------
        ndarray, shape (size_px, size_px, 3), uint8
            Top row first, on white.
        """
        side = _FINENESS * size_px
        facing = np.flatnonzero((self.mesh.triangle_normals_mm2 @ from_ras > 0)[self.triangle])
        axes = np.stack([np.cross(up_ras, from_ras), -up_ras, from_ras])
        shift = -axes @ centre_ras_mm
        axes[:2] *= _FINENESS / self.pixel_mm
        shift[:2] = shift[:2] * _FINENESS / self.pixel_mm + (side - 1) / 2
        places = axes.astype(np.float32) @ self.samples_ras_mm[:, facing] + shift.astype(np.float32)[:, None]
        nearest, near = _nearest(places, side)
        nearest = _without_gaps(nearest, near)
        shown = np.full((side, side, 3), _WHITE, dtype=np.float32)
        hit = nearest >= 0
        shown[hit] = self._shaded(facing[nearest[hit]], from_ras)
        return _reduced(shown)

    def _shaded(self, samples: np.ndarray, from_ras: np.ndarray) -> np.ndarray:
        """Colour of samples in the light: (n, 3), float32."""
        corners = self.mesh.triangles[self.triangle[samples]]
        weights = self.weights[self.part[samples]]
        toward = np.clip(self.mesh.normals @ from_ras, 0, 1).astype(np.float32)
        light = _AMBIENT + _DIFFUSE * (toward[corners] * weights).sum(axis=1)
        return np.einsum("nc,ncx->nx", weights, self.colors.astype(np.float32)[corners]) * light[:, None]


def painting(mesh: SurfaceMesh, colors: np.ndarray, pixel_mm: float) -> Painting:
    """Cover a surface with samples for pictures of that resolution.

    Parameters
    ----------
    mesh : SurfaceMesh
    colors : ndarray, shape (N, 3), uint8
        Of its points.
    pixel_mm : float
    """
    corners = mesh.points_ras_mm[mesh.triangles].transpose(1, 2, 0)  # corner, coordinate, triangle
    longest_mm = np.sqrt(np.square(corners - np.roll(corners, 1, axis=0)).sum(axis=1).max(axis=0, initial=0))
    split = np.ceil(longest_mm * _FINENESS / pixel_mm / _FARTHEST_STEP).clip(1, _LARGEST_SPLIT).astype(np.int32)
    samples = [np.zeros((3, 0), np.float32)]
    triangles, parts, weights = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], [np.zeros((0, 3), np.float32)]
    for number in np.unique(split):
        own, chosen = _middles(int(number)), np.flatnonzero(split == number).astype(np.int32)
        places = own @ corners[:, :, chosen].reshape(3, -1)  # part, coordinate and triangle
        samples.append(places.reshape(len(own), 3, -1).transpose(1, 0, 2).reshape(3, -1))
        triangles.append(np.tile(chosen, len(own)))
        first = sum(map(len, weights))
        parts.append(np.repeat(np.arange(first, first + len(own), dtype=np.int32), chosen.size))
        weights.append(own)
    return Painting(
        mesh,
        colors,
        pixel_mm,
        np.concatenate(samples, axis=1),
        np.concatenate(triangles),
        np.concatenate(parts),
        np.concatenate(weights),
    )


def _middles(number: int) -> np.ndarray:
    """Barycentric coordinates of the middles of a triangle's number² equal parts: (number², 3), float32."""
    found = []
    for third, most in ((1 / 3, number - 1), (2 / 3, number - 2)):  # parts that point up, and down
        found += [(i + third, j + third) for i in range(most + 1) for j in range(most + 1 - i)]
    first_two = np.array(found) / number
    return np.column_stack([first_two, 1 - first_two.sum(axis=1)]).astype(np.float32)


def _nearest(places: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """For every pixel the sample nearest to the eye, -1 for none, (side, side), and the nearness of all samples."""
    column, row = np.rint(places[:2]).astype(np.int32)
    near = places[2]
    order = np.flatnonzero((column >= 0) & (row >= 0) & (column < side) & (row < side)).astype(np.int32)
    nearest = np.full(side * side, -1, dtype=np.int32)
    if order.size:
        low, high = float(near.min()), float(near.max())
        steps = ((near[order] - low) * (_DEPTHS / max(high - low, 1e-6))).astype(np.uint16)
        order = order[steps.argsort(kind="stable")]  # 16 bits are sorted in one go
        nearest[row[order] * side + column[order]] = order  # of several for one pixel the last, nearest one stays
    return nearest.reshape(side, side), near


def _without_gaps(nearest: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Samples by pixel, where a pixel far behind those on both sides of it takes one of theirs: (side, side), int32."""
    if not near.size:
        return nearest
    depth = np.where(nearest >= 0, near[nearest], np.float32(-np.inf))
    for axis in (0, 1):
        by_shift = {shift: np.roll(depth, shift, axis) for shift in (-2, -1, 1, 2)}
        before, after = np.maximum(by_shift[1], by_shift[2]), np.maximum(by_shift[-1], by_shift[-2])
        gap = np.minimum(before, after) > depth + _BEHIND_MM
        from_next = by_shift[1] >= by_shift[2]
        source = np.where(from_next, np.roll(nearest, 1, axis), np.roll(nearest, 2, axis))
        depth, nearest = np.where(gap, before, depth), np.where(gap, source, nearest)
    return nearest


def _reduced(image: np.ndarray) -> np.ndarray:
    """The mean of every block of pixels drawn for one pixel shown, as uint8."""
    total = np.zeros((image.shape[0] // _FINENESS, image.shape[1] // _FINENESS, 3), dtype=np.float32)
    for row in range(_FINENESS):
        for column in range(_FINENESS):
            total += image[row::_FINENESS, column::_FINENESS]
    return np.round(total / _FINENESS**2).astype(np.uint8)
