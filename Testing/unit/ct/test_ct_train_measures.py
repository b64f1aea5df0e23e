"""Scores: against scikit-learn, on cases worked out by hand, and with intervals that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from CTReportLib.nets.heads_calibration import UNKNOWN
from CTReportLib.train.evaluation import EvaluateResult, ReportScore, _large_only
from CTReportLib.train.measures import (
    average_precision,
    drawing_score,
    finding_score,
    interval,
    label_f1,
    structure_score,
)
from CTReportLib.train.scorefiles import table_lines, write_scores
from MedAILib.multitask.train.measures import auc

SCORES = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=40)


@settings(max_examples=60, deadline=None)
@given(SCORES)
def test_auroc_and_average_precision_are_scikit_learns_ties_included(rows: list[tuple[int, bool]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores = np.array([score for score, _ in rows], dtype=float)
    truth = np.array([there for _, there in rows])
    if truth.all() or not truth.any():
        assert auc(scores, truth) is None
        return
    assert auc(scores, truth) == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-12)
    assert average_precision(scores, truth) == pytest.approx(metrics.average_precision_score(truth, scores), abs=1e-12)


def test_a_finding_is_scored_at_its_threshold_without_what_is_unknown() -> None:
    chance = np.array([0.9, 0.8, 0.4, 0.3, 0.2, 0.99])
    labels = np.array([1, 0, 1, 0, 0, UNKNOWN])
    score = finding_score("emphysema", chance, labels, list("abcdef"), 0.35, calibrated=True)
    assert (score.positives, score.negatives) == (2, 3)
    assert score.sensitivity == 1.0 and score.specificity == pytest.approx(2 / 3) and score.f1 == pytest.approx(0.8)
    assert score.auroc == pytest.approx(5 / 6)


def test_a_finding_of_one_kind_only_has_no_auroc() -> None:
    score = finding_score("emphysema", np.array([0.9, 0.1]), np.array([0, 0]), ["a", "b"], 0.5, calibrated=False)
    assert (score.auroc, score.auroc_low, score.f1, score.sensitivity) == (None, None, None, None)
    assert score.specificity == 0.5


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        values = rng.normal(0.0, 1.0, 60)
        low, high = interval(lambda rows, values=values: float(values[rows].mean()), np.arange(60), trial)
        assert low is not None and high is not None
        held += low <= 0.0 <= high
    assert held >= 50


def test_scans_of_a_patient_are_drawn_together() -> None:
    values = np.repeat([0.0, 1.0], 50)
    low, high = interval(lambda rows: float(values[rows].mean()), np.repeat(["a", "b"], 50), 0)
    assert (low, high) == (0.0, 1.0)


def test_drawings_are_summed_up_with_false_alarms() -> None:
    score = drawing_score("consolidation", [0.8, 0.6], [-2.0, 4.0], [True, False, False])
    assert score.dice == pytest.approx(0.7) and score.volume_error_ml == 1.0 and score.absolute_volume_error_ml == 3.0
    assert (score.false_alarms, score.scans_without) == (1, 3)
    assert drawing_score("consolidation", [], [], [False]).dice is None


def test_large_nodules_are_scored_without_what_was_drawn_of_small_ones() -> None:
    truth = np.zeros((30, 30, 30), dtype=bool)
    truth[2:14, 2:14, 2:14] = True  # 12 mm a side
    truth[20:24, 20:24, 20:24] = True  # 4 mm a side
    drawn = truth.copy()
    drawn[2:4, 20:24, 2:4] = True
    large, rest = _large_only(truth, drawn, 0.001)
    assert large.sum() == 12**3 and not large[22, 22, 22]
    assert rest[3, 3, 3] and not rest[22, 22, 22] and rest[3, 22, 3]


def test_reports_are_scored_by_their_findings_and_their_order() -> None:
    pairs = [(frozenset({"a", "b"}), frozenset({"a"})), (frozenset(), frozenset({"a"}))]
    macro, each = label_f1(pairs)
    assert each == {"a": pytest.approx(2 / 3), "b": 0.0} and macro == pytest.approx(1 / 3)
    assert label_f1([]) == (None, {})
    assert structure_score("TECHNIQUE: x\nFINDINGS: y\nIMPRESSION: z", ("Technique", "Findings", "Impression")) == 1.0
    assert structure_score("Impression: z. Findings: y.", ("Findings", "Impression")) == 0.5


def test_scores_are_written_as_json_csv_and_a_table(tmp_path) -> None:
    chance, labels = np.array([0.9, 0.1]), np.array([1, 0])
    finding = finding_score("emphysema", chance, labels, ["a", "b"], 0.5, calibrated=False)
    drawing = drawing_score("consolidation", [0.8], [1.0], [])
    result = EvaluateResult(2, 2, (finding,), (drawing,), ReportScore(2, 0.5, {"emphysema": 0.5}, 1.0, "labels"))
    written = write_scores(result, tmp_path / "Ergebnisse ä")
    assert [path.name for path in written] == ["evaluation.json", "findings.csv", "drawings.csv"]
    assert "Research use only" in written[0].read_text(encoding="utf-8")
    assert written[1].read_text(encoding="utf-8").splitlines()[0].startswith("finding,positives")
    text = "\n".join(table_lines(result))
    assert "emphysema" in text and "not calibrated" in text and "0.800" in text and "against labels" in text
