"""The memory networks: the published tensors, and the answers of the formulas written out plainly."""

from __future__ import annotations

import hashlib

import pytest

torch = pytest.importorskip("torch", reason="memory networks need torch")

from stm_cases import FULL, KINDS, NARROW, a_frame, discs, narrow  # noqa: E402
from stm_literal import LiteralStm  # noqa: E402

from MedAILib.models.infer import KNOWN, recognise  # noqa: E402
from Mem3DPropagateLib.nets.stm import STM, aggregated, folded, parameter_count  # noqa: E402
from Mem3DPropagateLib.nets.stm_fill import fill  # noqa: E402
from Mem3DPropagateLib.nets.stm_memory import Memory, read  # noqa: E402

PUBLISHED = {
    "plain": (558, 38_925_570, "44a03fe0c681e2aab9126e2a08423b5f1278f7ef3d96a61b0640f9010c518b0a"),
    "aspp": (593, 47_121_410, "3fd8850eeecc7173f4b431b1013f0ab7b51a1ffae524238358aa924469db7959"),
    "quality": (658, 73_591_763, "af7dc659a876f548399e4035f54897826c2da9bc41c19ee7319af70bccbbcb90"),
}
"""Tensors, parameters, and the SHA-256 of ``name 64x1x7x7`` by name, a line each, of the published networks."""

NARROW_ANSWERS = {
    ("plain", "background"): [0.566595, 0.665967, 0.668891, 0.554962, 0.687177, 0.659346],
    ("plain", "other-objects"): [0.563405, 0.756882, 0.702381, 0.64632, 0.778468, 0.77337],
    ("aspp", "background"): [0.601911, 0.718875, 0.706061, 0.601508, 0.786484, 0.730836],
    ("aspp", "other-objects"): [0.603764, 0.79282, 0.753788, 0.691813, 0.861423, 0.814845],
}
FULL_ANSWERS = {
    "background": [0.506024, 0.470266, 0.460243, 0.428898, 0.511427, 0.574179],
    "other-objects": [0.450129, 0.430121, 0.48965, 0.455551, 0.207112, 0.308034],
}
"""Of the first object at rows 0 and 40 and columns 0, 40 and 80, for networks filled by rule with the seed 0."""


@pytest.mark.parametrize("variant", PUBLISHED)
def test_tensors_and_parameters_are_those_of_the_published_networks(variant: str) -> None:
    with torch.device("meta"):
        network = STM(variant)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    lines = "\n".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
    found = (len(shapes), parameter_count(network), hashlib.sha256(lines.encode()).hexdigest())
    assert found == PUBLISHED[variant]


@pytest.mark.parametrize(("variant", "mask_input"), KINDS)
@pytest.mark.parametrize("size", [FULL, NARROW], ids=["full", "narrow"])
def test_the_weights_manager_knows_every_tensor_of_the_network(
    variant: str, mask_input: str, size: dict[str, int]
) -> None:
    parameters = {"variant": variant, "mask_input": mask_input, **size}
    with torch.device("meta"):
        state = STM(**parameters).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert list(KNOWN["stm"].expected_shapes(parameters).items()) == list(shapes.items())
    for prefix in ("", "module."):
        found = recognise({f"{prefix}{name}": shape for name, shape in shapes.items()})
        assert found is not None
        assert (found.architecture.name, found.parameters) == ("stm", parameters)


def _answer(network: STM, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    frame, masks = a_frame(*size), discs(*size)
    with torch.inference_mode():
        memory = Memory.joined([network.memorise(frame, masks), network.memorise(1 - frame, masks * 0.5)])
        return network.segment(network.query(frame * 0.9), memory, size)


@pytest.mark.parametrize(("variant", "mask_input"), KINDS)
def test_answers_are_those_of_the_formulas_written_out(variant: str, mask_input: str) -> None:
    network = narrow(variant, mask_input)
    literal = LiteralStm(network.state_dict())
    frame, masks = a_frame(), discs()
    with torch.inference_mode():
        memories = literal.memorised(frame, masks), literal.memorised(1 - frame, masks * 0.5)
        keys, values = zip(*memories, strict=True)
        expected, _ = literal.segmented(frame * 0.9, keys, values)
        found = aggregated(_answer(network)).softmax(0)
        assert found.std() > 0.1  # there is something to compare
        assert (found - expected).abs().max() < 1e-5
        assert (aggregated(_answer(folded(network))).softmax(0) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("rows", "columns"), [(97, 130), (200, 233)])
def test_frames_may_have_any_size(rows: int, columns: int) -> None:
    network = narrow("aspp")
    literal = LiteralStm(network.state_dict())
    frame, masks = a_frame(rows, columns), discs(rows, columns)
    with torch.inference_mode():
        key, value = literal.memorised(frame, masks)
        expected, _ = literal.segmented(1 - frame, [key], [value])
        alone = network.segment(network.query(1 - frame), network.memorise(frame, masks), (rows, columns))
        assert (aggregated(alone).softmax(0) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("mask_input", ["background", "other-objects"])
def test_the_quality_is_the_published_one_at_512_pixels(mask_input: str) -> None:
    network = narrow("quality", mask_input)
    literal = LiteralStm(network.state_dict())
    frame, masks = a_frame(512, 512), discs(512, 512)[:1]
    with torch.inference_mode():
        key, value = literal.memorised(frame, masks)
        probabilities, deep = literal.segmented(1 - frame, [key], [value])
        query = network.query(1 - frame)
        winner = (probabilities.argmax(0) == 1)[None]
        assert 0 < winner.float().mean() < 1
        found = network.assess(query, winner, probabilities.amax(0))
        assert found.shape == (1,)
        assert abs(float(found) - float(literal.quality(deep, probabilities))) < 1e-6


def test_the_quality_head_answers_at_any_size_and_for_each_object() -> None:
    network = narrow("quality")
    with torch.inference_mode():
        query = network.query(a_frame(64, 112))
        found = network.assess(query, discs(64, 112), torch.full((64, 112), 0.8))
    assert found.shape == (2,)
    assert ((found > 0) & (found < 1)).all()
    assert found[0] != found[1]


@pytest.mark.parametrize(("kind", "expected"), NARROW_ANSWERS.items(), ids=lambda value: " ".join(map(str, value)))
def test_a_network_filled_by_rule_answers_these_numbers(kind: tuple[str, str], expected: list[float]) -> None:
    found = _answer(narrow(*kind))[0, ::40, ::40].flatten()
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("mask_input", FULL_ANSWERS)
def test_the_whole_published_network_filled_by_rule_answers_these_numbers(mask_input: str) -> None:
    network = STM("plain", mask_input).eval()
    fill(network)
    assert _answer(network)[0, ::40, ::40].flatten().tolist() == pytest.approx(FULL_ANSWERS[mask_input], abs=1e-4)


def test_another_seed_fills_another_network() -> None:
    assert (_answer(narrow(seed=1)) - _answer(narrow())).abs().max() > 0.01


def test_the_read_is_the_softmax_over_the_whole_memory() -> None:
    generator = torch.Generator().manual_seed(3)
    keys, values, key = (
        torch.randn(shape, generator=generator) for shape in ((2, 700, 16), (2, 700, 32), (1, 300, 16))
    )
    weights = (keys @ key.transpose(1, 2) / 4).softmax(1)
    assert torch.allclose(read(Memory(keys, values), key), weights.transpose(1, 2) @ values, atol=1e-5)


def test_background_is_where_no_object_is() -> None:
    logits = aggregated(torch.tensor([[[0.0, 0.9, 0.9, 1.0]], [[0.0, 0.2, 0.8, 1.0]]]))
    assert logits.argmax(0).tolist() == [[0, 1, 1, 1]]
    assert torch.allclose(logits[0].sigmoid(), torch.tensor([[1.0, 0.08, 0.02, 0.0]]), atol=1e-6)
    assert torch.isfinite(logits).all()


def test_an_object_is_remembered_beside_its_background_or_beside_the_others() -> None:
    frame, masks = a_frame(), discs()
    with torch.inference_mode():
        for mask_input, sees_others in (("background", False), ("other-objects", True)):
            network = narrow("plain", mask_input)
            together, alone = network.memorise(frame, masks), network.memorise(frame, masks[:1])
            assert torch.allclose(together.keys[0], alone.keys[0], atol=1e-5) != sees_others
