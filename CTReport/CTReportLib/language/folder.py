"""Our folder around a language model: base, adapter, projector and how to ask, in one description. Needs no torch.

    my-model/
        model_config.json       architecture ct_language_model, with the settings below
        base/                   config.json, tokenizer.json, *.safetensors
        adapter/                adapter_config.json, adapter_model.safetensors     (optional)
        projector/              projector.safetensors with its description         (optional)

A folder without our description that holds a language model itself is taken as the base alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from CTReportLib.language.adapterfolder import Adapter, read_adapter
from CTReportLib.language.basefolder import CONFIG, BaseFolder, read_base, read_json
from CTReportLib.language.reasonfolder import (
    ReasonSettings,
    check_parts,
    is_reason,
    reason_settings_of,
    refuse_undescribed,
)
from MedAILib.errors import ConfigMismatch, FileMissing, InvalidWeights
from MedAILib.models.config import CONFIG_FILE, Architecture, ModelConfig
from MedAILib.models.resolve import id_for
from MedAILib.models.tensornames import best_prefix, without_prefix
from MedAILib.models.tensors import WeightFile, inspect_tensors

FAMILY, ARCHITECTURE = "chest-ct-language", "ct_language_model"
DTYPES = ("auto", "bfloat16", "float16", "float32")
QUANTIZATIONS = ("", "int8")
NEW_TOKENS = 512
PROJECTOR_QUERIES = "visual_queries"
"""In the projector's file: a row for each token that the picture becomes."""
PROJECTOR_OUTPUT = "projector.3.weight"
"""The projector's last normalisation: as many numbers as a token of its language model has."""


@dataclass(frozen=True)
class Settings:
    """How a language model is put together and asked; the parameters of its description.

    Attributes
    ----------
    base, adapter, projector : str
        Where they lie, relative to the folder or absolute; empty: there is none. The projector is a file.
    dtype : str
        One of `DTYPES`; ``auto``: bfloat16 on CUDA, float32 elsewhere.
    quantization : str
        One of `QUANTIZATIONS`; ``int8`` needs CUDA and the package bitsandbytes.
    prompt_tokens : int
        The longest prompt it was trained with; a longer one is warned of.
    """

    base: str = "base"
    adapter: str = ""
    projector: str = ""
    dtype: str = "auto"
    quantization: str = ""
    prompt_tokens: int = 512

    def problems(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        kinds = {one.name: int if one.name == "prompt_tokens" else str for one in fields(self)}
        found = [
            f"{name} must be a {'whole number' if kind is int else 'text'}"
            for name, kind in kinds.items()
            if type(getattr(self, name)) is not kind
        ]
        if found:
            return tuple(found)
        if self.dtype not in DTYPES:
            found.append(f"there is no number format '{self.dtype}'; there is {', '.join(DTYPES)}")
        if self.quantization not in QUANTIZATIONS:
            found.append(f"there is no quantisation '{self.quantization}'; there is int8, or none")
        if self.prompt_tokens < 1:
            found.append("prompt_tokens is below 1")
        return tuple(found)


@dataclass(frozen=True, eq=False)
class LanguageFolder:
    """A language model that may be loaded, with everything that belongs to it.

    Attributes
    ----------
    path : Path
    id : str
    settings : Settings
    base : BaseFolder
    adapter : Adapter or None
    projector : WeightFile or None
    config : ModelConfig or None
        The description; None: there is none, and the settings are the usual ones.
    reason : ReasonSettings or None
        How it is asked, where it is NV-Reason-CT.
    """

    path: Path
    id: str
    settings: Settings
    base: BaseFolder
    adapter: Adapter | None = None
    projector: WeightFile | None = None
    config: ModelConfig | None = field(default=None, repr=False)
    reason: ReasonSettings | None = None

    @property
    def new_tokens(self) -> int:
        """The most tokens of a usual answer."""
        return self.reason.new_tokens if self.reason else NEW_TOKENS

    @property
    def usual_tokens(self) -> int:
        """Those of picture, prompt and answer together."""
        if self.reason:
            return self.reason.visual_tokens + self.settings.prompt_tokens + self.new_tokens
        queries = self.projector.shapes.get(PROJECTOR_QUERIES, (0,)) if self.projector else (0,)
        return queries[0] + self.settings.prompt_tokens + self.new_tokens


def read_language_folder(path: str | Path) -> LanguageFolder:
    """Check a language model from its descriptions and headers; no tensor is read and nothing in it is run.

    Raises
    ------
    FileMissing
        The folder, or something that its description names.
    InvalidWeights
        The description or a part is not what it should be; see `read_base` and `read_adapter`.
    ConfigMismatch
        The adapter was made for another model, or a file is not the one the description is bound to.
    UnreadableFile
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileMissing(f"There is no folder '{folder}' with a language model.", todo="Check the path.")
    if not (folder / CONFIG_FILE).is_file() and (folder / CONFIG).is_file():
        refuse_undescribed(folder, read_json(folder / CONFIG))
        name = id_for(Path(f"{folder.name}.x"))
        return LanguageFolder(folder, name, Settings(base="."), read_base(folder))
    config = ModelConfig.load(folder / CONFIG_FILE)
    _check_sizes(config, folder)
    if is_reason(config):
        return _reason_folder(folder, config)
    settings = settings_of(config, folder)
    base = read_base(folder / settings.base)
    adapter = read_adapter(folder / settings.adapter, base) if settings.adapter else None
    projector = read_projector(folder / settings.projector, base) if settings.projector else None
    return LanguageFolder(folder, config.id, settings, base, adapter, projector, config)


def _reason_folder(folder: Path, config: ModelConfig) -> LanguageFolder:
    reason = reason_settings_of(config, folder)
    base = read_base(folder, outer_types=None)
    check_parts(base)
    settings = Settings(base=".", dtype=reason.dtype)
    return LanguageFolder(folder, config.id, settings, base, config=config, reason=reason)


def read_projector(path: Path, base: BaseFolder) -> WeightFile:
    """Check from its header that a projector answers vectors of the language model's width.

    Raises
    ------
    InvalidWeights
        It holds no projector.
    ConfigMismatch
        Another width; both are named.
    FileMissing, UnreadableFile
    """
    weights = inspect_tensors(path)
    shapes = without_prefix(weights.shapes, best_prefix(weights.shapes, [PROJECTOR_OUTPUT]))
    answered = shapes.get(PROJECTOR_OUTPUT, ())
    if len(answered) != 1:
        raise InvalidWeights(
            f"'{path.name}' holds no visual projector.",
            why=f"It lacks the tensor {PROJECTOR_OUTPUT}.",
            todo="Give the file that was saved with the projector.",
        )
    if answered[0] != base.width:
        raise ConfigMismatch(
            f"The projector '{path.name}' does not fit the language model '{base.path.name}'.",
            why=f"It answers vectors of {answered[0]} numbers; the language model reads vectors of {base.width}.",
            todo="Give the language model that the projector was trained with, or train a projector for this one.",
        )
    return weights


def settings_of(config: ModelConfig, folder: Path) -> Settings:
    """The settings a description states.

    Raises
    ------
    InvalidWeights
        It describes something else, or a setting is unknown or wrong.
    """
    if config.architecture.name != ARCHITECTURE:
        raise InvalidWeights(
            f"'{folder / CONFIG_FILE}' describes no language model.",
            why=f"It describes the architecture '{config.architecture.name}'.",
            todo=f"Give a folder whose description says {ARCHITECTURE}.",
        )
    stated: Mapping[str, Any] = config.get_model_params()
    known = {one.name for one in fields(Settings)}
    problems = [f"the setting '{name}' is not known" for name in stated if name not in known]
    settings = Settings(**{name: value for name, value in stated.items() if name in known})
    problems += settings.problems()
    if problems:
        raise InvalidWeights(
            f"'{folder / CONFIG_FILE}' has settings that cannot be used.",
            why=f"The problem: {'; '.join(problems)}.",
            todo="Mend it with a text editor.",
        )
    return settings


def describe_language_model(name: str, settings: Settings, **stated: Any) -> ModelConfig:
    """A description for a folder; ``stated`` are other fields of `ModelConfig`, such as the licence."""
    parameters = {one.name: getattr(settings, one.name) for one in fields(settings)}
    made = ModelConfig(
        id=name,
        family=FAMILY,
        architecture=Architecture(ARCHITECTURE, parameters),
        intended_use="Research use only. Not for diagnosis.",
    )
    return replace(made, **stated)


def _check_sizes(config: ModelConfig, folder: Path) -> None:
    """That files the description is bound to have its sizes; their hashes are told in every run's report."""
    for entry in config.files:
        path = folder / entry.path
        if not path.is_file():
            raise FileMissing(f"'{path}' is missing, which the description names.", todo="Get the whole model.")
        if path.stat().st_size != entry.size:
            raise ConfigMismatch(
                f"'{path}' is not the file that the description was written for.",
                why=f"It has {path.stat().st_size:,} bytes instead of {entry.size:,}.",
                todo="Get the model again.",
            )
