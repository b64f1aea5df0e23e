"""Real structures to measure on, by data set and split, each cut to its own surroundings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedAILib.imageio import read_label_map, read_volume
from MedAILib.volume import Volume
from Mem3DPropagateLib.request import Axis

DATA = Path(os.environ.get("MEDAI_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))

MARGIN = 32
"""Voxels kept around a structure in its own plane."""
SLICES_BEYOND = 10
"""Slices kept beyond its ends."""

SMALLEST_VOXELS, FEWEST_SLICES = 1500, 12
"""Organs of a multi-organ map below these are left out: too few slices to leave any between references."""


@dataclass(frozen=True, eq=False)
class Case:
    """One structure.

    Attributes
    ----------
    data_set, name : str
    image, truth : ndarray, shape (slices, rows, columns)
        The image, and the structure as bool, slices first.
    pixel_mm : tuple of float
    slice_mm : float
    first, last : int
        Outermost slices that hold it.
    """

    data_set: str
    name: str
    image: np.ndarray
    truth: np.ndarray
    pixel_mm: tuple[float, float]
    slice_mm: float

    @property
    def first(self) -> int:
        return int(np.flatnonzero(self.truth.any(axis=(1, 2)))[0])

    @property
    def last(self) -> int:
        return int(np.flatnonzero(self.truth.any(axis=(1, 2)))[-1])

    def evenly(self, count: int) -> np.ndarray:
        """``count`` slices evenly spaced over the structure, its first and its last included."""
        return np.unique(np.linspace(self.first, self.last, count).round().astype(int))


@dataclass(frozen=True)
class DataSet:
    """Cases of one kind: which cases of the manifest, along which axis, labels together or one by one."""

    name: str
    chosen: Callable[[dict], bool]
    axes: tuple[Axis, ...]
    label_by_label: bool = False


DATA_SETS = (
    DataSet("hippocampus MR", lambda c: c["case"].startswith("hippo"), (Axis.J,)),
    DataSet("sarcoma MR", lambda c: c["case"].startswith("sts") and c["modality"] == "MR T1", (Axis.K,)),
    DataSet("organs CT", lambda c: c["case"] == "ts_ct_sm", (Axis.K,), label_by_label=True),
    DataSet("vessels CT", lambda c: c["case"] in ("ts_aorta", "ts_pulm"), (Axis.K,), label_by_label=True),
    DataSet("brain structures MR", lambda c: c["case"] == "brain_vxm_t1", (Axis.K,), label_by_label=True),
    DataSet("chest CT", lambda c: c["case"] == "chestct_lung1_001", (Axis.K,), label_by_label=True),
    DataSet("brain tumour MR", lambda c: c["case"] == "brats_pat0004_flair", (Axis.K,)),
    DataSet("spleen, cord, lesions", lambda c: c["case"] in _SINGLES, (Axis.K,)),
)
_SINGLES = {"spleen2_ct", "cord_sct_t2", "cord_sct_t1", "pyrad_breast1", "chestct_pat1_gtv"}


def manifest() -> list[dict]:
    """Entries of the shared data's manifest."""
    return json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))


def cases(data_set: DataSet, split: str, most: int | None = None) -> Iterator[Case]:
    """Cases of a data set and split; weights and calibrations may be fitted on ``train`` alone."""
    entries = [c for c in manifest() if c["kind"] == "vol3d" and c["split"] == split and data_set.chosen(c)]
    if split == "train":
        entries = [c for c in entries if c["redistribution"] == "ok"]
    for entry in entries[:most]:
        folder = DATA / "vol3d" / entry["case"]
        for axis in data_set.axes:
            yield from _structures(data_set, entry["case"], folder, axis)


def _structures(data_set: DataSet, name: str, folder: Path, axis: Axis) -> Iterator[Case]:
    label_map, image = read_label_map(folder / "mask.nii.gz"), read_volume(folder / "image.nii.gz").array
    spacing_mm = label_map.geometry.spacing_kji_mm
    labels = label_map.layers[0]
    if not data_set.label_by_label:
        yield cut_out(data_set.name, name, image, labels > 0, spacing_mm, axis)
        return
    for info in label_map.segments:
        mask = labels == info.label_value
        slices = mask.any(axis=tuple(a for a in range(3) if a != axis.array_axis)).sum()
        if mask.sum() >= SMALLEST_VOXELS and slices >= FEWEST_SLICES:
            yield cut_out(data_set.name, f"{name}/{info.label_value}", image, mask, spacing_mm, axis)


def cut_out(
    data_set: str, name: str, image: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, ...], axis: Axis
) -> Case:
    """A structure with its slices first, cut to its surroundings."""
    truth, image = (np.moveaxis(array, axis.array_axis, 0) for array in (mask, image))
    window = []
    for a in range(3):
        filled = np.flatnonzero(truth.any(axis=tuple(b for b in range(3) if b != a)))
        margin = MARGIN if a else SLICES_BEYOND
        window.append(slice(max(int(filled[0]) - margin, 0), int(filled[-1]) + margin + 1))
    pixel_mm = tuple(s for a, s in enumerate(spacing_mm) if a != axis.array_axis)
    image, truth = (np.ascontiguousarray(array[tuple(window)]) for array in (image, truth))
    return Case(data_set, name, image, truth, (pixel_mm[0], pixel_mm[1]), spacing_mm[axis.array_axis])


def image_and_truth(case: str) -> tuple[Volume, np.ndarray]:
    """Image of a manifest case and its mask."""
    folder = DATA / "vol3d" / case
    return read_volume(folder / "image.nii.gz"), read_label_map(folder / "mask.nii.gz").layers[0]
