"""NIfTI-1 and NIfTI-2, read and written exactly.

An own reader because ITK's fills what a truncated file lacks with zeros without a word, and coerces
sheared grids (CT with a tilted gantry) to right angles. The layout is that of the header ``nifti1.h``
and ``nifti2.h`` published by the NIfTI committee, https://nifti.nimh.nih.gov.

NIfTI's world is RAS millimetres, as ours. NIfTI-1 keeps the matrix in float32: a voxel returns to
within 1e-7 of its distance from the origin of the scanner, some 1e-4 mm.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from MedAILib.errors import InputError, UnreadableFile
from MedAILib.filekind import not_3d, open_error
from MedAILib.formats.voxelstream import IMAGE_LEVEL, gzipped, read_voxels, unpacking, write_voxels

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_CODES = {np.dtype(name): code for code, name in _DTYPES.items()}
_COMPLEX, _COLOUR = {32, 1792, 2048}, {128, 2304}
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_RIGHT_ANGLE_TOLERANCE = 1e-5

_HEADER_1 = np.dtype(
    [
        ("sizeof_hdr", "i4"), ("unused_1", "S35"), ("dim_info", "u1"), ("dim", "i2", 8), ("intent_p", "f4", 3),
        ("intent_code", "i2"), ("datatype", "i2"), ("bitpix", "i2"), ("slice_start", "i2"), ("pixdim", "f4", 8),
        ("vox_offset", "f4"), ("scl_slope", "f4"), ("scl_inter", "f4"), ("slice_end", "i2"), ("slice_code", "u1"),
        ("xyzt_units", "u1"), ("cal_max", "f4"), ("cal_min", "f4"), ("slice_duration", "f4"), ("toffset", "f4"),
        ("unused_2", "i4", 2), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "i2"), ("sform_code", "i2"),
        ("quatern", "f4", 3), ("qoffset", "f4", 3), ("srow", "f4", (3, 4)), ("intent_name", "S16"), ("magic", "S4"),
    ]
)  # fmt: skip
_HEADER_2 = np.dtype(
    [
        ("sizeof_hdr", "i4"), ("magic", "S8"), ("datatype", "i2"), ("bitpix", "i2"), ("dim", "i8", 8),
        ("intent_p", "f8", 3), ("pixdim", "f8", 8), ("vox_offset", "i8"), ("scl_slope", "f8"), ("scl_inter", "f8"),
        ("cal_max", "f8"), ("cal_min", "f8"), ("slice_duration", "f8"), ("toffset", "f8"), ("slice_start", "i8"),
        ("slice_end", "i8"), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "i4"), ("sform_code", "i4"),
        ("quatern", "f8", 3), ("qoffset", "f8", 3), ("srow", "f8", (3, 4)), ("slice_code", "i4"), ("xyzt_units", "i4"),
        ("intent_code", "i4"), ("intent_name", "S16"), ("dim_info", "u1"), ("unused", "S15"),
    ]
)  # fmt: skip
Endian = Literal["little", "big"]

_VOXELS_AT = 352
"""Our files have no extensions: the header's 348 bytes and four zeros."""
_FARTHEST_OFFSET = 1 << 30


@dataclass(frozen=True, eq=False)
class Header:
    """What we take from a NIfTI header.

    Attributes
    ----------
    sizes : tuple of int
        Of all dimensions the file has, fastest (i) first.
    dtype : dtype
        As stored, with its byte order.
    offset : int
        Byte at which the voxels start.
    slope, intercept : float
        True value = stored value * slope + intercept.
    ijk_to_ras : ndarray, shape (4, 4)
    """

    sizes: tuple[int, ...]
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    ijk_to_ras: np.ndarray


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a 3D image, compressed or not, whatever the file is called.

    Returns
    -------
    array : ndarray, shape (k, j, i)
        In the stored type; float32 or float64 where the header scales the values.
    ijk_to_ras : ndarray, shape (4, 4), float64

    Raises
    ------
    UnreadableFile
        Truncated, damaged, 2D, more than one volume, colour or complex.
    """
    try:
        with path.open("rb") as file, unpacking(path):
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream: IO[bytes] = gzip.GzipFile(fileobj=file) if zipped else file  # type: ignore[assignment]
            header = _read_header(stream, path)
            shape = _shape_kji(header.sizes, path)
            stream.seek(header.offset)
            array = read_voxels(stream, shape, header.dtype, path)
    except OSError as error:
        raise open_error(path, error) from error
    return _scaled(array, header), header.ijk_to_ras


def write_nifti(
    path: Path, array: np.ndarray, ijk_to_ras: np.ndarray, *, level: int = IMAGE_LEVEL, description: str = ""
) -> None:
    """Write a single-file NIfTI-1 image, compressed where the name ends in ``.gz``.

    Parameters
    ----------
    path : Path
    array : ndarray, shape (k, j, i)
        Integers or floats of 8 to 64 bits, or bool (stored as unsigned 8 bits).
    ijk_to_ras : ndarray, shape (4, 4)
        May be sheared; only the sform can hold it then.
    level : int
        Of compression.
    description : str
        For the header's field ``descrip``: 79 ASCII characters of it are kept.

    Raises
    ------
    InputError
        Where NIfTI-1 cannot hold the voxel type or the size.
    """
    header = _header_bytes(array, ijk_to_ras, description)
    with path.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            with gzipped(file, level) as stream:
                stream.write(header)
                write_voxels(stream, [array])
        else:
            file.write(header)
            write_voxels(file, [array])


def _read_header(stream: IO[bytes], path: Path) -> Header:
    raw = stream.read(_HEADER_2.itemsize)
    endian: Endian = "little" if raw[:2] != b"\0\0" else "big"
    layout = _HEADER_2 if int.from_bytes(raw[:4], endian) == _HEADER_2.itemsize else _HEADER_1
    if len(raw) < layout.itemsize:
        raise _damaged(path, f"It has only {len(raw)} bytes.")
    fields = np.frombuffer(raw, layout.newbyteorder(endian), count=1)[0]
    dimensions, offset = int(fields["dim"][0]), float(fields["vox_offset"])
    sizes = tuple(int(n) for n in fields["dim"][1 : dimensions + 1])
    if not 1 <= dimensions <= 7 or min(sizes[:3]) < 1 or not 0 <= offset < _FARTHEST_OFFSET:
        raise _damaged(path, "Its header gives sizes that cannot be.")
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        slope, intercept = 1.0, 0.0
    return Header(
        sizes=(*sizes[:3], *(max(n, 1) for n in sizes[3:])),
        dtype=_dtype(int(fields["datatype"]), endian, path),
        offset=max(int(offset), layout.itemsize),
        slope=slope,
        intercept=intercept,
        ijk_to_ras=_matrix(fields),
    )


def _damaged(path: Path, why: str) -> UnreadableFile:
    return UnreadableFile(f"'{path}' is damaged or truncated.", why=why, todo="Copy or download it again.")


def _dtype(code: int, endian: Endian, path: Path) -> np.dtype:
    if code in _DTYPES:
        return np.dtype(_DTYPES[code]).newbyteorder(endian)
    kind = "complex numbers" if code in _COMPLEX else "colours" if code in _COLOUR else f"the NIfTI type {code}"
    raise UnreadableFile(
        f"'{path}' holds {kind}.",
        why="One real number per voxel is needed.",
        todo="Convert it to a scalar image first.",
    )


def _shape_kji(sizes: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    volumes = math.prod(sizes[3:])
    if len(sizes) < 3:
        raise not_3d(path, len(sizes))
    if volumes > 1:
        raise not_3d(path, 4, volumes)
    return (sizes[2], sizes[1], sizes[0])


def _matrix(fields: np.void) -> np.ndarray:
    """The file's matrix, chosen among its two as ITK does, so that Slicer shows the image at the same place.

    The sform where it says "scanner" or is the only one, else the qform; a file with neither lies along LPS.
    """
    matrix = np.eye(4)
    spacing = np.abs(fields["pixdim"][1:4].astype(float))
    sform = fields["srow"].astype(float)
    prefer_sform = fields["sform_code"] == 1 or (fields["sform_code"] > 0 and fields["qform_code"] <= 0)
    if prefer_sform and abs(np.linalg.det(sform[:, :3])) > 1e-12:
        matrix[:3] = sform
    elif fields["qform_code"] > 0:
        qfac = -1.0 if fields["pixdim"][0] < 0 else 1.0
        matrix[:3, :3] = _rotation(fields["quatern"].astype(float)) * (spacing * (1.0, 1.0, qfac))
        matrix[:3, 3] = fields["qoffset"]
    else:
        matrix[:3, :3] = np.diag(spacing * (-1.0, -1.0, 1.0))
    matrix[:3] *= _MM_PER_UNIT.get(int(fields["xyzt_units"]) & 7, 1.0)
    return matrix


def _scaled(array: np.ndarray, header: Header) -> np.ndarray:
    """True values: as stored, or floats wide enough for the stored type where the header scales them."""
    if (header.slope, header.intercept) == (1.0, 0.0):
        return array
    narrow = array.dtype.itemsize <= 2 or array.dtype == np.float32
    scaled: np.ndarray = array.astype(np.float32 if narrow else np.float64)
    np.multiply(scaled, header.slope, out=scaled)
    np.add(scaled, header.intercept, out=scaled)
    return scaled


def _header_bytes(array: np.ndarray, ijk_to_ras: np.ndarray, description: str) -> bytes:
    dtype = np.dtype(np.uint8) if array.dtype == np.bool_ else array.dtype.newbyteorder("=")
    if dtype not in _CODES or max(array.shape) > np.iinfo(np.int16).max:
        raise InputError(
            f"A NIfTI file cannot hold {array.shape} voxels of type {array.dtype}.", todo="Save it as .nrrd instead."
        )
    fields = np.zeros(1, _HEADER_1.newbyteorder("<"))
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    directions = ijk_to_ras[:3, :3] / spacing
    qfac = -1.0 if np.linalg.det(directions) < 0 else 1.0
    fields["sizeof_hdr"] = _HEADER_1.itemsize
    fields["dim"] = (3, *reversed(array.shape), 1, 1, 1, 1)
    fields["datatype"], fields["bitpix"] = _CODES[dtype], dtype.itemsize * 8
    fields["pixdim"][0, :4] = (qfac, *spacing)
    fields["vox_offset"], fields["scl_slope"] = _VOXELS_AT, 1
    fields["xyzt_units"] = 2  # millimetres
    fields["descrip"] = description.encode("ascii", "replace")[:79]
    fields["sform_code"], fields["srow"] = 1, ijk_to_ras[:3]
    if np.abs(directions.T @ directions - np.eye(3)).max() < _RIGHT_ANGLE_TOLERANCE:
        fields["qform_code"], fields["qoffset"] = 1, ijk_to_ras[:3, 3]
        fields["quatern"] = _quaternion(directions * (1.0, 1.0, qfac))
    fields["magic"] = b"n+1"
    return fields.tobytes() + bytes(_VOXELS_AT - _HEADER_1.itemsize)


def _rotation(bcd: np.ndarray) -> np.ndarray:
    """The rotation matrix of a unit quaternion (a, b, c, d) whose a >= 0 is left out."""
    a = np.sqrt(max(0.0, 1.0 - float(bcd @ bcd)))
    vector = bcd / np.linalg.norm(bcd) if a == 0.0 else bcd
    cross = np.array([[0.0, -vector[2], vector[1]], [vector[2], 0.0, -vector[0]], [-vector[1], vector[0], 0.0]])
    return np.eye(3) + 2.0 * (a * cross + cross @ cross)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """b, c, d of the rotation's unit quaternion (a, b, c, d), a >= 0.

    The quaternion is the eigenvector of the largest eigenvalue of a symmetric matrix made from the
    rotation (Bar-Itzhack, J. Guidance 23(6), 2000): no case distinction, and the closest rotation where the
    matrix is not exactly one.
    """
    r = rotation
    symmetric = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
            [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
            [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    a, b, c, d = np.linalg.eigh(symmetric)[1][:, -1]
    return np.array([b, c, d]) * (-1.0 if a < 0 else 1.0)
