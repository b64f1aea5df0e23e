"""Run jobs in a worker process: cancel, crash and memory stay out of the process of the user interface."""

from __future__ import annotations

import importlib.util
import logging
import os
import queue
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from MedAILib.errors import Cancelled
from MedAILib.jobs import codec
from MedAILib.jobs.device import recommended_threads
from MedAILib.jobs.execute import Outcome
from MedAILib.jobs.failure import as_medai_error, error_from_values, explain_death
from MedAILib.jobs.process import WorkerProcess, python_executable, worker_environment
from MedAILib.jobs.protocol import request_folder, result_folder
from MedAILib.jobs.runner import Job, JobState, ProgressListener, Runner, TaskOrName, busy, new_job_folder
from MedAILib.jobs.task import Progress, task_name

logger = logging.getLogger(__name__)

POLITE_CANCEL_S = 0.3
"""How long a task may take to stop by itself before its process is killed."""
_YIELD_S = 0.001
_LONGEST_WAIT_S = 0.1


class WorkerRunner(Runner):
    """Runs jobs in one persistent worker process, which is started with the first job.

    The worker keeps loaded what its tasks have loaded. It is started anew, without further ado, after a
    cancel that had to kill it and after a crash. The request is on disk when `start` returns, so that
    its arrays may change from then on; results are read into memory, nothing refers to the job's folder,
    which is removed as soon as the outcome has been taken.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda:0``, ``mps``.
    threads : int, optional
        Default: `recommended_threads`.
    executable : Path, optional
        The worker's Python; default: `python_executable`.
    """

    def __init__(self, device: str = "cpu", threads: int | None = None, executable: Path | None = None) -> None:
        self._device = device
        self._threads = threads or recommended_threads()
        self._executable = executable
        self._process: WorkerProcess | None = None
        self._close_process: Callable[[], object] = _nothing_to_close
        self.job: WorkerJob | None = None
        """The job that runs. An ended one is not kept here: its result may be large."""

    @property
    def process_id(self) -> int | None:
        """Of the worker, None while there is none."""
        return self._process.process_id if self._process is not None and self._process.is_alive else None

    def start(self, task: TaskOrName, request: Any, on_progress: ProgressListener | None = None) -> WorkerJob:
        if self.job is not None and self.job.poll() is JobState.RUNNING:
            raise busy()
        name = task if isinstance(task, str) else task_name(task)
        folder = new_job_folder()
        try:
            codec.save(request, request_folder(folder))
            job = WorkerJob(folder, name, on_progress, self._forget_job)
            self._order(job)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.job = job
        return job

    def close(self) -> None:
        if self.job is not None:
            self.job.cancel()
        self._close_process()
        self._process = None
        self._close_process = _nothing_to_close

    def _forget_job(self) -> None:
        self.job = None

    def _order(self, job: WorkerJob) -> None:
        order = {
            "do": "run",
            "id": job.id,
            "task": job.task,
            "folder": str(job.folder),
            "device": self._device,
            "threads": self._threads,
            "paths": _folders_to_import_from(job.task),
        }
        if self._process is not None and self._process.is_alive:
            with suppress(OSError):  # it has died since the last job
                self._process.send(order)
                job.process = self._process
                return
        job.process = self._start_process()
        with suppress(OSError):  # it died at once: polling tells why
            job.process.send(order)

    def _start_process(self) -> WorkerProcess:
        self._close_process()
        environment = worker_environment(os.environ, self._threads)
        self._process = WorkerProcess(self._executable or python_executable(), environment)
        self._close_process = weakref.finalize(self, self._process.close)
        logger.info("started worker %d", self._process.process_id)
        return self._process


class WorkerJob(Job):
    """A job in a worker process."""

    process: WorkerProcess

    def __init__(
        self, folder: Path, task: str, on_progress: ProgressListener | None, on_end: Callable[[], None]
    ) -> None:
        super().__init__(on_progress, on_end)
        self.folder = folder
        self.task = task
        self._outcome_waits = False
        self._remove_folder = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def poll(self) -> JobState:
        if self.state is JobState.RUNNING:
            # Some hosts hold Python's lock while their event loop runs: let the reading threads have it.
            time.sleep(_YIELD_S)
            self._take_in(0.0)
        return self.state

    def wait(self, timeout_s: float | None = None) -> JobState:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self.state is JobState.RUNNING:
            left_s = _LONGEST_WAIT_S if end is None else min(_LONGEST_WAIT_S, end - time.monotonic())
            self._take_in(max(left_s, 0.0))
            if left_s <= 0:
                break
        return self.state

    def cancel(self) -> None:
        """End the run now: ask it for `POLITE_CANCEL_S`, then kill the worker with all its children."""
        if self.state is not JobState.RUNNING:
            return
        self._fail(Cancelled("The run was cancelled.", todo="Nothing was changed; start it again when you like."))
        if not self._stops_when_asked():
            self.process.kill()
        self._remove_folder()

    def outcome(self) -> Outcome[Any]:
        if self._outcome_waits:
            self._outcome_waits = False
            self._read_outcome()
        return super().outcome()

    def _read_outcome(self) -> None:
        try:
            packages = codec.trusted_packages(self.task)
            self._outcome = codec.load(result_folder(self.folder), packages, memory_map=False)
        except Exception as error:  # the job border
            self._fail(as_medai_error(error))
        finally:
            self._remove_folder()

    def _take_in(self, timeout_s: float) -> None:
        """Take in all messages there are, waiting for the first; of progress, the listener gets the newest."""
        newest: Progress | None = None
        for message in self._messages(timeout_s):
            if message is None:
                self._die()
            elif message["event"] == "progress":
                newest = Progress(message["stage"], message["fraction"], message["eta_s"], message["detail"])
            else:
                self._handle(message)
            if self.state is not JobState.RUNNING:
                break
        if newest is not None:
            self._on_progress(newest)

    def _messages(self, timeout_s: float) -> Iterator[dict[str, Any] | None]:
        """Messages for this job that have come, the first of them waited for; None where no more will come."""
        source = self.process.messages
        try:
            message = source.get(block=timeout_s > 0, timeout=timeout_s)
            while True:
                if message is None or message.get("id") == self.id:
                    yield message
                message = source.get_nowait()
        except queue.Empty:
            if self.process.has_fallen_silent():
                yield None

    def _handle(self, message: dict[str, Any]) -> None:
        match message["event"]:
            case "warning":
                self.warnings.append(message["text"])
            case "done":
                self._outcome_waits = True
                self._end(JobState.FINISHED)
            case "error":
                self._fail(error_from_values(message["error"]))
                self._remove_folder()

    def _die(self) -> None:
        exit_code = self.process.exit_code
        self.process.kill()  # children may have outlived it
        self._fail(explain_death(exit_code, self.process.last_stderr_lines()))
        self._remove_folder()

    def _stops_when_asked(self) -> bool:
        """True where the task ended by itself in time and left no process behind."""
        with suppress(OSError, queue.Empty):
            self.process.send({"do": "cancel", "id": self.id})
            end = time.monotonic() + POLITE_CANCEL_S
            while (left_s := end - time.monotonic()) > 0:
                message = self.process.messages.get(timeout=left_s)
                if message is None:
                    return False
                if message.get("id") == self.id and message["event"] in ("done", "error"):
                    return bool(message["alone"])
        return False


def _folders_to_import_from(task: str) -> list[str]:
    """Where the top-level package of a task lies, so that the worker finds it too."""
    package = task.partition(":")[0].partition(".")[0]
    spec = importlib.util.find_spec(package) if package.isidentifier() and package != "__main__" else None
    if spec is None:
        return []
    places = spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
    return [str(Path(place).parent) for place in places]


def _nothing_to_close() -> None:
    return
