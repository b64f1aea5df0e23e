"""Which segment is which tissue: a row per tissue, filled in from the segments' names where these tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from KneeAnalysisLib.labels import EXPECTED, Tissue
from KneeAnalysisLib.nnunetfolder import tissue_named


class MappingPanel:
    """Shows the segments of a segmentation beside the tissues.

    Parameters
    ----------
    changed : callable
        Called without arguments when the user chooses another segment.

    Attributes
    ----------
    widget : QWidget
        To be added to the module's layout.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._ids: list[str] = []
        self.widget = qt.QWidget()
        form = qt.QFormLayout(self.widget)
        form.setContentsMargins(0, 0, 0, 0)
        self.boxes: dict[Tissue, Any] = {}
        for tissue in EXPECTED:
            box = qt.QComboBox()
            box.toolTip = _("The segment that is this tissue.")
            box.setMinimumContentsLength(8)
            box.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
            box.currentIndexChanged.connect(self._chosen)
            self.boxes[tissue] = box
            form.addRow(f"{tissue.title}:", box)

    def show(self, segments: list[tuple[str, str]]) -> None:
        """Offer segments, each an id and a name; what their names say is chosen."""
        self._ids = ["", *(segment_id for segment_id, _name in segments)]
        named = {tissue_named(name): index for index, (_id, name) in enumerate(segments, start=1)}
        for tissue, box in self.boxes.items():
            box.blockSignals(True)
            box.clear()
            box.addItem(_("none"))
            for _id, name in segments:
                box.addItem(name)
            box.setCurrentIndex(named.get(tissue, 0))
            box.blockSignals(False)
        self._changed()

    def labels(self) -> dict[str, str]:
        """The segment's id of every tissue that has one, by tissue key."""
        chosen = {tissue.key: self._ids[box.currentIndex] for tissue, box in self.boxes.items() if self._ids}
        return {key: segment_id for key, segment_id in chosen.items() if segment_id}

    def _chosen(self, _index: int = 0) -> None:
        self._changed()
