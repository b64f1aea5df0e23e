"""Names, shapes and types of the tensors in a weight file, from its header: no tensor is loaded, no code run.

Files that are damaged or unsafe are refused by `MedAILib.models.inspection` before they are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from MedAILib.errors import InvalidWeights
from MedAILib.filekind import open_error
from MedAILib.models.config import FileType
from MedAILib.models.hdf5tensors import read_hdf5, read_keras
from MedAILib.models.inspection import FileFormat, inspect
from MedAILib.models.tensorinfo import Content, TensorInfo
from MedAILib.models.tensornames import find_tensors
from MedAILib.models.torchfile import read_legacy, read_zip

CONFIG_KEY = "medai_config"
"""In the metadata of a safetensors file: the description as JSON."""
CHECKPOINT_CONFIG_KEY = "config"
"""The same in a PyTorch checkpoint, as plain values."""

_SAFETENSORS_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


@dataclass(frozen=True)
class WeightFile:
    """A weight file that was looked into.

    Attributes
    ----------
    path : Path
    format : FileType
    size : int
        Bytes.
    content : Content
    """

    path: Path
    format: FileType
    size: int
    content: Content = field(repr=False)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self.content.tensors

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, by the names in the file."""
        return {name: info.shape for name, info in self.tensors.items()}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the whole file, read when it is first asked for."""
        return file_sha256(self.path)


def inspect_tensors(path: str | Path) -> WeightFile:
    """Look into a weight file.

    Parameters
    ----------
    path : path
        safetensors, PyTorch (present and old kind), Keras or HDF5.

    Raises
    ------
    FileMissing, UnreadableFile
        There is no such file, or it may not be read.
    InvalidWeights
        It is damaged, unsafe, no weight file, or of a format that does not list its tensors.
    MissingPackage
        h5py is needed and not installed.
    """
    file = Path(path)
    inspection = inspect(file)
    try:
        kind, reader = _readers()[inspection.format]
    except KeyError:
        raise InvalidWeights(
            f"'{file}' holds no tensors with names that could be looked at.",
            why=f"It is {inspection.format.value}.",
            todo="Use a safetensors, PyTorch or Keras file.",
        ) from None
    try:
        content = reader(file)
    except OSError as error:
        raise open_error(file, error) from error
    if not content.tensors:
        raise InvalidWeights(f"'{file}' holds no tensors.", todo="Get the file with the weights.")
    return WeightFile(file, kind, inspection.size, content)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; errors as when opening it."""
    import hashlib

    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise open_error(path, error) from error


def _readers() -> dict[FileFormat, tuple[FileType, Callable[[Path], Content]]]:
    return {
        FileFormat.SAFETENSORS: (FileType.SAFETENSORS, _read_safetensors),
        FileFormat.TORCH: (FileType.TORCH, _with_description(read_zip)),
        FileFormat.TORCH_LEGACY: (FileType.TORCH, _with_description(read_legacy)),
        FileFormat.HDF5: (FileType.HDF5, read_hdf5),
        FileFormat.KERAS: (FileType.KERAS, read_keras),
    }


def _read_safetensors(path: Path) -> Content:
    """Header after https://huggingface.co/docs/safetensors: 8 bytes length, then JSON."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    metadata = header.pop("__metadata__", None) or {}
    try:
        tensors = {
            name: TensorInfo(
                tuple(int(n) for n in entry["shape"]), _SAFETENSORS_TYPES.get(entry["dtype"], entry["dtype"])
            )
            for name, entry in header.items()
        }
        stated = metadata.get(CONFIG_KEY)
        embedded, remarks = (None, ()) if stated is None else _parsed(stated)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidWeights(
            f"'{path}' is damaged.", why=f"Its header does not describe tensors ({error}).", todo="Get it again."
        ) from error
    return Content(tensors, "", embedded, tuple(metadata), remarks)


def _parsed(text: str) -> tuple[Any, tuple[str, ...]]:
    try:
        return json.loads(text), ()
    except (ValueError, RecursionError):
        return None, ("The description inside the file is not JSON; it is not used.",)


def _with_description(reader: Callable[[Path], Any]) -> Callable[[Path], Content]:
    """From what a PyTorch file holds to its tensors and its description."""

    def read(path: Path) -> Content:
        checkpoint = reader(path)
        found = find_tensors(checkpoint, TensorInfo)
        if found is None:
            return Content({})
        wrapper, tensors = found
        if not wrapper:
            return Content(tensors)
        others = tuple(str(key) for key in checkpoint if key != wrapper.partition(".")[0])
        return Content(tensors, wrapper, checkpoint.get(CHECKPOINT_CONFIG_KEY), others)

    return read
