"""The run panel that all modules share, on a real worker process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import panel_tasks
import pytest

from MedAILib.errors import OutputError
from MedAILib.jobs.runner import InProcessRunner
from MedAILib.jobs.worker_runner import WorkerRunner


class Desk:
    """A run panel and what its module would do with it."""

    def __init__(self, runner: Any) -> None:
        import slicer

        from MedAILib.ui.run_panel import RunPanel, RunStatus
        from MedAILib.ui.run_times import RunTimes

        self.runner = runner
        self.task: type = panel_tasks.StepsTask
        self.seconds = 0.0
        self.results: list[Any] = []
        self.states: list[bool] = []
        self.finish_error: Exception | None = None
        self.panel = RunPanel(
            "Look",
            self.start,
            self.finish,
            times=RunTimes(slicer.app.settings(), "Desk"),
            status=RunStatus("Steps", "Apache-2.0", "CPU"),
            shortcut="Ctrl+Return",
        )
        self.panel.on_state_changed = lambda: self.states.append(self.panel.is_running)
        self.panel.widget.show()

    def start(self, on_progress: Any) -> Any:
        return self.runner.start(self.task, panel_tasks.PanelRequest(self.seconds), on_progress)

    def finish(self, outcome: Any) -> str:
        if self.finish_error is not None:
            raise self.finish_error
        self.results.append(outcome.result)
        return f"{outcome.result.steps} steps."


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerRunner]:
    with WorkerRunner(threads=1) as runner:
        yield runner


@pytest.fixture
def desk(host: Any, worker: WorkerRunner) -> Iterator[Desk]:
    desk = Desk(worker)
    yield desk
    if desk.panel.is_running:
        desk.panel.close()


def _run_to_the_end(host: Any, desk: Desk) -> None:
    desk.panel.button.click()
    host.wait_until(lambda: not desk.panel.is_running)


def test_the_button_says_what_it_does_with_its_shortcut(desk: Desk) -> None:
    assert desk.panel.button.text == "Look (Ctrl+Return)"
    assert desk.panel.button.shortcut.toString() == "Ctrl+Return"


def test_a_disabled_button_says_what_is_missing(desk: Desk) -> None:
    desk.panel.set_missing(["Choose a volume.", "Draw on at least one slice."])
    assert not desk.panel.button.enabled
    assert desk.panel.button.toolTip == "Choose a volume.\nDraw on at least one slice."
    desk.panel.run()
    assert not desk.panel.is_running
    desk.panel.set_missing([])
    assert desk.panel.button.enabled and desk.panel.button.toolTip == ""


def test_a_run_shows_its_progress_while_the_event_loop_goes_on(host: Any, desk: Desk) -> None:
    desk.seconds = 0.8
    stages: set[str] = set()
    with host.heartbeat() as beat:
        desk.panel.button.click()
        assert desk.panel.button.text == "Cancel" and desk.panel.progressBar.visible
        while desk.panel.is_running:
            host.process_events()
            stages.add(desk.panel.stageLabel.text.split(",")[0])
    assert {"looking", "thinking"} <= stages
    assert beat.ticks > 30 and beat.longest_pause_s < 0.5
    assert desk.states == [True, False]


def test_a_result_reaches_the_module_and_its_sentence_the_panel(host: Any, desk: Desk) -> None:
    _run_to_the_end(host, desk)
    assert desk.results[0].steps >= 1
    assert desk.panel.message.text == f"{desk.results[0].steps} steps. Seen from afar."
    assert "Seen from afar." in desk.panel.details.text and '"task"' in desk.panel.details.text
    assert not desk.panel.progressBar.visible and desk.panel.button.text.startswith("Look")


def test_the_status_learns_the_time_from_runs(host: Any, desk: Desk) -> None:
    assert desk.panel.statusLabel.text == "Steps · Apache-2.0 · CPU: time not known yet"
    _run_to_the_end(host, desk)
    assert desk.panel.statusLabel.text == "Steps · Apache-2.0 · CPU: under 1 s"


def test_cancel_ends_the_run_and_takes_nothing_over(host: Any, desk: Desk) -> None:
    desk.seconds = 30.0
    desk.panel.button.click()
    host.wait_until(lambda: desk.panel.stageLabel.text.startswith("looking"))
    desk.panel.button.click()
    assert not desk.panel.is_running and desk.results == []
    assert "cancelled" in desk.panel.message.text
    desk.seconds = 0.0
    _run_to_the_end(host, desk)
    assert len(desk.results) == 1


def test_an_error_of_the_task_is_told_in_the_panel(host: Any, desk: Desk) -> None:
    desk.task = panel_tasks.RefusingTask
    _run_to_the_end(host, desk)
    assert desk.panel.message.text == "There is <nothing> here. It is empty. Draw something."
    assert desk.panel.message.widget.visible and host.messages.shown == []
    assert desk.panel.button.enabled


def test_a_dead_worker_is_told_in_the_panel_and_the_next_run_works(host: Any, desk: Desk) -> None:
    desk.task = panel_tasks.DyingTask
    _run_to_the_end(host, desk)
    assert "worker" in desk.panel.message.text.lower()
    desk.task = panel_tasks.StepsTask
    _run_to_the_end(host, desk)
    assert len(desk.results) == 1


def test_an_error_while_the_result_is_taken_over_is_told_too(host: Any, desk: Desk) -> None:
    desk.finish_error = OutputError("The scene is full.", todo="Empty it.")
    _run_to_the_end(host, desk)
    assert desk.panel.message.text == "The scene is full. Empty it."


def test_an_unforeseen_error_leaves_its_traceback_in_the_details(host: Any, desk: Desk) -> None:
    desk.finish_error = ZeroDivisionError("oops")
    _run_to_the_end(host, desk)
    assert "ZeroDivisionError: oops" in desk.panel.message.text
    assert "Traceback" in desk.panel.details.text


def test_the_details_are_copied(host: Any, desk: Desk) -> None:
    import qt

    _run_to_the_end(host, desk)
    desk.panel.details.copyButton.click()
    assert '"task"' in qt.QApplication.clipboard().text()


def test_a_run_in_this_process_is_shown_as_well(host: Any) -> None:
    desk = Desk(InProcessRunner())
    desk.panel.button.click()
    assert not desk.panel.is_running and len(desk.results) == 1


def test_a_module_that_starts_nothing_leaves_the_panel_idle(host: Any, desk: Desk) -> None:
    desk.start = lambda on_progress: None  # type: ignore[method-assign]
    desk.panel._start = desk.start
    desk.panel.button.click()
    assert not desk.panel.is_running and desk.states == []


def test_a_closed_panel_cancels_its_run_and_ends_its_ticks(host: Any, desk: Desk) -> None:
    desk.seconds = 30.0
    desk.panel.button.click()
    desk.panel.close()
    assert not desk.panel.is_running and not desk.panel._ticker.is_running
    desk.panel.button.click()
    assert not desk.panel.is_running
