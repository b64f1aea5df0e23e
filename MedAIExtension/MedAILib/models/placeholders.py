"""What often lies where weights should be: pointers, web pages, error messages, nothing at all.

Told from the first bytes, so that it also serves while a file is still arriving.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

HEAD_BYTES = 64 * 1024
_AGAIN = "Delete it and download it again."


@dataclass(frozen=True)
class Placeholder:
    """Something in place of a file.

    Attributes
    ----------
    what : str
        What it is, to follow "It is".
    todo : str
        What to do about it.
    """

    what: str
    todo: str


EMPTY = Placeholder("an empty file of 0 bytes; a transfer stopped before it began", _AGAIN)

_PAGES = (
    (
        (b"virus scan warning", b"scan this file for viruses"),
        Placeholder(
            "Google Drive's page that warns of a file too large for its virus scan, not the file behind it",
            "Download it with 'medai models get', which answers that page, or press 'Download anyway' in a browser.",
        ),
    ),
    (
        (b"quota exceeded", b"too many users have viewed or downloaded"),
        Placeholder(
            "Google Drive's page saying that too many people downloaded the file lately, not the file",
            "Try again after a day, or get the file from a colleague and use 'medai models import'.",
        ),
    ),
    (
        (b"accounts.google.com/", b"/servicelogin", b'action="/login"', b'type="password"'),
        Placeholder(
            "a page that asks to sign in, not the file behind it",
            "Sign in with a browser, download the file there, then use 'medai models import'.",
        ),
    ),
)
_HTML = Placeholder(
    "an HTML page, the answer of a web site or proxy instead of the file",
    "Open the address in a browser to see what the site wants, then download the file itself.",
)
_XML = Placeholder(
    "an XML error message of a file server", "Check the address and the permission, then download it again."
)
_LFS = Placeholder(
    "a Git LFS pointer, a note of about 130 bytes in place of the file",
    "Fetch the file itself: 'git lfs pull' in that repository, or 'medai models get'.",
)
_ERROR_WORDS = {"error", "errors", "message", "detail", "details", "status", "statuscode", "status_code", "code"}


def placeholder_in(head: bytes) -> Placeholder | None:
    """What stands in place of the file, told from its first `HEAD_BYTES` bytes; None where nothing is suspicious."""
    if not head:
        return EMPTY
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return _LFS
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        return Placeholder("a file of blanks and line ends only", _AGAIN)
    if not head.strip(b"\0"):
        return Placeholder("a file that begins with nothing but zero bytes; the disk was full or a copy failed", _AGAIN)
    if start[:1] == b"<":
        return _page(start)
    if start[:1] == b"{":
        return _json_error(start)
    return None


def _page(start: bytes) -> Placeholder | None:
    text = start.lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")) or b"<html" in text[:2000]:
        return next((page for signs, page in _PAGES if any(sign in text for sign in signs)), _HTML)
    if text.startswith((b"<?xml", b"<error")) and b"<error" in text[:2000]:
        return _XML
    return None


def _json_error(start: bytes) -> Placeholder | None:
    """An error answered as JSON: a small object whose names all speak of an error."""
    try:
        answer = json.loads(start)
    except ValueError:
        return None
    names = {str(name).lower() for name in answer}
    if not names & {"error", "errors", "message", "detail"} or not names <= _ERROR_WORDS:
        return None
    said = next((value for value in answer.values() if isinstance(value, str)), "")
    quoted = f', which says "{said[:160]}"' if said else ""
    return Placeholder(
        f"an error message of a server (JSON){quoted}",
        "Mend what it says (often: sign in, or accept a licence); then download it again.",
    )
