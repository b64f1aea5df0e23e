"""What a file really is, from its first bytes: its name may say otherwise."""

from __future__ import annotations

import os
import zlib
from enum import Enum
from pathlib import Path

from MedAILib.errors import FileMissing, UnreadableFile

HEAD_BYTES = 4096
_GZIP = b"\x1f\x8b"


class FileKind(Enum):
    """Kinds of file we meet; the value is what to call one in a message."""

    NIFTI = "a NIfTI image"
    NRRD = "an NRRD image"
    METAIMAGE = "a MetaImage"
    DICOM = "a DICOM file"
    EMPTY = "an empty file"
    ANALYZE = "an Analyze 7.5 image, which does not say where it lies in the patient"
    HTML = "an HTML page, often the answer of a web site instead of the file"
    LFS_POINTER = "a Git LFS pointer, a note of 130 bytes in place of the file"
    BROKEN_GZIP = "a damaged or truncated gzip file"
    GZIP = "a gzip file of something else than a NIfTI image"
    ZIP = "a ZIP archive"
    PICTURE = "a 2D picture (PNG, JPEG, TIFF or similar)"
    HDF5 = "an HDF5 file"
    NUMPY = "a NumPy array, which does not say where it lies in the patient"
    TEXT = "a text file"
    UNKNOWN = "of no format we know"


_TODO = {
    FileKind.EMPTY: "Copy or download it again.",
    FileKind.HTML: "Download the file itself; you may have to sign in first.",
    FileKind.LFS_POINTER: "Fetch the data with 'git lfs pull'.",
    FileKind.BROKEN_GZIP: "Copy or download it again; the transfer probably stopped early.",
    FileKind.ZIP: "Unpack it and name a file or DICOM folder in it.",
    FileKind.ANALYZE: "Convert the original images to NIfTI.",
    FileKind.NUMPY: "Save it as NIfTI or NRRD with its spacing and orientation.",
}
_DEFAULT_TODO = "Use NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr, .seg.nrrd), MetaImage (.mha, .mhd) or a DICOM series."

_MAGICS = (
    (b"NRRD000", FileKind.NRRD),
    (b"version https://git-lfs", FileKind.LFS_POINTER),
    (b"PK\x03\x04", FileKind.ZIP),
    (b"\x89PNG", FileKind.PICTURE),
    (b"\xff\xd8\xff", FileKind.PICTURE),
    (b"II*\0", FileKind.PICTURE),
    (b"MM\0*", FileKind.PICTURE),
    (b"GIF8", FileKind.PICTURE),
    (b"BM", FileKind.PICTURE),
    (b"\x89HDF", FileKind.HDF5),
    (b"\x93NUMPY", FileKind.NUMPY),
)


def file_kind(path: str | os.PathLike[str]) -> FileKind:
    """What the file is, from its first 4096 bytes.

    Raises
    ------
    FileMissing
        Where there is no such file.
    UnreadableFile
        Where it may not be read.
    """
    head = read_head(path)
    if head.startswith(_GZIP):
        return _kind_within_gzip(head)
    return _kind_of(head)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is there; a path that may not be looked at is none (and fails when opened, with the reason)."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def read_head(path: str | os.PathLike[str], count: int = HEAD_BYTES) -> bytes:
    """The first bytes of a file; errors as in `file_kind`."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise open_error(path, error) from error


def open_error(path: str | os.PathLike[str], error: OSError) -> FileMissing | UnreadableFile:
    """The error hierarchy's words for a file that cannot be opened or read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return FileMissing(f"There is no file '{path}'.", todo="Check the path; names are case-sensitive.")
    why = "You are not allowed to read it." if isinstance(error, PermissionError) else f"{error.strerror or error}."
    return UnreadableFile(f"'{path}' could not be opened.", why=why)


def not_an_image(path: str | os.PathLike[str], kind: FileKind) -> UnreadableFile:
    """The error for a file that is something else than a 3D image."""
    return UnreadableFile(
        f"'{path}' is not an image that can be read here.",
        why=f"It is {kind.value}.",
        todo=_TODO.get(kind, _DEFAULT_TODO),
    )


def not_3d(path: str | os.PathLike[str], dimensions: int, volumes: int = 1) -> UnreadableFile:
    """The error for an image that is flat, or more than one volume."""
    if dimensions < 3:
        return UnreadableFile(
            f"'{path}' is a {dimensions}D image; a volume is needed.", todo="Use the 3D image it was taken from."
        )
    return UnreadableFile(
        f"'{path}' holds {volumes} volumes, not one.",
        why="It is a time series, or has several channels.",
        todo="Take one volume out of it first.",
    )


def _kind_of(head: bytes) -> FileKind:
    if not head:
        return FileKind.EMPTY
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    if head[128:132] == b"DICM" or _is_dicom_without_preamble(head):
        return FileKind.DICOM
    if head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        return FileKind.NIFTI if head[344:347] == b"n+1" or head[4:7] == b"n+2" else FileKind.ANALYZE
    return _kind_of_text(head)


def _kind_of_text(head: bytes) -> FileKind:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start[:1000]:
        return FileKind.HTML
    if start.startswith((b"objecttype", b"ndims")) and b"=" in start[:80]:
        return FileKind.METAIMAGE
    if b"\0" in head:
        return FileKind.UNKNOWN
    try:
        head[: HEAD_BYTES - 4].decode("utf-8", "strict" if len(head) < HEAD_BYTES - 4 else "ignore")
    except UnicodeDecodeError:
        return FileKind.UNKNOWN
    return FileKind.TEXT if all(byte >= 32 or byte in b"\t\r\n\f" for byte in head) else FileKind.UNKNOWN


def _kind_within_gzip(head: bytes) -> FileKind:
    try:
        inner = zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return FileKind.BROKEN_GZIP
    if _kind_of(inner) is FileKind.NIFTI:
        return FileKind.NIFTI
    return FileKind.BROKEN_GZIP if len(head) < HEAD_BYTES and len(inner) < 348 else FileKind.GZIP


def _is_dicom_without_preamble(head: bytes) -> bool:
    """Some old archives omit the first 132 bytes; such a file starts with a tag of group 2 or 8 and its length."""
    starts_with_tag = head[:2] in (b"\x02\0", b"\x08\0") and head[3:4] == b"\0"
    return starts_with_tag and (head[4:6].isupper() or int.from_bytes(head[4:8], "little") < 1024)
