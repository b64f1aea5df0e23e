"""Encoder, classifier and localizer trained on synthetic chests, and measured on chests of other seeds; rules as well.

    python Testing/benchmarks/ct_training.py [--train 640] [--test 120] [--drawn 60] [--rules 100] [--keep FOLDER]

One thread. Training time counts everything that ``medai train ct`` does, reading and preparing of volumes included; the
making of the phantoms is not part of it. The last table is what the measured rules make of the same kind of chests.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / part) for part in ("MedAIExtension", "CTReport", "Testing")]

from chest_cohort import LARGE_HEART, Patient, patient, write_ct_rate  # noqa: E402

from CTReportLib.anatomy import find_anatomy  # noqa: E402
from CTReportLib.findings import LOCALISED  # noqa: E402
from CTReportLib.landmarks import Place, locate  # noqa: E402
from CTReportLib.measures import measure  # noqa: E402
from CTReportLib.request import Decision, Models, ReportRequest, ReportResult  # noqa: E402
from CTReportLib.task import ReportTask  # noqa: E402
from CTReportLib.train.evaluation import EvaluateRequest, EvaluateResult, EvaluateTask  # noqa: E402
from CTReportLib.train.request import TrainRequest, TrainResult  # noqa: E402
from CTReportLib.train.scorefiles import table_lines  # noqa: E402
from CTReportLib.train.task import TrainTask  # noqa: E402
from MedAILib.jobs.task import Context  # noqa: E402
from MedAILib.volume import Volume  # noqa: E402

TRAIN_SEEDS, TEST_SEEDS = 0, 100_000
"""First seeds of the chests that are learned from, and of those that are not."""
ASKED_AUROC = {"pleural_effusion": 0.95, "emphysema": 0.95, "cardiomegaly": 0.95, "consolidation": 0.95}
ASKED_DICE = {"pleural_effusion": 0.7, "lung_nodule over 10 mm": 0.7}
DRAWN, REST = "test", "valid"
"""Splits of the held-out chests: those that are drawn as well, and the others."""


@dataclass(frozen=True)
class Trained:
    """A training and what it took.

    Attributes
    ----------
    result : TrainResult
    models : Models
    cpu_s : float
    """

    result: TrainResult
    models: Models
    cpu_s: float


@dataclass(frozen=True)
class Checked:
    """A held-out chest through the whole report.

    Attributes
    ----------
    seed : int
    wrong : tuple of str
        Findings that the report says are there and are not, or the other way round.
    undecided : tuple of str
        Of those that the models judge.
    misplaced : tuple of str
        Drawn findings on the wrong side, or in none of the true thirds.
    """

    seed: int
    wrong: tuple[str, ...]
    undecided: tuple[str, ...]
    misplaced: tuple[str, ...]


def train(folder: Path, chests: int, **changed: object) -> Trained:
    """Write chests, learn from them."""
    write_ct_rate(folder / "data", range(TRAIN_SEEDS, TRAIN_SEEDS + chests))
    request = TrainRequest(folder / "data", folder / "models", held_share=0.2, **changed)  # type: ignore[arg-type]
    started = time.process_time()
    result = TrainTask().run(request, Context(threads=1))
    cpu_s = time.process_time() - started
    return Trained(result, Models(result.encoder, result.classifier, result.localizer), cpu_s)


def measured(folder: Path, models: Models, test: int, drawn: int) -> tuple[EvaluateResult, EvaluateResult]:
    """The classifier on all held-out chests, the localizer on some of them."""
    data = folder / "held"
    write_ct_rate(data, range(TEST_SEEDS, TEST_SEEDS + drawn), split=DRAWN)
    write_ct_rate(data, range(TEST_SEEDS + drawn, TEST_SEEDS + test), split=REST, masks=False)
    told = Models(models.encoder, models.classifier)
    first = EvaluateRequest(data, told, cache=folder / "features")
    second = EvaluateRequest(data, Models(localizer=models.localizer), split=DRAWN)
    context = Context(threads=1)
    return EvaluateTask().run(first, context), EvaluateTask().run(second, context)


def reported(models: Models, seeds: Iterable[int]) -> list[Checked]:
    """Held-out chests through the whole report with the models."""
    task = ReportTask()
    return [_checked(task, models, patient(seed)) for seed in seeds]


def _checked(task: ReportTask, models: Models, one: Patient) -> Checked:
    request = ReportRequest(one.chest.volume, modality="CT", name=str(one.seed), models=models)
    result = task.run(request, Context(threads=1))
    labels = one.labels
    wrong, undecided = [], []
    for row in result.table:
        if row.finding not in labels or row.probability is None:
            continue
        if row.decision is Decision.NOT_JUDGED:
            undecided.append(row.finding)
        elif (row.decision is Decision.PRESENT) != bool(labels[row.finding]):
            wrong.append(row.finding)
    return Checked(one.seed, tuple(wrong), tuple(undecided), tuple(_misplaced(one, result)))


def _misplaced(one: Patient, result: ReportResult) -> Iterable[str]:
    """Sides and thirds that a true mask has none of; of findings that are there."""
    anatomy = find_anatomy(one.chest.volume)
    for finding in LOCALISED:
        row = result.row(finding.id)
        truth = one.mask(finding.id)
        if row is None or row.decision is not Decision.PRESENT or not row.place or not truth.any():
            continue
        true = locate(anatomy, Volume(truth.astype("uint8"), one.chest.volume.ijk_to_ras))
        if not _fits(row.side, row.place, true):
            yield finding.id


def _fits(side: str, place: str, true: Place) -> bool:
    return side in (true.side, "both") and (not true.thirds or any(third in place for third in true.thirds))


def rules(seeds: Sequence[int]) -> list[tuple[str, int, int, int, int, int]]:
    """What the rules make of chests: rule, true and false positives, true and false negatives, not judged."""
    rows: dict[str, list[int]] = {}
    for seed in seeds:
        one = patient(seed)
        found = measure(one.chest.volume, find_anatomy(one.chest.volume))
        told = {
            "pleural_effusion": _decided(m.decision for m in found if m.finding_id == "pleural_effusion"),
            "emphysema": _decided(m.decision for m in found if m.finding_id == "emphysema"),
            "cardiomegaly": _decided(m.decision for m in found if m.finding_id == "cardiomegaly"),
            "lung_nodule": any(m.value for m in found if m.finding_id == "lung_nodule"),
            "coronary_artery_wall_calcification": _decided(
                m.decision for m in found if m.finding_id == "coronary_artery_wall_calcification"
            ),
            "arterial_wall_calcification": _decided(
                m.decision for m in found if m.finding_id == "arterial_wall_calcification"
            ),
        }
        truth = {**one.labels, "lung_nodule": any(d >= 8.0 for *_, d in one.spec.nodules_mm)}
        for name, decision in told.items():
            counts = rows.setdefault(name, [0, 0, 0, 0, 0])
            place = 4 if decision is None else (0 if truth[name] else 1) if decision else (3 if truth[name] else 2)
            counts[place] += 1
    return [(name, *counts) for name, counts in rows.items()]  # type: ignore[misc]


def _decided(decisions: Iterable[bool | None]) -> bool | None:
    kept = list(decisions)
    return True if True in kept else False if kept and None not in kept else None


def rule_lines(rows: Sequence[tuple[str, int, int, int, int, int]]) -> list[str]:
    """The rules' table."""
    lines = [f"{'rule':36}{'sensitivity':>14}{'specificity':>14}{'not judged':>12}"]
    for name, hits, alarms, free, missed, undecided in rows:
        sensitivity = f"{hits}/{hits + missed}" if hits + missed else "-"
        specificity = f"{free}/{free + alarms}" if free + alarms else "-"
        lines.append(f"{name:36}{sensitivity:>14}{specificity:>14}{undecided:>12}")
    return lines


def acceptance_lines(told: EvaluateResult, drawn: EvaluateResult, cpu_s: float) -> list[str]:
    """What was asked and what was reached."""
    auroc = {one.finding: (one.auroc, one.auroc_low, one.auroc_high) for one in told.findings}
    dices = {one.finding: (one.dice, one.dice_low, one.dice_high) for one in drawn.drawings}
    lines = [f"Training: {cpu_s:.0f} CPU seconds on one thread (asked: at most 600)."]
    for what, asked, found in (("AUROC", ASKED_AUROC, auroc), ("Dice", ASKED_DICE, dices)):
        for name, least in asked.items():
            value, low, high = found.get(name, (None, None, None))
            reached = value is not None and value >= least
            shown = "-" if value is None else f"{value:.3f} ({low:.3f}-{high:.3f})"
            lines.append(f"{what:6}{name:28}{shown:>24}   asked {least:.2f}: {'yes' if reached else 'NO'}")
    return lines


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=640)
    parser.add_argument("--test", type=int, default=120)
    parser.add_argument("--drawn", type=int, default=60, help="of the test chests, also drawn")
    parser.add_argument("--rules", type=int, default=100, help="chests for the rules")
    parser.add_argument("--chain", type=int, default=20, help="chests through the whole report")
    parser.add_argument("--keep", type=Path, help="folder for data and models (default: removed)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        trained = train(folder, options.train)
        told, drawn = measured(folder, trained.models, options.test, options.drawn)
        chain = reported(trained.models, range(TEST_SEEDS, TEST_SEEDS + options.chain))
    print("\n".join(acceptance_lines(told, drawn, trained.cpu_s)), "\n")
    print("\n".join(table_lines(told)), "\n")
    print("\n".join(table_lines(drawn)), "\n")
    print(
        f"{len(chain)} held-out chests through the whole report: {sum(len(c.wrong) for c in chain)} findings wrong, "
        f"{sum(len(c.undecided) for c in chain)} not decided, {sum(len(c.misplaced) for c in chain)} misplaced."
    )
    for one in chain:
        if one.wrong or one.misplaced:
            print(
                f"  seed {one.seed}: wrong {', '.join(one.wrong) or '-'}; misplaced {', '.join(one.misplaced) or '-'}"
            )
    print(f"\nRules on {options.rules} chests (enlarged heart: scale {LARGE_HEART} and above):")
    print("\n".join(rule_lines(rules(range(TEST_SEEDS, TEST_SEEDS + options.rules)))))
    print("Research use only.")


if __name__ == "__main__":
    main()
