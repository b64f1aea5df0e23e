"""NRRD: read through SimpleITK, its header's key/value pairs verbatim; written by ourselves.

Own writer because segmentations need a ``list`` axis and their keys in order, and because ITK does
not notice a full disk. Format: http://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from MedAILib.errors import InputError
from MedAILib.filekind import read_head
from MedAILib.formats.sitkfile import read_sitk
from MedAILib.formats.voxelstream import IMAGE_LEVEL, gzipped, write_voxels
from MedAILib.itkimage import RAS_TO_LPS

_TYPES = {
    "u1": "unsigned char",
    "i1": "signed char",
    "u2": "unsigned short",
    "i2": "short",
    "u4": "unsigned int",
    "i4": "int",
    "u8": "unsigned long long",
    "i8": "long long",
    "f4": "float",
    "f8": "double",
}
_LONGEST_HEADER = 1 << 24


def read_keys(path: Path) -> dict[str, str]:
    """The key/value pairs of an NRRD header, ``key:=value``, unescaped; nothing else of it."""
    keys = {}
    head = read_head(path, _LONGEST_HEADER) if path.suffix.lower() == ".nhdr" else _header(path)
    for line in head.splitlines():
        name, mark, value = line.partition(b":=")
        if mark and not name.startswith(b"#"):
            keys[_text(name)] = _unescaped(_text(value))
    return keys


def read_layers(path: Path) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """All components of an image as arrays of shape (k, j, i), and its IJK-to-RAS matrix."""
    array, matrix = read_sitk(path, components=True)
    if array.ndim == 3:
        return (array,), matrix
    return tuple(np.ascontiguousarray(array[..., index]) for index in range(array.shape[3])), matrix


def write_nrrd(
    path: Path,
    layers: Sequence[np.ndarray],
    ijk_to_ras: np.ndarray,
    keys: Mapping[str, str] | None = None,
    *,
    level: int = IMAGE_LEVEL,
) -> None:
    """Write an image, gzip-compressed; ``.nhdr`` puts the voxels into a file beside it.

    Parameters
    ----------
    path : Path
    layers : sequence of ndarray, shape (k, j, i)
        More than one become a ``list`` axis, the fastest, as Slicer has it.
    ijk_to_ras : ndarray, shape (4, 4)
    keys : mapping of str to str, optional
        Key/value pairs for the end of the header.
    level : int
        Of compression.
    """
    detached = path.with_suffix(".raw.gz") if path.suffix.lower() == ".nhdr" else None
    header = _header_text(layers, ijk_to_ras, keys or {}, detached.name if detached else None)
    with path.open("wb") as stream:
        stream.write(header.encode("utf-8"))
        if detached is None:
            with gzipped(stream, level) as zipped:
                write_voxels(zipped, layers)
    if detached is not None:
        with detached.open("wb") as stream, gzipped(stream, level) as zipped:
            write_voxels(zipped, layers)


def _header_text(
    layers: Sequence[np.ndarray], ijk_to_ras: np.ndarray, keys: Mapping[str, str], data_file: str | None
) -> str:
    dtype = np.dtype(np.uint8) if layers[0].dtype == np.bool_ else np.result_type(*layers)
    if dtype.str[1:] not in _TYPES:
        raise InputError(f"An NRRD file cannot hold voxels of type {dtype}.", todo="Convert them first.")
    ijk_to_lps = RAS_TO_LPS @ ijk_to_ras
    listed = len(layers) > 1
    k, j, i = layers[0].shape
    lines = [
        "NRRD0004",
        f"type: {_TYPES[dtype.str[1:]]}",
        f"dimension: {4 if listed else 3}",
        "space: left-posterior-superior",
        f"sizes: {f'{len(layers)} ' if listed else ''}{i} {j} {k}",
        f"space directions: {'none ' if listed else ''}" + " ".join(_vector(ijk_to_lps[:3, a]) for a in range(3)),
        f"kinds: {'list ' if listed else ''}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(ijk_to_lps[:3, 3])}",
    ]
    if data_file:
        lines.append(f"data file: {data_file}")
    lines += [f"{name}:={_escaped(value)}" for name, value in keys.items()]
    return "\n".join(lines) + "\n\n"


def _vector(numbers: np.ndarray) -> str:
    return "(" + ",".join(repr(float(n) + 0.0) for n in numbers) + ")"


def _header(path: Path) -> bytes:
    """The header of a file with attached voxels: up to the first empty line."""
    size = 1 << 16
    while True:
        head = read_head(path, size)
        end = min((at for at in (head.find(b"\n\n"), head.find(b"\r\n\r\n")) if at >= 0), default=-1)
        if end >= 0:
            return head[:end]
        if len(head) < size or size >= _LONGEST_HEADER:
            return head
        size *= 4


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _unescaped(value: str) -> str:
    return "\\".join(part.replace("\\n", "\n") for part in value.split("\\\\"))
