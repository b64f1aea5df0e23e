"""Finished steps on disk, so that a run that was cancelled, killed or failed can go on.

Each step's value lies in a folder of its own, written beside its place and moved in whole. ``state.json``
says which input and options it came from: a step is taken again only where these are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.atomic import output_error, write_text
from MedAILib.errors import InUse, JobError, OutputError
from MedAILib.jobs.codec import load, save
from MedAILib.jobs.report import now_utc
from MedAILib.models.locks import locked

logger = logging.getLogger(__name__)

FOLDER = "steps"
STATE_FILE = "state.json"
LOCK_FILE = ".in-use.lock"
SCHEMA = 1
PACKAGES = frozenset({"KneeAnalysisLib", "MedAILib"})


@dataclass(frozen=True)
class Kept:
    """What the state file says of a finished step.

    Attributes
    ----------
    key : str
        Fingerprint of all it depends on.
    seconds : float
        That it took.
    finished_utc : str
    """

    key: str
    seconds: float
    finished_utc: str


class StepStore:
    """The finished steps in a result folder.

    Parameters
    ----------
    out : Path
        The result folder; made where it does not exist.

    Raises
    ------
    OutputError
        Nothing can be written there.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._folder = out / FOLDER
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self._folder, error) from error
        self._state = read_state(out)

    def kept(self, step: str, key: str) -> Kept | None:
        """The step as the state file has it, where it was finished with this very key and its value is there."""
        found = self._state.get(step)
        return found if found is not None and found.key == key and (self._folder / step).is_dir() else None

    def load(self, step: str) -> Any:
        """The value of a finished step; `JobError` where it is damaged."""
        return load(self._folder / step, PACKAGES)

    def save(self, step: str, key: str, value: Any, seconds: float) -> None:
        """Keep a step's value in place of an older one.

        Raises
        ------
        OutputError
            The disk is full, or writing is not allowed.
        """
        partial = self._folder / f".{step}.{uuid.uuid4().hex[:8]}.part"
        try:
            save(value, partial)
            self.forget(step)
            partial.rename(self._folder / step)
        except OSError as error:
            raise output_error(self._folder / step, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._state[step] = Kept(key, seconds, now_utc())
        self._write_state()

    def forget(self, step: str) -> None:
        """Drop a step's value, if there is one."""
        if self._state.pop(step, None) is not None:
            self._write_state()
        shutil.rmtree(self._folder / step, ignore_errors=True)

    def clear(self) -> None:
        """Drop all steps: what a new run keeps is then all of one kind."""
        for step in tuple(self._state):
            self.forget(step)

    def _write_state(self) -> None:
        steps = {name: {f.name: getattr(kept, f.name) for f in fields(kept)} for name, kept in self._state.items()}
        write_text(self._folder / STATE_FILE, json.dumps({"schema": SCHEMA, "steps": steps}, indent=2) + "\n")


@contextmanager
def reserved(out: Path) -> Iterator[None]:
    """Keep other analyses out of a result folder, which is made where it does not exist.

    The system lets go of it when the process ends, however it ends. On a file system without locks (some network
    drives) nothing is kept out.

    Raises
    ------
    InUse
        Another analysis is working there.
    OutputError
        The folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    with ExitStack() as held:
        try:
            held.enter_context(locked(out / LOCK_FILE, timeout_s=0))
        except InUse as error:
            raise InUse(
                f"Another analysis is writing to '{out}'.",
                why=error.why,
                todo="Wait until it is done, or choose another folder.",
            ) from error
        except OutputError as error:  # where nothing can be written, the first step says so
            logger.info("%s is not locked: %s", out, error.text)
        yield


def read_state(out: Path) -> dict[str, Kept]:
    """The finished steps that a result folder tells of; none where its state file is missing or damaged."""
    try:
        data = json.loads((out / FOLDER / STATE_FILE).read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            return {}
        return {name: Kept(one["key"], one["seconds"], one["finished_utc"]) for name, one in data["steps"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        logger.warning("the state of earlier steps in %s is damaged; they are computed anew", out)
        return {}


def loaded_or_none(store: StepStore, step: str) -> Any:
    """The value of a finished step, None where it is damaged."""
    try:
        return store.load(step)
    except JobError as error:
        logger.warning("the step '%s' in %s is computed anew: %s", step, store.out, error.text)
        return None


def fingerprint(*values: Any) -> str:
    """SHA-256 of plain values: numbers, texts, enums, arrays with their content, dataclasses, mappings, sequences.

    A path stands for size and time of the file, or of all files below the folder, it names.
    """
    digest = hashlib.sha256()
    for value in values:
        _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    digest.update(type(value).__name__.encode() + b"\0")
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data if value.size else b"")
    elif isinstance(value, Enum):
        digest.update(value.name.encode())
    elif isinstance(value, Path):
        _feed_path(digest, value)
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            digest.update(one.name.encode())
            _feed(digest, getattr(value, one.name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _feed(digest, key)
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(digest, item)
    else:
        digest.update(repr(value).encode())
    digest.update(b"\1")


def _feed_path(digest: Any, path: Path) -> None:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            stat = file.stat()
            digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
