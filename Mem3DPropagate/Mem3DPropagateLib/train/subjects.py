"""What the propagation network learns from: volumes with labels, and labels that are made.

Few structures are drawn by experts, so three more kinds of labels are used. *Regions* of a real volume, by watershed
or by brightness, have outlines that the image shows. *Label maps* get images painted onto them, label by label (after
SynthSeg, Billot et al., Medical Image Analysis 2023, arXiv:2107.09559). *Random shapes* are partitions of space by
smooth noise, painted likewise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from MedAILib.errors import FileMissing, InputError
from MedAILib.imageio import read_label_map, read_volume

FEWEST_VOXELS = 200
FEWEST_SLICES = 4
LARGEST_SHARE = 0.4
"""Of a volume: a larger region is its background."""


class Kind(Enum):
    """Where the labels of a subject come from."""

    DRAWN = "drawn"
    REGIONS = "regions"
    PAINTED = "painted"


@dataclass(frozen=True, eq=False)
class Subject:
    """A volume and its labels.

    Attributes
    ----------
    name, patient : str
    kind : Kind
    image : ndarray, shape (k, j, i), or None
        None: it is painted anew each time.
    labels : ndarray, shape (k, j, i), integer
        0 is no structure.
    spacing_mm : tuple of float
        Along k, j, i.
    """

    name: str
    patient: str
    kind: Kind
    image: np.ndarray | None
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]

    @cached_property
    def structures(self) -> tuple[tuple[int, tuple[slice, slice, slice]], ...]:
        """Label and bounding box of every structure large enough to learn from."""
        found = []
        for label, box in enumerate(ndimage.find_objects(self.labels), start=1):
            if box is None or min(part.stop - part.start for part in box) < FEWEST_SLICES:
                continue
            count = np.count_nonzero(self.labels[box] == label)
            if FEWEST_VOXELS <= count <= LARGEST_SHARE * self.labels.size:
                found.append((label, box))
        return tuple(found)


def read_subjects(manifest: Path) -> list[Subject]:
    """The cases of a manifest that may train weights, in its order.

    The manifest is a JSON list of cases. Used are those with ``split: train`` and ``redistribution: ok`` of the kinds
    ``vol3d`` (files: image, then mask) and ``labelmap`` (files: label maps); files are relative to its folder.

    Raises
    ------
    FileMissing
    InputError
        It holds no such case, or is no manifest.
    """
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileMissing(f"There is no file '{manifest}'.", todo="Give the manifest of the training data.") from error
    except ValueError as error:
        raise InputError(f"'{manifest.name}' is not JSON.", why=f"{error}.") from error
    subjects = [subject for entry in entries if _may_train(entry) for subject in _subjects(manifest.parent, entry)]
    if not subjects:
        raise InputError(
            f"'{manifest.name}' holds no case to train from.",
            why="Only cases with split 'train' and redistribution 'ok' are used, of the kinds vol3d and labelmap.",
        )
    return subjects


def split_by_patient(subjects: Sequence[Subject], share: float, seed: int) -> tuple[list[Subject], list[Subject]]:
    """Subjects to learn from, and those of about ``share`` of the patients to validate on.

    Which patients depends on their names and the seed alone: new data do not move old ones.
    """
    kept: list[Subject] = []
    apart: list[Subject] = []
    for subject in subjects:
        digest = hashlib.sha256(f"{seed}/{subject.patient}".encode()).digest()
        (apart if int.from_bytes(digest[:4]) < share * 2**32 else kept).append(subject)
    return kept, apart


def with_regions(subjects: Sequence[Subject]) -> Iterator[Subject]:
    """For each real volume the same image with regions in place of its structures: by watershed, and by brightness."""
    for subject in subjects:
        if subject.image is None or subject.image.size < 40**3:
            continue
        for name, labels in (("watershed", watershed(subject)), ("brightness", brightness_parts(subject))):
            yield Subject(
                f"{subject.name} {name}", subject.patient, Kind.REGIONS, subject.image, labels, subject.spacing_mm
            )


def watershed(subject: Subject) -> np.ndarray:
    """Regions within which the image changes little: int32, shape (k, j, i)."""
    import SimpleITK

    assert subject.image is not None
    image = SimpleITK.GetImageFromArray(np.asarray(subject.image, np.float32))
    image.SetSpacing(tuple(reversed(subject.spacing_mm)))
    slope = SimpleITK.GradientMagnitudeRecursiveGaussian(image, 1.5 * max(min(subject.spacing_mm), 0.5))
    level = float(np.percentile(SimpleITK.GetArrayViewFromImage(slope), 40))
    return SimpleITK.GetArrayFromImage(SimpleITK.MorphologicalWatershed(slope, level, False, False)).astype(np.int32)


def brightness_parts(subject: Subject, classes: int = 4) -> np.ndarray:
    """Connected parts of like brightness: int32, shape (k, j, i)."""
    assert subject.image is not None
    smooth = ndimage.gaussian_filter(np.asarray(subject.image, np.float32), 1.0)
    edges = np.quantile(smooth, np.linspace(0, 1, classes + 1)[1:-1])
    of_class = np.digitize(smooth, np.unique(edges))
    labels = np.zeros(smooth.shape, np.int32)
    for number in np.unique(of_class):
        opened = ndimage.binary_opening(of_class == number)
        parts = ndimage.label(opened)[0]
        labels[opened] = parts[opened] + labels.max()
    return labels


def random_shapes(seed: int, count: int) -> Iterator[Subject]:
    """Partitions of space by smooth noise, to be painted."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        spacing = (float(rng.choice((1.0, 2.0, 3.0))), 1.0, 1.0)
        shape = (int(72 / spacing[0]) + 12, 96, 96)
        smooth_px = rng.uniform(5, 14)
        best = np.full(shape, -np.inf, np.float32)
        labels = np.zeros(shape, np.int32)
        for label in range(1, int(rng.integers(4, 10)) + 1):
            noise = rng.standard_normal(shape, np.float32)
            field = ndimage.gaussian_filter(noise, (smooth_px / spacing[0], smooth_px, smooth_px), truncate=2.5)
            field = field / field.std() + rng.normal(0, 0.3)
            labels[field > best] = label
            best = np.maximum(best, field)
        parts = np.zeros(shape, np.int32)
        for label in np.unique(labels):
            own = ndimage.label(labels == label)[0]
            parts[own > 0] = own[own > 0] + parts.max()
        yield Subject(f"shapes {number}", f"shapes {number}", Kind.PAINTED, None, parts, spacing)


def _may_train(entry: dict[str, Any]) -> bool:
    return entry.get("split") == "train" and entry.get("redistribution") == "ok"


def _subjects(folder: Path, entry: dict[str, Any]) -> Iterator[Subject]:
    files = [folder / file for file in entry["files"]]
    if entry["kind"] == "vol3d" and len(files) == 2:
        volume, labels = read_volume(files[0]), read_label_map(files[1])
        yield Subject(
            entry["case"],
            patient_of(entry),
            Kind.DRAWN,
            np.asarray(volume.array),
            _compact(labels.layers[0]),
            volume.geometry.spacing_kji_mm,
        )
    elif entry["kind"] == "labelmap":
        for file in files:
            labels = read_label_map(file)
            name = f"{entry['case']} {file.name.split('.')[0]}"
            yield Subject(name, name, Kind.PAINTED, None, _compact(labels.layers[0]), labels.geometry.spacing_kji_mm)


def patient_of(entry: dict[str, Any]) -> str:
    """The patient of a case: stated, or its name up to the second underscore, as in ``sts_001_mr_t1``."""
    return str(entry.get("patient") or "_".join(entry["case"].split("_")[:2]))


def _compact(labels: np.ndarray) -> np.ndarray:
    """Labels renumbered from 1 without gaps, 0 kept."""
    found, places = np.unique(labels, return_inverse=True)
    numbers = np.cumsum(found != 0) * (found != 0)
    return numbers.astype(np.int32)[places].reshape(labels.shape)
