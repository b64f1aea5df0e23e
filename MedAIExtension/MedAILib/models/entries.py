"""A model as a catalogue tells of it: where its files can be had, and how to know the right ones. Values only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath

from MedAILib.errors import InputError
from MedAILib.models.config import Architecture, FileRole, Licence, Provenance, Resources
from MedAILib.models.heads import Head, Input
from MedAILib.models.records import Problems
from MedAILib.models.sources import DriveSource, HttpsSource, HubSource, Source

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_HEX = re.compile(r"[0-9a-f]*")
_ENOUGH_DIGITS = 8


class HashKnowledge(Enum):
    """What is known beforehand about a file's SHA-256."""

    FULL = "known"
    PART = "known in part"
    NONE = "not known"


@dataclass(frozen=True)
class Place:
    """One place where a file can be had; exactly one of ``hub``, ``drive``, ``url`` and ``embedded`` is given.

    Attributes
    ----------
    hub : str
        Repository ``owner/name`` on a model hub, with ``path`` and ``revision`` within it.
    path, revision : str
        Default path: the file's own; default revision: ``main``, which can change.
    drive : str
        Google Drive's id of a shared file.
    url : str
        An https address.
    embedded : str
        A file shipped beside the catalogue, relative to it.
    """

    hub: str = ""
    path: str = ""
    revision: str = ""
    drive: str = ""
    url: str = ""
    embedded: str = ""

    def check(self, path: str, problems: Problems) -> None:
        if sum(map(bool, (self.hub, self.drive, self.url, self.embedded))) != 1:
            problems.add(path, "must have exactly one of hub, drive, url and embedded.")
        elif not self.hub and (self.path or self.revision):
            problems.add(path, "may have a path and a revision only together with hub.")
        elif not self.embedded:
            try:
                self.source(self.path or "file")
            except InputError as error:
                problems.add(path, f"cannot be used: {error.what} {error.why}")
        elif not _is_inside(self.embedded):
            problems.add(f"{path}.embedded", f"must be a relative path below the catalogue, not '{self.embedded}'.")

    def source(self, file_path: str) -> Source:
        """For the download of a file of that path; an embedded file has none."""
        if self.hub:
            return HubSource(self.hub, self.path or file_path, self.revision or "main")
        return DriveSource(self.drive) if self.drive else HttpsSource(self.url)


@dataclass(frozen=True)
class ModelFile:
    """A file of a model, as far as it is known before it is here.

    Attributes
    ----------
    path : str
        Below the model's folder, with ``/``.
    sources : tuple of Place
        In the order in which they are tried; empty: only by import.
    role : FileRole
    size : int, optional
        Bytes, exactly; None where not known.
    about_bytes : int, optional
        Roughly, for showing and for checking the free space.
    sha256 : str
        64 hexadecimal digits; empty where not known.
    sha256_starts, sha256_ends : str
        The digits that are known where not all are.
    """

    path: str
    sources: tuple[Place, ...] = ()
    role: FileRole = FileRole.WEIGHTS
    size: int | None = None
    about_bytes: int | None = None
    sha256: str = ""
    sha256_starts: str = ""
    sha256_ends: str = ""

    def check(self, path: str, problems: Problems) -> None:
        if not _is_inside(self.path):
            problems.add(f"{path}.path", f"must be a relative path inside the model's folder, not '{self.path}'.")
        for name, value, longest in (
            ("sha256", self.sha256, 64),
            ("sha256_starts", self.sha256_starts, 63),
            ("sha256_ends", self.sha256_ends, 63),
        ):
            wrong_length = len(value) not in (0, 64) if name == "sha256" else len(value) > longest
            if wrong_length or not _HEX.fullmatch(value):
                problems.add(
                    f"{path}.{name}", "must be hexadecimal digits in lower case (64 of them, or the known part)."
                )
        for name in ("size", "about_bytes"):
            if (getattr(self, name) or 0) < 0:
                problems.add(f"{path}.{name}", "must not be below 0.")

    @property
    def knowledge(self) -> HashKnowledge:
        if self.sha256:
            return HashKnowledge.FULL
        return HashKnowledge.PART if self.sha256_starts or self.sha256_ends else HashKnowledge.NONE

    @property
    def expected_bytes(self) -> int | None:
        """Exact size, else the rough one, else None."""
        return self.about_bytes if self.size is None else self.size

    def agrees_with(self, sha256: str) -> bool:
        """Whether a hash contradicts nothing that is known."""
        if self.sha256:
            return sha256 == self.sha256
        return sha256.startswith(self.sha256_starts) and sha256.endswith(self.sha256_ends)

    def is_identified_by(self, sha256: str) -> bool:
        """Whether a hash is enough to say that a file is this one, whatever its name."""
        known = len(self.sha256) or len(self.sha256_starts) + len(self.sha256_ends)
        return known >= _ENOUGH_DIGITS and self.agrees_with(sha256)

    @property
    def embedded(self) -> str:
        """Where it is shipped, relative to the catalogue; empty where it is not."""
        return next((place.embedded for place in self.sources if place.embedded), "")


@dataclass(frozen=True)
class Repository:
    """A whole hub repository whose list of files is not in the catalogue: the hub is asked for it.

    Attributes
    ----------
    hub : str
        ``owner/name``.
    revision : str
        Default: ``main``; the first download records the commit.
    include : tuple of str
        Patterns such as ``*.safetensors``; empty: every file.
    about_bytes : int, optional
    """

    hub: str
    revision: str = ""
    include: tuple[str, ...] = ()
    about_bytes: int | None = None

    def check(self, path: str, problems: Problems) -> None:
        try:
            HubSource(self.hub, "file", self.revision or "main")
        except InputError as error:
            problems.add(path, f"cannot be used: {error.what} {error.why}")


@dataclass(frozen=True)
class ModelEntry:
    """What is known about a model without having it.

    Attributes
    ----------
    id : str
        What commands call it: lower case letters, digits, ``.``, ``_``, ``-``.
    title, summary : str
        For people.
    feature : str
        Name of the feature that uses it, see `Feature.name`.
    task : str
        What it does, in a few words: segmentation, shape model, report.
    licence : Licence
    terms : str
        What whoever accepts the licence agrees to, in our words; the licence's own text counts.
    architecture : Architecture
    family : str
        Models of one family take and answer the same.
    files : tuple of ModelFile
    repository : Repository, optional
        Instead of ``files``.
    gated : bool
        Whether the hub wants a signed-in user who asked its publisher for access.
    inputs, heads : tuple
        What goes in and comes out, as in `ModelConfig`.
    provenance, resources : Provenance, Resources
        How it came to be; what running it took where that was measured.
    requirements : mapping of str to str
        Python package to version specifier.
    intended_use, homepage, citation, version : str
    notes : tuple of str
        What a user should know before getting it.
    """

    id: str
    title: str
    feature: str
    task: str
    summary: str
    licence: Licence
    architecture: Architecture
    terms: str = ""
    family: str = ""
    files: tuple[ModelFile, ...] = ()
    repository: Repository | None = None
    gated: bool = False
    inputs: tuple[Input, ...] = ()
    heads: tuple[Head, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    resources: Resources = field(default_factory=Resources)
    requirements: Mapping[str, str] = field(default_factory=dict)
    intended_use: str = ""
    homepage: str = ""
    citation: str = ""
    version: str = ""
    notes: tuple[str, ...] = ()

    def check(self, path: str, problems: Problems) -> None:
        if not _ID.fullmatch(self.id):
            problems.add(f"{path}.id", f"must be of lower case letters, digits and . _ -, not '{self.id}'.")
        if bool(self.files) == (self.repository is not None):
            problems.add(path, "must have either files or a repository.")
        names = [file.path.casefold() for file in self.files]
        for twice in sorted({name for name in names if names.count(name) > 1}):
            problems.add(f"{path}.files", f"has the path '{twice}' more than once.")
        embedded = [bool(file.embedded) for file in self.files]
        if any(embedded) and not all(embedded):
            problems.add(f"{path}.files", "must be embedded all or none.")

    @property
    def is_embedded(self) -> bool:
        """Whether it comes with the extension."""
        return any(file.embedded for file in self.files)

    @property
    def expected_bytes(self) -> int | None:
        """Size of all files, roughly; None where one is not known."""
        if self.repository is not None:
            return self.repository.about_bytes
        sizes = [file.expected_bytes for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def knowledge(self) -> HashKnowledge:
        """The least that is known of any of its files."""
        known = {file.knowledge for file in self.files} or {HashKnowledge.NONE}
        return next(level for level in (HashKnowledge.NONE, HashKnowledge.PART, HashKnowledge.FULL) if level in known)


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and "\\" not in path and ":" not in path
