"""Does the way to a worker and back work on this machine? A task that does nearly nothing, and its check."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from MedAILib.errors import JobError
from MedAILib.jobs.task import Context, task_name

if TYPE_CHECKING:
    from MedAILib.jobs.runner import Runner


@dataclass(frozen=True, eq=False)
class CheckRequest:
    """Numbers to add up: int64, shape (n,)."""

    numbers: np.ndarray


@dataclass(frozen=True)
class CheckResult:
    """Their sum, and who added them."""

    total: int
    process_id: int
    python: str
    executable: str


class CheckTask:
    """Adds numbers up."""

    def run(self, request: CheckRequest, context: Context) -> CheckResult:
        context.progress("adding", 0.5)
        return CheckResult(int(request.numbers.sum()), os.getpid(), platform.python_version(), sys.executable)


@dataclass(frozen=True)
class WorkerCheck:
    """What the check found.

    Attributes
    ----------
    first_s, second_s : float
        Seconds for the first job, which starts the worker, and for the next.
    process_id : int
        Of the worker.
    python, executable : str
        Version and path of the worker's Python.
    """

    first_s: float
    second_s: float
    process_id: int
    python: str
    executable: str


def check_runner(runner: Runner) -> WorkerCheck:
    """Run the check task twice, and say how long it took.

    Raises
    ------
    MedAIError
        Where the way does not work, with the cause.
    """
    request = CheckRequest(np.arange(100_000))
    seconds: list[float] = []
    for _ in range(2):
        started = time.perf_counter()
        result = runner.run(task_name(CheckTask), request).result
        seconds.append(time.perf_counter() - started)
    if result.total != int(request.numbers.sum()):
        raise JobError("The worker gave a wrong answer.", why=f"It added up to {result.total}.")
    return WorkerCheck(seconds[0], seconds[1], result.process_id, result.python, result.executable)
