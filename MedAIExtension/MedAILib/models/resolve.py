"""Which description belongs to a weight file, when several places say something about it.

In this order: the arguments of the call, the description in the folder that is bound to the file by its
SHA-256, the one inside the file, an unbound one in the folder, the shapes of the tensors. What a
description leaves open is filled in from the next places; what two places say differently is reported;
what contradicts the tensors themselves is an error. Nothing is ever made up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from MedAILib.errors import ConfigMismatch, InvalidWeights
from MedAILib.models.config import Architecture, ModelConfig
from MedAILib.models.descriptions import Candidate, Origin, find_descriptions
from MedAILib.models.infer import (
    KNOWN,
    KnownArchitecture,
    Recognised,
    first_difference,
    nearly,
    parameters_text,
    recognise,
)
from MedAILib.models.records import ROOT
from MedAILib.models.tensors import WeightFile

UNKNOWN_ARCHITECTURE = "unknown"
"""Name of the architecture in a description of a file that nothing is known about."""

_PARAMETERS = f"{ROOT}.architecture.parameters"
_NOT_COMPARED = {"schema", "id", "files", "assumed", "provenance", "title", "version", "description", "resources"}


@dataclass(frozen=True)
class Conflict:
    """Two places that say different things about one field; the first one counts."""

    field: str
    used: Any
    used_from: str
    other: Any
    other_from: str

    def __str__(self) -> str:
        return f"{self.field}: {self.used!r} after {self.used_from}, not {self.other!r} after {self.other_from}"


@dataclass(frozen=True)
class Resolution:
    """The description to use for a weight file.

    Attributes
    ----------
    config : ModelConfig
    origin : Origin
        Where the description as a whole comes from.
    parameter_origins : mapping of str to Origin
        Where each parameter of the architecture comes from.
    conflicts : tuple of Conflict
    remarks : tuple of str
        What was found and not used, and why.
    recognised : Recognised, optional
        What the tensors look like.
    """

    config: ModelConfig
    origin: Origin
    parameter_origins: Mapping[str, Origin] = field(default_factory=dict)
    conflicts: tuple[Conflict, ...] = ()
    remarks: tuple[str, ...] = ()
    recognised: Recognised | None = None


def resolve(
    weights: WeightFile, *, config: ModelConfig | None = None, parameters: Mapping[str, Any] | None = None
) -> Resolution:
    """Find the description of a weight file and hold it against the file's tensors.

    Parameters
    ----------
    weights : WeightFile
    config : ModelConfig, optional
        A description given by the caller; it comes before all others.
    parameters : mapping, optional
        Parameters of the architecture given by the caller.

    Raises
    ------
    ConfigMismatch
        The description to use contradicts the tensors, or is bound to another file.
    InvalidWeights
        The file is not the one its description was written for; a description that counts is not valid; or
        nothing says which architecture this is.
    """
    candidates, remarks = find_descriptions(weights, config)
    usable: list[Candidate] = []
    for candidate in candidates:
        if candidate.error is None:
            usable.append(candidate)
        elif not usable:
            raise candidate.error
        else:
            remarks.append(f"Not used: {candidate.error.text}")
    recognised = recognise(weights.shapes)
    resolution = combine(weights, usable, recognised, parameters or {}, remarks)
    check_against_tensors(weights, resolution)
    if resolution.config.architecture.name == UNKNOWN_ARCHITECTURE and not parameters:
        raise _nothing_known(weights)
    return resolution


def combine(
    weights: WeightFile,
    candidates: list[Candidate],
    recognised: Recognised | None,
    parameters: Mapping[str, Any],
    remarks: list[str],
) -> Resolution:
    """One description from all places, the earlier one winning, with what they disagree on."""
    base = next((item for item in candidates if item.config is not None), None)
    config, origin = _base(weights, base, recognised, parameters)
    known = [(item, item.config) for item in candidates if item.config is not None]
    conflicts = [
        conflict
        for other, stated in known
        if other is not base
        for conflict in _differences(config, str(base), stated, str(other))
    ]
    sources: list[tuple[Origin, str, Mapping[str, Any]]] = [(Origin.ARGUMENTS, Origin.ARGUMENTS.value, parameters)]
    name = config.architecture.name
    sources += [(item.origin, str(item), c.architecture.parameters) for item, c in known if c.architecture.name == name]
    if recognised is not None and recognised.architecture.name == name:
        sources.append((Origin.SHAPES, Origin.SHAPES.value, recognised.parameters))
    values, origins, disputes = _merge(sources)
    merged = replace(config, architecture=replace(config.architecture, parameters=values))
    if recognised is not None and recognised.architecture.name == name and origin is not Origin.SHAPES:
        merged = renew_assumed(merged, recognised.architecture)
    return Resolution(merged, origin, origins, tuple(disputes + conflicts), tuple(remarks), recognised)


def _base(
    weights: WeightFile, base: Candidate | None, recognised: Recognised | None, parameters: Mapping[str, Any]
) -> tuple[ModelConfig, Origin]:
    if base is not None and base.config is not None:
        config = base.config
        if config.architecture.name == UNKNOWN_ARCHITECTURE and recognised is not None:
            architecture = Architecture(recognised.architecture.name, dict(recognised.parameters))
            config = replace(config, family=recognised.architecture.family, architecture=architecture)
        return config, base.origin
    if recognised is not None:
        return inferred_config(weights, recognised), Origin.SHAPES
    if parameters:
        return unknown_config(weights), Origin.ARGUMENTS
    raise _nothing_known(weights)


def inferred_config(weights: WeightFile, recognised: Recognised) -> ModelConfig:
    """A description from the tensors alone.

    What they do not tell is as usual for the architecture, and marked assumed.
    """
    inputs, heads, assumed = recognised.architecture.assumed(recognised.parameters)
    return ModelConfig(
        id=id_for(weights.path),
        family=recognised.architecture.family,
        architecture=Architecture(recognised.architecture.name, dict(recognised.parameters)),
        inputs=inputs,
        heads=heads,
        assumed=tuple(assumed),
    )


def unknown_config(weights: WeightFile) -> ModelConfig:
    """A description that knows nothing but the file."""
    return ModelConfig(
        id=id_for(weights.path),
        family=UNKNOWN_ARCHITECTURE,
        architecture=Architecture(UNKNOWN_ARCHITECTURE),
        assumed=(f"{ROOT}.family", f"{ROOT}.architecture"),
    )


def id_for(weights: Path) -> str:
    """An id after the file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", weights.stem).strip("-._").replace("..", ".") or "model"


def check_against_tensors(weights: WeightFile, resolution: Resolution) -> None:
    """Raise `ConfigMismatch` where the architecture of the description is known and the tensors are not its."""
    architecture = resolution.config.architecture
    known = KNOWN.get(architecture.name)
    if known is None:
        return
    missing = [name for name in known.parameters if name not in architecture.parameters]
    if missing:
        raise mismatch(weights, resolution, nearly(weights.shapes) or f"it holds no {known.name}")
    first = first_difference(known.expected_shapes(architecture.parameters), weights.shapes)
    first = first or count_difference(resolution.config)
    if first:
        raise mismatch(weights, resolution, first)


def count_difference(config: ModelConfig) -> str:
    """Where a description names more or fewer channels or classes than its network has, in words; empty: nowhere."""
    known = KNOWN.get(config.architecture.name)
    if known is None:
        return ""
    channels, heads = known.outputs(config.architecture.parameters)
    for item in config.inputs[:1]:
        if item.channels and len(item.channels) != channels:
            return f"$.inputs[0].channels names {len(item.channels)} channels, the network takes {channels}"
    for index, head in enumerate(config.heads):
        count = heads.get(head.name)
        if count is None:
            return f"$.heads[{index}] is named '{head.name}', the network has {' and '.join(heads)}"
        if head.outputs not in (None, count):
            return f"$.heads[{index}].classes asks for {head.outputs} outputs, the network answers {count}"
    return ""


def renew_assumed(config: ModelConfig, known: KnownArchitecture) -> ModelConfig:
    """Inputs and heads that are missing, or assumed for another number of channels or classes, assumed anew."""
    inputs, heads, assumed = known.assumed(config.architecture.parameters)
    new_inputs, renewed = _renew("inputs", "channels", config.inputs, inputs, config.assumed)
    new_heads, more = _renew("heads", "classes", config.heads, heads, config.assumed)
    renewed += more
    kept = [path for path in config.assumed if not path.startswith(tuple(renewed))]
    kept += [path for path in assumed if path.startswith(tuple(renewed))]
    return replace(config, inputs=new_inputs, heads=new_heads, assumed=tuple(kept))


def _renew(
    section: str, counted: str, stated: tuple[Any, ...], usual: tuple[Any, ...], assumed: tuple[str, ...]
) -> tuple[tuple[Any, ...], list[str]]:
    """One section with its outdated assumptions replaced, and the paths of the items that were."""
    if not stated:
        return usual, [f"{ROOT}.{section}"]
    items, renewed = list(stated), []
    for index, (item, new) in enumerate(zip(stated, usual, strict=False)):
        path = f"{ROOT}.{section}[{index}]"
        outdated = len(getattr(item, counted)) != len(getattr(new, counted))
        if outdated and item.name == new.name and f"{path}.{counted}" in assumed:
            items[index] = new
            renewed.append(path)
    return tuple(items), renewed


def mismatch(weights: WeightFile, resolution: Resolution, first: str) -> ConfigMismatch:
    """The error for a description and a file that contradict each other, in three lines."""
    architecture, origins = resolution.config.architecture, resolution.parameter_origins
    said = {name: value for name, value in architecture.parameters.items() if origins.get(name) is not Origin.SHAPES}
    stated = parameters_text(said) or architecture.name
    source = ", ".join(dict.fromkeys(origins[name].value for name in said)) or resolution.origin.value
    looks = resolution.recognised.text if resolution.recognised else "no network known here"
    if Origin.ARGUMENTS in origins.values() or resolution.origin is Origin.ARGUMENTS:
        todo = f'Leave out what was given, or see what the file says: medai models describe "{weights.path}"'
    else:
        todo = f'Write a description that fits: medai models describe "{weights.path}" --write'
    return ConfigMismatch(
        f"'{weights.path.name}' does not fit its description: {first}.",
        why=f"The file looks like {looks}; the description says {stated} (after {source}).",
        todo=todo,
    )


def _merge(
    sources: list[tuple[Origin, str, Mapping[str, Any]]],
) -> tuple[dict[str, Any], dict[str, Origin], list[Conflict]]:
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    places: dict[str, str] = {}
    conflicts: list[Conflict] = []
    for origin, place, stated in sources:
        for name, value in stated.items():
            if name not in values:
                values[name], origins[name], places[name] = value, origin, place
            elif values[name] != value:
                conflicts.append(Conflict(f"{_PARAMETERS}.{name}", values[name], places[name], value, place))
    return values, origins, conflicts


def _differences(used: ModelConfig, used_from: str, other: ModelConfig, other_from: str) -> Iterator[Conflict]:
    """What two descriptions both state (rather than assume) and state differently, parameters apart."""
    ours, theirs = dict(_stated(used)), dict(_stated(other))
    for path, value in ours.items():
        if path in theirs and theirs[path] != value and not path.startswith(_PARAMETERS):
            yield Conflict(path, value, used_from, theirs[path], other_from)


def _stated(config: ModelConfig) -> Iterator[tuple[str, Any]]:
    for key, value in config.to_dict().items():
        if key not in _NOT_COMPARED:
            for path, leaf in _leaves(value, f"{ROOT}.{key}"):
                if not path.startswith(config.assumed):
                    yield path, leaf


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _nothing_known(weights: WeightFile) -> InvalidWeights:
    hint = nearly(weights.shapes) or f"its {len(weights.tensors)} tensors are of no network known here"
    return InvalidWeights(
        f"Nothing says which network '{weights.path.name}' belongs to.",
        why=f"No description beside it or in it does, and {hint}.",
        todo="Put its model_config.json beside it, or start one: medai models describe PATH --write",
    )
