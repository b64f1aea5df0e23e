"""A worker as an operating-system process: started with the right Python, read by threads, killed whole."""

from __future__ import annotations

import codecs
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from MedAILib.errors import WorkerDied
from MedAILib.jobs.protocol import from_line, to_line

logger = logging.getLogger(__name__)

WORKER_COMMAND = ("-P", "-u", "-m", "MedAILib.jobs.worker")
"""``-P``: modules are not looked for in the current folder, which may be anything."""
KEPT_STDERR_LINES = 40
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait sleep instead of spinning: where other programs use the cores too, spinning costs several times."""
_LAST_WORDS_S = 0.5
"""How long the reading threads may take to catch up with a process that has ended."""
_TASKKILL_TIMEOUT_S = 0.5


def python_executable(inside_slicer: bool | None = None) -> Path:
    """The Python that a worker runs on: ``PythonSlicer`` inside Slicer, else this very Python.

    Slicer's own ``sys.executable`` may be the application, which would open a second Slicer.

    Parameters
    ----------
    inside_slicer : bool, optional
        Default: whether the ``slicer`` package with a running application is loaded here.
    """
    if inside_slicer is None:
        inside_slicer = getattr(sys.modules.get("slicer"), "app", None) is not None
    found = shutil.which("PythonSlicer") if inside_slicer else None
    return Path(found or sys.executable)


def worker_environment(base: Mapping[str, str], threads: int) -> dict[str, str]:
    """A worker's environment: that of this process, our library's folder, UTF-8, and the number of threads."""
    library = str(Path(__file__).parents[2])
    path = [library, *(entry for entry in base.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != library)]
    return {
        **PATIENT_THREADS,
        **base,
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
    }


class WorkerProcess:
    """A running worker. `messages` fills up by itself; None in it says that nothing more will come.

    Attributes
    ----------
    messages : queue of dict or None
    """

    def __init__(self, executable: Path, environment: Mapping[str, str]) -> None:
        self.messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stderr_lines: deque[str] = deque(maxlen=KEPT_STDERR_LINES)
        self._process = _start([str(executable), *WORKER_COMMAND], environment)
        self._ended_at: float | None = None
        streams = ((_read_messages, self._process.stdout, self.messages), (_read_text, self._process.stderr, None))
        self._threads = [
            threading.Thread(target=read, args=(stream, self._stderr_lines, sink), name="medai-worker", daemon=True)
            for read, stream, sink in streams
        ]
        for thread in self._threads:
            thread.start()

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of a worker that has ended or is just ending; None where it is still there."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_S)
        return self._process.returncode

    def has_fallen_silent(self) -> bool:
        """True some time after its end, even where a child of it still holds the connection open."""
        if self.is_alive:
            return False
        self._ended_at = self._ended_at or time.monotonic()
        return time.monotonic() - self._ended_at > _LAST_WORDS_S

    def last_stderr_lines(self) -> tuple[str, ...]:
        """What it wrote last to standard error (and to standard output, which leads there)."""
        if not self.is_alive:
            self._threads[1].join(_LAST_WORDS_S)
        return tuple(self._stderr_lines)

    def send(self, message: dict[str, Any]) -> None:
        """Send an order; raises ``OSError`` where the worker no longer listens."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(to_line(message))
        stdin.flush()

    def kill(self) -> None:
        """End the worker and every process it started, now."""
        kill_process_tree(self._process.pid)
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_WORDS_S)
        self._close_stdin()

    def close(self, timeout_s: float = 1.0) -> None:
        """Ask the worker to end by closing its input, and kill it where it does not within the time."""
        self._close_stdin()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()
        for thread in self._threads:
            thread.join(_LAST_WORDS_S)

    def _close_stdin(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(OSError):
            stdin.close()


def kill_process_tree(process_id: int) -> None:
    """Kill a process that leads its own process group, and all in that group; Windows: and all descendants.

    The group of a process that has ended is still killed: its children may be there.
    """
    if sys.platform == "win32":
        command = ["taskkill", "/F", "/T", "/PID", str(process_id)]
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                command,
                capture_output=True,
                timeout=_TASKKILL_TIMEOUT_S,
                check=False,
                creationflags=subprocess.CREATE_NO_WINDOW,
            )
        return
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses a group of zombies
        os.killpg(process_id, signal.SIGKILL)


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            **options,
        )
    except OSError as error:
        raise WorkerDied(
            f"The worker could not be started with '{command[0]}'.",
            why=f"{error.strerror or error}.",
            todo="Check that this program exists and may be run.",
        ) from error


def _read_messages(stream: IO[bytes], lines: deque[str], messages: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Read messages; any other line (a start-up script may print) is kept with the error output."""
    with stream:
        for line in stream:
            message = from_line(line)
            if message is None:
                lines.append(line.decode("utf-8", "replace").rstrip())
            else:
                messages.put(message)
    messages.put(None)


def _read_text(stream: IO[bytes], lines: deque[str], _sink: None) -> None:
    """Read error output as it comes; a character may be split between two chunks."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    with stream:
        while chunk := stream.read1(1 << 16):  # type: ignore[attr-defined]
            *complete, rest = (rest + decoder.decode(chunk)).replace("\r", "\n").split("\n")
            for line in filter(str.strip, complete):
                lines.append(line)
                logger.debug("worker: %s", line)
    rest += decoder.decode(b"", final=True)
    if rest.strip():
        lines.append(rest)
