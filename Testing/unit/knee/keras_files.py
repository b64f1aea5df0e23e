"""Keras models in HDF5 files, written with h5py alone in the layout of Keras 2.11."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FIRST, LAST = "channels_first", "channels_last"


@dataclass
class KerasModel:
    """A functional model under construction; every method adds a layer and answers its name."""

    input_shape: tuple[int, ...]
    data_format: str = FIRST
    seed: int = 0
    layers: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._channels: dict[str, int] = {}
        channels = self.input_shape[0 if self.data_format == FIRST else -1]
        config = {"batch_input_shape": [None, *self.input_shape], "dtype": "float32", "sparse": False, "ragged": False}
        self.input = self.add("InputLayer", (), channels, name="input_1", **config)

    def add(
        self, kind: str, inputs: tuple[str, ...], channels: int, *, name: str = "", weights: Any = None, **config: Any
    ) -> str:
        """Any layer, from its configuration as Keras 2 would write it."""
        name = name or f"{kind.lower()}_{len(self.layers)}"
        nodes = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
        settings = {"name": name, "trainable": True, "dtype": "float32", **config}
        self.layers.append({"class_name": kind, "config": settings, "name": name, "inbound_nodes": nodes})
        if weights:
            self.weights[name] = {key: np.asarray(array, np.float32) for key, array in weights.items()}
        self._channels[name] = channels
        return name

    @property
    def channel_axis(self) -> int:
        return 1 if self.data_format == FIRST else 3

    def conv(self, source: str, filters: int, kernel: tuple[int, int] = (3, 3), **config: Any) -> str:
        shape = (*kernel, self._channels[source], filters)
        settings = {
            "filters": filters, "kernel_size": list(kernel), "strides": [1, 1], "padding": "same",
            "data_format": self.data_format, "dilation_rate": [1, 1], "groups": 1, "activation": "linear",
            "use_bias": True,
        }  # fmt: skip
        return self.add("Conv2D", (source,), filters, weights=self._kernel(shape), **{**settings, **config})

    def transposed(self, source: str, filters: int, kernel: tuple[int, int] = (2, 2), **config: Any) -> str:
        shape = (*kernel, filters, self._channels[source])
        settings = {
            "filters": filters, "kernel_size": list(kernel), "strides": [2, 2], "padding": "same",
            "data_format": self.data_format, "dilation_rate": [1, 1], "activation": "linear", "use_bias": True,
            "output_padding": None,
        }  # fmt: skip
        return self.add("Conv2DTranspose", (source,), filters, weights=self._kernel(shape, 3), **{**settings, **config})

    def norm(self, source: str) -> str:
        count = self._channels[source]
        weights = {
            "gamma": self._random.uniform(0.5, 1.5, count), "beta": self._random.normal(0, 0.2, count),
            "moving_mean": self._random.normal(0, 0.2, count), "moving_variance": self._random.uniform(0.5, 2.0, count),
        }  # fmt: skip
        config = {"axis": [self.channel_axis], "momentum": 0.99, "epsilon": 0.001, "center": True, "scale": True}
        return self.add("BatchNormalization", (source,), count, weights=weights, **config)

    def prelu(self, source: str) -> str:
        count = self._channels[source]
        shape = (count, 1, 1) if self.data_format == FIRST else (1, 1, count)
        shared = [2, 3] if self.data_format == FIRST else [1, 2]
        weights = {"alpha": self._random.uniform(0, 0.5, shape)}
        return self.add("PReLU", (source,), count, weights=weights, shared_axes=shared)

    def plain(self, kind: str, *sources: str, **config: Any) -> str:
        """A layer without weights that keeps the channels (`Concatenate` adds them up)."""
        counts = [self._channels[source] for source in sources]
        return self.add(kind, sources, sum(counts) if kind == "Concatenate" else counts[0], **config)

    def _kernel(self, shape: tuple[int, ...], inputs: int = 2) -> dict[str, np.ndarray]:
        scale = (2.0 / (shape[0] * shape[1] * shape[inputs])) ** 0.5
        filters = shape[5 - inputs]
        return {"kernel": self._random.normal(0, scale, shape), "bias": self._random.normal(0, 0.1, filters)}

    def save(self, path: Path) -> Path:
        config = {
            "class_name": "Functional",
            "config": {
                "name": "model", "trainable": True, "layers": self.layers,
                "input_layers": [[self.input, 0, 0]], "output_layers": [[name, 0, 0] for name in self.outputs],
            },
        }  # fmt: skip
        with h5py.File(path, "w") as file:
            file.attrs["backend"] = np.bytes_("tensorflow")
            file.attrs["keras_version"] = np.bytes_("2.11.0")
            file.attrs["model_config"] = json.dumps(config)
            root = file.create_group("model_weights")
            names = [layer["config"]["name"] for layer in self.layers]
            root.attrs["layer_names"] = [name.encode() for name in names]
            for name in names:
                group = root.create_group(name)
                arrays = self.weights.get(name, {})
                group.attrs["weight_names"] = [f"{name}/{key}:0".encode() for key in arrays]
                for key, array in arrays.items():
                    group[f"{name}/{key}:0"] = array
        return path


def residual_unet(
    input_shape: tuple[int, ...],
    data_format: str = FIRST,
    *,
    filters: int = 4,
    classes: int = 10,
    seed: int = 0,
    half_first: bool = False,
) -> KerasModel:
    """A small net of the kind of the published ones: residual blocks, BN, PReLU, dropout, deep supervision."""
    model = KerasModel(input_shape, data_format, seed)
    axis, form = model.channel_axis, {"data_format": data_format}

    def block(source: str, count: int) -> str:
        x = model.prelu(model.norm(model.conv(source, count)))
        x = model.plain("Dropout", x, rate=0.2, noise_shape=None, seed=None)
        x = model.norm(model.conv(x, count))
        shortcut = model.conv(source, count, (1, 1))
        return model.prelu(model.plain("Add", x, shortcut))

    top = block(model.input, filters)
    x = model.plain("MaxPooling2D", top, pool_size=[2, 2], strides=[2, 2], padding="valid", **form)
    bottom = block(x, 2 * filters)
    x = model.transposed(bottom, filters)
    x = block(model.plain("Concatenate", x, top, axis=axis), filters)
    side = model.conv(bottom, classes, (1, 1))
    x = model.conv(x, classes, (1, 1))
    raised = model.plain("UpSampling2D", side, size=[2, 2], interpolation="nearest", **form)
    whole = model.plain("Softmax", model.plain("Add", x, raised), axis=axis)
    half = model.plain("Softmax", side, axis=axis)
    model.outputs = [half, whole] if half_first else [whole, half]
    return model
