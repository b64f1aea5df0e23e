"""MetaImage: read through SimpleITK, after checking what ITK does not; written by ourselves, uncompressed."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import IO

import numpy as np

from MedAILib.errors import InputError, UnreadableFile
from MedAILib.filekind import open_error
from MedAILib.formats.sitkfile import read_sitk
from MedAILib.formats.voxelstream import write_voxels
from MedAILib.itkimage import RAS_TO_LPS

_TYPES = {
    "u1": "MET_UCHAR",
    "i1": "MET_CHAR",
    "u2": "MET_USHORT",
    "i2": "MET_SHORT",
    "u4": "MET_UINT",
    "i4": "MET_INT",
    "u8": "MET_ULONG_LONG",
    "i8": "MET_LONG_LONG",
    "f4": "MET_FLOAT",
    "f8": "MET_DOUBLE",
}
_CHUNK_BYTES = 1 << 20


def read_metaimage(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a 3D image.

    Returns
    -------
    array : ndarray, shape (k, j, i)
    ijk_to_ras : ndarray, shape (4, 4), float64

    Raises
    ------
    UnreadableFile
        Damaged, or not one 3D scalar image.
    """
    _check_compressed(path)
    return read_sitk(path)


def write_metaimage(path: Path, array: np.ndarray, ijk_to_ras: np.ndarray) -> None:
    """Write an image; ``.mhd`` puts the voxels into a ``.raw`` beside it.

    Parameters
    ----------
    path : Path
    array : ndarray, shape (k, j, i)
    ijk_to_ras : ndarray, shape (4, 4)
    """
    dtype = np.dtype(np.uint8) if array.dtype == np.bool_ else array.dtype
    if dtype.str[1:] not in _TYPES:
        raise InputError(f"A MetaImage cannot hold voxels of type {array.dtype}.", todo="Convert them first.")
    ijk_to_lps = RAS_TO_LPS @ ijk_to_ras
    spacing = np.linalg.norm(ijk_to_lps[:3, :3], axis=0)
    detached = path.with_suffix(".raw") if path.suffix.lower() == ".mhd" else None
    header = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        f"TransformMatrix = {_numbers((ijk_to_lps[:3, :3] / spacing).T.ravel())}",
        f"Offset = {_numbers(ijk_to_lps[:3, 3])}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_numbers(spacing)}",
        "DimSize = " + " ".join(str(n) for n in reversed(array.shape)),
        f"ElementType = {_TYPES[dtype.str[1:]]}",
        f"ElementDataFile = {detached.name if detached else 'LOCAL'}",
    ]
    with path.open("wb") as stream:
        stream.write(("\n".join(header) + "\n").encode("utf-8"))
        if detached is None:
            write_voxels(stream, [array])
    if detached is not None:
        with detached.open("wb") as stream:
            write_voxels(stream, [array])


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(value) + 0.0) for value in values)


def _check_compressed(path: Path) -> None:
    """Unpack compressed voxels once to check their sum: ITK prints a line and goes on where it is wrong."""
    fields: dict[str, str] = {}
    try:
        with path.open("rb") as stream:
            for line in stream:
                name, _, value = line.decode("utf-8", "replace").partition("=")
                fields[name.strip()] = value.strip()
                if name.strip() == "ElementDataFile" or len(fields) > 1000:
                    break
            if fields.get("CompressedData", "").lower() != "true":
                return
            data_file = fields.get("ElementDataFile", "")
            if data_file.upper() == "LOCAL":
                _check_zlib(stream, path)
            elif (path.parent / data_file).is_file():
                with (path.parent / data_file).open("rb") as data:
                    _check_zlib(data, path.parent / data_file)
    except OSError as error:
        raise open_error(path, error) from error


def _check_zlib(stream: IO[bytes], path: Path) -> None:
    unpacker = zlib.decompressobj(wbits=47)  # zlib or gzip, told apart by their heads
    try:
        while not unpacker.eof and (chunk := stream.read(_CHUNK_BYTES)):
            unpacker.decompress(chunk)
    except zlib.error as error:
        raise _damaged(path, str(error)) from error
    if not unpacker.eof:
        raise _damaged(path, "they end too early")


def _damaged(path: Path, detail: str) -> UnreadableFile:
    return UnreadableFile(
        f"'{path}' is damaged.",
        why=f"Its compressed voxels do not unpack: {detail}.",
        todo="Copy or download it again.",
    )
