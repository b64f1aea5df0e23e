"""How the command line speaks: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from MedAILib.errors import MedAIError
    from MedAILib.jobs.task import Progress

_REDRAW_S = 0.1


class Console:
    """What a command says, and how.

    Parameters
    ----------
    json_output : bool
        Standard output carries exactly one JSON document and nothing else.
    quiet : bool
        No progress, no remarks; results, warnings and errors remain.
    debug : bool
        Errors are followed by their details.
    out, err : text streams
        Default: standard output and standard error.
    """

    def __init__(
        self,
        *,
        json_output: bool = False,
        quiet: bool = False,
        debug: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self.json_output = json_output
        self.quiet = quiet
        self.debug = debug
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._line_length = 0
        self._next_draw = 0.0
        self._stage = ""

    def print(self, text: str = "") -> None:
        """A result for people, to standard output; nothing in JSON mode."""
        if not self.json_output:
            self._clear_line()
            self._write(self._out, text + "\n")

    def result(self, value: Any) -> None:
        """The result for programs, to standard output, in JSON mode only."""
        if self.json_output:
            self._clear_line()
            self._write(self._out, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def remark(self, text: str) -> None:
        """Something by the way, to standard error; nothing when quiet."""
        if not self.quiet:
            self._say(text)

    def warn(self, text: str) -> None:
        """Something the user should know, to standard error."""
        self._say(f"medai: warning: {text}")

    def error(self, error: MedAIError) -> None:
        """An error as one paragraph to standard error, and in JSON mode as JSON to standard output too."""
        self._say(f"medai: {' '.join(error.text.split())} [{error.code}]")
        if self.debug and error.details:
            self._say(error.details)
        self.result({"error": {"code": error.code, "what": error.what, "why": error.why, "todo": error.todo}})

    def progress(self, progress: Progress) -> None:
        """Progress as a line that is redrawn on a terminal; elsewhere nothing. A runner's progress listener."""
        if self.quiet or not self._err.isatty():
            return
        now = time.monotonic()
        if now < self._next_draw and progress.stage == self._stage and progress.fraction < 1:
            return
        self._next_draw, self._stage = now + _REDRAW_S, progress.stage
        width = max(shutil.get_terminal_size().columns - 1, 20)
        line = progress_line(progress)[:width]
        self._write(self._err, "\r" + line.ljust(self._line_length))
        self._line_length = len(line)

    def finish(self) -> None:
        """Take the progress line away and flush both streams."""
        self._clear_line()
        self._out.flush()

    def _say(self, text: str) -> None:
        self._clear_line()
        self._write(self._err, text + "\n")

    def _clear_line(self) -> None:
        if self._line_length:
            self._write(self._err, "\r" + " " * self._line_length + "\r")
            self._line_length = 0

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        """Write at once; what the stream's encoding lacks is escaped rather than raised."""
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()


def progress_line(progress: Progress) -> str:
    """Stage, percent and time left in one line."""
    left = "" if progress.eta_s is None else f", {_duration(progress.eta_s)} left"
    return f"{progress.stage}: {100 * progress.fraction:.0f} %{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
