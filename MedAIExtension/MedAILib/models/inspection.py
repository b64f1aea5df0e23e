"""What a weight file really is, and whether it may be used: told before any library that loads it is imported.

`inspect` names a bad file for what it is and says what to do: a Git LFS pointer, a web page, a file cut
short, a pickle with code in it. A file that passes is whole and runs no code; that its numbers are the
right ones, only its hash tells.
"""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from MedAILib.errors import InvalidWeights
from MedAILib.filekind import open_error, read_head
from MedAILib.models import containers, kerasfiles, pickles
from MedAILib.models.archives import open_zip
from MedAILib.models.containers import Damaged
from MedAILib.models.kerasfiles import Unsafe
from MedAILib.models.placeholders import HEAD_BYTES, placeholder_in

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_TORCH_PICKLE = 256 << 20
_AGAIN = "Delete it and get it again; downloads of 'medai models get' go on where they stopped."
_LINKS_UNCHECKED = "Whether it links to other files could not be checked: the package h5py is not installed."
_NEVER = "Do not load it. Ask its author for a safetensors file, or convert it in an environment you can lose."


class FileFormat(Enum):
    """What a file turned out to be; the value is what to call one."""

    SAFETENSORS = "a safetensors file"
    TORCH = "a PyTorch file"
    TORCH_LEGACY = "a PyTorch file of the old kind (before version 1.6)"
    PICKLE = "a Python pickle that is no PyTorch file"
    KERAS = "a Keras 3 file"
    HDF5 = "an HDF5 file"
    ONNX = "an ONNX model"
    NUMPY = "a NumPy array"
    NUMPY_ZIP = "a set of NumPy arrays"
    ZIP = "a zip archive"
    GZIP = "a gzip file"
    TAR = "a tar archive"
    TEXT = "a text file"
    OTHER = "of no format known here"


_TORCH_FORMATS = {FileFormat.TORCH, FileFormat.TORCH_LEGACY}
_PROMISES = {
    ".safetensors": {FileFormat.SAFETENSORS},
    ".pth": _TORCH_FORMATS,
    ".pt": _TORCH_FORMATS,
    ".ckpt": _TORCH_FORMATS,
    ".h5": {FileFormat.HDF5},
    ".hdf5": {FileFormat.HDF5},
    ".keras": {FileFormat.KERAS},
    ".onnx": {FileFormat.ONNX},
    ".npy": {FileFormat.NUMPY},
    ".npz": {FileFormat.NUMPY_ZIP},
    ".zip": {FileFormat.ZIP},
    ".gz": {FileFormat.GZIP},
    ".tgz": {FileFormat.GZIP},
    ".tar": {FileFormat.TAR},
    ".json": {FileFormat.TEXT},
    ".pkl": {FileFormat.PICKLE},
    ".pickle": {FileFormat.PICKLE},
}


@dataclass(frozen=True)
class Inspection:
    """A file that may be used.

    Attributes
    ----------
    path : Path
    format : FileFormat
    size : int
        Bytes.
    warnings : tuple of str
        What could not be checked here, in words for the user.
    """

    path: Path
    format: FileFormat
    size: int
    warnings: tuple[str, ...] = ()


def inspect(path: str | Path, *, name: str = "") -> Inspection:
    """Find out what a file is and refuse what must not be loaded.

    Parameters
    ----------
    path : path
    name : str
        The name it shall have, whose ending promises a format; default: its own. A file that is still
        being received has another name than it will have.

    Raises
    ------
    InvalidWeights
        With what it is, why, and what to do.
    FileMissing, UnreadableFile
        There is no such file, or it may not be read.
    """
    file = Path(path)
    head = read_head(file, HEAD_BYTES)
    try:
        size = file.stat().st_size
        return _inspect(file, head, size, name or file.name)
    except OSError as error:
        raise open_error(file, error) from error


def _inspect(file: Path, head: bytes, size: int, name: str) -> Inspection:
    placeholder = placeholder_in(head)
    if placeholder is not None:
        raise InvalidWeights(f"'{file}' is not a weight file.", why=f"It is {placeholder.what}.", todo=placeholder.todo)
    promised = _PROMISES.get(Path(name).suffix.lower(), set())
    warnings: tuple[str, ...] = ()
    try:
        found = _format(file, head, promised)
        check = _CHECKS.get(found)
        if check is not None:
            warnings = check(file) or ()
    except Damaged as reason:
        raise InvalidWeights(f"'{file}' is damaged.", why=_sentence(str(reason)), todo=_AGAIN) from reason
    except Unsafe as reason:
        raise InvalidWeights(
            f"'{file}' is refused: loading it is not safe.", why=_sentence(str(reason)), todo=_NEVER
        ) from reason
    if promised and found not in promised:
        raise InvalidWeights(
            f"'{file}' is not what its name says.",
            why=f"It is called '{name}' and is {found.value}.",
            todo="Get the right file; if this is the right one, give it the right ending.",
        )
    return Inspection(file, found, size, tuple(warnings))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _format(file: Path, head: bytes, promised: set[FileFormat]) -> FileFormat:
    """The format by the first bytes; where these say nothing, the promised one is tried so that damage is named."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_format(file)
    if containers.hdf5_start(head) is not None:
        return FileFormat.HDF5
    if head.startswith(b"\x93NUMPY"):
        return FileFormat.NUMPY
    if head.startswith(b"\x1f\x8b"):
        return FileFormat.GZIP
    if head[257:262] == b"ustar":
        return FileFormat.TAR
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _pickle_format(file)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= containers.MAX_SAFETENSORS_HEADER:
        return FileFormat.SAFETENSORS
    if containers.looks_like_onnx(head) or FileFormat.ONNX in promised:
        return FileFormat.ONNX
    if FileFormat.SAFETENSORS in promised:
        containers.check_safetensors(file)
    if promised & (_TORCH_FORMATS | {FileFormat.PICKLE}):
        return _pickle_format(file)  # protocols 0 and 1 have no signature
    return FileFormat.TEXT if _is_text(head) else FileFormat.OTHER


def _is_text(head: bytes) -> bool:
    if any(byte < 32 and byte not in b"\t\r\n\f" for byte in head):
        return False
    try:
        head[:-4].decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 8
    return True


def _zip_format(file: Path) -> FileFormat:
    with open_zip(file) as archive:
        names = archive.namelist()
    if any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
        return FileFormat.TORCH
    if kerasfiles.is_keras_zip(names):
        return FileFormat.KERAS
    if names and all(name.endswith(".npy") for name in names):
        return FileFormat.NUMPY_ZIP
    return FileFormat.ZIP


def _pickle_format(file: Path) -> FileFormat:
    """Scan what comes first in the file: PyTorch's magic number, or a pickle of anything."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        first = _scan(data)
    return FileFormat.TORCH_LEGACY if first.value == _TORCH_MAGIC else FileFormat.PICKLE


def _scan(stream: io.BytesIO | mmap.mmap) -> pickles.PickleScan:
    """One pickle, refused where it would import what weights do not need."""
    try:
        scan = pickles.scan(stream)  # type: ignore[arg-type]
    except pickles.MalformedPickle as error:
        raise Damaged(f"it is cut short, or no pickle ({error})") from error
    if scan.forbidden:
        more = f" and {len(scan.forbidden) - 1} more" if len(scan.forbidden) > 1 else ""
        raise Unsafe(f"it is a pickle that would run '{scan.forbidden[0]}'{more}, which weights do not need")
    return scan


def _check_torch(file: Path) -> None:
    """Pickle, storages and their sizes in a PyTorch file of the present kind (a zip)."""
    with open_zip(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        root = next(name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")).rpartition("/")[0]
        if any(name.startswith(f"{root}/code/") for name in members) or f"{root}/constants.pkl" in members:
            raise Unsafe("it is a TorchScript program, not a set of weights")
        for name, member in members.items():
            if not name.endswith(".pkl"):
                continue
            if member.file_size > _MAX_TORCH_PICKLE:
                raise Unsafe(
                    f"its description of the tensors has {member.file_size:,} bytes, more than any model needs"
                )
            storages = _scan(io.BytesIO(_read(archive, name))).storages
            for key, size in storages.items() if name == f"{root}/data.pkl" else ():
                stored = members.get(f"{root}/data/{key}")
                if stored is None or (size >= 0 and stored.file_size < size):
                    there = 0 if stored is None else stored.file_size
                    raise Damaged(f"tensor data {key} has {there:,} of {max(size, 0):,} bytes")


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise Damaged(f"its '{name}' cannot be unpacked ({error})") from error


def _check_torch_legacy(file: Path) -> None:
    """The five pickles and the bytes that follow them in a PyTorch file of the old kind."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        scans = [_scan(data) for _ in range(5)]
        storages = scans[3].storages
        if -1 in storages.values():
            raise Damaged("it has tensors of an unknown kind")
        promised = data.tell() + sum(8 + size for size in storages.values())
        if promised > len(data):
            raise containers.cut_short(len(data), promised)


def _check_keras(file: Path) -> tuple[str, ...]:
    with open_zip(file) as archive:
        try:
            kerasfiles.check_keras_zip(archive)
            return () if kerasfiles.check_keras_weights(archive) else (_LINKS_UNCHECKED,)
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise Damaged(f"it cannot be unpacked ({error})") from error


def _check_hdf5(file: Path) -> tuple[str, ...]:
    containers.check_hdf5(file)
    kerasfiles.check_keras_hdf5(file)
    return () if kerasfiles.check_hdf5_links(file) else (_LINKS_UNCHECKED,)


def _check_numpy_zip(file: Path) -> None:
    with open_zip(file) as archive:
        for name in archive.namelist():
            with archive.open(name) as stream:
                start = stream.read(4096)
            if b"'|O'" in start or b"'O'" in start:
                raise Unsafe(f"its array '{name}' holds Python objects (a pickle), which loading would execute")


_CHECKS: dict[FileFormat, Callable[[Path], tuple[str, ...] | None]] = {
    FileFormat.SAFETENSORS: containers.check_safetensors,
    FileFormat.TORCH: _check_torch,
    FileFormat.TORCH_LEGACY: _check_torch_legacy,
    FileFormat.KERAS: _check_keras,
    FileFormat.HDF5: _check_hdf5,
    FileFormat.ONNX: containers.check_onnx,
    FileFormat.NUMPY: containers.check_numpy,
    FileFormat.NUMPY_ZIP: _check_numpy_zip,
    FileFormat.GZIP: containers.check_gzip,
    FileFormat.TAR: containers.check_tar,
}
