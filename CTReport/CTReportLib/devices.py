"""Where models run: on the processor in the worker that all modules share, on a GPU in a worker of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from MedAILib.jobs.runner import Runner
from MedAILib.jobs.worker_runner import WorkerRunner

CPU = "cpu"
KEY = "MedAI/CTReport/Device"


class DeviceRunners:
    """The runner for each device, made when it is first asked for.

    Parameters
    ----------
    shared : callable
        Answers the runner on the processor.
    settings : QSettings
        Remember the user's choice; it belongs to the machine, not to a scene.
    """

    def __init__(self, shared: Callable[[], Runner], settings: Any) -> None:
        self._shared, self._settings = shared, settings
        self._others: dict[str, WorkerRunner] = {}

    @property
    def device(self) -> str:
        """``cpu``, ``cuda:0`` or ``mps``, as the user chose."""
        return str(self._settings.value(KEY) or CPU)

    def choose(self, device: str) -> None:
        """Run models there from now on; workers of other devices end, and their memory is free."""
        self._settings.setValue(KEY, device)
        for name in [one for one in self._others if one != device]:
            self._others.pop(name).close()

    def runner(self, *, models: bool) -> Runner:
        """Where the next run goes; without models always the processor."""
        if not models or self.device == CPU:
            return self._shared()
        if self.device not in self._others:
            self._others[self.device] = WorkerRunner(self.device)
        return self._others[self.device]

    def close(self) -> None:
        """End the workers; the shared one is not ours."""
        while self._others:
            self._others.popitem()[1].close()
