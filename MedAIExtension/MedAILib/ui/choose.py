"""Windows that ask for files or a folder; empty where the user thought better of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt


def file_to_open(parent: Any, title: str, start: Path | None, kinds: str) -> Path | None:
    """A file that exists; ``kinds`` in Qt's spelling, ``Weights (*.pth);;All files (*)``."""
    return _path(qt.QFileDialog.getOpenFileName(parent, title, _text(start), kinds))


def files_to_open(parent: Any, title: str, start: Path | None, kinds: str) -> tuple[Path, ...]:
    """Files that exist, in the order of the window; none where the user thought better of it."""
    answer = qt.QFileDialog.getOpenFileNames(parent, title, _text(start), kinds)
    several = answer[0] if isinstance(answer, tuple) and answer and not isinstance(answer[0], str) else answer
    return tuple(Path(text) for text in several)


def file_to_save(parent: Any, title: str, start: Path | None, kinds: str) -> Path | None:
    """A file to write; the window itself asks before one is replaced."""
    return _path(qt.QFileDialog.getSaveFileName(parent, title, _text(start), kinds))


def folder(parent: Any, title: str, start: Path | None) -> Path | None:
    return _path(qt.QFileDialog.getExistingDirectory(parent, title, _text(start)))


def _text(start: Path | None) -> str:
    return str(start) if start is not None else ""


def _path(answer: Any) -> Path | None:
    """The path of an answer: a text, or where the binding says so a text and the kind that was chosen."""
    text = answer[0] if isinstance(answer, tuple) else answer
    return Path(text) if text else None
