"""What the command line was given, as images: a file, a DICOM series, or a folder of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from MedAILib.errors import FileMissing
from MedAILib.filekind import FileKind, file_kind
from MedAILib.imageio import read_volume
from MedAILib.volume import Volume

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_SEGMENTATION = ".seg.nrrd"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Case:
    """One examination to report.

    Attributes
    ----------
    path : Path
        A file, or the folder of a DICOM series.
    name : str
        Start of the names of result files.
    """

    path: Path
    name: str


def find_cases(source: Path) -> tuple[Case, ...]:
    """The examinations in a path: one for a file or a DICOM series, all in a folder of files or of series.

    Raises
    ------
    FileMissing
        No such path, or a folder without images.
    """
    if not source.is_dir():
        if not source.exists():
            raise FileMissing(f"There is no '{source}'.", todo="Give a CT: NIfTI, NRRD, MetaImage or a DICOM folder.")
        return (Case(source, _stem(source)),)
    entries = sorted(entry for entry in source.iterdir() if not entry.name.startswith("."))
    images = [entry for entry in entries if entry.is_file() and _is_image(entry.name)]
    if images:
        return _named(images)
    if any(entry.is_file() and file_kind(entry) is FileKind.DICOM for entry in entries):
        return (Case(source, _stem(source)),)
    folders = [entry for entry in entries if entry.is_dir() and any(entry.rglob("*"))]
    if not folders:
        raise FileMissing(f"There is no image in '{source}'.", todo="Give a folder of CTs or of DICOM series.")
    return _named(folders)


def read_case(case: Case) -> tuple[Volume, str]:
    """The image, and its modality where DICOM says it (else empty).

    Raises
    ------
    MedAIError
        See `MedAILib.imageio.read_volume`.
    """
    volume = read_volume(case.path)
    return volume, _modality(case.path) if is_dicom(case) else ""


def is_dicom(case: Case) -> bool:
    """Whether it is a DICOM series."""
    return case.path.is_dir() or file_kind(case.path) is FileKind.DICOM


def fingerprint(case: Case) -> str:
    """SHA-256 of a case's file, or of all files of its folder with their names."""
    digest = hashlib.sha256()
    files = [case.path] if case.path.is_file() else sorted(file for file in case.path.rglob("*") if file.is_file())
    for file in files:
        if case.path.is_dir():
            digest.update(file.relative_to(case.path).as_posix().encode("utf-8", "surrogatepass"))
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _modality(path: Path) -> str:
    """Of the largest stack, which is the one that is read where there is only one."""
    from MedAILib.formats.dicom import find_stacks

    stacks = find_stacks(path)
    return max(stacks, key=lambda stack: len(stack.slices)).slices[0].modality if stacks else ""


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.lower().endswith(_SEGMENTATION)


def _named(paths: list[Path]) -> tuple[Case, ...]:
    """Cases with names of their own: two files of one stem keep their endings."""
    stems = [_stem(path) for path in paths]
    return tuple(
        Case(path, stem if stems.count(stem) == 1 else path.name) for path, stem in zip(paths, stems, strict=True)
    )


def _stem(path: Path) -> str:
    name = path.absolute().name
    if path.is_dir():
        return name
    return next((name[: -len(end)] for end in (_SEGMENTATION, *SUFFIXES) if name.lower().endswith(end)), path.stem)
