"""A data set as CT-RATE lies: volumes, tables of labels and reports, masks where there are some; checked strictly.

    DATA/train_predicted_labels.csv     VolumeName and the findings: 1, 0, or empty where nobody knows
    DATA/valid_predicted_labels.csv     optional; the word before ``_predicted_labels`` is the split
    DATA/train_reports.csv              optional; VolumeName, Findings_EN, Impressions_EN
    DATA/.../train_12_a_1.nii.gz        volumes in Hounsfield units, in any folder below but ``masks``
    DATA/masks/train_12_a_1.seg.nrrd    optional; segments named by finding, empty ones where it is not there
    DATA/masks/train_12_a_1/consolidation.nii.gz      or a label map for each finding, named by it

A table may have a column ``Split`` instead. What is not said is unknown and never taken for absent.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from CTReportLib.findings import FINDINGS, LOCALISED, find
from MedAILib.errors import FileMissing, InputError

UNKNOWN = -1
"""Label of a finding of which nothing is said."""
VOLUME_NAME, SPLIT = "VolumeName", "Split"
VOLUME_SUFFIX, MASKS = ".nii.gz", "masks"
LABELS_END, REPORTS_END = "_predicted_labels.csv", "_reports.csv"
_VALUES = {"": UNKNOWN, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
_NOT_GIVEN = "not given"
_PATIENT = re.compile(r"(?P<patient>[A-Za-z]+_\d+)_[A-Za-z]+_\d+")
_MOST_SHOWN = 8


@dataclass(frozen=True)
class CtCase:
    """A volume of the data set.

    Attributes
    ----------
    name : str
        Of its file, without ``.nii.gz``.
    patient : str
        From the name (``split_patient_scan_reconstruction``); of other names the whole.
    split : str
        Such as ``train``.
    volume : Path
    labels : tuple of int
        For the 18 findings in canonical order: 1, 0 or `UNKNOWN`.
    masks : Path or None
        A segmentation, or a folder of label maps.
    report : str
        Findings and impression; empty where there is none.
    """

    name: str
    patient: str
    split: str
    volume: Path
    labels: tuple[int, ...]
    masks: Path | None = None
    report: str = ""


@dataclass(frozen=True)
class CtData:
    """What a folder holds.

    Attributes
    ----------
    cases : tuple of CtCase
        Sorted by name.
    remarks : tuple of str
        What the user should know: columns that are no findings, findings without a column.
    """

    cases: tuple[CtCase, ...]
    remarks: tuple[str, ...]

    def of_split(self, split: str) -> tuple[CtCase, ...]:
        """The cases of a split; all where it is empty.

        Raises
        ------
        InputError
            There are none.
        """
        found = tuple(case for case in self.cases if not split or case.split == split)
        if not found:
            there = ", ".join(sorted({case.split for case in self.cases}))
            raise InputError(f"There is no split '{split}'.", todo=f"The data has: {there}.")
        return found


def read_data(folder: Path) -> CtData:
    """The cases of a folder.

    Raises
    ------
    FileMissing
        The folder, a table of labels, or volumes that a table names.
    InputError
        A table cannot be used; all its problems at once.
    """
    if not folder.is_dir():
        raise FileMissing(f"There is no folder '{folder}' with training data.", todo="Check the path.")
    tables = sorted(folder.rglob(f"*{LABELS_END}"))
    if not tables:
        raise FileMissing(
            f"'{folder}' holds no table of labels.",
            why=f"No file in it is called such as train{LABELS_END}.",
            todo="Lay the data out as CT-RATE is: a table with VolumeName and a column for each finding.",
        )
    volumes = _volumes(folder)
    reports = _reports(folder)
    cases: list[CtCase] = []
    problems: list[str] = []
    remarks: list[str] = []
    for table in tables:
        cases += _cases(table, volumes, problems, remarks)
    names = [case.name for case in cases]
    problems += [f"'{name}' is listed more than once" for name in sorted({n for n in names if names.count(n) > 1})]
    if problems:
        raise InputError(f"The data in '{folder}' cannot be used: {_some(problems)}.")
    missing = [case.volume.name for case in cases if case.volume == Path(case.volume.name)]
    if missing:
        raise FileMissing(f"The tables in '{folder}' name volumes that are not there: {_some(missing)}.")
    masks = folder / MASKS
    whole = (replace(case, masks=_masks(masks, case.name), report=reports.get(case.name, "")) for case in cases)
    return CtData(tuple(sorted(whole, key=lambda case: case.name)), tuple(dict.fromkeys(remarks)))


def split_by_patient(cases: Sequence[CtCase], share: float, seed: int) -> tuple[tuple[CtCase, ...], tuple[CtCase, ...]]:
    """Cases to learn from, and those of patients that are kept apart: no patient is in both.

    Patients are drawn by a hash of seed and name, so one more in the data moves few others.
    """
    patients = sorted({c.patient for c in cases}, key=lambda p: hashlib.sha256(f"{seed} {p}".encode()).digest())
    count = min(max(round(share * len(patients)), 1), len(patients) - 1) if share > 0 and patients else 0
    kept = set(patients[:count])
    return tuple(c for c in cases if c.patient not in kept), tuple(c for c in cases if c.patient in kept)


def mask_files(case: CtCase) -> dict[str, Path]:
    """Label map of each localised finding, by its id, where the case has a folder of them; else empty.

    Raises
    ------
    InputError
        A file's name is none of a localised finding.
    """
    if case.masks is None or not case.masks.is_dir():
        return {}
    found, unknown = {}, []
    for path in sorted(case.masks.glob(f"*{VOLUME_SUFFIX}")):
        finding = find(path.name.removesuffix(VOLUME_SUFFIX))
        if finding is None or finding not in LOCALISED:
            unknown.append(path.name)
        else:
            found[finding.id] = path
    if unknown:
        raise InputError(
            f"Masks of '{case.name}' bear no name of a localised finding: {_some(unknown)}.",
            todo="Name them " + ", ".join(f"{one.id}{VOLUME_SUFFIX}" for one in LOCALISED) + ".",
        )
    return found


def _volumes(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in folder.rglob(f"*{VOLUME_SUFFIX}"):
        if MASKS not in path.relative_to(folder).parts[:-1]:
            found.setdefault(path.name, []).append(path)
    return found


def _masks(folder: Path, name: str) -> Path | None:
    candidates = (folder / f"{name}.seg.nrrd", folder / name)
    return next((path for path in candidates if path.exists()), None)


def _rows(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            return list(reader.fieldnames or ()), rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"'{table}' is no table of text.", why=f"{error}.", todo="Save it as CSV in UTF-8.") from error


def _cases(table: Path, volumes: dict[str, list[Path]], problems: list[str], remarks: list[str]) -> Iterator[CtCase]:
    columns, rows = _rows(table)
    if VOLUME_NAME not in columns:
        problems.append(f"{table.name} has no column {VOLUME_NAME}")
        return
    place = _finding_columns(table, columns, problems, remarks)
    for number, row in enumerate(rows, start=2):
        file = (row[VOLUME_NAME] or "").strip()
        if not file.endswith(VOLUME_SUFFIX):
            problems.append(f"{table.name} line {number}: '{file}' does not end in {VOLUME_SUFFIX}")
            continue
        labels = []
        for finding in FINDINGS:
            said = (row[place[finding.id]] or "").strip() if finding.id in place else ""
            if said not in _VALUES:
                problems.append(f"{table.name} line {number}: '{said}' is no label of {finding.name}")
            labels.append(_VALUES.get(said, UNKNOWN))
        paths = volumes.get(file, [])
        if len(paths) > 1:
            problems.append(f"there are {len(paths)} volumes '{file}'")
        name = file.removesuffix(VOLUME_SUFFIX)
        match = _PATIENT.fullmatch(name)
        split = (row.get(SPLIT) or "").strip() or table.name.removesuffix(LABELS_END)
        patient = match["patient"] if match else name
        yield CtCase(name, patient, split, paths[0] if paths else Path(file), tuple(labels))


def _finding_columns(table: Path, columns: list[str], problems: list[str], remarks: list[str]) -> dict[str, str]:
    """Which column holds each finding."""
    place: dict[str, str] = {}
    others = []
    for column in columns:
        found = find(column)
        if column in (VOLUME_NAME, SPLIT):
            continue
        if found is None or found not in FINDINGS:
            others.append(column)
        elif place.setdefault(found.id, column) != column:
            problems.append(f"{table.name} has two columns of {found.name}: '{place[found.id]}' and '{column}'")
    if others:
        remarks.append(f"Columns of {table.name} that name none of the 18 findings were left out: {', '.join(others)}.")
    without = [one.name for one in FINDINGS if one.id not in place]
    if without:
        remarks.append(f"{table.name} says nothing of {', '.join(without)}: unknown, not absent.")
    return place


def _reports(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for table in sorted(folder.rglob(f"*{REPORTS_END}")):
        columns, rows = _rows(table)
        if VOLUME_NAME not in columns:
            raise InputError(f"'{table}' has no column {VOLUME_NAME}.", todo="Name the volume of each report.")
        for row in rows:
            parts = {"FINDINGS": row.get("Findings_EN"), "IMPRESSION": row.get("Impressions_EN")}
            said = {title: (text or "").strip() for title, text in parts.items()}
            text = "\n".join(
                f"{title}: {text}" for title, text in said.items() if text and text.lower().rstrip(".") != _NOT_GIVEN
            )
            found[(row[VOLUME_NAME] or "").strip().removesuffix(VOLUME_SUFFIX)] = text
    return found


def _some(items: Sequence[str]) -> str:
    more = len(items) - _MOST_SHOWN
    return "; ".join(items[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")
