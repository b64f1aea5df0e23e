"""Small training data for the tests: heads with and without a bright lesion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from MedAILib.imageio import write_label_map, write_volume
from MedAILib.volume import LabelMap, SegmentInfo, Volume

LPS = np.diag([-1.0, -1.0, 5.0, 1.0])


def head(seed: int, slices: int = 6, side: int = 32, lesion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Image (int16) and mask (uint8) of a head; the lesion is on the middle slices."""
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[:slices, :side, :side]
    image = 400.0 * (np.hypot(j - side / 2, i - side / 2) < 0.42 * side) + 30 * rng.standard_normal(k.shape)
    row, column = side / 2 + rng.uniform(-4, 4, 2)
    mask = lesion & (np.hypot(j - row, i - column) < 0.16 * side) & (np.abs(k - slices / 2) < slices / 4)
    return (image + 500 * mask).astype(np.int16), mask.astype(np.uint8)


def write_case(
    folder: Path, image: np.ndarray, mask: np.ndarray | None, label: int = 1, spacing_mm: float = 1.0
) -> None:
    """Image and mask as files of a folder."""
    matrix = LPS @ np.diag([spacing_mm, 1, 1, 1])
    folder.mkdir(parents=True)
    write_volume(Volume(image, matrix), folder / "image.nii.gz")
    if mask is not None:
        info = SegmentInfo("Segment_1", "Lesion", label)
        write_label_map(LabelMap((mask * np.uint8(label),), matrix, (info,)), folder / "mask.nii.gz")


def write_data(folder: Path, patients: int = 4, healthy: int = 2) -> Path:
    """A manifest of patients with and without a lesion."""
    entries: list[dict[str, object]] = []
    for number in range(patients + healthy):
        name, lesion = f"p{number}", number < patients
        image, mask = head(number, lesion=lesion)
        write_case(folder / name, image, mask if lesion else None)
        entry: dict[str, object] = {"patient": name, "image": f"{name}/image.nii.gz"}
        entries.append(entry | ({"mask": f"{name}/mask.nii.gz"} if lesion else {"healthy": True}))
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(entries), encoding="utf-8")
    return manifest
