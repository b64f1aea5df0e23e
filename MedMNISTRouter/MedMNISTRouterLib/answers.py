"""From what a graph answers to probabilities, and from these to what is said about a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedAILib.errors import InvalidWeights
from MedAILib.models.heads import Activation, Head, HeadTask
from MedMNISTRouterLib.datasets import DatasetTask
from MedMNISTRouterLib.request import Positive

DEFAULT_THRESHOLD = 0.5
_SUM_TOLERANCE = 1e-3
_SMALLEST = 1e-12

TASKS = {
    HeadTask.MULTI_CLASS: DatasetTask.MULTI_CLASS,
    HeadTask.BINARY: DatasetTask.BINARY,
    HeadTask.MULTI_LABEL: DatasetTask.MULTI_LABEL,
    HeadTask.ORDINAL: DatasetTask.ORDINAL,
}


@dataclass(frozen=True)
class Reading:
    """What an expert says about one picture; fields as in `MedMNISTRouterLib.request.Answer`."""

    predicted_class_index: int
    predicted_class_confidence: float
    all_class_probs: tuple[float, ...]
    positives: tuple[Positive, ...] = ()
    expected_grade: float | None = None


def probabilities(head: Head, answers: np.ndarray) -> np.ndarray:
    """Probabilities, calibrated where the head has a temperature.

    Parameters
    ----------
    head : Head
        ``activation`` says what is still to be applied to the answers. Where nothing is, they are probabilities
        already, and the temperature is applied to their logarithms.
    answers : ndarray, shape (images, numbers)
        One number per class; one in all for a binary head by sigmoid, then the positive class's.

    Returns
    -------
    ndarray, shape (images, classes), float64
        Rows sum to 1, but for a multi-label head.

    Raises
    ------
    InvalidWeights
        The numbers are not as many as the classes, not finite, or not the probabilities they should be.
    """
    x = np.asarray(answers, dtype=np.float64)
    classes = len(head.classes)
    single = head.task is HeadTask.BINARY and x.shape[1] == 1
    if x.shape[1] != classes and not single:
        raise _wrong(head, f"it answers {x.shape[1]} numbers for {classes} classes")
    if not np.isfinite(x).all():
        raise _wrong(head, "it answers numbers that are not finite")
    independent = single or head.task is HeadTask.MULTI_LABEL
    if head.activation is Activation.NONE:
        x = _logits(head, x, independent)
    elif (head.activation is Activation.SIGMOID) != independent:
        raise _wrong(
            head, f"{head.activation.value} does not belong to a {head.task.value} head of {x.shape[1]} numbers"
        )
    x = x / head.temperature
    found = _sigmoid(x) if independent else _softmax(x)
    if not single:
        return found
    positive = 1 if head.positive_class is None else head.positive_class
    return np.concatenate([1 - found, found] if positive == 1 else [found, 1 - found], axis=1)


def read(head: Head, row: np.ndarray) -> Reading:
    """What one picture's probabilities, shape (classes,), say."""
    best = int(row.argmax())
    names = head.class_names
    positives: tuple[Positive, ...] = ()
    if head.task is HeadTask.MULTI_LABEL:
        limits = head.thresholds or (DEFAULT_THRESHOLD if head.threshold is None else head.threshold,) * len(row)
        found = [Positive(i, names[i], float(p), limits[i]) for i, p in enumerate(row) if p >= limits[i]]
        positives = tuple(sorted(found, key=lambda item: -item.probability))
    if head.task is HeadTask.BINARY and head.threshold is not None:
        positive = 1 if head.positive_class is None else head.positive_class
        best = positive if row[positive] >= head.threshold else 1 - positive
    grade = float(row @ np.arange(len(row))) if head.task is HeadTask.ORDINAL else None
    return Reading(best, float(row[best]), tuple(float(p) for p in row), positives, grade)


def _logits(head: Head, p: np.ndarray, independent: bool) -> np.ndarray:
    """What the activation was applied to, up to a constant."""
    if p.min() < -_SUM_TOLERANCE or p.max() > 1 + _SUM_TOLERANCE:
        raise _wrong(
            head, f"its probabilities lie between {p.min():.3g} and {p.max():.3g}: they still need an activation"
        )
    if not independent and np.abs(p.sum(axis=1) - 1).max() > _SUM_TOLERANCE:
        raise _wrong(
            head, "its probabilities do not sum to 1: its classes are not exclusive, or no softmax was applied"
        )
    p = np.clip(p, _SMALLEST, 1.0)
    if not independent:
        return np.log(p)
    return np.log(p) - np.log(np.clip(1 - p, _SMALLEST, 1.0))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _wrong(head: Head, why: str) -> InvalidWeights:
    return InvalidWeights(
        f"The answers of '{head.name}' cannot be read.",
        why=f"{why[0].upper()}{why[1:]}.",
        todo="Mend 'heads' in the model's description, or get the model again.",
    )
