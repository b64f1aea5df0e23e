"""The worker process: ``python -m MedAILib.jobs.worker``, started and spoken to by a `WorkerRunner`.

It runs one task after the other on its main thread and keeps the tasks, and so their models, between
runs. It ends when its standard input closes, which happens when its parent ends, however that ends.
See `MedAILib.jobs.protocol` for what is said.

The protocol runs on duplicates of the standard streams. Standard output itself leads to standard
error and standard input is empty, so that no print of a task or a C library can corrupt a message.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from MedAILib.jobs.process import kill_process_tree
from MedAILib.jobs.protocol import from_line, request_folder, result_folder, scratch_folder, to_line
from MedAILib.jobs.task import Context, Progress, Task


def main() -> int:
    """Serve until the parent closes standard input."""
    reader, writer = _take_over_standard_streams()
    faulthandler.enable()
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in a shared terminal is the parent's to handle
    Worker(reader, writer).serve()
    return 0


class Worker:
    """Reads orders on a thread of its own, so that a cancel is heard while a task runs."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._writing = threading.Lock()
        self._orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._folder: Path | None = None
        self._tasks: dict[str, Task[Any, Any]] = {}

    def serve(self) -> None:
        threading.Thread(target=self._listen, name="medai-worker-orders", daemon=True).start()
        while True:
            order = self._orders.get()
            self._folder = Path(order["folder"])
            try:
                self._run(order)
            finally:
                self._folder = None

    def _listen(self) -> None:
        for line in self._reader:
            order = from_line(line) or {}
            if order.get("do") == "run":
                self._orders.put(order)
            elif order.get("do") == "cancel":
                self._cancelled.add(order["id"])
        _end_process_tree(self._folder)

    def _run(self, order: dict[str, Any]) -> None:
        job_id = order["id"]
        message: dict[str, Any] = {"event": "done", "id": job_id}
        try:
            self._execute(order)
        except BaseException as error:  # the job border: everything becomes a message
            from MedAILib.jobs.failure import as_medai_error, error_to_values

            message = {"event": "error", "id": job_id, "error": error_to_values(as_medai_error(error))}
        # Only now, with the exception gone, is every array of the request released and its file free.
        self._cancelled.discard(job_id)
        self._send({**message, "alone": not _has_children()})

    def _execute(self, order: dict[str, Any]) -> None:
        from MedAILib.jobs import codec
        from MedAILib.jobs.execute import execute

        sys.path.extend(path for path in order["paths"] if path not in sys.path)
        folder, name = Path(order["folder"]), order["task"]
        task = self._task(name)
        request = codec.load(request_folder(folder), codec.trusted_packages(name))
        scratch = scratch_folder(folder)
        scratch.mkdir()
        outcome = execute(task, request, self._context(order, scratch), order["id"])
        codec.save(outcome, result_folder(folder))

    def _task(self, name: str) -> Task[Any, Any]:
        from MedAILib.jobs.execute import load_task

        if name not in self._tasks:
            self._tasks[name] = load_task(name)
        return self._tasks[name]

    def _context(self, order: dict[str, Any], scratch: Path) -> Context:
        job_id = order["id"]

        def tell_progress(progress: Progress) -> None:
            self._send({"event": "progress", "id": job_id, **vars(progress)})

        return Context(
            device=order["device"],
            threads=order["threads"],
            scratch=scratch,
            on_progress=tell_progress,
            on_warning=lambda text: self._send({"event": "warning", "id": job_id, "text": text}),
            is_cancelled=lambda: job_id in self._cancelled,
        )

    def _send(self, message: dict[str, Any]) -> None:
        try:
            with self._writing:
                self._writer.write(to_line(message))
                self._writer.flush()
        except OSError:
            _end_process_tree(self._folder)  # the parent is gone


def _take_over_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Private duplicates of standard input and output; the streams themselves are made harmless."""
    reader = os.fdopen(os.dup(0), "rb")
    writer = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return reader, writer


def _end_process_tree(job_folder: Path | None) -> None:
    """End this process and its children at once, leaving no patient data behind."""
    if job_folder is not None:
        shutil.rmtree(job_folder, ignore_errors=True)
    kill_process_tree(os.getpid())
    os._exit(0)


def _has_children() -> bool:
    """True where this process has children, or where the system does not tell."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
