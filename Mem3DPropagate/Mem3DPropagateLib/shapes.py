"""Plane shapes: signed distance, centre, size, connected components and their tracks over slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


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


def tracks(stack: Stack) -> tuple[np.ndarray, ...]:
    """Separate a structure into parts that can be followed on their own.

    Components of neighbouring references belong together where they overlap; components left without
    a partner on both sides are paired with the nearest one, if it is nearer than the two are wide.
    What hangs together over all references is one track, splitting and merging included.

    Returns
    -------
    tuple of ndarray, shape (n, rows, columns), bool
        Masks of each track; their union is ``stack.masks`` and they share no voxel.
    """
    labelled = [ndimage.label(mask) for mask in stack.masks]
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

    members: dict[int, np.ndarray] = {}
    for position, (labels, count) in enumerate(labelled):
        for component in range(1, count + 1):
            track = members.setdefault(root(int(first_node[position]) + component - 1), np.zeros_like(stack.masks))
            track[position] |= labels == component
    return tuple(members.values())


def _partners(lower: np.ndarray, upper: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of component labels of two neighbouring references that belong together."""
    both = (lower > 0) & (upper > 0)
    pairs = {(int(a), int(b)) for a, b in zip(lower[both], upper[both], strict=True)}
    alone_below = sorted(set(range(1, int(lower.max()) + 1)) - {a for a, _ in pairs})
    alone_above = sorted(set(range(1, int(upper.max()) + 1)) - {b for _, b in pairs})
    candidates = []
    for a in alone_below:
        for b in alone_above:
            below, above = lower == a, upper == b
            distance = float(np.linalg.norm(centre_px(below) - centre_px(above)))
            reach = 2.0 * (np.sqrt(below.sum() / np.pi) + np.sqrt(above.sum() / np.pi))
            if distance <= reach or len(alone_below) == len(alone_above) == 1:
                candidates.append((distance, a, b))
    for _, a, b in sorted(candidates):
        if all(a != x and b != y for x, y in pairs):
            pairs.add((a, b))
    return pairs
