"""Trainings from file to model: what they write, how they go on, what they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
from training_files import write_dataset

from MedAILib.cli.main import main
from MedAILib.errors import Cancelled, InputError, InvalidWeights
from MedAILib.jobs.task import Context
from MedAILib.models.config import ModelConfig
from MedAILib.models.heads import Activation, HeadTask

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnx", reason="writing graphs needs onnx")
pytest.importorskip("onnxruntime", reason="running graphs needs onnxruntime")

import torch

from MedMNISTRouterLib.datasets import FLAGS
from MedMNISTRouterLib.modelfolder import read_model_folder
from MedMNISTRouterLib.train import learning
from MedMNISTRouterLib.train.request import Kind, Recipe, TrainRequest, TrainResult
from MedMNISTRouterLib.train.state import STATE_FILE
from MedMNISTRouterLib.train.task import TrainTask


def train(path: Path, out: Path, **changes: object) -> TrainResult:
    settings = {"kind": Kind.EXPERT, "epochs": 2, "keras": False, **changes}
    return TrainTask().run(TrainRequest(data=(path,), out=out, **settings), Context())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def a_binary_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), "breastmnist", (64, 32, 32))


@pytest.fixture(scope="module")
def a_trained_expert(a_binary_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(a_binary_file, tmp_path_factory.mktemp("trained") / "breast", epochs=12)


def test_an_expert_learns_and_its_folder_can_be_served(a_trained_expert: TrainResult) -> None:
    folder = read_model_folder(a_trained_expert.folder)
    assert a_trained_expert.metrics["accuracy"] > 0.9
    assert a_trained_expert.parity is not None
    assert a_trained_expert.parity < 1e-5
    assert folder.gate is not None
    assert folder.config.gate is not None
    assert folder.config.gate.threshold == a_trained_expert.gate_threshold
    assert 0.9 < a_trained_expert.metrics["val_gate_acceptance"] <= 1


def test_its_description_names_classes_calibration_and_where_it_comes_from(a_trained_expert: TrainResult) -> None:
    config = ModelConfig.from_checkpoint_dir(a_trained_expert.folder)
    (head,) = config.heads
    assert head.class_names == ("malignant", "normal, benign")
    assert head.positive_class == 0, "malignant is what the data set is about, and its label is 0"
    assert head.task is HeadTask.BINARY
    assert head.temperature == a_trained_expert.temperature
    assert "32 validation images" in head.calibrated_on
    assert config.licence.spdx == "CC-BY-4.0"
    assert "Research only" in config.intended_use
    assert config.provenance.metrics["auc"] == a_trained_expert.metrics["auc"]


def test_its_card_says_what_it_is_not_for_and_that_it_is_small(a_trained_expert: TrainResult) -> None:
    card = (a_trained_expert.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in ("Not validated for clinical use", "Small: it learned from 64 images", "| 0 | malignant |", "ECE"):
        assert words in card


def test_a_multi_label_expert_has_sigmoids_and_a_threshold_of_its_own_for_each_label(tmp_path: Path) -> None:
    result = train(write_dataset(tmp_path, "chestmnist"), tmp_path / "out")
    (head,) = ModelConfig.from_checkpoint_dir(result.folder).heads
    assert (head.task, head.activation) == (HeadTask.MULTI_LABEL, Activation.SIGMOID)
    assert len(head.thresholds) == 14
    assert len(set(head.thresholds)) > 1


def test_an_ordinal_expert_reports_kappa_and_the_error_of_the_grade(tmp_path: Path) -> None:
    result = train(write_dataset(tmp_path, "retinamnist"), tmp_path / "out", epochs=6)
    assert ModelConfig.from_checkpoint_dir(result.folder).heads[0].task is HeadTask.ORDINAL
    assert {"kappa", "mean_grade_error"} <= set(result.metrics)


def test_a_router_knows_its_routes_and_abstains_below_one_half(tmp_path: Path) -> None:
    for flag in ("pneumoniamnist", "bloodmnist"):
        write_dataset(tmp_path, flag)
    result = train(tmp_path, tmp_path / "router", kind=Kind.ROUTER)
    config = ModelConfig.from_checkpoint_dir(result.folder)
    assert [item.routes_to for item in config.heads[0].classes] == [("bloodmnist",), ("pneumoniamnist",)]
    assert config.inputs[0].channels == ("R", "G", "B")
    assert config.gate is not None
    assert config.gate.least_confidence == 0.5


def test_a_training_that_was_cancelled_and_resumed_ends_as_one_that_was_not(
    a_binary_file: Path, tmp_path: Path
) -> None:
    whole = train(a_binary_file, tmp_path / "whole", epochs=3)
    asked = {"times": 0}

    def after_seven_steps() -> bool:
        asked["times"] += 1
        return asked["times"] > 7

    request = TrainRequest(Kind.EXPERT, (a_binary_file,), tmp_path / "parts", epochs=3, keras=False)
    with pytest.raises(Cancelled):
        TrainTask().run(request, Context(is_cancelled=after_seven_steps))
    assert (tmp_path / "parts" / STATE_FILE).is_file()
    resumed = train(a_binary_file, tmp_path / "parts", epochs=3, resume=True)
    assert (tmp_path / "parts" / "model.onnx").read_bytes() == (tmp_path / "whole" / "model.onnx").read_bytes()
    assert resumed.metrics == whole.metrics
    assert [row.loss for row in resumed.log] == [row.loss for row in whole.log]


def test_a_folder_with_a_training_is_not_overwritten(a_binary_file: Path, a_trained_expert: TrainResult) -> None:
    with pytest.raises(InputError, match="already holds a training"):
        train(a_binary_file, a_trained_expert.folder)


def test_a_training_is_not_resumed_with_other_settings(a_binary_file: Path, a_trained_expert: TrainResult) -> None:
    with pytest.raises(InputError, match=r"These differ: epochs, seed\."):
        train(a_binary_file, a_trained_expert.folder, resume=True, epochs=3, seed=5)


def test_a_damaged_state_is_named(a_binary_file: Path, tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(b"no state")
    with pytest.raises(InvalidWeights, match=STATE_FILE):
        train(a_binary_file, tmp_path, resume=True)


def test_too_few_validation_images_leave_the_model_without_a_gate_and_say_so(tmp_path: Path) -> None:
    result = train(write_dataset(tmp_path, "breastmnist", (30, 10, 10)), tmp_path / "out")
    assert result.gate_threshold is None
    assert read_model_folder(result.folder).gate is None
    assert any("No gate was fitted" in text for text in result.warnings)


def test_the_published_recipe_keeps_the_last_weights_and_changes_no_image(a_binary_file: Path, tmp_path: Path) -> None:
    result = train(a_binary_file, tmp_path / "out", recipe=Recipe.PUBLISHED, epochs=8)
    rates = [row.learning_rate for row in result.log]
    assert rates == pytest.approx([1e-3] * 4 + [1e-4] * 2 + [1e-5] * 2)


def test_labels_that_name_sides_are_never_mirrored() -> None:
    mirrored = {flag for flag in FLAGS if learning.augmentation_for(flag).mirror}
    assert mirrored == set(FLAGS) - {"organamnist", "organcmnist", "organsmnist"}


def test_classes_are_drawn_equally_often_where_that_is_asked() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    even = learning.order_of_epoch(labels, 0, 0, evenly=True)
    assert len(even) == 100
    assert labels[even].sum() == 50
    assert sorted(learning.order_of_epoch(labels, 0, 0, evenly=False)) == list(range(100))


def test_a_wrong_grade_costs_more_the_further_off_it_is() -> None:
    from MedMNISTRouterLib.datasets import DatasetTask

    truth = torch.tensor([0])
    near, far = (6.0 * torch.nn.functional.one_hot(torch.tensor([grade]), 5).float() for grade in (1, 4))
    costs = [float(learning.loss_of(logits, truth, DatasetTask.ORDINAL)) for logits in (near, far)]
    assert costs[0] < costs[1]


@pytest.mark.parametrize("flag", ["", "pathmnist", "organamnist"])
def test_augmented_images_keep_their_shape_and_depend_on_the_seed_alone(flag: str) -> None:
    images = learning.as_tensor(np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8), "cpu")
    how = learning.augmentation_for(flag)
    first, again, other = (learning.augmented(images, how, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == images.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_command_trains_an_expert_and_renews_its_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write_dataset(tmp_path, "breastmnist", (64, 32, 32)), tmp_path / "mein Modell"
    arguments = ["train", "expert", "--data", str(path), "--out", str(out), "--epochs", "2", "--no-keras"]
    assert main(["--json", *arguments, "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["result"]["images"] == {"train": 64, "val": 32, "test": 32}
    before = ModelConfig.from_checkpoint_dir(out)
    assert main(["train", "gate", "--model", str(out), "--data", str(path), "--acceptance", "0.8"]) == 0
    assert "Fitted to 64 images; 32 others" in capsys.readouterr().out
    after = ModelConfig.from_checkpoint_dir(out)
    assert before.gate is not None
    assert after.gate is not None
    assert after.gate.acceptance == 0.8
    assert after.gate.threshold < before.gate.threshold
    read_model_folder(out)


def test_the_command_says_what_it_needs_to_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_dataset(tmp_path, "breastmnist").rename(tmp_path / "images.npz")
    assert main(["train", "expert", "--data", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "--flag" in capsys.readouterr().err
