"""A user's Keras file, judged without Keras: is it safe, and does it fit the slot it is meant for?"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedAILib.errors import InvalidWeights
from MedAILib.models.heads import Activation
from MedAILib.models.inspection import FileFormat, inspect
from MedMNISTRouterLib.datasets import BY_FLAG, FLAGS, DatasetTask
from MedMNISTRouterLib.request import ROUTER

_OLD_SUFFIXES = (".h5", ".hdf5")
_ACTIVATIONS = {"softmax": Activation.SOFTMAX, "sigmoid": Activation.SIGMOID, "linear": Activation.NONE}
_SCALING = ("Rescaling", "Normalization")
_PASSING = ("Dropout", "Flatten", "Reshape", "Activation", "Softmax")


@dataclass(frozen=True)
class KerasFacts:
    """What a Keras file says of itself; what it leaves open is found out when Keras opens it.

    Attributes
    ----------
    outputs : int, optional
        Numbers per picture.
    input_shape : tuple of int or None
        Rows, columns, channels; empty where not stated.
    activation : Activation, optional
        Of the last layer: what has been applied to its answers already.
    scales_itself : bool
        Whether its first layers turn 0..255 into what the network takes.
    keras_version : str
    warnings : tuple of str
    """

    outputs: int | None
    input_shape: tuple[int | None, ...]
    activation: Activation | None
    scales_itself: bool
    keras_version: str
    warnings: tuple[str, ...] = ()


def allowed_outputs(slot: str) -> tuple[int, ...]:
    """How many numbers a model of that slot may answer."""
    if slot == ROUTER:
        return (len(FLAGS),)
    dataset = BY_FLAG[slot]
    return (2, 1) if dataset.task is DatasetTask.BINARY else (len(dataset.class_names),)


def check_keras_file(path: Path, slot: str) -> KerasFacts:
    """Refuse what must not or cannot be used for a slot.

    Parameters
    ----------
    path : Path
    slot : str
        `MedMNISTRouterLib.request.ROUTER` or a data set's flag.

    Raises
    ------
    InvalidWeights
        Not a ``.keras`` file, damaged, unsafe (a layer with code, a foreign class, a link out of the file, a bomb),
        or with another number of inputs or outputs than the slot needs.
    FileMissing, UnreadableFile
    """
    found = inspect(path)
    if found.format is FileFormat.HDF5 or path.suffix.lower() in _OLD_SUFFIXES:
        raise InvalidWeights(
            f"'{path}' is a model of Keras 2 in HDF5, which is not opened here.",
            why="Keras 3 misreads many of them, and loading one can run code that it carries.",
            todo="Load it where it was trained and save it again with Keras 3: model.save('name.keras').",
        )
    if found.format is not FileFormat.KERAS:
        raise InvalidWeights(f"'{path}' is no Keras model.", why=f"It is {found.format.value}.")
    config, version = _read(path)
    facts = KerasFacts(
        _outputs(config), _input_shape(config), _activation(config), _scales_itself(config), version, found.warnings
    )
    _check_ends(path, config)
    check_outputs(path, slot, facts.outputs)
    return facts


def check_outputs(path: Path, slot: str, outputs: int | None) -> None:
    """Refuse a model that answers another number of classes than its slot has; None: not known yet."""
    allowed = allowed_outputs(slot)
    if outputs is None or outputs in allowed:
        return
    who = "the router chooses between" if slot == ROUTER else f"{BY_FLAG[slot].title} has"
    what = "data sets" if slot == ROUTER else "classes"
    raise InvalidWeights(
        f"'{path}' answers {outputs} numbers, but {who} {max(allowed)} {what}.",
        why="It is a model for something else, or its last layer was changed.",
        todo="Import the file that belongs to this slot.",
    )


def _read(path: Path) -> tuple[Mapping[str, Any], str]:
    with zipfile.ZipFile(path) as archive:
        try:
            config = json.loads(archive.read("config.json"))
            version = str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
        except (ValueError, AttributeError) as error:
            raise InvalidWeights(f"'{path}' is damaged.", why=f"Its description is no JSON: {error}.") from error
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise InvalidWeights(f"'{path}' is damaged.", why="It does not describe a model.")
    return config, version


def _layers(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    layers = config["config"].get("layers")
    return [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []


def _inner(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = layer.get("config")
    return inner if isinstance(inner, dict) else {}


def _last(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The layers from the last back to the one whose weights decide the outputs, models within unfolded."""
    layers = _layers(config)
    ends = config["config"].get("output_layers")
    if config.get("class_name") == "Functional" and isinstance(ends, list) and ends:
        last = ends if isinstance(ends[0], str) else ends[0]
        by_name = {_inner(layer).get("name"): layer for layer in layers}
        end = by_name.get(last[0] if isinstance(last, list) and last else None)
        position = layers.index(end) if end is not None else len(layers) - 1
        layers = layers[: position + 1]
    found: list[Mapping[str, Any]] = []
    for layer in reversed(layers):
        if "layers" in _inner(layer):
            return found + _last(layer)
        found.append(layer)
        if layer.get("class_name") not in _PASSING:
            break
    return found


def _outputs(config: Mapping[str, Any]) -> int | None:
    layers = _last(config)
    units = _inner(layers[-1]).get("units") if layers and layers[-1].get("class_name") == "Dense" else None
    return units if isinstance(units, int) else None


def _activation(config: Mapping[str, Any]) -> Activation | None:
    """Of the last layer that has one; None where the file does not tell."""
    for layer in _last(config):
        if layer.get("class_name") == "Softmax":
            return Activation.SOFTMAX
        name = _inner(layer).get("activation")
        if name not in (None, "linear"):
            return _ACTIVATIONS.get(name) if isinstance(name, str) else None
    return Activation.NONE if _outputs(config) is not None else None


def _input_shape(config: Mapping[str, Any]) -> tuple[int | None, ...]:
    for layer in _layers(config):
        if "layers" in _inner(layer):
            shape = _input_shape(layer)
        else:
            batch = _inner(layer).get("batch_shape") or _inner(layer).get("batch_input_shape")
            shape = tuple(batch[1:]) if isinstance(batch, list) else ()
        if len(shape) == 3:
            return shape
    return ()


def _scales_itself(config: Mapping[str, Any]) -> bool:
    for layer in _layers(config)[:4]:
        if layer.get("class_name") in _SCALING or ("layers" in _inner(layer) and _scales_itself(layer)):
            return True
    return False


def _check_ends(path: Path, config: Mapping[str, Any]) -> None:
    """One picture in, one list of numbers out."""
    for key, what in (("input_layers", "inputs"), ("output_layers", "outputs")):
        ends = config["config"].get(key)
        count = len(ends) if isinstance(ends, list | dict) and ends and not _is_one_tensor(ends) else 1
        if count != 1:
            raise InvalidWeights(
                f"'{path}' has {count} {what}.",
                why="A model here takes one picture and answers one list of numbers.",
                todo="Save a model with one input and one output.",
            )


def _is_one_tensor(ends: Any) -> bool:
    """``["name", 0, 0]``, as Keras 3 writes a single end."""
    return isinstance(ends, list) and len(ends) == 3 and isinstance(ends[0], str) and isinstance(ends[1], int)
