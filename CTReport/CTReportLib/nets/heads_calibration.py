"""From a head's raw numbers to probabilities that mean what they say, and thresholds: fitted on held-out volumes.

    fitted = fit_calibration(raw, labels)                      # held-out volumes, not learned from
    head = described(head, fitted)                              # goes into model_config.json
    probability = probabilities(head, raw_of_a_new_volume)

Each finding gets a slope and an intercept of its own (Platt 1999, with his smoothed targets, fitted by Newton's method
as in Lin, Lin and Weng, Machine Learning 68, 2007). A finding of which too few volumes are positive or negative, or
whose numbers do not rise with it, gets the one slope that serves all findings together and is marked not calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from MedAILib.errors import InputError
from MedAILib.models.heads import Activation, Head, HeadTask

UNKNOWN = -1
"""Label of a finding that nobody looked for."""
FEWEST = 10
"""Positive, and negative, volumes that a calibration of one finding needs."""
BINS = 10
"""Of equal width, for the expected calibration error."""
UNDECIDED = 0.5
"""Threshold of a finding that could not be calibrated."""

_STEPS = 100
_SMALLEST_STEP = 1e-10
_RIDGE = 1e-9
_SLOPES = (1e-3, 1e3)
"""Of all findings together, searched between."""


@dataclass(frozen=True)
class FindingCalibration:
    """How raw numbers of one finding become probabilities.

    Attributes
    ----------
    slope, intercept : float
        Probability = sigmoid(slope x raw + intercept).
    threshold : float
        Probability from which the finding is taken as present.
    calibrated : bool
        False: slope of all findings together, threshold `UNDECIDED`.
    positives, negatives : int
        Volumes it was fitted on.
    error_before, error_after : float
        Expected calibration error (mean gap of probability and frequency over `BINS` bins) on the very same volumes,
        so ``error_after`` is better than on new ones; NaN without volumes.
    """

    slope: float
    intercept: float
    threshold: float
    calibrated: bool
    positives: int
    negatives: int
    error_before: float
    error_after: float


def fit_calibration(
    raw: np.ndarray, labels: np.ndarray, *, sensitivity: float | None = None, fewest: int = FEWEST
) -> tuple[FindingCalibration, ...]:
    """Fit slope, intercept and threshold of every finding.

    Parameters
    ----------
    raw : numpy.ndarray
        Raw numbers of held-out volumes, shape (volumes, findings).
    labels : numpy.ndarray
        1 present, 0 absent, `UNKNOWN`; same shape.
    sensitivity : float, optional
        Share of the positive volumes that a threshold must find, above 0 to 1; the largest such threshold is taken.
        None: the threshold of the best F1.
    fewest : int
        Positive, and negative, volumes that a finding needs.

    Raises
    ------
    InputError
        Shapes that differ, values that are no numbers, labels that are none, or a sensitivity outside its range.
    """
    raw, labels = _checked(raw, labels, sensitivity)
    known = labels != UNKNOWN
    common = _common_slope(raw[known], labels[known]) if known.any() else 1.0
    return tuple(
        _fit_one(raw[known[:, i], i], labels[known[:, i], i], common, sensitivity, fewest) for i in range(raw.shape[1])
    )


def described(head: Head, fitted: tuple[FindingCalibration, ...]) -> Head:
    """The description of a multi-label head with its calibration and thresholds.

    Raises
    ------
    InputError
        The head is no multi-label one, or has another number of classes.
    """
    if head.task is not HeadTask.MULTI_LABEL or len(head.classes) != len(fitted):
        raise InputError(
            f"The calibration of {len(fitted)} findings does not belong to the head '{head.name}' "
            f"({head.task.value}, {len(head.classes)} classes).",
            todo="Calibrate each multi-label head on its own answers.",
        )
    volumes = max((item.positives + item.negatives for item in fitted), default=0)
    any_calibrated = any(item.calibrated for item in fitted)
    left = [name for name, item in zip(head.class_names, fitted, strict=True) if not item.calibrated]
    return replace(
        head,
        activation=Activation.SIGMOID,
        temperature=1.0,
        slopes=tuple(item.slope for item in fitted),
        intercepts=tuple(item.intercept for item in fitted),
        thresholds=tuple(item.threshold for item in fitted),
        calibrated_on=f"up to {volumes} held-out volumes per finding, not learned from" if any_calibrated else "",
        uncalibrated=tuple(left) if any_calibrated else (),
    )


def probabilities(head: Head, raw: np.ndarray) -> np.ndarray:
    """Probabilities after the head's description, float64, of the shape of ``raw``.

    Parameters
    ----------
    head : Head
        Multi-label.
    raw : numpy.ndarray
        The network's numbers, shape (..., findings), in the order of the head's classes.

    Raises
    ------
    InputError
        Another number of findings, or values that are no numbers.
    """
    values = np.asarray(raw, dtype=np.float64)
    if values.shape[-1:] != (len(head.classes),) or not np.isfinite(values).all():
        raise InputError(
            f"The head '{head.name}' of {len(head.classes)} findings cannot have answered numbers of shape "
            f"{values.shape}, all of them finite: {bool(np.isfinite(values).all())}.",
            todo="Take network and description from the same model.",
        )
    values = values / head.temperature
    if head.slopes:
        values = values * head.slopes + head.intercepts
    return _sigmoid(values)


def calibration_error(probability: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: gap of mean probability and frequency in each bin, weighted by its volumes.

    Parameters
    ----------
    probability, labels : numpy.ndarray
        Shape (volumes,); labels 0 or 1. NaN where there are none.
    """
    if not len(labels):
        return float("nan")
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=probability - labels, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def _fit_one(
    raw: np.ndarray, labels: np.ndarray, common: float, sensitivity: float | None, fewest: int
) -> FindingCalibration:
    positives = int(labels.sum())
    negatives = len(labels) - positives
    slope, intercept, calibrated = common, 0.0, False
    if min(positives, negatives) >= fewest:
        own = _platt(raw, labels)
        if own[0] > 0:
            (slope, intercept), calibrated = own, True
    found = _sigmoid(slope * raw + intercept)
    threshold = _threshold(found, labels, sensitivity) if calibrated else UNDECIDED
    before = calibration_error(_sigmoid(raw), labels)
    after = calibration_error(found, labels)
    return FindingCalibration(slope, intercept, threshold, calibrated, positives, negatives, before, after)


def _platt(raw: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the largest likelihood for Platt's targets, which keep both finite."""
    positives = labels.sum()
    wanted = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    centre, spread = raw.mean(), raw.std() or 1.0
    design = np.stack([(raw - centre) / spread, np.ones_like(raw)], axis=1)
    weights = np.array([0.0, np.log((positives + 1) / (len(labels) - positives + 1))])
    loss = _loss(design @ weights, wanted)
    for _ in range(_STEPS):
        chance = _sigmoid(design @ weights)
        slope = design.T @ (chance - wanted)
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + _RIDGE * np.eye(2)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while (new := _loss(design @ (weights - size * step), wanted)) > loss and size > _SMALLEST_STEP:
            size /= 2
        if not loss - new > _SMALLEST_STEP * (1 + abs(loss)):
            break
        weights, loss = weights - size * step, new
    return float(weights[0] / spread), float(weights[1] - weights[0] * centre / spread)


def _common_slope(raw: np.ndarray, labels: np.ndarray) -> float:
    """One over the temperature of the largest likelihood for all findings together; golden section, in logarithms."""
    golden = (5**0.5 - 1) / 2
    low, high = np.log(_SLOPES)
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if _loss(np.exp(left) * raw, labels) < _loss(np.exp(right) * raw, labels):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def _threshold(probability: np.ndarray, labels: np.ndarray, sensitivity: float | None) -> float:
    """Half way between two neighbouring probabilities; the larger of equally good ones."""
    order = np.argsort(-probability, kind="stable")
    sorted_found, hits = probability[order], labels[order].cumsum()
    ends = np.flatnonzero(np.append(np.diff(sorted_found) < 0, True))  # equal ones are taken together
    hits, taken, positives = hits[ends], ends + 1, labels.sum()
    if sensitivity is None:
        best = int(np.argmax(2 * hits / (taken + positives)))
    else:
        best = int(np.argmax(hits >= sensitivity * positives - _SMALLEST_STEP))
    here = sorted_found[ends[best]]
    following = sorted_found[ends[best] + 1] if ends[best] + 1 < len(sorted_found) else 0.0
    return float((here + following) / 2)


def _loss(raw: np.ndarray, wanted: np.ndarray) -> float:
    return float((np.logaddexp(0, raw) - wanted * raw).sum())


def _sigmoid(raw: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -raw))


def _checked(raw: np.ndarray, labels: np.ndarray, sensitivity: float | None) -> tuple[np.ndarray, np.ndarray]:
    raw, labels = np.asarray(raw, dtype=np.float64), np.asarray(labels)
    problems = []
    if raw.ndim != 2 or raw.shape != labels.shape:
        problems.append(f"raw numbers have the shape {raw.shape}, labels {labels.shape}")
    if not np.isfinite(raw).all():
        problems.append("some raw numbers are not finite")
    if not np.isin(labels, (0, 1, UNKNOWN)).all():
        problems.append(f"labels must be 0, 1 or {UNKNOWN}")
    if sensitivity is not None and not 0 < sensitivity <= 1:
        problems.append(f"the sensitivity must be above 0 and at most 1, not {sensitivity}")
    if problems:
        raise InputError(
            "The findings cannot be calibrated.", why=f"{'; '.join(problems)}.", todo="Give (volumes, findings)."
        )
    return raw, labels.astype(np.int64)
