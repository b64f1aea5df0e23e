"""Descriptions of earlier forms brought to the present one, step by step.

Schema 0 is the flat form that had no schema number: ``base_filters, depth, in_channels,
seg_out_channels, cls_num_classes, model_type, version, description, trained_on, training_config``. It
says nothing about inputs and heads; those are filled with what the published model used, and marked assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from MedAILib.errors import InvalidWeights
from MedAILib.models.infer import MULTITASK_UNET
from MedAILib.models.records import record_to_json

SCHEMA = 1
"""The form that is written now."""

_FLAT_PARAMETERS = ("base_filters", "depth", "in_channels", "seg_out_channels", "cls_num_classes")
_FLAT_FIELDS = (*_FLAT_PARAMETERS, "model_type", "version", "description", "trained_on", "training_config")
_FLAT_EXTRAS = ("bilinear", "cls_hidden_dim", "dropout", "cls_dropout")
"""Parameters that the flat form did not have and that people added by hand."""


def is_flat(data: Mapping[str, Any]) -> bool:
    """Whether this is the form without a schema number."""
    return "schema" not in data and any(name in data for name in (*_FLAT_PARAMETERS, "model_type"))


def migrate(data: Mapping[str, Any], where: str = "The description") -> dict[str, Any]:
    """A description in the present form.

    Parameters
    ----------
    data : mapping
        Parsed JSON of any known form.
    where : str
        What it is called in an error: the path of its file.

    Raises
    ------
    InvalidWeights
        Where it was written by a newer version, or its form cannot be told.
    """
    schema = 0 if is_flat(data) else data.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 0:
        raise InvalidWeights(
            f"{where} is not a model description.",
            why="It has no 'schema' number, and none of the fields of the older flat form.",
            todo="Write one from the weights themselves: medai models describe PATH --write",
        )
    if schema > SCHEMA:
        raise InvalidWeights(
            f"{where} was written by a newer version of MedAI.",
            why=f"Its schema is {schema}; this version knows schemas up to {SCHEMA}.",
            todo="Update MedAI.",
        )
    current = dict(data)
    while schema < SCHEMA:
        current = _STEPS[schema](current)
        schema = current["schema"]
    return current


def _from_flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """Schema 0 to 1. A parameter that is not stated stays unstated: it may be read off the weights later."""
    parameters = {name: data[name] for name in (*_FLAT_PARAMETERS, *_FLAT_EXTRAS) if name in data}
    model_type = data.get("model_type", "multitask")
    known = model_type == "multitask"
    result: dict[str, Any] = {
        "schema": 1,
        "id": model_type,
        "family": MULTITASK_UNET.family if known else model_type,
        "architecture": {"name": MULTITASK_UNET.name if known else model_type, "parameters": parameters},
    }
    result |= {name: data[name] for name in ("version", "description") if name in data}
    provenance = {new: data[old] for old, new in _PROVENANCE.items() if data.get(old) not in (None, "", {})}
    if provenance:
        result["provenance"] = provenance
    if known and all(_is_count(parameters.get(name, 1)) for name in _FLAT_PARAMETERS):
        inputs, heads, assumed = MULTITASK_UNET.assumed(parameters)
        result["inputs"] = [record_to_json(item) for item in inputs]
        result["heads"] = [record_to_json(item) for item in heads]
        result["assumed"] = assumed
    kept = {key: value for key, value in data.items() if key not in (*_FLAT_FIELDS, *_FLAT_EXTRAS, *result)}
    return result | kept


_PROVENANCE = {"trained_on": "trained_on", "training_config": "training"}
_STEPS: dict[int, Callable[[Mapping[str, Any]], dict[str, Any]]] = {0: _from_flat}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
