"""Oblique grids for the tests of the door."""

from __future__ import annotations

import numpy as np


def oblique_matrix(
    spacing_ijk_mm: tuple[float, float, float],
    turns_rad: tuple[float, float],
    origin_ras_mm: tuple[float, float, float],
    *,
    left_handed: bool = False,
) -> np.ndarray:
    """IJK-to-RAS of a grid turned about z, then about x."""
    (a, b), matrix = turns_rad, np.eye(4)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix[:3, :3] = about_x @ about_z @ np.diag([1, 1, -1 if left_handed else 1]) @ np.diag(spacing_ijk_mm)
    matrix[:3, 3] = origin_ras_mm
    return matrix
