"""From files to pictures: picture files, DICOM, slices of volumes, folders and patterns of them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from MedAILib.errors import FileMissing, InputError, MedAIError
from MedAILib.filekind import FileKind, file_kind, is_folder, not_an_image, open_error, read_head
from MedMNISTRouterLib.picture import Picture
from MedMNISTRouterLib.prepare import eight_bit
from MedMNISTRouterLib.request import Answer, PlainImage

ALL_SLICES = -1
_BATCH_BYTES = 64_000_000
_VOLUMES = (FileKind.NIFTI, FileKind.NRRD, FileKind.METAIMAGE)
_PICTURES = (FileKind.PICTURE, FileKind.DICOM)
_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm")
_PATTERN = re.compile(r"[*?\[]")
_OTHER_PICTURES = (b"RIFF", b"P5", b"P6", b"\0\0\0\x0cjP", b"II+\0", b"MM\0+")
"""First bytes of pictures that `file_kind` does not know: WebP, PGM, PPM, JPEG 2000, BigTIFF."""


@dataclass(frozen=True)
class Reading:
    """What to take from files that hold more than one picture.

    Attributes
    ----------
    axis : str
        Across the slices of a volume, see `MedMNISTRouterLib.planes.AXES`.
    slice : int, optional
        From 0; `ALL_SLICES`: the whole stack. Default: the middle one.
    frame : int, optional
        Of a DICOM, TIFF or GIF file, from 1; 0: all. Default: the first.
    window : tuple of float, optional
        Values of black and white of a volume.
    """

    axis: str = "auto"
    slice: int | None = None
    frame: int | None = None
    window: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures from several files, with those that could not be read in their places.

    Attributes
    ----------
    entries : tuple of Picture or Answer
        An answer stands for a file that could not be read.
    """

    entries: tuple[Picture | Answer, ...]

    @property
    def images(self) -> tuple[PlainImage, ...]:
        """What a request takes; their names tell them apart."""
        return tuple(entry.image for entry in self.entries if isinstance(entry, Picture))

    def merged(self, answers: Sequence[Answer]) -> tuple[Answer, ...]:
        """One answer per entry: those to `images` with what was noted on reading, the others as they are."""
        waiting = iter(answers)
        return tuple(
            entry if isinstance(entry, Answer) else noted(next(waiting), entry.notes) for entry in self.entries
        )


def read_batches(paths: Sequence[Path], reading: Reading | None = None) -> Iterator[tuple[Batch, int]]:
    """Read files, a few at a time; one that cannot be read does not hinder the others.

    Parameters
    ----------
    paths : sequence of Path
        Files, see `found_files`. A picture bears its file's name, or where several files have that name, its path.
    reading : Reading, optional

    Yields
    ------
    batch : Batch
        Pictures of up to 64 MB together, as 8 bit: this is what a model sees of them in any case.
    count : int
        Number of files in it.
    """
    names = display_names(paths)
    entries: list[Picture | Answer] = []
    held_bytes = count = 0
    for path, name in zip(paths, names, strict=True):
        found = _entries_of(path, name, reading)
        entries += found
        held_bytes += sum(entry.image.pixels.nbytes for entry in found if isinstance(entry, Picture))
        count += 1
        if held_bytes >= _BATCH_BYTES:
            yield Batch(tuple(entries)), count
            entries, held_bytes, count = [], 0, 0
    if entries:
        yield Batch(tuple(entries)), count


def find_picture(paths: Iterable[Path], reading: Reading, name: str) -> PlainImage | None:
    """The picture of an answer, read again; None where it is not there any more."""
    try:
        files, _remarks = found_files(paths)
    except FileMissing:
        return None
    for path, start in zip(files, display_names(files), strict=True):
        if name == start or name.startswith(f"{start} ["):
            for entry in _entries_of(path, start, reading):
                if isinstance(entry, Picture) and entry.image.name == name:
                    return entry.image
    return None


def display_names(paths: Sequence[Path]) -> list[str]:
    """What to call files: their names, or where several have the same, their paths."""
    times = Counter(path.name for path in paths)
    return [path.name if times[path.name] == 1 else str(path) for path in paths]


def read_pictures(path: Path, reading: Reading | None = None) -> tuple[Picture, ...]:
    """The pictures of one file.

    Parameters
    ----------
    path : Path
    reading : Reading, optional

    Raises
    ------
    FileMissing, UnreadableFile
        No such file, no image, damaged, empty, or something else that stands in for it.
    InputError
        It has no such frame or slice.
    """
    reading = reading or Reading()
    if is_folder(path):
        raise InputError(f"'{path}' is a folder.", todo="Name the pictures in it, or let the command look there.")
    kind = file_kind(path)
    if kind is FileKind.DICOM:
        from MedMNISTRouterLib.dicompicture import read_dicom_picture

        return read_dicom_picture(path, reading.frame)
    if kind in _VOLUMES:
        return _slices_of_file(path, reading)
    if kind is FileKind.PICTURE or _is_other_picture(path):
        from MedMNISTRouterLib.picturefile import read_picture_file

        return read_picture_file(path, reading.frame)
    error = not_an_image(path, kind)
    if "NIfTI" in error.todo:  # advice for those who need a volume
        error.todo = "Use PNG, JPEG, TIFF, a DICOM file, or a volume (NIfTI, NRRD, MetaImage)."
    raise error


def found_files(arguments: Iterable[str | os.PathLike[str]]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files that arguments name: files, folders (their pictures and DICOM files), patterns such as ``*.png``.

    Returns
    -------
    files : tuple of Path
        In the order of the arguments, each once; within a folder or pattern by name, numbers by value.
    remarks : tuple of str
        Files of a folder that are no pictures.

    Raises
    ------
    FileMissing
        A folder without pictures, or a pattern that nothing matches.
    """
    found: dict[Path, None] = {}
    remarks: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if is_folder(path):
            inside, others = _in_folder(path)
            remarks += [f"'{path}': files that are no pictures were passed over: {others}."] if others else []
        elif _PATTERN.search(str(path)) and not path.exists():
            inside = _matching(path)
        else:
            inside = [path]
        found.update(dict.fromkeys(inside))
    return tuple(found), tuple(remarks)


def failed(name: str, error: MedAIError) -> Answer:
    """The answer about a file that could not be read."""
    return Answer(image=name, error=error.text, error_code=error.code)


def noted(answer: Answer, notes: Sequence[str]) -> Answer:
    """An answer with what was noted when its picture was read, before what the router warns of."""
    return replace(answer, warnings=(*notes, *answer.warnings)) if notes else answer


def _entries_of(path: Path, name: str, reading: Reading | None) -> list[Picture | Answer]:
    try:
        return [_compact(_renamed(picture, path.name, name)) for picture in read_pictures(path, reading)]
    except MedAIError as error:
        return [failed(name, error)]


def _compact(picture: Picture) -> Picture:
    """The picture as 8 bit; one with values that are no numbers stays, to be turned away for them."""
    pixels = picture.image.pixels
    if pixels.dtype == np.uint8 or (pixels.dtype.kind == "f" and not np.isfinite(pixels).all()):
        return picture
    shown = eight_bit(picture.image)
    image = replace(picture.image, pixels=shown.pixels, value_range=None)
    return Picture(image, (*picture.notes, shown.remark) if shown.remark else picture.notes)


def _slices_of_file(path: Path, reading: Reading) -> tuple[Picture, ...]:
    from MedAILib.imageio import read_volume
    from MedMNISTRouterLib.slices import Cut, all_cuts, middle_cut, pictures_of, voxel_axis

    volume = replace(read_volume(path), name=path.name)
    axis = voxel_axis(volume.geometry, reading.axis)
    if reading.slice == ALL_SLICES:
        cuts = all_cuts(volume.geometry, axis)
    elif reading.slice is None:
        cuts = (middle_cut(volume.geometry, axis),)
    else:
        cuts = (Cut(axis, reading.slice),)
    return pictures_of(volume, cuts, reading.window)


def _renamed(picture: Picture, file_name: str, name: str) -> Picture:
    """A picture whose name starts with another one than its file's."""
    if name == file_name:
        return picture
    return replace(picture, image=replace(picture.image, name=name + picture.image.name.removeprefix(file_name)))


def _in_folder(folder: Path) -> tuple[list[Path], int]:
    try:
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise open_error(folder, error) from error
    pictures = [path for path in files if _is_picture(path)]
    if not pictures:
        raise FileMissing(
            f"There is no picture in the folder '{folder}'.", todo="Name a folder with PNG, JPEG, TIFF or DICOM files."
        )
    return sorted(pictures, key=_by_number), len(files) - len(pictures)


def _matching(pattern: Path) -> list[Path]:
    start = Path(pattern.anchor)
    found = start.glob(str(pattern.relative_to(start) if pattern.anchor else pattern))
    files = sorted((path for path in found if path.is_file()), key=_by_number)
    if not files:
        raise FileMissing(f"No file matches '{pattern}'.", todo="Check the folder and the spelling.")
    return files


def _by_number(path: Path) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts ``slice 9`` before ``slice 10``."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts)


def _is_picture(path: Path) -> bool:
    """Whether a file is a picture, or calls itself one: what is wrong with it is said then."""
    return path.suffix.lower() in _ENDINGS or file_kind(path) in _PICTURES or _is_other_picture(path)


def _is_other_picture(path: Path) -> bool:
    return read_head(path, 16).startswith(_OTHER_PICTURES)
