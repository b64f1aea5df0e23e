"""The descriptions that lie around a weight file, and whether they are of this very file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from MedAILib.errors import ConfigMismatch, InvalidWeights, MedAIError
from MedAILib.models.config import CONFIG_FILE, FileEntry, FileRole, ModelConfig
from MedAILib.models.infer import KNOWN, first_difference
from MedAILib.models.migrations import is_flat
from MedAILib.models.tensors import WeightFile

_LEVELS_ABOVE = 3
"""How far above its weights a model's folder may begin, as in ``fold_0/checkpoint_final.pth``."""


class Origin(Enum):
    """Where a description, or a value in it, comes from; the value is what to call it in a message."""

    ARGUMENTS = "the arguments"
    BOUND = "the description bound to this file"
    EMBEDDED = "the description inside the file"
    FOLDER = "the description in its folder"
    SHAPES = "the tensors themselves"


@dataclass(frozen=True)
class Candidate:
    """A description found somewhere, or why it cannot be used."""

    origin: Origin
    place: str
    config: ModelConfig | None = None
    error: MedAIError | None = None

    def __str__(self) -> str:
        return f"{self.origin.value} ({self.place})" if self.place else self.origin.value


def config_paths(weights: Path) -> tuple[Path, Path]:
    """Where a weight file's description may lie: under the file's own name, or the folder's."""
    return weights.parent / f"{weights.name}.{CONFIG_FILE}", weights.parent / CONFIG_FILE


def place_for(weights: Path, *, take_unbound: bool = False) -> Path:
    """Where to write a weight file's description: never in place of one that is of another file.

    Parameters
    ----------
    weights : Path
    take_unbound : bool
        Whether the folder's description may be replaced where it is bound to no file, or broken.
    """
    own, of_folder = config_paths(weights)
    if own.exists():
        return own
    if not of_folder.exists():
        return of_folder
    try:
        entries = weight_entries(ModelConfig.load(of_folder))
    except MedAIError:
        entries = []
    if not entries:
        return of_folder if take_unbound else own
    return of_folder if all(entry.path == weights.name for entry in entries) else own


def find_descriptions(weights: WeightFile, config: ModelConfig | None = None) -> tuple[list[Candidate], list[str]]:
    """All descriptions of a weight file in their order of precedence, and remarks on those of other files."""
    remarks = list(weights.content.remarks)
    of_others: list[str] = []
    found: list[Candidate] = []
    if config is not None:
        if is_bound_elsewhere(config, weights):
            raise _given_for_another_file(weights, config)
        found.append(Candidate(Origin.ARGUMENTS, "", config))
    beside = [item for item in (_read_beside(weights, path, of_others) for path in config_paths(weights.path)) if item]
    beside += [item for item in (_read_above(weights, path) for path in _paths_above(weights.path)) if item]
    embedded = _read_embedded(weights, remarks)
    bound = [item for item in beside if item.origin is Origin.BOUND]
    found += sorted(bound, key=lambda item: item.error is not None)
    if not bound:  # where it has its own, that its neighbours have theirs is no news
        remarks += of_others
    found += [embedded] if embedded else []
    return found + [item for item in beside if item.origin is Origin.FOLDER], remarks


def is_bound_elsewhere(config: ModelConfig, weights: WeightFile) -> bool:
    """Whether a description names weight files by their hash, and this one is not among them."""
    entries = weight_entries(config)
    return bool(entries) and not is_bound(config, weights)


def contradicts(config: ModelConfig, weights: WeightFile) -> bool:
    """Whether a description's architecture is known, stated in full, and not that of the file's tensors."""
    known, parameters = KNOWN.get(config.architecture.name), config.architecture.parameters
    if known is None or any(name not in parameters for name in known.parameters):
        return False
    return bool(first_difference(known.expected_shapes(parameters), weights.shapes))


def is_bound(config: ModelConfig, weights: WeightFile) -> bool:
    """Whether a description names this file by its SHA-256; the hash is computed only where a size agrees."""
    entries = [entry for entry in weight_entries(config) if entry.size == weights.size]
    return bool(entries) and any(entry.sha256 == weights.sha256 for entry in entries)


def weight_entries(config: ModelConfig) -> list[FileEntry]:
    """The weight files a description is bound to."""
    return [entry for entry in config.files if entry.role is FileRole.WEIGHTS]


def _read_beside(weights: WeightFile, path: Path, remarks: list[str]) -> Candidate | None:
    if not path.is_file():
        return None
    try:
        config = ModelConfig.load(path)
    except MedAIError as error:
        return Candidate(Origin.FOLDER, path.name, error=error)
    if not weight_entries(config):
        return Candidate(Origin.FOLDER, path.name, config)
    named = _names(config, path, weights)
    if (named and contradicts(config, weights)) or is_bound(config, weights):
        return Candidate(Origin.BOUND, path.name, config)  # what contradicts is refused later, without hashing
    if named and any(entry.replaces == weights.sha256 for entry in weight_entries(config)):
        remarks.append(f"'{path.name}' is of a later file: saving it was interrupted, and this is the one from before.")
        return None
    if named:
        return Candidate(Origin.BOUND, path.name, error=_changed_since(weights, path))
    names = ", ".join(f"'{entry.path}'" for entry in weight_entries(config))
    remarks.append(f"'{path.name}' is not used: it is bound to {names}, a file of another content.")
    return None


def _read_above(weights: WeightFile, path: Path) -> Candidate | None:
    """The description of a model whose weights lie in a folder within its own; one that does not name them is none."""
    try:
        found = path.is_file() and _names(ModelConfig.load(path), path, weights)
    except (MedAIError, OSError):
        return None
    return _read_beside(weights, path, []) if found else None


def _paths_above(weights: Path) -> list[Path]:
    return [folder / CONFIG_FILE for folder in weights.absolute().parents[1 : 1 + _LEVELS_ABOVE]]


def _names(config: ModelConfig, path: Path, weights: WeightFile) -> bool:
    """Whether a description at a path names the weight file by its place."""
    places = (path.absolute().parent / entry.path for entry in weight_entries(config))
    return weights.path.absolute() in places


def _read_embedded(weights: WeightFile, remarks: list[str]) -> Candidate | None:
    data = weights.content.embedded
    if data is None:
        return None
    place = weights.path.name
    if isinstance(data, Mapping):
        nested = data.get("model")
        data = nested if "schema" not in data and not is_flat(data) and isinstance(nested, Mapping) else data
        if "schema" in data or is_flat(data):
            try:
                return Candidate(Origin.EMBEDDED, place, ModelConfig.from_dict(data, f"The description in '{place}'"))
            except MedAIError as error:
                return Candidate(Origin.EMBEDDED, place, error=error)
    remarks.append("What the file carries under 'config' is no model description; it is not used.")
    return None


def _changed_since(weights: WeightFile, path: Path) -> InvalidWeights:
    return InvalidWeights(
        f"'{weights.path.name}' is not the file that '{path.name}' describes.",
        why="Its SHA-256 is another one: it was damaged, or replaced by another file of the same name.",
        todo=f'Get it again; if it was replaced on purpose: medai models describe "{weights.path}" --write',
    )


def _given_for_another_file(weights: WeightFile, config: ModelConfig) -> ConfigMismatch:
    names = ", ".join(f"'{entry.path}'" for entry in weight_entries(config))
    return ConfigMismatch(
        f"The description '{config.id}' that was given is not of '{weights.path.name}': the SHA-256 differs.",
        why=f"It is bound to {names}.",
        todo=f'Give none, or write one for this file: medai models describe "{weights.path}" --write',
    )
