"""Is a container of tensors whole? Answered from its own book-keeping, without the libraries that load it.

Every function raises `Damaged` with the reason, in words for the user, and answers nothing otherwise.
A file that passes can still hold wrong numbers: only its hash tells.
"""

from __future__ import annotations

import json
import mmap
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

MAX_SAFETENSORS_HEADER = 100_000_000
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_PLACES = (0, 512, 1024, 2048)
_CHUNK = 1 << 20


class Damaged(ValueError):
    """The container is cut short or contradicts itself."""


def cut_short(there: int, promised: int) -> Damaged:
    """The reason for a file that is shorter than it says."""
    return Damaged(f"it is cut short: {there:,} bytes are there, it promises {promised:,}")


def check_safetensors(path: Path) -> None:
    """Header length against file size, and every tensor's bytes within it.

    Layout after https://huggingface.co/docs/safetensors: 8 bytes length, JSON, tensor data without gaps.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        if len(start) < 8:
            raise cut_short(size, 8)
        length = int.from_bytes(start, "little")
        if length > MAX_SAFETENSORS_HEADER:
            raise Damaged(f"its header claims {length:,} bytes, which no safetensors file has")
        if 8 + length > size:
            raise cut_short(size, 8 + length)
        text = stream.read(length)
    try:
        header = json.loads(text)
        ends = [_tensor_end(name, entry) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"its header is not what a safetensors header must be ({error})") from error
    promised = 8 + length + max(ends, default=0)
    if promised > size:
        raise cut_short(size, promised)
    if promised < size:
        raise Damaged(f"{size - promised:,} bytes follow after its last tensor, which safetensors does not allow")


def _tensor_end(name: str, entry: dict[str, Any]) -> int:
    begin, end = entry["data_offsets"]
    if not (isinstance(begin, int) and isinstance(end, int) and 0 <= begin <= end):
        raise ValueError(f"tensor '{name}' lies nowhere")
    return end


def hdf5_start(head: bytes) -> int | None:
    """Where the HDF5 superblock lies within the first bytes of a file; None where there is none."""
    return next((at for at in _HDF5_PLACES if head[at : at + 8] == HDF5_SIGNATURE), None)


def check_hdf5(path: Path) -> None:
    """The end-of-file address in the superblock (versions 0 to 3) against the file's size."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(4096)
    start = hdf5_start(head)
    if start is None:
        raise Damaged("it has no HDF5 superblock")
    block = head[start:]
    try:
        version = block[8]
        if version > 3:
            raise Damaged(f"its HDF5 superblock has version {version}, which does not exist")
        width, first = (block[13], 24 + 4 * version) if version < 2 else (block[9], 12)
        if width not in (2, 4, 8):
            raise Damaged(f"its HDF5 superblock has addresses of {width} bytes")
        fields = [block[first + index * width :][:width] for index in range(3)]
        base, _, end = (int.from_bytes(field, "little") for field in fields)
    except IndexError as error:
        raise Damaged("it is cut short within its HDF5 superblock") from error
    promised = end if base in (0, start) and end > base else base + end
    if len(fields[2]) < width or promised > size:
        raise cut_short(size, promised)


def check_gzip(path: Path) -> None:
    """Unpack into nothing: the stream must end where the file ends, with the right checksum."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        with path.open("rb") as stream:
            data = stream.read(_CHUNK)
            while data:
                while data and not unpacker.eof:
                    unpacker.decompress(data, _CHUNK)
                    data = unpacker.unconsumed_tail
                if unpacker.eof:
                    rest = unpacker.unused_data or stream.read(_CHUNK)
                    if not rest.strip(b"\0"):
                        return
                    unpacker, data = zlib.decompressobj(wbits=31), rest
                    continue
                data = stream.read(_CHUNK)
    except zlib.error as error:
        raise Damaged(f"its gzip stream is broken ({error})") from error
    if not unpacker.eof:
        raise Damaged("it is cut short: the gzip stream has no end")


def check_tar(path: Path) -> None:
    """Every member's data must lie within the file."""
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            ends = [member.offset_data + (member.size if member.isreg() else 0) for member in archive]
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise Damaged(f"its tar headers are broken ({error})") from error
    if max(ends, default=0) > size:
        raise cut_short(size, max(ends))


# ONNX: field numbers of onnx.proto (ModelProto, GraphProto, TensorProto, StringStringEntryProto)
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_EXTERNAL, _ENTRY_KEY, _ENTRY_VALUE = 7, 5, 13, 1, 2
_ONNX_IR_VERSIONS = range(1, 30)


def looks_like_onnx(head: bytes) -> bool:
    """Whether a file starts as ONNX files do: field 1 (IR version), then another field of the model."""
    return len(head) > 2 and head[0] == 0x08 and head[1] in _ONNX_IR_VERSIONS and head[2] in (0x12, 0x3A, 0x42, 0x28)


def check_onnx(path: Path) -> None:
    """Walk the protobuf's lengths; tensors stored in other files must lie beside this one.

    The places of outside data are checked because a path such as ``../../x`` would have a loader read it.
    """
    if path.stat().st_size == 0:
        raise Damaged("it is empty")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        graph = None
        for field, begin, end in _fields(data, 0, len(data)):
            if field == _MODEL_GRAPH:
                graph = (begin, end)
        if graph is None:
            raise Damaged("it is cut short, or no ONNX model: it has no graph")
        for field, begin, end in _fields(data, *graph):
            if field == _GRAPH_INITIALIZER:
                _check_external_data(data, begin, end)


def _check_external_data(data: mmap.mmap, begin: int, end: int) -> None:
    for field, first, last in _fields(data, begin, end):
        if field != _TENSOR_EXTERNAL:
            continue
        entry = {number: bytes(data[a:b]) for number, a, b in _fields(data, first, last)}
        if entry.get(_ENTRY_KEY) == b"location":
            place = entry.get(_ENTRY_VALUE, b"").decode("utf-8", "replace")
            if not place or PureWindowsPath(place).name != place:
                raise Damaged(f"it would read tensors from '{place}', which is not a file beside it")


def _fields(data: mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of every field of a protobuf message; only those with a length have an extent."""
    at = begin
    while at < end:
        tag, at = _varint(data, at, end)
        match tag & 7:
            case 0:
                first = at
                _, at = _varint(data, at, end)
            case 1:
                first, at = at, at + 8
            case 2:
                length, first = _varint(data, at, end)
                at = first + length
            case 5:
                first, at = at, at + 4
            case kind:
                raise Damaged(f"it is no ONNX model, or overwritten: byte {at:,} has a field of kind {kind}")
        if at > end:
            raise cut_short(end, at)
        yield tag >> 3, first, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise Damaged("it is cut short in the middle of a number")


def check_numpy(path: Path) -> None:
    """The header of a .npy file against its size; arrays of Python objects are refused, they are pickles."""
    from numpy.lib import format as npy

    size = path.stat().st_size
    readers: dict[int, Callable] = {1: npy.read_array_header_1_0, 2: npy.read_array_header_2_0}
    with path.open("rb") as stream:
        try:
            major, _ = npy.read_magic(stream)
            shape, _, dtype = readers.get(major, npy.read_array_header_2_0)(stream)
        except (ValueError, struct.error) as error:
            raise Damaged(f"its NumPy header is broken ({error})") from error
        if dtype.hasobject:
            raise Damaged("it holds Python objects (a pickle), which loading would execute")
        count = 1
        for length in shape:
            count *= length
        promised = stream.tell() + count * dtype.itemsize
    if promised > size:
        raise cut_short(size, promised)
