"""The architecture of the multi-task U-Net, read off the shapes of its tensors.

Seven numbers decide every shape; every one of them can be read back. What decides no shape (dropout
rates, normalisation, input size, class names, thresholds) cannot, and is given as assumed.

Source of the layout: `MedAILib.multitask.network`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from MedAILib.models.heads import (
    Activation,
    ClassInfo,
    Head,
    HeadTask,
    Input,
    Normalisation,
    NormalisationKind,
    Resize,
    index_path,
)

NAME = "multitask_unet"
FAMILY = "multitask-unet"
PARAMETERS = (
    "in_channels",
    "seg_out_channels",
    "cls_num_classes",
    "base_filters",
    "depth",
    "bilinear",
    "cls_hidden_dim",
)
SEGMENTATION, CLASSIFICATION = "seg", "cls"
"""Names of the heads, as in the network's answer."""

Shape = tuple[int, ...]

_DEEPEST = 16
"""More halvings than any image allows; a file that claims more is not taken seriously."""
_PARTS = ("encoder.", "seg_decoder.", "cls_head.")
_DOWN_NAME = re.compile(r"encoder\.down_blocks\.(\d{1,9})\.")
_TRANSPOSED_NAME = re.compile(r"seg_decoder\.up_blocks\.\d+\.up\.")
_STEM = "encoder.inc.double_conv.0.weight"
_DOWN = "encoder.down_blocks.{}.maxpool_conv.1.double_conv"
_UP = "seg_decoder.up_blocks.{}"
_OUT = "seg_decoder.outc.conv"
_HIDDEN = "cls_head.classifier.1"
_CLASSES = "cls_head.classifier.4"


def guess(shapes: Mapping[str, Shape]) -> dict[str, Any] | None:
    """The seven parameters after the tensors that show them best; None where parts of the network are not there.

    Whether all tensors agree is not looked at, so one that is missing can be named afterwards.
    """
    if not all(any(name.startswith(part) for name in shapes) for part in _PARTS):
        return None
    levels = [int(found[1]) for found in map(_DOWN_NAME.match, shapes) if found]
    depth = max(levels, default=-1) + 1
    found = {
        "in_channels": _length(shapes, (_STEM, 1)),
        "seg_out_channels": _length(shapes, (f"{_OUT}.weight", 0), (f"{_OUT}.bias", 0)),
        "cls_num_classes": _length(shapes, (f"{_CLASSES}.weight", 0), (f"{_CLASSES}.bias", 0)),
        "base_filters": _length(shapes, (_STEM, 0), (f"{_OUT}.weight", 1)),
        "depth": depth,
        "bilinear": not any(_TRANSPOSED_NAME.match(name) for name in shapes),
        "cls_hidden_dim": _length(shapes, (f"{_HIDDEN}.weight", 0), (f"{_CLASSES}.weight", 1)),
    }
    return found if 1 <= depth <= _DEEPEST else None


def expected_shapes(parameters: Mapping[str, Any]) -> dict[str, Shape]:
    """Name and shape of every tensor of the network, in the order of its state dict.

    Parameters
    ----------
    parameters : mapping
        With the names of `PARAMETERS`; further ones (dropout rates) decide no shape.

    Raises
    ------
    KeyError
        Where one of the seven is missing.
    """
    values = {name: parameters[name] for name in PARAMETERS}
    depth, bilinear = int(values["depth"]), bool(values["bilinear"])
    widths = [int(values["base_filters"]) * 2**level for level in range(depth + 1)]
    shapes = _double_conv("encoder.inc.double_conv", int(values["in_channels"]), widths[0])
    for level in range(depth):
        shapes |= _double_conv(_DOWN.format(level), widths[level], widths[level + 1])
    for block, level in enumerate(range(depth, 0, -1)):
        prefix, below, skip = _UP.format(block), widths[level], widths[level - 1]
        if not bilinear:
            shapes |= {f"{prefix}.up.weight": (below, below // 2, 2, 2), f"{prefix}.up.bias": (below // 2,)}
        joined = skip + (below if bilinear else below // 2)
        shapes |= _double_conv(f"{prefix}.conv.double_conv", joined, skip)
    seg, hidden, classes = (int(values[name]) for name in ("seg_out_channels", "cls_hidden_dim", "cls_num_classes"))
    shapes |= {f"{_OUT}.weight": (seg, widths[0], 1, 1), f"{_OUT}.bias": (seg,)}
    shapes |= {f"{_HIDDEN}.weight": (hidden, widths[-1]), f"{_HIDDEN}.bias": (hidden,)}
    return shapes | {f"{_CLASSES}.weight": (classes, hidden), f"{_CLASSES}.bias": (classes,)}


def outputs(parameters: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """Channels of the input; channels of the segmentation and classes of the classification."""
    heads = {SEGMENTATION: int(parameters["seg_out_channels"]), CLASSIFICATION: int(parameters["cls_num_classes"])}
    return int(parameters["in_channels"]), heads


def assumed_input_and_heads(parameters: Mapping[str, Any]) -> tuple[tuple[Input, ...], tuple[Head, ...], list[str]]:
    """What the published model of this layout was trained with, and the paths of all that is assumed thereby.

    256 x 256 pixels, one grey channel, each image to mean 0 and deviation 1; a tumour probability from which
    the segmentation counts (0.3), a pixel probability (0.5).
    """
    channels = int(parameters.get("in_channels", 1))
    image = Input(
        channels=("image",) if channels == 1 else tuple(f"channel {index}" for index in range(channels)),
        modality="MR",
        size=(256, 256),
        resize=Resize.LINEAR,
        normalisation=Normalisation(NormalisationKind.Z_SCORE),
    )
    heads = (
        _segmentation_head(int(parameters.get("seg_out_channels", 1))),
        _classification_head(int(parameters.get("cls_num_classes", 2))),
    )
    assumed = [index_path("inputs", 0, name) for name in ("modality", "channels", "size", "resize", "normalisation")]
    assumed += [index_path("heads", head, name) for head in (0, 1) for name in ("classes", "activation", "threshold")]
    if heads[1].positive_class is not None:
        assumed.append(index_path("heads", 1, "positive_class"))
    return (image,), heads, assumed


def _segmentation_head(channels: int) -> Head:
    names = ("Tumor",) if channels == 1 else tuple(f"class {index}" for index in range(channels))
    return Head(SEGMENTATION, HeadTask.SEGMENTATION, _classes(names), Activation.SIGMOID, threshold=0.5)


def _classification_head(count: int) -> Head:
    if count == 2:
        classes = _classes(("No Tumor", "Tumor"))
        return Head(CLASSIFICATION, HeadTask.BINARY, classes, Activation.SOFTMAX, threshold=0.3, positive_class=1)
    classes = _classes(tuple(f"class {index}" for index in range(count)))
    task, activation = (
        (HeadTask.MULTI_CLASS, Activation.SOFTMAX) if count > 1 else (HeadTask.MULTI_LABEL, Activation.SIGMOID)
    )
    return Head(CLASSIFICATION, task, classes, activation, threshold=0.5 if count == 1 else None)


def _classes(names: tuple[str, ...]) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(index, name) for index, name in enumerate(names))


def _double_conv(prefix: str, in_channels: int, out_channels: int) -> dict[str, Shape]:
    """The two convolutions (places 0 and 4) and batch normalisations (1 and 5) of a block."""
    shapes: dict[str, Shape] = {}
    for place, channels in ((0, in_channels), (4, out_channels)):
        shapes[f"{prefix}.{place}.weight"] = (out_channels, channels, 3, 3)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}.{place + 1}.{name}"] = (out_channels,)
        shapes[f"{prefix}.{place + 1}.num_batches_tracked"] = ()
    return shapes


def _length(shapes: Mapping[str, Shape], *places: tuple[str, int]) -> int:
    """The length of the first of some tensors that is there, along the axis given with it; 1 where none is."""
    return next((shapes[name][axis] for name, axis in places if len(shapes.get(name, ())) > axis), 1)
