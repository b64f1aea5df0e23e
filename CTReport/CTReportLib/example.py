"""A synthetic chest, to try the module with and for its self-test: simple shapes, and fluid beside the right lung."""

from __future__ import annotations

import numpy as np

from MedAILib.volume import Volume

SPACING_MM = 4.0
_HALF_MM = (170.0, 124.0, 160.0)
_AIR, _FAT, _TISSUE, _LUNG, _BONE, _FLUID = -1000.0, -90.0, 45.0, -860.0, 450.0, 8.0
_APEX_MM, _BASE_MM = 125.0, -105.0


def example_chest() -> Volume:
    """The chest in Hounsfield units, int16, its axes along R, A and S; always the same.

    Lengths are millimetres from its middle. It is no patient, and looks like none.
    """
    z, y, x = np.meshgrid(*(_centres(half) for half in reversed(_HALF_MM)), indexing="ij", sparse=True)
    hu = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), _AIR, np.float32)
    everywhere = np.ones_like(z, dtype=bool)
    hu[_ellipse(x, y, 164, 114) & everywhere] = _FAT
    hu[_ellipse(x, y, 154, 104) & everywhere] = _TISSUE
    ribs = _ellipse(x, y, 148, 98) & ~_ellipse(x, y, 141, 91) & (np.mod(z, 24.0) < 12.0) & (z > _BASE_MM - 30)
    hu[ribs] = _BONE
    hu[_ellipse(x, y + 72, 20, 18) & everywhere] = 0.7 * _BONE  # the spine
    heart = _ellipse(x + 18, y - 22, 52, 42, (z + 45) / 55)
    for side in (-78.0, 78.0):
        lung = _ellipse(x - side, y - 2, 60, 82, (z - _BASE_MM) / (_APEX_MM - _BASE_MM)) & (z > _BASE_MM) & ~heart
        hu[lung] = _LUNG
        if side > 0:  # free fluid lies behind and below
            hu[lung & (y < -22 - 0.35 * (z - _BASE_MM)) & (z < 10)] = _FLUID
    hu[_ellipse(x, y + 10, 9, 9) & (z > 40)] = _AIR  # the trachea
    hu += np.random.default_rng(7).normal(0.0, 12.0, hu.shape).astype(np.float32)
    matrix = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    matrix[:3, 3] = [_centres(half)[0] for half in _HALF_MM]
    return Volume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), matrix, "Synthetic chest")


def _centres(half_mm: float) -> np.ndarray:
    count = round(2 * half_mm / SPACING_MM)
    return (np.arange(count) - (count - 1) / 2) * SPACING_MM


def _ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float, height: np.ndarray | float = 0.0) -> np.ndarray:
    inside: np.ndarray = (x / a) ** 2 + (y / b) ** 2 + np.square(height) < 1.0
    return inside
