"""Blocks that lie as the tissues of a knee do, and an image in which each has a grey value of its own."""

from __future__ import annotations

import numpy as np

from MedAILib.grids import reoriented
from MedAILib.volume import LabelMap, SegmentInfo, Volume

SPACING_KJI_MM = (1.0, 0.6, 0.6)
SHAPE_KJI = (36, 64, 56)

NATIVE_NAMES = {
    "background": 0,
    "patellar_cartilage": 1,
    "femoral_cartilage": 2,
    "medial_tibial_cartilage": 3,
    "lateral_tibial_cartilage": 4,
    "medial_meniscus": 5,
    "lateral_meniscus": 6,
    "femur": 7,
    "tibia": 8,
    "patella": 9,
}
_BLOCKS = {
    7: ((4, 32), (4, 26), (14, 48)),
    8: ((4, 32), (37, 60), (14, 48)),
    9: ((10, 26), (8, 24), (2, 9)),
    1: ((10, 26), (8, 24), (9, 13)),
    2: ((4, 32), (26, 30), (14, 48)),
    5: ((4, 10), (30, 33), (14, 48)),
    6: ((26, 32), (30, 33), (14, 48)),
    3: ((4, 16), (33, 37), (14, 48)),
    4: ((20, 32), (33, 37), (14, 48)),
}
_GREY = {0: 20, 7: 60, 8: 100, 9: 140, 2: 200, 1: 240, 3: 290, 4: 340, 5: 390, 6: 440}


def synthetic_labels(shift: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Native labels, [left to right, superior to inferior, anterior to posterior]."""
    labels = np.zeros(SHAPE_KJI, np.uint8)
    for value, block in _BLOCKS.items():
        labels[tuple(slice(low + s, high + s) for (low, high), s in zip(block, shift, strict=True))] = value
    return labels


def synthetic_image(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Grey values, float32, with a little noise."""
    table = np.zeros(10, np.float32)
    for value, grey in _GREY.items():
        table[value] = grey
    return table[labels] + np.random.default_rng(seed).normal(0, 5, labels.shape).astype(np.float32)


def matrix(axes_kji: np.ndarray | None = None) -> np.ndarray:
    """IJK-to-RAS of a grid in the axes PIR, slightly oblique."""
    k, j, i = SPACING_KJI_MM
    straight = np.array([[0, 0, k], [-i, 0, 0], [0, -j, 0]], dtype=float)
    angle = np.deg2rad(6)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    found = np.eye(4)
    found[:3, :3] = turn @ straight
    found[:3, 3] = (-20, 15, 30)
    return found


def synthetic_volume(axes: str = "PIR", seed: int = 0) -> tuple[Volume, LabelMap]:
    """Image and native labels in an orientation."""
    labels = synthetic_labels()
    volume = Volume(synthetic_image(labels, seed), matrix(), "Knie ü")
    segments = tuple(SegmentInfo(str(value), str(value), value) for value in range(1, 10))
    label_map = LabelMap((labels,), matrix(), segments)
    return reoriented(volume, axes), reoriented(label_map, axes)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0
