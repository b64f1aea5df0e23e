"""Cleaning of a predicted label map: one piece per tissue, no cavities inside bones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from KneeAnalysisLib.labels import BONES, EXPECTED, LabelScheme, Tissue
from MedAILib.errors import InputError

WORTH_TELLING = 0.05
"""A tissue that loses more than this part of its voxels is named to the user."""


@dataclass(frozen=True)
class Cleaned:
    """A label map after cleaning.

    Attributes
    ----------
    labels : ndarray, shape (k, j, i), uint8
        `Tissue` values.
    removed, filled : mapping of Tissue to int
        Voxels taken away as separate pieces, and added as cavities; tissues without any are left out.
    notes : tuple of str
        Tissues that lost more than `WORTH_TELLING` of their voxels, for the user.
    """

    labels: np.ndarray
    removed: Mapping[Tissue, int] = field(default_factory=dict)
    filled: Mapping[Tissue, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def relabelled(labels: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    """Label values of a scheme as `Tissue` values; values that it does not name become background.

    Parameters
    ----------
    labels : ndarray of uint8
    scheme : LabelScheme
        Of numbers.

    Raises
    ------
    InputError
        The scheme names labels by text, which an array does not have.
    """
    table = np.zeros(256, dtype=np.uint8)
    for tissue, values in scheme.labels.items():
        for value in values:
            if not isinstance(value, int) or not 0 < value < 256:
                raise InputError(
                    f"The label scheme '{scheme.name}' gives {tissue.key} the label {value!r}.",
                    why="What a network puts out has label values from 1 to 255.",
                    todo="Use numbers in the labels file.",
                )
            table[value] = tissue
    return table[labels]


def cleaned(labels: np.ndarray, *, largest_component: bool = True, fill_bone_holes: bool = True) -> Cleaned:
    """Keep of every tissue its largest piece and fill the cavities of bones.

    Pieces touch by faces. A cavity is filled where it holds background; a tissue inside a bone stays.

    Parameters
    ----------
    labels : ndarray, shape (k, j, i)
        `Tissue` values; not changed.
    largest_component, fill_bone_holes : bool
    """
    clean = np.array(labels, dtype=np.uint8)
    removed: dict[Tissue, int] = {}
    filled: dict[Tissue, int] = {}
    notes: list[str] = []
    if largest_component:
        for tissue, count, lost in _keep_largest(clean, EXPECTED):
            removed[tissue] = lost
            if lost > WORTH_TELLING * count:
                notes.append(
                    f"{tissue.title}: {lost:,} of {count:,} voxels lay apart from its largest piece and were removed."
                )
    if fill_bone_holes:
        for tissue, added in _fill_holes(clean, BONES):
            filled[tissue] = added
    return Cleaned(clean, removed, filled, tuple(notes))


def _keep_largest(labels: np.ndarray, tissues: Iterable[Tissue]) -> list[tuple[Tissue, int, int]]:
    """Set all but the largest piece of each tissue to 0, in place; tissue, voxels before, voxels lost."""
    from scipy import ndimage

    found = []
    boxes = ndimage.find_objects(labels)
    for tissue in tissues:
        box = boxes[tissue - 1] if tissue <= len(boxes) else None
        if box is None:
            continue
        mask = labels[box] == tissue
        pieces, count = ndimage.label(mask)
        if count < 2:
            continue
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        stray = mask & (pieces != sizes.argmax())
        labels[box][stray] = 0
        found.append((tissue, int(sizes.sum()), int(np.count_nonzero(stray))))
    return found


def _fill_holes(labels: np.ndarray, bones: Iterable[Tissue]) -> list[tuple[Tissue, int]]:
    """Give background enclosed by a bone to it, in place; bone, voxels added."""
    from scipy import ndimage

    found = []
    boxes = ndimage.find_objects(labels)
    for bone in bones:
        box = boxes[bone - 1] if bone <= len(boxes) else None
        if box is None:
            continue
        block = labels[box]
        cavity = ndimage.binary_fill_holes(block == bone) & (block == 0)
        if cavity.any():
            block[cavity] = bone
            found.append((bone, int(np.count_nonzero(cavity))))
    return found
