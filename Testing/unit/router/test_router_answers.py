"""From a graph's numbers to probabilities and answers: every task, every activation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedAILib.errors import InvalidWeights
from MedAILib.models.heads import Activation, ClassInfo, Head, HeadTask
from MedMNISTRouterLib.answers import probabilities, read

LOGITS = np.random.default_rng(0).normal(0, 3, (5, 4))


def head(task: HeadTask, classes: int = 4, activation: Activation = Activation.SOFTMAX, **more: object) -> Head:
    names = tuple(ClassInfo(index, f"class {index}") for index in range(classes))
    return Head("h", task, names, activation, **more)  # type: ignore[arg-type]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@given(temperature=st.floats(0.2, 8))
def test_a_temperature_means_the_same_for_logits_and_for_probabilities(temperature: float) -> None:
    raw = head(HeadTask.MULTI_CLASS, temperature=temperature)
    done = head(HeadTask.MULTI_CLASS, activation=Activation.NONE, temperature=temperature)

    assert probabilities(raw, LOGITS) == pytest.approx(softmax(LOGITS / temperature))
    assert probabilities(done, softmax(LOGITS)) == pytest.approx(probabilities(raw, LOGITS), rel=1e-6)


@given(temperature=st.floats(0.2, 8))
def test_findings_of_a_multi_label_head_are_independent(temperature: float) -> None:
    expected = 1 / (1 + np.exp(-LOGITS / temperature))
    raw = head(HeadTask.MULTI_LABEL, activation=Activation.SIGMOID, temperature=temperature)
    done = head(HeadTask.MULTI_LABEL, activation=Activation.NONE, temperature=temperature)

    assert probabilities(raw, LOGITS) == pytest.approx(expected)
    assert probabilities(done, 1 / (1 + np.exp(-LOGITS))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("positive", [None, 1, 0])
def test_a_binary_head_of_one_number_answers_both_classes(positive: int | None) -> None:
    found = probabilities(head(HeadTask.BINARY, 2, Activation.SIGMOID, positive_class=positive), np.array([[2.0]]))
    p = 1 / (1 + np.exp(-2.0))

    assert found[0] == pytest.approx([p, 1 - p] if positive == 0 else [1 - p, p])


def test_enormous_logits_overflow_nothing() -> None:
    with np.errstate(all="raise", under="ignore"):
        found = probabilities(head(HeadTask.MULTI_LABEL, activation=Activation.SIGMOID), LOGITS * 1e6)
        rows = probabilities(head(HeadTask.MULTI_CLASS), LOGITS * 1e6)
    assert ((found >= 0) & (found <= 1)).all()
    assert rows.sum(axis=1) == pytest.approx(1)


def test_every_finding_from_its_own_threshold_on_is_listed_most_probable_first() -> None:
    reading = read(
        head(HeadTask.MULTI_LABEL, activation=Activation.SIGMOID, thresholds=(0.5, 0.2, 0.9, 0.3)),
        np.array([0.4, 0.3, 0.8, 0.35]),
    )

    assert [(item.name, item.threshold) for item in reading.positives] == [("class 3", 0.3), ("class 1", 0.2)]
    assert reading.predicted_class_index == 2
    assert sum(reading.all_class_probs) == pytest.approx(1.85)


def test_no_finding_is_an_answer_too() -> None:
    assert read(head(HeadTask.MULTI_LABEL, activation=Activation.SIGMOID), np.full(4, 0.1)).positives == ()


def test_an_ordinal_head_answers_the_expected_grade() -> None:
    reading = read(head(HeadTask.ORDINAL), np.array([0.1, 0.2, 0.3, 0.4]))

    assert reading.expected_grade == pytest.approx(2.0)
    assert reading.predicted_class_index == 3


def test_a_binary_head_decides_at_its_threshold() -> None:
    row = np.array([0.7, 0.3])
    assert read(head(HeadTask.BINARY, 2, threshold=0.25), row).predicted_class_index == 1
    assert read(head(HeadTask.BINARY, 2, threshold=0.35), row).predicted_class_index == 0
    assert read(head(HeadTask.BINARY, 2), row).predicted_class_index == 0


@pytest.mark.parametrize(
    ("of", "answers", "words"),
    [
        (head(HeadTask.MULTI_CLASS), LOGITS[:, :3], "3 numbers for 4 classes"),
        (head(HeadTask.MULTI_CLASS, activation=Activation.NONE), LOGITS, "still need an activation"),
        (head(HeadTask.MULTI_CLASS, activation=Activation.NONE), np.full((2, 4), 0.9), "do not sum to 1"),
        (head(HeadTask.MULTI_CLASS), np.array([[0, 1, np.nan, 2]]), "not finite"),
        (head(HeadTask.MULTI_CLASS, activation=Activation.SIGMOID), LOGITS, "does not belong"),
    ],
)
def test_numbers_that_cannot_be_what_the_head_says_are_refused(of: Head, answers: np.ndarray, words: str) -> None:
    with pytest.raises(InvalidWeights, match=words):
        probabilities(of, answers)
