"""The slices of cases at the network's size, kept in files so that memory does not grow with the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from MedAILib.errors import InputError
from MedAILib.grids import placed, reoriented
from MedAILib.imageio import read_label_map, read_volume
from MedAILib.jobs.task import Context
from MedAILib.models.heads import Input
from MedAILib.multitask.framing import framing_for, resampled
from MedAILib.multitask.normalise import finite, normalised
from MedAILib.multitask.train.cases import Case
from MedAILib.volume import LabelMap, Volume

AMBIGUOUS_SHARE = 1e-4
"""A slice whose tumour takes less of the image teaches nothing reliable about whether there is one: left out."""


@dataclass(frozen=True, eq=False)
class SliceSet:
    """Slices, normalised and at the network's size.

    Attributes
    ----------
    images : ndarray, shape (slices, rows, columns), float32
    masks : ndarray, shape (slices, rows, columns), uint8
        1 where a tumour is.
    """

    images: np.ndarray
    masks: np.ndarray

    @cached_property
    def positive(self) -> np.ndarray:
        """Indices of the slices that show a tumour."""
        return np.flatnonzero(self.masks.any(axis=(1, 2)))

    @cached_property
    def negative(self) -> np.ndarray:
        """Indices of the slices that show none."""
        return np.flatnonzero(~self.masks.any(axis=(1, 2)))

    def __len__(self) -> int:
        return len(self.images)


def cut(cases: Sequence[Case], image_input: Input, axes: str, folder: Path, context: Context, stage: str) -> SliceSet:
    """Cut all cases into slices.

    Parameters
    ----------
    image_input : Input
        Size, resizing and normalisation.
    axes : str
        Axis code of the slices, see `MedAILib.multitask.planes`.
    folder : Path
        Takes two files, named after the stage.
    stage : str
        For progress.

    Raises
    ------
    InputError
        Where a file cannot be read or a mask does not lie on its image.
    """
    size = (image_input.size[0], image_input.size[1])
    paths = [folder / f"{stage}.{name}" for name in ("images", "masks")]
    count = 0
    with paths[0].open("wb") as images, paths[1].open("wb") as masks:
        for number, case in enumerate(cases):
            context.progress(f"Reading {stage} images", 0.05 * number / len(cases))
            for image, mask in _slices(case, image_input, axes):
                images.write(image.tobytes())
                masks.write(mask.tobytes())
                count += 1
    if count == 0:
        empty = np.zeros((0, *size))
        return SliceSet(empty.astype(np.float32), empty.astype(np.uint8))
    shape = (count, *size)
    return SliceSet(np.memmap(paths[0], np.float32, "r", shape=shape), np.memmap(paths[1], np.uint8, "r", shape=shape))


def _slices(case: Case, image_input: Input, axes: str) -> list[tuple[np.ndarray, np.ndarray]]:
    assert image_input.normalisation is not None
    volume = read_volume(case.image)
    tumour = _tumour(case, volume)
    oriented, mask_kji = reoriented(volume, axes), reoriented(tumour, axes).array
    framing = framing_for(oriented.array.shape[1:], image_input, oriented.geometry.spacing_kji_mm[1:])
    ambiguous = AMBIGUOUS_SHARE * framing.size[0] * framing.size[1]
    found = []
    for plane, drawn in zip(oriented.array, mask_kji, strict=True):
        plane = finite(plane)
        if plane.min() == plane.max():  # nothing to see, nothing to learn
            continue
        image = framing.padded(normalised(framing.resized(plane[None]), image_input.normalisation))[0]
        mask = np.zeros(framing.size, np.uint8)
        mask[framing.window] = resampled(drawn[None].astype(np.float32), framing.content, None)[0] >= 0.5
        if not drawn.any() or mask.sum() >= ambiguous:
            found.append((np.ascontiguousarray(image), mask))
    return found


def _tumour(case: Case, volume: Volume) -> Volume:
    """Where the tumour is, uint8, on the image's grid."""
    found = np.zeros(volume.array.shape, np.uint8)
    if case.mask is not None:
        drawn = placed(read_label_map(case.mask), volume.geometry)
        _check_labels(case, drawn)
        for layer in drawn.layers:
            found |= (layer > 0 if case.labels is None else np.isin(layer, case.labels)).astype(np.uint8)
    return Volume(found, volume.ijk_to_ras)


def _check_labels(case: Case, drawn: LabelMap) -> None:
    if case.labels is not None and not any(np.isin(layer, case.labels).any() for layer in drawn.layers):
        raise InputError(
            f"'{case.mask}' has none of the labels {', '.join(map(str, case.labels))}.",
            todo="Mend 'labels' in the manifest; a healthy image needs no mask but 'healthy': true.",
        )
