"""``medai ct report`` as a user meets it: files in, files out, and a paragraph where that is impossible."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chest_phantoms import ChestSpec, make_chest

from CTReportLib.request import RESEARCH_USE
from CTReportLib.source import Case, find_cases, fingerprint
from MedAILib.cli.main import main
from MedAILib.errors import FileMissing
from MedAILib.imageio import read_label_map, write_label_map, write_volume
from MedAILib.volume import LabelMap, SegmentInfo, Volume

PHANTOM = make_chest(ChestSpec())
CHEST = PHANTOM.volume


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a chest CT."""
    folder = tmp_path / "Ordner mit ü 漢"
    folder.mkdir()
    write_volume(CHEST, folder / "chest.nii.gz")
    return folder


@pytest.fixture
def medai(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs ``medai [--json] ct report`` in this process and answers status, output and errors."""

    def run(*options: str, source: str = "chest.nii.gz", json_output: bool = False):
        capsys.readouterr()
        first = ["--json"] if json_output else []
        status = main([*first, "ct", "report", str(folder / source), "--out", str(folder / "out"), *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_chest_becomes_a_report_and_files(medai, folder: Path) -> None:
    status, out, _ = medai()
    assert status == 0, out
    kinds = {"classification.json", "report.txt", "report.html", "summary.json"}
    kinds |= {f"localization.{end}" for end in ("seg.nrrd", "nii.gz", "json")}
    assert {file.name for file in (folder / "out").iterdir()} == {f"chest_{kind}" for kind in kinds} | {
        "run_report.json"
    }
    text = (folder / "out" / "chest_report.txt").read_text(encoding="utf-8")
    assert text in out
    assert RESEARCH_USE in text and "IMPRESSION" in text and "NOT JUDGED" in text
    segments = read_label_map(folder / "out" / "chest_localization.seg.nrrd")
    assert {"Left lung", "Right lung"} <= {segment.name for segment in segments.segments}
    assert segments.geometry.same_grid_as(CHEST.geometry, tolerance_mm=0.01)


def test_json_is_the_summary_and_the_only_output(medai) -> None:
    status, out, _ = medai(json_output=True)
    told = json.loads(out)
    assert status == 0
    assert (len(told["findings"]), told["complete"], told["research_use"]) == (18, True, RESEARCH_USE)
    assert len(told["provenance"]["image_sha256"]) == 64


def test_findings_alone_make_no_report(medai, folder: Path) -> None:
    status, out, _ = medai("--findings-only")
    assert status == 0
    assert "Pleural effusion" in out
    assert not list((folder / "out").glob("*report.html"))


def test_a_segment_with_a_findings_name_is_evidence_and_gives_side_and_volume(medai, folder: Path) -> None:
    labels = np.zeros(CHEST.array.shape, np.uint8)
    labels[tuple(np.argwhere(PHANTOM.right)[:200].T)] = 1
    labels[tuple(np.argwhere(PHANTOM.left)[:5].T)] = 2
    infos = (SegmentInfo("a", "Consolidation", 1), SegmentInfo("b", "Something else", 2))
    write_label_map(LabelMap((labels,), CHEST.ijk_to_ras, infos), folder / "mask.seg.nrrd")
    status, out, err = medai("--mask", str(folder / "mask.seg.nrrd"), json_output=True)
    assert status == 0
    (row,) = [row for row in json.loads(out)["findings"] if row["finding"] == "consolidation"]
    voxel_ml = abs(np.linalg.det(CHEST.ijk_to_ras[:3, :3])) / 1000
    assert (row["decision"], row["basis"]) == ("present", "segment")
    assert row["volume_ml"] == pytest.approx(200 * voxel_ml)
    assert (row["side"], row["place"]) == ("right", "lower third, right")
    assert "Something else" in str(json.loads(out)["warnings"])
    assert "Something else" in err


def test_of_several_cts_each_gets_a_folder_and_a_broken_one_does_not_stop_the_others(medai, folder: Path) -> None:
    (folder / "broken.nii.gz").write_bytes(b"nothing")
    status, out, err = medai(source=".", json_output=True)
    assert status == 3
    told = json.loads(out)
    assert told["failed"] == 1
    assert [case.get("error", {}).get("code") for case in told["cases"]] == ["INVALID_FORMAT", None]
    assert "broken" in err
    assert (folder / "out" / "chest" / "chest_summary.json").is_file()


def test_resuming_leaves_out_what_is_done_with_the_same_input_and_options(medai, folder: Path) -> None:
    assert medai()[0] == 0
    report = folder / "out" / "run_report.json"
    before = report.stat().st_mtime_ns
    status, out, _ = medai("--resume", json_output=True)
    assert (status, json.loads(out)["reused"], report.stat().st_mtime_ns) == (0, True, before)
    write_volume(Volume(np.roll(CHEST.array, 1, axis=0), CHEST.ijk_to_ras), folder / "chest.nii.gz")
    status, out, _ = medai("--resume", json_output=True)
    assert "reused" not in json.loads(out)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((40, 40, 40), np.int16), "empty"),
        (np.random.default_rng(0).integers(0, 255, (60, 60, 60), dtype=np.int16), "not Hounsfield units"),
    ],
)
def test_what_is_no_chest_ct_is_named(medai, folder: Path, array: np.ndarray, words: str) -> None:
    write_volume(Volume(array, np.diag([4.0, 4, 4, 1])), folder / "other.nii.gz")
    status, _, err = medai(source="other.nii.gz")
    assert status == 2
    assert words in err
    assert not (folder / "out").exists()


def test_a_missing_file_a_picture_and_an_empty_folder_are_errors(medai, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert medai(source="nowhere.nii.gz")[0] == 2
    assert medai(source="empty")[0] == 2
    assert "2D picture" in medai(source="p.png")[2]


def test_a_worker_gives_the_same_report(medai) -> None:
    here = json.loads(medai(json_output=True)[1])
    there = json.loads(medai("--worker", json_output=True)[1])
    assert (here["findings"], here["report"]) == (there["findings"], there["report"])


def test_cases_of_a_folder_are_its_images_or_its_series(folder: Path) -> None:
    assert find_cases(folder / "chest.nii.gz") == (Case(folder / "chest.nii.gz", "chest"),)
    (folder / "chest.nrrd").write_bytes(b"x")
    (folder / "chest.seg.nrrd").write_bytes(b"x")
    assert [case.name for case in find_cases(folder)] == ["chest.nii.gz", "chest.nrrd"]
    with pytest.raises(FileMissing):
        find_cases(folder / "none")


def test_a_fingerprint_is_of_the_content(folder: Path) -> None:
    (folder / "copy.nii.gz").write_bytes((folder / "chest.nii.gz").read_bytes())
    both = {fingerprint(Case(folder / name, "x")) for name in ("chest.nii.gz", "copy.nii.gz")}
    assert len(both) == 1


def test_a_cropped_series_says_that_it_does_not_hold_whole_lungs(medai, shared_data, folder: Path) -> None:
    status, out, err = medai(source=str(shared_data("dicom/ct_pat1_rtstruct")))
    assert status == 0
    assert "does not hold whole lungs" in err
    assert "The image does not hold the whole chest" in out
    assert "normal." not in out.replace("does not say that the rest is normal.", "")


@pytest.mark.parametrize("case", ["chestct_lidc0314", "chestct_lung1_001"])
def test_real_chest_cts_run_end_to_end_without_weights(medai, shared_data, case: str) -> None:
    status, out, _ = medai(source=str(shared_data(f"vol3d/{case}/image.nii.gz")), json_output=True)
    told = json.loads(out)
    assert status == 0
    judged = [row for row in told["findings"] if row["decision"] != "not judged"]
    assert len(judged) >= 2
    assert not [one for section in told["report"] for one in section["sentences"] if one["verdict"] == "struck"]


def test_another_modality_is_refused_by_its_name(medai, shared_data) -> None:
    status, _, err = medai(source=str(shared_data("dicom/mr_hippocrop")))
    assert status == 2
    assert "MR" in err
