"""The part of a file that has arrived so far, and the note beside it that says what it is part of.

``<target>.part`` holds the bytes, ``<target>.part.json`` the note. The final name appears by one rename, after
everything was checked and is on the disk. Only the holder of the target's lock touches these files.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO

from MedAILib.atomic import output_error
from MedAILib.errors import OutputError

PART_SUFFIX = ".part"
RECORD_SUFFIX = ".part.json"
LOCK_SUFFIX = ".lock"
_BLOCK_BYTES = 1 << 20
_CHECKPOINT_S = 5.0
_NOTHING = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class PartRecord:
    """The note beside a part.

    Attributes
    ----------
    source : str
        `key` of the source the bytes came from.
    etag, last_modified : str
        What the server said about the version.
    size : int or None
        Of the whole file, where known.
    sha256 : str
        Of the whole file, where known.
    durable_bytes : int
        So many bytes at the start were on the disk when the note was written.
    durable_sha256 : str
        And this was their hash.
    """

    source: str = ""
    etag: str = ""
    last_modified: str = ""
    size: int | None = None
    sha256: str = ""
    durable_bytes: int = 0
    durable_sha256: str = _NOTHING

    @property
    def validator(self) -> str:
        """What ``If-Range`` may say; empty where the server gave nothing that proves a version.

        A weak ETag does not: RFC 9110, section 13.1.5.
        """
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def part_path(target: str | os.PathLike[str]) -> Path:
    return _beside(Path(target), PART_SUFFIX)


def record_path(target: str | os.PathLike[str]) -> Path:
    return _beside(Path(target), RECORD_SUFFIX)


def lock_path(target: str | os.PathLike[str]) -> Path:
    return _beside(Path(target), LOCK_SUFFIX)


def partial_bytes(target: str | os.PathLike[str]) -> int:
    """How many bytes of a file have arrived so far; 0 where no download of it was started."""
    try:
        return part_path(target).stat().st_size
    except OSError:
        return 0


def expected_bytes(target: str | os.PathLike[str]) -> int | None:
    """Size of the whole file that a part belongs to, where known."""
    return _read_record(record_path(target)).size


class PartFile:
    """The part of one target, open for appending, with its running hash.

    Attributes
    ----------
    record : PartRecord
    length : int
        Bytes so far.
    is_from_one_answer : bool
        Whether all bytes so far came in one answer of one server. Otherwise a wrong hash may mean that the
        pieces do not fit together, and not that the server has another file.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.record = _read_record(record_path(target))
        self.length = 0
        self.is_from_one_answer = True
        self._path = part_path(target)
        self._hash = hashlib.sha256()
        self._stream: IO[bytes] | None = None
        self._checkpoint_at = 0.0

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._hash.hexdigest()

    def open(self, source: str, sha256: str, size: int | None, check: Callable[[], None]) -> None:
        """Take up what an earlier run left, if it can be part of the file that is wanted now.

        With a known hash every left byte is kept, whichever source it came from, since the hash of the whole will
        tell. Without one, only bytes of the same source are kept that were safely on the disk and still have
        their hash: after a power failure the rest may be anything.

        Parameters
        ----------
        source : str
            `key` of the source that the missing bytes are to come from.
        sha256 : str
            Of the file that is wanted; empty where unknown.
        size : int, optional
        check : callable
            Called between blocks; raises to stop.

        Raises
        ------
        OutputError
        """
        try:
            self._stream = self._path.open("r+b" if self._path.exists() else "w+b")
            keep = self._usable_bytes(source, sha256, size)
            self._rehash(keep, check)
        except OSError as error:
            raise _write_error(self.target, error) from error
        if self.length != keep:  # it changed on the disk since it was noted
            self.start_over()
        self._checkpoint_at = time.monotonic()
        self.is_from_one_answer = self.length == 0

    def start_over(self, record: PartRecord | None = None) -> None:
        """Forget all bytes; the next ones come from the version that ``record`` names."""
        self._truncate(0)
        self._hash = hashlib.sha256()
        self.is_from_one_answer = True
        self.record = record or PartRecord()
        self._save()

    def continue_as(self, record: PartRecord) -> None:
        """More bytes are about to follow from this version."""
        if self.length:
            self.is_from_one_answer = False
        self.record = replace(
            record, durable_bytes=self.record.durable_bytes, durable_sha256=self.record.durable_sha256
        )
        self._save()

    def give_back_last_byte(self) -> None:
        """A part that is complete asks for its last byte again: so the server confirms that the file is the same."""
        assert self._stream is not None
        self._rehash(self.length - 1, lambda: None)

    def write(self, chunk: bytes) -> None:
        """Append; raises `OutputError` where the disk is full or refuses."""
        assert self._stream is not None
        try:
            self._stream.write(chunk)
        except OSError as error:
            raise _write_error(self.target, error) from error
        self._hash.update(chunk)
        self.length += len(chunk)
        if time.monotonic() - self._checkpoint_at > _CHECKPOINT_S:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Bring all bytes to the disk, then note how many there are and their hash."""
        assert self._stream is not None
        self._checkpoint_at = time.monotonic()
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise _write_error(self.target, error) from error
        self.record = replace(self.record, durable_bytes=self.length, durable_sha256=self.sha256)
        self._save()

    def finish(self) -> None:
        """Give the complete, checked file its final name, in one step that survives a power failure."""
        assert self._stream is not None
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._path.replace(self.target)
            _sync_folder(self.target.parent)
        except OSError as error:
            raise _write_error(self.target, error) from error
        record_path(self.target).unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the part for a later run, or nothing where nothing has arrived."""
        if self._stream is None or self._stream.closed:
            return
        with suppress(OutputError):
            if self.length:
                self.checkpoint()
        with suppress(OSError):
            self._stream.close()
        if not self.length:
            discard(self.target)

    def _usable_bytes(self, source: str, sha256: str, size: int | None) -> int:
        assert self._stream is not None
        there = self._stream.seek(0, os.SEEK_END)
        if sha256:
            usable = there if self.record.sha256 in ("", sha256) else 0
        else:
            usable = self.record.durable_bytes if self.record.source == source else 0
        return 0 if usable > there or (size is not None and usable > size) else usable

    def _rehash(self, keep: int, check: Callable[[], None]) -> None:
        """Hash the first bytes again, cut off the others; cut off all where they changed since they were noted."""
        assert self._stream is not None
        self._hash = hashlib.sha256()
        self._stream.seek(0)
        done = 0
        while done < keep:
            check()
            until = self.record.durable_bytes if done < self.record.durable_bytes <= keep else keep
            block = self._stream.read(min(_BLOCK_BYTES, until - done))
            if not block:
                break
            self._hash.update(block)
            done += len(block)
            if done == self.record.durable_bytes and self.sha256 != self.record.durable_sha256:
                done = 0
                self._hash = hashlib.sha256()
                break
        self._truncate(done)

    def _truncate(self, length: int) -> None:
        assert self._stream is not None
        try:
            self._stream.seek(length)
            self._stream.truncate()
        except OSError as error:
            raise _write_error(self.target, error) from error
        self.length = length
        if self.record.durable_bytes > length:
            self.record = replace(self.record, durable_bytes=length, durable_sha256=self.sha256)

    def _save(self) -> None:
        path = record_path(self.target)
        beside = _beside(path, ".new")
        try:
            with beside.open("w", encoding="utf-8") as stream:
                json.dump(asdict(self.record), stream)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(path)
        except OSError as error:
            raise _write_error(self.target, error) from error


def discard(target: str | os.PathLike[str]) -> None:
    """Remove what an unfinished download left beside its target."""
    for path in (part_path(target), record_path(target), _beside(record_path(target), ".new")):
        path.unlink(missing_ok=True)


def _read_record(path: Path) -> PartRecord:
    """The note beside a part; an empty one where it is missing or damaged, which vouches for nothing."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        record = PartRecord(**{field.name: values[field.name] for field in fields(PartRecord)})
    except (OSError, ValueError, TypeError, KeyError):
        return PartRecord()
    texts = (record.source, record.etag, record.last_modified, record.sha256, record.durable_sha256)
    numbers = (record.size or 0, record.durable_bytes)
    is_sound = all(isinstance(text, str) for text in texts) and all(type(number) is int for number in numbers)
    return record if is_sound else PartRecord()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":  # folders cannot be flushed there; the rename itself is durable enough
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_error(path: Path, error: OSError) -> OutputError:
    known = output_error(path, error)
    is_full = "disk is full" in known.why
    return OutputError(
        known.what,
        why=known.why,
        todo="Free some space and start it again: it goes on where it stopped." if is_full else known.todo,
    )
