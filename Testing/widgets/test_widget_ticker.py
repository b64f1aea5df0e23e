"""Looking at something again and again, and asking slow tools, without making the event loop wait."""

from __future__ import annotations

import threading
import time
from typing import Any


def test_a_ticker_ticks_only_between_start_and_stop(host: Any) -> None:
    from MedAILib.ui.ticker import Ticker

    ticks: list[int] = []
    ticker = Ticker(lambda: ticks.append(1), interval_ms=5)
    host.process_events()
    assert ticks == []
    ticker.start()
    host.wait_until(lambda: len(ticks) > 3)
    ticker.close()
    count = len(ticks)
    time.sleep(0.02)
    host.process_events()
    assert len(ticks) == count and not ticker.is_running


def test_an_answer_comes_in_the_thread_of_the_interface_which_never_waits(host: Any) -> None:
    from MedAILib.ui.ticker import Background

    answers: list[tuple[str, int]] = []
    asked = threading.Event()
    released = threading.Event()

    def question() -> str:
        asked.set()
        released.wait(5)
        return "42"

    background = Background(question, lambda value: answers.append((value, threading.get_ident())), answers.append)
    with host.heartbeat() as beat:
        host.wait_until(lambda: asked.is_set() and beat.ticks > 5)
        assert answers == []
        released.set()
        host.wait_until(lambda: bool(answers))
    assert answers == [("42", threading.get_ident())]
    background.close()


def test_a_failed_question_is_told(host: Any) -> None:
    from MedAILib.ui.ticker import Background

    errors: list[Exception] = []
    background = Background(lambda: 1 / 0, lambda value: None, errors.append)
    host.wait_until(lambda: bool(errors))
    assert isinstance(errors[0], ZeroDivisionError)
    background.close()


def test_a_closed_question_is_not_answered_any_more(host: Any) -> None:
    from MedAILib.ui.ticker import Background

    answers: list[int] = []
    background = Background(lambda: 1, answers.append, answers.append)
    background.close()
    time.sleep(0.05)
    host.process_events()
    assert answers == []
