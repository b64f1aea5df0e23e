"""Builds the network as a Keras file, in a process of its own: ``python -m MedMNISTRouterLib.train.kerasbuild FOLDER``.

The folder holds what `MedMNISTRouterLib.train.kerasfile` wrote; the answer is ``report.json`` beside it. Only
layers of Keras's own, nothing that has to be trusted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from MedMNISTRouterLib.train.layout import Block, Layout


def keras_model(keras: Any, layout: Layout, weights: Mapping[str, np.ndarray], activation: str) -> Any:
    """The network in Keras, channels last.

    Parameters
    ----------
    keras : module
    layout : Layout
    weights : mapping of str to ndarray
        As of `MedMNISTRouterLib.train.folded.folded`.
    activation : str
        ``softmax`` or ``sigmoid``.
    """
    layers = keras.layers
    image = keras.Input((layout.size, layout.size, layout.channels), name="image")
    x = _convolution(layers, image, "stem", weights, layout.stem_stride)
    if layout.has_pooling:
        x = layers.MaxPooling2D(3, 2, name="pool")(layers.ZeroPadding2D(1, name="pool_pad")(x))
    for stage in layout.stages:
        for block in stage:
            x = _block(layers, x, block, weights)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    x = layers.Dense(layout.outputs, activation=activation, name="answers")(x)
    model = keras.Model(image, x, name="residual_classifier")
    for layer in model.layers:
        if layer.weights:
            name = "head" if layer.name == "answers" else layer.name.replace("-", ".")
            weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            layer.set_weights([weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0), bias])
    return model


def _block(layers: Any, x: Any, block: Block, weights: Mapping[str, np.ndarray]) -> Any:
    name = block.name
    inner = _convolution(layers, x, f"{name}.conv1", weights, block.stride)
    inner = _convolution(layers, inner, f"{name}.conv2", weights, 1, relu=False)
    if block.has_projection:
        x = _convolution(layers, x, f"{name}.conv3", weights, block.stride, relu=False)
    return layers.ReLU(name=f"{_plain(name)}-relu")(layers.Add(name=f"{_plain(name)}-add")([inner, x]))


def _convolution(
    layers: Any, x: Any, name: str, weights: Mapping[str, np.ndarray], stride: int, *, relu: bool = True
) -> Any:
    outputs, _, kernel, _ = weights[f"{name}.weight"].shape
    if kernel > 1:  # 'same' pads unevenly where the stride is 2
        x = layers.ZeroPadding2D(kernel // 2, name=f"{_plain(name)}-pad")(x)
    activation = "relu" if relu else None
    return layers.Conv2D(outputs, kernel, stride, "valid", activation=activation, name=_plain(name))(x)


def _plain(name: str) -> str:
    """A name without points, which Keras takes for paths."""
    return name.replace(".", "-")


def main(folder: Path) -> None:
    """Build, save, load again, compare; see the module."""
    import keras

    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    layout = Layout.from_parameters(asked["layout"])
    with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    images, expected = arrays.pop("images"), arrays.pop("expected")
    path = folder / "model.keras"
    keras_model(keras, layout, arrays, asked["activation"]).save(path)
    found = np.asarray(keras.models.load_model(path, compile=False, safe_mode=True).predict(images, verbose=0))
    report = {
        "parity": float(np.abs(found - expected).max()),
        "keras": keras.__version__,
        "backend": keras.config.backend(),
    }
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
