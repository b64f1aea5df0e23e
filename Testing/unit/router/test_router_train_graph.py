"""The same network three times: in torch, as an ONNX graph, as a Keras file."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnx", reason="writing graphs needs onnx")
pytest.importorskip("onnxruntime", reason="running graphs needs onnxruntime")

from MedMNISTRouterLib.kerascheck import check_keras_file  # noqa: E402
from MedMNISTRouterLib.session import OnnxModel  # noqa: E402
from MedMNISTRouterLib.train.folded import folded  # noqa: E402
from MedMNISTRouterLib.train.kerasfile import write_keras_file  # noqa: E402
from MedMNISTRouterLib.train.layout import Layout, layout_for  # noqa: E402
from MedMNISTRouterLib.train.network import ResidualClassifier, parameter_count  # noqa: E402
from MedMNISTRouterLib.train.onnxgraph import onnx_graph  # noqa: E402


def a_network(layout: Layout, seed: int = 0) -> ResidualClassifier:
    """Random weights, with batch normalisations that do something."""
    torch.manual_seed(seed)
    network = ResidualClassifier(layout)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return network.eval()


def weights_of(network: ResidualClassifier) -> dict[str, np.ndarray]:
    return folded(network.layout, {name: value.numpy() for name, value in network.state_dict().items()})


@settings(max_examples=8)
@given(
    size=st.sampled_from([28, 40, 64, 96]),
    channels=st.sampled_from([1, 3]),
    outputs=st.integers(1, 14),
    blocks=st.integers(1, 2),
    count=st.integers(1, 5),
)
def test_the_graph_answers_as_the_network_for_any_batch(
    tmp_path_factory: pytest.TempPathFactory, size: int, channels: int, outputs: int, blocks: int, count: int
) -> None:
    network = a_network(Layout(channels, outputs, size, (8, 16), blocks), seed=size + count)
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    path.write_bytes(onnx_graph(network.layout, weights_of(network)))
    images = np.random.default_rng(count).normal(size=(count, size, size, channels)).astype(np.float32)
    found = OnnxModel(path).run(images)
    with torch.inference_mode():
        answers, features = network.with_features(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert found.features is not None
    assert found.features.shape == (count, network.layout.feature_count)
    np.testing.assert_allclose(found.answers, answers.numpy(), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(found.features, features.numpy(), atol=1e-5, rtol=1e-5)


def test_features_of_images_without_any_contrast_are_finite() -> None:
    network = a_network(Layout(1, 2, 28))
    with torch.inference_mode():
        for value in (-1.0, 0.0, 1.0):
            assert torch.isfinite(network.with_features(torch.full((1, 1, 28, 28), value))[1]).all()


def test_the_small_network_stays_small_and_the_large_one_is_resnet18() -> None:
    assert parameter_count(ResidualClassifier(layout_for("small", 3, 8, 28))) < 80_000
    large = ResidualClassifier(layout_for("resnet18", 3, 9, 28))
    assert parameter_count(large) == pytest.approx(11.17e6, rel=0.01)
    assert len(large.layout.stages) == 4


@pytest.mark.parametrize(("size", "last"), [(28, 7), (64, 8), (128, 8), (224, 14)])
def test_every_size_reaches_the_last_stage_with_some_pixels_left(size: int, last: int) -> None:
    network = a_network(Layout(1, 2, size, (4, 4, 4)))
    assert network._maps(torch.zeros(1, 1, size, size))[-1].shape[2:] == (last, last)


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="Keras is not installed")
def test_the_keras_file_answers_as_the_network_and_passes_our_own_check(tmp_path: Path) -> None:
    network = a_network(Layout(1, 2, 96, (4, 8), 2))
    images = np.random.default_rng(0).normal(size=(3, 96, 96, 1)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2)).softmax(dim=1).numpy()
    path = tmp_path / "stage2_pneumoniamnist_final.keras"
    found = write_keras_file(path, network.layout, weights_of(network), "softmax", images, expected)
    assert found.path == path, found.remark
    assert found.parity is not None
    assert found.parity <= 1e-5
    check_keras_file(path, "pneumoniamnist")
