"""A language model loaded with its tokenizer, adapter and projector, whole or not at all. Needs torch, transformers."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from CTReportLib.language.basefolder import BaseFolder
from CTReportLib.language.boundfiles import require_bound
from CTReportLib.language.folder import LanguageFolder, read_language_folder
from CTReportLib.language.identity import sha256_of
from CTReportLib.language.lora import load_adapter
from CTReportLib.language.memory import check_quantization, chosen_dtype, estimate, require_memory
from CTReportLib.language.packages import import_transformers
from CTReportLib.language.projector import load_projector
from CTReportLib.language.reason import load_merger
from CTReportLib.language.tokens import TextTokens, load_tokens
from MedAILib.errors import ConfigError, InvalidWeights, MissingPackage
from MedAILib.jobs.memory import give_back_free_memory
from MedAILib.models.exact import require_exact, shapes_of
from MedAILib.models.torchmodel import read_weights
from MedAILib.models.torchuse import chosen_device

_LEFT_OVER = re.compile(r"(^|\.)rotary_emb\.inv_freq$|^mtp\.")
"""Tensors in published files that no network needs: they are computed, or of a second network for guessing ahead."""


@dataclass(eq=False)
class LanguageModel:
    """A language model that can write.

    Attributes
    ----------
    network : transformers.PreTrainedModel or peft.PeftModel
        In evaluation mode.
    tokens : TextTokens
    picture : VisualProjector or Merger or None
        Makes tokens of an encoder's `Features`.
    folder : LanguageFolder
    used : tuple of (str, str)
        Id and SHA-256 of base, adapter and projector: what a text rests on.
    encoder_sha256 : str
        Of the encoder's weights whose features it was trained on; empty where that is not stated.
    """

    network: Any
    tokens: TextTokens
    picture: nn.Module | None
    folder: LanguageFolder
    used: tuple[tuple[str, str], ...]
    encoder_sha256: str = ""

    @property
    def context_tokens(self) -> int:
        """The most tokens it can read and write together."""
        return self.folder.base.context_tokens

    @property
    def file_hashes(self) -> tuple[str, ...]:
        """SHA-256 of each of the base's files."""
        return tuple(sha256_of([file.path]) for file in self.folder.base.weights)

    def close(self) -> None:
        """Let go of everything; the memory goes back to the operating system, or to the device."""
        self.network = self.picture = None
        release_memory()


def release_memory() -> None:
    """Give back what nobody refers to any more, of this process and of its CUDA devices."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back_free_memory()


def load_language_model(
    folder: str | Path, device: str = "cpu", *, check: Callable[[], None] = lambda: None
) -> LanguageModel:
    """Load a language model, after it was told that it fits.

    Parameters
    ----------
    folder : path
        See `CTReportLib.language.folder`.
    device : str
        ``cpu``, ``mps``, ``cuda:0``; ``cuda`` alone spreads it over all GPUs.
    check : callable
        Called between steps; what it raises ends the loading.

    Raises
    ------
    NotEnoughMemory
        It would not fit; nothing was loaded.
    FileMissing, InvalidWeights, ConfigMismatch, UnreadableFile
        A part is missing, damaged, unsafe, or belongs to another one.
    ConfigError
        Eight bits elsewhere than on CUDA.
    InputError
        PyTorch cannot use that device here.
    MissingPackage
    """
    found = read_language_folder(folder)
    require_memory(estimate(found, device), found.id)
    device = chosen_device(device)
    check()
    used = _identities(found, check)
    require_bound(found)
    tokens = load_tokens(found.base.path, found.base.stop_ids, int(found.base.config.get("vocab_size", 0)))
    picture, encoder_sha256 = _picture(found, device)
    check()
    network = load_base(found.base, device, dtype=found.settings.dtype, quantization=found.settings.quantization)
    check()
    if found.adapter:
        network = load_adapter(network, found.adapter)
    return LanguageModel(network.eval(), tokens, picture, found, used, encoder_sha256)


def _picture(found: LanguageFolder, device: str) -> tuple[nn.Module | None, str]:
    """What makes tokens of features, and the hash of the encoder it was trained with."""
    if found.reason:
        return load_merger(found.base, device), ""
    if found.projector is None:
        return None, ""
    loaded = load_projector(found.projector.path, device)
    return loaded.network, loaded.encoder_sha256


def load_base(base: BaseFolder, device: str = "cpu", *, dtype: str = "auto", quantization: str = "") -> Any:
    """The language model itself, all of whose tensors come from its files; no code of its folder is run.

    Raises
    ------
    InvalidWeights
        Its tensors are not exactly those that its ``config.json`` describes; each is named.
    ConfigError, MissingPackage
    """
    config = _config(base)
    kind = _require_tensors(base, config)
    how: dict[str, Any] = {"dtype": getattr(torch, chosen_dtype(dtype, device))}
    if device.startswith("cuda"):
        how["device_map"] = "auto" if device == "cuda" else {"": device}
    if quantization:
        how["quantization_config"] = _eight_bits(base, quantization, device)
    if base.nested:
        how["state_dict"] = _own_state(base)
    try:
        network, told = kind.from_pretrained(
            None if base.nested else str(base.path),
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **how,
        )
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        raise _not_loaded(base, error) from error
    _require_nothing_unset(base, told)
    return network if "device_map" in how else network.to(device)


def _config(base: BaseFolder) -> Any:
    transformers = import_transformers()
    from huggingface_hub.errors import StrictDataclassError

    stated = {name: value for name, value in base.config.items() if name not in ("auto_map", "model_type")}
    try:
        return transformers.AutoConfig.for_model(base.config["model_type"], **stated)
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise _not_loaded(base, error) from error


def _require_tensors(base: BaseFolder, config: Any) -> Any:
    """The network's class, after its headers were seen to hold exactly its tensors; none of them is read."""
    transformers = import_transformers()
    try:
        with torch.device("meta"):
            skeleton = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise _not_loaded(base, error) from error
    wanted = shapes_of(skeleton.state_dict())
    actual = {name: shape for name, shape in base.shapes.items() if not _LEFT_OVER.search(name)}
    shared = getattr(skeleton, "_tied_weights_keys", None) or {} if config.tie_word_embeddings else {}
    wanted = {name: shape for name, shape in wanted.items() if name not in shared or name in actual}
    names = ", ".join(file.path.name for file in base.weights)
    require_exact(wanted, actual, f"{base.path.name}/{names}", f"a language model of the type {config.model_type}")
    return type(skeleton)


def _own_state(base: BaseFolder) -> dict[str, torch.Tensor]:
    """The tensors of a language model within a larger one, still in their files as long as nobody reads them."""
    state = {}
    for file in base.weights:
        if any(base.own_name(name) for name in file.tensors):
            found = read_weights(file)[0]
            state.update({own: tensor for name, tensor in found.items() if (own := base.own_name(name))})
    return {name: tensor for name, tensor in state.items() if not _LEFT_OVER.search(name)}


def _eight_bits(base: BaseFolder, quantization: str, device: str) -> Any:
    check_quantization(quantization, device)
    if base.nested:
        raise ConfigError(
            "The language model cannot be loaded in eight bits.",
            why="It lies within a larger model, whose tensors are picked out one by one.",
            todo="Leave the quantisation out.",
        )
    if find_spec("bitsandbytes") is None:
        raise MissingPackage(
            "Weights in eight bits need the package bitsandbytes, which is not installed.",
            todo="pip install bitsandbytes, or leave the quantisation out.",
        )
    return import_transformers().BitsAndBytesConfig(load_in_8bit=True)


def _require_nothing_unset(base: BaseFolder, told: Mapping[str, Any]) -> None:
    left = [*told.get("missing_keys", ()), *told.get("mismatched_keys", ()), *told.get("error_msgs", ())]
    if left:
        raise InvalidWeights(
            f"The language model in '{base.path.name}' was not loaded whole.",
            why=f"Not set: {', '.join(str(one) for one in left[:12])}.",
            todo="Get the whole model.",
        )


def _identities(found: LanguageFolder, check: Callable[[], None]) -> tuple[tuple[str, str], ...]:
    parts = [("base", [file.path for file in found.base.weights])]
    if found.adapter:
        parts.append(("adapter", [found.adapter.weights.path]))
    if found.projector:
        parts.append(("projector", [found.projector.path]))
    return tuple((f"{found.id}/{name}", sha256_of(files, check)) for name, files in parts)


def _not_loaded(base: BaseFolder, error: Exception) -> InvalidWeights:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InvalidWeights(
        f"The language model in '{base.path.name}' cannot be loaded.",
        why=f"transformers answers: {first}",
        todo="Get the model again, whole and unchanged.",
    )
