"""Where a file can be had: an https address, a file of a model hub, a file on Google Drive. Values only."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from MedAILib.errors import InputError

_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")
_REVISION = re.compile(r"[\w.][\w./+-]*")
_DRIVE_ID = re.compile(r"[\w-]{8,}")


@dataclass(frozen=True)
class HttpsSource:
    """A file at an address.

    Attributes
    ----------
    url : str
        ``https://...``; letters outside ASCII and spaces are fine. No name and password in it.
    with_token : bool
        Whether the token given to the download is meant for this very host. Other hosts never get it.
    """

    url: str
    with_token: bool = False

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            complete = parts.scheme in ("https", "http") and bool(parts.hostname)
            secret = "@" in parts.netloc
        except ValueError:
            complete = secret = False
        if not complete or any(letter < " " for letter in self.url):
            raise _unusable(f"'{self.url}'", "An address starts with 'https://' and the name of a host.")
        if secret:
            raise _unusable(
                f"The address at {parts.hostname}", "It has a name or password in it, which would end up in log files."
            )

    @property
    def key(self) -> str:
        """The same text for the same file, today and next week; a signature in the query is not readable in it."""
        parts = urlsplit(self.url)
        signature = f"?{hashlib.sha256(parts.query.encode()).hexdigest()[:16]}" if parts.query else ""
        return public_url(self.url) + signature

    def __str__(self) -> str:
        return public_url(self.url)


@dataclass(frozen=True)
class HubSource:
    """A file of a repository on a model hub that speaks Hugging Face's ``resolve`` protocol.

    Attributes
    ----------
    repo : str
        ``owner/name``.
    path : str
        Within the repository, with ``/``.
    revision : str
        Commit (40 hexadecimal digits, the only kind that cannot change), tag or branch.
    """

    repo: str
    path: str
    revision: str = "main"

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo) or ".." in self.repo:
            raise _unusable(f"The hub repository '{self.repo}'", "It is written 'owner/name'.")
        if not _REVISION.fullmatch(self.revision) or ".." in self.revision:
            raise _unusable(f"The hub revision '{self.revision}'", "It is a commit, a tag or a branch.")
        parts = self.path.split("/")
        if any(part in ("", ".", "..") for part in parts) or any(letter < " " for letter in self.path):
            raise _unusable(f"The hub path '{self.path}'", "It is relative to the repository, written with '/'.")

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which can never mean another file."""
        return re.fullmatch("[0-9a-f]{40}", self.revision) is not None

    @property
    def key(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"hub:{self.repo}@{self.revision}/{self.path}"


@dataclass(frozen=True)
class DriveSource:
    """A file on Google Drive that is shared with anyone who has the link.

    Attributes
    ----------
    file_id : str
        The long word in ``https://drive.google.com/file/d/<file_id>/view``.
    """

    file_id: str

    def __post_init__(self) -> None:
        if not _DRIVE_ID.fullmatch(self.file_id):
            raise _unusable(f"The Google Drive id '{self.file_id}'", "It is one word of letters, digits, '-' and '_'.")

    @property
    def key(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"drive:{self.file_id}"


Source = HttpsSource | HubSource | DriveSource


def public_url(url: str) -> str:
    """An address without its query and name: what may be shown, logged and stored. Queries carry signatures."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))


def _unusable(what: str, why: str) -> InputError:
    return InputError(f"{what} cannot be used as a source.", why=why, todo="Correct the catalogue entry.")
