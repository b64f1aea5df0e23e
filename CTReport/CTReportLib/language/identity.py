"""Hashes that say which model it was: of one file, or of several together. Needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from MedAILib.models.store import hash_file


def sha256_of(files: Iterable[Path], check: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of weights, 64 hexadecimal digits.

    Of one file it is that file's; of several that of the lines ``<name> <sha256>``, by name. A file is read once for
    every size and time it has.

    Parameters
    ----------
    files : iterable of Path
    check : callable
        Called between files; what it raises ends the work.

    Raises
    ------
    FileMissing, UnreadableFile
    """
    found = []
    for path in sorted(files, key=lambda file: file.name):
        check()
        stat = path.stat()
        found.append((path.name, _sha256(path, stat.st_size, stat.st_mtime_ns)))
    if len(found) == 1:
        return found[0][1]
    lines = "".join(f"{name} {digest}\n" for name, digest in found)
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return hash_file(path)
