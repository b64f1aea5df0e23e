"""The DICOM series that an image came from: what reports and segmentations of it must refer to.

A report in DICOM belongs to a patient, a study and slices. None of that is in a volume, so the series is read once
more, its headers only, and must be the one: its voxels have to lie where the volume's do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom

from MedAILib.errors import DicomError, FileMissing, GeometryMismatch, InputError
from MedAILib.formats.dicom import Stack, find_stacks, ordered_stack
from MedAILib.formats.dicomslice import DicomSlice, damage
from MedAILib.grids import axis_code, placed, reoriented
from MedAILib.volume import Geometry, LabelMap

if TYPE_CHECKING:
    from pydicom import Dataset

UNICODE = "ISO_IR 192"
"""DICOM's name for UTF-8."""
_ONE_OF_ALL = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_NEEDED = ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes that DICOM wants in every object, empty where unknown; anonymised files often lack them."""
_LISTED_AT_MOST = 8
_TOLERANCE = 0.01
"""Of a voxel: files keep matrices in single precision."""


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """One stack of a DICOM series.

    Attributes
    ----------
    datasets : tuple of pydicom.Dataset
        Headers without pixels, in Unicode: one for each slice in the order of k, or the only one of a multi-frame file.
    frames : tuple of int
        For each slice the index of its frame in its file; all 0 where each slice is a file.
    geometry : Geometry
        The grid the slices make.
    """

    datasets: tuple[Dataset, ...]
    frames: tuple[int, ...]
    geometry: Geometry

    @property
    def multi_frame(self) -> bool:
        """Whether all slices are frames of one file."""
        return len(self.datasets) == 1 and len(self.frames) > 1

    def dataset(self, k: int) -> Dataset:
        """The header of the file that holds a slice."""
        return self.datasets[0] if self.multi_frame else self.datasets[k]

    def on_slices(self, masks: LabelMap) -> LabelMap:
        """Segments on the grid of the slices; nothing is interpolated.

        Raises
        ------
        GeometryMismatch
            They do not lie on voxels of the series, or beyond it.
        """
        turned = reoriented(masks, axis_code(self.geometry))
        if not _lies_on(turned.geometry, self.geometry):
            raise GeometryMismatch("The segments do not lie on the slices of this series.")
        return placed(turned, self.geometry)


def source_series(path: Path, masks: LabelMap) -> SourceSeries:
    """The stack in a path on whose slices the segments of a report lie.

    Parameters
    ----------
    path : Path
        A DICOM file of the series, or a folder of it.
    masks : LabelMap
        On the grid of the image that was reported, in any orientation, or on a part of it.

    Raises
    ------
    FileMissing, UnreadableFile
        No such path, or no DICOM image there; missing or doubled slices.
    GeometryMismatch
        The image does not lie where this series does.
    InputError
        Several series fit, or the slices belong to more than one patient, study or frame of reference, or do not say.
    """
    if not path.exists():
        raise FileMissing(f"There is no '{path}'.", todo="Name the folder of the DICOM series the CT was read from.")
    stacks = find_stacks(path)
    fitting = _fitting(stacks, masks)
    if len(fitting) > 1:
        listed = "; ".join(f"'{stack.key}' ({stack.description})" for stack, _, _ in fitting[:_LISTED_AT_MOST])
        raise InputError(
            f"'{path}' holds {len(fitting)} DICOM series on whose slices the image lies.",
            why=f"They are {listed}.",
            todo="Name a file of the one that the image was read from.",
        )
    if not fitting:
        raise _none_fits(path, stacks, masks)
    _, slices, geometry = fitting[0]
    return _read(slices, geometry)


def _fitting(stacks: tuple[Stack, ...], masks: LabelMap) -> list[tuple[Stack, tuple[DicomSlice, ...], Geometry]]:
    """Stacks on whose voxels the masks lie; where there is one stack only, what is wrong with it is raised."""
    found = []
    for stack in stacks:
        try:
            slices, geometry = ordered_stack(stack)
        except InputError:
            if len(stacks) == 1:
                raise
            continue
        if _lies_on(reoriented(masks, axis_code(geometry)).geometry, geometry):
            found.append((stack, slices, geometry))
    return found


def _lies_on(part: Geometry, whole: Geometry) -> bool:
    """Whether all voxels of one grid are voxels of the other, to a hundredth of a voxel."""
    start_ijk = np.rint(np.linalg.solve(whole.ijk_to_ras, part.ijk_to_ras[:, 3])[:3])
    stop_ijk = start_ijk + part.shape_kji[::-1]
    if (start_ijk < 0).any() or (stop_ijk > whole.shape_kji[::-1]).any():
        return False
    moved = np.eye(4)
    moved[:3, 3] = start_ijk
    there = Geometry(part.shape_kji, whole.ijk_to_ras @ moved)
    return there.same_grid_as(part, tolerance_mm=_TOLERANCE * min(whole.spacing_ijk_mm))


def _none_fits(path: Path, stacks: tuple[Stack, ...], masks: LabelMap) -> GeometryMismatch:
    size = " x ".join(str(n) for n in reversed(masks.geometry.shape_kji))
    listed = "; ".join(f"'{stack.key}' ({stack.description})" for stack in stacks[:_LISTED_AT_MOST])
    return GeometryMismatch(
        f"The image of {size} voxels does not lie on the slices of '{path}'.",
        why=f"The image was resampled or moved, slices are missing, or it is another series; there is {listed}.",
        todo="Name the series the image was read from, and report the image as it was read.",
    )


def _read(slices: tuple[DicomSlice, ...], geometry: Geometry) -> SourceSeries:
    paths = tuple(dict.fromkeys(part.path for part in slices))
    if len(paths) not in (1, len(slices)):
        raise DicomError(
            "This series cannot be referred to.",
            why="Its slices are spread over several multi-frame files.",
            todo="Export it as one multi-frame file, or as single slices.",
        )
    datasets = tuple(_header(file) for file in paths)
    for header in datasets:
        header.setdefault("SliceThickness", f"{geometry.spacing_ijk_mm[2]:.6g}")
    _check(datasets, paths)
    return SourceSeries(datasets, tuple(part.frame for part in slices), geometry)


def _header(path: Path) -> Dataset:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        header.decode()
        for name in _MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, "")
    except damage() as error:
        raise DicomError(f"The header of '{path}' could not be read.", why=f"It is damaged ({error}).") from error
    header.SpecificCharacterSet = UNICODE
    return header


def _check(datasets: tuple[Dataset, ...], paths: tuple[Path, ...]) -> None:
    """One patient, one study, one frame of reference, and all that a reference needs."""
    for header, path in zip(datasets, paths, strict=True):
        lacking = [name for name in _NEEDED if not header.get(name)]
        if lacking:
            raise DicomError(
                f"'{path.name}' cannot be referred to.",
                why=f"It does not say its {', '.join(lacking)}; perhaps it was anonymised.",
                todo="Use the files as the scanner or the archive gave them.",
            )
    for name in _ONE_OF_ALL:
        values = {str(header.get(name, "")) for header in datasets}
        if len(values) > 1:
            raise DicomError(
                f"The slices do not belong together: they have {len(values)} different values of {name}.",
                why="Files of several patients, studies or acquisitions lie in one series.",
                todo="Separate them into folders of their own, and report the one that is meant.",
            )
