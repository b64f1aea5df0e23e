"""Language models small enough for tests, made in code and saved as published ones are; nothing is fetched.

Their weights are random. What they write means nothing until a test trains them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: a test that would fetch must fail

import pytest
import torch

for _package in ("transformers", "peft", "tokenizers"):
    pytest.importorskip(_package, reason=f"language models need the package {_package}, which is not installed")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402

torch.set_num_threads(1)  # more only wait for each other with networks as small as these

BEGIN, STOP, PAD = "<s>", "</s>", "<pad>"
PHRASES = (
    "[FINDING] Pleural effusion detected in lower left region",
    "[FINDING] Cardiomegaly detected",
    "[FINDING] No significant abnormalities detected",
    "Generate a clinical radiology report based on the CT scan findings:",
    "FINDINGS:\nThere is a pleural effusion on the right. No emphysema.\nIMPRESSION:\nPleural effusion.",
    "lung nodule emphysema consolidation atelectasis upper middle lower third",
)
"""What the tokenizers learn their words from, beside what a test adds."""
SHAPE: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {"head_dim": 12}),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {"head_dim": 12, "sliding_window": 64}),
    "gemma3_text": ("Gemma3TextConfig", "Gemma3ForCausalLM", {"head_dim": 12, "sliding_window": 64}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {"head_dim": 12}),
    "qwen3_5_text": (
        "Qwen3_5TextConfig",
        "Qwen3_5ForCausalLM",
        {
            "num_hidden_layers": 4,
            "head_dim": 16,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
    ),
}
"""By what ``config.json`` calls them: class of the configuration, class of the network, what differs from `SHAPE`."""


def a_tokenizer(texts: Iterable[str] = (), *, begins: bool = True, words: int = 420) -> Tokenizer:
    """A byte-level tokenizer, as those of Llama and Qwen are; ``begins``: every text begins with a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words,
        special_tokens=[PAD, BEGIN, STOP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*PHRASES, *texts], trainer)
    if begins:
        begin = tokenizer.token_to_id(BEGIN)
        tokenizer.post_processor = processors.TemplateProcessing(f"{BEGIN} $A", None, [(BEGIN, begin)])
    return tokenizer


def a_network(kind: str = "llama", words: int = 420, seed: int = 0, **changed: Any) -> Any:
    """An untrained language model of a type of `KINDS`."""
    import transformers

    config_name, network_name, own = KINDS[kind]
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, config_name)(vocab_size=words, **{**SHAPE, **own, **special, **changed})
    torch.manual_seed(seed)
    return getattr(transformers, network_name)(config).eval()


def save_base(
    folder: Path, kind: str = "llama", texts: Iterable[str] = (), network: Any = None, **changed: Any
) -> Path:
    """A folder with a language model and its tokenizer, as it would come from a hub."""
    tokenizer = a_tokenizer(texts, begins=not kind.startswith("qwen"))
    network = network or a_network(kind, tokenizer.get_vocab_size(), **changed)
    folder.mkdir(parents=True, exist_ok=True)
    quietly_saved(network, folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def quietly_saved(network: Any, folder: Path, **how: Any) -> None:
    """``save_pretrained`` without its progress bar."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    network.save_pretrained(folder, **how)


def save_bert(folder: Path, seed: int = 0) -> Path:
    """A folder with a BERT model and a WordPiece tokenizer, with the names of tensors that published ones have."""
    import transformers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        [text.lower() for text in PHRASES],
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False),
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    quietly_saved(transformers.BertForPreTraining(config), folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def describe(folder: Path, **settings: Any) -> Path:
    """Write our description into a folder around ``base``."""
    from CTReportLib.language.folder import Settings, describe_language_model

    describe_language_model("tiny-language", Settings(**settings)).save(folder)
    return folder


def change_json(path: Path, **changed: Any) -> None:
    """Change a JSON file; a value of None takes the key out."""
    content = json.loads(path.read_text(encoding="utf-8")) | changed
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), encoding="utf-8")


CHAT = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
REASON_PROMPT = {
    "before": "<|im_start|>user\n<|vision_start|>",
    "after": "<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n",
    "positions": "grid",
}
"""How the small NV-Reason-CT of tests is asked; how the published one is, its own files say."""


def a_gemma_with_pictures() -> Any:
    """An untrained Gemma 3 with its tower for photographs, as it is published."""
    import transformers

    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    text = {**SHAPE, **KINDS["gemma3_text"][2], **special, "vocab_size": 430, "model_type": "gemma3_text"}
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(text_config=text, vision_config=tower | {"image_size": 16, "patch_size": 8})
    torch.manual_seed(0)
    return transformers.Gemma3ForConditionalGeneration(config).eval()


def a_picture_model(**changed: Any) -> Any:
    """An untrained Qwen3.5 with its tower for photographs, as it is published."""
    import transformers

    text = {
        **SHAPE,
        **KINDS["qwen3_5_text"][2],
        "vocab_size": 430,
        "model_type": "qwen3_5_text",
        "eos_token_id": 2,
        "initializer_range": 0.2,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1],
        },
    }  # fmt: skip
    tower = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 48}
    tower |= {"num_position_embeddings": 16, "patch_size": 4, "spatial_merge_size": 1, "model_type": "qwen3_5_vision"}
    special = {"image_token_id": 425, "video_token_id": 426}
    config = transformers.Qwen3_5Config(text_config=text | changed, vision_config=tower, **special)
    torch.manual_seed(0)
    return transformers.Qwen3_5ForConditionalGeneration(config).eval()


def save_reason(folder: Path, encoder: torch.nn.Module, *, description: bool = True, **stated: Any) -> tuple[Any, Any]:
    """A folder as NV-Reason-CT's is, with small networks; answers the language model and the merger's tensors."""
    from safetensors.torch import save_file

    from CTReportLib.language.reasonfolder import ARCHITECTURE, CLASS, ENCODER, MERGER
    from MedAILib.models.config import Architecture, ModelConfig

    network = a_picture_model()
    folder.mkdir(parents=True, exist_ok=True)
    quietly_saved(network, folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(1)
    width = next(one for one in encoder.parameters() if one.ndim == 5).shape[0]
    merger = {"norm.weight": 1 + 0.1 * torch.randn(width), "norm.bias": 0.1 * torch.randn(width)}
    merger |= {"linear_fc1.weight": torch.randn(width, width) / width**0.5, "linear_fc1.bias": torch.randn(width)}
    merger |= {"linear_fc2.weight": torch.randn(48, width) / width**0.5, "linear_fc2.bias": torch.randn(48)}
    language = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    vision = {f"{ENCODER}{name}": tensor.clone() for name, tensor in encoder.state_dict().items()}
    vision |= {f"{MERGER}{name}": tensor for name, tensor in merger.items()}
    shards = {"model-00001-of-00002.safetensors": language, "model-00002-of-00002.safetensors": vision}
    for name, tensors in shards.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    index = {"weight_map": {name: shard for shard, tensors in shards.items() for name in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    auto = {"AutoModelForImageTextToText": "modeling_vlm3d.VLM3D_ForConditionalGeneration"}
    change_json(folder / "config.json", model_type="vlm3d", architectures=[CLASS], auto_map=auto)
    (folder / "modeling_vlm3d.py").write_text("raise SystemExit('this code ran')", encoding="utf-8")
    tokenizer = a_tokenizer(begins=False, words=400)
    tokenizer.add_special_tokens(list(CHAT))
    tokenizer.save(str(folder / "tokenizer.json"))
    if description:
        parameters = {**REASON_PROMPT, "grid": [2, 2, 2], **stated}
        ModelConfig("tiny-reason", "chest-ct-language", Architecture(ARCHITECTURE, parameters)).save(folder)
    return network, merger
