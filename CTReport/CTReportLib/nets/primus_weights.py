"""Weight files of Primus into the encoder, whole or not at all. Needs torch.

    loaded = load_primus("colipri/model.safetensors")          # the encoder inside a model of images and texts
    loaded = load_primus("encoder.safetensors")                # the encoder in a file of its own

Of larger files only the encoder is read, and the projection beside it where there is one; of these a tensor that is
missing, too many, of another shape or not a number is refused with the names of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import nn

from CTReportLib.nets.loaded import Loaded
from CTReportLib.nets.primus import Primus, SharedSpace
from MedAILib.errors import InvalidWeights
from MedAILib.models import torchmodel
from MedAILib.models.checkpoint import load_model_with_config
from MedAILib.models.config import ModelConfig
from MedAILib.models.descriptions import find_descriptions
from MedAILib.models.exact import require_exact, require_finite, shapes_of
from MedAILib.models.infer import PRIMUS, Recognised
from MedAILib.models.primus_inference import TELLING
from MedAILib.models.resolve import inferred_config
from MedAILib.models.tensornames import prefixes_of
from MedAILib.models.tensors import WeightFile, inspect_tensors

REASON_CT_PART = "vision3d.sub_vision."
"""How the encoder's tensors are called in NV-Reason-CT, whose volumes lie as `CTReportLib.preprocess` prepares them."""
BACKBONE = "backbone."
"""Last part of their names in COLIPRI, and in models that took it over whole."""
PROJECTOR, POOLER = "projector.", "pooler."
"""Beside the backbone: the way into the space shared with texts."""

Shape = tuple[int, ...]
T = TypeVar("T")


def load_primus(path: str | Path, device: str | torch.device = "cpu") -> Loaded[Primus]:
    """Load the encoder, of any width and depth, from a file of its own or from a larger model.

    Parameters
    ----------
    path : path
        safetensors, or what ``torch.save`` wrote.
    device : str or torch.device

    Raises
    ------
    InvalidWeights
        It is damaged, unsafe, of another network, or not exactly the tensors of this one (all in ``details``).
    ConfigMismatch
        A description of the file contradicts it.
    InputError
        Nothing says how many heads share a width that is not a published one.
    FileMissing, UnreadableFile, MissingPackage
    """
    weights = inspect_tensors(path)
    name = weights.path.name
    prefix = prefix_of(weights.shapes, name)
    shapes = part_of(weights.shapes, prefix)
    found = Recognised(PRIMUS, PRIMUS.guess(shapes) or {})
    if not found.parameters:
        raise InvalidWeights(f"'{name}' holds no Primus encoder.", why="Whole parts of it are missing or misshapen.")
    require_exact(PRIMUS.expected_shapes(found.parameters), shapes, name, found.text)
    if len(shapes) == len(weights.shapes) and prefix in prefixes_of(weights.shapes):
        network, config, _ = load_model_with_config(path, Primus, device)
        require_finite(network.state_dict(), name)
        return Loaded(cast(Primus, network).requires_grad_(False), weights, config)
    encoder = Primus(**found.parameters)
    state = torchmodel.read_weights(weights)[0]
    _fill(encoder, part_of(state, prefix), name)
    if prefix.endswith(BACKBONE):
        encoder.shared = _shared_space(weights, state, prefix.removesuffix(BACKBONE), encoder.width)
    config = _described(weights, found, prefix)
    return Loaded(encoder.to(device).eval().requires_grad_(False), weights, config)


def prefix_of(shapes: Mapping[str, Shape], file_name: str) -> str:
    """What the names of the encoder's tensors begin with in a file.

    Raises
    ------
    InvalidWeights
        It holds no such encoder, or several.
    """
    last = TELLING[1]
    found = [name.removesuffix(last) for name in shapes if name == last or name.endswith(f".{last}")]
    found = [prefix for prefix in found if all(prefix + name in shapes for name in TELLING)]
    if len(found) == 1:
        return found[0]
    raise InvalidWeights(
        f"'{file_name}' holds {'several Primus encoders' if found else 'no Primus encoder'}.",
        why=f"They are in {', '.join(found)}." if found else f"It lacks {', '.join(TELLING)}.",
        todo="Give a file with one encoder.",
    )


def part_of(items: Mapping[str, T], prefix: str) -> dict[str, T]:
    """What begins with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in items.items() if name.startswith(prefix)}


def _shared_space(
    weights: WeightFile, state: Mapping[str, torch.Tensor], parent: str, width: int
) -> SharedSpace | None:
    """The projection beside the backbone, where the file has one."""
    beside = {name: shape for name, shape in part_of(weights.shapes, parent).items() if _is_beside(name)}
    into = beside.get(f"{PROJECTOR}weight", ())
    if len(into) != 5 or "pooler.attn.in_proj_weight" not in beside:
        return None
    space = SharedSpace(width, into[0])
    require_exact(shapes_of(space.state_dict()), beside, weights.path.name, "the projection of COLIPRI")
    _fill(space, {name: state[parent + name] for name in space.state_dict()}, weights.path.name)
    return space


def _is_beside(name: str) -> bool:
    return name.startswith((PROJECTOR, POOLER))


def _described(weights: WeightFile, found: Recognised, prefix: str) -> ModelConfig:
    """As published; a description beside the file gives its id, and where the axes run if it says so."""
    config = inferred_config(weights, found)
    stated = next((one.config for one in find_descriptions(weights)[0] if one.config is not None), None)
    axes = stated.inputs[0].orientation if stated is not None and stated.inputs else ""
    if not axes and prefix.endswith(REASON_CT_PART):
        axes = "SPL"
    image = replace(config.inputs[0], orientation=axes or config.inputs[0].orientation)
    return replace(config, id=config.id if stated is None else stated.id, inputs=(image,))


def _fill(network: nn.Module, state: Mapping[str, torch.Tensor], file_name: str) -> None:
    require_finite(state, file_name)
    network.load_state_dict(dict(state))
