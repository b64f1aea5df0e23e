"""A knee as a value: its tissues in one orientation, its side, and the way back.

Whatever the orientation of the input, inside this library array axis 0 (k) runs from the patient's
left to right, axis 1 (j) from superior to inferior, axis 2 (i) from anterior to posterior (closest, where the grid is
oblique). Voxels are permuted and flipped, never interpolated, so a result is the same for all 48
orientations of one image, and `Knee.undone` goes back exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from KneeAnalysisLib.labels import (
    BONES,
    CARTILAGES_OF,
    EXPECTED,
    LabelScheme,
    Tissue,
    label_counts,
    label_scheme,
    other_labels,
    scheme_notes,
    tissue_segments,
    to_canonical,
)
from KneeAnalysisLib.side import Side, detected_side
from MedAILib.errors import GeometryMismatch, InputError
from MedAILib.grids import axis_code, reoriented
from MedAILib.volume import Geometry, LabelMap, Volume

Image = TypeVar("Image", Volume, LabelMap)

AXES = "PIR"
"""The canonical orientation: i to posterior, j to inferior, k to the right."""


@dataclass(frozen=True, eq=False)
class Knee:
    """Segmented tissues of one knee in canonical orientation and label values.

    Attributes
    ----------
    labels : ndarray, shape (k, j, i), uint8
        `Tissue` values; [left to right, superior to inferior, anterior to posterior]; read-only.
    geometry : Geometry
        Where the voxels are.
    side : Side or None
        None where nothing in the label map tells and none was given.
    source_axes : str
        Axis code of the input, for the way back.
    name : str
    notes : tuple of str
        What the user should know: tissues left out, a side that contradicts the labels.
    """

    labels: np.ndarray
    geometry: Geometry
    side: Side | None
    source_axes: str = AXES
    name: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels = np.ascontiguousarray(self.labels, dtype=np.uint8).view()
        labels.setflags(write=False)
        if labels.shape != self.geometry.shape_kji:
            raise InputError(f"A knee's labels {labels.shape} do not fit its grid {self.geometry.shape_kji}.")
        object.__setattr__(self, "labels", labels)

    @cached_property
    def voxels(self) -> dict[Tissue, int]:
        """Number of voxels of every tissue, zeros included."""
        counts = label_counts(self.labels)
        return {tissue: int(counts[tissue]) for tissue in Tissue}

    @property
    def present(self) -> tuple[Tissue, ...]:
        return tuple(tissue for tissue in Tissue if self.voxels[tissue])

    @property
    def missing(self) -> tuple[Tissue, ...]:
        """Tissues of a complete knee that this one lacks."""
        return tuple(tissue for tissue in EXPECTED if not self.voxels[tissue])

    @property
    def measurable_bones(self) -> tuple[Tissue, ...]:
        """Bones that are there with at least one of their cartilages."""
        return tuple(b for b in BONES if self.voxels[b] and any(self.voxels[c] for c in CARTILAGES_OF[b]))

    def mask(self, *tissues: Tissue) -> np.ndarray:
        """Voxels of one tissue, or of any of several: bool, shape (k, j, i)."""
        if len(tissues) == 1:
            return self.labels == tissues[0]
        return np.isin(self.labels, [int(tissue) for tissue in tissues])

    def label_map(self, labels: np.ndarray | None = None) -> LabelMap:
        """The tissues, or other labels on the same grid, as a label map in canonical orientation."""
        array = self.labels if labels is None else labels
        return LabelMap((array,), self.geometry.ijk_to_ras, tissue_segments(array), self.name)

    def aligned(self, image: Image) -> Image:
        """An image on the input's grid, turned to the canonical orientation.

        Raises
        ------
        GeometryMismatch
            Where the image is not on the grid of this knee.
        """
        turned = reoriented(image, AXES)
        if not turned.geometry.same_grid_as(self.geometry, tolerance_mm=1e-2):
            raise GeometryMismatch(
                "The image and the segmentation do not share their voxels.",
                todo="Resample one of them to the grid of the other.",
            )
        return turned

    def undone(self, image: Image) -> Image:
        """An image in canonical orientation, turned back to the orientation of the input."""
        return reoriented(image, self.source_axes)


def knee_from(label_map: LabelMap, scheme: str | LabelScheme = "canonical", *, side: Side | str | None = None) -> Knee:
    """Read a label map as a knee.

    Parameters
    ----------
    label_map : LabelMap
        In any orientation.
    scheme : str or LabelScheme
        ``"native"``, ``"canonical"``, a JSON file, or a scheme; see `KneeAnalysisLib.labels.label_scheme`.
    side : Side or str, optional
        ``"left"``, ``"right"``; detected from the label map where not given or ``"auto"``.

    Raises
    ------
    InputError
        The label map holds no tissue of the scheme, or contradicts it (see `check_plausible`).
    """
    knee = read_labels(label_map, scheme, side=side)
    check_plausible(knee, label_scheme(scheme))
    return knee


def read_labels(
    label_map: LabelMap, scheme: str | LabelScheme = "canonical", *, side: Side | str | None = None
) -> Knee:
    """As `knee_from`, whatever the labels are (`implausible`)."""
    chosen = label_scheme(scheme)
    canonical = reoriented(to_canonical(label_map, chosen), AXES)
    knee = Knee(canonical.layers[0], canonical.geometry, None, axis_code(label_map.geometry), label_map.name)
    found = detected_side(knee.labels)
    given = None if side in (None, "auto") else Side(side)
    notes = list(scheme_notes(label_map, chosen))
    unused = other_labels(label_map, chosen)
    if unused:
        notes.append("Left out, because the label scheme does not name them: " + ", ".join(s.name for s in unused))
    if given and found and given is not found:
        notes.append(
            f"The {given.value} side was given; by its labels this is a {found.value} knee. Is medial lateral here?"
        )
    if given is None and found is None:
        notes.append("Neither the labels nor the request tell whether this is a left or a right knee.")
    return replace(knee, side=given or found, notes=tuple(notes))


def check_plausible(knee: Knee, scheme: LabelScheme) -> None:
    """Refuse labels that cannot be what the scheme says they are.

    Two schemes share their values: read with the wrong one, a patella would be a femur.

    Raises
    ------
    InputError
        The tibia lies above the femur, or a bone is much smaller than the cartilage on it.
    """
    problems = implausible(knee)
    if problems:
        raise InputError(
            f"The labels are not those of the scheme '{scheme.name}': {', and '.join(problems)}.",
            why="The label map uses other label values.",
            todo="Choose another scheme (native, canonical) or give a labels file.",
        )


def implausible(knee: Knee) -> tuple[str, ...]:
    """What cannot be in a knee, one sentence's part each; empty where all can."""
    problems = []
    if knee.voxels[Tissue.FEMUR] and knee.voxels[Tissue.TIBIA]:
        heights = [_mean_row(knee.mask(bone)) for bone in (Tissue.FEMUR, Tissue.TIBIA)]
        if heights[0] > heights[1]:
            problems.append("the tibia would lie above the femur")
    for bone, cartilages in CARTILAGES_OF.items():
        cartilage = sum(knee.voxels[c] for c in cartilages)
        if knee.voxels[bone] and cartilage > _MOST_CARTILAGE * knee.voxels[bone]:
            problems.append(f"the {bone.key} would be much smaller than its cartilage")
    return tuple(problems)


_MOST_CARTILAGE = 2.0
"""Times the bone's volume: a bone cut by the border of the image may be smaller than its cartilage."""


def _mean_row(mask: np.ndarray) -> float:
    """Mean index along axis 1."""
    counts = mask.sum(axis=(0, 2))
    return float((counts * np.arange(counts.size)).sum() / counts.sum())
