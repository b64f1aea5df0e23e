"""``medai train multitask`` and ``medai multitask predict`` as a user types them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from multitask_cases import head, write_data

from MedAILib.cli.groups import command_group
from MedAILib.cli.main import main
from MedAILib.imageio import read_label_map, write_volume
from MedAILib.volume import Volume


def test_help_loads_neither_torch_nor_numpy(repository: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(repository / 'MedAIExtension')!r})\n"
        "from MedAILib.cli.main import main\n"
        "for words in (['multitask', 'predict'], ['train', 'multitask']): main([*words, '--help'])\n"
        "heavy = {'torch', 'numpy', 'scipy', 'SimpleITK', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no clinical weights" in done.stdout
    assert "Research use only" in done.stdout


def test_several_parts_add_to_one_group() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for name in ("one", "two"):
        member = command_group(commands, "train", "train a network").add_parser(name)
        member.set_defaults(found=name)
    assert [parser.parse_args(["train", name]).found for name in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--normalisation", "window:5:1"], "below the second"),
        (["--normalisation", "fixed"], "cannot be given here"),
        (["--normalisation", "z-score:3"], "has no bounds"),
        (["--phases", "seg"], "not a list of training phases"),
        (["--size", "0"], "size is 0"),
    ],
)
def test_wrong_options_are_named(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "multitask", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_model_is_trained_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    manifest = write_data(tmp_path / "data")
    out = tmp_path / "mä model"
    sizes = ["--base-filters", "4", "--depth", "2", "--cls-hidden-dim", "8", "--size", "32", "--batch-size", "4"]
    machine = ["--threads", "1", "--device", "cpu"]
    words = ["train", "multitask", "--data", str(manifest), "--out", str(out), "--phases", "joint:4", *sizes, *machine]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "Written" in said.out
    assert "not validated" in said.out
    assert main(words) == 2
    assert "already holds a training" in capsys.readouterr().err

    volume = Volume(head(9)[0], np.diag([2.0, 1.0, -3.0, 1.0]))
    write_volume(volume, tmp_path / "scan.nii.gz")
    mask, report = tmp_path / "mask.seg.nrrd", tmp_path / "report.json"
    words = ["multitask", "predict", "--volume", str(tmp_path / "scan.nii.gz"), "--model", str(out), *machine]
    assert main([*words, "--out", str(mask), "--report", str(report), "--segment-all", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads(report.read_text(encoding="utf-8"))
    result = facts["result"]
    assert result["num_slices"] == len(result["slice_predictions"]) == 6
    assert facts["weights"] == [f"multitask-m-model sha256:{result['model']['weights_sha256']}"]
    written = read_label_map(mask)
    assert written.geometry.same_grid_as(volume.geometry)
    voxels = int(np.count_nonzero(written.layers[0]))
    assert result["tumor_volume_mm3"] == pytest.approx(6.0 * voxels)
    assert main([*words, "--out", str(tmp_path / "mask.nii.gz"), "--threshold", "0"]) == 0
    assert "6 of 6 slices along k are suspicious" in capsys.readouterr().out


def test_a_missing_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="prediction needs torch")
    write_volume(Volume(head(0)[0], np.eye(4)), tmp_path / "scan.nii.gz")
    words = ["--volume", str(tmp_path / "scan.nii.gz"), "--out", str(tmp_path / "mask.nii.gz"), "--device", "cpu"]
    assert main(["multitask", "predict", "--model", str(tmp_path / "absent.safetensors"), *words]) == 2
    assert "absent.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "mask.nii.gz").exists()


def test_a_model_of_the_catalogue_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="prediction needs torch")
    monkeypatch.setenv("MEDAI_HOME", str(tmp_path / "home"))
    write_volume(Volume(head(0)[0], np.eye(4)), tmp_path / "scan.nii.gz")
    words = ["--volume", str(tmp_path / "scan.nii.gz"), "--out", str(tmp_path / "mask.nii.gz"), "--device", "cpu"]
    assert main(["multitask", "predict", "--model", "knee-nnunet-fullres", *words]) == 7
    assert "MODEL_NOT_INSTALLED" in capsys.readouterr().err
