"""``medai train ct`` and ``medai ct evaluate`` as people type them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from chest_cohort import write_ct_rate

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("safetensors", reason="weight files need safetensors")

from CTReportLib.feature import FEATURE  # noqa: E402
from CTReportLib.train import evaluation, request  # noqa: E402
from CTReportLib.train.command import add_train_commands, request_of  # noqa: E402
from MedAILib.cli.main import main  # noqa: E402

torch.set_num_threads(1)
STEPS = ("--encoder-steps", "2", "--classifier-steps", "4", "--localizer-steps", "2", "--encoder-batch", "2")
HERE = ("--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def a_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Daten mit ü")
    written = write_ct_rate(folder / "data", range(300, 316))
    with (folder / "data" / "train_reports.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["VolumeName", "Findings_EN", "Impressions_EN"])
        for one in written:
            said = [name.replace("_", " ") for name, label in one.labels.items() if label]
            rows.writerow([one.volume_name, f"There is {', '.join(said)}." if said else "Normal.", "Not given."])
    return folder


def _answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    capsys.readouterr()
    assert main(["--json", *(str(word) for word in words)]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_training_and_its_measurement_from_the_command_line(
    a_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDAI_HOME", str(a_folder / "home"))
    data, out = a_folder / "data", a_folder / "models"
    trained = _answer(capsys, "train", "ct", data, "--out", out, *STEPS, "--localizer-batch", 2, *HERE)
    assert all(Path(trained[name]).is_file() for name in ("encoder", "classifier", "localizer"))
    assert (out / "MODEL_CARD.md").is_file() and (out / "log.csv").is_file()
    models = [word for name in ("encoder", "classifier", "localizer") for word in (f"--{name}", trained[name])]
    one = _only(a_folder, 2)
    told = _answer(capsys, "ct", "evaluate", one, "--out", a_folder / "scores", *models, "--reports", *HERE)
    assert told["scans"] == 2 and {row["finding"] for row in told["findings"]} == set(trained["findings"])
    assert told["models"]["encoder"]["sha256"] and told["reports"]["against"] == "reports"
    assert told["reports"]["structure"] == 1.0
    written = sorted(path.name for path in (a_folder / "scores").iterdir())
    assert written == ["drawings.csv", "evaluation.json", "findings.csv"]


def _only(folder: Path, count: int) -> Path:
    """The first cases of the data, as data of their own."""
    less = folder / "less"
    write_ct_rate(less, range(300, 300 + count))
    (less / "train_reports.csv").write_bytes((folder / "data" / "train_reports.csv").read_bytes())
    return less


def test_mistakes_end_with_a_paragraph(a_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "ct", str(a_folder / "nowhere"), "--out", str(a_folder / "x"), *HERE]) != 0
    assert "nowhere" in capsys.readouterr().err
    assert main(["ct", "evaluate", str(a_folder / "data"), "--out", str(a_folder / "x"), *HERE]) != 0
    assert "no classifier, no localizer" in capsys.readouterr().err
    assert not (a_folder / "x").exists()


def test_options_become_the_request() -> None:
    import argparse

    commands = argparse.ArgumentParser().add_subparsers()
    add_train_commands(commands)
    words = ["ct", "data", "--out", "out", "--encoder", "e", "--head", "attention", "--loss", "focal", "--held", "0.1"]
    words += ["--classifier-steps", "7", "--classifier-rate", "0.01", "--localizer-steps", "0", "--seed", "3"]
    wanted = request_of(commands.choices["train"].parse_args(words))
    assert wanted.probing == request.Stage(7, 64, 0.01) and wanted.drawing.steps == 0 and wanted.seed == 3
    assert (wanted.encoder, wanted.head, wanted.loss, wanted.held_share) == (Path("e"), "attention", "focal", 0.1)


def test_the_tasks_are_told_and_help_loads_nothing_heavy() -> None:
    assert {request.TASK, evaluation.TASK} <= set(FEATURE.tasks)
    code = (
        "import sys\nfrom MedAILib.cli.main import main\n"
        "try:\n    main(['train', 'ct', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'SimpleITK', 'scipy', 'transformers'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "HEAVY []" in told.stdout and "Research use only" in told.stdout
