"""How good answers are, and what makes probabilities honest: AUC, Dice, temperature, threshold."""

from __future__ import annotations

import numpy as np


def auc(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Area under the ROC curve: how often a positive scores above a negative, ties half; None without both kinds.

    Parameters
    ----------
    scores : ndarray, shape (n,)
    truth : ndarray, shape (n,), bool
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two bool masks, 0..1; 1 where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 1.0


def fitted_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """What raw outputs are divided by so that the truth is most likely; 0.05 to 20.

    Parameters
    ----------
    logits : ndarray, shape (n, 2)
    truth : ndarray, shape (n,), bool

    Notes
    -----
    Temperature scaling: Guo et al., ICML 2017, arXiv:1706.04599. One number, found by golden-section search over
    its logarithm, in which the likelihood has one peak.
    """
    margin = np.where(truth, 1.0, -1.0) * (logits[:, 1] - logits[:, 0]).astype(np.float64)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -margin / np.exp(log_temperature)).mean())

    low, high, ratio = np.log(0.05), np.log(20.0), (np.sqrt(5.0) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def fitted_threshold(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The probability at which sensitivity plus specificity is highest (Youden 1950), midway between two slices.

    Parameters
    ----------
    probabilities : ndarray, shape (n,)
        Of a tumour.
    truth : ndarray, shape (n,), bool
        Of both kinds.
    """
    values = np.unique(probabilities)
    candidates = np.concatenate([[values[0]], (values[:-1] + values[1:]) / 2])
    positive, negative = np.sort(probabilities[truth]), np.sort(probabilities[~truth])
    missed = np.searchsorted(positive, candidates, "left") / len(positive)
    alarms = 1.0 - np.searchsorted(negative, candidates, "left") / len(negative)
    return float(candidates[np.argmin(missed + alarms)])
