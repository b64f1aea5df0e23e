"""Scores as files and as a table for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from CTReportLib.train.evaluation import EvaluateResult
from CTReportLib.train.measures import DrawingScore, FindingScore
from MedAILib.atomic import output_error, write_text

NOTE = "Research use only. Measured on the given data alone."


def write_scores(result: EvaluateResult, out: Path) -> tuple[Path, ...]:
    """Write ``evaluation.json``, ``findings.csv``, ``drawings.csv``; raises `OutputError`."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    written = [out / "evaluation.json"]
    text = json.dumps({"note": NOTE, **result.plain()}, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(written[0], text + "\n")
    for name, kind, rows in (
        ("findings.csv", FindingScore, result.findings),
        ("drawings.csv", DrawingScore, result.drawings),
    ):
        if rows:
            written.append(out / name)
            write_text(written[-1], _csv(kind, rows))
    return tuple(written)


def table_lines(result: EvaluateResult) -> list[str]:
    """The scores as lines of text."""
    lines = [f"{result.scans} scans of {result.patients} patients."]
    if result.findings:
        lines.append(
            f"{'finding':36}{'with/without':>14}{'AUROC (95 %)':>24}{'AP':>7}{'F1':>7}{'sens':>7}{'spec':>7}{'ECE':>7}"
        )
    for one in result.findings:
        numbers = "".join(
            f"{_number(value):>7}"
            for value in (one.average_precision, one.f1, one.sensitivity, one.specificity, one.calibration_error)
        )
        within = f"{_number(one.auroc)} ({_number(one.auroc_low)}-{_number(one.auroc_high)})"
        mark = "" if one.calibrated else "  not calibrated"
        lines.append(f"{one.finding:36}{f'{one.positives}/{one.negatives}':>14}{within:>24}{numbers}{mark}")
    if result.drawings:
        lines.append(f"{'drawn':36}{'scans':>14}{'Dice (95 %)':>24}{'ml off':>10}{'|ml|':>10}{'false alarms':>16}")
    for drawn in result.drawings:
        within = f"{_number(drawn.dice)} ({_number(drawn.dice_low)}-{_number(drawn.dice_high)})"
        alarms = f"{drawn.false_alarms} of {drawn.scans_without}"
        off = "".join(
            f"{'-' if ml is None else f'{ml:.1f}':>10}"
            for ml in (drawn.volume_error_ml, drawn.absolute_volume_error_ml)
        )
        lines.append(f"{drawn.finding:36}{drawn.scans:>14}{within:>24}{off}{alarms:>16}")
    if result.reports is not None:
        told = result.reports
        lines.append(
            f"{told.scans} reports against {told.against}: macro F1 of findings {_number(told.macro_f1)}, "
            f"sections {told.structure:.2f}."
        )
    return lines


def _csv(kind: Any, rows: Sequence[Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
