"""Licences that must be accepted: shown, accepted by a person, written down with the text that was shown."""

from __future__ import annotations

import getpass
import hashlib
from dataclasses import dataclass
from pathlib import Path

from MedAILib.errors import LicenceNotAccepted
from MedAILib.models.entries import ModelEntry
from MedAILib.models.journal import change, now, read_object
from MedAILib.models.records import Problems, read_record, record_to_json


@dataclass(frozen=True)
class Acceptance:
    """Who accepted what, and when.

    Attributes
    ----------
    licence, url : str
    text_sha256 : str
        Of `licence_text`, as it was shown; another text must be accepted anew.
    user : str
        Name of the account.
    date : str
        UTC, ISO 8601.
    """

    licence: str
    url: str
    text_sha256: str
    user: str
    date: str


def licence_text(entry: ModelEntry) -> str:
    """What is shown before a licence is accepted."""
    licence = entry.licence
    lines = [f"Licence of '{entry.title}': {licence.name or licence.spdx}", licence.url, entry.terms]
    if licence.non_commercial:
        lines.append("Not for commercial use.")
    if entry.gated:
        lines.append(f"Its publisher must also grant you access: sign in and ask at {entry.homepage}")
    lines.append(entry.intended_use)
    return "\n".join(filter(None, lines))


class Licences:
    """The book of acceptances of one store."""

    def __init__(self, home: Path) -> None:
        self.path = home / "licences.json"

    def accepted(self, entry: ModelEntry) -> Acceptance | None:
        """The acceptance of the licence as it is shown today; None where there is none."""
        found = read_record(Acceptance, read_object(self.path).get(entry.id), Problems())
        return found if found is not None and found.text_sha256 == _hash(entry) else None

    def accept(self, entry: ModelEntry) -> Acceptance:
        """Write down that the user of this account accepts. Raises `OutputError`."""
        name = entry.licence.name or entry.licence.spdx
        acceptance = Acceptance(name, entry.licence.url, _hash(entry), _user(), now())
        change(self.path, lambda content: content.update({entry.id: record_to_json(acceptance)}))
        return acceptance

    def require(self, entry: ModelEntry) -> None:
        """Raises `LicenceNotAccepted` where acceptance is needed and missing."""
        if not entry.licence.must_be_accepted or self.accepted(entry) is not None:
            return
        name = " ".join(filter(None, (entry.licence.name or entry.licence.spdx, entry.licence.url)))
        error = LicenceNotAccepted(
            f"The licence of '{entry.id}' has not been accepted on this machine.",
            why=f"It is: {name}. {entry.terms}".rstrip(),
            todo=f"Read it; if you accept: medai models get {entry.id} --accept-licence {entry.id}",
        )
        error.model_id, error.licence_text = entry.id, licence_text(entry)
        raise error


def _hash(entry: ModelEntry) -> str:
    return hashlib.sha256(licence_text(entry).encode()).hexdigest()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
