"""Folders with language models: what may be loaded, and the clear error for each thing that may not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_language as tiny
import torch
from language_cases import a_projector, save_moved_adapter, save_whole
from safetensors.torch import load_file, save_file

from CTReportLib.language.basefolder import read_base
from CTReportLib.language.boundfiles import files_of
from CTReportLib.language.families import FAMILIES, GEMMA, LLAMA, QWEN
from CTReportLib.language.folder import describe_language_model, read_language_folder
from CTReportLib.language.loading import load_base, load_language_model
from CTReportLib.language.lora import with_adapter
from CTReportLib.language.projector import describe_projector, save_projector
from MedAILib.errors import ConfigMismatch, FileMissing, InputError, InvalidWeights, MedAIError, MissingPackage
from MedAILib.models.config import FileRole


@pytest.fixture(scope="module")
def a_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("bäse of a model") / "llama")


@pytest.fixture(scope="module")
def a_whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whole(tmp_path_factory.mktemp("whole ö") / "model")


@pytest.fixture
def base(a_base: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(a_base, tmp_path / "base"))


@pytest.fixture
def whole(a_whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(a_whole, tmp_path / "model"))


def refused(kind: type[MedAIError], *words: str, call: Callable[[], object]) -> MedAIError:
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in caught.value.text, caught.value.text
    assert caught.value.todo or caught.value.why
    return caught.value


def test_a_folder_around_base_adapter_and_projector_is_read_from_its_headers(a_whole: Path) -> None:
    found = read_language_folder(a_whole)
    assert found.id == "tiny-language"
    assert found.base.family is LLAMA
    assert found.base.width == tiny.SHAPE["hidden_size"]
    assert found.base.stop_ids == (2,)
    assert found.adapter is not None
    assert found.projector is not None


def test_a_folder_as_it_comes_from_a_hub_is_taken_as_the_base_alone(a_base: Path) -> None:
    found = read_language_folder(a_base)
    assert (found.id, found.adapter, found.projector) == ("llama", None, None)
    assert found.base.path == a_base


def test_reading_a_folder_loads_no_framework(a_whole: Path) -> None:
    code = (
        "import sys; from CTReportLib.language.folder import read_language_folder as read;"
        "from CTReportLib.language.memory import estimate;"
        f"read({str(a_whole)!r}); estimate({str(a_whole)!r});"
        "print(sorted({'torch', 'transformers', 'peft', 'tokenizers', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_every_type_of_every_family_is_known_and_its_layers_are_there(kind: str, tmp_path: Path) -> None:
    base = read_base(tiny.save_base(tmp_path / kind, kind))
    assert kind in base.family.model_types
    changed = with_adapter(tiny.a_network(kind), base.family, rank=2, alpha=4)
    reached = {name.split(".")[-4] for name, _ in changed.named_parameters() if "lora_A" in name}
    assert reached == set(base.family.lora_targets)


def test_the_families_are_those_of_the_published_design() -> None:
    assert FAMILIES == (LLAMA, GEMMA, QWEN)
    assert {kind for family in FAMILIES for kind in family.model_types} == set(tiny.KINDS)
    assert LLAMA.lora_targets == ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert GEMMA.lora_targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert QWEN.lora_targets == ("q_proj", "v_proj", "o_proj")


def test_a_missing_folder_or_part_of_it_is_named(base: Path, tmp_path: Path) -> None:
    refused(FileMissing, "nowhere", call=lambda: read_language_folder(tmp_path / "nowhere"))
    (base / "tokenizer.json").unlink()
    refused(FileMissing, "has no tokenizer", "tokenizer.json", call=lambda: read_base(base))
    (base / "tokenizer.model").write_bytes(b"sentencepiece")
    refused(FileMissing, "tokenizer.model", call=lambda: read_base(base))
    (base / "model.safetensors").unlink()
    shutil.copy(base / "config.json", base / "tokenizer.json")
    refused(FileMissing, "no weights", call=lambda: read_base(base))
    (base / "config.json").unlink()
    refused(FileMissing, "config.json", call=lambda: read_base(base))


def test_a_tokenizer_that_is_none_or_of_another_model_is_refused(base: Path) -> None:
    tiny.a_tokenizer(["and many more words than this model knows"], words=600).save(str(base / "tokenizer.json"))
    refused(InvalidWeights, "another model", call=lambda: load_language_model(base))
    (base / "tokenizer.json").write_text('{"version": "1.0"}', encoding="utf-8")
    refused(InvalidWeights, "no tokenizer", call=lambda: load_language_model(base))
    (base / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    refused(InvalidWeights, "Git LFS pointer", call=lambda: read_base(base))


def test_pickled_weights_are_refused_and_never_opened(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    refused(InvalidWeights, "pytorch_model.bin", "run code", "safetensors", call=lambda: read_base(base))


def test_a_model_that_needs_code_of_its_own_is_refused(base: Path) -> None:
    tiny.change_json(base / "config.json", model_type="clever", auto_map={"AutoModelForCausalLM": "own.Clever"})
    (base / "own.py").write_text("raise SystemExit('this code ran')", encoding="utf-8")
    refused(InvalidWeights, "auto_map", "clever", call=lambda: load_language_model(base))
    tiny.change_json(base / "config.json", auto_map=None)
    refused(InvalidWeights, "no known family", "clever", "llama", call=lambda: read_base(base))
    tiny.change_json(base / "config.json", model_type="gemma3")
    refused(InvalidWeights, "gemma3_text", call=lambda: read_base(base))
    tiny.change_json(base / "config.json", model_type=None)
    refused(InvalidWeights, "no model_type", call=lambda: read_base(base))


def test_code_beside_a_model_of_a_known_type_is_not_run(base: Path) -> None:
    tiny.change_json(base / "config.json", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    (base / "own.py").write_text("raise SystemExit('this code ran')", encoding="utf-8")
    assert type(load_base(read_base(base))).__name__ == "LlamaForCausalLM"


def test_quantised_or_endless_models_and_broken_settings_are_refused(base: Path) -> None:
    tiny.change_json(base / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    refused(InvalidWeights, "quantised", call=lambda: read_base(base))
    tiny.change_json(base / "config.json", quantization_config=None, eos_token_id=None)
    tiny.change_json(base / "generation_config.json", eos_token_id=None)
    refused(InvalidWeights, "ends a text", call=lambda: read_base(base))
    tiny.change_json(base / "generation_config.json", eos_token_id=[2, 7])
    assert read_base(base).stop_ids == (2, 7)
    tiny.change_json(base / "config.json", num_attention_heads=5)
    refused(InvalidWeights, "cannot be loaded", call=lambda: load_base(read_base(base)))
    (base / "config.json").write_text("{", encoding="utf-8")
    refused(InvalidWeights, "not JSON", call=lambda: read_base(base))


def test_weights_that_are_not_exactly_those_of_the_network_are_refused_by_name(base: Path) -> None:
    whole = load_file(base / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    for change, word in (
        ({key: value for key, value in whole.items() if key != name}, "does not have it"),
        ({**whole, name: whole[name][:-1].clone()}, "95x48"),
        ({**whole, "model.layers.2.extra.weight": torch.zeros(2)}, "none of that name is expected"),
    ):
        save_file(change, base / "model.safetensors")
        refused(InvalidWeights, word, call=lambda: load_base(read_base(base)))
    save_file({**whole, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(6)}, base / "model.safetensors")
    load_base(read_base(base))
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[: len(content) // 2])
    refused(InvalidWeights, "model.safetensors", call=lambda: read_base(base))


def test_weights_in_several_files_must_all_be_there(base: Path) -> None:
    network = load_base(read_base(base))
    (base / "model.safetensors").unlink()
    tiny.quietly_saved(network, base, max_shard_size="150KB")
    parts = sorted(base.glob("model-*.safetensors"))
    assert len(parts) > 1
    again = load_base(read_base(base))
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    index = json.loads((base / "model.safetensors.index.json").read_text(encoding="utf-8"))
    parts[0].rename(base / "elsewhere")
    refused(FileMissing, "1 of", parts[0].name, call=lambda: read_base(base))
    index["weight_map"]["model.norm.weight"] = "../outside.safetensors"
    (base / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    refused(InvalidWeights, "../outside.safetensors", call=lambda: read_base(base))


def test_an_adapter_for_another_model_is_refused_with_both_shapes(whole: Path, tmp_path: Path) -> None:
    shutil.rmtree(whole / "adapter")
    save_moved_adapter(whole / "adapter", tiny.a_network(hidden_size=64, intermediate_size=96))
    refused(ConfigMismatch, "lora_B", "64x4", "48x96", "another model", call=lambda: read_language_folder(whole))
    shutil.rmtree(whole / "adapter")
    save_moved_adapter(whole / "adapter", tiny.a_network(num_hidden_layers=3))
    refused(ConfigMismatch, "layers.2", "does not have", call=lambda: read_language_folder(whole))


def test_adapters_that_are_no_plain_ones_are_refused(whole: Path) -> None:
    for changed, word in (
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "whole layers"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"peft_type": "IA3"}, "IA3"),
    ):
        before = (whole / "adapter" / "adapter_config.json").read_text(encoding="utf-8")
        tiny.change_json(whole / "adapter" / "adapter_config.json", **changed)
        refused(InvalidWeights, word, call=lambda: read_language_folder(whole))
        (whole / "adapter" / "adapter_config.json").write_text(before, encoding="utf-8")
    weights = whole / "adapter" / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "base_model.model.lm_head.weight": torch.zeros(3)}, weights)
    refused(ConfigMismatch, "lm_head", call=lambda: read_language_folder(whole))
    save_file(dict(list(tensors.items())[1:]), weights)
    refused(InvalidWeights, "does not have it", call=lambda: load_language_model(whole))
    weights.rename(whole / "adapter" / "adapter_model.bin")
    refused(InvalidWeights, "adapter_model.bin", "run code", call=lambda: read_language_folder(whole))
    (whole / "adapter" / "adapter_model.bin").unlink()
    refused(FileMissing, "adapter_model.safetensors", call=lambda: read_language_folder(whole))


def test_a_projector_of_another_width_is_refused_with_both_widths(whole: Path) -> None:
    path = whole / "projector" / "projector.safetensors"
    other = a_projector(64)
    save_projector(other, path, describe_projector("other", other))
    error = refused(ConfigMismatch, "64", "48", "language model", call=lambda: read_language_folder(whole))
    assert "train" in error.todo
    save_file({"something": torch.zeros(2)}, path)
    refused(InvalidWeights, "no visual projector", call=lambda: read_language_folder(whole))


def test_descriptions_with_unknown_or_wrong_settings_are_refused(whole: Path) -> None:
    path = whole / "model_config.json"
    whole_text = path.read_text(encoding="utf-8")

    def with_parameters(**changed: object) -> None:
        content = json.loads(whole_text)
        content["architecture"]["parameters"] |= changed
        path.write_text(json.dumps(content), encoding="utf-8")

    for changed, word in (
        ({"temperature": 1}, "'temperature' is not known"),
        ({"dtype": "int4"}, "int4"),
        ({"quantization": "nf4"}, "nf4"),
        ({"prompt_tokens": 0}, "below 1"),
        ({"adapter": None}, "adapter must be a text"),
    ):
        with_parameters(**changed)
        refused(InvalidWeights, word, call=lambda: read_language_folder(whole))
    path.write_text(whole_text.replace("ct_language_model", "stm"), encoding="utf-8")
    refused(InvalidWeights, "no language model", call=lambda: read_language_folder(whole))


def test_a_description_can_be_bound_to_everything_a_text_rests_on(whole: Path) -> None:
    found = read_language_folder(whole)
    files = files_of(found)
    assert {entry.path for entry in files if entry.role is FileRole.WEIGHTS} == {
        "base/model.safetensors", "adapter/adapter_model.safetensors", "projector/projector.safetensors",
    }  # fmt: skip
    assert {"base/tokenizer.json", "base/config.json"} <= {entry.path for entry in files}
    describe_language_model("bound", found.settings, files=files).save(whole)
    model = load_language_model(whole)
    assert dict(model.used)["bound/adapter"] == next(one.sha256 for one in files if "adapter_model" in one.path)
    content = (whole / "base" / "tokenizer.json").read_bytes()
    (whole / "base" / "tokenizer.json").write_bytes(content.replace(b"detected", b"excluded", 1))
    refused(ConfigMismatch, "tokenizer.json", "another SHA-256", call=lambda: load_language_model(whole))


@pytest.mark.parametrize("package", ["transformers", "peft", "tokenizers"])
def test_a_package_that_is_not_installed_is_named(package: str, a_whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    error = refused(MissingPackage, package, call=lambda: load_language_model(a_whole))
    assert "ct-language" in error.todo


def test_a_device_that_is_not_there_is_refused(whole: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    refused(InputError, "cuda:0", call=lambda: load_language_model(whole, "cuda:0"))


def test_files_that_the_description_is_bound_to_must_have_their_sizes(whole: Path) -> None:
    content = json.loads((whole / "model_config.json").read_text(encoding="utf-8"))
    size = (whole / "base" / "model.safetensors").stat().st_size
    entry = {"path": "base/model.safetensors", "role": "weights", "format": "safetensors", "sha256": "0" * 64}
    content["files"] = [{**entry, "size": size}]
    (whole / "model_config.json").write_text(json.dumps(content), encoding="utf-8")
    read_language_folder(whole)
    refused(ConfigMismatch, "another SHA-256", call=lambda: load_language_model(whole))
    content["files"] = [{**entry, "size": size + 1}]
    (whole / "model_config.json").write_text(json.dumps(content), encoding="utf-8")
    refused(ConfigMismatch, "instead of", call=lambda: read_language_folder(whole))
