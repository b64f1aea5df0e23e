"""Training: the loss falls, slices are learned by heart, a killed run ends as one that was not."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from multitask_cases import head, write_case, write_data  # noqa: E402
from multitask_models import state_hash  # noqa: E402

from MedAILib.errors import Cancelled, InputError, InvalidWeights  # noqa: E402
from MedAILib.imageio import read_label_map, read_volume, write_label_map, write_volume  # noqa: E402
from MedAILib.jobs.task import Context, Progress  # noqa: E402
from MedAILib.multitask.network import create_multi_task_model  # noqa: E402
from MedAILib.multitask.predictor import MultiTaskPredictor  # noqa: E402
from MedAILib.multitask.train.learning import augmented, draw_batch, learning_rate, optimizer_for, set_mode, take_step  # noqa: E402
from MedAILib.multitask.train.measures import dice  # noqa: E402
from MedAILib.multitask.train.request import Phase, PhaseKind, TrainRequest, TrainResult, phases_from_text  # noqa: E402
from MedAILib.multitask.train.slices import SliceSet  # noqa: E402
from MedAILib.multitask.train.task import TrainTask  # noqa: E402
from MedAILib.volume import LabelMap, Volume  # noqa: E402

TINY = {"base_filters": 4, "depth": 2, "cls_hidden_dim": 8, "dropout": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("cases"))


def a_request(data: Path, out: Path, phases: str = "seg:6,cls:4,joint:6") -> TrainRequest:
    return TrainRequest(
        data, out, phases_from_text(phases), TINY, size=32, batch_size=4, validate_every=4, save_every=3
    )


def run(request: TrainRequest, context: Context | None = None) -> TrainResult:
    return TrainTask().run(request, context or Context(threads=1))


def weights_hash(result: TrainResult) -> str:
    return state_hash(MultiTaskPredictor(result.checkpoint, "cpu").model)


def some_slices(count: int = 6, side: int = 32) -> SliceSet:
    pairs = [head(seed, slices=3, side=side) for seed in range(count)]
    images = np.stack([image[1] for image, _ in pairs]).astype(np.float32) / 400
    masks = np.stack([mask[1] for _, mask in pairs])
    masks[::2] = 0
    return SliceSet(images, masks)


def test_training_leaves_a_model_a_description_and_a_log(data: Path, tmp_path: Path) -> None:
    result = run(a_request(data, tmp_path / "mä out"))
    assert {path.name for path in (tmp_path / "mä out").iterdir()} == {
        "model.safetensors", "model_config.json", "log.csv", "best", "resume",
    }  # fmt: skip
    predictor = MultiTaskPredictor(tmp_path / "mä out", "cpu", threads=1)
    assert predictor.input.size == (32, 32)
    assert predictor.classifying.head.threshold == result.classification_threshold
    assert predictor.config.provenance.metrics == result.metrics
    assert "no diagnosis" in predictor.config.intended_use
    assert predictor.get_model_info()["calibrated"]
    with (tmp_path / "mä out" / "log.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["step"], row["phase"]) for row in rows] == [
        ("4", "seg"), ("6", "seg"), ("8", "cls"), ("10", "cls"), ("12", "joint"), ("16", "joint"),
    ]  # fmt: skip
    assert rows[0]["cls_loss"] == rows[2]["seg_loss"] == ""
    assert all(float(row["loss"]) > 0 and row["val_dice"] for row in rows)
    assert len(result.validation_patients) == 2
    assert not set(result.train_patients) & set(result.validation_patients)


def test_without_patients_to_validate_on_nothing_counts_as_calibrated(data: Path, tmp_path: Path) -> None:
    context = Context(threads=1)
    result = run(replace(a_request(data, tmp_path), validation_fraction=0.0), context)
    assert result.classification_threshold is None
    assert not MultiTaskPredictor(result.checkpoint, "cpu").get_model_info()["calibrated"]
    assert any("not calibrated" in text for text in context.warnings)


def test_the_same_request_gives_the_same_weights(data: Path, tmp_path: Path) -> None:
    first, second = (run(a_request(data, tmp_path / name)) for name in "ab")
    assert weights_hash(first) == weights_hash(second)
    other = run(replace(a_request(data, tmp_path / "c"), seed=1))
    assert weights_hash(other) != weights_hash(first)


@pytest.mark.parametrize("stop_after", [2, 6, 8, 13])
def test_a_cancelled_training_goes_on_where_it_stopped(stop_after: int, data: Path, tmp_path: Path) -> None:
    whole = run(a_request(data, tmp_path / "whole"))
    seen: list[Progress] = []
    context = Context(
        threads=1,
        on_progress=lambda progress: seen.append(progress) if "Training" in progress.stage else None,
        is_cancelled=lambda: len(seen) == stop_after,
    )
    with pytest.raises(Cancelled):
        run(a_request(data, tmp_path / "parts"), context)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    parts = run(replace(a_request(data, tmp_path / "parts"), resume=True))
    assert weights_hash(parts) == weights_hash(whole)
    assert [replace(row, seconds=0) for row in parts.log] == [replace(row, seconds=0) for row in whole.log]
    assert parts.metrics == whole.metrics


def test_a_killed_training_resumes_and_ends_as_one_that_was_not(data: Path, tmp_path: Path, repository: Path) -> None:
    command = [
        sys.executable, "-m", "MedAILib.cli", "train", "multitask", "--data", str(data), "--phases",
        "seg:30,cls:10,joint:60", "--base-filters", "4", "--depth", "2", "--cls-hidden-dim", "8", "--size", "32",
        "--batch-size", "4", "--save-every", "5", "--validate-every", "20", "--threads", "1", "--device", "cpu",
        "--json", "--out",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(repository / "MedAIExtension"), "OMP_NUM_THREADS": "1"}
    parts = tmp_path / "parts"
    child = subprocess.Popen([*command, str(parts)], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((parts / "resume").glob("step-*1?")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL
    assert not (parts / "model.safetensors").exists()

    for out, more in ((parts, ["--resume"]), (tmp_path / "whole", [])):
        done = subprocess.run([*command, str(out), *more], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["result"]["checkpoint"] == str(out / "model.safetensors")
    one, other = (MultiTaskPredictor(tmp_path / name, "cpu").model.state_dict() for name in ("parts", "whole"))
    for name, tensor in one.items():
        assert torch.allclose(tensor.float(), other[name].float(), atol=1e-6), name


def test_a_training_is_not_overwritten_nor_resumed_with_other_settings(data: Path, tmp_path: Path) -> None:
    request = a_request(data, tmp_path, "seg:2,joint:2")
    run(request)
    with pytest.raises(InputError, match="already holds a training"):
        run(request)
    with pytest.raises(InputError, match=r"These differ: batch_size, seed\."):
        run(replace(request, resume=True, seed=3, batch_size=6))
    assert run(replace(request, resume=True)).log[-1].step == 4


def test_a_damaged_state_is_named(data: Path, tmp_path: Path) -> None:
    request = a_request(data, tmp_path, "seg:2,joint:2")
    run(request)
    (state,) = (tmp_path / "resume").iterdir()
    (state / "progress.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidWeights, match="training state"):
        run(replace(request, resume=True))


def test_data_that_cannot_teach_is_refused(data: Path, tmp_path: Path) -> None:
    image, mask = head(0, lesion=False)
    write_case(tmp_path / "data" / "p", image, mask)
    with pytest.raises(InputError, match="No slice of the 1 training images shows a tumour"):
        run(a_request(tmp_path / "data", tmp_path / "out"))
    with pytest.raises(InputError, match=r"not cls_num_classes=3"):
        run(replace(a_request(data, tmp_path / "out2"), network={**TINY, "cls_num_classes": 3}))


def test_each_phase_teaches_only_its_part() -> None:
    slices = some_slices()
    for kind, moved in (
        (PhaseKind.SEG, {"encoder", "seg_decoder"}),
        (PhaseKind.CLS, {"cls_head"}),
        (PhaseKind.JOINT, {"encoder", "seg_decoder", "cls_head"}),
    ):
        model = create_multi_task_model(base_filters=4, depth=2, cls_hidden_dim=8)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        phase = Phase(kind, 10, 1e-2)
        optimizer = optimizer_for(model, phase)
        set_mode(model, kind)
        images, masks = draw_batch(slices, 4, np.random.default_rng(0))
        take_step(model, optimizer, phase, 3, images, masks)
        after = model.state_dict()
        changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert changed == moved


def test_half_of_a_batch_shows_a_tumour_where_there_are_both_kinds() -> None:
    slices = some_slices()
    for seed in range(5):
        _, masks = draw_batch(slices, 6, np.random.default_rng(seed))
        assert int(masks.amax(dim=(1, 2, 3)).sum()) == 3
    one_kind = SliceSet(slices.images, slices.masks * 0)
    assert not draw_batch(one_kind, 6, np.random.default_rng(0))[1].any()


def test_augmentation_moves_image_and_mask_together_and_follows_its_seed() -> None:
    masks = torch.zeros(8, 1, 48, 48)
    masks[:, :, 18:30, 10:22] = 1
    images = 5 * masks
    moved, moved_masks = augmented(images, masks, np.random.default_rng(0))
    assert set(moved_masks.unique().tolist()) == {0.0, 1.0}
    for image, mask in zip(moved, moved_masks, strict=True):
        assert 60 < mask.sum() < 260
        assert image[mask > 0].mean() > image[mask == 0].mean() + 2
    again = augmented(images, masks, np.random.default_rng(0))
    assert torch.equal(again[0], moved)
    assert not torch.equal(augmented(images, masks, np.random.default_rng(1))[0], moved)


def test_the_learning_rate_rises_and_falls() -> None:
    phase = Phase(PhaseKind.SEG, 100, 1e-3)
    rates = [learning_rate(phase, step) for step in range(100)]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] == pytest.approx(2e-4)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 2e-5


def test_a_handful_of_real_slices_is_learned_by_heart(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    """The published smallest network at 64 pixels; research data, nothing of it is kept."""
    folder = shared_data("vol3d/brats_pat0004_flair")
    volume, drawn = read_volume(folder / "image.nii.gz"), read_label_map(folder / "mask.nii.gz")
    chosen = [18, 26, 34, 42, 66, 78, 90, 106]
    few = Volume(volume.array[chosen], volume.ijk_to_ras)
    tumour = (drawn.layers[0][chosen] > 0).astype(np.uint8)
    assert tumour.any(axis=(1, 2)).tolist() == [False] * 4 + [True] * 4
    case = tmp_path / "data" / "pat0004"
    case.mkdir(parents=True)
    write_volume(few, case / "image.nii.gz")
    write_label_map(LabelMap((tumour,), few.ijk_to_ras, drawn.segments[:1]), case / "mask.nii.gz")

    request = TrainRequest(
        tmp_path / "data",
        tmp_path / "out",
        phases_from_text("seg:70:5e-3,cls:20:5e-3,joint:40:2e-3"),
        {"base_filters": 16, "depth": 2, "cls_hidden_dim": 16, "cls_dropout": 0.0},
        size=64,
        augment=False,
        validate_every=10,
        save_every=1000,
    )
    started = time.monotonic()
    result = run(request)
    assert time.monotonic() - started < 120  # 12 s on one free core
    seg_losses = [row.seg_loss for row in result.log if row.seg_loss is not None]
    assert seg_losses[-1] < 0.2 * seg_losses[0]
    predictor = MultiTaskPredictor(result.checkpoint, "cpu", threads=1)
    predictions = predictor.predict_batch(list(few.array))
    found = [p.classification.tumor_probability > 0.5 for p in predictions if p.classification is not None]
    assert found == [False] * 4 + [True] * 4
    masks = [p.segmentation.mask > 0 for p in predictions[4:] if p.segmentation is not None]
    assert np.mean([dice(a, b > 0) for a, b in zip(masks, tumour[4:], strict=True)]) > 0.85


def test_the_loss_falls_on_real_brains(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    ill, healthy = shared_data("vol3d/pyrad_brain1"), shared_data("vol3d/stroke_flair")
    manifest = tmp_path / "manifest.json"
    entries = [
        {"patient": "a", "image": str(ill / "image.nii.gz"), "mask": str(ill / "mask.nii.gz")},
        {"patient": "b", "image": str(healthy / "image.nii.gz"), "healthy": True},
    ]
    manifest.write_text(json.dumps(entries), encoding="utf-8")
    request = TrainRequest(
        manifest,
        tmp_path / "out",
        phases_from_text("joint:60:1e-2"),
        {"base_filters": 8, "depth": 3, "cls_hidden_dim": 8},
        size=48,
        validate_every=20,
        save_every=1000,
    )
    losses = [row.loss for row in run(request).log]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
