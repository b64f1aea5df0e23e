"""Voxels to and from streams, a slice at a time, so that no second copy of a large image is made."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from MedAILib.errors import UnreadableFile

IMAGE_LEVEL, LABEL_LEVEL = 1, 6
"""Of zlib. Level 6 makes images 2 % smaller in three times the time, and label maps half as large in no time."""

_CHUNK_BYTES = 1 << 22


def write_voxels(stream: IO[bytes], layers: Sequence[np.ndarray]) -> None:
    """Write arrays of shape (k, j, i) little-endian, i fastest; several are interleaved voxel by voxel."""
    dtype = np.result_type(*layers)
    dtype = np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("<")
    for parts in zip(*layers, strict=True):
        block = parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)
        stream.write(np.ascontiguousarray(block, dtype=dtype).data.cast("B"))


@contextmanager
def gzipped(stream: IO[bytes], level: int) -> Iterator[IO[bytes]]:
    """A gzip stream into another one, without time stamp and name: equal content gives equal bytes."""
    with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=stream, mtime=0) as zipped:
        yield zipped  # type: ignore[misc]


@contextmanager
def unpacking(path: Path) -> Iterator[None]:
    """Reading a stream that may be compressed: what goes wrong with its compression as `UnreadableFile`."""
    try:
        yield
    except EOFError as error:
        raise UnreadableFile(
            f"'{path}' is truncated.", why="Its compressed data end too early.", todo="Copy or download it again."
        ) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableFile(
            f"'{path}' is damaged.",
            why=f"Its compressed data do not unpack ({error}).",
            todo="Copy or download it again.",
        ) from error


def read_voxels(stream: IO[bytes], shape_kji: tuple[int, ...], dtype: np.dtype, path: Path) -> np.ndarray:
    """Read an array from where the stream stands, in this machine's byte order.

    Raises
    ------
    UnreadableFile
        Where the stream ends too early, or its header announces more than this machine can hold.
    """
    needed = math.prod(shape_kji) * dtype.itemsize
    try:
        array = np.empty(shape_kji, dtype)
    except (MemoryError, ValueError) as error:
        raise UnreadableFile(
            f"'{path}' does not fit into this machine's memory.",
            why=f"Its header announces {needed} bytes of voxels; it may be damaged.",
            todo="Use a machine with more memory, or repair the file.",
        ) from error
    into = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < needed:
        count = stream.readinto(into[done : done + _CHUNK_BYTES])  # type: ignore[attr-defined]
        if not count:
            raise truncated(path, done, needed)
        done += count
    if isinstance(stream, gzip.GzipFile):
        stream.read(1)  # reaches the checksum at the end
    return array if dtype.isnative else array.byteswap(inplace=True).view(dtype.newbyteorder("="))


def truncated(path: Path, found_bytes: int, needed_bytes: int) -> UnreadableFile:
    """The error for a file that ends too early."""
    return UnreadableFile(
        f"'{path}' is truncated.",
        why=f"Its header announces {needed_bytes} bytes of voxels and only {found_bytes} are there.",
        todo="Copy or download it again.",
    )
