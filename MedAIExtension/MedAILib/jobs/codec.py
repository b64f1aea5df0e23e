"""Values across a process border: plain values to a JSON file and ``.npy`` files, and back.

Requests and results are frozen dataclasses of plain values. `save` writes one into a folder, `load`
reads it back. There are no pickles: classes are named ``package.module:ClassName``, and only
dataclasses and enums of the packages that the reader trusts are ever built.

=====================  ==============================================================
value                  in ``value.json``
=====================  ==============================================================
None, bool, int, str   themselves
float                  itself; ``{"$float": "nan"}`` (or ``inf``, ``-inf``)
list                   a list
tuple                  ``{"$tuple": [...]}``
mapping with str keys  ``{"$dict": {...}}``
Path                   ``{"$path": "..."}``
Enum                   ``{"$enum": "package.module:Class", "name": "MEMBER"}``
dataclass              ``{"$class": "package.module:Class", "fields": {...}}``
ndarray                ``{"$array": "0.npy"}``, one file per array
=====================  ==============================================================

NumPy scalars come back as Python numbers; arrays come back read-only, with dtype and shape kept.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.errors import JobError, OutputError

VALUE_FILE = "value.json"
ARRAY_KINDS = "biufc"
SMALLEST_MAPPED_BYTES = 1 << 16
"""Smaller arrays are read at once: a memory map costs a page and an open file each."""


def save(value: Any, folder: Path) -> None:
    """Write a value into a folder, which is made where it does not exist.

    Raises
    ------
    JobError
        Where something in the value is not a plain value; the message says where.
    OutputError
        Where the folder cannot take it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_Writer(folder).encode(value, "value"), allow_nan=False)
        (folder / VALUE_FILE).write_text(text, encoding="ascii")
    except OSError as error:
        raise OutputError(
            f"The values of a job could not be written into '{folder}'.",
            why=f"{error}.",
            todo="Free some space there, or choose another folder for temporary files (variable TMPDIR).",
        ) from error


def load(folder: Path, packages: Collection[str], *, memory_map: bool = True) -> Any:
    """Read the value that `save` wrote into a folder.

    Parameters
    ----------
    folder : Path
    packages : collection of str
        Top-level packages whose dataclasses and enums may be built.
    memory_map : bool
        Leave large arrays in their files (which must then stay) instead of reading them into memory.

    Raises
    ------
    JobError
        Where the folder holds no value, or one of a class outside ``packages``.
    """
    try:
        data = json.loads((folder / VALUE_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise _damaged(str(error)) from error
    try:
        return _Reader(folder, frozenset(packages), memory_map).decode(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(f"they are incomplete or of another version ({type(error).__name__}: {error})") from error


def trusted_packages(task_name: str) -> frozenset[str]:
    """Packages whose classes a task's request and result may hold: its own and the shared library."""
    return frozenset({task_name.partition(":")[0].partition(".")[0], __name__.partition(".")[0]})


class _Writer:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._array_count = 0

    def encode(self, value: Any, where: str) -> Any:
        if isinstance(value, Enum):
            return {"$enum": _class_name(type(value), where), "name": _member_name(value, where)}
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"$float": str(float(value))}
        if isinstance(value, np.ndarray):
            return {"$array": self._write_array(value, where)}
        if isinstance(value, Path):
            return {"$path": str(value)}
        return self._encode_compound(value, where)

    def _encode_compound(self, value: Any, where: str) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            names = [f.name for f in fields(value) if f.init]
            content = {name: self.encode(getattr(value, name), f"{where}.{name}") for name in names}
            return {"$class": _class_name(type(value), where), "fields": content}
        if type(value) in (list, tuple):
            items = [self.encode(item, f"{where}[{index}]") for index, item in enumerate(value)]
            return items if type(value) is list else {"$tuple": items}
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    raise _not_plain(f"the key {key!r} of {where} is not a text")
            return {"$dict": {key: self.encode(item, f"{where}[{key!r}]") for key, item in value.items()}}
        raise _not_plain(f"{where} is a {type(value).__module__}.{type(value).__qualname__}")

    def _write_array(self, array: np.ndarray, where: str) -> str:
        if array.dtype.kind not in ARRAY_KINDS:
            raise _not_plain(f"{where} is an array of {array.dtype}")
        name = f"{self._array_count}.npy"
        self._array_count += 1
        np.save(self._folder / name, np.asarray(array), allow_pickle=False)
        return name


class _Reader:
    def __init__(self, folder: Path, packages: frozenset[str], memory_map: bool) -> None:
        self._folder = folder
        self._packages = packages
        self._memory_map = memory_map

    def decode(self, data: Any) -> Any:
        if isinstance(data, list):
            return [self.decode(item) for item in data]
        if not isinstance(data, dict):
            return data
        kind = next(iter(data), "")
        match kind:
            case "$float":
                return float(data[kind])
            case "$tuple":
                return tuple(self.decode(item) for item in data[kind])
            case "$dict":
                return {key: self.decode(item) for key, item in data[kind].items()}
            case "$path":
                return Path(data[kind])
            case "$array":
                return self._read_array(data[kind])
            case "$enum":
                return self._member(data[kind], data["name"])
            case "$class":
                return self._build(data[kind], data["fields"])
        raise _damaged(f"'{kind}' is not a kind of value")

    def _build(self, name: str, content: dict[str, Any]) -> Any:
        kind = self._find_class(name)
        if not is_dataclass(kind):
            raise _damaged(f"{name} is not a dataclass")
        known = {f.name for f in fields(kind) if f.init}
        if not known.issuperset(content):
            raise _damaged(f"{name} has no field {', '.join(sorted(set(content) - known))}")
        return kind(**{key: self.decode(item) for key, item in content.items()})

    def _member(self, name: str, member: str) -> Enum:
        kind = self._find_class(name)
        if not issubclass(kind, Enum) or member not in kind.__members__:
            raise _damaged(f"{name} has no member {member}")
        return kind[member]

    def _find_class(self, name: str) -> type:
        module_name, _, qualified_name = name.partition(":")
        if module_name.partition(".")[0] not in self._packages:
            raise _damaged(f"{name} belongs to none of {', '.join(sorted(self._packages))}")
        found: Any = importlib.import_module(module_name)
        for part in qualified_name.split("."):
            found = getattr(found, part, None)
        if not isinstance(found, type) or (found.__module__, found.__qualname__) != (module_name, qualified_name):
            raise _damaged(f"{name} is not a class of that module")
        return found

    def _read_array(self, name: str) -> np.ndarray:
        path = self._folder / name
        if path.parent != self._folder or path.suffix != ".npy":
            raise _damaged(f"'{name}' is not an array file of this job")
        try:
            mapped = self._memory_map and path.stat().st_size >= SMALLEST_MAPPED_BYTES
            array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise _damaged(f"array {name}: {error}") from error
        array = np.asarray(array)
        array.setflags(write=False)
        return array


def _class_name(kind: type, where: str) -> str:
    if kind.__module__ == "__main__" or "<" in kind.__qualname__:
        raise _not_plain(f"{where} is of the class {kind.__qualname__}, which no other process can import")
    return f"{kind.__module__}:{kind.__qualname__}"


def _member_name(value: Enum, where: str) -> str:
    if value.name not in type(value).__members__:
        raise _not_plain(f"{where} is a combination of flags")
    return value.name


def _not_plain(why: str) -> JobError:
    return JobError(
        "A value cannot be sent to another process.",
        why=f"Only plain values and dataclasses of them can, and {why}.",
        todo="Please report this: it is a mistake in the program.",
    )


def _damaged(why: str) -> JobError:
    return JobError("The values of a job could not be read.", why=f"{why[0].upper()}{why[1:]}.", todo="Run it again.")
