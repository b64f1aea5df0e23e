"""The network is the published one: its tensors, their names, their number."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the multi-task network needs torch")

from multitask_models import SMALL, small_model  # noqa: E402

from MedAILib.errors import InputError  # noqa: E402
from MedAILib.models.infer import KNOWN, recognise  # noqa: E402
from MedAILib.multitask.network import create_multi_task_model, folded, parameter_count  # noqa: E402

PUBLISHED = [
    (16, 2, 16, 119_379, 66),
    (32, 4, 64, 7_881_987, 114),
    (64, 4, 32, 31_416_547, 114),
    (64, 4, 256, 31_646_595, 114),
    (64, 5, 512, 126_817_923, 138),
    (32, 3, 256, 2_014_019, 90),
]


@pytest.mark.parametrize(("base_filters", "depth", "hidden", "parameters", "tensors"), PUBLISHED)
def test_the_network_has_the_published_number_of_parameters(
    base_filters: int, depth: int, hidden: int, parameters: int, tensors: int
) -> None:
    with torch.device("meta"):
        model = create_multi_task_model(base_filters=base_filters, depth=depth, cls_hidden_dim=hidden)
    assert parameter_count(model) == parameters
    assert len(model.state_dict()) == tensors


def test_encoder_decoder_and_head_share_the_parameters_as_published() -> None:
    with torch.device("meta"):
        model = create_multi_task_model(base_filters=16, depth=2, cls_hidden_dim=16)
    parts = (model.encoder, model.seg_decoder, model.cls_head)
    assert [parameter_count(part) for part in parts] == [72_016, 46_289, 1_074]


def test_transposed_convolutions_add_eight_tensors_at_depth_four() -> None:
    with torch.device("meta"):
        model = create_multi_task_model(base_filters=32, depth=4, bilinear=False)
    assert len(model.state_dict()) == 122
    assert tuple(model.state_dict()["seg_decoder.up_blocks.0.up.weight"].shape) == (512, 256, 2, 2)


def test_tensors_bear_the_published_names() -> None:
    with torch.device("meta"):
        names = set(create_multi_task_model(base_filters=8, depth=3, bilinear=False).state_dict())
    assert {
        "encoder.inc.double_conv.0.weight",
        "encoder.inc.double_conv.5.running_var",
        "encoder.down_blocks.2.maxpool_conv.1.double_conv.4.weight",
        "seg_decoder.up_blocks.0.conv.double_conv.1.bias",
        "seg_decoder.up_blocks.2.up.bias",
        "seg_decoder.outc.conv.weight",
        "cls_head.classifier.1.weight",
        "cls_head.classifier.4.bias",
    } <= names
    assert not any(".double_conv.3." in name for name in names)


@pytest.mark.parametrize("bilinear", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_weights_manager_knows_every_tensor_of_the_network(bilinear: bool, dropout: float) -> None:
    parameters = {**SMALL, "bilinear": bilinear, "in_channels": 3, "cls_num_classes": 4, "depth": 3}
    with torch.device("meta"):
        state = create_multi_task_model(**parameters, dropout=dropout).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert dict(KNOWN["multitask_unet"].expected_shapes(parameters)) == shapes
    found = recognise(shapes)
    assert found is not None
    assert found.parameters == parameters


def test_each_head_answers_only_when_asked() -> None:
    model, image = small_model(), torch.randn(2, 1, 32, 32)
    both = model(image)
    assert tuple(both["seg"].shape) == (2, 1, 32, 32)
    assert tuple(both["cls"].shape) == (2, 2)
    assert [tuple(level.shape[1:]) for level in both["features"]] == [(4, 32, 32), (8, 16, 16), (16, 8, 8)]
    assert "cls" not in model(image, do_cls=False)
    assert "seg" not in model(image, do_seg=False)


@pytest.mark.parametrize("bilinear", [True, False])
def test_sides_that_do_not_halve_evenly_are_answered_at_their_size(bilinear: bool) -> None:
    model = small_model(bilinear=bilinear)
    assert tuple(model(torch.randn(1, 1, 37, 22))["seg"].shape) == (1, 1, 37, 22)


def test_folding_the_normalisations_changes_no_answer_and_not_the_network() -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast, image = folded(model), torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        slow_answer, fast_answer = model(image), fast(image)
    assert torch.allclose(slow_answer["seg"].sigmoid(), fast_answer["seg"].sigmoid(), atol=1e-4)
    assert torch.allclose(slow_answer["cls"].softmax(1), fast_answer["cls"].softmax(1), atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fast.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_impossible_networks_are_refused_with_every_reason() -> None:
    with pytest.raises(InputError, match=r"base_filters = 0.*dropout = 1\.0"):
        create_multi_task_model(base_filters=0, dropout=1.0)
