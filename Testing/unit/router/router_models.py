"""Small models for the router, made in the test: graphs whose answers are known, and Keras files, good and bad."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedAILib.models.config import Architecture, ModelConfig
from MedAILib.models.heads import Activation, ClassInfo, Head, Input, Normalisation, NormalisationKind, Resize
from MedMNISTRouterLib.datasets import BY_FLAG, FLAGS
from MedMNISTRouterLib.describe import SLOT, slot_head
from MedMNISTRouterLib.modelfolder import (
    ANSWERS,
    FAMILY,
    FEATURES,
    FittedGate,
    ModelFolder,
    read_model_folder,
    write_model_folder,
)
from MedMNISTRouterLib.prepare import GREY
from MedMNISTRouterLib.request import ROUTER

SIZE = 32
TILES = 4
"""Features are the means of 4 x 4 tiles of each channel."""
UNIT = Normalisation(NormalisationKind.FIXED, scale=255.0, mean=(0.0,), std=(1.0,))


def class_count(slot: str) -> int:
    return len(FLAGS) if slot == ROUTER else len(BY_FLAG[slot].class_names)


def linear_graph(
    weights: np.ndarray, channels: int = 3, *, channels_first: bool = True, ballast: np.ndarray | None = None
) -> bytes:
    """A graph whose features are tile means and whose answers are features times ``weights``.

    Parameters
    ----------
    weights : ndarray, shape (tiles * tiles * channels, classes), float32
    channels_first : bool
        Order of the input's axes.
    ballast : ndarray, optional
        A square matrix that only makes the file large; it is multiplied in with weight 0.
    """
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    shape = ["batch", channels, SIZE, SIZE] if channels_first else ["batch", SIZE, SIZE, channels]
    nodes, initialisers = [], [numpy_helper.from_array(weights.astype(np.float32), "weights")]
    image = "image"
    if not channels_first:
        nodes.append(helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]))
        image = "first"
    step = SIZE // TILES
    nodes += [
        helper.make_node("AveragePool", [image], ["tiles"], kernel_shape=[step, step], strides=[step, step]),
        helper.make_node("Flatten", ["tiles"], [FEATURES], axis=1),
        helper.make_node("MatMul", [FEATURES, "weights"], ["plain" if ballast is not None else ANSWERS]),
    ]
    if ballast is not None:
        into = np.zeros((weights.shape[0], len(ballast)), np.float32)
        out_of = np.zeros((len(ballast), weights.shape[1]), np.float32)
        for name, array in (("into", into), ("ballast", ballast), ("out_of", out_of)):
            initialisers.append(numpy_helper.from_array(array, name))
        nodes += [
            helper.make_node("MatMul", [FEATURES, "into"], ["a"]),
            helper.make_node("MatMul", ["a", "ballast"], ["b"]),
            helper.make_node("MatMul", ["b", "out_of"], ["c"]),
            helper.make_node("Add", ["plain", "c"], [ANSWERS]),
        ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(ANSWERS, onnx.TensorProto.FLOAT, ["batch", weights.shape[1]]),
            helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, ["batch", weights.shape[0]]),
        ],
        initialisers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def config_for(slot: str, *, channels: tuple[str, ...] = ("R", "G", "B"), **head: Any) -> ModelConfig:
    """A description of a `linear_graph` for a slot; ``head`` overrides what its head says."""
    base = slot_head(slot)
    task = head.pop("task", base.task)
    activation = head.pop("activation", Activation.SIGMOID if task.value == "multi-label" else Activation.SOFTMAX)
    return ModelConfig(
        id=f"test-{slot}",
        family=FAMILY,
        architecture=Architecture("linear", {SLOT: slot}),
        inputs=(Input(channels=channels, size=(SIZE, SIZE), resize=Resize.AREA, normalisation=UNIT),),
        heads=(Head(base.name, task, head.pop("classes", base.classes), activation, **head),),
    )


def named_classes(*classes: ClassInfo) -> tuple[ClassInfo, ...]:
    return classes


def weights_for(slot: str, channels: int = 3, seed: int = 0, scale: float = 8.0) -> np.ndarray:
    """Random weights, the same for the same slot and seed."""
    rng = np.random.default_rng([seed, *slot.encode()])
    return (rng.normal(0, scale, (TILES * TILES * channels, class_count(slot)))).astype(np.float32)


def write_model(
    folder: Path,
    slot: str,
    *,
    grey: bool | None = None,
    weights: np.ndarray | None = None,
    fitted: FittedGate | None = None,
    config: ModelConfig | None = None,
    **graph: Any,
) -> ModelFolder:
    """A model folder for a slot; its channels are those of the slot's data set."""
    if grey is None:
        grey = slot != ROUTER and BY_FLAG[slot].channels == 1
    channels = 1 if grey else 3
    weights = weights_for(slot, channels) if weights is None else weights
    config = config or config_for(slot, channels=GREY if grey else ("R", "G", "B"))
    write_model_folder(folder, config, linear_graph(weights, channels, **graph), fitted)
    return read_model_folder(folder)


def tile_means(pixels: np.ndarray) -> np.ndarray:
    """The features of a picture of `SIZE` x `SIZE` pixels, uint8, in the graph's order."""
    values = pixels.astype(np.float64) / 255
    values = values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)
    step = SIZE // TILES
    return values.reshape(len(values), TILES, step, TILES, step).mean(axis=(2, 4)).ravel()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def smooth_picture(seed: int, channels: int = 1, size: int = SIZE) -> np.ndarray:
    """A smooth picture, uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (5, 5, channels))
    at = np.linspace(0, 4, size)
    low = np.minimum(at.astype(int), 3)
    part = at - low
    rows = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
    both = rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]
    pixels = np.rint(255 * both).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def dense(name: str, units: int, activation: str = "softmax") -> dict[str, Any]:
    """A last layer, as Keras describes it."""
    config = {"name": name, "units": units, "activation": activation}
    return {"module": "keras.layers", "class_name": "Dense", "config": config, "registered_name": None}


def input_layer(shape: tuple[int, ...] = (64, 64, 3)) -> dict[str, Any]:
    config = {"name": "image", "batch_shape": [None, *shape]}
    return {"module": "keras.layers", "class_name": "InputLayer", "config": config, "registered_name": None}


def plain_layer(kind: str, module: str = "keras.layers", **config: Any) -> dict[str, Any]:
    config = {"name": kind.lower(), **config}
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def keras_file(path: Path, *layers: dict[str, Any], weights: bytes | None = None, **config: Any) -> Path:
    """A ``.keras`` file with these layers in a row, written without Keras; its weights belong to nothing."""
    content = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "model", "layers": list(layers), **config},
        "registered_name": None,
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", json.dumps(content))
        archive.writestr("model.weights.h5", hdf5_weights() if weights is None else weights)
    return path


def hdf5_weights(**links: Any) -> bytes:
    """The HDF5 file within a ``.keras`` file; ``links`` are put into it as they are (h5py's kinds of links)."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/dense/vars/0"] = np.zeros((2, 3), np.float32)
        for name, link in links.items():
            file[name] = link
    return stream.getvalue()
