"""Descriptions written for existing weight files by looking inside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_system import ordinary_user
from model_files import FLAT, SMALL, write_hollow_safetensors, write_hollow_unet, write_json

from MedAILib.errors import FileMissing, InputError, InvalidWeights, OutputError
from MedAILib.models.config import CONFIG_FILE, ModelConfig
from MedAILib.models.describe import describe, describe_all, weight_files, write_description
from MedAILib.models.resolve import resolve
from MedAILib.models.tensors import file_sha256, inspect_tensors


def test_describing_writes_nothing(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "best.safetensors")
    description = describe(weights)
    assert description.config.get_model_params() == SMALL
    assert list(tmp_path.iterdir()) == [weights]
    assert not description.up_to_date


def test_a_described_file_resolves_by_its_hash(tmp_path: Path) -> None:
    folder = tmp_path / "größe 漢 x"
    folder.mkdir()
    weights = write_hollow_unet(folder / "best model.safetensors")
    written = write_description(describe(weights))
    assert (written.path, written.backup) == (folder / CONFIG_FILE, None)
    config = ModelConfig.from_checkpoint_dir(folder)
    assert config.files[0].sha256 == file_sha256(weights)
    assert config.id == "best-model"
    resolution = resolve(inspect_tensors(weights))
    assert resolution.origin.name == "BOUND"
    assert resolution.config == config


def test_what_cannot_be_seen_is_marked_as_assumed_and_said(tmp_path: Path) -> None:
    description = describe(write_hollow_unet(tmp_path / "a.safetensors"))
    assert "$.inputs[0].normalisation" in description.config.assumed
    assert "$.heads[1].classes" in description.config.assumed
    assert any("please check: $.inputs[0].modality" in finding for finding in description.findings)
    assert any("66 tensors are those of a multitask_unet with in_channels=1" in text for text in description.findings)


def test_describing_again_changes_nothing(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "a.safetensors")
    write_description(describe(weights))
    before = (tmp_path / CONFIG_FILE).read_bytes()
    again = describe(weights)
    assert again.up_to_date
    assert write_description(again).backup is None
    assert (tmp_path / CONFIG_FILE).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_the_wrong_description_of_the_old_generator_is_corrected_and_kept_aside(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "best_model.safetensors")
    write_json(tmp_path / CONFIG_FILE, FLAT)
    description = describe(weights)
    assert "The description in its folder (model_config.json) says base_filters=64; the tensors say 4." in (
        description.findings
    )
    written = write_description(description)
    assert json.loads(written.backup.read_text()) == FLAT
    config = ModelConfig.load(written.path)
    assert config.get_model_params() == SMALL
    assert config.provenance.trained_on == "BraTS slices"
    assert resolve(inspect_tensors(weights)).conflicts == ()


def test_earlier_backups_are_never_lost(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "a.safetensors")
    names = []
    for version in ("1", "2", "3"):
        write_json(tmp_path / CONFIG_FILE, {**FLAT, "version": version})
        names.append(write_description(describe(weights)).backup.name)
    assert names == [f"{CONFIG_FILE}.bak", f"{CONFIG_FILE}.bak2", f"{CONFIG_FILE}.bak3"]
    assert [json.loads((tmp_path / name).read_text())["version"] for name in names] == ["1", "2", "3"]


def test_what_people_stated_is_kept(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "a.safetensors")
    config = describe(weights).config
    heads = (replace(config.heads[0], threshold=0.2), config.heads[1])
    stated = replace(config, title="Ours", heads=heads, assumed=(), files=(), extra={"ward": "B"})
    stated.save(tmp_path)
    found = describe(weights).config
    assert (found.title, found.heads[0].threshold, found.extra, found.assumed) == ("Ours", 0.2, {"ward": "B"}, ())


def test_assumed_classes_follow_the_tensors(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "a.safetensors", {**SMALL, "cls_num_classes": 3, "in_channels": 4})
    write_json(tmp_path / CONFIG_FILE, FLAT)
    config = describe(weights).config
    assert config.heads[1].class_names == ("class 0", "class 1", "class 2")
    assert len(config.inputs[0].channels) == 4
    assert config.problems() == ()


def test_stated_classes_that_contradict_the_tensors_are_left_to_a_person(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "a.safetensors", {**SMALL, "cls_num_classes": 3})
    config = ModelConfig.from_dict({**FLAT, "base_filters": 4, "depth": 2})
    replace(config, assumed=()).save(tmp_path)
    description = describe(weights)
    assert description.config.heads[1].class_names == ("No Tumor", "Tumor")
    assert any(
        finding == "Please mend by hand: $.heads[1].classes asks for 2 outputs, the network answers 3."
        for finding in description.findings
    )


def test_a_broken_description_is_replaced_and_kept_aside(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "a.safetensors")
    (tmp_path / CONFIG_FILE).write_text("{broken", encoding="utf-8")
    description = describe(weights)
    assert any("is not JSON" in finding for finding in description.findings)
    written = write_description(description)
    assert written.backup.read_text() == "{broken"
    assert ModelConfig.load(written.path).get_model_params() == SMALL


def test_a_replaced_file_gets_a_description_anew(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "a.safetensors")
    write_description(describe(weights))
    write_hollow_unet(weights, {**SMALL, "depth": 3})
    with pytest.raises(InvalidWeights):
        resolve(inspect_tensors(weights))
    write_description(describe(weights))
    assert resolve(inspect_tensors(weights)).config.get_model_params()["depth"] == 3


def test_every_checkpoint_of_a_folder_gets_its_own_description(tmp_path: Path) -> None:
    depths = {"best.safetensors": 2, "last.safetensors": 3, "warm.safetensors": 1}
    for name, depth in depths.items():
        write_hollow_unet(tmp_path / name, {**SMALL, "depth": depth})
    write_json(tmp_path / CONFIG_FILE, FLAT)
    (tmp_path / "last.training.pth").write_bytes(b"state")
    descriptions = describe_all(tmp_path)
    assert [item.target.name for item in descriptions] == [
        CONFIG_FILE,
        f"last.safetensors.{CONFIG_FILE}",
        f"warm.safetensors.{CONFIG_FILE}",
    ]
    for description in descriptions:
        write_description(description)
    for name, depth in depths.items():
        resolution = resolve(inspect_tensors(tmp_path / name))
        assert resolution.config.get_model_params()["depth"] == depth
        assert resolution.config.provenance.trained_on == "BraTS slices"
        assert resolution.remarks == ()
    assert all(item.up_to_date for item in describe_all(tmp_path))


def test_a_folder_with_several_files_asks_which_one(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        write_hollow_unet(tmp_path / name)
    with pytest.raises(InputError, match=r"2 weight files: 'a\.safetensors', 'b\.safetensors'"):
        describe(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    assert describe(tmp_path).weights.path.name == "a.safetensors"
    assert weight_files(tmp_path) == (tmp_path / "a.safetensors",)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no weight files"):
        describe(tmp_path)
    with pytest.raises(FileMissing):
        describe(tmp_path / "absent.pth")


def test_an_unknown_network_is_described_as_unknown_and_never_guessed(tmp_path: Path) -> None:
    weights = write_hollow_safetensors(tmp_path / "strange.safetensors", {"fc.weight": (2, 3)})
    description = describe(weights)
    assert "the first is 'fc.weight' of shape [2, 3]" in description.findings[0]
    assert "fill in $.architecture" in description.findings[-1]
    write_description(description)
    assert ModelConfig.from_checkpoint_dir(tmp_path).files[0].path == weights.name
    with pytest.raises(InvalidWeights, match="Nothing says which network"):
        resolve(inspect_tensors(weights))


def test_a_network_with_a_tensor_missing_is_not_passed_off_as_whole(tmp_path: Path) -> None:
    from MedAILib.models.unet_inference import expected_shapes

    shapes = expected_shapes(SMALL)
    del shapes["cls_head.classifier.4.bias"]
    weights = write_hollow_safetensors(tmp_path / "a.safetensors", shapes)
    write_json(tmp_path / CONFIG_FILE, FLAT)
    description = describe(weights)
    assert "'cls_head.classifier.4.bias' is expected with shape 2" in description.findings[0]
    assert description.config.architecture.name == "unknown"
    assert any("is of a multitask_unet, which the tensors are not" in finding for finding in description.findings)


def test_a_description_for_programs_is_plain_json(tmp_path: Path) -> None:
    answer = json.loads(json.dumps(describe(write_hollow_unet(tmp_path / "a.safetensors")).to_dict()))
    assert answer["config"]["architecture"]["parameters"] == SMALL
    assert (answer["format"], answer["tensors"], answer["up_to_date"]) == ("safetensors", 66, False)


def test_pytorch_checkpoints_are_described_without_running_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from MedAILib.models.unet_inference import expected_shapes

    state = {f"module.{name}": torch.zeros(shape) for name, shape in expected_shapes(SMALL).items()}
    for number, legacy in enumerate((False, True)):
        path = tmp_path / f"{number}.pth"
        torch.save({"state_dict": state, "config": {"depth": 7}}, path, _use_new_zipfile_serialization=not legacy)
        description = describe(path)
        assert description.config.get_model_params() == SMALL
        assert (
            f"The description inside the file ({number}.pth) says depth=7; the tensors say 2." in description.findings
        )


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "a.safetensors")
    description = describe(weights)
    tmp_path.chmod(0o555)
    with ordinary_user(), pytest.raises(OutputError):
        write_description(description)
