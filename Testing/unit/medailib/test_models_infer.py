"""The architecture read off a weight file's header, and headers of every format."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_files import COMBINATIONS, FLAT, SMALL, write_hollow_safetensors, write_hollow_unet, write_json

from MedAILib.errors import ConfigMismatch, FileMissing, InvalidWeights
from MedAILib.models.config import CONFIG_FILE, FileType
from MedAILib.models.infer import first_difference, nearly, recognise
from MedAILib.models.resolve import resolve
from MedAILib.models.tensorinfo import TensorInfo
from MedAILib.models.tensornames import best_prefix, find_tensors, prefixes_of, without_prefix
from MedAILib.models.tensors import inspect_tensors
from MedAILib.models.unet_inference import expected_shapes

LIMIT_S = 0.050
SAME_PATH = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
LARGEST = {**SMALL, "base_filters": 64, "depth": 5, "bilinear": False, "cls_hidden_dim": 512}


def fastest(action: Callable[[], Any], times: int = 7) -> float:
    """Processor seconds of the fastest of some runs: the machine may be busy with other things."""
    found = []
    for _ in range(times):
        begin = time.process_time()
        action()
        found.append(time.process_time() - begin)
    return min(found)


def test_every_architecture_of_576_is_read_off_a_header_exactly(tmp_path: Path) -> None:
    assert len(COMBINATIONS) == 576
    path = tmp_path / "unet.safetensors"
    for wanted in COMBINATIONS:
        found = recognise(inspect_tensors(write_hollow_unet(path, wanted)).shapes)
        assert found is not None
        assert found.parameters == wanted
        assert all(type(found.parameters[name]) is type(value) for name, value in wanted.items())


@pytest.mark.parametrize("chosen", range(0, 576, 23))
def test_the_shapes_are_those_of_the_real_network(chosen: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from MedAILib.multitask.network import create_multi_task_model

    parameters = COMBINATIONS[chosen]
    with torch.device("meta"):
        model = create_multi_task_model(**parameters)
    real = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert expected_shapes(parameters) == real
    assert list(expected_shapes(parameters)) == list(real)


def test_the_number_of_tensors_is_that_of_the_published_model() -> None:
    counts = [len(expected_shapes({**SMALL, "depth": depth})) for depth in (2, 4, 5)]
    assert counts == [66, 114, 138]
    assert len(expected_shapes({**SMALL, "depth": 4, "bilinear": False})) == 122


@given(
    st.fixed_dictionaries(
        {
            "in_channels": st.integers(1, 9),
            "seg_out_channels": st.integers(1, 9),
            "cls_num_classes": st.integers(1, 20),
            "base_filters": st.integers(1, 130),
            "depth": st.integers(1, 7),
            "bilinear": st.booleans(),
            "cls_hidden_dim": st.integers(1, 600),
        }
    ),
    st.lists(st.sampled_from(["module.", "_orig_mod.", "model.", "net."]), max_size=3).map("".join),
    st.booleans(),
)
def test_any_architecture_is_recognised_under_any_prefix_and_in_any_order(
    wanted: dict, prefix: str, counters: bool
) -> None:
    shapes = {prefix + name: shape for name, shape in reversed(expected_shapes(wanted).items())}
    if not counters:
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    found = recognise(shapes)
    assert found is not None
    assert found.parameters == wanted


@given(st.sampled_from(COMBINATIONS), st.data())
def test_a_network_with_one_tensor_changed_is_not_recognised(parameters: dict, data: st.DataObject) -> None:
    shapes = expected_shapes(parameters)
    names = [name for name in shapes if not name.endswith("num_batches_tracked")]
    name = data.draw(st.sampled_from(names))
    if data.draw(st.booleans()):
        del shapes[name]
    else:
        shapes[name] = (*shapes[name], 2)
    assert recognise(shapes) is None


def test_a_tensor_that_is_missing_is_named() -> None:
    shapes = expected_shapes(SMALL)
    del shapes["seg_decoder.up_blocks.1.conv.double_conv.5.running_var"]
    assert "'seg_decoder.up_blocks.1.conv.double_conv.5.running_var' is expected with shape 4" in nearly(shapes)
    assert nearly({"fc.weight": (1, 2)}) == ""


def test_a_tensor_too_many_is_named() -> None:
    shapes = expected_shapes(SMALL)
    assert "'extra' of shape 3x2 is in the file" in first_difference(shapes, {**shapes, "extra": (3, 2)})


@pytest.mark.parametrize("depth", [0, 17, 10_000])
def test_absurd_depths_are_not_taken_seriously(depth: int) -> None:
    shapes = expected_shapes({**SMALL, "base_filters": 1, "depth": 1})
    del shapes["encoder.down_blocks.0.maxpool_conv.1.double_conv.0.weight"]
    shapes |= {f"encoder.down_blocks.{i}.maxpool_conv.1.double_conv.0.weight": (1, 1, 3, 3) for i in range(depth)}
    assert recognise(shapes) is None


def test_a_wrong_description_is_told_from_the_header_in_under_50_ms(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "best.safetensors", LARGEST)
    write_json(tmp_path / CONFIG_FILE, FLAT)

    def refused() -> None:
        with pytest.raises(ConfigMismatch):
            resolve(inspect_tensors(weights))

    assert weights.stat().st_size > 400_000_000
    assert fastest(refused) < LIMIT_S


def test_a_wrong_description_that_names_the_file_is_told_without_hashing_it(tmp_path: Path) -> None:
    weights = write_hollow_unet(tmp_path / "best.safetensors", LARGEST)
    entry = {"path": weights.name, "role": "weights", "format": "safetensors", "sha256": "0" * 64}
    entry["size"] = weights.stat().st_size
    architecture = {"name": "multitask_unet", "parameters": {**LARGEST, "depth": 4}}
    document = {"schema": 1, "id": "m", "family": "multitask-unet", "architecture": architecture, "files": [entry]}
    write_json(tmp_path / CONFIG_FILE, document)

    def refused() -> None:
        with pytest.raises(ConfigMismatch, match=r"down_blocks\.4|up_blocks"):
            resolve(inspect_tensors(weights))

    assert fastest(refused) < LIMIT_S


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pytorch_file_is_read_in_under_50_ms(tmp_path: Path, legacy: bool) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    state = {name: torch.zeros(shape) for name, shape in expected_shapes({**LARGEST, "base_filters": 1}).items()}
    path = tmp_path / "best.pth"
    torch.save({"model_state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=not legacy)
    assert fastest(lambda: recognise(inspect_tensors(path).shapes)) < LIMIT_S
    assert recognise(inspect_tensors(path).shapes).parameters == {**LARGEST, "base_filters": 1}


def checkpoint_content(torch: Any) -> dict[str, Any]:
    import numpy as np

    weight = torch.arange(24.0).reshape(4, 6)
    model = torch.nn.Linear(6, 4)
    model.weight.grad = weight
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.step()
    state = OrderedDict(
        {
            "a.weight": weight.half(),
            "a.bias": torch.nn.Parameter(torch.zeros(4)),
            "cut": weight.t()[1:3],
            "brain": weight.to(torch.bfloat16),
            "count": torch.tensor(3),
            "flags": torch.zeros(0, 5, dtype=torch.bool),
        }
    )
    return {
        "epoch": 7,
        "metrics": {"dice": np.float32(0.5), "loss": np.float64(2.0)},
        "optimizer_state_dict": optimizer.state_dict(),
        "config": {"model": {"depth": 4, "bilinear": True, "rate": 0.5, "list": [1, "a", None]}},
        "model_state_dict": state,
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_the_header_of_a_pytorch_file_tells_names_shapes_types_and_description(tmp_path: Path, legacy: bool) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path / "größe 漢.pth"
    content = checkpoint_content(torch)
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = inspect_tensors(path)
    assert found.format is FileType.TORCH
    assert found.tensors == {
        "a.weight": TensorInfo((4, 6), "float16"),
        "a.bias": TensorInfo((4,), "float32"),
        "cut": TensorInfo((2, 4), "float32"),
        "brain": TensorInfo((4, 6), "bfloat16"),
        "count": TensorInfo((), "int64"),
        "flags": TensorInfo((0, 5), "bool"),
    }
    assert found.content.wrapper == "model_state_dict"
    assert found.content.embedded == content["config"]
    assert set(found.content.other_keys) == {"epoch", "metrics", "optimizer_state_dict", "config"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_gives_the_same_header(tmp_path: Path, protocol: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save(checkpoint_content(torch), tmp_path / "a.pth", pickle_protocol=protocol)
    torch.save(checkpoint_content(torch), tmp_path / "b.pth")
    assert inspect_tensors(tmp_path / "a.pth").content == inspect_tensors(tmp_path / "b.pth").content


def test_the_header_of_a_safetensors_file_agrees_with_the_library(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    library = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    state = {name: value.contiguous() for name, value in checkpoint_content(torch)["model_state_dict"].items()}
    library.save_file(state, str(tmp_path / "a.safetensors"), metadata={"medai_config": '{"depth": 1}'})
    torch.save(state, tmp_path / "a.pth")
    found = inspect_tensors(tmp_path / "a.safetensors")
    assert found.tensors == inspect_tensors(tmp_path / "a.pth").tensors
    assert found.content.embedded == {"depth": 1}


def test_a_description_in_a_safetensors_file_that_is_no_json_is_remarked_on(tmp_path: Path) -> None:
    path = write_hollow_safetensors(tmp_path / "a.safetensors", {"a": (1,)}, {"medai_config": "{"})
    content = inspect_tensors(path).content
    assert content.embedded is None
    assert "not JSON" in content.remarks[0]


def test_the_arrays_of_hdf5_files_are_listed(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["layers/dense/vars/0"] = [[1.0, 2.0]]
        file["layers/dense/vars/1"] = 3
        file["name"] = "text"
        file["layers/again"] = file["layers/dense"]
        file["layers/dense/ring"] = file["layers"]
    found = inspect_tensors(tmp_path / "a.h5")
    assert found.format is FileType.HDF5
    names = {name.rpartition("/")[2]: info for name, info in found.tensors.items()}
    assert names == {"0": TensorInfo((1, 2), "float64"), "1": TensorInfo((), "int64")}


def test_an_hdf5_file_with_a_link_to_another_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = [1.0]
        file["b"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(InvalidWeights):
        inspect_tensors(tmp_path / "a.h5")


class Runs:
    def __reduce__(self) -> Any:
        return (print, ("a pickle was executed",))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_something_is_refused_by_name_before_torch_is_imported(
    tmp_path: Path, legacy: bool
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path / "evil.pth"
    content = {"model_state_dict": {"a": torch.zeros(2)}, "hook": Runs()}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    code = (
        "import sys\n"
        "from MedAILib.errors import InvalidWeights\n"
        "from MedAILib.models.checkpoint import load_model_with_config\n"
        "try:\n"
        "    load_model_with_config(sys.argv[1], dict)\n"
        "except InvalidWeights as error:\n"
        "    print(error.why, 'torch' in sys.modules)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, env=SAME_PATH
    )
    assert "print" in answer.stdout
    assert answer.stdout.endswith("False\n")
    assert "executed" not in answer.stdout


def test_no_module_of_models_loads_a_heavy_package() -> None:
    code = (
        "import pkgutil, sys, importlib, MedAILib.models as m\n"
        "[importlib.import_module(f'MedAILib.models.{i.name}') for i in pkgutil.iter_modules(m.__path__)]\n"
        "heavy = {'torch', 'safetensors', 'h5py', 'huggingface_hub', 'requests', 'keras', 'tensorflow', 'gdown'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=SAME_PATH)
    assert answer.stdout == "[]\n"


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    torch.save([torch.zeros(2)], tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(InvalidWeights, match="no tensors"):
            inspect_tensors(tmp_path / name)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(InvalidWeights, match="zip archive"):
        inspect_tensors(tmp_path / "a.zip")
    with pytest.raises(FileMissing):
        inspect_tensors(tmp_path / "absent.pth")


@given(cut=st.integers(0, 10_000))
def test_a_header_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    whole = write_hollow_unet(folder / "a.safetensors").read_bytes()
    (folder / "a.safetensors").write_bytes(whole[: cut % len(whole)])
    with pytest.raises(InvalidWeights):
        inspect_tensors(folder / "a.safetensors")


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_pytorch_pickle_with_changed_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path_factory.mktemp("changed") / "a.pth"
    torch.save(checkpoint_content(torch), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    content = bytearray(members[name])
    for at, value in changes:
        content[at % len(content)] = value
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, bytes(content) if member == name else data)
    try:
        found = inspect_tensors(path)
    except InvalidWeights:
        return
    assert all(isinstance(info, TensorInfo) for info in found.tensors.values())


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"state_dict": {"a": 1}}))
    with pytest.raises(InvalidWeights):
        inspect_tensors(tmp_path / "a.pth")


def test_prefixes_are_taken_from_all_names_or_from_none() -> None:
    assert list(prefixes_of(["module.a", "module.b"])) == ["", "module."]
    assert list(prefixes_of(["module._orig_mod.net.a", "module._orig_mod.net.b"])) == [
        "", "module.", "module._orig_mod.", "module._orig_mod.net.",
    ]  # fmt: skip
    assert list(prefixes_of(["model.a", "head.b"])) == [""]
    assert list(prefixes_of([])) == [""]
    assert without_prefix({"net.a": 1}, "net.") == {"a": 1}


def test_a_prefix_that_the_network_has_itself_stays() -> None:
    assert best_prefix(["model.a", "model.b"], ["model.a", "model.b"]) == ""
    assert best_prefix(["module.model.a"], ["model.a"]) == "module."


@pytest.mark.parametrize("keys", [("model_state_dict",), ("state_dict",), ("ema", "state_dict"), ("model",), ()])
def test_tensors_are_found_under_the_usual_keys(keys: tuple[str, ...]) -> None:
    content: Any = {"a": 1.0}
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    assert find_tensors(content, float) == (".".join(keys), {"a": 1.0})


def test_the_trained_weights_come_before_their_average() -> None:
    assert find_tensors({"ema": {"a": 2.0}, "model_state_dict": {"a": 1.0}}, float) == ("model_state_dict", {"a": 1.0})
