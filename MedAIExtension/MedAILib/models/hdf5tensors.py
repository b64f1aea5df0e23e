"""Names, shapes and types of the arrays in HDF5 and Keras files; h5py is imported when one is read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

from MedAILib.errors import InvalidWeights, MissingPackage
from MedAILib.models.tensorinfo import Content, TensorInfo

_WEIGHTS = "model.weights.h5"


def read_hdf5(path: Path) -> Content:
    """Every array in an HDF5 file, by its path in it; links to other places are refused."""
    return _read(path, path)


def read_keras(path: Path) -> Content:
    """Every array in the ``model.weights.h5`` of a ``.keras`` file."""
    with zipfile.ZipFile(path) as archive:
        try:
            with archive.open(_WEIGHTS) as stream:
                return _read(path, stream)
        except KeyError as error:
            raise InvalidWeights(
                f"'{path}' does not keep its weights in one '{_WEIGHTS}'.", todo="Save it again with Keras 3."
            ) from error


def _read(path: Path, source: Path | IO[bytes]) -> Content:
    try:
        import h5py
    except ImportError as error:
        raise MissingPackage(
            f"'{path}' cannot be looked into.", why="The package h5py is not installed.", todo="pip install h5py"
        ) from error
    try:
        with h5py.File(source, "r") as file:
            tensors: dict[str, TensorInfo] = {}
            _walk(h5py, file, "", tensors, set())
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InvalidWeights(f"'{path}' is damaged.", why=f"HDF5 answers: {error}.", todo="Get it again.") from error
    return Content(tensors)


def _walk(h5py: Any, group: Any, prefix: str, tensors: dict[str, TensorInfo], seen: set[Any]) -> None:
    """Collect the arrays of a group; a group that is found a second time (they may form a ring) is passed over."""
    address = h5py.h5o.get_info(group.id).addr
    if address in seen:
        return
    seen.add(address)
    for name in group:
        place = f"{prefix}/{name}" if prefix else name
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise InvalidWeights(
                f"'{place}' in the HDF5 file is a link to another place.",
                why="Links could make a program read other files of this computer.",
                todo="Do not load it. Ask its author for a file without links.",
            )
        item = group[name]
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind in "biufc":
                tensors[place] = TensorInfo(tuple(int(length) for length in item.shape or ()), str(item.dtype))
        else:
            _walk(h5py, item, place, tensors, seen)
