"""DICOM series as volumes: which stacks a folder holds, and one stack as voxels and a matrix.

A *stack* is what makes one volume: slices of one series, one orientation and, where a series repeats
its positions, one echo, phase or time. Positions are DICOM's (LPS millimetres) until the last step.
Headers are read by pydicom; voxels too, except in compressed transfer syntaxes, which go through GDCM in SimpleITK.
Enhanced (multi-frame) files count as one slice per frame.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from MedAILib.errors import FileMissing, InputError, UnreadableFile
from MedAILib.filekind import FileKind, file_kind, open_error
from MedAILib.formats.dicomorder import grouped, repeats, sorted_slices
from MedAILib.formats.dicompixels import voxels
from MedAILib.formats.dicomslice import TAGS, DicomSlice, damage, slices_of
from MedAILib.itkimage import RAS_TO_LPS
from MedAILib.volume import Geometry, Volume

_LOG = logging.getLogger(__name__)

_LISTED_AT_MOST = 24


@dataclass(frozen=True)
class Stack:
    """Slices that make one volume.

    Attributes
    ----------
    key : str
        What chooses it in its folder: the series number, and what tells it from its siblings, such as
        ``"8 TE 6.312"``.
    description : str
        Modality, series description and number of slices, for the user.
    slices : tuple of DicomSlice
        Unsorted, as found.
    """

    key: str
    description: str
    slices: tuple[DicomSlice, ...]

    @property
    def series_uid(self) -> str:
        return self.slices[0].series_uid


def read_dicom(path: str | os.PathLike[str], *, series: str | None = None) -> Volume:
    """Read one stack of a folder; see `MedAILib.imageio.read_volume`."""
    place = Path(path)
    stacks = find_stacks(place)
    if series is not None:
        chosen = [stack for stack in stacks if series in (stack.key, stack.series_uid)]
        if not chosen:
            raise InputError(f"There is no DICOM series '{series}' in '{place}'.", todo=_choices(stacks))
    elif place.is_dir():
        chosen = list(stacks)
    else:
        chosen = [stack for stack in stacks if any(part.path == place for part in stack.slices)]
    if len(chosen) > 1:
        raise InputError(f"'{place}' holds {len(chosen)} DICOM image stacks.", todo=_choices(chosen))
    return read_stack(chosen[0])


def find_stacks(path: str | os.PathLike[str]) -> tuple[Stack, ...]:
    """The stacks of a folder, or of the series that a file belongs to.

    Files that are no DICOM images (structure sets, reports, anything else) are passed over. Folders
    within the folder are searched only where it has no DICOM image itself.

    Raises
    ------
    FileMissing
        No such file or folder.
    UnreadableFile
        No DICOM image there.
    """
    place = Path(path)
    try:
        if not place.exists():
            raise FileMissing(f"There is no file or folder '{place}'.")
        slices, others = _scan(place if place.is_dir() else place.parent)
    except OSError as error:
        raise open_error(place, error) from error
    if not place.is_dir():
        own = [part for part in slices if part.path == place]
        if not own:
            raise _no_image(place, others.get(place, "it is no DICOM image"))
        slices = [part for part in slices if part.series_uid == own[0].series_uid]
    if not slices:
        raise _no_image(place, "; ".join(sorted(set(others.values()))))
    return _stacks(slices)


def read_stack(stack: Stack) -> Volume:
    """The voxels of a stack, sorted by position, in true values, and their place.

    Stored integers stay in their type where the file states no scale, become int16 or int32 with
    whole numbers for slope and intercept (CT), and float32 otherwise.

    Raises
    ------
    UnreadableFile
        Missing or doubled slices, mixed sizes or spacings, damaged voxels; the files are named.
    """
    slices, geometry = ordered_stack(stack)
    return Volume(voxels(slices), geometry.ijk_to_ras, name=slices[0].description or slices[0].path.parent.name)


def ordered_stack(stack: Stack) -> tuple[tuple[DicomSlice, ...], Geometry]:
    """The slices in the order of the volume that `read_stack` makes of them, and its grid; no voxel is read.

    Raises
    ------
    UnreadableFile
        Missing or doubled slices, mixed sizes or spacings; the files are named.
    """
    slices = sorted_slices(stack.slices)
    return tuple(slices), Geometry((len(slices), *slices[0].shape), _ijk_to_ras(slices))


def _scan(folder: Path) -> tuple[list[DicomSlice], dict[Path, str]]:
    """All slices of a folder, and why its other DICOM files are none."""
    import pydicom

    slices: list[DicomSlice] = []
    others: dict[Path, str] = {}
    for path in _files(folder):
        if file_kind(path) is not FileKind.DICOM:
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(TAGS))
            slices += slices_of(header, path)
        except UnreadableFile as error:
            others[path] = error.why
            _LOG.debug("%s is passed over: %s.", path, error.why)
        except damage() as error:
            others[path] = f"its header is damaged ({error})"
            _LOG.warning("%s is passed over: %s.", path, others[path])
    return slices, others


def _files(folder: Path) -> Iterable[Path]:
    """The folder's own files where one of them is DICOM, else all below it."""
    own = sorted(path for path in folder.iterdir() if path.is_file())
    if any(file_kind(path) is FileKind.DICOM for path in own):
        return own
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _stacks(slices: Sequence[DicomSlice]) -> tuple[Stack, ...]:
    stacks = []
    by_series = grouped(slices, lambda part: part.series_uid)
    numbers = [parts[0].series_number for parts in by_series.values()]
    for uid, of_series in by_series.items():
        number = of_series[0].series_number
        base = number if number and numbers.count(number) == 1 else uid
        groups = list(grouped(of_series, lambda part: part.orientation_key).values())
        for index, oriented in enumerate(groups):
            plane = f" plane {index + 1}" if len(groups) > 1 else ""
            for label, parts in _withoutrepeats(oriented):
                first = parts[0]
                words = f"{first.modality} {first.description}".strip() + f", {len(parts)} slices"
                stacks.append(Stack(f"{base}{plane}{label}", words, tuple(parts)))
    return tuple(stacks)


def _withoutrepeats(slices: list[DicomSlice]) -> list[tuple[str, list[DicomSlice]]]:
    """Split slices that repeat their positions by the first attribute that makes equal, unrepeated parts."""
    if not repeats(slices):
        return [("", slices)]
    for name in DicomSlice.SPLITTERS:
        parts = grouped(slices, partial(_mark, name))
        if len(parts) > 1 and len({len(p) for p in parts.values()}) == 1 and not any(map(repeats, parts.values())):
            return [(f" {name} {value}", part) for value, part in sorted(parts.items(), key=_by_number)]
    return [("", slices)]


def _mark(name: str, part: DicomSlice) -> str:
    return part.marks[name]


def _by_number(item: tuple[Hashable, object]) -> tuple[float, str]:
    text = str(item[0])
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _ijk_to_ras(ordered: Sequence[DicomSlice]) -> np.ndarray:
    first, last = ordered[0], ordered[-1]
    matrix = np.eye(4)
    row_step_mm, column_step_mm = first.spacing_mm
    matrix[:3, 0] = np.multiply(first.row_direction, column_step_mm)
    matrix[:3, 1] = np.multiply(first.column_direction, row_step_mm)
    if len(ordered) > 1:
        matrix[:3, 2] = np.subtract(last.position_lps_mm, first.position_lps_mm) / (len(ordered) - 1)
    else:
        matrix[:3, 2] = np.multiply(first.normal, first.thickness_mm)
    matrix[:3, 3] = first.position_lps_mm
    return RAS_TO_LPS @ matrix


def _choices(stacks: Sequence[Stack]) -> str:
    listed = "; ".join(f"'{stack.key}' ({stack.description})" for stack in stacks[:_LISTED_AT_MOST])
    more = f"; and {len(stacks) - _LISTED_AT_MOST} more" if len(stacks) > _LISTED_AT_MOST else ""
    return f"Choose a series, or name a file of it: {listed}{more}."


def _no_image(place: Path, why: str) -> UnreadableFile:
    if not place.is_dir():
        return UnreadableFile(f"'{place}' holds no DICOM image.", why=f"{why[0].upper()}{why[1:]}.")
    return UnreadableFile(
        f"No DICOM image was found in '{place}'.",
        why=f"Of the DICOM files there: {why}." if why else "There is no DICOM file in it.",
        todo="Name the folder that holds the slices.",
    )
