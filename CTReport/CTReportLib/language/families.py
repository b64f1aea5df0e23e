"""The families of language models that can write reports, by what their ``config.json`` says. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from MedAILib.errors import InvalidWeights

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Family:
    """Language models of one kind.

    Attributes
    ----------
    name : str
    model_types : tuple of str
        What ``config.json`` calls them, as transformers does.
    lora_targets : tuple of str
        The linear layers that an adapter changes, as the published design has them.

    Source of the targets: ReCT-VLM (NEWMES-AI, 2025): all layers of Llama, attention of Gemma, else queries, values
    and outputs.
    """

    name: str
    model_types: tuple[str, ...]
    lora_targets: tuple[str, ...]


LLAMA = Family("llama", ("llama",), ATTENTION + MLP)
GEMMA = Family("gemma", ("gemma", "gemma2", "gemma3_text"), ATTENTION)
QWEN = Family("qwen", ("qwen2", "qwen3", "qwen3_5_text"), ("q_proj", "v_proj", "o_proj"))
FAMILIES = (LLAMA, GEMMA, QWEN)
TEXT_CONFIG = "text_config"
"""In the ``config.json`` of models with an image tower: what describes the language model within."""
WITH_PICTURES = ("gemma3", "qwen3_5")
"""Types of such models whose language model can be used by itself; the tower for photographs is left out."""


def text_config_of(
    config: Mapping[str, Any], outer_types: Collection[str] | None = WITH_PICTURES
) -> Mapping[str, Any] | None:
    """What describes the language model within a larger one of these types (None: any); None: it is not within one."""
    inner = config.get(TEXT_CONFIG)
    known = outer_types is None or config.get("model_type") in outer_types
    return inner if isinstance(inner, Mapping) and known else None


def family_of(config: Mapping[str, Any], name: str) -> Family:
    """The family of a model.

    Parameters
    ----------
    config : mapping
        Its ``config.json``.
    name : str
        The folder, for the message.

    Raises
    ------
    InvalidWeights
        None of ours; that it would need code of its own is said.
    """
    kind = str(config.get("model_type", ""))
    for family in FAMILIES:
        if kind in family.model_types:
            return family
    known = ", ".join([*(one for family in FAMILIES for one in family.model_types), *WITH_PICTURES])
    if config.get("auto_map"):
        raise InvalidWeights(
            f"The language model in '{name}' is refused.",
            why=f"Its type '{kind}' needs program code from its own folder (auto_map), which is never run here.",
            todo=f"Take one of a type that needs none: {known}.",
        )
    raise InvalidWeights(
        f"The language model in '{name}' is of no known family.",
        why=f"Its config.json says the type '{kind}'." if kind else "Its config.json states no model_type.",
        todo=f"Known types are: {known}.",
    )
