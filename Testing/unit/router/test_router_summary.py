"""What is said of answers: words, bars, rows and JSON agree with each other."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from router_answers import (
    ALL,
    BROKEN,
    FINDINGS,
    GRADE,
    KIND_WITHOUT_EXPERT,
    NO_FINDING,
    NOT_INSTALLED,
    PNEUMONIA,
    TURNED_AWAY,
)

from MedAILib.ui.bars import BarKind
from MedMNISTRouterLib.bars import class_bars, distance_bar, route_bars
from MedMNISTRouterLib.command import exit_status, failures
from MedMNISTRouterLib.summary import (
    State,
    answer_json,
    answer_lines,
    calibration_text,
    counts_text,
    explanation,
    headline,
    percent,
    state_of,
)
from MedMNISTRouterLib.table import COLUMNS, csv_bytes, row_of

ISSUE_FIELDS = [
    "success",
    "routed_dataset",
    "router_confidence",
    "predicted_class_index",
    "predicted_class_confidence",
    "all_class_probs",
]


def test_json_starts_with_the_fields_of_the_described_service() -> None:
    found = answer_json(PNEUMONIA)
    assert list(found)[:6] == ISSUE_FIELDS
    assert [found[name] for name in ISSUE_FIELDS] == [True, "pneumoniamnist", 0.98, 1, 0.973, [0.027, 0.973]]
    assert found["predicted_class_name"] == "pneumonia"
    assert found["routes"][0] == {
        "name": "chest radiograph",
        "dataset": "pneumoniamnist",
        "confidence": 0.98,
        "is_installed": True,
    }


@pytest.mark.parametrize("answer", ALL, ids=lambda answer: state_of(answer).value)
def test_every_answer_is_valid_json_and_a_row(answer) -> None:
    json.loads(json.dumps(answer_json(answer), allow_nan=False))
    row = row_of(answer)
    assert row.state == state_of(answer).value
    assert all(isinstance(line, str) and line for line in answer_lines(answer))


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        (PNEUMONIA, State.ANSWERED, "pneumonia"),
        (FINDINGS, State.ANSWERED, "atelectasis, effusion"),
        (NO_FINDING, State.ANSWERED, "None of 14 findings"),
        (GRADE, State.ANSWERED, "grade 2"),
        (TURNED_AWAY, State.NOT_RECOGNISED, "Not recognised"),
        (KIND_WITHOUT_EXPERT, State.NO_EXPERT, "No expert for: head CT"),
        (NOT_INSTALLED, State.FAILED, "No answer: BloodMNIST"),
        (BROKEN, State.FAILED, "No answer"),
    ],
)
def test_the_headline_says_what_became_of_the_picture(answer, state: State, said: str) -> None:
    assert (state_of(answer), headline(answer)) == (state, said)


def test_a_picture_without_an_answer_never_shows_a_class() -> None:
    for answer in (TURNED_AWAY, KIND_WITHOUT_EXPERT, NOT_INSTALLED, BROKEN):
        assert class_bars(answer) == ()
        assert calibration_text(answer) == ""
        assert row_of(answer).class_name == "" and row_of(answer).class_index is None


def test_what_is_not_calibrated_is_said() -> None:
    assert calibration_text(PNEUMONIA) == "Calibrated probabilities."
    assert calibration_text(GRADE).startswith("Not calibrated")


def test_the_expected_grade_is_said() -> None:
    assert "expected grade 2.0" in explanation(GRADE)


def test_bars_are_sorted_by_probability_and_grades_by_their_order() -> None:
    assert [bar.name for bar in class_bars(PNEUMONIA)] == ["pneumonia", "normal"]
    assert [bar.name for bar in class_bars(GRADE)] == [f"grade {n}" for n in range(5)]
    assert [bar.kind is BarKind.CHOSEN for bar in class_bars(GRADE)] == [False, False, True, False, False]


def test_every_positive_finding_is_marked_with_its_threshold() -> None:
    bars = class_bars(FINDINGS)
    assert len(bars) == 14
    assert [(bar.name, bar.mark) for bar in bars if bar.kind is BarKind.CHOSEN] == [
        ("atelectasis", 0.41),
        ("effusion", 0.38),
    ]
    assert not any(bar.kind is BarKind.CHOSEN for bar in class_bars(NO_FINDING))


def test_a_distance_beyond_the_threshold_looks_different() -> None:
    within, beyond = distance_bar(PNEUMONIA), distance_bar(TURNED_AWAY)
    assert within is not None and beyond is not None
    assert (within.kind, beyond.kind) == (BarKind.WITHIN, BarKind.BEYOND)
    assert within.share < within.mark < 1 and beyond.mark < beyond.share < 1
    assert distance_bar(BROKEN) is None


def test_the_route_that_was_taken_is_marked_and_missing_experts_are_named() -> None:
    bars = route_bars(PNEUMONIA)
    assert [bar.name for bar in bars] == ["PneumoniaMNIST", "hand radiograph (no expert)", "ChestMNIST (not installed)"]
    assert [bar.kind is BarKind.CHOSEN for bar in bars] == [True, False, False]
    assert not any(bar.kind is BarKind.CHOSEN for bar in route_bars(TURNED_AWAY))


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0.0 %"), (1e-5, "<0.1 %"), (0.4567, "45.7 %"), (0.99951, ">99.9 %"), (1.0, "100.0 %")],
)
def test_a_percentage_is_never_more_certain_than_the_probability(share: float, said: str) -> None:
    assert percent(share) == said


def test_a_csv_file_has_a_row_per_picture_and_no_formulas() -> None:
    strange = replace(BROKEN, image='=cmd|"ä".png', error="two\nlines, and a comma")
    text = csv_bytes([PNEUMONIA, strange]).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["class_name"], rows[0]["class_confidence"], rows[0]["calibrated"]) == ("pneumonia", "0.973", "1")
    assert rows[0]["sha256"] == "cd" * 32
    assert rows[1]["image"] == '\'=cmd|"ä".png'
    assert rows[1]["why"] == "two\nlines, and a comma"


def test_pictures_are_counted_by_what_became_of_them() -> None:
    assert counts_text(ALL) == "4 answered, 1 not recognised, 1 no expert, 2 failed"


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ([PNEUMONIA, TURNED_AWAY, KIND_WITHOUT_EXPERT], None),
        ([PNEUMONIA, BROKEN], 3),
        ([TURNED_AWAY, NOT_INSTALLED], 3),
        ([BROKEN, NOT_INSTALLED], 2),
        ([NOT_INSTALLED], 7),
        ([replace(BROKEN, error_code="UNHEARD_OF")], 1),
    ],
)
def test_the_exit_status_tells_some_failures_from_all(answers, status: int | None) -> None:
    assert exit_status(answers) == status


def test_each_kind_of_failure_is_said_once() -> None:
    assert failures(ALL) == ["cell.png: The weights are not installed.", "broken.png: It is an empty file."]
    assert failures([BROKEN, PNEUMONIA, BROKEN, BROKEN]) == ["broken.png and 2 more: It is an empty file."]
