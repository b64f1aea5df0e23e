"""The description of a model: what it is, what goes in, what comes out, which files it consists of.

It lies beside the weights as ``model_config.json`` and names each file with its SHA-256, so that a
description and a file that do not belong together are told apart.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

from MedAILib.atomic import write_text
from MedAILib.errors import FileMissing, InvalidWeights
from MedAILib.filekind import open_error
from MedAILib.models.heads import Head, Input
from MedAILib.models.infer import KNOWN
from MedAILib.models.migrations import SCHEMA, migrate
from MedAILib.models.records import Problems, content_hash, read_record, record_to_json, unknown_keys

logger = logging.getLogger(__name__)

CONFIG_FILE = "model_config.json"
LARGEST_CONFIG_BYTES = 16 * 1024 * 1024

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DESCRIBE = "Write one from the weights themselves: medai models describe PATH --write"


class FileRole(Enum):
    """What a file is for."""

    WEIGHTS = "weights"
    TRAINING_STATE = "training-state"
    OTHER = "other"


class FileType(Enum):
    """How a file is written."""

    SAFETENSORS = "safetensors"
    TORCH = "torch"
    HDF5 = "hdf5"
    KERAS = "keras"
    ONNX = "onnx"
    OTHER = "other"


@dataclass(frozen=True)
class Architecture:
    """Which network: a name, and the arguments its factory takes."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self, path: str, problems: Problems) -> None:
        known = KNOWN.get(self.name)
        for name in known.parameters if known else ():
            value = self.parameters.get(name)
            wanted = bool if name == "bilinear" else int
            words = known.words.get(name, ()) if known else ()
            if value is None:
                continue  # not stated here; may be read off the weights
            if words:
                if value not in words:
                    said = json.dumps(value, default=str)
                    problems.add(f"{path}.parameters.{name}", f"must be one of {', '.join(words)}, not {said}.")
            elif type(value) is not wanted or (wanted is int and value < 1):
                kind = "true or false" if wanted is bool else "a whole number above 0"
                problems.add(f"{path}.parameters.{name}", f"must be {kind}, not {json.dumps(value, default=str)}.")


@dataclass(frozen=True)
class FileEntry:
    """A file of the model.

    Attributes
    ----------
    path : str
        Relative to the description's folder, with ``/``.
    role : FileRole
    format : FileType
    size : int
        Bytes.
    sha256 : str
        64 hexadecimal digits, lower case.
    replaces : str
        SHA-256 of the file that this one took the place of. Where that is still found, the saving was
        interrupted between the description and the weights, and nothing is wrong with the older file.
    """

    path: str
    role: FileRole
    format: FileType
    size: int
    sha256: str
    replaces: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self, path: str, problems: Problems) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in self.path or ":" in self.path:
            problems.add(f"{path}.path", f"must be a relative path inside the model's folder, not '{self.path}'.")
        if self.size < 0:
            problems.add(f"{path}.size", f"must not be below 0, not {self.size}.")
        for name in ("sha256", "replaces") if self.replaces else ("sha256",):
            if not _SHA256.fullmatch(getattr(self, name)):
                problems.add(f"{path}.{name}", "must be 64 hexadecimal digits in lower case.")


@dataclass(frozen=True)
class Source:
    """Where the weights come from."""

    repository: str = ""
    revision: str = ""
    url: str = ""
    paper: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Licence:
    """Under which terms the weights may be used; ``spdx`` is the identifier of https://spdx.org/licenses."""

    spdx: str = ""
    name: str = ""
    url: str = ""
    non_commercial: bool | None = None
    must_be_accepted: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """How the weights came to be.

    Attributes
    ----------
    trained_on : str
    training : object
        The training's settings, or a text that names them.
    metrics : mapping
        As measured, by name; on which data belongs into the name or into ``trained_on``.
    date : str
        YYYY-MM-DD.
    converted_from : str
        File or SHA-256 that these weights were converted from.
    """

    trained_on: str = ""
    training: Any = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    date: str = ""
    converted_from: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self, path: str, problems: Problems) -> None:
        try:
            if self.date:
                date.fromisoformat(self.date)
        except ValueError:
            problems.add(f"{path}.date", f"must be a date as YYYY-MM-DD, not '{self.date}'.")


@dataclass(frozen=True)
class Resources:
    """What running the model took where it was measured; None: not measured."""

    disk_bytes: int | None = None
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None
    seconds_cpu: float | None = None
    seconds_gpu: float | None = None
    measured_on: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self, path: str, problems: Problems) -> None:
        for name in ("disk_bytes", "memory_mb", "gpu_memory_mb", "seconds_cpu", "seconds_gpu"):
            value = getattr(self, name)
            if value is not None and value < 0:
                problems.add(f"{path}.{name}", f"must not be below 0, not {value}.")


@dataclass(frozen=True)
class Gate:
    """How images are told that are not like those the model was trained on.

    Attributes
    ----------
    file : str
        The statistics of the training images' features, one of the model's files.
    features : str
        Name of the output that answers the features.
    threshold : float
        Largest distance from the statistics at which an image is still accepted.
    acceptance : float
        Share of held-out images of the right kind within that distance.
    least_confidence : float
        Calibrated probability of the most probable class below which no answer is given.
    """

    file: str
    features: str
    threshold: float
    acceptance: float
    least_confidence: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self, path: str, problems: Problems) -> None:
        if self.threshold <= 0:
            problems.add(f"{path}.threshold", f"must be above 0, not {self.threshold}.")
        for name in ("acceptance", "least_confidence"):
            if not 0 <= getattr(self, name) <= 1:
                problems.add(f"{path}.{name}", f"must be from 0 to 1, not {getattr(self, name)}.")


@dataclass(frozen=True)
class ModelConfig:
    """A model's description.

    Attributes
    ----------
    id : str
        Short and stable: letters, digits, ``.``, ``_``, ``-``, ``/``.
    family : str
        Models of one family take and answer the same.
    architecture : Architecture
    title, version, description, intended_use : str
    inputs : tuple of Input
    heads : tuple of Head
    gate : Gate, optional
        None: nothing tells images that are not like those it was trained on.
    files : tuple of FileEntry
        The files this description is bound to; empty: to none in particular.
    source : Source
    licence : Licence
    provenance : Provenance
    requirements : mapping of str to str
        Python package to version specifier.
    resources : Resources
    assumed : tuple of str
        JSON paths of values that nobody stated: taken from what is usual for the architecture.
    schema : int
    extra : mapping
        Keys that this version does not know; kept and written back.
    """

    id: str
    family: str
    architecture: Architecture
    title: str = ""
    version: str = ""
    description: str = ""
    intended_use: str = ""
    inputs: tuple[Input, ...] = ()
    heads: tuple[Head, ...] = ()
    gate: Gate | None = None
    files: tuple[FileEntry, ...] = ()
    source: Source = field(default_factory=Source)
    licence: Licence = field(default_factory=Licence)
    provenance: Provenance = field(default_factory=Provenance)
    requirements: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    assumed: tuple[str, ...] = ()
    schema: int = SCHEMA
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Any, where: str = "The description") -> ModelConfig:
        """Build it from parsed JSON of the present or an earlier form.

        Parameters
        ----------
        data : object
            What `json.loads` gave.
        where : str
            What it is called in messages: the path of its file.

        Raises
        ------
        InvalidWeights
            With every problem and its JSON path; or the schema is newer than this version.
        """
        if not isinstance(data, Mapping):
            raise _invalid(where, ["$ must be an object."])
        problems = Problems()
        config = read_record(cls, migrate(data, where), problems)
        if config is None:
            raise _invalid(where, list(problems))
        for path in config.unknown_keys():
            logger.warning("%s: %s is not known to this version; it is kept as it is", where, path)
        return config

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ModelConfig:
        """Read a description from its file.

        Raises
        ------
        FileMissing
            Where there is none; nothing is put in its place.
        InvalidWeights
            Where it is not valid; the message names every problem.
        """
        return cls.from_dict(_read_json(Path(path)), f"'{path}'")

    @classmethod
    def from_checkpoint_dir(cls, checkpoint_dir: str | os.PathLike[str]) -> ModelConfig:
        """The description in a folder of weights (or beside a weight file); errors as in `load`."""
        folder = Path(checkpoint_dir)
        return cls.load((folder.parent if folder.is_file() else folder) / CONFIG_FILE)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it whole or not at all; a folder means `CONFIG_FILE` in it.

        Raises
        ------
        InvalidWeights
            Where this description is not valid; nothing is written.
        OutputError
            Where the file cannot be written.
        """
        target = Path(path) / CONFIG_FILE if Path(path).is_dir() else Path(path)
        write_text(target, self.text)
        return target

    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong, each with its JSON path; empty where it is valid."""
        problems = Problems()
        read_record(type(self), record_to_json(self), problems)
        return tuple(problems)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"schema": self.schema, **record_to_json(self)}

    def unknown_keys(self) -> tuple[str, ...]:
        """JSON paths of what is kept without being understood."""
        return unknown_keys(self)

    def get_model_params(self) -> dict[str, Any]:
        """Arguments for the network's factory."""
        return dict(self.architecture.parameters)

    def file_with_hash(self, sha256: str) -> FileEntry | None:
        """The entry of the file with that SHA-256, None where this description is not bound to it."""
        return next((entry for entry in self.files if entry.sha256 == sha256), None)

    @property
    def content_hash(self) -> str:
        """SHA-256 of the canonical JSON: equal descriptions have equal hashes."""
        return content_hash(self.to_dict())

    @property
    def text(self) -> str:
        """The file's text; `InvalidWeights` where this description is not valid."""
        problems = self.problems()
        if problems:
            raise _invalid(f"The description of '{self.id}'", list(problems))
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def check(self, path: str, problems: Problems) -> None:
        """The rules between fields; part of reading and of `problems`."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", self.id) or ".." in self.id:
            problems.add(f"{path}.id", f"must be of letters, digits and . _ - /, not '{self.id}'.")
        for name, items in (("inputs", self.inputs), ("heads", self.heads)):
            names = [item.name for item in items]
            for twice in sorted({name for name in names if names.count(name) > 1}):
                problems.add(f"{path}.{name}", f"has the name '{twice}' more than once.")
        paths = [entry.path for entry in self.files]
        if self.gate is not None and self.gate.file not in paths:
            problems.add(f"{path}.gate.file", f"must be one of the model's files, not '{self.gate.file}'.")
        for twice in sorted({name for name in paths if paths.count(name) > 1}):
            problems.add(f"{path}.files", f"has the path '{twice}' more than once.")


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST_CONFIG_BYTES:
            raise _invalid(f"'{path}'", [f"$ is larger than {LARGEST_CONFIG_BYTES >> 20} MB."])
        return json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_constant)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissing(f"There is no model description '{path}'.", todo=_DESCRIBE) from error
    except OSError as error:
        raise open_error(path, error) from error
    except RecursionError as error:
        raise _invalid(f"'{path}'", ["$ is nested too deeply."]) from error
    except ValueError as error:
        raise InvalidWeights(f"'{path}' is not JSON.", why=f"{error}.", todo=_DESCRIBE) from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which JSON does not have")


def _invalid(where: str, problems: list[str]) -> InvalidWeights:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return InvalidWeights(
        f"{where} has {count}: {' '.join(problems)}",
        todo="Mend it with a text editor, or write a new one: medai models describe PATH --write",
    )
