"""The command ``medai route``, run as a user runs it, with small models made here."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: no model can run")
pytest.importorskip("onnx", reason="onnx is not installed: no model can be made")

from picture_writers import LFS_POINTER, save_picture, save_radiograph
from router_store import a_grey_picture, a_reddish_picture, a_strange_picture, write_store

from MedAILib.cli.main import main
from MedAILib.imageio import write_volume
from MedAILib.volume import Volume
from MedMNISTRouterLib.files_task import TASK


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("models ü"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a picture of every kind, and one that is broken."""
    folder = tmp_path / "Bilder é"
    save_picture(folder / "1 top.png", a_grey_picture(1000))
    save_radiograph(folder / "2 bottom.dcm", a_grey_picture(1001, bright_top=False))
    save_picture(folder / "3 stripes.png", a_strange_picture())
    save_picture(folder / "4 red.png", a_reddish_picture(1002))
    broken = save_picture(folder / "5 broken.png", a_grey_picture(1003))
    broken.write_bytes(broken.read_bytes()[:-40])
    return folder


def route(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of ``medai route ... --json``."""
    capsys.readouterr()
    status = main(["route", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_radiograph_gets_the_fields_of_the_described_service(capsys, store: Path, pictures: Path) -> None:
    status, found = route(capsys, pictures / "1 top.png", "--models", store)
    assert status == 0
    (answer,) = found["answers"]
    assert answer["success"] is True and answer["routed_dataset"] == "pneumoniamnist"
    assert answer["router_confidence"] > 0.99
    assert answer["predicted_class_index"] == 1 and answer["predicted_class_name"] == "pneumonia"
    assert sum(answer["all_class_probs"]) == pytest.approx(1, abs=1e-5)
    assert answer["predicted_class_confidence"] == pytest.approx(max(answer["all_class_probs"]))
    assert answer["calibrated"] and answer["recognised"] and answer["distance"] < answer["threshold"]
    assert [len(model["sha256"]) for model in answer["models"]] == [64, 64]
    assert answer["milliseconds"]["total"] > 0
    assert found["run_id"] and found["note"].startswith("For research use only")


def test_a_folder_is_routed_and_what_fails_does_not_hinder_the_others(capsys, store: Path, pictures: Path) -> None:
    status, found = route(capsys, pictures, "--models", store)
    assert status == 3
    answers = found["answers"]
    assert [answer["image"] for answer in answers] == [
        "1 top.png",
        "2 bottom.dcm",
        "3 stripes.png",
        "4 red.png",
        "5 broken.png",
    ]
    assert [answer["predicted_class_name"] for answer in answers] == ["pneumonia", "normal", None, None, None]
    assert [answer["error_code"] for answer in answers] == [
        None,
        None,
        None,
        "MODEL_NOT_INSTALLED",
        "INVALID_FORMAT",
    ]
    assert answers[2]["recognised"] is False and answers[2]["distance"] > answers[2]["threshold"]
    assert "stage2_bloodmnist_final.keras" in answers[3]["error"]
    assert answers[3]["routes"][0]["is_installed"] is False


def test_what_is_not_recognised_is_an_answer_and_its_reason_is_printed(capsys, store: Path, pictures: Path) -> None:
    assert main(["route", str(pictures / "3 stripes.png"), "--models", str(store)]) == 0
    printed = capsys.readouterr().out
    assert "3 stripes.png: Not recognised" in printed
    assert "Distance from known images" in printed
    assert "pneumonia" not in printed.lower().split("not followed:")[0]
    assert "For research use only" in printed


def test_a_csv_file_has_a_row_for_every_image_also_for_those_that_failed(
    capsys, store: Path, pictures: Path, tmp_path: Path
) -> None:
    target = tmp_path / "answers ü.csv"
    assert main(["route", str(pictures / "*.png"), "--batch", str(target), "--models", str(store)]) == 3
    assert f"Written: {target}" in capsys.readouterr().out
    with target.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["state"] for row in rows] == ["answered", "not recognised", "failed", "failed"]
    assert rows[0]["class_name"] == "pneumonia"
    assert main(["route", str(pictures), "--batch", str(tmp_path / "no" / "x.csv"), "--models", str(store)]) == 4


def test_an_expert_can_be_asked_directly_and_a_multi_label_one_lists_its_findings(
    capsys, store: Path, pictures: Path
) -> None:
    image = pictures / "1 top.png"
    status, found = route(capsys, image, "--models", store, "--expert", "chestmnist")
    assert status == 0
    assert found["answers"][0]["recognised"] is False  # no statistics: no label
    status, found = route(capsys, image, "--models", store, "--expert", "chestmnist", "--without-gate")
    answer = found["answers"][0]
    assert answer["task"] == "multi-label" and answer["router_confidence"] is None
    assert [finding["name"] for finding in answer["positives"]] == ["atelectasis", "effusion"]
    assert answer["calibrated"] is False


def test_the_number_of_routes_is_as_asked(capsys, store: Path, pictures: Path) -> None:
    for top in (1, 5):
        _status, found = route(capsys, pictures / "1 top.png", "--models", store, "--top", top)
        assert len(found["answers"][0]["routes"]) == top


def test_a_stack_is_routed_slice_by_slice(capsys, store: Path, tmp_path: Path) -> None:
    volume = Volume(np.stack([a_grey_picture(n, bright_top=n < 2) for n in range(3)]), np.diag([-1.0, -1.0, 2.0, 1.0]))
    write_volume(volume, tmp_path / "stack.nrrd")
    status, found = route(capsys, tmp_path / "stack.nrrd", "--slice", "all", "--models", store)
    assert status == 0
    assert [answer["image"] for answer in found["answers"]] == [f"stack.nrrd [k {n}]" for n in range(3)]
    assert [answer["predicted_class_name"] for answer in found["answers"]] == ["pneumonia", "pneumonia", "normal"]
    status, found = route(capsys, tmp_path / "stack.nrrd", "--models", store, "--axis", "axial", "--slice", "2")
    assert found["answers"][0]["predicted_class_name"] == "normal"
    status, found = route(capsys, tmp_path / "stack.nrrd", "--models", store, "--slice", "7")
    assert status == 2 and "no slice 7" in found["answers"][0]["error"]


def test_the_worker_answers_the_same(capsys, store: Path, pictures: Path) -> None:
    here, there = (route(capsys, pictures, "--models", store, *way)[1] for way in ((), ("--worker",)))
    for answer in (*here["answers"], *there["answers"]):
        del answer["milliseconds"]
    assert here["answers"] == there["answers"]


def test_a_single_bad_file_gives_its_own_exit_status(capsys, store: Path, tmp_path: Path) -> None:
    (tmp_path / "pointer.png").write_bytes(LFS_POINTER)
    status, found = route(capsys, tmp_path / "pointer.png", "--models", store)
    assert status == 2 and "Git LFS pointer" in found["answers"][0]["error"]
    assert main(["route", str(tmp_path / "none*.png")]) == 2
    assert "No file matches" in capsys.readouterr().err


def test_a_missing_expert_alone_is_the_status_of_missing_models(capsys, store: Path, pictures: Path) -> None:
    status, found = route(capsys, pictures / "4 red.png", "--models", store)
    assert status == 7
    assert "medai models import" in found["answers"][0]["error"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--top", "0"], "no number from 1"),
        (["--slice", "-3"], "slice"),
        (["--frame", "zero"], "no number from 1"),
        (["--window=240,-160"], "lower"),
        (["--window", "wide"], "pair of numbers"),
        (["--model", "router"], "not SLOT=PATH"),
        (["--model", "heart=x.keras"], "not SLOT=PATH"),
        (["--expert", "mnist"], "mnist"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(capsys, arguments: list[str], said: str) -> None:
    assert main(["route", "x.png", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_asking_for_help_loads_no_numerical_package() -> None:
    code = (
        "import sys\nfrom MedAILib.cli.main import main\nmain(['route', '--help'])\n"
        "heavy = {'numpy', 'PIL', 'pydicom', 'onnxruntime', 'onnx', 'tensorflow', 'keras', 'torch', 'SimpleITK'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "--expert" in done.stdout and "Research use only" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_task_that_faces_use_is_the_one_the_feature_names() -> None:
    from MedMNISTRouterLib.feature import FEATURE

    assert TASK in FEATURE.tasks
