"""``medai ct report`` with models: by path or id, with exports and resume, and a paragraph where they do not fit."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from chest_phantoms import ChestSpec, make_chest

torch = pytest.importorskip("torch", reason="models need torch")
pytest.importorskip("safetensors", reason="weight files need safetensors")

from ct_models import a_classifier, a_localizer, an_encoder  # noqa: E402

from CTReportLib import command  # noqa: E402
from CTReportLib.documents import KINDS  # noqa: E402
from CTReportLib.request import ENGINES  # noqa: E402
from MedAILib.cli.main import main  # noqa: E402
from MedAILib.imageio import read_label_map, write_volume  # noqa: E402

Run = Callable[..., tuple[int, dict]]
FINDINGS = ("bronchiectasis", "mosaic_attenuation_pattern")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a chest CT and models; the store of models is empty."""
    monkeypatch.setenv("MEDAI_HOME", str(tmp_path / "home"))
    folder = tmp_path / "Ordner mit ü 漢"
    folder.mkdir()
    write_volume(make_chest(ChestSpec()).volume, folder / "chest.nii.gz")
    encoder = an_encoder("ct_conv", folder / "encoder.safetensors")
    a_classifier(folder / "classifier.safetensors", FINDINGS, encoder=encoder, says=(9.0, -9.0), vision_dim=16)
    a_localizer(folder / "localizer.safetensors", ("consolidation",), bias=20.0)
    return folder


@pytest.fixture
def medai(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs ``medai --json ct report`` and answers status and JSON; words are paths in the folder."""

    def run(*options: str, **models: str) -> tuple[int, dict]:
        capsys.readouterr()
        words = [word for role, name in models.items() for word in (f"--{role}", str(folder / name))]
        paths = [str(folder / "chest.nii.gz"), "--out", str(folder / "out"), "--device", "cpu"]
        status = main(["--json", "ct", "report", *paths, *words, *options])
        return status, json.loads(capsys.readouterr().out)

    return run


ALL = {
    "encoder": "encoder.safetensors",
    "classifier": "classifier.safetensors",
    "localizer": "localizer.safetensors",
}


def row_of(told: dict, finding: str) -> dict:
    return next(row for row in told["findings"] if row["finding"] == finding)


def test_models_answer_and_both_files_of_places_are_written(medai: Run, folder: Path) -> None:
    status, told = medai(**ALL)
    assert status == 0, told
    row = row_of(told, "bronchiectasis")
    assert (row["decision"], row["basis"], row["calibrated"], row["predicted"]) == ("present", "model", True, True)
    drawn = row_of(told, "consolidation")
    assert drawn["decision"] == "present" and drawn["volume_ml"] > 1000
    segments = read_label_map(folder / "out" / "chest_localization.seg.nrrd")
    assert drawn["segment"] in {info.id for info in segments.segments}
    assert (folder / "out" / "chest_localization.nii.gz").is_file()
    written = json.loads((folder / "out" / "run_report.json").read_text(encoding="utf-8"))
    assert "small-conv" in json.dumps(written) and "small-localizer" in json.dumps(written)


def test_resume_takes_the_models_into_account(medai: Run, folder: Path) -> None:
    assert medai(**ALL)[0] == 0
    assert medai("--resume", **ALL)[1].get("reused")
    assert not medai("--resume")[1].get("reused")
    assert medai("--resume")[1].get("reused")
    assert not medai("--resume", **ALL)[1].get("reused")
    a_localizer(folder / "localizer.safetensors", ("consolidation",), bias=-20.0)
    status, told = medai("--resume", **ALL)
    assert (status, told.get("reused")) == (0, None)
    assert row_of(told, "consolidation")["decision"] == "not judged"


def test_exports_are_written_and_belong_to_what_is_resumed(medai: Run, folder: Path) -> None:
    pytest.importorskip("reportlab", reason="PDF needs reportlab")
    assert medai()[0] == 0
    status, told = medai("--resume", "--export", "nii, PDF")
    assert (status, told.get("reused")) == (0, None)
    assert told["exported"] == ["chest_localization.nii.gz", "chest_report.pdf"]
    assert set(told["exported"]) <= {file.name for file in (folder / "out").iterdir()}
    assert medai("--resume", "--export", "pdf,nii")[1].get("reused")


def test_an_export_that_needs_dicom_is_refused_before_the_work(medai: Run, folder: Path) -> None:
    status, told = medai("--export", "sr")
    assert status == 2 and "DICOM" in json.dumps(told)
    assert not (folder / "out" / "chest_report.txt").exists()


@pytest.mark.parametrize(
    ("models", "options", "status", "words"),
    [
        ({"classifier": "classifier.safetensors"}, (), 2, "needs the encoder"),
        ({**ALL, "classifier": "localizer.safetensors"}, (), 2, "draws findings"),
        ({**ALL, "encoder": "classifier.safetensors"}, (), 2, "no encoder of chest CTs"),
        ({**ALL, "encoder": "chest.nii.gz"}, (), 8, "chest.nii.gz"),
        ({**ALL, "encoder": "gone.safetensors"}, (), 2, "There is no"),
        ({}, ("--engine", "llm"), 2, "needs a language model"),
        ({"llm": "chest.nii.gz"}, (), 2, "no folder"),
        (ALL, ("--device", "cuda:9"), 2, "cuda:9"),
    ],
)
def test_models_that_do_not_fit_are_told_in_a_paragraph(
    medai: Run, folder: Path, models: dict[str, str], options: tuple[str, ...], status: int, words: str
) -> None:
    found, told = medai(*options, **models)
    assert found == status
    assert words in json.dumps(told, ensure_ascii=False)
    assert not (folder / "out").exists()


def test_a_model_that_is_known_and_not_here_says_how_to_get_it(medai: Run, folder: Path) -> None:
    status, told = medai("--encoder", "mem3d-vmn-youtube-vos")
    assert status == 7 and "mem3d-vmn-youtube-vos" in json.dumps(told)


def test_without_torch_models_name_the_missing_package_and_the_rest_runs(folder: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; from MedAILib.cli.main import main; sys.exit(main())"
    words = ["--json", "ct", "report", str(folder / "chest.nii.gz"), "--out", str(folder / "out"), "--findings-only"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def status_and_output(*more: str) -> tuple[int, str]:
        command = [sys.executable, "-c", program, *words, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout

    assert status_and_output()[0] == 0
    status, output = status_and_output("--localizer", str(folder / "localizer.safetensors"))
    assert status == 6 and "PyTorch" in output


def test_the_command_offers_what_there_is() -> None:
    assert command.ENGINES == ENGINES
    assert set(command.EXPORTS) == set(KINDS)


@pytest.mark.parametrize("text", ["", ",", "pdf,unicorn"])
def test_what_is_no_list_of_kinds_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        command._kinds(text)
