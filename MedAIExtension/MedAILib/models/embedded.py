"""Models that come with the extension: small, checked against the catalogue's hash, never downloaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from MedAILib.errors import MedAIError
from MedAILib.models.catalogue import Catalogue
from MedAILib.models.entries import ModelEntry
from MedAILib.models.states import State, Status
from MedAILib.models.store import InstalledFile, InstallRecord, hash_file


def embedded_status(entry: ModelEntry, catalogue: Catalogue) -> Status:
    """Whether its files are there and right; a file is hashed once for every size and time it has."""
    paths = [(file, catalogue.embedded_path(entry, file)) for file in entry.files]
    folder = paths[0][1].parent
    size = 0
    for file, path in paths:
        try:
            found, stat_size = _hash(path)
        except (OSError, MedAIError):
            return _invalid(entry, folder, f"'{path}' is missing; install MedAI again.")
        if not file.sha256 or found != file.sha256:
            return _invalid(entry, folder, f"'{path}' is not the file that belongs there; install MedAI again.")
        size += stat_size
    return Status(entry.id, State.EMBEDDED, "It comes with the extension.", folder, size)


def embedded_record(entry: ModelEntry, catalogue: Catalogue) -> InstallRecord:
    """A record as of an installed model; the files are those of `embedded_status`."""
    files = [(file, *_hash(catalogue.embedded_path(entry, file))) for file in entry.files]
    installed = tuple(InstalledFile(file.path, size, sha256, 0, "embedded") for file, sha256, size in files)
    return InstallRecord(entry.id, "", installed)


def _invalid(entry: ModelEntry, folder: Path, why: str) -> Status:
    return Status(entry.id, State.INVALID, why, folder)


def _hash(path: Path) -> tuple[str, int]:
    stat = path.stat()
    return _hash_of(path, stat.st_size, stat.st_mtime_ns), stat.st_size


@lru_cache(maxsize=64)
def _hash_of(path: Path, size: int, mtime_ns: int) -> str:
    return hash_file(path)
