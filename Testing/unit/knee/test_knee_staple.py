"""Several opinions made one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from KneeAnalysisLib.staple import staple


def _opinions(seed: int, labels: int, count: int, noise: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Blocks of labels, and what observers who err now and then say of them."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, labels, (6, 6, 6)).astype(np.uint8)
    truth = blocks.repeat(4, axis=0).repeat(4, axis=1).repeat(2, axis=2)
    found = []
    for _ in range(count):
        opinion = truth.copy()
        wrong = random.random(truth.shape) < noise
        opinion[wrong] = random.integers(0, labels, int(wrong.sum()))
        found.append(opinion)
    return truth, found


@pytest.mark.parametrize("seed", range(8))
def test_three_opinions_give_the_labels_of_itk(seed: int) -> None:
    import SimpleITK

    _, opinions = _opinions(seed, labels=3 + seed, count=3, noise=0.05 + 0.06 * seed)
    method = SimpleITK.MultiLabelSTAPLEImageFilter()
    method.SetLabelForUndecidedPixels(255)
    expected = SimpleITK.GetArrayFromImage(method.Execute([SimpleITK.GetImageFromArray(o) for o in opinions]))
    found = staple(opinions)
    decided = expected != 255
    assert np.mean(found[decided] == expected[decided]) > 0.999
    assert np.array_equal(found[~decided], opinions[0][~decided])


@pytest.mark.parametrize(("count", "noise"), [(3, 0.1), (5, 0.3)])
def test_the_consensus_is_nearer_to_the_truth_than_any_opinion(count: int, noise: float) -> None:
    truth, opinions = _opinions(1, labels=10, count=count, noise=noise)
    best = max(np.mean(opinion == truth) for opinion in opinions)
    assert np.mean(staple(opinions) == truth) > best + 0.05


def test_an_unreliable_opinion_counts_less() -> None:
    truth, (good, better, bad) = _opinions(2, labels=4, count=3, noise=0.02)
    bad = np.random.default_rng(0).integers(0, 4, truth.shape).astype(np.uint8)
    assert np.mean(staple([bad, good, better]) == truth) > 0.95


def test_where_all_differ_and_all_are_as_likely_the_first_counts() -> None:
    disagreeing = [np.full((4, 4, 4), value, np.uint8) for value in (3, 1, 2)]
    assert (staple(disagreeing) == 3).all()
    assert staple([np.zeros((3, 3, 3), np.uint8)] * 3).max() == 0


@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 9)), st.integers(1, 4))
def test_opinions_that_agree_are_kept(labels: np.ndarray, count: int) -> None:
    assert np.array_equal(staple([labels] * count), labels)
