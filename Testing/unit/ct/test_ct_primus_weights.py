"""Primus weight files: of their own or inside larger models, whole, or refused with the names of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the encoder needs torch")
safetensors = pytest.importorskip("safetensors.torch", reason="weight files need safetensors")

from ct_models import an_encoder  # noqa: E402
from primus_cases import SMALL, by_rule, fill, small  # noqa: E402

from CTReportLib.layouts import axes_of, layout_of  # noqa: E402
from CTReportLib.nets.primus import Primus, SharedSpace  # noqa: E402
from CTReportLib.nets.primus_weights import load_primus  # noqa: E402
from CTReportLib.preprocess import PRIMUS_LAYOUT  # noqa: E402
from MedAILib.errors import InputError, InvalidWeights  # noqa: E402
from MedAILib.models.config import Architecture, ModelConfig  # noqa: E402
from MedAILib.models.describe import describe  # noqa: E402
from MedAILib.models.heads import Input  # noqa: E402

State = dict[str, torch.Tensor]
SLIM = {**SMALL, "embed_dim": 396, "depth": 1, "mlp_dim": 8, "patch_slices": 8, "patch_rows": 8, "patch_columns": 8}
"""Of a published width, so that its heads are known without a description."""


def slim() -> Primus:
    encoder = fill(Primus(**SLIM))
    assert isinstance(encoder, Primus)
    return encoder


def written(path: Path, state: State, prefix: str = "", **others: torch.Tensor) -> Path:
    named = {f"{prefix}{name}": tensor.contiguous() for name, tensor in state.items()}
    safetensors.save_file({**named, **{name.replace("__", "."): tensor for name, tensor in others.items()}}, str(path))
    return path


def colipri(path: Path, encoder: Primus, without: str = "") -> Path:
    """As COLIPRI names its tensors: encoder, projection and pooling, a text encoder, a temperature."""
    space = fill(SharedSpace(encoder.width, 128))
    state = {f"image_encoder.backbone.{name}": tensor for name, tensor in encoder.state_dict().items()}
    state |= {f"image_encoder.{name}": tensor for name, tensor in space.state_dict().items()}
    state |= {"text_encoder.backbone.embeddings.weight": torch.zeros(5, 3), "softmax_temperature": torch.tensor(1.0)}
    return written(path, {name: tensor for name, tensor in state.items() if name != without})


def test_a_saved_encoder_comes_back_with_its_description_and_its_answers(tmp_path: Path) -> None:
    found = load_primus(an_encoder("primus", tmp_path / "mit Raum ü.safetensors"))
    volume = by_rule("a volume", (1, 1, 8, 8, 12))
    with torch.inference_mode():
        assert torch.equal(found.network(volume).patches, small()(volume).patches)
    assert not found.network.training and not any(p.requires_grad for p in found.network.parameters())
    assert found.config is not None and found.config.id == "small-primus"


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_bare_file_is_read_as_published_and_that_is_marked_assumed(tmp_path: Path, prefix: str) -> None:
    path = written(tmp_path / "bare.safetensors", slim().state_dict(), prefix)
    found = load_primus(path)
    assert found.config is not None
    assert layout_of(found.config) == PRIMUS_LAYOUT
    assert axes_of(found.config) == "RAS" and "$.inputs[0].orientation" in found.config.assumed
    assert "primus" in str(describe(path))


def test_an_encoder_with_a_decoder_answers_as_without(tmp_path: Path) -> None:
    whole = fill(Primus(**{**SLIM, "decoder": "patches", "decoder_classes": 3}))
    volume = by_rule("a volume", (1, 1, 8, 16, 8))
    found = load_primus(written(tmp_path / "whole.safetensors", whole.state_dict()))
    with torch.inference_mode():
        assert torch.equal(found.network(volume).patches, slim()(volume).patches)


def test_the_encoder_inside_a_model_of_images_and_texts_comes_with_its_way_to_texts(tmp_path: Path) -> None:
    found = load_primus(colipri(tmp_path / "model.safetensors", slim()))
    volume = by_rule("a volume", (1, 1, 8, 16, 8))
    with torch.inference_mode():
        features = found.network(volume)
        assert torch.equal(features.patches, slim()(volume).patches)
        assert features.shared is not None
        assert torch.allclose(features.shared, fill(SharedSpace(396, 128))(features.patches))
    assert found.config is not None and axes_of(found.config) == "RAS"


def test_a_description_beside_a_larger_model_names_it_and_may_say_where_its_axes_run(tmp_path: Path) -> None:
    path = colipri(tmp_path / "model.safetensors", slim())
    image = Input(modality="CT", channels=("HU",), orientation="SAR")
    ModelConfig("ct-colipri", "f", Architecture("primus-m"), inputs=(image,)).save(tmp_path)
    found = load_primus(path)
    assert found.config is not None and found.config.id == "ct-colipri"
    assert axes_of(found.config) == "SAR" and layout_of(found.config) == PRIMUS_LAYOUT


def test_the_encoder_inside_a_language_model_lies_as_cts_are_prepared(tmp_path: Path) -> None:
    others = {"model__language_model__layers__0__weight": torch.zeros(2)}
    path = written(tmp_path / "m.safetensors", slim().state_dict(), "model.vision3d.sub_vision.", **others)
    found = load_primus(path)
    assert found.config is not None and axes_of(found.config) == "SPL"
    assert found.network.shared is None


def test_brain_floats_become_full_ones(tmp_path: Path) -> None:
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in slim().state_dict().items()}
    found = load_primus(written(tmp_path / "half.safetensors", halves, "model.vision3d.sub_vision."))
    assert {tensor.dtype for tensor in found.network.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("prefix", ["", "model.vision3d.sub_vision."])
def test_a_missing_tensor_is_named(tmp_path: Path, prefix: str) -> None:
    state = slim().state_dict()
    del state["eva.blocks.0.attn.k_proj.weight"]
    with pytest.raises(InvalidWeights, match=r"eva\.blocks\.0\.attn\.k_proj\.weight"):
        load_primus(written(tmp_path / "holed.safetensors", state, prefix))


def test_a_missing_part_of_the_projection_is_named(tmp_path: Path) -> None:
    path = colipri(tmp_path / "model.safetensors", slim(), without="image_encoder.pooler.attn.out_proj.bias")
    with pytest.raises(InvalidWeights, match=r"pooler\.attn\.out_proj\.bias"):
        load_primus(path)


@pytest.mark.parametrize("prefix", ["", "model.vision3d.sub_vision."])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, prefix: str) -> None:
    state = slim().state_dict()
    state["eva.norm.bias"] = torch.full((396,), float("nan"))
    with pytest.raises(InvalidWeights, match="no numbers"):
        load_primus(written(tmp_path / "nan.safetensors", state, prefix))


def test_a_file_of_something_else_and_one_with_two_encoders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match="no Primus encoder"):
        load_primus(written(tmp_path / "other.safetensors", {"weight": torch.zeros(3)}))
    twice = {f"{name}.{key}": t for name in ("student", "teacher") for key, t in slim().state_dict().items()}
    with pytest.raises(InvalidWeights, match=r"several Primus encoders.*student"):
        load_primus(written(tmp_path / "two.safetensors", twice))


def test_heads_that_nobody_stated_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="num_heads"):
        load_primus(written(tmp_path / "narrow.safetensors", small().state_dict()))
