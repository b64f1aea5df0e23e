"""Plane shapes: signed distance, centre, size, connected components and their tracks over slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

MOST_TRACKS = 24
"""Parts followed singly at most: a drawing by threshold may be hundreds of specks."""


@dataclass(frozen=True, eq=False)
class Stack:
    """A structure on its reference slices.

    Attributes
    ----------
    slices : ndarray, shape (n,), int
        Slice indices, strictly ascending.
    masks : ndarray, shape (n, rows, columns), bool
        A mask without any voxel says that the structure is not on that slice.
    pixel_mm : tuple of float
        Spacing of rows and of columns.
    slice_mm : float
        Distance between neighbouring slices.
    """

    slices: np.ndarray
    masks: np.ndarray
    pixel_mm: tuple[float, float]
    slice_mm: float

    @property
    def holds(self) -> np.ndarray:
        """Which references hold the structure: bool, shape (n,)."""
        return holds(self.masks)

    def without(self, position: int) -> Stack:
        """The stack less its reference number ``position``."""
        return self.with_masks(np.delete(self.slices, position), np.delete(self.masks, position, axis=0))

    def with_masks(self, slices: np.ndarray, masks: np.ndarray) -> Stack:
        """Other slices on the same grid."""
        return Stack(slices, masks, self.pixel_mm, self.slice_mm)


def holds(masks: np.ndarray) -> np.ndarray:
    """Which of some masks, shape (n, rows, columns), hold a pixel: bool, shape (n,)."""
    return np.asarray(masks.any(axis=(1, 2)))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice overlap of two masks of one shape; 1 where both are empty."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(a & b)) / total if total else 1.0


def signed_distance_mm(mask: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    """Distance to the mask's outline, positive inside: float32, millimetres, shape of the mask.

    The outline runs half a pixel outside the outermost voxel centres. The mask must hold a voxel.
    """
    half_mm = 0.5 * min(pixel_mm)
    inside = ndimage.distance_transform_edt(mask, sampling=pixel_mm)
    outside = ndimage.distance_transform_edt(~mask, sampling=pixel_mm)
    return np.where(mask, inside - half_mm, half_mm - outside).astype(np.float32)


def centre_px(mask: np.ndarray) -> np.ndarray:
    """Centroid (row, column) of a mask that holds a voxel."""
    rows, columns = np.nonzero(mask)
    return np.array([rows.mean(), columns.mean()])


def equivalent_radius_mm(area_px: float, pixel_mm: tuple[float, float]) -> float:
    """Radius of the disc that has this area."""
    return float(np.sqrt(max(area_px, 0.0) * pixel_mm[0] * pixel_mm[1] / np.pi))


def window_around(masks: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns around what masks, shape (n, rows, columns), hold, with room for a drifting end.

    At least one mask holds a pixel.
    """
    drawn = np.asarray(masks.any(axis=0))
    window = []
    for axis in (0, 1):
        filled = np.flatnonzero(drawn.any(axis=1 - axis))
        margin = 4 + int(0.15 * (filled[-1] - filled[0]))
        window.append(slice(max(int(filled[0]) - margin, 0), min(int(filled[-1]) + margin + 1, drawn.shape[axis])))
    return window[0], window[1]


def tracks(stack: Stack) -> tuple[np.ndarray, ...]:
    """Separate a structure into parts that can be followed on their own.

    Components of neighbouring references belong together where they overlap; components left without
    a partner on both sides are paired with the nearest one, if it is nearer than the two are wide.
    What hangs together over all references is one track, splitting and merging included. Of a structure
    in more than `MOST_TRACKS` parts the smallest are one track together.

    Returns
    -------
    tuple of ndarray, shape (n, rows, columns), bool
        Masks of each track, the largest first; their union is ``stack.masks`` and they share no voxel.
    """
    labelled = [ndimage.label(mask) for mask in stack.masks]
    track_of = _track_of_components(labelled)
    sizes = np.bincount(
        np.concatenate(track_of), np.concatenate([np.bincount(labels.ravel())[1:] for labels, _ in labelled])
    )
    rank = np.empty(len(sizes), dtype=int)
    rank[np.argsort(-sizes, kind="stable")] = np.minimum(np.arange(len(sizes)), MOST_TRACKS - 1)
    masks = np.zeros((min(len(sizes), MOST_TRACKS), *stack.masks.shape), dtype=bool)
    for position, (labels, _) in enumerate(labelled):
        ranks = np.concatenate(([-1], rank[track_of[position]]))[labels]
        for number in np.unique(ranks[ranks >= 0]):
            masks[number, position] = ranks == number
    return tuple(masks)


def _track_of_components(labelled: list[tuple[np.ndarray, int]]) -> list[np.ndarray]:
    """For each reference the track number, from 0, of its components 1, 2, ..."""
    first_node = np.cumsum([0, *(count for _, count in labelled)])
    parent = list(range(int(first_node[-1])))

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    for position in range(len(labelled) - 1):
        (lower, _), (upper, _) = labelled[position], labelled[position + 1]
        for a, b in _partners(lower, upper):
            parent[root(int(first_node[position]) + a - 1)] = root(int(first_node[position + 1]) + b - 1)
    roots = np.array([root(node) for node in range(len(parent))], dtype=int)
    return np.split(np.unique(roots, return_inverse=True)[1], first_node[1:-1])


def _partners(lower: np.ndarray, upper: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of component labels of two neighbouring references that belong together."""
    both = (lower > 0) & (upper > 0)
    pairs = {(int(a), int(b)) for a, b in np.unique(np.stack((lower[both], upper[both])), axis=1).T}
    below = sorted(set(range(1, int(lower.max()) + 1)) - {a for a, _ in pairs})
    above = sorted(set(range(1, int(upper.max()) + 1)) - {b for _, b in pairs})
    if not below or not above:
        return pairs
    (below_px, below_radius_px), (above_px, above_radius_px) = _discs(lower, below), _discs(upper, above)
    apart_px = np.linalg.norm(below_px[:, None] - above_px[None], axis=2)
    near = apart_px <= 2.0 * (below_radius_px[:, None] + above_radius_px[None])
    candidates = np.argwhere(near | (near.size == 1))
    for a, b in candidates[np.argsort(apart_px[tuple(candidates.T)], kind="stable")]:
        if all(below[a] != x and above[b] != y for x, y in pairs):
            pairs.add((below[a], above[b]))
    return pairs


def _discs(labels: np.ndarray, chosen: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Centres, shape (n, 2), and radii, shape (n,), in pixels, of discs in place of the chosen components."""
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, chosen))
    return centres, np.sqrt(np.bincount(labels.ravel())[chosen] / np.pi)
