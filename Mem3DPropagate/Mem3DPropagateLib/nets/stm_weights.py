"""Published STM and VMN weights into the network, whole or not at all. Needs torch.

    loaded = load_stm(Manager().weights("mem3d-vmn-youtube-vos"))
    loaded = load_stm("my_training_checkpoint.pth")

Variant and family are read off the file's header. A file in which one tensor is missing, too many, of another shape
or not a number is refused with the names of all of them: a network with one tensor left as it was made answers
masks that look like answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from MedAILib.errors import InvalidWeights
from MedAILib.models.checkpoint import load_model_with_config
from MedAILib.models.config import ModelConfig
from MedAILib.models.exact import refuse, require_finite
from MedAILib.models.infer import STM as KNOWN_STM
from MedAILib.models.infer import differences, parameters_text
from MedAILib.models.stm_inference import BACKGROUND, SECOND_MASK
from MedAILib.models.tensornames import prefixes_of, without_prefix
from MedAILib.models.tensors import WeightFile, inspect_tensors
from Mem3DPropagateLib.nets.stm import STM


@dataclass(frozen=True, eq=False)
class LoadedStm:
    """A network all of whose tensors come from a file.

    Attributes
    ----------
    network : STM
        In evaluation mode.
    config : ModelConfig
        Its description; what is assumed in it says ``config.assumed``.
    weights : WeightFile
    """

    network: STM
    config: ModelConfig
    weights: WeightFile

    @property
    def name(self) -> str:
        """The model's id."""
        return self.config.id

    @property
    def sha256(self) -> str:
        """Of the weight file."""
        return self.weights.sha256

    @property
    def text(self) -> str:
        """Variant and family in words, such as ``stm with variant=plain mask_input=background ...``."""
        return f"{KNOWN_STM.name} with {parameters_text(self.config.get_model_params())}"


def load_stm(path: str | Path, device: str | torch.device = "cpu") -> LoadedStm:
    """Load a weight file of any variant and family.

    Parameters
    ----------
    path : path
        safetensors, or what ``torch.save`` wrote, old kind or new: bare tensors, or a training checkpoint; names
        may begin with ``module.``.
    device : str or torch.device

    Raises
    ------
    InvalidWeights
        It is damaged, unsafe, of another network, or not exactly the tensors of this one: then its message names them
        (those that do not fit into it are in ``details``).
    ConfigMismatch
        A description of the file contradicts it.
    FileMissing, UnreadableFile, MissingPackage
    """
    weights = inspect_tensors(path)
    check_tensors(weights.shapes, weights.path.name)
    network, config, checkpoint = load_model_with_config(path, STM, device)
    require_finite(network.state_dict(), weights.path.name)
    return LoadedStm(cast(STM, network).requires_grad_(False), config, checkpoint.weights)


def check_tensors(shapes: Mapping[str, tuple[int, ...]], file_name: str) -> None:
    """Refuse tensors that are not exactly those of one variant and family.

    Parameters
    ----------
    shapes : mapping
        Names, with or without a known prefix, and shapes.
    file_name : str
        For the message.

    Raises
    ------
    InvalidWeights
        Every difference is named.
    """
    parameters = None
    for prefix in prefixes_of(shapes):
        parameters = parameters or KNOWN_STM.guess(without_prefix(shapes, prefix))
    if parameters is None:
        raise InvalidWeights(
            f"'{file_name}' holds no space-time memory network.",
            why="It lacks whole parts of it: encoders of memory and query, their keys and values, or the decoder.",
            todo="Give a file of STM, of the volumetric memory network (VMN), or of Mem3D.",
        )
    expected = KNOWN_STM.expected_shapes(parameters)
    found = list(differences(expected, shapes, counters_may_be_missing=False))
    if not any(name.endswith(tuple(SECOND_MASK.values())) for name in shapes):
        neither = " nor ".join(f"'{name}'" for name in SECOND_MASK.values())
        instead = f"tensor '{SECOND_MASK[BACKGROUND]}' is expected"
        found = [f"neither {neither} is in the file" if text.startswith(instead) else text for text in found]
    refuse(found, file_name, f"{KNOWN_STM.name} with {parameters_text(parameters)}")
