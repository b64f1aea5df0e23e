"""Several opinions on the same labels made one: STAPLE for many labels, on counts instead of voxels.

Simultaneous Truth and Performance Level Estimation: Warfield, Zou, Wells 2004; for many labels Rohlfing, Russakoff,
Maurer 2004; with the start and the end of ITK's ``MultiLabelSTAPLEImageFilter``. With three opinions and more it
gives that filter's labels but for near ties; there the filter adds voxels without a majority to a wrong place of its
first confusion matrices, which is left out here.

What happens to a voxel depends only on the labels that the opinions give it. Three opinions on ten labels are a
thousand combinations, so the estimation runs on how often each occurs: milliseconds instead of a minute for a knee.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SMALLEST_UPDATE = 1e-5
"""The estimation ends when no entry of a confusion matrix changes by more."""
MOST_ROUNDS = 1000


def staple(opinions: Sequence[np.ndarray]) -> np.ndarray:
    """The most likely labels, given several opinions whose reliability per label is estimated with them.

    Where several labels are equally likely the first opinion counts.

    Parameters
    ----------
    opinions : sequence of ndarray of one shape, uint8

    Returns
    -------
    ndarray of that shape, uint8
    """
    count = max(int(opinion.max()) for opinion in opinions) + 1
    code = np.zeros(opinions[0].shape, dtype=np.int32)
    for opinion in opinions:
        code *= count
        code += opinion
    frequency = np.bincount(code.ravel(), minlength=count ** len(opinions))
    there = np.flatnonzero(frequency)
    given = np.stack(np.unravel_index(there, (count,) * len(opinions)))
    table = np.zeros(frequency.size, dtype=np.uint8)
    table[there] = _decided(given, frequency[there].astype(np.float64), count)
    return table[code]


def _decided(given: np.ndarray, frequency: np.ndarray, count: int) -> np.ndarray:
    """The label of every combination.

    Parameters
    ----------
    given : ndarray, shape (opinions, combinations), int
    frequency : ndarray, shape (combinations,), float64
    count : int
        Number of labels, the background included.
    """
    prior = np.bincount(given.ravel(), np.tile(frequency, len(given)), count)
    prior = prior / prior.sum()
    confusion = _from_votes(given, frequency, count)
    for _ in range(MOST_ROUNDS):
        updated = _update(given, frequency, _weights(given, prior, confusion))
        change = np.abs(updated - confusion).max()
        confusion = updated
        if change < SMALLEST_UPDATE:
            break
    weights = _weights(given, prior, confusion)
    is_tied = (weights == weights.max(axis=0)).sum(axis=0) > 1
    return np.where(is_tied, given[0], weights.argmax(axis=0)).astype(np.uint8)


def _weights(given: np.ndarray, prior: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    """Probability of every label for every combination, shape (labels, combinations)."""
    weights = np.repeat(prior[:, None], given.shape[1], axis=1)
    for labels, matrix in zip(given, confusion, strict=True):
        weights *= matrix[labels].T
    total = weights.sum(axis=0)
    return np.divide(weights, total, out=weights, where=total > 0)


def _update(given: np.ndarray, frequency: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How often each opinion says one label (rows) where another is true (columns): columns of sum 1."""
    found = np.zeros((len(given), len(weights), len(weights)))
    for matrix, labels in zip(found, given, strict=True):
        np.add.at(matrix, labels, (weights * frequency).T)
    total = found.sum(axis=1, keepdims=True)
    return np.divide(found, total, out=found, where=total > 0)


def _from_votes(given: np.ndarray, frequency: np.ndarray, count: int) -> np.ndarray:
    """Where to start: the majority as the truth, rows of sum 1; combinations without a majority count for nothing."""
    votes = np.zeros((count, given.shape[1]))
    for labels in given:
        votes[labels, np.arange(given.shape[1])] += 1
    has_majority = (votes == votes.max(axis=0)).sum(axis=0) == 1
    winner = votes.argmax(axis=0)
    found = np.zeros((len(given), count, count))
    for matrix, labels in zip(found, given, strict=True):
        np.add.at(matrix, (labels[has_majority], winner[has_majority]), frequency[has_majority])
    total = found.sum(axis=2, keepdims=True)
    return np.divide(found, total, out=found, where=total > 0)
