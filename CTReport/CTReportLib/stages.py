"""The stages of a report, each as long in the progress as it takes beside the others."""

from __future__ import annotations

from collections.abc import Mapping

from MedAILib.jobs.task import Context


class Stages:
    """Tells a context where a run stands.

    Parameters
    ----------
    context : Context
    weights : mapping of str to float
        The stages of this run in order, and how long each is beside the others.
    """

    def __init__(self, context: Context, weights: Mapping[str, float]) -> None:
        self._context = context
        self._name = ""
        total = sum(weights.values())
        self._spans: dict[str, tuple[float, float]] = {}
        done = 0.0
        for name, weight in weights.items():
            self._spans[name] = (done / total, (done + weight) / total)
            done += weight

    def enter(self, name: str) -> None:
        """Begin a stage; raises `Cancelled` when asked to stop."""
        self._name = name
        self._context.progress(name, self._spans[name][0])

    def within(self, share: float, detail: str = "") -> None:
        """How much of the stage is done, 0..1; raises `Cancelled` when asked to stop."""
        begin, end = self._spans[self._name]
        self._context.progress(self._name, begin + share * (end - begin), detail)

    def span(self, name: str) -> tuple[float, float]:
        """Which part of the run a stage is, as fractions."""
        return self._spans[name]
