"""Keras models read without Keras: would building the model run somebody's code, or reach outside the file?

A Keras file carries its layers as JSON that names Python classes. Versions of Keras before 3.15 could be
talked into importing anything (CVE-2025-1550, -8747, -9905, -9906, CVE-2026-1669), so only plain layers
of Keras itself pass here, and HDF5 files only without links to other files.
"""

from __future__ import annotations

import io
import json
import mmap
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from MedAILib.models.containers import Damaged

_MEMBERS = re.compile(r"(metadata\.json|config\.json|model\.weights\.(h5|npz|json)|assets/.*)")
_SHARDS = re.compile(r"model\.weights_\d+\.h5|model_\d+\.weights\.h5")
_CODE_CLASSES = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "function"}
_FILE_READERS = {"StringLookup", "IntegerLookup", "TextVectorization", "IndexLookup"}
_MODULES = re.compile(
    r"keras(\.src)?(\.(layers|initializers|regularizers|constraints|dtype_policies|models|optimizers|losses|metrics"
    r"|quantizers|activations|ops|backend\.common\.keras_tensor)(\.\w+)*)?"
)
_CLASS = re.compile(r"[A-Z]\w*|__(tuple|keras_tensor|numpy|tensor|bytes|slice|ellipsis|bool__|complex)_*_?_?")
_MAX_CONFIG = 64 << 20
_CONFIG_START = re.compile(rb'\{\s*"(?:module|class_name|name|config|registered_name)"\s*:')
_MAX_DEPTH = 200


class Unsafe(ValueError):
    """Loading the model would run code or reach outside its file; the text says how."""


def is_keras_zip(names: list[str]) -> bool:
    """Whether a zip's table of contents is that of a ``.keras`` file."""
    return {"config.json", "metadata.json"} <= set(names)


def check_keras_zip(archive: zipfile.ZipFile) -> None:
    """Members and layers of a ``.keras`` file; raises `Unsafe` or `Damaged`."""
    names = archive.namelist()
    strange = [name for name in names if not _MEMBERS.fullmatch(name) and not _SHARDS.fullmatch(name)]
    if strange:
        raise Unsafe(f"it holds '{strange[0]}', which no .keras file needs")
    if not any(name.startswith("model") for name in names):
        raise Damaged("it holds no weights (model.weights.h5)")
    if archive.getinfo("config.json").file_size > _MAX_CONFIG:
        raise Unsafe("its description of the layers is absurdly long")
    try:
        config = json.loads(archive.read("config.json"))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its config.json is no JSON ({error})") from error
    check_layers(config)


def check_layers(config: Any) -> None:
    """Walk a model's JSON; raises `Unsafe` at the first class that is not a plain one of Keras."""
    for place, item in _objects(config, "model", 0):
        name = item.get("class_name")
        if not isinstance(name, str):
            continue
        inner = item.get("config")
        label = inner.get("name") if isinstance(inner, dict) else None
        where = f"'{label}'" if isinstance(label, str) else place
        if name.rpartition(">")[2] in _CODE_CLASSES:
            raise Unsafe(f"layer {where} is a '{name}', which carries Python code")
        module, registered = item.get("module"), item.get("registered_name")
        if module not in (None, "") and not (isinstance(module, str) and _MODULES.fullmatch(module)):
            raise Unsafe(f"layer {where} comes from '{module}.{name}', which is not Keras's own")
        if ">" in name or (isinstance(registered, str) and ">" in registered):
            raise Unsafe(f"layer {where} is the custom class '{registered or name}', whose code is not in the file")
        if not _CLASS.fullmatch(name):
            raise Unsafe(f"{where} names the function '{name}'; weights need none")
        if name in _FILE_READERS and isinstance(inner, dict) and isinstance(inner.get("vocabulary"), str):
            raise Unsafe(f"layer {where} would read the file '{inner['vocabulary']}'")


def _objects(value: Any, place: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    if depth > _MAX_DEPTH:
        raise Unsafe("its layers are nested absurdly deep")
    if isinstance(value, dict):
        yield place, value
        for key, item in value.items():
            yield from _objects(item, f"{place}.{key}", depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _objects(item, f"{place}[{index}]", depth + 1)


def check_keras_hdf5(path: Path) -> None:
    """Layers described in an HDF5 file, found by their text, before any library opens it.

    Raises
    ------
    Unsafe
        See `check_layers`.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"model_config") < 0:
            return  # weights only
        code = re.search(
            rb'"class_name"\s*:\s*"(?:[^"]*>)?(Lambda|TFSMLayer|TorchModuleWrapper|JaxLayer|FlaxLayer)"', data
        )
        if code:
            raise Unsafe(f"one of its layers is a '{code[1].decode()}', which carries Python code")
        for config in _configs(data):
            check_layers(config)


def _configs(data: mmap.mmap) -> Iterator[Any]:
    """JSON documents in the file that describe layers, each once."""
    decoder = json.JSONDecoder()
    at = 0
    while found := _CONFIG_START.search(data, at):
        at = found.end()
        end = data.find(b"\0", found.start())
        text = data[found.start() : min(end if end >= 0 else len(data), found.start() + _MAX_CONFIG)]
        try:
            config, length = decoder.raw_decode(text.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        yield config
        at = found.start() + max(length, 1)


def check_keras_weights(archive: zipfile.ZipFile) -> bool:
    """The HDF5 files within a ``.keras`` file, as `check_hdf5_links` does; answers and errors as there."""
    checked = True
    for member in archive.infolist():
        if member.filename.endswith(".h5") and not member.filename.startswith("assets/"):
            # Read whole: HDF5 jumps to and fro, and every jump back within a zip reads it from its start.
            checked = check_hdf5_links(io.BytesIO(archive.read(member)), member.file_size) and checked
    return checked


def check_hdf5_links(source: Path | IO[bytes], size: int | None = None) -> bool:
    """Nothing in an HDF5 file may lead outside it; answers False where h5py, which this needs, is missing.

    Parameters
    ----------
    source : Path or binary file
    size : int, optional
        Bytes; needed of an open file.

    Raises
    ------
    Unsafe
        A link to another file, data stored in other files, or an array that claims far more than is stored.
    Damaged
        HDF5 cannot read it.
    """
    try:
        import h5py
    except ImportError:
        return False
    try:
        with h5py.File(source, "r") as file:
            _check_group(h5py, file, source.stat().st_size if isinstance(source, Path) else size or 0)
            config = file.attrs.get("model_config")
            if config is not None:
                text = config.decode("utf-8") if isinstance(config, bytes) else str(config)
                check_layers(json.loads(text))
    except (OSError, RuntimeError, KeyError) as error:
        raise Damaged(f"HDF5 cannot read it ({error})") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, Unsafe):
            raise
        raise Damaged(f"its description of the layers is no JSON ({error})") from error
    return True


def _check_group(h5py: Any, root: Any, size: int) -> None:
    """Every link and dataset below a group, each object once."""
    waiting, seen = [root], {root.id.__hash__()}
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            where = f"{group.name.rstrip('/')}/{name}"
            if isinstance(link, h5py.ExternalLink):
                raise Unsafe(f"'{where}' is a link to another file, '{link.filename}'")
            if isinstance(link, h5py.SoftLink):
                raise Unsafe(f"'{where}' is a soft link to '{link.path}', which weights do not need")
            item = group[name]
            if isinstance(item, h5py.Group):
                key = item.id.__hash__()
                if key not in seen:
                    seen.add(key)
                    waiting.append(item)
            elif isinstance(item, h5py.Dataset):
                _check_dataset(where, item, size)


def _check_dataset(where: str, dataset: Any, size: int) -> None:
    if dataset.external:
        raise Unsafe(f"'{where}' keeps its data in another file, '{dataset.external[0][0]}'")
    if dataset.is_virtual:
        raise Unsafe(f"'{where}' is put together from other files")
    if dataset.nbytes > max(1000 * size, 64 << 20):
        raise Unsafe(
            f"'{where}' claims {dataset.nbytes:,} bytes in a file of {size:,}; loading it would fill the memory"
        )
