"""One run of one task in this process: what every runner does at the end of its way."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from MedAILib.errors import JobError
from MedAILib.jobs.report import (
    RunReport,
    input_facts,
    loaded_versions,
    now_utc,
    peak_memory_mb,
    restart_peak_memory,
)
from MedAILib.jobs.task import Context, Task, task_name

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, eq=False)
class Outcome(Generic[ResultT]):
    """What a finished run left: the task's result and the run's report."""

    result: ResultT
    report: RunReport


def load_task(name: str) -> Task[Any, Any]:
    """A new task from its name ``package.module:ClassName``.

    Raises
    ------
    JobError
        Where there is no such task.
    ImportError
        Where a package that the task's module needs is missing.
    """
    module_name, _, class_name = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), class_name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        kind = None
    if not isinstance(kind, type) or not callable(getattr(kind, "run", None)):
        raise JobError(
            f"There is no task '{name}'.",
            why="The module that offers it is not installed completely, or in another version.",
            todo="Install the extension again.",
        )
    return kind()


def execute(task: Task[Any, Any], request: Any, context: Context, run_id: str) -> Outcome[Any]:
    """Run a task and write down what it cost; whatever the task raises passes through."""
    restart_peak_memory()
    started_utc, started = now_utc(), time.perf_counter()
    result = task.run(request, context)
    context.close_stage()
    report = RunReport(
        run_id=run_id,
        task=task_name(task),
        started_utc=started_utc,
        seconds=time.perf_counter() - started,
        stages=dict(context.stages),
        peak_memory_mb=peak_memory_mb(),
        device=context.device,
        threads=context.threads,
        versions=loaded_versions(),
        weights=tuple(context.weights),
        warnings=tuple(context.warnings),
        inputs=input_facts(request),
    )
    return Outcome(result, report)
