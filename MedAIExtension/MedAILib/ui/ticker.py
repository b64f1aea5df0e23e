"""Look at something again and again without making the user interface wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import qt

logger = logging.getLogger(__name__)
ValueT = TypeVar("ValueT")
_YIELD_S = 0.002


class Ticker:
    """Calls a function in the user interface's thread at an interval, while it is started."""

    def __init__(self, function: Callable[[], None], interval_ms: int = 100) -> None:
        self._timer = qt.QTimer()
        self._timer.setInterval(interval_ms)
        self._timer.timeout.connect(function)
        self._function: Callable[[], None] | None = function

    @property
    def is_running(self) -> bool:
        return bool(self._timer.isActive())

    def start(self) -> None:
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()

    def close(self) -> None:
        """Stop for good, and let go of the function."""
        self.stop()
        if self._function is not None:
            self._timer.timeout.disconnect(self._function)
            self._function = None


class Background(Generic[ValueT]):
    """One short call in a thread, such as asking a slow system tool; the answer comes in the interface's thread.

    Not for work: that belongs into a job.

    Parameters
    ----------
    question : callable
        Runs in the thread; touches neither Qt nor the scene.
    answer : callable
        Receives what it returned, in the thread of the user interface.
    failed : callable
        Receives what it raised.
    """

    def __init__(
        self,
        question: Callable[[], ValueT],
        answer: Callable[[ValueT], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._question = question
        self._answer = answer
        self._failed = failed
        self._value: list[ValueT] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._ask, name="medai-background", daemon=True)
        self._ticker = Ticker(self._look, interval_ms=30)
        self._thread.start()
        self._ticker.start()

    def close(self) -> None:
        """Do not answer any more."""
        self._ticker.close()

    def _ask(self) -> None:
        try:
            self._value.append(self._question())
        except Exception as error:  # the border of the thread: it is handed to the user interface
            self._error = error

    def _look(self) -> None:
        time.sleep(_YIELD_S)  # Slicer's event loop holds Python's lock: let the thread have it
        if self._thread.is_alive():
            return
        self._ticker.close()
        if self._error is not None:
            self._failed(self._error)
        else:
            self._answer(self._value[0])
