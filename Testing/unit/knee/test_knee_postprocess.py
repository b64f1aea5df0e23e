"""Cleaning of a predicted label map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from KneeAnalysisLib.labels import CANONICAL, NATIVE, LabelScheme, Tissue
from KneeAnalysisLib.postprocess import cleaned, relabelled
from MedAILib.errors import InputError

small_labels = hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 7)] * 3), elements=st.integers(0, 10))


def _ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> np.ndarray:
    return sum((g - c) ** 2 for g, c in zip(np.ogrid[tuple(map(slice, shape))], centre, strict=True)) <= radius**2


def test_the_largest_piece_of_each_tissue_stays_and_a_large_loss_is_told() -> None:
    labels = np.zeros((30, 30, 60), np.uint8)
    labels[_ball(labels.shape, (15, 15, 15), 10)] = Tissue.FEMUR
    labels[_ball(labels.shape, (15, 15, 45), 6)] = Tissue.FEMUR
    labels[0, 0, 0] = labels[20:25, 2:6, 50:] = Tissue.MEDIAL_MENISCUS
    clean = cleaned(labels)
    assert not clean.labels[:, :, 30:45].any()
    assert clean.labels[15, 15, 15] == Tissue.FEMUR
    assert clean.labels[0, 0, 0] == 0
    assert clean.removed == {
        Tissue.FEMUR: int(_ball((30, 30, 60), (15, 15, 45), 6).sum()),
        Tissue.MEDIAL_MENISCUS: 1,
    }
    assert len(clean.notes) == 1
    assert clean.notes[0].startswith("Femur: ")


def test_cavities_of_bones_are_filled_and_other_tissues_in_them_stay() -> None:
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[_ball(labels.shape, (15, 15, 15), 12)] = Tissue.TIBIA
    labels[10:13, 10:13, 10:13] = 0
    labels[11, 11, 11] = Tissue.MEDIAL_MENISCUS
    labels[2, 2, 2:8] = labels[2:8, 2, 2] = Tissue.LATERAL_MENISCUS
    clean = cleaned(labels)
    assert clean.labels[10, 10, 10] == Tissue.TIBIA
    assert clean.labels[11, 11, 11] == Tissue.MEDIAL_MENISCUS
    assert clean.filled == {Tissue.TIBIA: 26}


def test_cavities_of_cartilage_and_switched_off_steps_change_nothing() -> None:
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:9, 2:9, 2:9] = Tissue.FEMORAL_CARTILAGE
    labels[5, 5, 5] = 0
    assert cleaned(labels).labels[5, 5, 5] == 0
    labels[labels == Tissue.FEMORAL_CARTILAGE] = Tissue.FEMUR
    labels[11, 11, 11] = Tissue.FEMUR
    same = cleaned(labels, largest_component=False, fill_bone_holes=False)
    assert np.array_equal(same.labels, labels)
    assert not np.shares_memory(same.labels, labels)


@given(small_labels)
def test_cleaning_twice_changes_nothing_more_and_keeps_every_expected_tissue(labels: np.ndarray) -> None:
    before = labels.copy()
    once = cleaned(labels)
    assert np.array_equal(labels, before)
    # filling happens after the choice of pieces and joins none: a second round has nothing to do
    again = cleaned(once.labels)
    assert np.array_equal(again.labels, once.labels)
    assert set(np.unique(once.labels)) - {0} == set(np.unique(labels)) - {0}


@given(small_labels)
def test_native_labels_become_tissues_one_by_one(labels: np.ndarray) -> None:
    found = relabelled(labels, NATIVE)
    for tissue, (value, *_) in NATIVE.labels.items():
        assert np.array_equal(found == tissue, labels == value)
    assert np.array_equal(relabelled(labels, CANONICAL), labels)


def test_a_scheme_of_names_cannot_be_used_for_what_a_network_puts_out() -> None:
    with pytest.raises(InputError, match="numbers"):
        relabelled(np.zeros((1, 1, 1), np.uint8), LabelScheme("names", {Tissue.FEMUR: ("Femur",)}))
