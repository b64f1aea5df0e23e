"""Small tasks that do what real tasks do, well and badly; run by the tests of the runners."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from MedAILib.atomic import write_bytes
from MedAILib.errors import Cancelled, NothingDrawn
from MedAILib.jobs.task import Context
from MedAILib.volume import Volume


class Mode(Enum):
    ADD = "add"
    MULTIPLY = "multiply"


@dataclass(frozen=True, eq=False)
class ArithmeticRequest:
    volume: Volume
    mode: Mode
    factor: float
    note: str = ""
    path: Path | None = None
    extras: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True, eq=False)
class ArithmeticResult:
    volume: Volume
    mode: Mode
    note: str
    path: Path | None
    extras: tuple[np.ndarray, ...]
    statistics: dict[str, float] = field(default_factory=dict)


class ArithmeticTask:
    """Adds to or multiplies a volume, reporting three stages and a warning."""

    def run(self, request: ArithmeticRequest, context: Context) -> ArithmeticResult:
        context.progress("reading", 0.0)
        array = request.volume.array.astype(np.float64)
        context.progress("calculating", 0.5)
        array = array + request.factor if request.mode is Mode.ADD else array * request.factor
        context.warn("Käse 漢: this is only a test.")
        context.progress("finishing", 1.0)
        return ArithmeticResult(
            Volume(array, request.volume.ijk_to_ras, request.volume.name),
            request.mode,
            request.note,
            request.path,
            request.extras,
            {"mean": float(array.mean()), "nan": float("nan")},
        )


@dataclass(frozen=True)
class Number:
    value: int = 0


@dataclass(frozen=True)
class Text:
    value: str = ""


class ProcessIdTask:
    def run(self, request: Number, context: Context) -> Number:
        return Number(os.getpid())


class CountCallsTask:
    """Keeps something between runs, as a task keeps its model."""

    def __init__(self) -> None:
        self._calls = 0

    def run(self, request: Number, context: Context) -> Number:
        self._calls += 1
        return Number(self._calls)


class WeighTask:
    """Keeps two sets of weights loaded, and says in every run which of them it used."""

    def run(self, request: Number, context: Context) -> Number:
        for _ in range(request.value):
            context.used_weights("knee-net", "ab" * 32)
        context.used_weights("embedded model ü漢 sha256:0")
        return request


class SleepInCTask:
    """Sleeps in one call of the C library, deaf to everything."""

    def run(self, request: Number, context: Context) -> Number:
        context.progress("sleeping", 0.1)
        ctypes.CDLL(None).sleep(request.value)
        return request


class SleepPolitelyTask:
    """Sleeps, and stops when asked."""

    def run(self, request: Number, context: Context) -> Number:
        for step in range(request.value * 100):
            context.progress("sleeping", step / (request.value * 100))
            time.sleep(0.01)
        return request


class CleanUpWhenCancelledTask:
    """Says in a file that it was asked to stop and could clean up."""

    def run(self, request: Text, context: Context) -> Text:
        try:
            SleepPolitelyTask().run(Number(30), context)
        except Cancelled:
            Path(request.value).write_text("cleaned up", encoding="utf-8")
            raise
        return request


class ChildTask:
    """Starts a process that would sleep for a minute, writes its id into a file, and waits for it."""

    polite = False

    def run(self, request: Text, context: Context) -> Text:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        write_bytes(request.value, b"%d" % child.pid)
        context.progress("waiting", 0.1)
        if self.polite:
            SleepPolitelyTask().run(Number(30), context)
        child.wait()
        return request


class PoliteChildTask(ChildTask):
    """The same, but it stops when asked and forgets its child."""

    polite = True


class DieWithChildTask(ChildTask):
    """Starts a child that holds the connections open, and is killed."""

    def run(self, request: Text, context: Context) -> Text:
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
        write_bytes(request.value, b"%d" % child)
        os.kill(os.getpid(), signal.SIGKILL)
        return request


class GarbageTask:
    """Prints to standard output in every way there is."""

    def run(self, request: Text, context: Context) -> Text:
        print('{"event": "done", "id": "nonsense"}')
        print(request.value, flush=True)
        os.write(1, b"\xff\xfe not UTF-8\n{broken json\n")
        libc = ctypes.CDLL(None)
        libc.puts(b"from the C library")
        libc.fflush(None)
        subprocess.run([sys.executable, "-c", "print('from a child'); import sys; sys.exit(len(sys.stdin.read()))"])
        return request


class ReadStandardInputTask:
    """Reads standard input, which is empty for a task."""

    def run(self, request: Number, context: Context) -> Number:
        return Number(len(sys.stdin.buffer.read()))


class ExitTask:
    def run(self, request: Number, context: Context) -> Number:
        print("last words: Grüße 漢", file=sys.stderr, flush=True)
        os._exit(request.value)


class SystemExitTask:
    def run(self, request: Number, context: Context) -> Number:
        sys.exit(request.value)


class SegfaultTask:
    def run(self, request: Number, context: Context) -> Number:
        ctypes.string_at(0)
        return request


class KilledTask:
    def run(self, request: Number, context: Context) -> Number:
        os.kill(os.getpid(), signal.SIGKILL)
        return request


class NothingDrawnTask:
    def run(self, request: Text, context: Context) -> Text:
        raise NothingDrawn("Nichts gezeichnet: ü漢.", why=request.value, todo="Draw something.")


class BugTask:
    def run(self, request: Number, context: Context) -> Number:
        return Number(1 // request.value)


class MemoryHungryTask:
    def run(self, request: Number, context: Context) -> Number:
        np.zeros((1 << 60,), dtype=np.uint8)
        return request


class MissingPackageTask:
    def run(self, request: Number, context: Context) -> Number:
        import a_package_nobody_has.part  # type: ignore[import-not-found]

        return a_package_nobody_has.part.answer  # type: ignore[no-any-return]


class SetResultTask:
    """Returns something that is not a plain value."""

    def run(self, request: Number, context: Context) -> Text:
        return Text({1, 2})  # type: ignore[arg-type]


class ScratchTask:
    """Uses its scratch folder and says where it was."""

    def run(self, request: Number, context: Context) -> Text:
        assert context.scratch is not None
        (context.scratch / "ü 漢.txt").write_text("scratch", encoding="utf-8")
        return Text(str(context.scratch))


class ThreadsTask:
    def run(self, request: Number, context: Context) -> Text:
        return Text(f"{context.threads} {os.environ.get('OMP_NUM_THREADS')} {context.device}")


class TouchMemoryTask:
    """Touches so many megabytes and gives them back."""

    def run(self, request: Number, context: Context) -> Number:
        return Number(int(np.ones((request.value, 1 << 20), dtype=np.uint8).sum() >> 20))
