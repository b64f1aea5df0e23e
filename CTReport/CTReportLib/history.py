"""The states that a report of the scene had before its last runs and edits."""

from __future__ import annotations

from typing import Any

from CTReportLib.scene_report import SceneReport, Snapshot

KEPT_STATES = 5
"""How many runs and edits of a report can be undone."""


class History:
    """Snapshots by report; by the text node itself, as a new scene gives the same ids again."""

    def __init__(self) -> None:
        self._states: dict[Any, list[Snapshot]] = {}

    def remember(self, report: SceneReport, before: Snapshot) -> None:
        """Keep a state, and forget the oldest where there are too many."""
        states = self._states.setdefault(report.text, [])
        states.append(before)
        del states[:-KEPT_STATES]

    def restore(self, report: SceneReport) -> bool:
        """Back to the state before; False where there is none."""
        states = self._states.get(report.text)
        if not states:
            return False
        states.pop().restore()
        return True

    def can_restore(self, report: SceneReport) -> bool:
        return bool(self._states.get(report.text))

    def clear(self) -> None:
        """Free what is kept."""
        self._states.clear()
