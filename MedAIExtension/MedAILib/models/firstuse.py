"""Hashes that nobody knew beforehand: written down when a file first comes, expected from then on.

Trust on first use: the first download cannot be checked against anything, and the user is told so; that a
later one brings the same bytes can be. What is written down outlives the removal of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedAILib.models.journal import change, now, read_object
from MedAILib.models.records import Problems, read_record, record_to_json


@dataclass(frozen=True)
class FirstUse:
    """What came when a file was first got.

    Attributes
    ----------
    sha256 : str
    size : int
    date : str
        UTC, ISO 8601.
    source : str
        For people.
    revision : str
        The hub commit it belonged to; later downloads ask for this one.
    """

    sha256: str
    size: int
    date: str
    source: str = ""
    revision: str = ""


class FirstUses:
    """The book of first uses of one store."""

    def __init__(self, home: Path) -> None:
        self.path = home / "first_use.json"

    def of(self, model_id: str) -> dict[str, FirstUse]:
        """What is known of a model's files, by path."""
        files = read_object(self.path).get(model_id, {})
        read = {path: read_record(FirstUse, data, Problems()) for path, data in files.items()}
        return {path: first for path, first in read.items() if first is not None}

    def add(self, model_id: str, path: str, sha256: str, size: int, source: str = "", revision: str = "") -> None:
        """Write a file down, unless it is known already. Raises `OutputError`."""

        def edit(content: dict[str, Any]) -> None:
            files = content.setdefault(model_id, {})
            files.setdefault(path, record_to_json(FirstUse(sha256, size, now(), source, revision)))

        change(self.path, edit)

    def forget(self, model_id: str) -> None:
        """Trust whatever comes next, once more. Raises `OutputError`."""
        if model_id in read_object(self.path):
            change(self.path, lambda content: content.pop(model_id, None))
