"""The ReCT encoder: the published tensors, and the answers of the formulas written out plainly."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the encoder needs torch")

import rect3d_literal as literal  # noqa: E402
from rect3d_cases import SMALL, a_volume, small  # noqa: E402

from CTReportLib.nets.rect3d import UNUSED, Rect3D  # noqa: E402
from CTReportLib.nets.rect3d_attention import RegionAwareAttention, SliceAwareAttention, plane_steps  # noqa: E402
from CTReportLib.nets.rect3d_regions import region_shares  # noqa: E402
from MedAILib.errors import InputError  # noqa: E402
from MedAILib.models.infer import KNOWN, nearly, recognise  # noqa: E402
from MedAILib.models.rect3d_inference import likely_grid  # noqa: E402

PUBLISHED_TENSORS, PUBLISHED_PARAMETERS = 288, 133_251_984
PUBLISHED_SHA256 = "7919525e6b19ce03596c3a08c8b958f7293fd28f8f6a020dbd5a3fab190e54bc"
"""Of ``name 64x1x7x7`` by name, a line each."""
PUBLISHED_PARTS = {
    "patch_embed.pos_embed": (1, 16384, 768),
    "patch_embed.cls_token": (1, 1, 768),
    "patch_embed.proj.weight": (768, 1, 4, 16, 16),
    "anatomical_encoder.region_prototypes": (20, 768),
    "anatomical_encoder.region_embeds.weight": (21, 768),
    "anatomical_encoder.mask_encoder.0.weight": (64, 1, 3, 3, 3),
    "anatomical_encoder.mask_encoder.1.running_var": (64,),
    "anatomical_encoder.mask_encoder.4.weight": (128, 64, 3, 3, 3),
    "anatomical_encoder.mask_encoder.8.weight": (768, 128, 3, 3, 3),
    "blocks.11.norm3.bias": (768,),
    "blocks.0.slice_attn.slice_bias": (12, 33),
    "blocks.0.slice_attn.qkv.bias": (2304,),
    "blocks.0.region_attn.kv.weight": (1536, 768),
    "blocks.0.mlp.fc1.weight": (3072, 768),
    "norm.weight": (768,),
    "global_proj.2.weight": (768, 768),
    "local_proj.0.bias": (768,),
    "region_proj.2.bias": (768,),
}


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def largest_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative to the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_tensors_and_parameters_are_those_of_the_publication() -> None:
    with torch.device("meta"):
        encoder = Rect3D()
    shapes = shapes_of(encoder)
    assert len(shapes) == PUBLISHED_TENSORS
    assert sum(parameter.numel() for parameter in encoder.parameters()) == PUBLISHED_PARAMETERS
    assert {name: shapes[name] for name in PUBLISHED_PARTS} == PUBLISHED_PARTS
    lines = "\n".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == PUBLISHED_SHA256
    assert encoder.size == (64, 512, 512)


@pytest.mark.parametrize(
    "changed", [{}, SMALL, {"depth": 1, "in_channels": 3, "mlp_dim": 5}], ids=["full", "small", "odd"]
)
def test_the_weights_manager_reads_every_parameter_off_the_tensors(changed: dict[str, int]) -> None:
    with torch.device("meta"):
        shapes = shapes_of(Rect3D(**changed))
    for prefix in ("", "module."):
        found = recognise({f"{prefix}{name}": shape for name, shape in shapes.items()})
        assert found is not None
        assert found.architecture is KNOWN["rect3d"]
        assert changed.items() <= found.parameters.items()
        assert list(KNOWN["rect3d"].expected_shapes(found.parameters).items()) == list(shapes.items())


def test_an_encoder_that_lacks_a_tensor_is_nearly_one_and_the_tensor_is_named() -> None:
    with torch.device("meta"):
        shapes = shapes_of(Rect3D(**SMALL))
    del shapes["blocks.1.region_attn.kv.bias"]
    assert recognise(shapes) is None
    assert "blocks.1.region_attn.kv.bias" in nearly(shapes)


@pytest.mark.parametrize(("planes", "rows", "columns"), [(16, 3, 4), (7, 5, 2), (1, 4, 4), (40, 2, 2)])
def test_slice_aware_attention_is_that_of_the_formula(planes: int, rows: int, columns: int) -> None:
    torch.manual_seed(planes)
    layer = SliceAwareAttention(48, 4, 33, 0.5)
    torch.nn.init.normal_(layer.slice_bias, std=2)
    patches = torch.randn(2, planes * rows * columns, 48)
    state = {f"a.{name}": tensor for name, tensor in layer.state_dict().items()}
    wanted = literal.slice_attention(state, "a", patches, 4, literal.positions((planes, rows, columns)))
    with torch.no_grad():
        assert (layer(patches, plane_steps(planes, 33)) - wanted).abs().max() <= 1e-6


def test_slice_aware_attention_learns_as_the_formula_does() -> None:
    torch.manual_seed(0)
    layer = SliceAwareAttention(12, 3, 33, 0.5).double()
    torch.nn.init.normal_(layer.slice_bias)
    patches = torch.randn(2, 5 * 6, 12, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    state = {f"a.{name}": parameter for name, parameter in layer.named_parameters()}
    wanted = literal.slice_attention(state, "a", patches, 3, literal.positions((5, 2, 3)))
    found = layer(patches, plane_steps(5, 33))
    gradients = [torch.autograd.grad(answer.sin().sum(), [patches, *parameters]) for answer in (found, wanted)]
    for name, ours, theirs in zip(("patches", *names), *gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12), name


def test_the_distance_of_planes_counts_in_slice_aware_attention() -> None:
    layer = SliceAwareAttention(8, 1, 33, 0.5)
    torch.nn.init.zeros_(layer.qkv.weight[:16])
    torch.nn.init.constant_(layer.slice_bias, -100.0)
    torch.nn.init.constant_(layer.slice_bias[:, 0], 0.0)
    patches = torch.randn(1, 4 * 3, 8)
    with torch.no_grad():
        answer = layer(patches, plane_steps(4, 33)).view(1, 4, 3, 8)
        within = layer.proj(patches.view(1, 4, 3, 8).mean(dim=2) @ layer.qkv.weight[16:].T + layer.qkv.bias[16:])
    assert torch.allclose(answer, within[:, :, None].expand_as(answer), atol=1e-6)


@pytest.mark.parametrize("regions", [1, 5, 20])
def test_region_aware_attention_is_that_of_the_formula(regions: int) -> None:
    torch.manual_seed(regions)
    layer = RegionAwareAttention(48, 4)
    patches, prototypes = torch.randn(2, 30, 48), torch.randn(regions, 48)
    shares = torch.randn(2, 30, regions).mul(4).softmax(dim=-1)
    state = {f"a.{name}": tensor for name, tensor in layer.state_dict().items()}
    wanted = literal.region_attention(state, "a", patches, 4, prototypes, shares)
    with torch.no_grad():
        assert (layer(patches, prototypes, shares) - wanted).abs().max() <= 1e-6


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, 3)] * 3),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.integers(1, 6),
    st.sampled_from([torch.uint8, torch.int16, torch.int64]),
    st.integers(0, 1000),
)
def test_shares_of_regions_are_bit_equal_to_counting_patch_by_patch(
    grid: tuple[int, int, int], patch: tuple[int, int, int], regions: int, kind: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    size = [count * side for count, side in zip(grid, patch, strict=True)]
    labels = torch.randint(0, regions + 1, (2, *size)).to(kind)
    assert torch.equal(region_shares(labels, regions, patch), literal.shares_of(labels, regions, patch))


@pytest.mark.parametrize("changed", [{}, {"tokens": 6 * 4 * 3, "rows": 4, "in_channels": 2}], ids=["square", "oblong"])
def test_all_answers_of_the_encoder_are_those_of_the_formulas(changed: dict[str, int]) -> None:
    encoder = small(**changed)
    volume, labels = a_volume(encoder)
    with torch.inference_mode():
        found = encoder(volume, labels)
        wanted = literal.encode(encoder.state_dict(), volume, labels, 3, encoder.grid, encoder.patch)
    assert torch.equal(found.shares, wanted.pop("shares"))
    assert {name: largest_difference(getattr(found, name), value) for name, value in wanted.items()} == pytest.approx(
        dict.fromkeys(wanted, 0.0), abs=2e-6
    )
    assert found.grid == encoder.grid


def test_without_label_map_the_answer_is_that_of_an_empty_one() -> None:
    encoder = small()
    volume, labels = a_volume(encoder)
    with torch.inference_mode():
        found, empty = encoder(volume), encoder(volume, torch.zeros_like(labels))
    assert largest_difference(found.patches, empty.patches) < 1e-6
    assert largest_difference(found.regions, empty.regions) < 1e-6


def test_every_tensor_but_those_said_to_be_unused_takes_part_in_the_answers() -> None:
    encoder = small().train()
    volume, labels = a_volume(encoder)
    found = encoder(volume, labels)
    (found.pooled.square().sum() + found.patches.square().sum() + found.regions.square().sum()).backward()
    without = {name for name, parameter in encoder.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in encoder.named_parameters() if name.startswith(UNUSED)}
    assert all(bool(p.grad.abs().sum() > 0) for name, p in encoder.named_parameters() if name not in without)


def test_volumes_of_a_batch_do_not_mix() -> None:
    encoder = small()
    volume, labels = a_volume(encoder)
    with torch.inference_mode():
        both = encoder(volume, labels)
        alone = encoder(volume[1:], labels[1:])
    assert largest_difference(both.patches[1:], alone.patches) < 1e-6


def test_half_precision_answers_nearly_the_same() -> None:
    encoder = small()
    volume, labels = a_volume(encoder)
    with torch.inference_mode():
        whole = encoder(volume, labels).pooled
        half = encoder.bfloat16()(volume.bfloat16(), labels).pooled
    assert half.dtype == torch.bfloat16
    assert largest_difference(half.float(), whole) < 0.05


@pytest.mark.parametrize(
    ("shape", "labels", "said"),
    [
        ((1, 1, 12, 16, 15), None, "takes a batch of volumes"),
        ((1, 2, 12, 16, 16), None, "takes a batch of volumes"),
        ((12, 16, 16), None, "takes a batch of volumes"),
        ((1, 1, 12, 16, 16), torch.zeros(1, 12, 16, 15, dtype=torch.int64), "label map of regions has the shape"),
        ((1, 1, 12, 16, 16), torch.full((1, 12, 16, 16), 5), "knows 0 to 4"),
        ((1, 1, 12, 16, 16), torch.full((1, 12, 16, 16), -1), "holds -1"),
        ((1, 1, 12, 16, 16), torch.zeros(1, 12, 16, 16), "whole numbers"),
    ],
)
def test_what_the_encoder_cannot_take_is_said(shape: tuple[int, ...], labels: torch.Tensor | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        small()(torch.zeros(shape), labels)


@pytest.mark.parametrize(
    "wrong", [{"num_heads": 5}, {"planes": 7}, {"rows": 5}, {"planes": 48, "rows": 3}, {"planes": 0}, {"rows": -4}]
)
def test_an_encoder_that_cannot_be_is_not_made(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        Rect3D(**{**SMALL, "planes": 6, **wrong})


@pytest.mark.parametrize(
    ("tokens", "grid"), [(16384, (16, 32, 32)), (2048, (8, 16, 16)), (96, (6, 4, 4)), (7, (7, 1, 1))]
)
def test_patches_of_unknown_arrangement_lie_in_square_planes(tokens: int, grid: tuple[int, int, int]) -> None:
    assert likely_grid(tokens) == grid


def test_no_tensor_of_patches_by_patches_is_made() -> None:
    layer = SliceAwareAttention(16, 2, 33, 0.5).eval()
    patches = torch.randn(1, 32 * 16 * 16, 16)
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            nonlocal largest
            answer = function(*arguments, **(keywords or {}))
            if isinstance(answer, torch.Tensor):
                largest = max(largest, answer.untyped_storage().nbytes())
            return answer

    with torch.inference_mode(), Sizes():
        layer(patches, plane_steps(32, 33))
    assert 0 < largest <= 3 * patches.nbytes
    learning = patches[:, : 32 * 8 * 8]
    with Sizes():
        layer(learning, plane_steps(32, 33)).sum().backward()
    assert largest < learning.shape[1] ** 2 * 4
