"""A folder with a LoRA adapter as peft saves it, held against the model it shall change. Needs no torch.

Source: LoRA, Hu et al. 2021, arXiv 2106.09685; names of files and tensors as in peft.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CTReportLib.language.basefolder import UNSAFE, BaseFolder, read_json
from MedAILib.errors import ConfigMismatch, FileMissing, InvalidWeights
from MedAILib.models.infer import shape_text
from MedAILib.models.tensors import WeightFile, inspect_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TENSOR = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<half>[AB])\.weight")
_PLAIN_STARTS = (True, False, None, "gaussian")
"""Ways to begin an adapter that leave the model's own weights as they are."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA adapter that fits its model.

    Attributes
    ----------
    path : Path
    config : mapping
        Its ``adapter_config.json``.
    weights : WeightFile
    """

    path: Path
    config: Mapping[str, Any]
    weights: WeightFile


def read_adapter(path: Path, base: BaseFolder) -> Adapter:
    """Check an adapter and that it was made for a model of these shapes; from headers only.

    Raises
    ------
    FileMissing
        The folder, or a file in it.
    InvalidWeights
        It is no plain LoRA adapter, is damaged or unsafe.
    ConfigMismatch
        It was made for another model; the first tensor that does not fit is named with both shapes.
    UnreadableFile
    """
    if not path.is_dir():
        raise FileMissing(f"There is no folder '{path}' with an adapter.", todo="Give the folder that peft saved.")
    config = read_json(path / CONFIG)
    _check_kind(config, path)
    if not (path / WEIGHTS).is_file():
        unsafe = sorted(file.name for file in path.iterdir() if file.suffix.lower() in UNSAFE)
        if unsafe:
            raise InvalidWeights(
                f"The adapter in '{path.name}' is refused: {', '.join(unsafe)}.",
                why="Files of this kind can run code when they are opened.",
                todo="Save it again as safetensors.",
            )
        raise FileMissing(f"The adapter in '{path}' has no {WEIGHTS}.", todo="Get the whole adapter.")
    weights = inspect_tensors(path / WEIGHTS)
    first = next(_differences(weights.shapes, base.shapes), "")
    if first:
        raise ConfigMismatch(
            f"The adapter in '{path.name}' was made for another model: {first}.",
            why=f"It was trained on '{config.get('base_model_name_or_path') or 'a model it does not name'}'; "
            f"the model here is '{base.path.name}' with vectors of {base.width}.",
            todo="Give the model that the adapter was trained on.",
        )
    return Adapter(path, config, weights)


def _check_kind(config: Mapping[str, Any], path: Path) -> None:
    problems = []
    if config.get("peft_type") != "LORA":
        problems.append(f"it is of the kind {config.get('peft_type')}")
    if config.get("use_dora") or config.get("lora_bias") or config.get("bias", "none") != "none":
        problems.append("it changes more than low-rank updates do (DoRA or biases)")
    if config.get("modules_to_save"):
        problems.append(f"it replaces whole layers: {config['modules_to_save']}")
    if config.get("init_lora_weights") not in _PLAIN_STARTS:
        problems.append(f"its start '{config['init_lora_weights']}' changes the model's own weights")
    if problems:
        raise InvalidWeights(
            f"The adapter in '{path.name}' is refused.",
            why=f"The problem: {'; '.join(problems)}.",
            todo="Give a plain LoRA adapter.",
        )


def _differences(adapter: Mapping[str, tuple[int, ...]], base: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """What in an adapter does not belong to a model, in words."""
    for name, shape in adapter.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            yield f"its tensor '{name}' is no part of a LoRA adapter"
            continue
        layer = f"{match['layer']}.weight"
        whole = base.get(layer)
        if whole is None or len(whole) != 2 or len(shape) != 2:
            yield f"it changes '{layer}', which the model does not have"
            continue
        at = 1 if match["half"] == "A" else 0
        if shape[at] != whole[at]:
            yield f"its tensor '{name}' has the shape {shape_text(shape)}, the model's '{layer}' {shape_text(whole)}"
