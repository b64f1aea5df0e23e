"""What the bar charts of an answer show, as values."""

from __future__ import annotations

from MedAILib.ui.bars import Bar, BarKind
from MedMNISTRouterLib.datasets import DatasetTask
from MedMNISTRouterLib.request import Answer
from MedMNISTRouterLib.summary import absence, percent, route_title

_HEADROOM = 1.15


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
