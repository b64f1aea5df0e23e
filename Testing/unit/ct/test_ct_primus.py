"""The Primus encoder: its tensors, its answers beside those of the published package, its exact short cuts."""

from __future__ import annotations

import math
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the encoder needs torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from primus_cases import CASES, FROZEN, SMALL, of_case, published_answer, small, volume_of  # noqa: E402

from CTReportLib.nets import primus  # noqa: E402
from CTReportLib.nets.primus import Primus, SharedSpace, attended, rotations, turned  # noqa: E402
from MedAILib.errors import InputError  # noqa: E402
from MedAILib.models.infer import PRIMUS, recognise  # noqa: E402

PER_BLOCK = {
    "gamma_1": (864,), "gamma_2": (864,),
    "norm1.weight": (864,), "norm1.bias": (864,),
    "attn.q_proj.weight": (864, 864), "attn.q_proj.bias": (864,),
    "attn.k_proj.weight": (864, 864),
    "attn.v_proj.weight": (864, 864), "attn.v_proj.bias": (864,),
    "attn.norm.weight": (864,), "attn.norm.bias": (864,),
    "attn.proj.weight": (864, 864), "attn.proj.bias": (864,),
    "norm2.weight": (864,), "norm2.bias": (864,),
    "mlp.fc1_g.weight": (2304, 864), "mlp.fc1_g.bias": (2304,),
    "mlp.fc1_x.weight": (2304, 864), "mlp.fc1_x.bias": (2304,),
    "mlp.norm.weight": (2304,), "mlp.norm.bias": (2304,),
    "mlp.fc2.weight": (864, 2304), "mlp.fc2.bias": (864,),
}  # fmt: skip
PUBLISHED = {
    "mask_token": (1, 1, 864),
    "down_projection.proj.weight": (864, 1, 8, 8, 8), "down_projection.proj.bias": (864,),
    "up_projection.decode.0.0.weight": (864, 112, 2, 2, 2), "up_projection.decode.0.0.bias": (112,),
    "up_projection.decode.0.1.weight": (112,), "up_projection.decode.0.1.bias": (112,),
    "up_projection.decode.1.0.weight": (112, 16, 2, 2, 2), "up_projection.decode.1.0.bias": (16,),
    "up_projection.decode.1.1.weight": (16,), "up_projection.decode.1.1.bias": (16,),
    "up_projection.decode.2.weight": (16, 1, 2, 2, 2), "up_projection.decode.2.bias": (1,),
    **{f"eva.blocks.{n}.{name}": shape for n in range(16) for name, shape in PER_BLOCK.items()},
    "eva.norm.weight": (864,), "eva.norm.bias": (864,),
}  # fmt: skip
"""Every tensor of the published package's network for one class, in its order."""


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_every_tensor_of_the_published_size_has_the_published_name_shape_and_order() -> None:
    with torch.device("meta"):
        whole, encoder = Primus(decoder="patches"), Primus()
    assert len(PUBLISHED) == 383
    assert list(shapes_of(whole).items()) == list(PUBLISHED.items())
    assert sum(parameter.numel() for parameter in encoder.parameters()) + 864 == 144_086_400  # and the mask token
    assert shapes_of(encoder) == {name: s for name, s in PUBLISHED.items() if not name.startswith("up_projection.")}


def test_the_published_tensors_are_recognised_with_and_without_a_decoder() -> None:
    found = recognise(PUBLISHED)
    assert found is not None and found.architecture is PRIMUS
    assert (found.parameters["depth"], found.parameters["mlp_dim"], found.parameters["decoder"]) == (
        16,
        2304,
        "patches",
    )
    alone = recognise({f"module.{name}": s for name, s in PUBLISHED.items() if not name.startswith("up_projection.")})
    assert alone is not None and alone.parameters["decoder"] == "none"


@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_those_of_the_published_package(name: str) -> None:
    with np.load(FROZEN) as frozen, torch.inference_mode():
        features = of_case(CASES[name])(volume_of(name, CASES[name]))
        wanted = frozen[name]
    assert features.patches.shape == wanted.shape and math.prod(features.grid) == wanted.shape[1]
    assert np.abs(features.patches.numpy() - wanted).max() < 1e-5
    assert torch.allclose(features.pooled, features.patches.mean(dim=1), atol=1e-6)


@pytest.mark.skipif(
    not all(find_spec(name) for name in ("dynamic_network_architectures", "timm", "torchvision")),
    reason="the published package, or timm and torchvision that it needs, is not installed",
)
@pytest.mark.parametrize("name", CASES)
def test_the_frozen_answers_are_those_of_the_installed_package(name: str) -> None:
    with np.load(FROZEN) as frozen:
        assert np.abs(published_answer(name, CASES[name]) - frozen[name]).max() < 1e-5


def test_attention_in_parts_is_the_softmax_of_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, 50, 12) for _ in range(3))
    literal = (queries @ keys.transpose(-2, -1) * 12**-0.5).softmax(dim=-1) @ values
    assert (attended(queries, keys, values) - literal).abs().max() < 1e-6
    monkeypatch.setattr(primus, "_SCORES_AT_ONCE", 2 * 3 * 50 * 7)  # 7 queries at once
    assert (attended(queries, keys, values) - literal).abs().max() < 1e-6


def test_turning_keeps_lengths_and_what_queries_and_keys_see_depends_on_their_distance_only() -> None:
    grid = (4, 5, 6)
    turns = rotations(grid, 12)
    torch.manual_seed(1)
    query, key = torch.randn(1, 1, 1, 12), torch.randn(1, 1, 1, 12)
    everywhere = turned(query.expand(1, 1, 120, 12), turns)[0, 0].view(*grid, 12)
    keys = turned(key.expand(1, 1, 120, 12), turns)[0, 0].view(*grid, 12)
    assert torch.allclose(everywhere.norm(dim=-1), query.norm().expand(grid), atol=1e-5)
    first = (everywhere[0, 1, 2] * keys[2, 3, 3]).sum()
    assert torch.allclose(first, (everywhere[1, 2, 4] * keys[3, 4, 5]).sum(), atol=1e-5)
    assert not torch.allclose(first, (everywhere[1, 2, 4] * keys[2, 4, 5]).sum(), atol=1e-2)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(1, 3)] * 3), st.integers(1, 3), st.integers(0, 99))
def test_a_volume_is_answered_alone_as_in_a_batch(grid: tuple[int, int, int], batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    encoder = small()
    volumes = torch.randn(batch, 1, *(4 * side for side in grid))
    with torch.inference_mode():
        together = encoder(volumes).patches
        for number in range(batch):
            assert torch.allclose(encoder(volumes[number : number + 1]).patches[0], together[number], atol=2e-5)


def test_a_width_that_is_not_published_needs_its_heads_stated() -> None:
    with pytest.raises(InputError, match="how many heads share the width of 24"):
        Primus(**SMALL)
    with pytest.raises(InputError, match="5 heads cannot share a width of 24"):
        Primus(**SMALL, num_heads=5)
    with pytest.raises(InputError, match="multiple of 6"):
        Primus(**SMALL, num_heads=3)  # heads of 8


@pytest.mark.parametrize("shape", [(1, 2, 8, 8, 8), (1, 1, 8, 8, 9), (1, 8, 8, 8), (1, 1, 0, 8, 8)])
def test_a_volume_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="cannot take a volume of shape"):
        small()(torch.zeros(shape))


def test_the_shared_space_is_attention_of_the_mean_to_all_patches() -> None:
    torch.manual_seed(0)
    space = SharedSpace(24, 128).eval()
    patches = torch.randn(2, 30, 24)
    with torch.inference_mode():
        found = space(patches)
        projected = patches @ space.projector.weight.flatten(1).T + space.projector.bias
        attention = space.pooler["attn"]
        q, k, v = (
            part @ weight.T + bias
            for part, weight, bias in zip(
                (projected.mean(1, keepdim=True), projected, projected),
                attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True,
            )
        )  # fmt: skip
        q, k, v = (part.unflatten(-1, (2, 64)).transpose(1, 2) for part in (q, k, v))
        seen = ((q @ k.transpose(-2, -1)) / 8).softmax(-1) @ v
        wanted = attention.out_proj(seen.transpose(1, 2).flatten(2))[:, 0]
    assert found.shape == (2, 128) and (found - wanted).abs().max() < 1e-5


def test_training_reaches_every_part_that_answers() -> None:
    encoder = small().train().requires_grad_(True)
    encoder(torch.randn(1, 1, 8, 8, 8)).patches.square().sum().backward()
    without = Counter(name for name, parameter in encoder.named_parameters() if parameter.grad is None)
    assert not without
