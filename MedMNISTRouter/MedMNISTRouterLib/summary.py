"""Answers in words and as JSON: what every face says of them, said once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import Any

from MedMNISTRouterLib.datasets import BY_FLAG, DatasetTask
from MedMNISTRouterLib.request import Answer, CacheStats, Route

RESEARCH_USE = "For research use only. No diagnosis."
NO_EXPERT = "NO_EXPERT"
"""`Answer.error_code` of a picture whose kind is known and of which no data set has images."""
_MOST_FINDINGS = 3


class State(Enum):
    """What became of a picture; the value is what to call it."""

    ANSWERED = "answered"
    NOT_RECOGNISED = "not recognised"
    NO_EXPERT = "no expert"
    FAILED = "failed"


def state_of(answer: Answer) -> State:
    if answer.success:
        return State.ANSWERED
    if answer.error_code == NO_EXPERT:
        return State.NO_EXPERT
    return State.FAILED if answer.error else State.NOT_RECOGNISED


def headline(answer: Answer) -> str:
    """The answer in a few words: the class, or that there is none."""
    state = state_of(answer)
    if state is State.ANSWERED:
        return _label(answer)
    if state is State.NO_EXPERT:
        kind = f" for: {answer.routes[0].name}" if answer.routes else ""
        return f"No expert{kind}"
    if state is State.FAILED:
        return f"No answer: {_title(answer)}" if answer.routed_dataset else "No answer"
    return "Not recognised"


def explanation(answer: Answer) -> str:
    """What stands below the headline: where it was sent, how sure that is, or why there is no label."""
    if answer.success:
        dataset = BY_FLAG[answer.routed_dataset]
        parts = [f"{dataset.title}: {dataset.shows}"]
        if answer.router_confidence is not None:
            parts.append(f"routed with {percent(answer.router_confidence)}")
        if answer.expected_grade is not None:
            parts.append(f"expected grade {answer.expected_grade:.1f}")
        return "; ".join(parts) + "."
    return answer.error or answer.reason or "It is not like the images that the models were trained on."


def calibration_text(answer: Answer) -> str:
    """Whether probabilities may be read as such; empty where there are none."""
    if not answer.success:
        return ""
    return (
        "Calibrated probabilities." if answer.calibrated else "Not calibrated: read scores as an order, not as chances."
    )


def distance_text(answer: Answer) -> str:
    """How far the picture is from those the models know; empty where that was not measured."""
    if answer.distance is None or answer.threshold is None:
        return ""
    return f"Distance from known images {answer.distance:.2f}, accepted up to {answer.threshold:.2f}."


def route_text(route: Route) -> str:
    """A route with its probability and whether its expert is there."""
    return f"{route_title(route)} {percent(route.confidence)}{absence(route)}"


def route_title(route: Route) -> str:
    """A route's data set, or the kind of image where no data set has it."""
    return BY_FLAG[route.dataset].title if route.dataset in BY_FLAG else route.name


def absence(route: Route) -> str:
    """That nobody answers on a route, in brackets; empty where its expert is there."""
    if route.is_installed:
        return ""
    return " (not installed)" if route.dataset else " (no expert)"


def percent(share: float) -> str:
    """0..1 as percent, never 0 % or 100 % where it is not."""
    if 0.0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1.0:
        return ">99.9 %"
    return f"{100.0 * share:.1f} %"


def counts_text(answers: Sequence[Answer]) -> str:
    """How many pictures got which kind of answer."""
    counts = Counter(state_of(answer) for answer in answers)
    return ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state]) or "no picture"


def answer_lines(answer: Answer) -> tuple[str, ...]:
    """An answer as lines for a terminal, the picture's name first."""
    lines = [f"{answer.image}: {headline(answer)}", f"  {explanation(answer)}"]
    if answer.success:
        shares = zip(answer.class_names, answer.all_class_probs, strict=True)
        ranked = sorted(shares, key=lambda one: -one[1])
        lines.append("  " + ", ".join(f"{name} {percent(share)}" for name, share in ranked))
    state = " ".join(part for part in (calibration_text(answer), distance_text(answer)) if part)
    lines += [f"  {state}"] if state else []
    if answer.routes:
        caption = "the router's choice, not followed" if state_of(answer) is State.NOT_RECOGNISED else "routes"
        lines.append(f"  {caption}: " + ", ".join(route_text(route) for route in answer.routes))
    return (*lines, *(f"  note: {warning}" for warning in answer.warnings))


def answer_json(answer: Answer) -> dict[str, Any]:
    """An answer as JSON values; the first six fields are those of the described service."""
    return {
        "success": answer.success,
        "routed_dataset": answer.routed_dataset or None,
        "router_confidence": answer.router_confidence,
        "predicted_class_index": answer.predicted_class_index,
        "predicted_class_confidence": answer.predicted_class_confidence,
        "all_class_probs": list(answer.all_class_probs),
        "image": answer.image,
        "predicted_class_name": answer.predicted_class_name or None,
        "class_names": list(answer.class_names),
        "task": answer.task.value if answer.task is not None else None,
        "positives": [vars(finding) for finding in answer.positives],
        "expected_grade": answer.expected_grade,
        "calibrated": answer.calibrated,
        "recognised": answer.recognised,
        "distance": answer.distance,
        "threshold": answer.threshold,
        "stage": answer.stage.value or None,
        "reason": answer.reason or None,
        "routes": [vars(route) for route in answer.routes],
        "models": [{**vars(model), "engine": model.engine.value} for model in answer.models],
        "engine": answer.engine.value if answer.engine is not None else None,
        "milliseconds": {name: round(value, 3) for name, value in answer.milliseconds.items()},
        "error": answer.error or None,
        "error_code": answer.error_code or None,
        "warnings": list(answer.warnings),
    }


def cache_json(cache: CacheStats) -> dict[str, Any]:
    return {**vars(cache), "loaded": list(cache.loaded)}


def _label(answer: Answer) -> str:
    if answer.task is not DatasetTask.MULTI_LABEL:
        return answer.predicted_class_name
    if not answer.positives:
        return f"None of {len(answer.class_names)} findings"
    names = [finding.name for finding in answer.positives]
    more = f" and {len(names) - _MOST_FINDINGS} more" if len(names) > _MOST_FINDINGS else ""
    return ", ".join(names[:_MOST_FINDINGS]) + more


def _title(answer: Answer) -> str:
    return BY_FLAG[answer.routed_dataset].title if answer.routed_dataset in BY_FLAG else answer.routed_dataset
