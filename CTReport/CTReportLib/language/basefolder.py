"""A folder with a language model as transformers saves it, checked from its small files and headers. Needs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from CTReportLib.language.families import WITH_PICTURES, Family, family_of, text_config_of
from MedAILib.errors import FileMissing, InvalidWeights
from MedAILib.filekind import open_error
from MedAILib.models.placeholders import HEAD_BYTES, placeholder_in
from MedAILib.models.tensors import WeightFile, inspect_tensors

CONFIG, GENERATION_CONFIG, TOKENIZER = "config.json", "generation_config.json", "tokenizer.json"
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Endings of weights that may run code when they are opened."""
_WITHIN = (("model.language_model.", "model."), ("language_model.", ""), ("lm_head.", "lm_head."))
"""What names begin with in a larger model, and in the language model by itself."""
_LARGEST_JSON = 64 << 20


@dataclass(frozen=True, eq=False)
class BaseFolder:
    """A language model that may be loaded.

    Attributes
    ----------
    path : Path
    config : mapping
        Its ``config.json``, or what that says of the language model within a larger one.
    family : Family
    weights : tuple of WeightFile
        In the order of their names.
    stop_ids : tuple of int
        Tokens that end a text.
    nested : bool
        Whether it lies within a larger model, of which the other tensors are left out.
    """

    path: Path
    config: Mapping[str, Any]
    family: Family
    weights: tuple[WeightFile, ...]
    stop_ids: tuple[int, ...]
    nested: bool = False

    def own_name(self, name: str) -> str:
        """What a tensor of the files is called in the language model; empty where it is not of it."""
        if not self.nested:
            return name
        return next((new + name.removeprefix(old) for old, new in _WITHIN if name.startswith(old)), "")

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the language model."""
        items = (item for file in self.weights for item in file.shapes.items())
        return {own: shape for name, shape in items if (own := self.own_name(name))}

    @cached_property
    def numbers(self) -> int:
        """How many numbers its tensors hold."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def width(self) -> int:
        """Length of a token's vector."""
        return int(self.config["hidden_size"])

    @property
    def context_tokens(self) -> int:
        """The most tokens it can read and write together."""
        return int(self.config.get("max_position_embeddings", 2048))


def read_base(path: Path, outer_types: Collection[str] | None = WITH_PICTURES) -> BaseFolder:
    """Check a folder with a language model; no tensor is read, nothing in it is run.

    Parameters
    ----------
    path : Path
    outer_types : collection of str or None
        Types of larger models of which the language model within is taken; None: of any.

    Raises
    ------
    FileMissing
        The folder, its ``config.json``, its tokenizer or its weights are not there.
    InvalidWeights
        No known family, needs code of its own, unsafe, quantised, damaged or incomplete.
    UnreadableFile
    """
    if not path.is_dir():
        raise FileMissing(
            f"There is no folder '{path}' with a language model.",
            todo="Give the folder that holds config.json, tokenizer.json and *.safetensors.",
        )
    whole = read_json(path / CONFIG)
    within = text_config_of(whole, outer_types)
    config = whole if within is None else {**_outer(whole), **within}
    family = family_of(config, path.name)
    if whole.get("quantization_config"):
        raise InvalidWeights(
            f"The language model in '{path.name}' is refused.",
            why="Its weights were quantised when they were saved; such files are not read here.",
            todo="Take the whole weights; they are made smaller while loading where that is asked for.",
        )
    if type(config.get("hidden_size")) is not int:
        raise InvalidWeights(f"'{path / CONFIG}' states no hidden_size.", todo="Get the file again.")
    _check_tokenizer(path)
    stop_ids = _stop_ids(path, config, whole)
    return BaseFolder(path, config, family, read_weight_files(path), stop_ids, within is not None)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of moderate size.

    Raises
    ------
    FileMissing, UnreadableFile, InvalidWeights
    """
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise InvalidWeights(f"'{path}' is larger than any such file.", todo="Get it again.")
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise open_error(path, error) from error
    except (ValueError, RecursionError) as error:
        raise InvalidWeights(f"'{path}' is not JSON.", why=f"{error}.", todo="Get it again.") from error
    if not isinstance(found, dict):
        raise InvalidWeights(f"'{path}' holds no JSON object.", todo="Get it again.")
    return found


def read_weight_files(path: Path) -> tuple[WeightFile, ...]:
    """The weight files of a folder, each looked into.

    Raises
    ------
    FileMissing
        There are none, or not all that the index names.
    InvalidWeights
        There are only unsafe ones, or one is damaged.
    """
    if (path / WEIGHTS_INDEX).is_file():
        return _indexed(path)
    if (path / WEIGHTS).is_file():
        return (inspect_tensors(path / WEIGHTS),)
    unsafe = sorted(file.name for file in path.iterdir() if file.suffix.lower() in UNSAFE)
    if unsafe:
        raise InvalidWeights(
            f"The weights in '{path.name}' are refused: {', '.join(unsafe)}.",
            why="Files of this kind can run code when they are opened.",
            todo="Get the same model as safetensors.",
        )
    raise FileMissing(
        f"The folder '{path}' holds no weights.",
        why=f"Neither {WEIGHTS} nor {WEIGHTS_INDEX} is there.",
        todo="Get the whole model.",
    )


def _indexed(path: Path) -> tuple[WeightFile, ...]:
    places = read_json(path / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise InvalidWeights(f"'{path / WEIGHTS_INDEX}' names no files.", todo="Get it again.")
    names = sorted(set(places.values()))
    outside = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if outside:
        raise InvalidWeights(
            f"'{WEIGHTS_INDEX}' is refused.", why=f"It names files that do not belong there: {', '.join(outside)}."
        )
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise FileMissing(
            f"The weights in '{path}' are incomplete: {len(missing)} of {len(names)} files are missing.",
            why=f"Not there: {', '.join(missing)}.",
            todo="Get the whole model.",
        )
    files = tuple(inspect_tensors(path / name) for name in names)
    held = {name for file in files for name in file.tensors}
    lost = [name for name in places if name not in held]
    if lost:
        raise InvalidWeights(
            f"The weights in '{path.name}' are incomplete.",
            why=f"The index names {len(lost)} tensors that no file holds, such as {lost[0]}.",
            todo="Get the whole model.",
        )
    return files


def _check_tokenizer(path: Path) -> None:
    file = path / TOKENIZER
    if not file.is_file():
        other = "tokenizer.model" if (path / "tokenizer.model").is_file() else ""
        raise FileMissing(
            f"The language model in '{path}' has no tokenizer.",
            why=f"There is no {TOKENIZER} in it" + (f", only {other}, which is not read here." if other else "."),
            todo=f"Get {TOKENIZER} of the same model and put it there.",
        )
    with file.open("rb") as stream:
        instead = placeholder_in(stream.read(HEAD_BYTES))
    if instead is not None:
        raise InvalidWeights(f"'{file}' is {instead.what}.", todo=instead.todo)


def _outer(whole: Mapping[str, Any]) -> dict[str, Any]:
    """What a larger model states of its language model outside the part about it."""
    return {key: whole[key] for key in ("tie_word_embeddings",) if key in whole}


def _stop_ids(path: Path, *configs: Mapping[str, Any]) -> tuple[int, ...]:
    """Of all files: chat models end their turn with another token than their texts."""
    stated = [config.get("eos_token_id") for config in configs]
    if (path / GENERATION_CONFIG).is_file():
        stated.append(read_json(path / GENERATION_CONFIG).get("eos_token_id"))
    found = {one for item in stated for one in (item if isinstance(item, list) else [item]) if type(one) is int}
    if not found:
        raise InvalidWeights(
            f"The language model in '{path.name}' does not say which token ends a text.",
            why="Without it no report would ever be finished.",
            todo=f"State eos_token_id in {CONFIG}.",
        )
    return tuple(sorted(found))
