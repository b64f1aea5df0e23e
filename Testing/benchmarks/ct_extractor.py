"""How well findings are read out of reports: F1 per finding on 800 chest-CT reports with labels set by hand.

The rules were written while looking at one half of the reports (``development``), chosen by a hash of the accession
number; the other half (``held``) was not looked at. The texts are non-commercial and stay where they are.

    python Testing/benchmarks/ct_extractor.py [--data FOLDER]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / folder) for folder in ("MedAIExtension", "CTReport")]

from CTReportLib.extractor import labels_of  # noqa: E402
from CTReportLib.findings import FINDINGS  # noqa: E402

FILE = "text/ctclip_reports_train.csv"
HALVES = ("development", "held")


@dataclass(frozen=True)
class Score:
    """Counts of one finding over reports."""

    name: str
    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def f1(self) -> float:
        wrong = self.false_positives + self.false_negatives
        return 2 * self.true_positives / (2 * self.true_positives + wrong) if self.true_positives or wrong else 1.0


def half_of(accession: str) -> str:
    """``development`` or ``held``, by the parity of a SHA-256."""
    return HALVES[hashlib.sha256(accession.encode("utf-8")).digest()[-1] % 2]


def read_reports(path: Path, half: str) -> list[dict[str, str]]:
    """Rows of one half."""
    with path.open(encoding="utf-8", newline="") as stream:
        return [row for row in csv.DictReader(stream) if half_of(row["AccessionNo"]) == half]


def scores(reports: Iterable[dict[str, str]]) -> list[Score]:
    """One for each finding, in canonical order."""
    told = [(row, labels_of(row["report_text"])) for row in reports]
    result = []
    for finding in FINDINGS:
        pairs = [(row[finding.name] == "1", finding.id in labels) for row, labels in told]
        counts = (pairs.count((True, True)), pairs.count((False, True)), pairs.count((True, False)))
        result.append(Score(finding.name, *counts))
    return result


def macro_f1(found: Iterable[Score]) -> float:
    """Mean of F1 over findings."""
    values = [score.f1 for score in found]
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("MEDAI_TEST_DATA") or REPOSITORY.parent / "shared/data"
    )
    path = Path(parser.parse_args().data) / FILE
    if not path.is_file():
        sys.exit(f"There is no {path}; set MEDAI_TEST_DATA.")
    found = {half: scores(read_reports(path, half)) for half in HALVES}
    sizes = {half: len(read_reports(path, half)) for half in HALVES}
    print(f"{'F1':40}" + "".join(f"{half} ({sizes[half]})".rjust(20) for half in HALVES))
    for pair in zip(*found.values(), strict=True):
        print(f"{pair[0].name:40}" + "".join(f"{score.f1:20.3f}" for score in pair))
    print(f"{'macro':40}" + "".join(f"{macro_f1(found[half]):20.3f}" for half in HALVES))


if __name__ == "__main__":
    main()
