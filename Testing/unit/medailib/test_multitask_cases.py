"""Training data: what counts as a case, whose patients are kept apart, what a slice becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multitask_cases import head, write_case, write_data

from MedAILib.errors import FileMissing, GeometryMismatch, InputError
from MedAILib.jobs.task import Context
from MedAILib.models.heads import Input, Normalisation, NormalisationKind, Resize
from MedAILib.multitask.train.cases import Case, read_cases, split_by_patient
from MedAILib.multitask.train.request import Phase, PhaseKind, TrainRequest, phases_from_text
from MedAILib.multitask.train.slices import SliceSet, cut

INPUT = Input(size=(32, 32), resize=Resize.LINEAR, normalisation=Normalisation(NormalisationKind.Z_SCORE))


def manifest_of(folder: Path, *entries: Any) -> Path:
    path = folder / "list.json"
    path.write_text(json.dumps(list(entries)), encoding="utf-8")
    return path


def slices_of(cases: tuple[Case, ...], folder: Path) -> SliceSet:
    return cut(cases, INPUT, "LPS", folder, Context(), "test")


def test_a_folder_of_patients_and_studies_is_read(tmp_path: Path) -> None:
    for name in ("ä b/flair", "ä b/t1", "second"):
        write_case(tmp_path / name, *head(0))
    (tmp_path / "notes").mkdir()
    write_case(tmp_path / "no mask", head(0)[0], None)
    cases = read_cases(tmp_path)
    assert [case.patient for case in cases] == ["second", "ä b", "ä b"]
    assert all(case.mask is not None and case.mask.name == "mask.nii.gz" for case in cases)


def test_a_manifest_names_patients_masks_labels_and_who_is_healthy(tmp_path: Path) -> None:
    write_case(tmp_path / "a", *head(0))
    entries = (
        {"patient": "x", "image": "a/image.nii.gz", "mask": "a/mask.nii.gz", "labels": [1, 4]},
        {"patient": "y", "image": "a/image.nii.gz", "healthy": True},
    )
    first, second = read_cases(manifest_of(tmp_path, *entries))
    assert (first.patient, first.labels, first.mask) == ("x", (1, 4), tmp_path / "a/mask.nii.gz")
    assert (second.patient, second.labels, second.mask) == ("y", None, None)


def test_every_problem_of_a_manifest_is_named(tmp_path: Path) -> None:
    manifest = manifest_of(
        tmp_path, {"image": "a"}, {"patient": 1, "image": "a"}, {"patient": 2, "image": "a", "mask": "m", "labels": "1"}
    )
    with pytest.raises(InputError, match=r"case 0 has no 'patient'.*case 1 needs either.*'labels' of case 2"):
        read_cases(manifest)


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no training data"):
        read_cases(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no case"):
        read_cases(tmp_path)
    with pytest.raises(FileMissing, match=r"absent\.nii"):
        read_cases(manifest_of(tmp_path, {"patient": "x", "image": "absent.nii", "healthy": True}))
    (tmp_path / "list.json").write_text("no json", encoding="utf-8")
    with pytest.raises(InputError, match="not a manifest"):
        read_cases(tmp_path / "list.json")


@given(st.integers(1, 12), st.integers(0, 8), st.floats(0, 0.9), st.integers(0, 5))
def test_no_patient_is_on_both_sides(ill: int, healthy: int, fraction: float, seed: int) -> None:
    cases = [Case(f"i{n % ill}", Path(f"{n}"), Path("mask")) for n in range(2 * ill)]
    cases += [Case(f"h{n}", Path(f"h{n}"), None) for n in range(healthy)]
    split = split_by_patient(cases, fraction, seed)
    train, validation = ({case.patient for case in part} for part in (split.train, split.validation))
    assert not train & validation
    assert sorted(map(repr, split.train + split.validation)) == sorted(map(repr, cases))
    assert any(case.mask is not None for case in split.train)
    assert split_by_patient(cases[::-1], fraction, seed).train == split.train[::-1]
    assert bool(validation) == (fraction > 0 and (ill > 1 or healthy > 1))


def test_another_seed_keeps_other_patients_apart() -> None:
    cases = [Case(f"p{n}", Path(f"{n}"), Path("mask")) for n in range(20)]
    kept = {tuple(case.patient for case in split_by_patient(cases, 0.2, seed).validation) for seed in range(5)}
    assert len(kept) > 1


def test_slices_are_normalised_and_know_whether_they_show_a_tumour(tmp_path: Path) -> None:
    write_case(tmp_path / "a", *head(0))
    slices = slices_of(read_cases(tmp_path), tmp_path)
    assert slices.images.shape == slices.masks.shape == (6, 32, 32)
    assert slices.images.mean(axis=(1, 2)) == pytest.approx(0, abs=1e-5)
    assert slices.images.std(axis=(1, 2)) == pytest.approx(1, abs=1e-5)
    assert slices.positive.tolist() == [2, 3, 4]
    assert slices.negative.tolist() == [0, 1, 5]
    assert np.array_equal(slices.masks, head(0)[1])


def test_only_the_labels_named_are_tumour(tmp_path: Path) -> None:
    image, mask = head(0)
    write_case(tmp_path / "a", image, mask, label=7)
    entry = {"patient": "x", "image": "a/image.nii.gz", "mask": "a/mask.nii.gz"}
    assert len(slices_of(read_cases(manifest_of(tmp_path, {**entry, "labels": [7, 9]})), tmp_path).positive) == 3
    with pytest.raises(InputError, match="none of the labels 1"):
        slices_of(read_cases(manifest_of(tmp_path, {**entry, "labels": [1]})), tmp_path)


def test_slices_that_teach_nothing_are_left_out(tmp_path: Path) -> None:
    image, mask = head(0)
    image[0] = 5
    write_case(tmp_path / "a", image, mask)
    assert len(slices_of(read_cases(tmp_path), tmp_path)) == 5


def test_a_tumour_lost_in_resizing_is_neither_shown_nor_denied(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 900, (3, 96, 96)).astype(np.int16), np.zeros((3, 96, 96), np.uint8)
    mask[1, 40, 40] = 1
    mask[2, 30:60, 30:60] = 1
    write_case(tmp_path / "a", image, mask)
    slices = slices_of(read_cases(tmp_path), tmp_path)
    assert len(slices) == 2
    assert slices.positive.tolist() == [1]


def test_a_mask_of_another_image_is_refused(tmp_path: Path) -> None:
    write_case(tmp_path / "a", *head(0))
    image, mask = head(0)
    write_case(tmp_path / "b", image, mask, spacing_mm=1.5)
    entry = {"patient": "x", "image": "a/image.nii.gz", "mask": "b/mask.nii.gz"}
    with pytest.raises(GeometryMismatch):
        slices_of(read_cases(manifest_of(tmp_path, entry)), tmp_path)


def test_phases_are_read_from_text() -> None:
    assert phases_from_text("seg:400, cls:100,joint:30:1e-4") == (
        Phase(PhaseKind.SEG, 400, 1e-3),
        Phase(PhaseKind.CLS, 100, 1e-3),
        Phase(PhaseKind.JOINT, 30, 1e-4),
    )
    for wrong in ("", "seg", "seg:x", "other:5", "seg:1:2:3", "seg:5:0", "seg:0"):
        with pytest.raises(InputError):
            phases_from_text(wrong)


def test_an_impossible_training_is_refused_with_every_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no phase; size is 0; .*fraction is 1\.5; a batch needs at least 2"):
        TrainRequest(tmp_path, tmp_path, phases=(), size=0, validation_fraction=1.5, batch_size=1)


def test_the_test_data_is_read(tmp_path: Path) -> None:
    assert len(read_cases(write_data(tmp_path))) == 6
