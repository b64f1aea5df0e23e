"""The catalogue: which models there are, where their files can be had, and how to know the right ones.

Every feature ships a catalogue (`Feature.models`), this library has one for models of features to come,
and users add their own to the folder ``catalogues`` of a store. Nothing here looks at the disk beyond
reading these files. The format is described in ``catalogue.schema.json``, beside this file.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from MedAILib.errors import InputError, MedAIError
from MedAILib.features import discover_features
from MedAILib.filekind import open_error
from MedAILib.models.entries import ModelEntry, ModelFile
from MedAILib.models.records import Problems, read_record

logger = logging.getLogger(__name__)

SCHEMA = 1
OWN_CATALOGUE = Path(__file__).with_name("catalogue.json")
USER_FOLDER = "catalogues"


@dataclass(frozen=True)
class _Document:
    """A catalogue file."""

    schema: int
    models: tuple[ModelEntry, ...]

    def check(self, path: str, problems: Problems) -> None:
        if self.schema != SCHEMA:
            problems.add(f"{path}.schema", f"must be {SCHEMA}; a newer catalogue needs a newer version of MedAI.")


class Catalogue:
    """All models of this machine's catalogues.

    Parameters
    ----------
    paths : iterable of path
        Catalogue files; of two models with the same id, the one in the earlier file counts.

    Attributes
    ----------
    problems : tuple of MedAIError
        Files that could not be read, and models that were left out; the rest works.
    """

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._entries: dict[str, ModelEntry] = {}
        self._homes: dict[str, Path] = {}
        problems: list[MedAIError] = []
        for path in paths:
            try:
                entries = read_catalogue(path)
            except MedAIError as error:
                problems.append(error)
                continue
            for entry in entries:
                problems += self._add(entry, path)
        self.problems = tuple(problems)

    def _add(self, entry: ModelEntry, path: Path) -> list[MedAIError]:
        if entry.id in self._entries:
            if entry == self._entries[entry.id]:
                return []
            return [
                InputError(
                    f"The model '{entry.id}' in '{path}' is left out.",
                    why=f"'{self._homes[entry.id]}' has another one of that id.",
                    todo="Give it another id.",
                )
            ]
        self._entries[entry.id] = entry
        self._homes[entry.id] = path
        return []

    def __iter__(self) -> Iterator[ModelEntry]:
        return iter(sorted(self._entries.values(), key=lambda entry: (entry.feature, entry.id)))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._entries

    def entry(self, model_id: str) -> ModelEntry:
        """A model by its id; `InputError` with similar ids where there is none."""
        found = self._entries.get(model_id)
        if found is not None:
            return found
        near = difflib.get_close_matches(model_id, self._entries, n=3, cutoff=0.4)
        near += [known for known in self._entries if model_id and model_id in known and known not in near][:3]
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"No model is called '{model_id}'.", todo=f"{hint}All models: medai models list")

    def search(self, text: str = "", *, feature: str = "") -> tuple[ModelEntry, ...]:
        """Models whose texts hold every word, of a feature where one is given."""
        words = text.casefold().split()
        return tuple(
            entry
            for entry in self
            if (not feature or entry.feature == feature) and all(word in _texts(entry) for word in words)
        )

    def with_hash(self, sha256: str) -> tuple[tuple[ModelEntry, ModelFile], ...]:
        """The files that a hash identifies; one file may belong to several models."""
        return tuple((entry, file) for entry in self for file in entry.files if file.is_identified_by(sha256))

    def embedded_path(self, entry: ModelEntry, file: ModelFile) -> Path:
        """Where a file that comes with the extension lies."""
        return self._homes[entry.id].parent.joinpath(*PurePosixPath(file.embedded).parts)


def read_catalogue(path: Path) -> tuple[ModelEntry, ...]:
    """The models of a catalogue file.

    Raises
    ------
    InputError
        With every problem and its place, ``$.models[3].licence``.
    FileMissing, UnreadableFile
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise open_error(path, error) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"The catalogue '{path}' is not JSON.", why=f"{error}.", todo="Mend or remove it.") from error
    return parse_catalogue(data, f"The catalogue '{path}'")


def parse_catalogue(data: Any, where: str) -> tuple[ModelEntry, ...]:
    """The models of a parsed catalogue; errors as in `read_catalogue`."""
    problems = Problems()
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key != "$schema"}
    document = read_record(_Document, data, problems)
    if document is None or problems:
        raise InputError(f"{where} is not valid: {' '.join(problems)}", todo="Mend or remove it; the others are used.")
    return document.models


def shipped_catalogues() -> list[Path]:
    """The catalogues that come with the features of this machine, and this library's own."""
    paths = [feature.models_path() for feature in discover_features().features]
    return [*(path for path in paths if path is not None), OWN_CATALOGUE]


def user_catalogues(home: Path) -> list[Path]:
    """The catalogues that users of a store added to it."""
    return sorted((home / USER_FOLDER).glob("*.json"))


def _texts(entry: ModelEntry) -> str:
    parts = (entry.id, entry.title, entry.summary, entry.task, entry.feature, entry.family, entry.licence.name)
    modalities = (item.modality for item in entry.inputs)
    return " ".join((*parts, *modalities, *(name for head in entry.heads for name in head.class_names))).casefold()
