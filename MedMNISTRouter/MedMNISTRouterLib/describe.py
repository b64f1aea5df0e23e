"""The description of a user's Keras file: the one beside it, else what the published service did, marked assumed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from MedAILib.errors import MedAIError
from MedAILib.models.config import Architecture, ModelConfig, Provenance
from MedAILib.models.descriptions import config_paths
from MedAILib.models.heads import Activation, ClassInfo, Head, HeadTask, Input, Normalisation, NormalisationKind, Resize
from MedMNISTRouterLib.datasets import BY_FLAG, FLAGS, DatasetTask
from MedMNISTRouterLib.kerascheck import KerasFacts
from MedMNISTRouterLib.modelfolder import FAMILY
from MedMNISTRouterLib.prepare import GREY
from MedMNISTRouterLib.request import ROUTER
from MedMNISTRouterLib.scaling import BGR, CAFFE, RAW, RGB

logger = logging.getLogger(__name__)

SIZE = (64, 64)
SLOT = "slot"
"""Key of ``architecture.parameters``: which slot a model is for."""

_TASKS = {
    DatasetTask.MULTI_CLASS: HeadTask.MULTI_CLASS,
    DatasetTask.BINARY: HeadTask.BINARY,
    DatasetTask.MULTI_LABEL: HeadTask.MULTI_LABEL,
    DatasetTask.ORDINAL: HeadTask.ORDINAL,
}


def describe_keras(path: Path, slot: str, facts: KerasFacts, sha256: str) -> ModelConfig:
    """How pictures go into a Keras file and what its answers mean.

    A description beside the file counts where it names the file's hash. What nobody states is taken as in the
    published service (64 x 64, ResNet50's preprocessing, classes in alphabetical order), or as the file's own first
    layers ask for, and is listed in ``assumed``.
    """
    stated = _stated(path, sha256)
    config = _assumed(path, slot, facts)
    if stated is None:
        return config
    return replace(
        stated,
        family=FAMILY,
        architecture=Architecture(stated.architecture.name, {**stated.architecture.parameters, SLOT: slot}),
        inputs=stated.inputs or config.inputs,
        heads=stated.heads or config.heads,
        files=(),
        gate=None,
        assumed=config.assumed if not stated.inputs else stated.assumed,
    )


def with_activation(config: ModelConfig, applied: Activation) -> ModelConfig:
    """The description, once it is known what the network has applied to its answers already."""
    head = config.heads[0]
    missing = Activation.NONE
    if applied is Activation.NONE:
        sigmoid = head.task is HeadTask.MULTI_LABEL or config.architecture.parameters.get("outputs") == 1
        missing = Activation.SIGMOID if sigmoid else Activation.SOFTMAX
    return replace(config, heads=(replace(head, activation=missing),))


def slot_head(slot: str) -> Head:
    """Classes and task of a slot."""
    if slot == ROUTER:
        classes = tuple(ClassInfo(index, flag) for index, flag in enumerate(FLAGS))
        return Head("dataset", HeadTask.MULTI_CLASS, classes)
    dataset = BY_FLAG[slot]
    classes = tuple(ClassInfo(index, name) for index, name in enumerate(dataset.class_names))
    return Head(slot, _TASKS[dataset.task], classes)


def _stated(path: Path, sha256: str) -> ModelConfig | None:
    for place in config_paths(path):
        if not place.is_file():
            continue
        try:
            config = ModelConfig.load(place)
        except MedAIError as error:
            logger.warning("%s is not used: %s", place, error.text)
            continue
        if config.file_with_hash(sha256) is not None and len(config.inputs) <= 1 and len(config.heads) <= 1:
            return config
    return None


def _assumed(path: Path, slot: str, facts: KerasFacts) -> ModelConfig:
    rows, columns, channels = facts.input_shape or (*SIZE, 3)
    size = (rows or SIZE[0], columns or SIZE[1])
    if channels == 1:
        names, normalisation = GREY, Normalisation(NormalisationKind.FIXED, scale=255.0, mean=(0.0,), std=(1.0,))
    else:
        names, normalisation = BGR, CAFFE
    if facts.scales_itself:
        names, normalisation = (GREY if channels == 1 else RGB), RAW
    what = "router" if slot == ROUTER else f"{BY_FLAG[slot].title} expert"
    return ModelConfig(
        id=f"medmnist-{slot}-keras",
        family=FAMILY,
        architecture=Architecture("keras", {SLOT: slot, "outputs": facts.outputs or 0}),
        title=f"MedMNIST {what} ({path.name})",
        intended_use="Research only. Not for clinical use.",
        inputs=(Input(channels=names, size=size, resize=Resize.CUBIC, normalisation=normalisation),),
        heads=(slot_head(slot),),
        provenance=Provenance(converted_from=path.name),
        assumed=("$.inputs[0].channels", "$.inputs[0].normalisation", "$.inputs[0].resize", "$.heads[0].classes"),
    )
