"""A folder of models: ``models/<id>/`` with the files under readable names and ``installed.json`` beside them.

A model is installed when that record exists and every file still has the size and time at which its hash
was last found right. A file alone proves nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from MedAILib.atomic import output_error
from MedAILib.errors import Cancelled, InvalidWeights
from MedAILib.filekind import open_error
from MedAILib.models.config import CONFIG_FILE
from MedAILib.models.entries import ModelEntry
from MedAILib.models.journal import change, read_json, read_object, write_json
from MedAILib.models.partial import LOCK_SUFFIX, PART_SUFFIX, RECORD_SUFFIX
from MedAILib.models.records import Problems, read_record, record_to_json
from MedAILib.models.states import State, Status

RECORD_FILE = "installed.json"
MODELS_FOLDER = "models"
SCRATCH_PREFIX = ".unpacked-"
OLD_PART_DAYS = 7.0
_BLOCK = 1 << 20
_VERIFIED = "verified.json"

OnProgress = Callable[[str, int, int | None], None]
"""What is being done, bytes done, bytes in total (None: not known)."""


@dataclass(frozen=True)
class InstalledFile:
    """A file as it was when its hash was last found right.

    Attributes
    ----------
    path : str
        Below the model's folder, with ``/``.
    size, mtime_ns : int
    sha256 : str
    source : str
        Where it came from, for people.
    first_use : bool
        No hash was known beforehand: this one was recorded when the file first came, and is expected from then on.
    """

    path: str
    size: int
    sha256: str
    mtime_ns: int = 0
    source: str = ""
    first_use: bool = False


@dataclass(frozen=True)
class InstallRecord:
    """``installed.json``.

    Attributes
    ----------
    id : str
    installed_at : str
        UTC, ISO 8601.
    files : tuple of InstalledFile
    licence : str
        Name of the licence that was accepted; empty where none had to be.
    revision : str
        The hub commit.
    """

    id: str
    installed_at: str
    files: tuple[InstalledFile, ...]
    licence: str = ""
    revision: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def file(self, path: str) -> InstalledFile | None:
        return next((file for file in self.files if file.path == path), None)


@dataclass(frozen=True)
class Leftover:
    """Something in a store that no installed model needs."""

    path: Path
    size: int
    why: str


class Store:
    """One folder of models.

    Parameters
    ----------
    home : Path
        Need not exist.
    memory : Path, optional
        Where to remember that files were verified, if ``home`` may not be written: the user's own home.
    is_shared : bool
        Never write there.
    """

    def __init__(self, home: Path, *, memory: Path | None = None, is_shared: bool = False) -> None:
        self.home = home
        self.is_shared = is_shared
        self._memory = (memory or home) / _VERIFIED

    def folder(self, model_id: str) -> Path:
        return self.home / MODELS_FOLDER / model_id

    def file(self, model_id: str, path: str) -> Path:
        return self.folder(model_id).joinpath(*PurePosixPath(path).parts)

    def ids(self) -> tuple[str, ...]:
        """Ids of the folders that are there."""
        try:
            return tuple(sorted(folder.name for folder in (self.home / MODELS_FOLDER).iterdir() if folder.is_dir()))
        except OSError:
            return ()

    def record(self, model_id: str) -> InstallRecord | None:
        """What ``installed.json`` says; None where there is none that can be read."""
        return read_record(InstallRecord, read_json(self.folder(model_id) / RECORD_FILE), Problems())

    def write_record(self, record: InstallRecord) -> InstallRecord:
        """Record files whose hashes were just found right, with their present times."""
        files = tuple(replace(file, mtime_ns=self._stat(record.id, file).st_mtime_ns) for file in record.files)
        record = replace(record, files=files)
        write_json(self.folder(record.id) / RECORD_FILE, record_to_json(record))
        return record

    def forget(self, model_id: str) -> None:
        """Take the record away: the files count as nothing until they are verified."""
        (self.folder(model_id) / RECORD_FILE).unlink(missing_ok=True)

    def status(self, entry: ModelEntry) -> Status:
        """The state by record, size and time; no file is opened."""
        folder = self.folder(entry.id)
        if not folder.is_dir():
            return Status(entry.id, State.NOT_INSTALLED)
        record = self.record(entry.id)
        state, why = self._without_record(entry) if record is None else self._with_record(entry, record)
        here = None if state is State.NOT_INSTALLED else folder
        return Status(entry.id, state, why, here, tree_bytes(folder), self.is_shared)

    def _without_record(self, entry: ModelEntry) -> tuple[State, str]:
        files = [path for path in _files(self.folder(entry.id)) if path.name != CONFIG_FILE]
        if not files:
            return State.NOT_INSTALLED, ""
        if any(path.name.endswith(PART_SUFFIX) for path in files):
            return State.PARTIAL, f"A download has begun and goes on with: medai models get {entry.id}"
        return State.PARTIAL, f"Files are there that were never verified: medai models verify {entry.id}"

    def _with_record(self, entry: ModelEntry, record: InstallRecord) -> tuple[State, str]:
        again = f"Get it again: medai models get {entry.id}"
        for wanted in entry.files:
            found = record.file(wanted.path)
            if found is None:
                return State.PARTIAL, f"'{wanted.path}' is not there. {again}"
            if not wanted.agrees_with(found.sha256):
                return State.INVALID, f"The catalogue now names another version of '{wanted.path}'. {again}"
        for file in record.files:
            try:
                stat = self._stat(entry.id, file)
            except OSError:
                return State.PARTIAL, f"'{file.path}' is missing. {again}"
            if stat.st_size != file.size:
                return State.INVALID, f"'{file.path}' has {stat.st_size:,} bytes instead of {file.size:,}. {again}"
            if stat.st_mtime_ns != file.mtime_ns and not self._was_verified(entry.id, file, stat):
                return State.INVALID, f"'{file.path}' was touched since it was verified: medai models verify {entry.id}"
        return State.INSTALLED, ""

    def verify(
        self,
        entry: ModelEntry,
        record: InstallRecord,
        *,
        on_progress: OnProgress = lambda stage, done, total: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Hash every file; on success remember their present times.

        Raises
        ------
        InvalidWeights
            The first file that is missing or differs.
        Cancelled
        """
        total, done = sum(file.size for file in record.files), 0
        stats: dict[str, os.stat_result] = {}
        for file in record.files:
            path = self.file(entry.id, file.path)
            start = done

            def progress(count: int, start: int = start) -> None:
                on_progress(f"verifying {entry.id}", start + count, total)

            stats[file.path] = _stat_of(path, file, entry.id)
            found = hash_file(path, on_bytes=progress, is_cancelled=is_cancelled)
            if found != file.sha256:
                raise wrong_hash(path, found, file.sha256, entry.id)
            done += file.size
        self._remember(record, stats)

    def _remember(self, record: InstallRecord, stats: Mapping[str, os.stat_result]) -> None:
        if not self.is_shared:
            self.write_record(record)
            return

        def edit(content: dict[str, Any]) -> None:
            for file in record.files:
                stat = stats[file.path]
                content[str(self.file(record.id, file.path))] = [stat.st_size, stat.st_mtime_ns, file.sha256]

        change(self._memory, edit)

    def _was_verified(self, model_id: str, file: InstalledFile, stat: os.stat_result) -> bool:
        known = read_object(self._memory).get(str(self.file(model_id, file.path)))
        return known == [stat.st_size, stat.st_mtime_ns, file.sha256]

    def _stat(self, model_id: str, file: InstalledFile) -> os.stat_result:
        return self.file(model_id, file.path).stat()

    def remove(self, model_id: str) -> int:
        """Delete a model's folder; the bytes freed. Raises `OutputError`."""
        folder = self.folder(model_id)
        size = tree_bytes(folder)
        try:
            self.forget(model_id)  # first, so that a half-deleted model never counts as installed
            if folder.exists():
                shutil.rmtree(folder)
        except OSError as error:
            raise output_error(folder, error) from error
        return size

    def leftovers(self, known_ids: set[str], *, days: float = OLD_PART_DAYS) -> Iterator[Leftover]:
        """Parts older than some days, scratch folders of dead runs, folders of models that nobody knows."""
        oldest = time.time() - days * 86400
        for path in self.home.glob(f"{SCRATCH_PREFIX}*"):
            if path.stat().st_mtime < oldest:
                yield Leftover(path, tree_bytes(path), "an archive was unpacked here and never taken over")
        for model_id in self.ids():
            folder = self.folder(model_id)
            for path in _files(folder):
                is_part = path.name.endswith((PART_SUFFIX, RECORD_SUFFIX, LOCK_SUFFIX))
                if is_part and path.stat().st_mtime < oldest:
                    yield Leftover(path, path.stat().st_size, f"a download that rests for more than {days:g} days")
            if model_id not in known_ids:
                yield Leftover(folder, tree_bytes(folder), "no catalogue knows a model of this name")


def _stat_of(path: Path, file: InstalledFile, model_id: str) -> os.stat_result:
    """Size and time of a file that has the size it should have: a wrong one needs no hashing."""
    try:
        stat = path.stat()
    except OSError as error:
        raise open_error(path, error) from error
    if stat.st_size != file.size:
        raise InvalidWeights(
            f"'{path}' is not the file it should be.",
            why=f"It has {stat.st_size:,} bytes instead of {file.size:,}.",
            todo=f"Get it again: medai models get {model_id}",
        )
    return stat


def hash_file(
    path: Path,
    *,
    on_bytes: Callable[[int], None] = lambda done: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> str:
    """SHA-256 of a file, with progress; raises `FileMissing`, `UnreadableFile`, `Cancelled`."""
    digest, done = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as stream:
            while block := stream.read(_BLOCK):
                if is_cancelled():
                    raise Cancelled("The check was cancelled.", todo="Nothing was changed.")
                digest.update(block)
                done += len(block)
                on_bytes(done)
    except OSError as error:
        raise open_error(path, error) from error
    return digest.hexdigest()


def wrong_hash(path: Path, found: str, expected: str, model_id: str) -> InvalidWeights:
    """The error for a file that is whole and another one."""
    return InvalidWeights(
        f"'{path}' is not the file it should be.",
        why=f"Its SHA-256 begins with {found[:16]}, not with {expected[:16]}: it was changed, or is another file.",
        todo=f"Get it again: medai models remove {model_id}; medai models get {model_id}",
    )


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below a folder, or of a file."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(_size(path) for path in _files(folder))


def _files(folder: Path) -> list[Path]:
    """All files below a folder, but for those that another process is just moving in or away."""
    return sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
