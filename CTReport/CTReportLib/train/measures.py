"""How good answers are: of findings per scan, of drawings, of reports; with intervals by bootstrap over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from CTReportLib.nets.heads_calibration import UNKNOWN, calibration_error
from MedAILib.multitask.train.measures import auc

BOOTSTRAPS = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class FindingScore:
    """How well a finding is told; None: it needs scans of both kinds, or there are none.

    Attributes
    ----------
    finding : str
    positives, negatives : int
        Scans; those of which nothing is known are left out.
    auroc, auroc_low, auroc_high : float or None
        With the interval that holds 95 % of the bootstraps over patients.
    average_precision, f1, sensitivity, specificity : float or None
        The last three at the head's own threshold.
    calibration_error : float or None
        Expected, over ten bins.
    calibrated : bool
        Whether the head says that its probabilities are.
    threshold : float
    """

    finding: str
    positives: int
    negatives: int
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    average_precision: float | None
    f1: float | None
    sensitivity: float | None
    specificity: float | None
    calibration_error: float | None
    calibrated: bool
    threshold: float


@dataclass(frozen=True)
class DrawingScore:
    """How well a finding is drawn.

    Attributes
    ----------
    finding : str
    scans : int
        In which it is.
    dice, dice_low, dice_high : float or None
        Mean over these scans.
    volume_error_ml : float or None
        Mean of drawn minus true.
    absolute_volume_error_ml : float or None
        Mean.
    false_alarms : int
        Scans without it in which something was drawn.
    scans_without : int
    """

    finding: str
    scans: int
    dice: float | None
    dice_low: float | None
    dice_high: float | None
    volume_error_ml: float | None
    absolute_volume_error_ml: float | None
    false_alarms: int
    scans_without: int


def finding_score(
    name: str,
    probability: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[str],
    threshold: float,
    *,
    calibrated: bool,
    seed: int = 0,
) -> FindingScore:
    """Score one finding.

    Parameters
    ----------
    name : str
    probability : ndarray, shape (scans,)
    labels : ndarray, shape (scans,)
        1, 0 or `UNKNOWN`.
    patients : sequence of str
        Of the scans: those of a patient are drawn together.
    threshold : float
        Probability from which it is taken as present.
    """
    known = labels != UNKNOWN
    chance, truth = probability[known], labels[known] == 1
    groups = np.array(list(patients), dtype=object)[known]
    told = chance >= threshold
    hits, positives, negatives = int((told & truth).sum()), int(truth.sum()), int((~truth).sum())
    low, high = interval(lambda rows: auc(chance[rows], truth[rows]), groups, seed)
    return FindingScore(
        finding=name,
        positives=positives,
        negatives=negatives,
        auroc=auc(chance, truth),
        auroc_low=low,
        auroc_high=high,
        average_precision=average_precision(chance, truth),
        f1=2 * hits / (int(told.sum()) + positives) if positives else None,
        sensitivity=hits / positives if positives else None,
        specificity=int((~told & ~truth).sum()) / negatives if negatives else None,
        calibration_error=calibration_error(chance, truth.astype(float)) if len(chance) else None,
        calibrated=calibrated,
        threshold=threshold,
    )


def drawing_score(
    name: str, dices: Sequence[float], errors_ml: Sequence[float], alarms: Sequence[bool], seed: int = 0
) -> DrawingScore:
    """Sum up the drawings of a finding: Dice and volume error of scans with it, false alarms of those without."""
    values = np.array(dices, dtype=float)

    def mean(rows: np.ndarray) -> float | None:
        return float(values[rows].mean())

    low, high = interval(mean, np.arange(len(values)), seed) if len(values) else (None, None)
    return DrawingScore(
        finding=name,
        scans=len(values),
        dice=float(values.mean()) if len(values) else None,
        dice_low=low,
        dice_high=high,
        volume_error_ml=float(np.mean(errors_ml)) if len(values) else None,
        absolute_volume_error_ml=float(np.mean(np.abs(errors_ml))) if len(values) else None,
        false_alarms=int(sum(alarms)),
        scans_without=len(alarms),
    )


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Mean precision at the scores of the positives, equal scores taken together; None without a positive.

    Parameters
    ----------
    scores : ndarray, shape (n,)
    truth : ndarray, shape (n,), bool
    """
    if not truth.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) < 0, True))
    hits = np.cumsum(truth[order])[ends]
    recall = np.diff(hits, prepend=0) / truth.sum()
    return float((recall * hits / (ends + 1)).sum())


def interval(
    score: Callable[[np.ndarray], float | None], groups: np.ndarray, seed: int
) -> tuple[float | None, float | None]:
    """Percentiles of a score over bootstraps of groups (Efron and Tibshirani 1993); None where it has none.

    Parameters
    ----------
    score : callable
        Of the rows that are drawn, some of them more than once.
    groups : ndarray, shape (n,)
        Rows of one group are drawn together.
    """
    names, member = np.unique(groups.astype(str), return_inverse=True)
    rows = [np.flatnonzero(member == number) for number in range(len(names))]
    if not rows:
        return None, None
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(BOOTSTRAPS):
        drawn = rng.integers(0, len(rows), len(rows))
        value = score(np.concatenate([rows[number] for number in drawn]))
        if value is not None:
            found.append(value)
    if len(found) < BOOTSTRAPS // 2:
        return None, None
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(low), float(high)


def label_f1(pairs: Sequence[tuple[frozenset[str], frozenset[str]]]) -> tuple[float | None, dict[str, float]]:
    """F1 of label sets, generated and of the reference: mean over the findings that occur, and of each.

    Source: the label-set part of NV-Reason-CT's reward (arXiv 2609.27511), averaged over findings as CT-RATE does.
    """
    each = {}
    for name in sorted({name for pair in pairs for labels in pair for name in labels}):
        both = sum(name in ours and name in theirs for ours, theirs in pairs)
        either = sum((name in ours) + (name in theirs) for ours, theirs in pairs)
        each[name] = 2 * both / either
    return (float(np.mean(list(each.values()))) if each else None), each


def structure_score(text: str, sections: Sequence[str]) -> float:
    """Share of the sections that a report has, in their order: those out of order do not count."""
    place, found = 0, 0
    lowered = text.lower()
    for title in sections:
        at = lowered.find(title.lower(), place)
        if at >= 0:
            place, found = at + len(title), found + 1
    return found / len(sections) if sections else 1.0
