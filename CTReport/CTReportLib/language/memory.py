"""What a language model will take, told from headers before anything is loaded. Needs no torch.

The estimate has four parts: the weights in the number format they will have, the keys and values that attention keeps
for every token, working space, and the libraries themselves. It is meant to be on the large side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from CTReportLib.language.basefolder import BaseFolder
from CTReportLib.language.folder import LanguageFolder, read_language_folder
from MedAILib.errors import ConfigError, NotEnoughMemory
from MedAILib.jobs.device import free_memory_bytes
from MedAILib.models.tensors import WeightFile

LIBRARIES_BYTES = 600 << 20
"""PyTorch and transformers with their context on a device, rounded up from 520 MB as measured on Linux."""
WORKING_SHARE = 0.05
"""Of the weights, for what loading and computing need besides."""
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0625}
"""Bytes a weight; eight-bit weights have a scale for every row."""


@dataclass(frozen=True)
class MemoryEstimate:
    """What loading a model and writing with it will take.

    Attributes
    ----------
    needed_bytes : int
    free_bytes : int or None
        Of the device; None where the system does not tell.
    fits : bool
        True also where nobody knows.
    text : str
        For people: the parts of the estimate and what is free.
    """

    needed_bytes: int
    free_bytes: int | None
    fits: bool
    text: str


def estimate(
    folder: str | Path | LanguageFolder,
    device: str = "cpu",
    *,
    quantization: str | None = None,
    tokens: int | None = None,
) -> MemoryEstimate:
    """How much memory a language model will take on a device, and whether that is free.

    Parameters
    ----------
    folder : path or LanguageFolder
    device : str
        ``cpu``, ``mps``, ``cuda:0``.
    quantization : str, optional
        Instead of what the folder's settings say.
    tokens : int, optional
        To read and write together; default: picture, prompt and answer of a usual report.

    Raises
    ------
    ConfigError
        Eight bits elsewhere than on CUDA.
    MedAIError
        As `read_language_folder`.
    """
    found = folder if isinstance(folder, LanguageFolder) else read_language_folder(folder)
    chosen = found.settings.quantization if quantization is None else quantization
    check_quantization(chosen, device)
    dtype = chosen_dtype(found.settings.dtype, device)
    tokens = min(tokens or found.usual_tokens, found.base.context_tokens)
    weights = _weights_bytes(found, dtype, chosen)
    context = tokens * bytes_per_token(found.base, dtype)
    working = LIBRARIES_BYTES + int(WORKING_SHARE * weights) + _working_bytes(found.base, tokens, dtype)
    needed = weights + context + working
    free = free_memory_bytes(device)
    text = (
        f"about {size_text(needed)}: weights {size_text(weights)} ({chosen or dtype}), "
        f"{tokens} tokens {size_text(context)}, working space {size_text(working)}; "
        + (f"{size_text(free)} are free on {device}" if free is not None else f"what is free on {device} is not known")
    )
    return MemoryEstimate(needed, free, free is None or needed <= free, text)


def require_memory(found: MemoryEstimate, name: str) -> None:
    """Refuse to load what does not fit.

    Raises
    ------
    NotEnoughMemory
        With the estimate in words.
    """
    if not found.fits:
        raise NotEnoughMemory(
            f"The language model '{name}' is not loaded: it would not fit.",
            why=f"It needs {found.text}.",
            todo="Close other programs, take a smaller model, or write the report with the template.",
        )


def chosen_dtype(wanted: str, device: str) -> str:
    """The number format to compute in: as the folder says, else bfloat16 on CUDA and float32 elsewhere."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.startswith("cuda") else "float32"


def check_quantization(quantization: str, device: str) -> None:
    """Raise `ConfigError` where a device cannot compute with quantised weights."""
    if quantization and not device.startswith("cuda"):
        raise ConfigError(
            f"The language model cannot be loaded in eight bits on '{device}'.",
            why="Only bitsandbytes computes with such weights, and only on CUDA.",
            todo="Leave the quantisation out, or use a CUDA device.",
        )


def bytes_per_token(base: BaseFolder, dtype: str) -> int:
    """What attention keeps of every token: a key and a value in each layer that looks back at all tokens."""
    config = base.config
    heads = int(config.get("num_attention_heads", 1))
    shared = int(config.get("num_key_value_heads") or heads)
    length = int(config.get("head_dim") or base.width // heads)
    kinds = config.get("layer_types")
    layers = int(config.get("num_hidden_layers", 1))
    if isinstance(kinds, list):
        layers = sum(kind != "linear_attention" for kind in kinds)
    return int(2 * layers * shared * length * _BYTES[dtype])


def size_text(count: int) -> str:
    """``1.5 GB``, ``230 MB``."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _weights_bytes(found: LanguageFolder, dtype: str, quantization: str) -> int:
    beside = [found.adapter.weights] if found.adapter else []
    beside += [found.projector] if found.projector else []
    return int(found.base.numbers * _BYTES[quantization or dtype] + 4 * sum(map(_numbers, beside)))


def _numbers(file: WeightFile) -> int:
    return sum(math.prod(shape) for shape in file.shapes.values())


def _working_bytes(base: BaseFolder, tokens: int, dtype: str) -> int:
    """A layer's activations for all tokens at once, and the last token's chances in float32."""
    inner = int(base.config.get("intermediate_size") or 4 * base.width)
    vocabulary = int(base.config.get("vocab_size", 0))
    return int(tokens * (8 * base.width + 3 * inner) * _BYTES[dtype]) + 12 * vocabulary
