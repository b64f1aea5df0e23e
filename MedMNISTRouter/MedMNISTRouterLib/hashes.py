"""Hashes of large files, remembered from start to start: a file of the same size and time is not read again."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from MedAILib.atomic import write_text
from MedAILib.errors import OutputError
from MedAILib.filekind import open_error
from MedAILib.models.store import hash_file

logger = logging.getLogger(__name__)


class FileHashes:
    """SHA-256 by file, kept in a JSON file.

    Parameters
    ----------
    path : Path
        Made with the first hash; where it cannot be written, hashes are computed anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._read()

    def of(self, file: Path) -> str:
        """The file's SHA-256; raises `FileMissing`, `UnreadableFile`."""
        try:
            stat = file.stat()
        except OSError as error:
            raise open_error(file, error) from error
        key, mark = str(file.absolute()), [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(key)
        if known is not None and known[:2] == mark:
            return str(known[2])
        sha256 = hash_file(file)
        self._known = {**self._read(), key: [*mark, sha256]}
        self._write()
        return sha256

    def _read(self) -> dict[str, list[object]]:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(data, dict):
            return {}
        return {key: value for key, value in data.items() if isinstance(value, list) and len(value) == 3}

    def _write(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(self._known, indent=1, ensure_ascii=False) + "\n")
        except (OSError, OutputError) as error:
            logger.info("hashes are not remembered: %s", error)
