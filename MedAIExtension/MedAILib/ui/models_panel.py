"""The models of this machine in a panel: find, get, import, export, verify, delete, and where they lie."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedAILib.errors import MedAIError
from MedAILib.jobs.execute import Outcome
from MedAILib.jobs.runner import Job, JobState, ProgressListener
from MedAILib.models.entries import ModelEntry
from MedAILib.models.manage_task import Action, LicenceQuestion, ManageRequest
from MedAILib.models.manager import DiskUse
from MedAILib.models.states import State, Status
from MedAILib.ui import choose
from MedAILib.ui.details import Details
from MedAILib.ui.model_store import ModelStore
from MedAILib.ui.model_table import ModelTable, Rows
from MedAILib.ui.model_texts import (
    delete_question,
    disk_text,
    get_obstacle,
    licence_question,
    result_text,
    summary_html,
)
from MedAILib.ui.path_line import PathLine, narrow
from MedAILib.ui.run_panel import RunPanel, RunStatus
from MedAILib.ui.run_times import RunTimes
from MedAILib.ui.ticker import Background

logger = logging.getLogger(__name__)

Start = Callable[[ManageRequest, ProgressListener], Job]
_BELOW_THE_BUTTON = 2


class ModelsPanel:
    """What it does is done by `ModelStore` and `ManageTask`; here are the choices and the words.

    Parameters
    ----------
    store : ModelStore
    start : callable
        Starts a `ManageRequest` in the worker.
    times : RunTimes

    Attributes
    ----------
    widget : QWidget
    table : ModelTable
    runPanel : RunPanel
        Its button is Get, and Cancel while anything runs.
    on_models_changed : callable
        Called without arguments when models have come or gone.
    """

    def __init__(self, store: ModelStore, start: Start, times: RunTimes) -> None:
        self._store = store
        self._start_job = start
        self._pending: ManageRequest | None = None
        self._running: tuple[ManageRequest, Job] | None = None
        self._question: LicenceQuestion | None = None
        self._measuring: Background[DiskUse] | None = None
        self.on_models_changed: Callable[[], None] = lambda: None
        self.widget = qt.QWidget()
        self.table = ModelTable(self._rows, self._show_choice)
        self.summaryLabel = qt.QLabel()
        self.summaryLabel.wordWrap = True
        self.summaryLabel.setTextFormat(qt.Qt.RichText)
        self.summaryLabel.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        self.card = Details(_("Whole card"))
        self.card.widget.contentsCollapsed.connect(self._show_card)
        self.folderLine = PathLine(_("Folder of the chosen model"))
        status = RunStatus(_("Models"), "", "")
        self.runPanel = RunPanel(_("Get"), self._start, self._finish, times=times, status=status)
        self.runPanel.on_state_changed = self._run_changed
        self._build_actions()
        self._build_store()
        self._lay_out()

    def _build_actions(self) -> None:
        self.importButton = qt.QPushButton(_("Import"))
        self.importMenu = qt.QMenu(self.importButton)
        self.importFileAction = self.importMenu.addAction(_("File, archive or bundle…"))
        self.importFolderAction = self.importMenu.addAction(_("Folder…"))
        self.importAsAction = self.importMenu.addAction(_("File of the chosen model…"))
        self.importFileAction.triggered.connect(self._import_file)
        self.importFolderAction.triggered.connect(self._import_folder)
        self.importAsAction.triggered.connect(self._import_as)
        self.importButton.setMenu(self.importMenu)
        self.importButton.toolTip = _("Install from files that are here already; they are recognised by their hashes.")
        self.exportButton = qt.QPushButton(_("Export…"))
        self.exportButton.clicked.connect(self._export)
        self.verifyButton = qt.QPushButton(_("Verify"))
        self.verifyButton.clicked.connect(self._verify)
        self.deleteButton = qt.QPushButton(_("Delete…"))
        self.deleteButton.clicked.connect(self._delete)

    def _build_store(self) -> None:
        self.storeLine = PathLine(_("Where models are kept"))
        self.changeButton = qt.QPushButton(_("Change…"))
        self.changeButton.toolTip = _("Keep models in another folder from now on; those in the old one stay there.")
        self.changeButton.clicked.connect(self._change_store)
        self.diskLabel = qt.QLabel()
        self.diskLabel.wordWrap = True

    def _lay_out(self) -> None:
        for label in (self.runPanel.statusLabel, self.runPanel.researchLabel):
            label.visible = False
        row = qt.QHBoxLayout()
        for button in (self.importButton, self.exportButton, self.verifyButton, self.deleteButton):
            narrow(button)
            row.addWidget(button)
        self.runPanel.widget.layout().insertLayout(_BELOW_THE_BUTTON, row)
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.table.widget, self.summaryLabel, self.card.widget, self.runPanel.widget):
            column.addWidget(part)
        form = qt.QFormLayout()
        form.addRow(_("Folder:"), self.folderLine.widget)
        form.addRow(_("Store:"), self.storeLine.widget)
        disk = qt.QHBoxLayout()
        disk.addWidget(self.diskLabel, 1)
        disk.addWidget(self.changeButton)
        form.addRow(_("Disk:"), disk)
        column.addLayout(form)

    # What the hub calls

    def refresh(self) -> None:
        """Show the models as they are now."""
        self.table.show()
        self.storeLine.show(self._store.home)
        self._measure()

    def select(self, model_id: str) -> None:
        """Show a model's card."""
        self.table.select([model_id])

    def close(self) -> None:
        if self._measuring is not None:
            self._measuring.close()
        self.on_models_changed = lambda: None
        self.runPanel.close()

    # What is chosen

    def _rows(self, words: str) -> Rows:
        with self._told():
            return self._store.manager.models(words)
        return ()

    def _chosen(self) -> list[tuple[ModelEntry, Status]]:
        manager = self._store.manager
        return [(manager.catalogue.entry(one), manager.state(one)) for one in self.table.selected_ids]

    def _show_choice(self) -> None:
        with self._told():
            chosen = self._chosen()
            self._show_summary(chosen)
            self._show_actions(chosen)
            self._show_card()

    def _show_summary(self, chosen: Sequence[tuple[ModelEntry, Status]]) -> None:
        if len(chosen) != 1:
            count = len(chosen)
            self.summaryLabel.text = _("{count} models chosen.").format(count=count) if count else _("No model fits.")
            self.folderLine.show(None)
            return
        entry, status = chosen[0]
        self.summaryLabel.text = summary_html(entry, status, self._store.manager.needs_acceptance(entry.id))
        self.folderLine.show(status.folder)

    def _show_actions(self, chosen: Sequence[tuple[ModelEntry, Status]]) -> None:
        obstacle = get_obstacle(*chosen[0]) if len(chosen) == 1 else _("Choose one model.")
        self.runPanel.set_missing([obstacle] if obstacle else [])
        busy = _("Wait for the run to end, or cancel it.") if self.runPanel.is_running else ""
        here = [status for _entry, status in chosen if status.folder is not None]
        usable = [status for status in here if status.is_usable]
        own = [status for status in here if not status.is_shared and status.state is not State.EMBEDDED]
        none_here = _("Choose models that are here.")
        self.importAsAction.setEnabled(len(chosen) == 1 and not chosen[0][1].is_usable)
        _allow(self.importButton, busy, _("Install from files that are here; they are recognised by their hashes."))
        _allow(
            self.exportButton,
            busy or ("" if usable and len(usable) == len(chosen) else _("Choose models that are installed.")),
            _("Pack the chosen models into one file, for a machine without a network."),
        )
        _allow(self.verifyButton, busy or ("" if here else none_here), _("Hash every file of the chosen models."))
        _allow(
            self.deleteButton,
            busy or ("" if own else _("Choose models of your own store.")),
            _("Delete the chosen models from this machine."),
        )

    def _show_card(self, _collapsed: bool = False) -> None:
        """Only where it is open: writing it takes longer than all the rest."""
        chosen = self.table.selected_ids
        if not self.card.widget.collapsed and chosen:
            with self._told():
                self.card.replace(self._store.manager.card(chosen[0]))

    # What the buttons do

    def _import_file(self) -> None:
        kinds = _("Weights, archives, bundles (*.safetensors *.pth *.pt *.h5 *.keras *.onnx *.zip *.tar *.gz)")
        path = choose.file_to_open(self.widget, _("Import a model"), None, f"{kinds};;{_('All files')} (*)")
        if path is not None:
            self._run(self._store.request(Action.IMPORT, path=path))

    def _import_folder(self) -> None:
        path = choose.folder(self.widget, _("Import models from a folder"), None)
        if path is not None:
            self._run(self._store.request(Action.IMPORT, path=path))

    def _import_as(self) -> None:
        chosen = self.table.selected_ids
        title = _("Import {name}").format(name=chosen[0])
        path = choose.file_to_open(self.widget, title, None, f"{_('All files')} (*)")
        if path is not None:
            self._run(self._store.request(Action.IMPORT, chosen, path))

    def _export(self) -> None:
        start = Path.home() / _("MedAI models.zip")
        path = choose.file_to_save(self.widget, _("Export models"), start, f"{_('Bundle')} (*.zip)")
        if path is not None:
            path = path if path.suffix else path.with_suffix(".zip")
            self._run(self._store.request(Action.EXPORT, self.table.selected_ids, path))

    def _verify(self) -> None:
        here = [entry.id for entry, status in self._chosen() if status.folder is not None]
        self._run(self._store.request(Action.VERIFY, here))

    def _delete(self) -> None:
        chosen = [(entry, status) for entry, status in self._chosen() if status.folder and not status.is_shared]
        chosen = [(entry, status) for entry, status in chosen if status.state is not State.EMBEDDED]
        size = sum(status.bytes_here for _entry, status in chosen)
        if slicer.util.confirmOkCancelDisplay(delete_question([entry.title for entry, _status in chosen], size)):
            self._run(self._store.request(Action.REMOVE, [entry.id for entry, _status in chosen]))

    def _change_store(self) -> None:
        path = choose.folder(self.widget, _("Where models are kept"), self._store.home)
        if path is not None:
            with self._told():
                self._store.set_home(path)
                self.refresh()
                self.on_models_changed()

    # Runs

    def _run(self, request: ManageRequest) -> None:
        self._pending = request
        self.runPanel.set_missing([])  # what Get lacks does not matter to the others
        self.runPanel.run()
        self._show_choice()

    def _start(self, listener: ProgressListener) -> Job | None:
        request, self._pending = self._pending or self._get_request(), None
        self._running = None
        if request is None:
            return None
        self._running = request, self._start_job(request, listener)
        return self._running[1]

    def _get_request(self) -> ManageRequest | None:
        """For the chosen model; None where its licence was shown and not accepted."""
        (model_id,) = self.table.selected_ids
        manager = self._store.manager
        if not manager.needs_acceptance(model_id):
            return self._store.request(Action.GET, (model_id,))
        if not _is_accepted(manager.licence(model_id)):
            return None
        return self._store.request(Action.GET, (model_id,), accepted=(model_id,))

    def _finish(self, outcome: Outcome) -> str:
        self._question = outcome.result.question
        return result_text(outcome.result)

    def _run_changed(self) -> None:
        running, question = self._running, self._question
        if self.runPanel.is_running or running is None:
            self.runPanel.button.toolTip = _("Stop now. What has arrived of a download is kept for the next try.")
            self._show_choice()
            return
        self._running = self._question = None
        request, job = running
        self._store.refresh()  # a bundle may have brought models that no catalogue knew
        self.refresh()
        self.on_models_changed()
        if request.action is Action.GET and job.state is JobState.CANCELLED:
            self.runPanel.message.show_note(_("Cancelled. What has arrived is kept: Get goes on from there."))
        if question is not None and _is_accepted(question.text):
            self._run(replace(request, accepted=(*request.accepted, question.model_id)))

    # The disk

    def _measure(self) -> None:
        """Count bytes without making anyone wait."""
        if self._measuring is not None:
            self._measuring.close()
        self.diskLabel.text = _("measuring …")
        self._measuring = Background(self._store.manager.disk_use, self._show_disk, self._show_no_disk)

    def _show_disk(self, use: DiskUse) -> None:
        self.diskLabel.text = disk_text(use)

    def _show_no_disk(self, error: Exception) -> None:
        logger.warning("the disk use of the models is not known", exc_info=error)
        self.diskLabel.text = _("not known: {reason}").format(reason=error)

    @contextmanager
    def _told(self) -> Any:
        """What goes wrong within is said in the panel."""
        try:
            yield
        except MedAIError as error:
            self.runPanel.show_error(error)


def _is_accepted(licence: str) -> bool:
    return bool(slicer.util.confirmYesNoDisplay(licence_question(licence), windowTitle=_("Licence")))


def _allow(button: qt.QPushButton, obstacle: str, tip: str) -> None:
    button.enabled = not obstacle
    button.toolTip = obstacle or tip
