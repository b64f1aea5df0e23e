"""Adapters: training them alone teaches a language model, and what is saved, loaded and merged stays the same."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import tiny_language as tiny
import torch
from language_cases import moved
from language_training import CASES, Trained, a_trained_model, report_of
from safetensors.torch import load_file

from CTReportLib.language.adapterfolder import read_adapter
from CTReportLib.language.basefolder import read_base
from CTReportLib.language.families import FAMILIES, LLAMA, QWEN
from CTReportLib.language.loading import load_base
from CTReportLib.language.lora import load_adapter, merged, save_adapter, with_adapter
from CTReportLib.language.sequences import IGNORED, reading, reading_loss
from MedAILib.errors import ConfigError, InputError

IDS = torch.arange(3, 43).reshape(2, 20)


@pytest.fixture(scope="module")
def a_trained() -> Trained:
    return a_trained_model()


def logits(network) -> torch.Tensor:
    with torch.inference_mode():
        return network(input_ids=IDS).logits


def test_training_adapter_and_projector_alone_brings_the_loss_down_tenfold(a_trained: Trained) -> None:
    first, at_100 = sum(a_trained.losses[:10]) / 10, sum(a_trained.losses[90:100]) / 10
    assert at_100 < first / 10, (first, at_100)


def test_after_training_every_report_is_right_and_comes_to_its_end(a_trained: Trained) -> None:
    for case in CASES[::2]:
        assert a_trained.write(case) == (report_of(case), True)


def test_only_adapter_and_projector_learn(a_trained: Trained) -> None:
    untouched = tiny.a_network(
        words=a_trained.tokens.tokenizer.get_vocab_size(), hidden_size=64, intermediate_size=128, initializer_range=0.2
    )
    own = a_trained.network.get_base_model().state_dict()
    for name, tensor in untouched.state_dict().items():
        found = own.get(name, own.get(name.replace(".weight", ".base_layer.weight")))
        assert found is not None and torch.equal(found, tensor)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3_text", "qwen2", "qwen3_5_text"])
def test_an_adapter_is_saved_loaded_and_merged_without_changing_an_answer(kind: str, tmp_path: Path) -> None:
    base = read_base(tiny.save_base(tmp_path / "bäse", kind))
    plain = logits(load_base(base))
    changed = moved(with_adapter(load_base(base), base.family, rank=4, alpha=8, dropout=0.1)).eval()
    wanted = logits(changed)
    assert (wanted - plain).abs().max() > 0.01
    folder = save_adapter(changed, tmp_path / "an adapter")
    again = load_adapter(load_base(base), read_adapter(folder, base)).eval()
    assert torch.equal(logits(again), wanted)
    whole = merged(copy.deepcopy(again))
    assert torch.allclose(logits(whole), wanted, rtol=1e-5, atol=1e-5)
    assert type(whole) is type(load_base(base))
    tiny.quietly_saved(whole, tmp_path / "merged")
    (tmp_path / "bäse" / "tokenizer.json").rename(tmp_path / "merged" / "tokenizer.json")
    assert torch.allclose(logits(load_base(read_base(tmp_path / "merged"))), wanted, rtol=1e-5, atol=1e-5)


def test_a_saved_adapter_holds_only_its_own_tensors(tmp_path: Path) -> None:
    changed = with_adapter(tiny.a_network(), LLAMA, rank=4, alpha=8)
    save_adapter(changed, tmp_path / "adapter")
    assert sorted(file.name for file in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * len(LLAMA.lora_targets)
    assert all(".lora_A." in name or ".lora_B." in name for name in tensors)


def test_a_saved_adapter_does_not_tell_whose_folder_the_model_was_in(tmp_path: Path) -> None:
    base = read_base(tiny.save_base(tmp_path / "a person" / "llama"))
    save_adapter(with_adapter(load_base(base), LLAMA, rank=2, alpha=4), tmp_path / "adapter")
    text = (tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8")
    assert "a person" not in text and '"base_model_name_or_path": "llama"' in text


def test_a_new_adapter_changes_nothing_and_alone_has_gradients() -> None:
    for family in FAMILIES:
        network = tiny.a_network(family.model_types[0])
        plain = logits(network)
        changed = with_adapter(network, family, rank=2, alpha=4).eval()
        assert torch.equal(logits(changed), plain)
        assert all(("lora_" in name) == one.requires_grad for name, one in changed.named_parameters())


def test_adapters_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ConfigError, match="Rank 0"):
        with_adapter(tiny.a_network(), QWEN, rank=0)
    with pytest.raises(ConfigError, match="no layers of the family"):
        with_adapter(torch.nn.Sequential(torch.nn.Linear(2, 2)), QWEN)
    for use in (merged, lambda network: save_adapter(network, "nowhere")):
        with pytest.raises(InputError, match="no adapter"):
            use(tiny.a_network())


def test_in_training_neither_picture_nor_prompt_nor_padding_counts() -> None:
    network = tiny.a_network()
    visual = torch.randn(2, 4, tiny.SHAPE["hidden_size"])
    batch = reading(network, [[5, 6, 7], [8]], visual, [[9, 10, 2], [11, 2]])
    assert batch.mask.tolist() == [[1] * 10, [0] * 3 + [1] * 7]
    assert batch.labels.tolist() == [
        [IGNORED] * 7 + [9, 10, 2],
        [IGNORED] * 8 + [11, 2],
    ]
    assert batch.positions[1].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert torch.equal(batch.embeddings[1, 3:7], visual[1])
    alone = [
        reading(network, [prompt], visual[row : row + 1], [answer])
        for row, (prompt, answer) in enumerate((([5, 6, 7], [9, 10, 2]), ([8], [11, 2])))
    ]
    with torch.inference_mode():
        together = reading_loss(network, batch)
        each = [reading_loss(network, one) for one in alone]
    assert together.item() == pytest.approx((3 * each[0] + 2 * each[1]).item() / 5, abs=1e-5)
