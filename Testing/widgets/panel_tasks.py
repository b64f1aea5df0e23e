"""Tasks for the run panel's tests; a worker imports them from here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from MedAILib.errors import InputError
from MedAILib.jobs.task import Context


@dataclass(frozen=True)
class PanelRequest:
    seconds: float = 0.0


@dataclass(frozen=True)
class PanelResult:
    steps: int


class StepsTask:
    """Takes as long as it is told, in two stages."""

    def run(self, request: PanelRequest, context: Context) -> PanelResult:
        context.warn("Seen from afar.")
        end = time.monotonic() + request.seconds
        steps = 0
        while True:
            left_s = end - time.monotonic()
            fraction = 1.0 - max(left_s, 0.0) / max(request.seconds, 1e-9)
            context.progress("looking" if fraction < 0.5 else "thinking", fraction)
            steps += 1
            if left_s <= 0:
                return PanelResult(steps)
            time.sleep(0.02)


class RefusingTask:
    def run(self, request: PanelRequest, context: Context) -> PanelResult:
        raise InputError("There is <nothing> here.", why="It is empty.", todo="Draw something.")


class DyingTask:
    def run(self, request: PanelRequest, context: Context) -> PanelResult:
        context.progress("dying", 0.1)
        os._exit(3)
