"""How good answers are, and what makes probabilities honest: accuracy, AUC, ECE, kappa, temperature, thresholds."""

from __future__ import annotations

import numpy as np

from MedAILib.multitask.train.measures import auc
from MedMNISTRouterLib.datasets import DatasetTask

ECE_BINS = 15
_TEMPERATURES = (0.05, 20.0)
_SEARCH_STEPS = 60


def probabilities(logits: np.ndarray, task: DatasetTask, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of raw answers, shape (images, classes), float64."""
    x = np.asarray(logits, dtype=np.float64) / temperature
    if task is DatasetTask.MULTI_LABEL:
        return np.exp(-np.logaddexp(0.0, -x))
    return np.exp(x - _log_sum(x)[:, None])


def log_loss(logits: np.ndarray, labels: np.ndarray, task: DatasetTask, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the truth; labels as of `measured`."""
    x = np.asarray(logits, dtype=np.float64) / temperature
    if task is DatasetTask.MULTI_LABEL:
        return float(np.logaddexp(0.0, np.where(labels > 0, -x, x)).mean())
    return float((_log_sum(x) - x[np.arange(len(x)), labels]).mean())


def fitted_temperature(logits: np.ndarray, labels: np.ndarray, task: DatasetTask) -> float:
    """What raw answers are divided by so that the truth is most likely; 0.05 to 20.

    Notes
    -----
    Temperature scaling: Guo et al., ICML 2017, arXiv:1706.04599. The loss is convex in one over the temperature, so
    a golden-section search over its logarithm finds the one lowest point.
    """
    low, high = np.log(_TEMPERATURES)
    ratio = (np.sqrt(5.0) - 1) / 2
    for _ in range(_SEARCH_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        losses = [log_loss(logits, labels, task, float(np.exp(point))) for point in (left, right)]
        low, high = (low, right) if losses[0] <= losses[1] else (left, high)
    return float(np.exp((low + high) / 2))


def fitted_thresholds(probability: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Per class, the probability at which F1 is highest; one half where the images show no positive.

    Parameters
    ----------
    probability : ndarray, shape (images, classes)
    labels : ndarray of 0 and 1, shape (images, classes)
    """
    return tuple(_best_f1(column, truth > 0) for column, truth in zip(probability.T, labels.T, strict=True))


def _best_f1(probability: np.ndarray, truth: np.ndarray) -> float:
    if not truth.any():
        return 0.5
    order = np.argsort(-probability, kind="stable")
    values, hits = probability[order], np.cumsum(truth[order])
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # equal values cannot be parted
    f1 = 2 * hits[ends] / (ends + 1 + truth.sum())
    end = ends[int(np.argmax(f1))]
    return float((values[end] + values[end + 1]) / 2) if end + 1 < len(values) else float(values[end])


def expected_calibration_error(probability: np.ndarray, labels: np.ndarray, task: DatasetTask) -> float:
    """Mean distance between how sure and how right, over 15 bins of equal width.

    Of exclusive classes: confidence of the most probable class against how often it is right (Naeini et al., AAAI
    2015). Of a multi-label task: the probability of each label against how often it is there.
    """
    if task is DatasetTask.MULTI_LABEL:
        sure, right = probability.ravel(), (labels > 0).ravel().astype(float)
    else:
        sure, right = probability.max(axis=1), (probability.argmax(axis=1) == labels).astype(float)
    bins = np.clip(np.ceil(sure * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, sure - right, ECE_BINS)
    return float(np.abs(gaps).sum() / len(sure))


def mean_auc(probability: np.ndarray, labels: np.ndarray, task: DatasetTask) -> float | None:
    """Area under the ROC curve as MedMNIST measures it: of class 1 (binary), the labels' mean, or one against all."""
    if task is DatasetTask.BINARY:
        return auc(probability[:, 1], labels == 1)
    truth = labels > 0 if task is DatasetTask.MULTI_LABEL else labels[:, None] == np.arange(probability.shape[1])
    found = [auc(column, there) for column, there in zip(probability.T, truth.T, strict=True)]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def accuracy(probability: np.ndarray, labels: np.ndarray, task: DatasetTask) -> float:
    """Share of right answers; of a multi-label task, of all labels at one half, as MedMNIST measures it."""
    if task is DatasetTask.MULTI_LABEL:
        return float(((probability >= 0.5) == (labels > 0)).mean())
    return float((probability.argmax(axis=1) == labels).mean())


def quadratic_kappa(predicted: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Agreement of grades beyond chance, errors weighted by their square (Cohen, 1968); 1 is perfect, 0 chance."""
    observed = np.zeros((classes, classes))
    np.add.at(observed, (labels, predicted), 1)
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / max(observed.sum(), 1)
    weight = np.subtract.outer(np.arange(classes), np.arange(classes)).astype(float) ** 2
    chance = (weight * expected).sum()
    return float(1 - (weight * observed).sum() / chance) if chance else 0.0


def measured(logits: np.ndarray, labels: np.ndarray, task: DatasetTask, temperature: float) -> dict[str, float]:
    """All measures of a task.

    Parameters
    ----------
    logits : ndarray, shape (images, classes)
    labels : ndarray of int, shape (images,), or of 0 and 1, shape (images, classes) for a multi-label task
    task : DatasetTask
    temperature : float

    Returns
    -------
    dict of str to float
        ``accuracy``, ``auc`` (where there are both kinds), ``ece`` and ``ece_uncalibrated``, ``log_loss``; of two
        classes ``sensitivity`` and ``specificity`` (class 1 is the positive one), of grades ``kappa`` and
        ``mean_grade_error``.
    """
    probability = probabilities(logits, task, temperature)
    found: dict[str, float | None] = {
        "accuracy": accuracy(probability, labels, task),
        "auc": mean_auc(probability, labels, task),
        "ece": expected_calibration_error(probability, labels, task),
        "ece_uncalibrated": expected_calibration_error(probabilities(logits, task), labels, task),
        "log_loss": log_loss(logits, labels, task, temperature),
    }
    predicted = probability.argmax(axis=1)
    if task is DatasetTask.BINARY:
        for name, label in (("sensitivity", 1), ("specificity", 0)):
            there = labels == label
            found[name] = float((predicted[there] == label).mean()) if there.any() else None
    if task is DatasetTask.ORDINAL:
        grade = probability @ np.arange(probability.shape[1])
        found["kappa"] = quadratic_kappa(predicted, labels, probability.shape[1])
        found["mean_grade_error"] = float(np.abs(grade - labels).mean())
    return {name: value for name, value in found.items() if value is not None}


def _log_sum(x: np.ndarray) -> np.ndarray:
    top = x.max(axis=1)
    return top + np.log(np.exp(x - top[:, None]).sum(axis=1))
