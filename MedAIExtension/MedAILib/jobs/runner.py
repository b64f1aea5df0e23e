"""Runners: the same request, run here or in a worker process, with the same result.

A `Runner` starts a job; the `Job` is asked how it stands by `Job.poll`, which never waits and calls the
listener of progress in the caller's own thread: a graphical interface polls from a timer, everything
else calls `Job.wait` or `Runner.run`. A runner and its jobs belong to the thread that made them.

`InProcessRunner` is here, the worker process in `MedAILib.jobs.worker_runner`.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from MedAILib.errors import Cancelled, JobError, MedAIError
from MedAILib.jobs.execute import Outcome, execute, load_task
from MedAILib.jobs.failure import as_medai_error
from MedAILib.jobs.task import Context, Progress, Task, task_name

logger = logging.getLogger(__name__)

ProgressListener = Callable[[Progress], None]
TaskOrName = Task[Any, Any] | type | str


class JobState(Enum):
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(ABC):
    """One run that was started.

    Attributes
    ----------
    id : str
        Also the ``run_id`` of the report.
    state : JobState
        As of the last `poll`, `wait` or `cancel`.
    warnings : list of str
        What the task has warned of so far.
    """

    def __init__(self, on_progress: ProgressListener | None = None, on_end: Callable[[], None] | None = None) -> None:
        self.id = uuid.uuid4().hex
        self.state = JobState.RUNNING
        self.warnings: list[str] = []
        self._on_progress: ProgressListener = on_progress or (lambda progress: None)
        self._on_end: Callable[[], None] = on_end or (lambda: None)
        self._outcome: Outcome[Any] | None = None
        self._error: MedAIError | None = None

    @abstractmethod
    def poll(self) -> JobState:
        """Take in what has come from the run, call the progress listener, and answer the state; never waits."""

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> JobState:
        """Poll until the run has ended or the time is over; answers the state."""

    @abstractmethod
    def cancel(self) -> None:
        """End the run now. When this returns, within a second, nothing of it runs any more."""

    def outcome(self) -> Outcome[Any]:
        """Result and report of a run that has finished; the first call reads a worker's result into memory.

        Raises
        ------
        MedAIError
            What made the run fail; `Cancelled` for a cancelled one.
        RuntimeError
            While the run has not ended.
        """
        if self._error is not None:
            raise self._error
        if self._outcome is None:
            raise RuntimeError("The run has not ended; poll() or wait() for it first.")
        return self._outcome

    def _succeed(self, outcome: Outcome[Any]) -> None:
        self._outcome = outcome
        self._end(JobState.FINISHED)

    def _fail(self, error: MedAIError) -> None:
        logger.info("run %s: %s %s\n%s", self.id, error.code, error.text, error.details)
        self._error = error
        self._end(JobState.CANCELLED if isinstance(error, Cancelled) else JobState.FAILED)

    def _end(self, state: JobState) -> None:
        self.state = state
        on_end, self._on_end = self._on_end, lambda: None
        on_end()


class Runner(ABC):
    """Runs one job at a time."""

    @abstractmethod
    def start(self, task: TaskOrName, request: Any, on_progress: ProgressListener | None = None) -> Job:
        """Start a run.

        Parameters
        ----------
        task : str, task class or task
            What to run; a name is ``package.module:ClassName``.
        request : frozen dataclass
        on_progress : callable, optional
            Receives `Progress` in the thread that polls.

        Raises
        ------
        JobError
            Where a job of this runner is still running, or the request cannot be sent.
        """

    def run(self, task: TaskOrName, request: Any, on_progress: ProgressListener | None = None) -> Outcome[Any]:
        """Start a run, wait for its end, and answer its outcome; an interrupt (Ctrl+C) cancels it.

        Raises
        ------
        MedAIError
            What made the run fail.
        """
        job = self.start(task, request, on_progress)
        try:
            job.wait()
        except BaseException:
            job.cancel()
            raise
        return job.outcome()

    def close(self) -> None:
        """Cancel what runs and give back what the runner holds. It may be used again: it starts afresh."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class InProcessRunner(Runner):
    """Runs a job within `start`, in the thread that calls it.

    Tasks named by text are kept, and with them what they have loaded.

    Parameters
    ----------
    device : str
    threads : int
        What the task is told it may use; it must hold to it by itself.
    """

    def __init__(self, device: str = "cpu", threads: int = 1) -> None:
        self._device = device
        self._threads = threads
        self._tasks: dict[str, Task[Any, Any]] = {}
        self.job: InProcessJob | None = None
        """The job that runs: a progress listener cancels it here."""

    def start(self, task: TaskOrName, request: Any, on_progress: ProgressListener | None = None) -> Job:
        if self.job is not None:
            raise busy()
        self.job = job = InProcessJob(on_progress)
        scratch = new_job_folder()
        try:
            job.run_here(lambda: self._task(task), request, self._context(job, scratch))
        finally:
            self.job = None
            shutil.rmtree(scratch, ignore_errors=True)
        return job

    def _task(self, task: TaskOrName) -> Task[Any, Any]:
        if not isinstance(task, (str, type)):
            return task
        name = task if isinstance(task, str) else task_name(task)
        if name not in self._tasks:
            self._tasks[name] = load_task(task) if isinstance(task, str) else task()
        return self._tasks[name]

    def _context(self, job: InProcessJob, scratch: Path) -> Context:
        return Context(
            device=self._device,
            threads=self._threads,
            scratch=scratch,
            on_progress=job._on_progress,
            on_warning=job.warnings.append,
            is_cancelled=lambda: job.cancel_asked,
        )


class InProcessJob(Job):
    """A job of an `InProcessRunner`: ended by the time the caller sees it."""

    cancel_asked = False

    def run_here(self, find_task: Callable[[], Task[Any, Any]], request: Any, context: Context) -> None:
        try:
            self._succeed(execute(find_task(), request, context, self.id))
        except Exception as error:  # the job border
            self._fail(as_medai_error(error))

    def poll(self) -> JobState:
        return self.state

    def wait(self, timeout_s: float | None = None) -> JobState:
        return self.state

    def cancel(self) -> None:
        """Ask the task to stop; it does at its next progress report."""
        self.cancel_asked = True


def busy() -> JobError:
    return JobError(
        "A run is already under way.",
        why="One runner runs one job at a time.",
        todo="Wait for it to end, or cancel it first.",
    )


def new_job_folder() -> Path:
    """A new folder for one job that only this user can read."""
    return Path(tempfile.mkdtemp(prefix="medai-job-"))
