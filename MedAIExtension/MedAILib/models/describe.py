"""Descriptions written for weight files that have none, or a wrong one, by looking inside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from MedAILib.atomic import output_error, write_bytes, write_text
from MedAILib.errors import InputError
from MedAILib.filekind import open_error
from MedAILib.models.config import FileEntry, FileRole, ModelConfig
from MedAILib.models.descriptions import Candidate, config_paths, find_descriptions, place_for
from MedAILib.models.infer import KNOWN, Recognised, nearly, recognise
from MedAILib.models.resolve import (
    UNKNOWN_ARCHITECTURE,
    Conflict,
    combine,
    count_difference,
    renew_assumed,
    unknown_config,
)
from MedAILib.models.tensors import WeightFile, inspect_tensors

_SUFFIXES = {".safetensors", ".pth", ".pt", ".ckpt", ".h5", ".hdf5", ".keras"}
_TRAINING_STATE = ".training.pth"


@dataclass(frozen=True)
class Description:
    """What a weight file is, and what should be written beside it.

    Attributes
    ----------
    weights : WeightFile
    config : ModelConfig
        Fits the tensors and is bound to the file by its SHA-256.
    target : Path
        Where it belongs.
    findings : tuple of str
        What was read off the tensors, what was corrected, what is assumed and should be checked by a person.
    up_to_date : bool
        Whether ``target`` says exactly this already.
    """

    weights: WeightFile
    config: ModelConfig
    target: Path
    findings: tuple[str, ...]
    up_to_date: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "path": str(self.weights.path),
            "format": self.weights.format.value,
            "size": self.weights.size,
            "tensors": len(self.weights.tensors),
            "config_path": str(self.target),
            "up_to_date": self.up_to_date,
            "findings": list(self.findings),
            "config": self.config.to_dict(),
        }


@dataclass(frozen=True)
class Written:
    """Where a description was written, and where the one that was there before is now (None: there was none)."""

    path: Path
    backup: Path | None = None


def weight_files(path: str | Path) -> tuple[Path, ...]:
    """The weight files meant by a path: the file itself, or those in the folder, by name.

    Raises
    ------
    InputError
        Where a folder holds none.
    """
    place = Path(path)
    try:
        if not place.is_dir():
            return (place,)
        found = sorted(item for item in place.iterdir() if _is_weight_file(item))
    except OSError as error:
        raise open_error(place, error) from error
    if not found:
        raise InputError(f"'{place}' holds no weight files.", todo="Name the file.")
    return tuple(found)


def describe(path: str | Path) -> Description:
    """Look inside a weight file and say what it is; nothing is written.

    What existing descriptions say is kept where the tensors do not contradict it.

    Parameters
    ----------
    path : path
        A weight file, or a folder with one.

    Raises
    ------
    FileMissing, UnreadableFile, InvalidWeights, MissingPackage
        As `MedAILib.models.tensors.inspect_tensors`.
    InputError
        A folder with several weight files, or none.
    """
    files = weight_files(path)
    if len(files) > 1:
        names = ", ".join(f"'{file.name}'" for file in files)
        raise InputError(f"'{path}' holds {len(files)} weight files: {names}.", todo="Name one of them.")
    weights = inspect_tensors(files[0])
    candidates, remarks = find_descriptions(weights)
    remarks += [f"Not used: {item.error.text}" for item in candidates if item.error is not None]
    recognised = recognise(weights.shapes)
    usable, corrections = _corrected(candidates, recognised)
    if usable or recognised is not None:
        found = combine(weights, usable, recognised, {}, [])
        stated, conflicts = found.config, found.conflicts
    else:
        stated, conflicts = unknown_config(weights), ()
    config = _bound(stated, weights)
    target = place_for(weights.path, take_unbound=True)
    findings = (*_seen(weights, recognised), *remarks, *corrections, *_disputed(conflicts), *_open(config))
    return Description(weights, config, target, findings, _says(target, config))


def describe_all(path: str | Path) -> tuple[Description, ...]:
    """Describe a weight file, or each of those in a folder, every one with a place of its own; nothing is written.

    Errors as in `describe`; the first file that cannot be described ends it.
    """
    found: list[Description] = []
    for file in weight_files(path):
        description = describe(file)
        if any(description.target == other.target for other in found):
            target = config_paths(file)[0]
            description = replace(description, target=target, up_to_date=_says(target, description.config))
        found.append(description)
    return tuple(found)


def write_description(description: Description) -> Written:
    """Write a description to its place; what was there is kept as ``model_config.json.bak`` (``.bak2``, ...).

    Raises
    ------
    OutputError
        The folder cannot take it; what was there stays.
    """
    target = description.target
    if description.up_to_date:
        return Written(target)
    try:
        before = target.read_bytes() if target.exists() else None
    except OSError as error:
        raise output_error(target, error) from error
    backup = None
    if before is not None:
        backup = next(name for name in _backup_names(target) if not name.exists())
        write_bytes(backup, before)
    write_text(target, description.config.text)
    return Written(target, backup)


def _is_weight_file(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.endswith(_TRAINING_STATE) and path.is_file()


def _corrected(candidates: list[Candidate], recognised: Recognised | None) -> tuple[list[Candidate], list[str]]:
    """The descriptions with the architecture that the tensors show, and what was corrected."""
    usable: list[Candidate] = []
    corrections: list[str] = []
    for candidate in candidates:
        config = candidate.config
        if config is None:
            continue
        architecture = config.architecture
        if recognised is None:
            if architecture.name in KNOWN:  # would have been recognised
                corrections.append(
                    f"{_named(candidate)} is of a {architecture.name}, which the tensors are not; it is not used."
                )
            else:
                usable.append(candidate)
            continue
        if architecture.name not in (recognised.architecture.name, UNKNOWN_ARCHITECTURE):
            corrections.append(
                f"{_named(candidate)} says the architecture is '{architecture.name}'; the tensors are a "
                f"{recognised.architecture.name}."
            )
        stated = architecture.parameters if architecture.name == recognised.architecture.name else {}
        corrections += [
            f"{_named(candidate)} says {name}={stated[name]!r}; the tensors say {value!r}."
            for name, value in recognised.parameters.items()
            if name in stated and stated[name] != value
        ]
        mended = replace(
            architecture, name=recognised.architecture.name, parameters={**stated, **recognised.parameters}
        )
        mended_config = renew_assumed(replace(config, architecture=mended), recognised.architecture)
        usable.append(replace(candidate, config=mended_config))
    return usable, corrections


def _named(candidate: Candidate) -> str:
    text = str(candidate)
    return f"{text[0].upper()}{text[1:]}"


def _bound(config: ModelConfig, weights: WeightFile) -> ModelConfig:
    """The description bound to this file; a training state that belongs to it stays listed."""
    before = config.file_with_hash(weights.sha256)
    entry = FileEntry(weights.path.name, FileRole.WEIGHTS, weights.format, weights.size, weights.sha256)
    others = [item for item in config.files if item.role is not FileRole.WEIGHTS] if before else []
    return replace(config, files=(entry, *others))


def _seen(weights: WeightFile, recognised: Recognised | None) -> Iterator[str]:
    count = len(weights.tensors)
    if recognised is not None:
        yield f"Its {count} tensors are those of a {recognised.text}."
        return
    hint = nearly(weights.shapes)
    if hint:
        yield f"{hint[0].upper()}{hint[1:]}."
        return
    name, info = next(iter(weights.tensors.items()))
    yield f"Its {count} tensors are of no network known here; the first is '{name}' of shape {list(info.shape)}."


def _disputed(conflicts: Sequence[Conflict]) -> Iterator[str]:
    for conflict in conflicts:
        yield f"Two descriptions disagree: {conflict}."


def _open(config: ModelConfig) -> Iterator[str]:
    if config.architecture.name == UNKNOWN_ARCHITECTURE:
        yield "Nobody says which architecture this is: fill in $.architecture and $.family before use."
        return
    difference = count_difference(config)
    if difference:
        yield f"Please mend by hand: {difference}."
    if config.assumed:
        yield f"Assumed as usual for this architecture, please check: {', '.join(config.assumed)}."


def _says(target: Path, config: ModelConfig) -> bool:
    try:
        stated: Mapping[str, Any] = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return stated == config.to_dict()


def _backup_names(target: Path) -> Iterator[Path]:
    yield target.with_name(f"{target.name}.bak")
    number = 2
    while True:
        yield target.with_name(f"{target.name}.bak{number}")
        number += 1
