"""A classifier by prompts, made of the text encoder inside a model of images and texts such as COLIPRI. Needs torch.

    make_zero_shot(Path("colipri/model.safetensors"), Path("cxr-bert"), Path("prompts.safetensors"))

The text encoder is a BERT whose tokens are asked by their mean, as the patches are (arXiv 2510.15042). It is needed
once: what it says of the prompts is stored, and classifies without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from CTReportLib.findings import FINDINGS, Finding
from CTReportLib.language.packages import import_transformers
from CTReportLib.language.tokens import read_tokenizer
from CTReportLib.nets.heads import prompt_pair
from CTReportLib.nets.heads_weights import describe_head, save_head
from CTReportLib.nets.heads_zeroshot import ZeroShot
from MedAILib.errors import FileMissing, InvalidWeights
from MedAILib.models.config import ModelConfig
from MedAILib.models.exact import require_exact, require_finite, shapes_of
from MedAILib.models.resolve import id_for
from MedAILib.models.tensors import WeightFile, inspect_tensors
from MedAILib.models.torchmodel import read_weights

PART, BACKBONE, POOLER = "text_encoder.", "backbone.", "pooler.attn."
TEMPERATURE = "softmax_temperature"
_TELLING = f"{PART}{POOLER}in_proj_weight"
_HEAD = 64
"""Width of an attention head, of the BERT and of the pooling: twelve of them in the published width of 768."""
_COUNTERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Tensors in published files that only count up."""
_CONFIG, _TOKENIZER, _WORDS = "tokenizer_config.json", "tokenizer.json", "vocab.txt"


def make_zero_shot(
    model: Path,
    tokenizer: Path,
    out: Path,
    findings: Sequence[Finding] = FINDINGS,
    prompts: Callable[[str], tuple[str, str]] = prompt_pair,
) -> ModelConfig:
    """Write a classifier by prompts for an encoder.

    Parameters
    ----------
    model : Path
        Weight file that holds the encoder of images and that of texts.
    tokenizer : Path
        Folder with ``tokenizer.json``, or with the words of a BERT, ``vocab.txt``.
    out : Path
        Where to write it.
    findings : sequence of Finding
    prompts : callable
        From a finding's name to the texts with and without it.

    Returns
    -------
    ModelConfig
        Its description; it names the weight file of the encoder, which it belongs to.

    Raises
    ------
    InvalidWeights
        The file holds no text encoder, or not exactly the tensors of one.
    FileMissing, UnreadableFile, MissingPackage, OutputError
    """
    weights = inspect_tensors(model)
    state = _part(weights)
    words = _words_of(tokenizer)
    texts = [text for finding in findings for text in prompts(finding.name)]
    vectors = _vectors(state, weights.path.name, [words(text) for text in texts])
    head = ZeroShot(vectors.shape[1], len(findings))
    head.set_prompts(vectors[0::2], vectors[1::2], float(state[TEMPERATURE]))
    names = tuple(finding.id for finding in findings)
    config = describe_head(
        id_for(out), "ct_zero_shot", names, encoder_sha256=weights.sha256, shared_dim=vectors.shape[1]
    )
    return save_head(head, out, config)


def _part(weights: WeightFile) -> dict[str, torch.Tensor]:
    """The text encoder's tensors and the temperature, without what their names begin with."""
    parents = [name.removesuffix(_TELLING) for name in weights.shapes if name.endswith(_TELLING)]
    if len(parents) != 1 or f"{parents[0]}{TEMPERATURE}" not in weights.shapes:
        raise InvalidWeights(
            f"'{weights.path.name}' holds no text encoder that shares a space with images.",
            why=f"It lacks {_TELLING} or {TEMPERATURE}.",
            todo="Give the whole file of a model of images and texts, such as COLIPRI.",
        )
    state = read_weights(weights)[0]
    begin = parents[0] + PART
    found = {name.removeprefix(begin): tensor for name, tensor in state.items() if name.startswith(begin)}
    require_finite(found, weights.path.name)
    return {**found, TEMPERATURE: state[parents[0] + TEMPERATURE]}


def _vectors(state: Mapping[str, torch.Tensor], file_name: str, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """What the text encoder says of texts, float32, shape (texts, width); each by itself, so nothing is padded."""
    bert, pool = _networks(state, file_name)
    limit = int(bert.config.max_position_embeddings)
    found = []
    with torch.no_grad():
        for text in texts:
            tokens = bert(input_ids=torch.tensor([list(text)[:limit]])).last_hidden_state
            mean = tokens.mean(dim=1, keepdim=True)
            found.append(pool(mean, tokens, tokens, need_weights=False)[0][0, 0])
    return torch.stack(found).float()


def _networks(state: Mapping[str, torch.Tensor], file_name: str) -> tuple[Any, nn.MultiheadAttention]:
    backbone = _named(state, BACKBONE)
    pooler = _named(state, POOLER)
    with_config = import_transformers().BertConfig(**_sizes(backbone, file_name))
    bert = import_transformers().BertModel(with_config, add_pooling_layer=False)
    width = int(with_config.hidden_size)
    pool = nn.MultiheadAttention(width, max(1, width // _HEAD), batch_first=True)
    for network, tensors, words in ((bert, backbone, "a BERT model"), (pool, pooler, "its pooling")):
        require_exact(shapes_of(network.state_dict()), shapes_of(tensors), file_name, words)
        network.load_state_dict(tensors)
    return bert.float().eval(), pool.float().eval()


def _sizes(backbone: Mapping[str, torch.Tensor], file_name: str) -> dict[str, int]:
    """The BERT's sizes after its tensors."""
    try:
        words, width = backbone["embeddings.word_embeddings.weight"].shape
        layers = {int(name.split(".")[2]) for name in backbone if name.startswith("encoder.layer.")}
        return {
            "vocab_size": words,
            "hidden_size": width,
            "max_position_embeddings": backbone["embeddings.position_embeddings.weight"].shape[0],
            "type_vocab_size": backbone["embeddings.token_type_embeddings.weight"].shape[0],
            "num_hidden_layers": len(layers),
            "num_attention_heads": max(1, width // _HEAD),
            "intermediate_size": backbone["encoder.layer.0.intermediate.dense.weight"].shape[0],
        }
    except (KeyError, ValueError, IndexError) as error:
        raise InvalidWeights(
            f"The text encoder in '{file_name}' is no BERT model.",
            why=f"{error} is not as in one.",
            todo="Get it again.",
        ) from error


def _named(state: Mapping[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    found = {name.removeprefix(part): tensor for name, tensor in state.items() if name.startswith(part)}
    return {name: tensor for name, tensor in found.items() if name not in _COUNTERS}


def _words_of(folder: Path) -> Callable[[str], Sequence[int]]:
    """From a text to the numbers of its tokens."""
    if (folder / _TOKENIZER).is_file():
        tokenizer = read_tokenizer(folder / _TOKENIZER)
        return lambda text: list(tokenizer.encode(text).ids)
    if not (folder / _WORDS).is_file():
        raise FileMissing(
            f"There is no tokenizer in '{folder}'.",
            why=f"It holds neither {_TOKENIZER} nor {_WORDS}.",
            todo="Get it from where the text encoder was published.",
        )
    from tokenizers import BertWordPieceTokenizer

    words = BertWordPieceTokenizer(str(folder / _WORDS), lowercase=_lower_case(folder))
    return lambda text: list(words.encode(text).ids)


def _lower_case(folder: Path) -> bool:
    """Whether the tokenizer's description says so, or says nothing."""
    try:
        stated = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return bool(stated.get("do_lower_case", True)) if isinstance(stated, dict) else True
