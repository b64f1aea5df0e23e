"""Keras models in HDF5 files: the description of the layers and their weights, read with h5py, without Keras.

Layout (Keras 1 to 3, ``model.save("x.h5")``): attribute ``model_config`` of the file, JSON; group
``model_weights`` (or the file itself, where only weights were saved) with attribute ``layer_names``; in it a
group per layer with attribute ``weight_names``, which name the datasets below it. Long lists of names are cut
into attributes ``weight_names0``, ``weight_names1``, ...
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.errors import InvalidWeights, MissingPackage
from MedAILib.models.inspection import FileFormat, inspect


@dataclass(frozen=True, eq=False)
class KerasFile:
    """What a Keras file holds.

    Attributes
    ----------
    path : Path
    config : mapping
        ``model_config``: ``{"class_name": ..., "config": {...}}``.
    weights : mapping of str to mapping of str to ndarray
        By layer, then by the last part of the weight's name (``kernel``, ``moving_mean``); float32.
    """

    path: Path
    config: Mapping[str, Any]
    weights: Mapping[str, Mapping[str, np.ndarray]]


def read_keras_file(path: Path) -> KerasFile:
    """Read a whole model from an HDF5 file.

    Raises
    ------
    FileMissing, UnreadableFile
    InvalidWeights
        The file is damaged, unsafe, of another format, or holds weights without a description of the layers.
    MissingPackage
        h5py is not installed.
    """
    found = inspect(path)
    if found.format is not FileFormat.HDF5:
        raise InvalidWeights(f"'{path}' is no Keras model in HDF5.", why=f"It is {found.format.value}.")
    try:
        import h5py
    except ImportError as error:
        raise MissingPackage(
            "Keras models cannot be read.", why="The package h5py is not installed.", todo="pip install h5py"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            return KerasFile(path, _config(path, file), dict(_weights(path, file)))
    except (OSError, KeyError, ValueError) as error:
        raise InvalidWeights(
            f"'{path}' is damaged, or no Keras model.", why=f"{type(error).__name__}: {error}.", todo="Get it again."
        ) from error


def _config(path: Path, file: Any) -> Mapping[str, Any]:
    text = file.attrs.get("model_config")
    if text is None:
        raise InvalidWeights(
            f"'{path}' does not say what network its weights belong to.",
            why="It holds weights only, without the description of the layers (model_config).",
            todo="Use a file written by 'model.save', not by 'model.save_weights'.",
        )
    config = json.loads(text.decode("utf-8") if isinstance(text, bytes) else str(text))
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise InvalidWeights(f"The description of the layers in '{path}' is not one of Keras 2 or 3.")
    return config


def _weights(path: Path, file: Any) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    root = file.get("model_weights", file)
    for layer in _names(root, "layer_names"):
        group, arrays = root[layer], {}
        for name in _names(group, "weight_names"):
            key = name.rpartition("/")[2].partition(":")[0]
            if key in arrays:
                raise InvalidWeights(
                    f"Layer '{layer}' in '{path}' has two weights called '{key}'.",
                    why="It is a model inside the model, or a layer of a kind not known here.",
                    todo="Save the model with all layers in one graph.",
                )
            arrays[key] = np.asarray(group[name], dtype=np.float32)
        if arrays:
            yield layer, arrays


def _names(group: Any, attribute: str) -> list[str]:
    """The names in an attribute, or in its numbered parts."""
    values = group.attrs.get(attribute)
    if values is None:
        parts: list[Any] = []
        while f"{attribute}{len(parts)}" in group.attrs:
            parts.append(group.attrs[f"{attribute}{len(parts)}"])
        values = [name for part in parts for name in part]
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in values]
