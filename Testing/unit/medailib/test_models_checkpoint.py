"""Networks saved together with their description, and what is refused on the way back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile_system import full_disk
from model_files import FLAT, SMALL, write_json

from MedAILib.errors import ConfigMismatch, FileMissing, InputError, InvalidWeights, OutputError
from MedAILib.models.checkpoint import load_model_with_config, save_model_with_config, training_path
from MedAILib.models.config import CONFIG_FILE, Architecture, FileRole, ModelConfig
from MedAILib.models.descriptions import Origin

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from tiny_networks import Perceptron, never, same, tiny_config, trained, unet_config  # noqa: E402
from torch import nn  # noqa: E402

from MedAILib.multitask.network import create_multi_task_model  # noqa: E402

FORMATS = pytest.mark.parametrize("name", ["best model 漢.safetensors", "best.pth", "best.pt"])


@FORMATS
def test_what_was_saved_is_what_is_loaded(tmp_path: Path, name: str) -> None:
    model = Perceptron(5, deep=True)
    optimizer = trained(model)
    import numpy as np

    metrics = {"dice": np.float32(0.5), "auc": torch.tensor(0.25), "folds": (1, np.array([0.5, 2.0]))}
    saved = save_model_with_config(model, tmp_path / name, tiny_config(width=5, deep=True), optimizer, 12, metrics)
    loaded, config, checkpoint = load_model_with_config(tmp_path / name, Perceptron)
    assert same(loaded, model)
    assert not loaded.training
    assert config == saved
    assert checkpoint.epoch == checkpoint["epoch"] == 12
    assert checkpoint.metrics == {"dice": 0.5, "auc": 0.25, "folds": [1, [0.5, 2.0]]}
    assert config.provenance.metrics == checkpoint.metrics
    assert checkpoint.resolution.origin is Origin.BOUND
    again = torch.optim.Adam(loaded.parameters())
    again.load_state_dict(checkpoint["optimizer_state_dict"])
    assert torch.equal(again.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert checkpoint.get("nothing", 3) == 3


@FORMATS
def test_weights_alone_are_enough(tmp_path: Path, name: str) -> None:
    model = Perceptron()
    save_model_with_config(model, tmp_path / name, tiny_config(width=3))
    loaded, _, checkpoint = load_model_with_config(tmp_path / name, Perceptron)
    assert same(loaded, model)
    assert (checkpoint.epoch, checkpoint.metrics, checkpoint.optimizer_state_dict) == (None, {}, None)


@FORMATS
def test_the_description_is_bound_to_the_file_by_its_hash(tmp_path: Path, name: str) -> None:
    import hashlib

    config = save_model_with_config(Perceptron(), tmp_path / name, tiny_config(width=3))
    assert ModelConfig.from_checkpoint_dir(tmp_path) == config
    entry = config.files[0]
    content = (tmp_path / name).read_bytes()
    assert (entry.path, entry.size, entry.sha256) == (name, len(content), hashlib.sha256(content).hexdigest())
    assert entry.role is FileRole.WEIGHTS


@FORMATS
def test_the_description_travels_inside_the_file(tmp_path: Path, name: str) -> None:
    model = Perceptron(4)
    config = save_model_with_config(model, tmp_path / name, replace(tiny_config(width=4), title="größer"))
    (tmp_path / CONFIG_FILE).unlink()
    loaded, found, checkpoint = load_model_with_config(tmp_path / name, Perceptron)
    assert same(loaded, model)
    assert found == replace(config, files=())
    assert checkpoint.resolution.origin is Origin.EMBEDDED


def test_a_pth_file_is_read_by_pytorch_with_weights_only(tmp_path: Path) -> None:
    model = create_multi_task_model(**SMALL)
    save_model_with_config(model, tmp_path / "best.pth", unet_config(), trained(model), 3, {"dice": 0.5})
    content = torch.load(tmp_path / "best.pth", weights_only=True)
    assert set(content) == {"model_state_dict", "optimizer_state_dict", "epoch", "metrics", "config"}
    model.load_state_dict(content["model_state_dict"])
    assert content["config"]["architecture"]["parameters"] == SMALL


def test_a_safetensors_file_is_read_by_its_library(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = Perceptron()
    save_model_with_config(model, tmp_path / "a.safetensors", tiny_config(width=3), trained(model), 1)
    assert load_file(tmp_path / "a.safetensors").keys() == model.state_dict().keys()
    assert torch.load(training_path(tmp_path / "a.safetensors"), weights_only=True)["epoch"] == 1


def test_several_checkpoints_in_a_folder_keep_a_description_each(tmp_path: Path) -> None:
    models = {f"{name}.safetensors": Perceptron(width) for name, width in (("best", 3), ("last", 4), ("first", 5))}
    for _ in range(2):
        for name, model in models.items():
            save_model_with_config(model, tmp_path / name, tiny_config(width=model.first.out_features))
    for name, model in models.items():
        loaded, _, checkpoint = load_model_with_config(tmp_path / name, Perceptron)
        assert same(loaded, model)
        assert checkpoint.resolution.origin is Origin.BOUND
        assert checkpoint.resolution.remarks == ()


def test_weights_of_the_same_stem_do_not_share_a_description(tmp_path: Path) -> None:
    save_model_with_config(Perceptron(3), tmp_path / "a.pth", tiny_config(width=3))
    save_model_with_config(Perceptron(4), tmp_path / "a.safetensors", tiny_config(width=4))
    assert load_model_with_config(tmp_path / "a.pth", Perceptron)[1].get_model_params() == {"width": 3}
    assert load_model_with_config(tmp_path / "a.safetensors", Perceptron)[1].get_model_params() == {"width": 4}


def test_saving_leaves_a_description_of_others_alone(tmp_path: Path) -> None:
    write_json(tmp_path / CONFIG_FILE, FLAT)
    before = (tmp_path / CONFIG_FILE).read_bytes()
    save_model_with_config(Perceptron(), tmp_path / "a.safetensors", tiny_config(width=3))
    assert (tmp_path / CONFIG_FILE).read_bytes() == before
    assert load_model_with_config(tmp_path / "a.safetensors", Perceptron)[1].id == "tiny"


def test_tied_and_cut_tensors_are_saved_whole(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3, bias=False)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight
            self.register_buffer("cut", torch.arange(20.0).reshape(4, 5).t()[1:3])

    model = Tied()
    for name in ("a.safetensors", "a.pth"):
        save_model_with_config(model, tmp_path / name, ModelConfig("t", "t", Architecture("tied", {})))
        loaded = load_model_with_config(tmp_path / name, Tied)[0]
        assert same(loaded, model)


def test_the_training_state_of_other_weights_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Perceptron()
    path = tmp_path / "a.safetensors"
    save_model_with_config(model, path, tiny_config(width=3), trained(model), 1)
    save_model_with_config(model, path, tiny_config(width=3))
    save_model_with_config(Perceptron(), path, tiny_config(width=3))
    assert load_model_with_config(path, Perceptron)[2].optimizer_state_dict is None
    assert "belongs to other weights" in caplog.text


@FORMATS
def test_a_description_of_another_architecture_is_not_saved(tmp_path: Path, name: str) -> None:
    model = create_multi_task_model(**SMALL)
    with pytest.raises(ConfigMismatch) as caught:
        save_model_with_config(model, tmp_path / name, unet_config(depth=3))
    first, looks, _ = caught.value.text.splitlines()
    assert "down_blocks.2" in first
    assert "depth=2" in looks
    assert "depth=3" in looks
    assert not list(tmp_path.iterdir())


def test_what_the_tensors_show_is_filled_in_when_saving(tmp_path: Path) -> None:
    model = create_multi_task_model(**SMALL)
    stated = ModelConfig("u", "multitask-unet", Architecture("multitask_unet", {"depth": 2, "dropout": 0.2}))
    config = save_model_with_config(model, tmp_path / "a.safetensors", stated)
    assert config.get_model_params() == {**SMALL, "dropout": 0.2}
    assert [head.name for head in config.heads] == ["seg", "cls"]
    assert any(path.startswith("$.heads") for path in config.assumed)


def test_an_invalid_description_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match=r"\$\.id"):
        save_model_with_config(Perceptron(), tmp_path / "a.pth", replace(tiny_config(width=3), id="a b"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.onnx", "a", "a.txt"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.safetensors"):
        save_model_with_config(Perceptron(), tmp_path / name, tiny_config(width=3))


@pytest.mark.parametrize("metrics", [{"x": object()}, {"x": {1, 2}}])
def test_metrics_that_are_no_plain_values_are_refused(tmp_path: Path, metrics: dict) -> None:
    with pytest.raises(InputError, match=r"metrics\.x"):
        save_model_with_config(Perceptron(), tmp_path / "a.pth", tiny_config(width=3), metrics=metrics)
    assert not list(tmp_path.iterdir())


class OddOptimizer(torch.optim.SGD):
    """One whose state can only be read by running code."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "schedule": Path("x")}


@FORMATS
def test_an_optimizer_state_that_could_not_be_read_safely_is_refused(tmp_path: Path, name: str) -> None:
    model = Perceptron()
    with pytest.raises(InputError, match=r"(?s)read safely.*pathlib"):
        save_model_with_config(model, tmp_path / name, tiny_config(width=3), OddOptimizer(model.parameters(), 0.1))
    assert not list(tmp_path.iterdir())


@FORMATS
def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path: Path, name: str) -> None:
    model = Perceptron()
    save_model_with_config(model, tmp_path / name, tiny_config(width=3))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with full_disk(1000), pytest.raises(OutputError):
        save_model_with_config(Perceptron(200), tmp_path / name, tiny_config(width=200))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert same(load_model_with_config(tmp_path / name, Perceptron)[0], model)


@FORMATS
def test_a_save_that_was_cut_off_before_its_last_step_leaves_the_older_network(tmp_path: Path, name: str) -> None:
    path, older = tmp_path / name, Perceptron(3)
    save_model_with_config(older, path, tiny_config(width=3), epoch=1)
    before = path.read_bytes()
    save_model_with_config(Perceptron(4), path, tiny_config(width=4), epoch=2)
    path.write_bytes(before)
    loaded, config, checkpoint = load_model_with_config(path, Perceptron)
    assert same(loaded, older)
    assert (config.get_model_params(), checkpoint.epoch) == ({"width": 3}, 1)
    assert "saving it was interrupted" in checkpoint.resolution.remarks[0]


def test_a_process_killed_while_saving_leaves_a_network_that_loads(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from tiny_networks import Perceptron, tiny_config\n"
        "from MedAILib.models.checkpoint import save_model_with_config\n"
        "model, epoch = Perceptron(300), 0\n"
        "while True:\n"
        "    epoch += 1\n"
        "    model.first.weight.data.fill_(epoch)\n"
        "    save_model_with_config(model, sys.argv[1], tiny_config(width=300), epoch=epoch)\n"
        "    print(epoch, flush=True)\n"
    )
    path = tmp_path / "last.safetensors"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for delay_s in (0.0, 0.001, 0.003, 0.007):
        command = [sys.executable, "-c", code, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as saving:
            saving.stdout.readline()
            time.sleep(delay_s)
            saving.kill()
        loaded, _, checkpoint = load_model_with_config(path, Perceptron)
        assert bool((loaded.first.weight == checkpoint.epoch).all())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        save_model_with_config(Perceptron(), tmp_path / "nowhere" / "a.pth", tiny_config(width=3))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        load_model_with_config(tmp_path / "a.pth", never)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "module.model.net."]
)
@pytest.mark.parametrize("wrapper", ["model_state_dict", "state_dict", "model", "network_weights", "ema", ""])
@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_of_the_usual_tools_load(tmp_path: Path, prefix: str, wrapper: str, legacy: bool) -> None:
    model = create_multi_task_model(**SMALL)
    state = {prefix + name: value for name, value in model.state_dict().items()}
    path = tmp_path / "best_model.pth"
    content = {wrapper: state, "epoch": 4} if wrapper else state
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    loaded, config, _ = load_model_with_config(path, create_multi_task_model)
    assert same(loaded, model)
    assert config.get_model_params() == SMALL


def test_real_wrappers_are_seen_through(tmp_path: Path) -> None:
    model = create_multi_task_model(**SMALL)
    torch.save(nn.DataParallel(model).state_dict(), tmp_path / "a.pth")
    assert same(load_model_with_config(tmp_path / "a.pth", create_multi_task_model)[0], model)


def test_a_network_with_such_a_name_of_its_own_loads(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.net = Perceptron(width)

    model = Wrapper(3)
    save_model_with_config(model, tmp_path / "a.safetensors", tiny_config(width=3))
    assert same(load_model_with_config(tmp_path / "a.safetensors", Wrapper)[0], model)


def test_numpy_numbers_in_old_checkpoints_do_not_hinder(tmp_path: Path) -> None:
    import numpy as np

    model = create_multi_task_model(**SMALL)
    metrics = {"dice": np.float64(0.5), "n": np.int64(3), "ok": np.bool_(True)}
    torch.save({"model_state_dict": model.state_dict(), "metrics": metrics}, tmp_path / "a.pth")
    loaded, _, checkpoint = load_model_with_config(tmp_path / "a.pth", create_multi_task_model)
    assert same(loaded, model)
    assert checkpoint.metrics == metrics


def test_half_precision_weights_load_into_the_network(tmp_path: Path) -> None:
    model = create_multi_task_model(**SMALL).half()
    torch.save(model.state_dict(), tmp_path / "a.pth")
    assert same(load_model_with_config(tmp_path / "a.pth", create_multi_task_model)[0], model.float())


def test_whole_numbers_in_place_of_weights_are_refused(tmp_path: Path) -> None:
    model = create_multi_task_model(**SMALL)
    state = {name: (value * 100).to(torch.int8) for name, value in model.state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ConfigMismatch, match="expected as float32, the file has int8"):
        load_model_with_config(tmp_path / "a.pth", create_multi_task_model)


class Runs:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("executed",))


def test_a_pickle_that_would_run_something_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = create_multi_task_model(**SMALL).state_dict()
    for legacy in (False, True):
        content = {"model_state_dict": state, "optimizer_state_dict": Runs()}
        torch.save(content, "a.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(InvalidWeights, match="mkdir"):
            load_model_with_config("a.pth", never)
    assert not Path("executed").exists()


def test_a_training_state_that_would_run_something_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model_with_config(Perceptron(), "a.safetensors", tiny_config(width=3))
    torch.save({"optimizer_state_dict": Runs()}, "a.training.pth")
    _, _, checkpoint = load_model_with_config("a.safetensors", Perceptron)
    with pytest.raises(InvalidWeights, match="mkdir"):
        checkpoint["optimizer_state_dict"]
    assert not Path("executed").exists()


def test_numpy_objects_in_a_checkpoint_are_refused(tmp_path: Path) -> None:
    import numpy as np

    content = {"model_state_dict": Perceptron().state_dict(), "x": np.array([{"a": 1}], dtype=object)}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InvalidWeights, match="NumPy"):
        load_model_with_config(tmp_path / "a.pth", never)


def test_an_old_pytorch_is_not_trusted_with_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from MedAILib.errors import MissingPackage

    path = tmp_path / "a.pth"
    torch.save(create_multi_task_model(**SMALL).state_dict(), path)
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    with pytest.raises(MissingPackage, match="CVE-2025-32434"):
        load_model_with_config(path, create_multi_task_model)


def test_the_network_lands_on_the_device_asked_for(tmp_path: Path) -> None:
    save_model_with_config(Perceptron(), tmp_path / "a.safetensors", tiny_config(width=3))
    model = load_model_with_config(tmp_path / "a.safetensors", Perceptron, "meta")[0]
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_descriptions_written_by_saving_are_plain_json(tmp_path: Path) -> None:
    save_model_with_config(
        Perceptron(), tmp_path / "a.safetensors", tiny_config(width=3), metrics={"loss": float("inf")}
    )
    document = json.loads((tmp_path / CONFIG_FILE).read_text(encoding="utf-8"))
    assert document["provenance"]["metrics"] == {"loss": "inf"}
