"""A task: the one function of a feature that does work, and what it is given to do it with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from MedAILib.errors import Cancelled

RequestT = TypeVar("RequestT", contravariant=True)
ResultT = TypeVar("ResultT", covariant=True)


class Task(Protocol, Generic[RequestT, ResultT]):
    """Work that any runner can run. Requests and results are frozen dataclasses of plain values.

    A task is named ``package.module:ClassName`` (see `task_name`), which is how a worker finds it.
    """

    def run(self, request: RequestT, context: Context) -> ResultT: ...


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes
    ----------
    stage : str
        What is being done now, in words for the user.
    fraction : float
        Of the whole run, 0..1.
    eta_s : float or None
        Estimated seconds left; None while there is no ground for an estimate.
    detail : str
        How far within the stage, such as bytes; empty where the fraction says it all.
    """

    stage: str
    fraction: float
    eta_s: float | None = None
    detail: str = ""


@dataclass
class Context:
    """What a running task may use: progress, cancel, device, threads, its scratch folder.

    Attributes
    ----------
    device : str
        ``cpu``, ``cuda:0`` or ``mps``.
    threads : int
        Threads the task may use.
    scratch : Path or None
        Folder that lives as long as the job.
    on_progress : callable
        Receives `Progress`.
    on_warning : callable
        Receives the text of each `warn`.
    is_cancelled : callable
        Answers whether the user asked to stop.
    warnings : list of str
        Every warning so far.
    stages : dict of str to float
        Seconds spent per finished stage so far.
    weights : list of str
        The weights used so far, see `used_weights`.
    """

    device: str = "cpu"
    threads: int = 1
    scratch: Path | None = None
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_warning: Callable[[str], None] = lambda text: None
    is_cancelled: Callable[[], bool] = lambda: False
    warnings: list[str] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    weights: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._started = self._stage_started = time.monotonic()
        self._stage = ""

    def progress(self, stage: str, fraction: float, detail: str = "", eta_s: float | None = None) -> None:
        """Report the stage and the fraction of the whole run done; raises `Cancelled` when asked to stop.

        ``eta_s``: seconds left where the task knows better than the fraction done in the time gone by.
        """
        self.check()
        now = time.monotonic()
        if stage != self._stage:
            self.close_stage()
            self._stage = stage
        elapsed_s = now - self._started
        if eta_s is None and fraction > 0.02 and elapsed_s > 0.5:
            eta_s = elapsed_s * (1 - fraction) / fraction
        self.on_progress(Progress(stage, min(max(fraction, 0.0), 1.0), eta_s, detail))

    def check(self) -> None:
        """Raise `Cancelled` when asked to stop; for places too frequent to report progress from."""
        if self.is_cancelled():
            raise Cancelled("The run was cancelled.", todo="Nothing was changed; start it again when you like.")

    def close_stage(self) -> None:
        """Book the seconds of the stage that just ended."""
        now = time.monotonic()
        if self._stage:
            self.stages[self._stage] = self.stages.get(self._stage, 0.0) + now - self._stage_started
        self._stage_started = now

    def warn(self, text: str) -> None:
        """Tell the user something that does not stop the run; it goes into the run report."""
        self.warnings.append(text)
        self.on_warning(text)

    def used_weights(self, name: str, sha256: str = "") -> None:
        """Write into the run report which weights the result rests on; to be called in every run, also for kept ones.

        Parameters
        ----------
        name : str
            The model's id, or the name of the file.
        sha256 : str
            Of the weight file, 64 hexadecimal digits; empty only where it is part of ``name``.
        """
        text = weights_text(name, sha256) if sha256 else name
        if text not in self.weights:
            self.weights.append(text)


def weights_text(name: str, sha256: str) -> str:
    """How reports and scenes name weights: ``knee-net sha256:9f86...``."""
    return f"{name} sha256:{sha256}"


def task_name(task: Any) -> str:
    """``package.module:ClassName`` of a task."""
    kind = task if isinstance(task, type) else type(task)
    return f"{kind.__module__}:{kind.__qualname__}"
