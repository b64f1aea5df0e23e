"""Networks saved together with their description, and loaded only when the two agree."""

from __future__ import annotations

import inspect as signatures
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.atomic import replacing
from MedAILib.errors import ConfigMismatch, InputError
from MedAILib.models import torchmodel
from MedAILib.models.config import FileEntry, FileRole, FileType, ModelConfig
from MedAILib.models.descriptions import place_for
from MedAILib.models.infer import KNOWN, first_difference, parameters_text, recognise
from MedAILib.models.resolve import Resolution, mismatch, renew_assumed, resolve
from MedAILib.models.tensornames import best_prefix, without_prefix
from MedAILib.models.tensors import CHECKPOINT_CONFIG_KEY, CONFIG_KEY, WeightFile, file_sha256, inspect_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

SAFETENSORS_SUFFIX = ".safetensors"
TORCH_SUFFIXES = (".pth", ".pt")
WEIGHTS_HASH_KEY = "weights_sha256"
"""In a training state: the SHA-256 of the safetensors file it belongs to."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a weight file holds besides the weights, and how its description was found.

    Values can be had by name too: ``checkpoint["epoch"]``.

    Attributes
    ----------
    weights : WeightFile
    resolution : Resolution
        The description with the places it comes from, conflicts between them, remarks.
    epoch : int, optional
    metrics : mapping
    """

    weights: WeightFile
    resolution: Resolution
    epoch: int | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    _stored: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def optimizer_state_dict(self) -> Mapping[str, Any] | None:
        """The optimizer's state, read from the file beside the weights when it is asked for; None: there is none.

        Raises
        ------
        InvalidWeights
            The file beside the weights is damaged or unsafe.
        """
        if "optimizer_state_dict" in self._stored:
            return self._stored["optimizer_state_dict"]
        path = training_path(self.weights.path)
        if self.weights.format is not FileType.SAFETENSORS or not path.is_file():
            return None
        state = torchmodel.read_torch(path)
        if not isinstance(state, Mapping) or state.get(WEIGHTS_HASH_KEY) != self.weights.sha256:
            logger.warning("%s belongs to other weights; it is not used", path.name)
            return None
        return state.get("optimizer_state_dict")

    def __getitem__(self, name: str) -> Any:
        if name in ("epoch", "metrics", "optimizer_state_dict"):
            return getattr(self, name)
        return self._stored[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of that name, or ``default``."""
        try:
            return self[name]
        except KeyError:
            return default


def training_path(weights: Path) -> Path:
    """Where the training state of a safetensors file lies."""
    return weights.with_name(f"{weights.stem}.training.pth")


def save_model_with_config(
    model: nn.Module,
    checkpoint_path: str | Path,
    config: ModelConfig,
    optimizer: torch.optim.Optimizer | None = None,
    epoch: int | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """Write weights and description so that each names the other.

    The weights appear whole or not at all. The description is also written into the weight file, so that
    the two cannot be parted. A training state goes into a file of its own beside ``.safetensors``, and into
    the same file for ``.pth``.

    Parameters
    ----------
    model : torch.nn.Module
    checkpoint_path : path
        ``.safetensors``, ``.pth`` or ``.pt``.
    config : ModelConfig
        Its list of files is made anew; parameters that the tensors show and it leaves open are filled in.
    optimizer : torch.optim.Optimizer, optional
    epoch : int, optional
    metrics : mapping, optional
        Plain values; numbers of NumPy and PyTorch become plain ones.

    Returns
    -------
    ModelConfig
        As written, bound to the files.

    Raises
    ------
    ConfigMismatch
        The description is of another architecture than the network; nothing is written.
    InvalidWeights
        The description is not valid; nothing is written.
    InputError
        Another ending, or a value that cannot be written safely.
    OutputError
        The folder cannot take the files.
    """
    path = Path(checkpoint_path)
    if path.suffix.lower() not in (SAFETENSORS_SUFFIX, *TORCH_SUFFIXES):
        raise InputError(
            f"'{path.name}' is no name for weights.", todo="Use the ending .safetensors (recommended) or .pth."
        )
    training = {"epoch": plain_value(epoch, "epoch"), "metrics": plain_value(metrics or {}, "metrics")}
    state = torchmodel.plain_state(model)
    described = _completed(config, {name: tuple(tensor.shape) for name, tensor in state.items()})
    if training["metrics"]:
        described = replace(described, provenance=replace(described.provenance, metrics=training["metrics"]))
    described = replace(described, files=())
    described_text = described.text  # says what is wrong with it before anything is written
    with replacing(path) as partial:
        files = _write(partial, state, described_text, training, optimizer)
        if path.exists():
            files[0] = replace(files[0], replaces=file_sha256(path))
        bound = replace(described, files=tuple(files))
        (partial.parent / place_for(path).name).write_text(bound.text, encoding="utf-8")
    return bound


def load_model_with_config(
    checkpoint_path: str | Path,
    model_factory: Callable[..., nn.Module],
    device: str | torch.device = "cpu",
    *,
    config: ModelConfig | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, ModelConfig, Checkpoint]:
    """Load a network whose description and tensors agree.

    Parameters
    ----------
    checkpoint_path : path
    model_factory : callable
        Gets the architecture's parameters by name, returns the network.
    device : str or torch.device
    config : ModelConfig, optional
        Comes before all descriptions that are found.
    parameters : mapping, optional
        Parameters of the architecture; they come before those of any description.

    Returns
    -------
    model : torch.nn.Module
        On the device, in evaluation mode; every one of its tensors comes from the file.
    config : ModelConfig
    checkpoint : Checkpoint

    Raises
    ------
    ConfigMismatch
        Description and tensors contradict each other. Told from the header; no tensor was read.
    InvalidWeights
        The file is damaged, unsafe or not the one described; or nothing says which network it holds.
    FileMissing, UnreadableFile
    InputError
        The factory does not take the parameters.
    MissingPackage
    """
    weights = inspect_tensors(checkpoint_path)
    resolution = resolve(weights, config=config, parameters=parameters)
    for remark in (*resolution.remarks, *(str(conflict) for conflict in resolution.conflicts)):
        logger.warning("%s: %s", weights.path.name, remark)
    model = _build(model_factory, resolution.config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if hasattr(tensor, "shape")}
    difference = first_difference(wanted, weights.shapes) or _kind_difference(model, weights)
    if difference:
        raise mismatch(weights, resolution, difference)
    state, rest = torchmodel.read_weights(weights)
    model.load_state_dict(without_prefix(state, best_prefix(state, wanted)))
    metrics = rest.get("metrics")
    checkpoint = Checkpoint(
        weights, resolution, rest.get("epoch"), metrics if isinstance(metrics, Mapping) else {}, rest
    )
    return model.to(device).eval(), resolution.config, checkpoint


def plain_value(value: Any, place: str) -> Any:
    """A value as JSON has it; numbers of NumPy and PyTorch, and arrays of one number, become plain numbers.

    Raises
    ------
    InputError
        Where it cannot be; the message says where.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain_value(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if getattr(value, "ndim", None) is not None and hasattr(value, "tolist"):
        return plain_value(value.tolist(), place)
    raise InputError(
        f"{place} is a {type(value).__name__}, which cannot be saved.", todo="Use plain numbers and texts."
    )


def _completed(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """The description with what the tensors show filled in; `ConfigMismatch` where they contradict each other."""
    known = KNOWN.get(config.architecture.name)
    if known is None:
        return config
    found = recognise(shapes)
    parameters = {**(found.parameters if found else {}), **config.architecture.parameters}
    complete = all(name in parameters for name in known.parameters)
    difference = first_difference(known.expected_shapes(parameters), shapes) if complete else f"it is no {known.name}"
    if difference:
        looks = found.text if found else "no network known here"
        stated = parameters_text(config.architecture.parameters) or config.architecture.name
        raise ConfigMismatch(
            f"The network does not fit its description: {difference.replace('the file', 'the network')}.",
            why=f"The network looks like {looks}; the description says {stated}.",
            todo="Give the description that the network was built after.",
        )
    completed = replace(config, architecture=replace(config.architecture, parameters=parameters))
    return renew_assumed(completed, known)


def _write(
    path: Path,
    state: Mapping[str, torch.Tensor],
    description: str,
    training: Mapping[str, Any],
    optimizer: torch.optim.Optimizer | None,
) -> list[FileEntry]:
    """Write weights and training state; the entries that bind a description to them."""
    if path.suffix.lower() in TORCH_SUFFIXES:
        content = {"model_state_dict": dict(state), **training, CHECKPOINT_CONFIG_KEY: json.loads(description)}
        if optimizer is not None:
            content["optimizer_state_dict"] = optimizer.state_dict()
        torchmodel.write_torch(path, content)
        return [_entry(path, FileRole.WEIGHTS, FileType.TORCH)]
    metadata = {CONFIG_KEY: description, torchmodel.TRAINING_KEY: json.dumps(training)}
    torchmodel.write_safetensors(path, state, metadata)
    entries = [_entry(path, FileRole.WEIGHTS, FileType.SAFETENSORS)]
    if optimizer is not None:
        beside = training_path(path)
        content = {WEIGHTS_HASH_KEY: entries[0].sha256, **training, "optimizer_state_dict": optimizer.state_dict()}
        torchmodel.write_torch(beside, content)
        entries.append(_entry(beside, FileRole.TRAINING_STATE, FileType.TORCH))
    return entries


def _entry(path: Path, role: FileRole, kind: FileType) -> FileEntry:
    return FileEntry(path.name, role, kind, path.stat().st_size, file_sha256(path))


def _build(factory: Callable[..., nn.Module], config: ModelConfig) -> nn.Module:
    parameters = config.get_model_params()
    try:
        signatures.signature(factory).bind(**parameters)
    except ValueError:
        pass  # a factory written in C has no signature
    except TypeError as error:
        raise InputError(
            f"The network's factory does not fit the description '{config.id}'.",
            why=f"It gets {parameters_text(parameters) or 'no parameters'}; {error}.",
            todo="Use the factory of that architecture.",
        ) from error
    return factory(**parameters)


def _kind_difference(model: nn.Module, weights: WeightFile) -> str:
    """The first tensor that holds real numbers on one side and whole ones on the other; empty where none does."""
    prefix = best_prefix(weights.tensors, model.state_dict())
    infos = without_prefix(weights.tensors, prefix)
    for name, tensor in model.state_dict().items():
        info = infos.get(name)
        if info is not None and tensor.is_floating_point() != info.dtype.startswith(("float", "bfloat")):
            return (
                f"tensor '{name}' is expected as {str(tensor.dtype).removeprefix('torch.')}, the file has {info.dtype}"
            )
    return ""
