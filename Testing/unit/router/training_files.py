"""Small ``.npz`` files in MedMNIST's form, with images that can be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from MedMNISTRouterLib.datasets import BY_FLAG, DatasetTask


def write_dataset(
    folder: Path, flag: str, counts: tuple[int, ...] = (60, 30, 30), size: int = 28, seed: int = 0
) -> Path:
    """A file of a data set: the brightness of the i-th strip tells whether label i is there, or which one it is."""
    dataset, rng = BY_FLAG[flag], np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for split, count in zip(("train", "val", "test"), counts, strict=False):
        labels = _labels(dataset.task, len(dataset.class_names), count, rng)
        arrays[f"{split}_images"] = _images(labels, len(dataset.class_names), size, dataset.channels, rng)
        arrays[f"{split}_labels"] = labels
    path = folder / f"{flag}.npz"
    np.savez_compressed(path, **arrays)
    return path


def _labels(task: DatasetTask, classes: int, count: int, rng: np.random.Generator) -> np.ndarray:
    if task is DatasetTask.MULTI_LABEL:
        return (rng.random((count, classes)) < 0.3).astype(np.int64)
    return (np.arange(count) % classes).astype(np.uint8)[:, None]


def _images(labels: np.ndarray, classes: int, size: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    there = labels if labels.shape[1] > 1 else labels == np.arange(classes)
    strip = np.repeat(there, int(np.ceil(size / classes)), axis=1)[:, :size]
    images = 60 + 120 * strip[:, :, None, None] + rng.normal(0, 12, (len(labels), size, size, channels))
    images = np.clip(images, 0, 255).astype(np.uint8)
    return images if channels == 3 else images[..., 0]
