"""Features as tokens of a language model: the published shapes, files, widths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from language_cases import WIDTH, a_projector, some_features
from safetensors.torch import load_file, save_file

from CTReportLib.language.projector import VisualProjector, describe_projector, load_projector, save_projector
from MedAILib.errors import ConfigMismatch, InvalidWeights


@pytest.mark.parametrize(("llm_dim", "millions"), [(4096, 41.4), (4608, 46.3), (8192, 94.9)])
def test_it_has_the_published_number_of_parameters(llm_dim: int, millions: float) -> None:
    with torch.device("meta"):
        projector = VisualProjector(llm_dim=llm_dim)
    assert sum(one.numel() for one in projector.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert projector.tokens == 256


def test_its_tensors_have_the_published_names() -> None:
    names = set(a_projector(40).state_dict())
    own = {name for name in names if not name.startswith("cross_attn_layers.")}
    assert own == {"visual_queries", *(f"projector.{n}.{part}" for n in (0, 2, 3) for part in ("weight", "bias"))}
    assert {name.split(".")[1] for name in names - own} == {"0"}


def test_every_query_becomes_a_token_and_looks_at_the_patches() -> None:
    projector, features = a_projector(40), some_features(batch=3)
    tokens = projector(features)
    assert tokens.shape == (3, 8, 40)
    alone = projector(some_features(batch=3).__class__(
        pooled=features.pooled[1:2], patches=features.patches[1:2], grid=features.grid
    ))  # fmt: skip
    assert torch.allclose(tokens[1:2], alone, atol=1e-6)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-4
    assert (tokens[0, 0] - tokens[0, 1]).abs().max() > 1e-4


def test_the_order_of_patches_does_not_matter_and_each_of_them_does() -> None:
    projector, features = a_projector(40), some_features()
    tokens = projector(features)
    turned = type(features)(pooled=features.pooled, patches=features.patches.flip(1), grid=features.grid)
    assert torch.allclose(tokens, projector(turned), atol=1e-5)
    for patch in range(features.patches.shape[1]):
        patches = features.patches.clone()
        patches[:, patch] += 1
        changed = projector(type(features)(pooled=features.pooled, patches=patches, grid=features.grid))
        assert (changed - tokens).abs().max() > 1e-5


def test_it_is_saved_with_its_description_and_comes_back_the_same(tmp_path: Path) -> None:
    projector = a_projector(40)
    config = describe_projector("a-projector", projector, encoder_sha256="e" * 64)
    path = tmp_path / "projéctor file.safetensors"
    save_projector(projector, path, config)
    loaded = load_projector(path)
    assert torch.equal(loaded.network(some_features()), projector(some_features()))
    assert loaded.encoder_sha256 == "e" * 64
    assert loaded.config.id == "a-projector"
    assert not any(one.requires_grad for one in loaded.network.parameters())


def test_files_that_are_not_exactly_a_projector_are_refused(tmp_path: Path) -> None:
    projector = a_projector(40)
    path = tmp_path / "p.safetensors"
    save_projector(projector, path, describe_projector("p", projector))
    description = (tmp_path / "model_config.json").read_text(encoding="utf-8")
    whole = load_file(path)
    for spoiled, word in (
        ({name: tensor for name, tensor in whole.items() if name != "visual_queries"}, "visual_queries"),
        ({**whole, "more": torch.zeros(2)}, "more"),
        ({**whole, "visual_queries": whole["visual_queries"][:4].clone()}, "8x24"),
        ({**whole, "projector.0.bias": torch.full_like(whole["projector.0.bias"], torch.nan)}, "no numbers"),
    ):
        save_file(spoiled, path)
        (tmp_path / "model_config.json").write_text(_unbound(description), encoding="utf-8")
        with pytest.raises(InvalidWeights, match=word):
            load_projector(path)
    save_file(whole, path)
    (tmp_path / "model_config.json").write_text(_unbound(description).replace('"heads": 4', '"heads": 5'), "utf-8")
    with pytest.raises(InvalidWeights, match="cannot be built"):
        load_projector(path)
    (tmp_path / "model_config.json").write_text(_unbound(description).replace("ct_visual_projector", "stm"), "utf-8")
    with pytest.raises(InvalidWeights, match=r"no visual projector|does not fit"):
        load_projector(path)


def test_features_of_another_width_are_refused_with_both_widths() -> None:
    with pytest.raises(ConfigMismatch, match="24") as caught:
        a_projector(40)(some_features(width=WIDTH + 8))
    assert "32" in caught.value.text and "encoder" in caught.value.todo


def _unbound(description: str) -> str:
    import json

    return json.dumps(json.loads(description) | {"files": []})
