"""Small JSON files that several processes change: read whole, changed under a lock, replaced at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from MedAILib.atomic import output_error, write_text
from MedAILib.models.locks import locked

logger = logging.getLogger(__name__)


def read_json(path: Path) -> Any:
    """What a file holds; None where there is none or it cannot be read (which is logged)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("'%s' cannot be read and counts as empty: %s", path, error)
        return None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is none."""
    found = read_json(path)
    return found if isinstance(found, dict) else {}


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all; its folder is made. Raises `OutputError`."""
    make_folder(path.parent)
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the object in a file while no other process does. Raises `OutputError`."""
    make_folder(path.parent)
    with locked(path.with_name(f".{path.name}.lock"), timeout_s=30.0):
        content = read_object(path)
        edit(content)
        write_json(path, content)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; raises `OutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
