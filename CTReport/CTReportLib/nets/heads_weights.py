"""Heads into files with their description, and back, whole or not at all. Needs torch.

save_head(head, path, describe_head("my-head", "ct_linear_probe", names), fitted)
loaded = load_head(path)
loaded.network(features), loaded.head       # raw numbers; classes, calibration, thresholds
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from CTReportLib.nets.heads import AttentionProbe, LinearProbe, PromptClassifier
from CTReportLib.nets.heads_calibration import FindingCalibration, described
from CTReportLib.nets.heads_unet import TextUNet
from CTReportLib.nets.heads_zeroshot import ZeroShot
from CTReportLib.nets.loaded import architecture_text, load_described
from MedAILib.errors import ConfigMismatch, InvalidWeights
from MedAILib.models.checkpoint import save_model_with_config
from MedAILib.models.config import Architecture, ModelConfig, Provenance
from MedAILib.models.exact import shapes_of
from MedAILib.models.heads import Activation, ClassInfo, Head, HeadTask
from MedAILib.models.resolve import resolve
from MedAILib.models.tensors import WeightFile, inspect_tensors

FAMILY = "chest-ct-findings"
HEAD = "findings"
"""Name of the one head in the description."""
FACTORIES: Mapping[str, Callable[..., nn.Module]] = {
    "ct_prompt_classifier": PromptClassifier,
    "ct_linear_probe": LinearProbe,
    "ct_attention_probe": AttentionProbe,
    "ct_zero_shot": ZeroShot,
    "ct_text_unet": TextUNet,
}
DRAWING = ("ct_text_unet",)
"""Those that answer for every voxel."""
ENCODER_KEY = "encoder_sha256"
"""Among what the description says of the training."""


@dataclass(frozen=True, eq=False)
class LoadedHead:
    """A head all of whose tensors come from a file.

    Attributes
    ----------
    network : torch.nn.Module
        One of `FACTORIES`, in evaluation mode, without gradients.
    config : ModelConfig
    weights : WeightFile
    """

    network: nn.Module
    config: ModelConfig
    weights: WeightFile

    @property
    def head(self) -> Head:
        """Classes in order, calibration and thresholds."""
        return self.config.heads[0]

    @property
    def encoder_sha256(self) -> str:
        """Of the encoder's weights whose features it was trained on; empty where that is not stated."""
        training = self.config.provenance.training
        return str(training.get(ENCODER_KEY, "")) if isinstance(training, Mapping) else ""


def describe_head(
    name: str,
    architecture: str,
    findings: tuple[str, ...],
    *,
    encoder_sha256: str = "",
    **parameters: Any,
) -> ModelConfig:
    """The description of a head that is not calibrated yet.

    Parameters
    ----------
    name : str
        The model's id.
    architecture : str
        One of `FACTORIES`.
    findings : tuple of str
        In the order of the network's answers.
    encoder_sha256 : str
        Of the encoder's weights: on the features of another one its answers mean nothing.
    **parameters
        Of the factory, beside the number of findings.
    """
    classes = tuple(ClassInfo(index, finding) for index, finding in enumerate(findings))
    task = HeadTask.SEGMENTATION if architecture in DRAWING else HeadTask.MULTI_LABEL
    return ModelConfig(
        id=name,
        family=FAMILY,
        architecture=Architecture(architecture, {**parameters, "findings": len(findings)}),
        intended_use="Research use only. Not for diagnosis.",
        heads=(Head(HEAD, task, classes, Activation.SIGMOID),),
        provenance=Provenance(training={ENCODER_KEY: encoder_sha256} if encoder_sha256 else None),
    )


def save_head(
    network: nn.Module, path: str | Path, config: ModelConfig, fitted: tuple[FindingCalibration, ...] = ()
) -> ModelConfig:
    """Write a head and its description, with its calibration where there is one.

    Raises
    ------
    ConfigMismatch
        The network is not the one described.
    InputError, InvalidWeights, OutputError
        As `MedAILib.models.checkpoint.save_model_with_config`.
    """
    _require_known(config, Path(path).name)
    with torch.device("meta"):
        wanted = shapes_of(FACTORIES[config.architecture.name](**config.get_model_params()).state_dict())
    if wanted != shapes_of(network.state_dict()):
        raise ConfigMismatch(
            "The network does not fit its description.",
            why=f"The description says {architecture_text(config)}; the network has tensors of other names or shapes.",
            todo="Give the description that the network was built after.",
        )
    if fitted:
        config = replace(config, heads=(described(config.heads[0], fitted), *config.heads[1:]))
    return save_model_with_config(network, path, config)


def load_head(path: str | Path, device: str | torch.device = "cpu") -> LoadedHead:
    """Load a head of any kind from its file.

    Raises
    ------
    InvalidWeights
        It is damaged, unsafe, described by nothing, or not exactly the tensors of its head, each of which is named.
    ConfigMismatch
        Its description is of another network, or names another number of findings.
    FileMissing, UnreadableFile, MissingPackage
    """
    weights = inspect_tensors(path)
    config = resolve(weights).config
    _require_known(config, weights.path.name)
    loaded = load_described(weights, config, FACTORIES[config.architecture.name], device)
    return LoadedHead(loaded.network, loaded.config or config, loaded.weights)


def _require_known(config: ModelConfig, file_name: str) -> None:
    if config.architecture.name not in FACTORIES:
        raise InvalidWeights(
            f"'{file_name}' is no head for findings.",
            why=f"Its architecture is '{config.architecture.name}', not {', '.join(FACTORIES)}.",
            todo="Choose a model of the family chest-ct-findings.",
        )
    stated = config.get_model_params().get("findings")
    classes = len(config.heads[0].classes) if len(config.heads) == 1 else 0
    if stated != classes:
        raise ConfigMismatch(
            f"The description of '{file_name}' does not say what the network's answers are.",
            why=f"It names {classes} findings in one head; the network answers {stated}.",
            todo="Name every finding, in the order of the network's answers.",
        )
