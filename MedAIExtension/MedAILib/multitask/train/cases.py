"""Which images to train on: a folder of cases or a manifest, and who is kept apart for validation.

A folder: each folder below it that holds an ``image`` and a ``mask`` file (NIfTI, NRRD, MetaImage, ``.seg.nrrd``)
is a case; the folder right below the given one names the patient, so that several studies of a patient belong
together::

    data/patient7/flair/image.nii.gz   data/patient7/flair/mask.nii.gz

A manifest is a JSON list of objects (or an object with such a list under ``cases``), paths relative to its folder::

    [{"patient": "7", "image": "p7/flair.nii.gz", "mask": "p7/tumour.nii.gz", "labels": [1, 4]},
     {"patient": "8", "image": "p8/t1.nii.gz", "healthy": true}]

``labels`` are the values of the mask that count as tumour; without them all but 0 do. An image without a mask is
used only where it is stated to be healthy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedAILib.errors import FileMissing, InputError

SUFFIXES = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


@dataclass(frozen=True)
class Case:
    """One image to learn from.

    Attributes
    ----------
    patient : str
    image : Path
    mask : Path or None
        None: the image shows no tumour.
    labels : tuple of int or None
        Values of the mask that count as tumour; None: all but 0.
    """

    patient: str
    image: Path
    mask: Path | None
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Split:
    """Cases to learn from and cases to validate on; no patient is in both."""

    train: tuple[Case, ...]
    validation: tuple[Case, ...]


def read_cases(data: Path) -> tuple[Case, ...]:
    """The cases of a folder or manifest, sorted by patient and image.

    Raises
    ------
    FileMissing
        The folder, the manifest or a file that it names is not there.
    InputError
        The manifest is not one, or there is no case.
    """
    if not data.exists():
        raise FileMissing(f"There is no training data '{data}'.", todo="Give a folder of cases or a manifest.")
    cases = _from_folder(data) if data.is_dir() else _from_manifest(data)
    if not cases:
        raise InputError(
            f"'{data}' holds no case to train on.",
            why="No folder in it holds both an image and a mask file." if data.is_dir() else "Its list is empty.",
            todo="Name the files image.nii.gz and mask.nii.gz, a folder per case, or write a manifest.",
        )
    for path in (path for case in cases for path in (case.image, case.mask) if path is not None):
        if not path.exists():
            raise FileMissing(f"The training data names '{path}', which is not there.", todo=f"Mend '{data}'.")
    return tuple(sorted(cases, key=lambda case: (case.patient, str(case.image))))


def split_by_patient(cases: Sequence[Case], fraction: float, seed: int) -> Split:
    """Keep a share of the patients apart.

    Patients are drawn by a hash of seed and name: the same ones every time, and one more patient in the data
    moves few others. Patients with and without tumours are drawn separately. Nobody is kept apart where that
    would leave nobody to learn from.
    """
    kept: set[str] = set()
    with_tumour = {case.patient for case in cases if case.mask is not None}
    for group in (with_tumour, {case.patient for case in cases} - with_tumour):
        drawn = sorted(group, key=lambda patient: hashlib.sha256(f"{seed} {patient}".encode()).digest())
        count = min(max(round(fraction * len(drawn)), 1), len(drawn) - 1) if fraction > 0 and drawn else 0
        kept.update(drawn[:count])
    return Split(
        tuple(case for case in cases if case.patient not in kept),
        tuple(case for case in cases if case.patient in kept),
    )


def _from_folder(data: Path) -> list[Case]:
    cases = []
    for folder in sorted({file.parent for file in data.rglob("image.*") if file.is_file()}):
        image, mask = (_file(folder, name) for name in ("image", "mask"))
        if image is not None and mask is not None:
            parts = folder.relative_to(data).parts
            cases.append(Case(parts[0] if parts else data.name, image, mask))
    return cases


def _file(folder: Path, name: str) -> Path | None:
    return next((folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()), None)


def _from_manifest(manifest: Path) -> list[Case]:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{manifest}' is not a manifest of training cases.",
            why=f"{error}.",
            todo="Write a JSON list of objects with patient, image and mask.",
        ) from error
    entries = content.get("cases") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise InputError(f"'{manifest}' has no list of cases.", todo="Write a JSON list, or an object with 'cases'.")
    problems: list[str] = []
    cases = [_case(entry, manifest.parent, f"case {number}", problems) for number, entry in enumerate(entries)]
    if problems:
        raise InputError(f"The manifest '{manifest}' cannot be used: {'; '.join(problems)}.")
    return [case for case in cases if case is not None]


def _case(entry: Any, folder: Path, where: str, problems: list[str]) -> Case | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry.get("patient"):
        problems.append(f"{where} has no 'patient' and 'image'")
        return None
    mask, healthy, labels = entry.get("mask"), entry.get("healthy", False), entry.get("labels")
    if (mask is None) != bool(healthy):
        problems.append(f"{where} needs either a 'mask' or 'healthy': true")
    if labels is not None and not (isinstance(labels, list) and all(type(label) is int for label in labels)):
        problems.append(f"the 'labels' of {where} are not a list of whole numbers")
        labels = None
    return Case(
        patient=str(entry["patient"]),
        image=folder / entry["image"],
        mask=folder / mask if isinstance(mask, str) else None,
        labels=tuple(labels) if labels is not None else None,
    )
