"""Training proven on synthetic chests: some minutes of one thread, then chests of seeds that were never seen.

Longer than the other tests, so it stands alone. The thresholds are those that were asked for; the intervals around what
was reached stand in the benchmark ``ct_training.py``, which prints the same numbers.
"""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("safetensors", reason="weight files need safetensors")

from ct_training import (  # noqa: E402
    ASKED_AUROC,
    ASKED_DICE,
    TEST_SEEDS,
    Trained,
    acceptance_lines,
    measured,
    reported,
    train,
)

from CTReportLib.nets.heads_weights import load_head  # noqa: E402
from CTReportLib.train.evaluation import EvaluateResult  # noqa: E402

CHESTS, TEST, TEST_DRAWN, CHAIN = 640, 120, 60, 10


@pytest.fixture(scope="module")
def a_training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    folder = tmp_path_factory.mktemp("training")
    return train(folder, CHESTS), folder


@pytest.fixture(scope="module")
def scores(a_training: tuple[Trained, Path]) -> tuple[EvaluateResult, EvaluateResult]:
    trained, folder = a_training
    told, drawn = measured(folder, trained.models, TEST, TEST_DRAWN)
    print("\n".join(acceptance_lines(told, drawn, trained.cpu_s)))
    return told, drawn


def test_findings_are_told_on_chests_never_seen(scores: tuple[EvaluateResult, EvaluateResult]) -> None:
    told = {one.finding: one for one in scores[0].findings}
    assert scores[0].scans == TEST >= 120
    for name, least in ASKED_AUROC.items():
        assert told[name].auroc is not None and told[name].auroc >= least, (name, told[name])


def test_fluid_and_large_nodules_are_drawn_on_chests_never_seen(
    scores: tuple[EvaluateResult, EvaluateResult],
) -> None:
    drawn = {one.finding: one for one in scores[1].drawings}
    for name, least in ASKED_DICE.items():
        assert drawn[name].scans >= 5
        assert drawn[name].dice is not None and drawn[name].dice >= least, (name, drawn[name])


def test_probabilities_are_calibrated_on_patients_that_were_not_learned_from(
    a_training: tuple[Trained, Path], scores: tuple[EvaluateResult, EvaluateResult]
) -> None:
    result = a_training[0].result
    assert result.classifier is not None and not set(result.learned_from) & set(result.held)
    head = load_head(result.classifier).head
    assert head.calibrated_on and len(head.thresholds) == len(head.classes)
    told = {one.finding: one for one in scores[0].findings}
    for name in ASKED_AUROC:
        assert told[name].calibrated
        assert told[name].calibration_error is not None and told[name].calibration_error < 0.15
        assert told[name].f1 is not None and told[name].f1 > 0.75


def test_the_whole_report_is_right_on_chests_never_seen(a_training: tuple[Trained, Path]) -> None:
    """What the models decide is there or not, and what they draw lies on the right side and third."""
    chain = reported(a_training[0].models, range(TEST_SEEDS, TEST_SEEDS + CHAIN))
    wrong = [name for one in chain for name in one.wrong if name in ASKED_AUROC]
    assert len(chain) == CHAIN and len(wrong) <= CHAIN * len(ASKED_AUROC) // 10, chain
    misplaced = [name for one in chain for name in one.misplaced if name == "pleural_effusion"]
    assert not misplaced, chain
