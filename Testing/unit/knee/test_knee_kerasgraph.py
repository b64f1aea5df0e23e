"""Keras files as networks of torch: nothing overlooked, everything strange named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need PyTorch, which is not installed")
h5py = pytest.importorskip("h5py", reason="Keras files need h5py, which is not installed")

from keras_files import KerasModel, residual_unet  # noqa: E402

from KneeAnalysisLib.kerasgraph import read_graph  # noqa: E402
from KneeAnalysisLib.kerasnet import KerasNet, read_network  # noqa: E402
from MedAILib.errors import InvalidWeights  # noqa: E402


def _noise(shape: tuple[int, ...], count: int = 2) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, *shape)).astype(np.float32)


def _answers(net: KerasNet, images: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        return [answer.numpy() for answer in net(torch.from_numpy(images))]


def test_a_convolution_of_stride_two_pads_the_end_first(tmp_path: Path) -> None:
    model = KerasModel((1, 1, 4))
    conv = model.conv(model.input, 1, (1, 3), strides=[1, 2])
    model.weights[conv] = {"kernel": np.array([1, 10, 100.0]).reshape(1, 3, 1, 1), "bias": np.zeros(1)}
    model.outputs = [conv]
    (answer,) = _answers(read_network(model.save(tmp_path / "a.h5")), np.array([[[[1, 2, 3, 4.0]]]], np.float32))
    assert answer.ravel().tolist() == [1 + 20 + 300, 3 + 40]


def test_the_shapes_of_the_outputs_are_known_before_anything_is_computed(tmp_path: Path) -> None:
    net = read_network(residual_unet((1, 16, 24)).save(tmp_path / "a.h5"))
    assert net.output_shapes((3, 1, 16, 24)) == ((3, 10, 16, 24), (3, 10, 8, 12))
    assert net.spec.input_shape == (1, 16, 24)
    assert all(parameter.device.type == "cpu" for parameter in net.parameters())


def test_one_output_alone_is_the_same_and_computes_less(tmp_path: Path) -> None:
    net = read_network(residual_unet((1, 16, 24)).save(tmp_path / "a.h5"))
    images = _noise((1, 16, 24))
    whole, half = _answers(net, images)
    (alone,) = _answers(net.only(1), images)
    assert np.array_equal(alone, half)
    assert not np.array_equal(alone.shape, whole.shape)
    assert len(net.only(1)._calls) < len(net._calls)


def test_tensors_are_let_go_after_their_last_use(tmp_path: Path) -> None:
    net = read_network(residual_unet((1, 16, 24)).save(tmp_path / "a.h5"))
    freed = [name for names in net._last_use.values() for name in names]
    assert sorted([*freed, *net.outputs]) == sorted([tensor for tensor, _ in net._calls] + list(net.spec.inputs))


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _refusal(model: KerasModel, path: Path) -> str:
    with pytest.raises(InvalidWeights) as caught:
        read_network(model.save(path))
    return caught.value.text


def test_an_unknown_layer_is_named(tmp_path: Path) -> None:
    model = residual_unet((1, 16, 24))
    model.outputs = [model.plain("AttentionGate", model.outputs[0], name="gate_7")]
    assert "'gate_7' (AttentionGate)" in _refusal(model, tmp_path / "a.h5")


def test_an_unknown_activation_is_named(tmp_path: Path) -> None:
    model = KerasModel((1, 16, 24))
    model.outputs = [model.conv(model.input, 2, activation="hard_mish")]
    assert "'hard_mish'" in _refusal(model, tmp_path / "a.h5")


def test_a_weight_that_no_layer_uses_is_named(tmp_path: Path) -> None:
    model = residual_unet((1, 16, 24))
    name = next(name for name in model.weights if name.startswith("conv2d"))
    model.weights[name]["extra"] = np.zeros(3, np.float32)
    text = _refusal(model, tmp_path / "a.h5")
    assert name in text
    assert "extra (3,)" in text


def test_weights_of_a_layer_that_is_not_in_the_graph_are_named(tmp_path: Path) -> None:
    path = residual_unet((1, 16, 24)).save(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        root = file["model_weights"]
        group = root.create_group("ghost")
        group["ghost/kernel:0"] = np.zeros(2)
        group.attrs["weight_names"] = [b"ghost/kernel:0"]
        root.attrs["layer_names"] = [*map(_text, root.attrs["layer_names"]), "ghost"]
    with pytest.raises(InvalidWeights, match="ghost"):
        read_network(path)


@pytest.mark.parametrize("key", ["kernel", "bias"])
def test_a_missing_weight_is_named(key: str, tmp_path: Path) -> None:
    model = residual_unet((1, 16, 24))
    name = next(name for name in model.weights if name.startswith("conv2d"))
    del model.weights[name][key]
    text = _refusal(model, tmp_path / "a.h5")
    assert name in text
    assert f"'{key}'" in text


def test_a_kernel_of_another_shape_than_its_settings_is_refused(tmp_path: Path) -> None:
    model = KerasModel((1, 16, 24))
    conv = model.conv(model.input, 3)
    model.weights[conv]["kernel"] = np.zeros((5, 5, 1, 3), np.float32)
    model.outputs = [conv]
    assert "(3, 1, 5, 5)" in _refusal(model, tmp_path / "a.h5")


def test_layers_that_do_not_fit_each_other_are_told_before_anything_is_computed(tmp_path: Path) -> None:
    model = KerasModel((1, 16, 24))
    model.outputs = [model.plain("Add", model.input, model.conv(model.input, 1, (3, 3), padding="valid"))]
    net = read_network(model.save(tmp_path / "a.h5"))
    with pytest.raises(InvalidWeights, match="do not fit each other"):
        net.output_shapes((1, 1, 16, 24))


def test_weights_without_a_description_of_the_layers_are_refused(tmp_path: Path) -> None:
    path = residual_unet((1, 16, 24)).save(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]
    with pytest.raises(InvalidWeights, match="does not say what network"):
        read_network(path)


def test_a_model_with_code_in_it_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    model = residual_unet((1, 16, 24))
    model.outputs = [model.plain("Lambda", model.outputs[0], function=["4wEAAAAA", None, None])]
    assert "Lambda" in _refusal(model, tmp_path / "a.h5")


def test_many_names_are_read_from_numbered_attributes(tmp_path: Path) -> None:
    path = residual_unet((1, 16, 24)).save(tmp_path / "a.h5")
    expected = _answers(read_network(path), _noise((1, 16, 24)))
    with h5py.File(path, "r+") as file:
        root = file["model_weights"]
        names = list(root.attrs["layer_names"])
        del root.attrs["layer_names"]
        root.attrs["layer_names0"], root.attrs["layer_names1"] = names[:9], names[9:]
    for answer, wanted in zip(_answers(read_network(path), _noise((1, 16, 24))), expected, strict=True):
        assert np.array_equal(answer, wanted)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(class_name="Subclassed"),
        lambda c: c["config"]["layers"].pop(1),
        lambda c: c["config"]["layers"][1]["inbound_nodes"][0][0].__setitem__(0, "nowhere"),
        lambda c: c["config"].pop("output_layers"),
        lambda c: c["config"]["input_layers"].append(["conv2d_1", 0, 0]),
        lambda c: c["config"]["layers"][2]["inbound_nodes"][0][0].__setitem__(2, 1),
    ],
)
def test_a_description_that_makes_no_graph_is_refused(change: Callable[[Any], Any], tmp_path: Path) -> None:
    path = residual_unet((1, 16, 24)).save(tmp_path / "a.h5")
    config = json.loads(h5py.File(path).attrs["model_config"])
    read_graph(config)
    change(config)
    with pytest.raises(InvalidWeights):
        read_graph(config)
