"""What the bar charts of an answer show, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from MedMNISTRouterLib.datasets import DatasetTask
from MedMNISTRouterLib.request import Answer
from MedMNISTRouterLib.summary import absence, percent, route_title

_HEADROOM = 1.15


class BarKind(Enum):
    CHOSEN = "chosen"
    """The predicted class, a positive finding, the route that was taken."""
    OTHER = "other"
    WITHIN = "within"
    """A distance that is accepted."""
    BEYOND = "beyond"
    """A distance that is not."""


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart.

    Attributes
    ----------
    name : str
    share : float
        Length, 0..1 of the chart.
    text : str
        The value in words.
    kind : BarKind
    mark : float or None
        Place of a threshold, 0..1.
    """

    name: str
    share: float
    text: str
    kind: BarKind = BarKind.OTHER
    mark: float | None = None


def class_bars(answer: Answer) -> tuple[Bar, ...]:
    """A bar per class: ordinal ones in the order of their grades, others by probability. None without an answer."""
    thresholds = {finding.index: finding.threshold for finding in answer.positives}
    is_multi_label = answer.task is DatasetTask.MULTI_LABEL
    bars = []
    for index, (name, share) in enumerate(zip(answer.class_names, answer.all_class_probs, strict=True)):
        is_chosen = index in thresholds if is_multi_label else index == answer.predicted_class_index
        kind = BarKind.CHOSEN if is_chosen else BarKind.OTHER
        bars.append(Bar(name, share, percent(share), kind, thresholds.get(index)))
    return tuple(bars if answer.task is DatasetTask.ORDINAL else sorted(bars, key=lambda bar: -bar.share))


def route_bars(answer: Answer) -> tuple[Bar, ...]:
    """A bar per route, best first."""
    taken = next((route for route in answer.routes if route.dataset == answer.routed_dataset), None)
    return tuple(
        Bar(
            f"{route_title(route)}{absence(route)}",
            route.confidence,
            percent(route.confidence),
            BarKind.CHOSEN if answer.routed_dataset and route is taken else BarKind.OTHER,
        )
        for route in answer.routes
    )


def distance_bar(answer: Answer) -> Bar | None:
    """The distance from known images with the largest that is accepted as its mark; None where it was not measured."""
    if answer.distance is None or answer.threshold is None:
        return None
    scale = _HEADROOM * max(answer.distance, answer.threshold, 1e-9)
    kind = BarKind.WITHIN if answer.distance <= answer.threshold else BarKind.BEYOND
    text = f"{answer.distance:.2f} (limit {answer.threshold:.2f})"
    return Bar("Distance", answer.distance / scale, text, kind, answer.threshold / scale)
