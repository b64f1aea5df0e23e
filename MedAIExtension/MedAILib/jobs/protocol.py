"""The lines that pass between a runner and its worker: one JSON object each, in ASCII.

Values and arrays never pass here but in the job's folder, see `MedAILib.jobs.codec`.

To the worker::

    {"do": "run", "id", "task", "folder", "device", "threads", "paths"}
    {"do": "cancel", "id"}

From the worker::

    {"event": "progress", "id", "stage", "fraction", "eta_s", "detail"}
    {"event": "warning", "id", "text"}
    {"event": "done", "id", "alone"}
    {"event": "error", "id", "error": {"code", "what", "why", "todo", "details"}, "alone"}

``alone`` is true where the run left no child process behind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def to_line(message: dict[str, Any]) -> bytes:
    """A message as one line; non-ASCII text is escaped, so that no encoding can spoil it."""
    return json.dumps(message, ensure_ascii=True).encode("ascii") + b"\n"


def from_line(line: bytes) -> dict[str, Any] | None:
    """The message of a line; None where the line is something else."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def request_folder(job_folder: Path) -> Path:
    return job_folder / "request"


def result_folder(job_folder: Path) -> Path:
    return job_folder / "result"


def scratch_folder(job_folder: Path) -> Path:
    return job_folder / "scratch"
