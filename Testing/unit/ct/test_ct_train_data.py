"""Data laid out as CT-RATE is: what is read, what is refused, what stays unknown."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from chest_cohort import patient, write_ct_rate
from chest_phantoms import ChestSpec, make_chest

from CTReportLib.findings import FINDINGS
from CTReportLib.train.ctrate import UNKNOWN, read_data, split_by_patient
from CTReportLib.train.parts import parts_of
from CTReportLib.train.request import LOCALIZER_LAYOUT, TrainRequest
from CTReportLib.train.store import bits, known_masks, labels_array, make_store
from MedAILib.errors import FileMissing, InputError
from MedAILib.imageio import write_label_map, write_volume
from MedAILib.jobs.task import Context
from MedAILib.volume import LabelMap, SegmentInfo, Volume

NAMES = [one.name for one in FINDINGS]


def _table(folder: Path, columns: list[str], rows: list[list[str]], split: str = "train") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{split}_predicted_labels.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])


def _touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture
def a_table(tmp_path: Path) -> Path:
    folder = tmp_path / "Daten für CT"
    rows = [
        ["train_1_a_1.nii.gz", *["0"] * 18],
        ["train_1_a_2.nii.gz", *["1"] * 18],
        ["train_2_a_1.nii.gz", *[""] * 18],
    ]
    _table(folder, ["VolumeName", *NAMES], rows)
    _touch(folder / "dataset" / "train" / "train_1", "train_1_a_1.nii.gz", "train_1_a_2.nii.gz")
    _touch(folder / "dataset" / "train" / "train_2", "train_2_a_1.nii.gz")
    return folder


def test_labels_are_read_in_canonical_order_and_an_empty_cell_is_unknown(a_table: Path) -> None:
    cases = read_data(a_table).cases
    assert [case.name for case in cases] == ["train_1_a_1", "train_1_a_2", "train_2_a_1"]
    assert [case.patient for case in cases] == ["train_1", "train_1", "train_2"]
    assert {case.split for case in cases} == {"train"}
    assert cases[0].labels == (0,) * 18 and cases[1].labels == (1,) * 18 and cases[2].labels == (UNKNOWN,) * 18


def test_a_missing_column_is_unknown_and_an_unknown_column_is_told(tmp_path: Path) -> None:
    _table(tmp_path, ["VolumeName", "Emphysema", "Fracture", "Enlarged lymph nodes"], [["a.nii.gz", "1.0", "1", "0"]])
    _touch(tmp_path, "a.nii.gz")
    data = read_data(tmp_path)
    known = {one.id: label for one, label in zip(FINDINGS, data.cases[0].labels, strict=True) if label != UNKNOWN}
    assert known == {"emphysema": 1, "lymphadenopathy": 0}
    assert "Fracture" in data.remarks[0] and "Cardiomegaly" in data.remarks[1] and "not absent" in data.remarks[1]


@pytest.mark.parametrize(
    ("columns", "rows", "said"),
    [
        (["Volume", "Emphysema"], [["a.nii.gz", "1"]], "no column VolumeName"),
        (["VolumeName", "Emphysema"], [["a", "1"]], "does not end in .nii.gz"),
        (["VolumeName", "Emphysema"], [["a.nii.gz", "2"]], "'2' is no label of Emphysema"),
        (["VolumeName", "Emphysema"], [["a.nii.gz", "1"], ["a.nii.gz", "0"]], "more than once"),
        (["VolumeName", "Emphysema", "emphysema"], [["a.nii.gz", "1", "0"]], "two columns"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(
    tmp_path: Path, columns: list[str], rows: list[list[str]], said: str
) -> None:
    _table(tmp_path, columns, rows)
    _touch(tmp_path, "a.nii.gz")
    with pytest.raises(InputError, match=said):
        read_data(tmp_path)


def test_all_problems_of_a_table_come_at_once(tmp_path: Path) -> None:
    _table(tmp_path, ["VolumeName", "Emphysema"], [["a", "1"], ["b.nii.gz", "x"]])
    with pytest.raises(InputError, match=r"line 2.*line 3"):
        read_data(tmp_path)


def test_volumes_and_tables_that_are_not_there_are_named(tmp_path: Path, a_table: Path) -> None:
    with pytest.raises(FileMissing, match="no folder"):
        read_data(tmp_path / "none")
    with pytest.raises(FileMissing, match="no table of labels"):
        read_data(a_table / "dataset")
    (a_table / "dataset" / "train" / "train_2" / "train_2_a_1.nii.gz").unlink()
    with pytest.raises(FileMissing, match=r"train_2_a_1\.nii\.gz"):
        read_data(a_table)


def test_two_volumes_of_one_name_are_refused(a_table: Path) -> None:
    _touch(a_table / "again", "train_1_a_1.nii.gz")
    with pytest.raises(InputError, match="there are 2 volumes"):
        read_data(a_table)


def test_reports_are_joined_and_what_is_not_given_is_empty(a_table: Path) -> None:
    with (a_table / "train_reports.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN"])
        rows.writerow(["train_1_a_1.nii.gz", "Cough.", "CT.", "Emphysema.", "Not given."])
    cases = read_data(a_table).cases
    assert cases[0].report == "FINDINGS: Emphysema." and cases[1].report == ""


def test_the_split_is_the_tables_or_its_column(a_table: Path) -> None:
    _table(a_table, ["VolumeName", "Split", "Emphysema"], [["v_1_a_1.nii.gz", "test", "1"]], split="valid")
    _touch(a_table, "v_1_a_1.nii.gz")
    data = read_data(a_table)
    assert [case.name for case in data.of_split("test")] == ["v_1_a_1"]
    with pytest.raises(InputError, match="test, train"):
        data.of_split("none")


def test_no_patient_is_learned_from_and_kept_apart(tmp_path: Path) -> None:
    names = [f"train_{n // 2}_a_{n % 2}.nii.gz" for n in range(60)]
    _table(tmp_path, ["VolumeName", "Emphysema"], [[name, str(n % 2)] for n, name in enumerate(names)])
    _touch(tmp_path, *names)
    cases = read_data(tmp_path).cases
    learning, held = split_by_patient(cases, 0.25, 3)
    assert not {case.patient for case in learning} & {case.patient for case in held}
    assert len(held) == 2 * round(0.25 * 30) and split_by_patient(cases, 0.25, 3) == (learning, held)
    more = split_by_patient(cases[:-2], 0.25, 3)[1]
    assert len({c.patient for c in more} ^ {c.patient for c in held}) <= 3


def test_a_split_called_valid_is_kept_apart_and_its_patients_are_not_learned_from(tmp_path: Path) -> None:
    _table(tmp_path, ["VolumeName", "Emphysema"], [[f"train_{n}_a_1.nii.gz", str(n % 2)] for n in range(12)])
    _table(tmp_path, ["VolumeName", "Emphysema"], [["valid_1_a_1.nii.gz", "1"], ["train_3_b_1.nii.gz", "0"]], "valid")
    _touch(tmp_path, *(f"train_{n}_a_1.nii.gz" for n in range(12)), "valid_1_a_1.nii.gz", "train_3_b_1.nii.gz")
    parts = parts_of(read_data(tmp_path), TrainRequest(tmp_path, tmp_path / "out"))
    assert len(parts.learning) == 12 and [case.name for case in parts.held] == ["valid_1_a_1"]
    assert parts.findings == ("emphysema",)


def test_findings_with_too_few_scans_are_not_learned_and_told(tmp_path: Path) -> None:
    rows = [[f"train_{n}_a_1.nii.gz", str(n % 2), "1" if n == 0 else "0", ""] for n in range(20)]
    _table(tmp_path, ["VolumeName", "Emphysema", "Hiatal hernia", "Consolidation"], rows)
    _touch(tmp_path, *(f"train_{n}_a_1.nii.gz" for n in range(20)))
    parts = parts_of(read_data(tmp_path), TrainRequest(tmp_path, tmp_path / "out"))
    assert parts.findings == ("emphysema",)
    (said,) = [text for text in parts.remarks if "does not learn" in text]
    assert "Hiatal hernia" in said and "Consolidation" not in said


def test_masks_come_as_segments_or_as_files_and_what_nobody_drew_is_unknown(tmp_path: Path) -> None:
    seeds = [3, 7]
    first, second = write_ct_rate(tmp_path, seeds)
    cases = {case.name: case for case in read_data(tmp_path).cases}
    known = known_masks(cases[first.volume_name.removesuffix(".nii.gz")])
    for name, mask in known.items():
        assert np.array_equal(mask.array > 0, first.mask(name)) if mask is not None else not first.mask(name).any()
    assert len(known) == 5
    (tmp_path / "masks" / f"train_{second.seed}_a_1.seg.nrrd").unlink()
    folder = tmp_path / "masks" / f"train_{second.seed}_a_1"
    folder.mkdir()
    mask = second.mask("consolidation").astype(np.uint8)
    write_volume(Volume(mask, second.chest.volume.ijk_to_ras), folder / "Consolidation.nii.gz")
    case = next(case for case in read_data(tmp_path).cases if case.name.startswith(f"train_{second.seed}_"))
    known = known_masks(case)
    assert np.array_equal(known["consolidation"].array > 0, second.mask("consolidation"))
    denied = {name for name, label in second.labels.items() if label == 0}
    assert {name for name, mask in known.items() if mask is None} >= denied & set(known) - {"consolidation"}
    assert not {"lung_nodule", "pleural_effusion"} & set(known) - denied
    _touch(folder, "fracture.nii.gz")
    with pytest.raises(InputError, match=r"fracture\.nii\.gz"):
        known_masks(case)


def test_a_segment_of_another_name_is_refused(tmp_path: Path) -> None:
    (one,) = write_ct_rate(tmp_path, [5])
    layer = one.chest.left.astype(np.uint8)
    labels = LabelMap((layer,), one.chest.volume.ijk_to_ras, (SegmentInfo("left_lung", "Left lung", 1),))
    write_label_map(labels, tmp_path / "masks" / "train_5_a_1.seg.nrrd")
    with pytest.raises(InputError, match="Left lung"):
        known_masks(read_data(tmp_path).cases[0])


def test_prepared_volumes_and_masks_lie_on_each_other_and_are_made_once(tmp_path: Path) -> None:
    written = write_ct_rate(tmp_path / "data", [11, 12])
    cases = read_data(tmp_path / "data").cases
    told: list[str] = []
    context = Context(on_progress=lambda progress: told.append(progress.detail))
    store = make_store(cases, LOCALIZER_LAYOUT, tmp_path / "prepared", context, "Preparing", (0.0, 1.0))
    assert store.hu.shape == (2, *LOCALIZER_LAYOUT.shape_kji) and store.known.all() and len(told) == 2
    for number, one in enumerate(written):
        masks = bits(np.asarray(store.drawn[number]), range(5))
        fluid = masks[1] > 0
        true_ml = one.mask("pleural_effusion").sum() * np.prod(one.chest.volume.geometry.spacing_ijk_mm)
        assert fluid.sum() * 3.5**3 == pytest.approx(true_ml, rel=0.05, abs=1.0)
        if fluid.any():
            assert abs(float(np.median(store.hu[number][fluid])) - 8.0) < 12.0
    again = make_store(cases, LOCALIZER_LAYOUT, tmp_path / "prepared", context, "Preparing", (0.0, 1.0))
    assert len(told) == 2 and np.array_equal(again.hu, store.hu)
    assert labels_array(cases, ("cardiomegaly",)).shape == (2, 1)


def test_a_volume_that_is_no_ct_is_named(tmp_path: Path) -> None:
    write_ct_rate(tmp_path, [1])
    chest = make_chest(ChestSpec())
    bright = Volume(np.full_like(chest.volume.array, 300), chest.volume.ijk_to_ras)
    write_volume(bright, tmp_path / "volumes" / "train_1_a_1.nii.gz")
    with pytest.raises(InputError, match="train_1_a_1"):
        make_store(read_data(tmp_path).cases, LOCALIZER_LAYOUT, tmp_path / "p", Context(), "Preparing", (0.0, 1.0))


def test_phantoms_of_one_seed_are_one_patient() -> None:
    first, second = patient(21), patient(21)
    assert np.array_equal(first.chest.volume.array, second.chest.volume.array) and first.labels == second.labels
    shown = np.array([list(patient_labels.values()) for patient_labels in (_labels(seed) for seed in range(400))])
    assert (np.abs(shown.mean(axis=0) - 0.35) < 0.26).all()


def _labels(seed: int) -> dict[str, int]:
    from chest_cohort import labels_of, random_spec

    return labels_of(random_spec(seed))
