"""Multi-task prediction in a panel: a volume in, a segmentation, a table of slices and where to look out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from MedAILib.jobs.execute import Outcome
from MedAILib.jobs.runner import Job, ProgressListener
from MedAILib.ui import choose
from MedAILib.ui.run_panel import RunPanel, RunStatus
from MedAILib.ui.run_times import RunTimes

if TYPE_CHECKING:  # a panel that is only opened does without them
    from MedAILib.mrml.multitask_result import MultitaskNodes
    from MedAILib.multitask.volume_task import VolumeResult

_BUTTONS_A_ROW = 2


@dataclass(frozen=True)
class Choice:
    """A model to predict with.

    Attributes
    ----------
    title, licence : str
    checkpoint : Path
        Weight file or folder of one model.
    """

    title: str
    licence: str
    checkpoint: Path


@dataclass(frozen=True)
class Options:
    """What is under Advanced.

    Attributes
    ----------
    conditional : bool
        Segment only slices whose probability reaches the threshold.
    smallest_object_mm3 : float
    """

    conditional: bool = True
    smallest_object_mm3: float = 0.0


Start = Callable[[Any, Path, Options, ProgressListener], Job]
"""From volume node, checkpoint and options to a job that runs."""
Write = Callable[[Any, Outcome], "MultitaskNodes"]
"""Takes the outcome on a volume node into the scene."""
Jump = Callable[["VolumeResult", int], None]
"""Shows a slice of a result in the slice views."""


class MultitaskPanel:
    """Choices, run and result; what it does is in the functions it is given.

    Parameters
    ----------
    scene : vtkMRMLScene
    models : callable
        Answers the installed models that can be used.
    start, write, jump : callable
        See `Start`, `Write`, `Jump`.
    times : RunTimes

    Attributes
    ----------
    widget : QWidget
    volumeSelector : qMRMLNodeComboBox
    modelBox : QComboBox
    runPanel : RunPanel
    sliceButtons : list of QPushButton
        The most suspicious slices of the last result.
    nodes : MultitaskNodes or None
        What the last run has made.
    """

    def __init__(
        self,
        scene: Any,
        models: Callable[[], Sequence[Choice]],
        start: Start,
        write: Write,
        jump: Jump,
        times: RunTimes,
    ) -> None:
        self._models, self._start_job, self._write, self._jump = models, start, write, jump
        self._choices: list[Choice] = []
        self._files: list[Choice] = []
        self._volume: Any = None
        self.nodes: MultitaskNodes | None = None
        self.sliceButtons: list[Any] = []
        self.widget = qt.QWidget()
        status = RunStatus(_("No model"), _("no licence"), "CPU")
        self.runPanel = RunPanel(_("Predict"), self._start, self._finish, times=times, status=status)
        self._build_choices(scene)
        self._build_advanced()
        self._build_result()
        self._lay_out()
        self._choice_changed()

    def _build_choices(self, scene: Any) -> None:
        self.volumeSelector = slicer.qMRMLNodeComboBox()
        self.volumeSelector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volumeSelector.addEnabled = False
        self.volumeSelector.removeEnabled = False
        self.volumeSelector.noneEnabled = True
        self.volumeSelector.showChildNodeTypes = False
        self.volumeSelector.toolTip = _("MR volume of the head, of the kind the model was trained on.")
        self.volumeSelector.setMRMLScene(scene)
        self.volumeSelector.currentNodeChanged.connect(self._choice_changed)
        self.modelBox = qt.QComboBox()
        self.modelBox.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self.modelBox.setMinimumContentsLength(12)
        self.modelBox.toolTip = _("Installed multi-task models, and checkpoints you have chosen.")
        self.modelBox.currentIndexChanged.connect(self._choice_changed)
        self.fileButton = qt.QPushButton(_("File…"))
        self.fileButton.toolTip = _("Take a checkpoint of your own: .safetensors, or .pth that holds tensors only.")
        self.fileButton.clicked.connect(self._choose_file)

    def _build_advanced(self) -> None:
        self.advanced = ctk.ctkCollapsibleButton()
        self.advanced.text = _("Advanced")
        self.advanced.collapsed = True
        form = qt.QFormLayout(self.advanced)
        self.everySliceBox = qt.QCheckBox(_("Segment every slice, not only suspicious ones"))
        self.smallestBox = qt.QDoubleSpinBox()
        self.smallestBox.setRange(0.0, 1e6)
        self.smallestBox.suffix = " mm³"
        self.smallestBox.toolTip = _("Connected parts of the mask that are smaller are removed; 0 keeps all.")
        form.addRow(self.everySliceBox)
        form.addRow(_("Smallest part:"), self.smallestBox)

    def _build_result(self) -> None:
        self.resultLabel = qt.QLabel()
        self.resultLabel.wordWrap = True
        self.resultLabel.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        self.slicesPanel = qt.QWidget()
        self._slices_grid = qt.QGridLayout(self.slicesPanel)
        self._slices_grid.setContentsMargins(0, 0, 0, 0)

    def _lay_out(self) -> None:
        note = qt.QLabel(
            _(
                "There are no clinical weights for this network, and none are shipped: bring a model that you or "
                "your group trained (medai train multitask). Its answers are no diagnosis."
            )
        )
        note.wordWrap = True
        row = qt.QHBoxLayout()
        row.addWidget(self.modelBox, 1)
        row.addWidget(self.fileButton)
        form = qt.QFormLayout()
        form.addRow(_("Volume:"), self.volumeSelector)
        form.addRow(_("Model:"), row)
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(note)
        column.addLayout(form)
        for part in (self.runPanel.widget, self.resultLabel, self.slicesPanel, self.advanced):
            column.addWidget(part)
        self._clear_result()

    # What the hub calls

    def show_models(self) -> None:
        """Offer the models that are installed now; the chosen one stays chosen where it is still there."""
        chosen = self.choice
        self._choices = [*self._models(), *self._files]
        self.modelBox.blockSignals(True)
        self.modelBox.clear()
        for one in self._choices:
            self.modelBox.addItem(one.title)
        kept = [index for index, one in enumerate(self._choices) if chosen is not None and one == chosen]
        self.modelBox.setCurrentIndex(kept[0] if kept else min(len(self._choices), 1) - 1)
        self.modelBox.blockSignals(False)
        self._choice_changed()

    def choose_checkpoint(self, path: Path) -> None:
        """Add a checkpoint to the models and choose it."""
        title = f"{path.parent.name}/{path.name}"  # most weight files have the same name
        choice = Choice(title, _("licence of your own file"), path)
        self._files = [one for one in self._files if one.checkpoint != path] + [choice]
        self.show_models()
        self.modelBox.setCurrentIndex(len(self._choices) - 1)

    def scene_closes(self) -> None:
        """Cancel what runs and forget what belongs to the scene."""
        self.runPanel.cancel()
        self._volume = None
        self._clear_result()

    def close(self) -> None:
        self.volumeSelector.currentNodeChanged.disconnect(self._choice_changed)
        self.runPanel.close()

    # Choices

    @property
    def choice(self) -> Choice | None:
        index = self.modelBox.currentIndex
        return self._choices[index] if 0 <= index < len(self._choices) else None

    @property
    def options(self) -> Options:
        return Options(not self.everySliceBox.checked, float(self.smallestBox.value))

    def _choice_changed(self, _value: Any = None) -> None:
        missing = []
        volume, choice = self.volumeSelector.currentNode(), self.choice
        if volume is None:
            missing.append(_("Choose the volume."))
        if choice is None:
            missing.append(_("Choose a model: none is installed, File… takes a checkpoint."))
        else:
            image = volume.GetImageData() if volume is not None else None
            voxels = float(image.GetNumberOfPoints()) if image is not None else 1.0
            self.runPanel.set_status(RunStatus(choice.title, choice.licence, "CPU", voxels))
        self.runPanel.set_missing(missing)

    def _choose_file(self, _checked: bool = False) -> None:
        kinds = f"{_('Weights')} (*.safetensors *.pth *.pt *.ckpt *.bin);;{_('All files')} (*)"
        path = choose.file_to_open(self.widget, _("Checkpoint of a multi-task network"), None, kinds)
        if path is not None:
            self.choose_checkpoint(path)

    # Runs

    def _start(self, listener: ProgressListener) -> Job:
        assert self.choice is not None
        self._volume = self.volumeSelector.currentNode()
        return self._start_job(self._volume, self.choice.checkpoint, self.options, listener)

    def _finish(self, outcome: Outcome) -> str:
        volume, self._volume = self._volume, None
        self.nodes = self._write(volume, outcome)
        self._show_result(self.nodes)
        return _("'{segmentation}' and '{table}' are in the scene.").format(
            segmentation=self.nodes.segmentation.GetName(), table=self.nodes.table.GetName()
        )

    def _show_result(self, nodes: MultitaskNodes) -> None:
        self._clear_result()
        self.nodes = nodes
        self.resultLabel.text = result_text(nodes.result)
        self.resultLabel.visible = True
        by_index = {finding.index: finding for finding in nodes.result.slices}
        for place, index in enumerate(nodes.result.most_suspicious):
            finding = by_index[index]
            button = qt.QPushButton(
                _("Slice {index}: {probability}, {area} mm²").format(
                    index=index, probability=f"{finding.tumor_probability:.2f}", area=f"{finding.area_mm2:.0f}"
                )
            )
            button.toolTip = _("Show this slice; probability and area of what is segmented on it.")
            button.clicked.connect(self._jump_to(nodes.result, index))
            self._slices_grid.addWidget(button, place // _BUTTONS_A_ROW, place % _BUTTONS_A_ROW)
            self.sliceButtons.append(button)
        self.slicesPanel.visible = bool(self.sliceButtons)

    def _jump_to(self, result: VolumeResult, index: int) -> Callable[[], None]:
        return lambda: self._jump(result, index)

    def _clear_result(self) -> None:
        self.nodes = None
        for button in self.sliceButtons:
            self._slices_grid.removeWidget(button)
            button.deleteLater()
        self.sliceButtons = []
        self.resultLabel.text = ""
        self.resultLabel.visible = False
        self.slicesPanel.visible = False


def result_text(result: VolumeResult) -> str:
    """The result in a few lines."""
    count = sum(finding.suspicious for finding in result.slices)
    threshold = result.classification_threshold
    text = _("{count} of {all} slices along {axis} are suspicious").format(
        count=count, all=len(result.slices), axis=result.axis
    )
    lines = [
        f"{text}." if threshold is None else _("{text} (threshold {value:.2f}).").format(text=text, value=threshold)
    ]
    lines += [
        _("{name}: {volume:,.0f} mm³ ({ml:.1f} ml)").format(name=name, volume=volume_mm3, ml=volume_mm3 / 1000)
        for name, volume_mm3 in result.volume_mm3.items()
    ]
    if not result.calibrated:
        lines.append(_("Not calibrated: the model states no thresholds or classes of its own; they are assumed."))
    if result.most_suspicious:
        lines.append(_("Most suspicious, with probability and area:"))
    return "\n".join(lines)
