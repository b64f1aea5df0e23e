"""The run panel that every module shares: status, the one big button, progress, message, details.

The button starts a job and turns into Cancel while it runs. A ticker looks at the job; the thread of the
user interface never waits for it. What goes wrong is said in the panel, not in a window.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import qt
from slicer.i18n import tr as _

from MedAILib.errors import Cancelled, JobError, MedAIError
from MedAILib.jobs.execute import Outcome
from MedAILib.jobs.runner import Job, JobState, ProgressListener
from MedAILib.jobs.task import Progress
from MedAILib.ui.details import Details
from MedAILib.ui.panel_message import PanelMessage
from MedAILib.ui.run_times import RunTimes, duration_text, estimate_text
from MedAILib.ui.ticker import Ticker

logger = logging.getLogger(__name__)

Start = Callable[[ProgressListener], "Job | None"]
"""Starts the job; None where the user thought better of it. May raise `MedAIError`."""
Finish = Callable[[Outcome], "str | None"]
"""Takes the outcome into the scene; answers a sentence for the user. May raise `MedAIError`."""


@dataclass(frozen=True)
class RunStatus:
    """What the status line says of the next run.

    Attributes
    ----------
    method : str
        Method or model.
    licence : str
        Of the method or the model's weights.
    device : str
        Where it will run, in words.
    amount : float
        Amount of work in the feature's own unit, for the expected time; see `RunTimes`.
    """

    method: str
    licence: str
    device: str
    amount: float = 1.0

    @property
    def way(self) -> str:
        """What decides on the speed."""
        return f"{self.method}, {self.device}"


class RunPanel:
    """Starts, shows and cancels one job at a time.

    Parameters
    ----------
    action : str
        Text of the button: a verb.
    start : callable
        See `Start`.
    finish : callable
        See `Finish`.
    times : RunTimes
    status : RunStatus
    shortcut : str
        Key sequence in Qt's spelling; empty for none.

    Attributes
    ----------
    widget : QWidget
        To be added to the module's layout.
    button : QPushButton
    details : Details
    message : PanelMessage
    on_state_changed : callable
        Called without arguments when a run has begun or ended.
    """

    def __init__(
        self,
        action: str,
        start: Start,
        finish: Finish,
        *,
        times: RunTimes,
        status: RunStatus,
        shortcut: str = "",
    ) -> None:
        self._action = action
        self._start = start
        self._finish = finish
        self._times = times
        self._status = status
        self._shortcut = shortcut
        self._missing: tuple[str, ...] = ()
        self._job: Job | None = None
        self._stage = ""
        self._seen_warnings = 0
        self._started = 0.0
        self.on_state_changed: Callable[[], None] = _nothing
        self._build()
        self._ticker = Ticker(self._tick)
        self.set_status(status)
        self._show_idle()

    def _build(self) -> None:
        self.widget = qt.QWidget()
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        self.statusLabel = qt.QLabel()
        self.statusLabel.wordWrap = True
        self.button = qt.QPushButton()
        self.button.setMinimumHeight(32)
        self.button.clicked.connect(self.toggle)
        self.progressBar = qt.QProgressBar()
        self.progressBar.setRange(0, 1000)
        self.stageLabel = qt.QLabel()
        self.stageLabel.wordWrap = True
        self.message = PanelMessage()
        self.details = Details(_("Details"))
        self.researchLabel = qt.QLabel(_("For research use only. Not a medical device."))
        self.researchLabel.wordWrap = True
        for part in (
            self.statusLabel,
            self.button,
            self.progressBar,
            self.stageLabel,
            self.message.widget,
            self.details.widget,
            self.researchLabel,
        ):
            column.addWidget(part)

    # What a module calls

    @property
    def is_running(self) -> bool:
        return self._job is not None

    def set_status(self, status: RunStatus) -> None:
        """Say what the next run will be."""
        self._status = status
        expected_s = self._times.expected_s(status.way, status.amount)
        self.statusLabel.text = _("{method} · {licence} · {device}: {time}").format(
            method=status.method,
            licence=status.licence,
            device=status.device,
            time=_("time not known yet") if expected_s is None else estimate_text(expected_s),
        )
        self.statusLabel.toolTip = _("The time on this machine is learned from your last runs.")

    def set_missing(self, missing: Sequence[str]) -> None:
        """Say what is missing before a run can start; with nothing missing the button can be pressed."""
        self._missing = tuple(missing)
        if not self.is_running:
            self._show_button()

    def toggle(self) -> None:
        """What the button does: run, or cancel what runs."""
        if self.is_running:
            self.cancel()
        else:
            self.run()

    def run(self) -> None:
        """Start the job, unless one runs or something is missing."""
        if self.is_running or self._missing:
            return
        self.message.clear()
        self.details.clear()
        self._stage = ""
        self._seen_warnings = 0
        self._started = time.monotonic()
        try:
            self._job = self._start(self._show_progress)
        except Exception as error:  # the border of the user interface
            self.show_error(error)
            return
        if self._job is None:
            return
        self._show_running()
        self._ticker.start()
        self.on_state_changed()
        self._tick()

    def cancel(self) -> None:
        """End the job now; what it has not finished is not taken over."""
        if self._job is not None:
            self._job.cancel()
            self._tick()

    def show_error(self, error: Exception) -> None:
        """Say what went wrong; of an error that we did not foresee the details have the traceback."""
        self.details.add("".join(traceback.format_exception(error)).rstrip())
        if not isinstance(error, MedAIError):
            logger.error("unexpected error", exc_info=error)
            error = JobError(
                _("Something went wrong that MedAI did not foresee."),
                why=f"{type(error).__name__}: {error}",
                todo=_("Copy the text under Details into a report of the problem."),
            )
        self.message.show_error(error)

    def close(self) -> None:
        """Cancel what runs and let go of everything; the panel does nothing from then on."""
        self._ticker.close()
        if self._job is not None:
            job, self._job = self._job, None
            job.cancel()
        self.button.clicked.disconnect(self.toggle)
        self.on_state_changed = _nothing

    # The job

    def _tick(self) -> None:
        if self._job is None:
            return
        try:
            state = self._job.poll()
        except Exception as error:  # the border of the user interface
            self._take_leave()
            self.show_error(error)
            self.on_state_changed()
            return
        self._show_warnings(self._job)
        if state is not JobState.RUNNING:
            self._end(self._take_leave())

    def _take_leave(self) -> Job:
        """The job has ended: back to a panel that can start the next one."""
        job, self._job = self._job, None
        assert job is not None
        self._ticker.stop()
        self._show_idle()
        return job

    def _end(self, job: Job) -> None:
        seconds = time.monotonic() - self._started
        try:
            outcome = job.outcome()
            note = self._finish(outcome)
        except Cancelled as cancelled:
            self.details.add(cancelled.text)
            self.message.show_note(cancelled.text)
        except Exception as error:  # the border of the user interface
            self.show_error(error)
        else:
            self._times.remember(self._status.way, seconds, self._status.amount)
            self.set_status(self._status)
            self.details.add(outcome.report.to_json())
            note = note or _("Done in {time}.").format(time=duration_text(seconds))
            self.message.show_note("\n".join([note, *job.warnings]))
        self.on_state_changed()

    # What is shown

    def _show_idle(self) -> None:
        self.progressBar.visible = False
        self.stageLabel.visible = False
        self._show_button()

    def _show_running(self) -> None:
        self.button.text = _("Cancel")
        self.button.toolTip = _("End the run now. Nothing is changed by a run that did not end.")
        self.button.enabled = True
        self.progressBar.value = 0
        self.progressBar.visible = True
        self.stageLabel.text = _("Starting")
        self.stageLabel.visible = True

    def _show_button(self) -> None:
        text = self._action
        if self._shortcut:
            sequence = qt.QKeySequence(self._shortcut)
            text = f"{text} ({sequence.toString(qt.QKeySequence.NativeText)})"
        self.button.text = text
        if self._shortcut:  # a new text takes the old shortcut away
            self.button.setShortcut(sequence)
        self.button.enabled = not self._missing
        self.button.toolTip = "\n".join(self._missing)

    def _show_progress(self, progress: Progress) -> None:
        self.progressBar.value = round(1000 * progress.fraction)
        text = ": ".join(filter(None, (progress.stage, progress.detail)))
        if progress.eta_s is not None:
            text = _("{stage}, {time} left").format(stage=text, time=estimate_text(progress.eta_s))
        self.stageLabel.text = text
        if progress.stage != self._stage:
            self._stage = progress.stage
            elapsed_s = time.monotonic() - self._started
            self.details.add(f"{elapsed_s:7.1f} s  {progress.stage}")

    def _show_warnings(self, job: Job) -> None:
        for warning in job.warnings[self._seen_warnings :]:
            self.details.add(_("Warning: {text}").format(text=warning))
        self._seen_warnings = len(job.warnings)


def _nothing() -> None:
    return
