"""Weight files of memory networks: loaded whole, or refused with the names of what does not fit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="memory networks need torch")

from model_files import write_hollow_safetensors  # noqa: E402
from stm_cases import FULL, KINDS, checkpoint_of, narrow  # noqa: E402

from MedAILib.errors import ConfigMismatch, InvalidWeights  # noqa: E402
from MedAILib.models.checkpoint import load_model_with_config, save_model_with_config  # noqa: E402
from MedAILib.models.config import Architecture, ModelConfig  # noqa: E402
from MedAILib.models.describe import describe  # noqa: E402
from MedAILib.models.infer import STM as KNOWN_STM  # noqa: E402
from MedAILib.models.tensors import file_sha256  # noqa: E402
from Mem3DPropagateLib.nets.stm import STM, parameter_count  # noqa: E402
from Mem3DPropagateLib.nets.stm_weights import check_tensors, load_stm  # noqa: E402

Shapes = dict[str, tuple[int, ...]]
MASK_TENSORS = {"background": "Encoder_M.conv1_bg.weight", "other-objects": "Encoder_M.conv1_o.weight"}


def shapes_of(variant: str, mask_input: str = "background") -> Shapes:
    return KNOWN_STM.expected_shapes({"variant": variant, "mask_input": mask_input, **FULL})


def _refused(shapes: Shapes) -> str:
    with pytest.raises(InvalidWeights) as caught:
        check_tensors(shapes, "weights.pth")
    assert "weights.pth" in caught.value.what
    return caught.value.details


def _damaged(shapes: Shapes, names: list[str]) -> Iterator[tuple[Shapes, list[str]]]:
    """The tensors with each of some removed, renamed and reshaped in turn, and the names that must be named."""
    for name in names:
        shape = shapes[name]
        others = {key: value for key, value in shapes.items() if key != name}
        yield others, [name]
        yield {**others, f"{name}_x": shape}, [name, f"{name}_x"]
        yield {**others, name: (*shape[:-1], shape[-1] + 1) if shape else (1,)}, [name]


@pytest.mark.parametrize(("variant", "mask_input"), KINDS)
def test_removing_renaming_or_reshaping_any_tensor_is_refused_with_its_name(variant: str, mask_input: str) -> None:
    shapes = shapes_of(variant, mask_input)
    check_tensors(shapes, "weights.pth")
    in_turn = [name for name in shapes if mask_input == "background" or name.startswith("Encoder_M.")]
    for damaged, names in _damaged(shapes, in_turn):
        details = _refused(damaged)
        lines = details.splitlines()
        assert len(lines) == len(names), details
        assert all(any(f"'{name}'" in line for line in lines) for name in names), details


def test_every_difference_is_named_not_only_the_first() -> None:
    plain, quality = shapes_of("plain"), shapes_of("quality")
    mixed = {**plain, **{name: shape for name, shape in quality.items() if name.startswith("res5.")}}
    lines = _refused(mixed).splitlines()
    missing = quality.keys() - mixed.keys()
    extra = mixed.keys() - quality.keys()
    assert {line.split("'")[1] for line in lines} == missing | extra


def test_the_message_names_what_matters_and_says_what_the_file_resembles() -> None:
    shapes = shapes_of("aspp")
    del shapes["Encoder_M.conv1_bg.weight"]
    with pytest.raises(
        InvalidWeights, match=r"resembles stm with variant=aspp .*'Encoder_M.conv1_bg.weight'"
    ) as caught:
        check_tensors(shapes, "weights.pth")
    assert "1 of its tensors" in caught.value.what


def test_another_network_is_no_memory_network() -> None:
    with pytest.raises(InvalidWeights, match="holds no space-time memory network"):
        check_tensors({"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048)}, "resnet.pth")


@pytest.mark.parametrize(
    ("training", "prefix", "new_kind"),
    [(False, "", True), (True, "module.", False), (False, "module.", False), (True, "", True)],
    ids=["bare", "training, data-parallel, old", "bare, data-parallel, old", "training"],
)
@pytest.mark.parametrize(("variant", "mask_input"), KINDS[:3] + KINDS[4:5])
def test_every_kind_of_file_loads_with_every_tensor_from_it(
    tmp_path: Path, variant: str, mask_input: str, training: bool, prefix: str, new_kind: bool
) -> None:
    network, path = narrow(variant, mask_input, seed=5), tmp_path / "mit Raum ü.pth"
    content = checkpoint_of(network.state_dict(), prefix=prefix, training=training)
    torch.save(content, path, _use_new_zipfile_serialization=new_kind)
    found = load_stm(path)
    assert (found.network.variant, found.network.mask_input) == (variant, mask_input)
    assert not found.network.training
    for name, tensor in found.network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name
    assert found.sha256 == file_sha256(path)
    assert "$.inputs[0].normalisation" in found.config.assumed


@pytest.mark.parametrize(
    ("variant", "parameters"), [("plain", 38_925_570), ("aspp", 47_121_410), ("quality", 73_591_763)]
)
def test_files_of_the_published_size_load(tmp_path: Path, variant: str, parameters: int) -> None:
    with torch.device("meta"):
        shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in STM(variant).state_dict().items()}
    state = {name: torch.full(shape, 0.01, dtype=dtype) for name, (shape, dtype) in shapes.items()}
    state["Decoder.pred2.bias"] = torch.tensor([1.5, -2.5])
    training, path = variant != "plain", tmp_path / "weights.pth"
    torch.save(checkpoint_of(state, prefix="module." * training, training=training), path)
    del state
    found = load_stm(path)
    path.unlink()
    assert parameter_count(found.network) == parameters
    assert found.network.Decoder.pred2.bias.tolist() == [1.5, -2.5]
    assert found.network.variant == variant


@pytest.mark.parametrize("mask_input", MASK_TENSORS)
def test_a_file_never_loads_into_the_other_family(tmp_path: Path, mask_input: str) -> None:
    path = write_hollow_safetensors(tmp_path / "weights.safetensors", shapes_of("plain", mask_input))
    other = next(name for name in MASK_TENSORS if name != mask_input)
    with pytest.raises(ConfigMismatch, match=MASK_TENSORS[other]):
        load_model_with_config(path, STM, parameters={"mask_input": other})
    assert describe(path).config.architecture.parameters["mask_input"] == mask_input


def test_both_families_in_one_file_are_refused() -> None:
    shapes = {**shapes_of("plain"), MASK_TENSORS["other-objects"]: (64, 1, 7, 7)}
    assert _refused(shapes).splitlines() == [
        "tensor 'Encoder_M.conv1_o.weight' of shape 64x1x7x7 is in the file, none of that name is expected"
    ]


def test_a_file_with_one_tensor_missing_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    state = narrow().state_dict()
    del state["Encoder_M.conv1_bg.weight"]
    torch.save(checkpoint_of(state, prefix="module.", training=True), tmp_path / "weights.pth")
    with pytest.raises(InvalidWeights, match=r"Encoder_M\.conv1_bg\.weight"):
        load_stm(tmp_path / "weights.pth")


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = narrow().state_dict()
    state["KV_Q_r4.Key.bias"][3] = float("nan")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InvalidWeights, match=r"KV_Q_r4.Key.bias\."):
        load_stm(tmp_path / "weights.pth")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    state = {**narrow().state_dict(), "callback": time.sleep}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InvalidWeights, match="time"):
        load_stm(tmp_path / "weights.pth")


def test_weights_of_ones_own_training_come_back_with_their_description(tmp_path: Path) -> None:
    network = narrow("quality")
    config = ModelConfig("my-stm", "stm", Architecture("stm", {"keydim": 16, "valdim": 32}), title="Mine")
    save_model_with_config(network, tmp_path / "mine.safetensors", config)
    found = load_stm(tmp_path / "mine.safetensors")
    assert (found.name, found.config.title) == ("my-stm", "Mine")
    assert found.config.architecture.parameters["variant"] == "quality"
    assert "variant=quality" in found.text


def test_a_description_of_no_known_variant_is_not_valid() -> None:
    config = ModelConfig("my-stm", "stm", Architecture("stm", {"variant": "large", "mask_input": 3}))
    with pytest.raises(InvalidWeights, match=r"variant must be one of plain, aspp, quality, not \"large\""):
        _ = config.text
