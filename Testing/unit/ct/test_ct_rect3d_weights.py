"""ReCT weight files: loaded whole, or refused with the names of what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the encoder needs torch")

from model_files import write_hollow_safetensors  # noqa: E402
from rect3d_cases import SMALL, a_volume, small, some_features  # noqa: E402

from CTReportLib.nets.heads import PromptClassifier  # noqa: E402
from CTReportLib.nets.rect3d import Rect3D  # noqa: E402
from CTReportLib.nets.rect3d_weights import check_encoder, load_rect3d, load_rect3d_classifier  # noqa: E402
from MedAILib.errors import ConfigMismatch, InvalidWeights  # noqa: E402
from MedAILib.models.checkpoint import save_model_with_config  # noqa: E402
from MedAILib.models.config import Architecture, ModelConfig  # noqa: E402
from MedAILib.models.describe import describe  # noqa: E402
from MedAILib.models.infer import RECT3D  # noqa: E402
from MedAILib.models.tensors import file_sha256  # noqa: E402

State = dict[str, torch.Tensor]
PATCHES = "patch_embed.proj.weight"
"""The only tensor that tells the size of a patch: reshaped, it is that of another encoder."""


def a_config(**parameters: int) -> ModelConfig:
    return ModelConfig(id="rect3d-small", family="chest-ct-encoder", architecture=Architecture("rect3d", parameters))


def a_checkpoint(encoder: Rect3D, classifier: PromptClassifier | None = None, prefix: str = "") -> dict[str, object]:
    """As the published training leaves it: all parts in one state, with a language model among them."""
    state = {f"vision_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    if classifier is not None:
        state |= {f"classification_head.{name}": tensor for name, tensor in classifier.state_dict().items()}
        state["classification_head.text_encoder.embeddings.weight"] = torch.zeros(7, 3)
    state["report_generator.vision_projector.visual_queries"] = torch.zeros(1, 4, 24)
    named = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    return {"epoch": 3, "model_state_dict": named, "metrics": {"auc": 0.5}, "phase": 2}


def assert_same(found: torch.nn.Module, state: State) -> None:
    assert found.state_dict().keys() == state.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_saved_encoder_comes_back_with_its_description_and_its_answers(tmp_path: Path) -> None:
    encoder, path = small(planes=24), tmp_path / "mit Raum ü.safetensors"  # not the planes one would guess
    save_model_with_config(encoder, path, a_config(planes=24))
    found = load_rect3d(path)
    assert_same(found.network, encoder.state_dict())
    assert found.network.grid == (24, 2, 2)
    assert found.sha256 == file_sha256(path)
    assert not found.network.training
    assert found.config is not None
    assert found.config.get_model_params() == {**SMALL, "planes": 24}
    volume, labels = a_volume(encoder)
    with torch.inference_mode():
        assert torch.equal(found.network(volume, labels).pooled, encoder(volume, labels).pooled)


@pytest.mark.parametrize("new_kind", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_bare_tensors_load_and_what_they_do_not_tell_is_marked_assumed(
    tmp_path: Path, prefix: str, new_kind: bool
) -> None:
    encoder, path = small(), tmp_path / "weights.pth"
    state = {f"{prefix}{name}": tensor for name, tensor in encoder.state_dict().items()}
    torch.save(state, path, _use_new_zipfile_serialization=new_kind)
    found = load_rect3d(path)
    assert_same(found.network, encoder.state_dict())
    assert found.config is not None
    assert found.config.inputs[0].size == (12, 16, 16)
    assert {"$.inputs[0].size", "$.inputs[0].normalisation"} <= set(found.config.assumed)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_encoder_and_classifier_are_read_out_of_a_training_checkpoint(tmp_path: Path, prefix: str) -> None:
    encoder, path = small(), tmp_path / "best_model.pt"
    torch.manual_seed(3)
    classifier = PromptClassifier(24, 10, 16, 18, live=False).eval()
    classifier.disease_text_embeds.normal_()
    torch.save(a_checkpoint(encoder, classifier, prefix), path)
    assert_same(load_rect3d(path).network, encoder.state_dict())
    found = load_rect3d_classifier(path)
    assert_same(found.network, classifier.state_dict())
    features = some_features()
    assert torch.equal(found.network(features), classifier(features))
    assert not any(parameter.requires_grad for parameter in found.network.parameters())


def _damaged(state: State) -> Iterator[tuple[str, Callable[[State], State], list[str]]]:
    yield from (
        ("one missing", lambda s: {k: v for k, v in s.items() if k != "norm.bias"}, ["norm.bias"]),
        ("one too many", lambda s: {**s, "blocks.0.extra": torch.zeros(2)}, ["blocks.0.extra"]),
        ("one of another shape", lambda s: {**s, "norm.bias": torch.zeros(7)}, ["norm.bias"]),
        (
            "a block gone",
            lambda s: {k: v for k, v in s.items() if not k.startswith("blocks.0.")},
            [name for name in state if name.startswith("blocks.0.")],
        ),
    )


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("part", ["", "vision_encoder."])
def test_every_tensor_that_does_not_fit_is_named_and_nothing_is_loaded(tmp_path: Path, part: str, kind: int) -> None:
    state = dict(small().state_dict())
    _, damage, names = list(_damaged(state))[kind]
    content = {f"{part}{name}": tensor for name, tensor in damage(state).items()}
    torch.save({"model_state_dict": content}, tmp_path / "weights.pth")
    with pytest.raises(InvalidWeights) as caught:
        load_rect3d(tmp_path / "weights.pth")
    lines = caught.value.details.splitlines()
    assert [line.split("'")[1] for line in lines] == names
    assert f"{len(names)} of its tensors" in caught.value.what


def test_removing_or_reshaping_any_tensor_of_the_published_encoder_is_refused_with_its_name() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Rect3D().state_dict().items()}
    assert check_encoder(shapes, "weights.pth")["depth"] == 12
    for name, shape in shapes.items():
        without = {key: value for key, value in shapes.items() if key != name}
        reshaped = {**shapes, name: (*shape[:-1], shape[-1] + 1) if shape else (1,)}
        for damaged in (without,) if name == PATCHES else (without, reshaped):
            with pytest.raises(InvalidWeights) as caught:
                check_encoder(damaged, "weights.pth")
            told = caught.value.details or caught.value.text
            assert name in told


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    encoder = small()
    with torch.no_grad():
        encoder.norm.weight[3] = float("nan")
    for content in (encoder.state_dict(), a_checkpoint(encoder)):
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(InvalidWeights, match=r"norm\.weight"):
            load_rect3d(tmp_path / "weights.pth")


def test_another_network_is_no_encoder_and_no_classifier(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(4, 3, 7, 7)}, tmp_path / "resnet.pth")
    with pytest.raises(InvalidWeights, match="holds no ReCT encoder"):
        load_rect3d(tmp_path / "resnet.pth")
    with pytest.raises(InvalidWeights, match="holds no classifier"):
        load_rect3d_classifier(tmp_path / "resnet.pth")


def test_a_classifier_with_one_tensor_missing_is_refused_with_its_name(tmp_path: Path) -> None:
    content = a_checkpoint(small(), PromptClassifier(24, 10, 16, 18, live=False))
    del content["model_state_dict"]["classification_head.soft_prompts"]  # type: ignore[attr-defined]
    torch.save(content, tmp_path / "best_model.pt")
    with pytest.raises(InvalidWeights, match="soft_prompts"):
        load_rect3d_classifier(tmp_path / "best_model.pt")


def test_a_description_that_contradicts_the_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ConfigMismatch):
        save_model_with_config(small(), path, a_config(depth=3))
    assert not path.exists()


def test_a_hollow_file_of_the_published_size_is_described_from_its_header(tmp_path: Path) -> None:
    shapes = RECT3D.expected_shapes(check_encoder_parameters())
    found = describe(write_hollow_safetensors(tmp_path / "rect.safetensors", shapes)).config
    assert found.architecture.name == "rect3d"
    assert found.inputs[0].size == (64, 512, 512)
    assert (found.inputs[0].normalisation.lower, found.inputs[0].normalisation.upper) == (-160.0, 240.0)
    assert found.heads == ()


def check_encoder_parameters() -> dict[str, int]:
    with torch.device("meta"):
        return check_encoder({name: tuple(t.shape) for name, t in Rect3D().state_dict().items()}, "published")
