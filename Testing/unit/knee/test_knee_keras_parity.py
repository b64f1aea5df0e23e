"""Keras files as networks of torch: the same numbers as TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need PyTorch, which is not installed")
h5py = pytest.importorskip("h5py", reason="Keras files need h5py, which is not installed")

from keras_files import FIRST, LAST, residual_unet  # noqa: E402

from KneeAnalysisLib.kerasnet import KerasNet, read_network  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras itself
    pytest.mark.filterwarnings("ignore:The structure of `inputs`:UserWarning"),
]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def keras() -> Any:
    """TensorFlow's Keras."""
    tensorflow = pytest.importorskip("tensorflow", reason="the comparison with TensorFlow needs TensorFlow")
    tensorflow.get_logger().setLevel("ERROR")
    return pytest.importorskip("keras")


def _noise(shape: tuple[int, ...], count: int = 2) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, *shape)).astype(np.float32)


def _answers(net: KerasNet, images: np.ndarray) -> list[np.ndarray]:
    with torch.inference_mode():
        return [answer.numpy() for answer in net(torch.from_numpy(images))]


def _assert_same(net: KerasNet, model: Any, images: np.ndarray) -> None:
    expected = model(images)
    expected = expected if isinstance(expected, list | tuple) else [expected]
    answers = _answers(net, images)
    assert len(answers) == len(expected)
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer.shape == tuple(wanted.shape)
        assert np.abs(answer - np.asarray(wanted)).max() < TOLERANCE


@pytest.mark.parametrize(("data_format", "shape"), [(FIRST, (1, 32, 48)), (LAST, (32, 48, 1))])
def test_a_residual_net_of_keras_2_answers_as_in_tensorflow(
    keras: Any, data_format: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = residual_unet(shape, data_format).save(tmp_path / "Netz ü.h5")
    model = keras.models.load_model(path, compile=False)
    _assert_same(read_network(path), model, _noise(shape))


@pytest.mark.parametrize(("data_format", "shape"), [(FIRST, (1, 32, 48)), (LAST, (32, 48, 1))])
def test_the_same_net_saved_by_keras_3_answers_as_in_tensorflow(
    keras: Any, data_format: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    model = keras.models.load_model(residual_unet(shape, data_format).save(tmp_path / "2.h5"), compile=False)
    model.save(tmp_path / "3.h5")
    assert "keras_history" in h5py.File(tmp_path / "3.h5").attrs["model_config"]
    _assert_same(read_network(tmp_path / "3.h5"), model, _noise(shape))


LAYERS: dict[str, Callable[[Any, str], Any]] = {
    "odd sizes, stride 2": lambda k, f: k.Conv2D(3, 3, strides=2, padding="same", data_format=f),
    "even kernel": lambda k, f: k.Conv2D(3, (4, 2), padding="same", data_format=f),
    "stride 3, kernel 2": lambda k, f: k.Conv2D(3, 2, strides=3, padding="same", data_format=f),
    "dilated": lambda k, f: k.Conv2D(3, 3, dilation_rate=2, padding="same", data_format=f),
    "valid, no bias": lambda k, f: k.Conv2D(3, (5, 3), use_bias=False, data_format=f),
    "groups": lambda k, f: k.Conv2D(4, 3, groups=2, padding="same", data_format=f),
    "with relu": lambda k, f: k.Conv2D(3, 3, activation="relu", padding="same", data_format=f),
    "transposed 3 by 2": lambda k, f: k.Conv2DTranspose(3, 3, strides=2, padding="same", data_format=f),
    "transposed 2 by 2": lambda k, f: k.Conv2DTranspose(3, 2, strides=2, padding="same", data_format=f),
    "transposed 4 by 2": lambda k, f: k.Conv2DTranspose(3, 4, strides=2, padding="same", data_format=f),
    "transposed 2 by 3": lambda k, f: k.Conv2DTranspose(3, 2, strides=3, padding="same", data_format=f),
    "transposed 3 by 1": lambda k, f: k.Conv2DTranspose(3, (3, 5), strides=1, padding="same", data_format=f),
    "transposed valid 3 by 2": lambda k, f: k.Conv2DTranspose(3, 3, strides=2, padding="valid", data_format=f),
    "transposed valid 2 by 3": lambda k, f: k.Conv2DTranspose(3, 2, strides=3, padding="valid", data_format=f),
    "max pooling": lambda k, f: k.MaxPooling2D(2, data_format=f),
    "max pooling, same": lambda k, f: k.MaxPooling2D(3, strides=2, padding="same", data_format=f),
    "average pooling, same": lambda k, f: k.AveragePooling2D(3, strides=2, padding="same", data_format=f),
    "average pooling": lambda k, f: k.AveragePooling2D((2, 3), data_format=f),
    "nearest up": lambda k, f: k.UpSampling2D((2, 3), data_format=f),
    "bilinear up": lambda k, f: k.UpSampling2D(2, interpolation="bilinear", data_format=f),
    "zero padding": lambda k, f: k.ZeroPadding2D(((1, 2), (0, 3)), data_format=f),
    "prelu per voxel": lambda k, f: k.PReLU(alpha_initializer="random_uniform"),
    "relu": lambda k, f: k.ReLU(max_value=1.0, negative_slope=0.1),
    "leaky relu": lambda k, f: k.LeakyReLU(0.2),
    "softmax over the last axis": lambda k, f: k.Activation("softmax"),
    "softmax over axis 1": lambda k, f: k.Softmax(axis=1),
    "elu": lambda k, f: k.Activation("elu"),
    "swish": lambda k, f: k.Activation("swish"),
    "spatial dropout": lambda k, f: k.SpatialDropout2D(0.5, data_format=f),
    "norm without scale": lambda k, f: k.BatchNormalization(axis=1 if f == FIRST else 3, scale=False),
    "norm without centre": lambda k, f: k.BatchNormalization(axis=1 if f == FIRST else 3, center=False),
}


@pytest.mark.parametrize("data_format", [FIRST, LAST])
@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_answers_as_in_tensorflow(keras: Any, name: str, data_format: str, tmp_path: Path) -> None:
    shape = (2, 11, 14) if data_format == FIRST else (11, 14, 2)
    source = keras.Input(shape)
    model = keras.Model(source, LAYERS[name](keras.layers, data_format)(source))
    random = np.random.default_rng(3)
    model.set_weights([random.uniform(0.2, 1.0, w.shape).astype(np.float32) for w in model.get_weights()])
    model.save(tmp_path / "one.h5")
    _assert_same(read_network(tmp_path / "one.h5"), model, _noise(shape))


def test_a_sequential_model_and_a_layer_used_twice_answer_as_in_tensorflow(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    chain = keras.Sequential([keras.Input((8, 9, 1)), layers.Conv2D(2, 3), layers.Conv2D(3, 1, activation="sigmoid")])
    chain.save(tmp_path / "chain.h5")
    _assert_same(read_network(tmp_path / "chain.h5"), chain, _noise((8, 9, 1)))
    source, shared = keras.Input((8, 9, 1)), layers.Conv2D(1, 3, padding="same")
    twice = keras.Model(source, layers.Multiply()([shared(shared(source)), shared(source)]))
    twice.save(tmp_path / "twice.h5")
    _assert_same(read_network(tmp_path / "twice.h5"), twice, _noise((8, 9, 1)))
