"""The architecture of space-time memory networks (STM, VMN), read off the names and shapes of their tensors.

Three variants were published, each in two families that take their masks differently:

* ``plain``: the network of Oh et al. 2019, as the volumetric memory network (VMN) uses it;
* ``aspp``: its decoder begins with a pyramid of dilated convolutions;
* ``quality``: ``aspp`` with a head that predicts the overlap of its mask with the truth.

What decides no shape (normalisation of the image) cannot be read back and is given as assumed.

Sources: Oh et al., ICCV 2019, arXiv 1904.00607; Zhou et al., Medical Image Analysis 83 (2023) 102599. Source of the
layout: ``Mem3DPropagateLib.nets.stm``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from MedAILib.models.heads import (
    Activation,
    ClassInfo,
    Head,
    HeadTask,
    Input,
    Normalisation,
    NormalisationKind,
    index_path,
)

NAME = "stm"
FAMILY = "stm"
PARAMETERS = ("variant", "mask_input", "keydim", "valdim", "width")
PLAIN, ASPP, QUALITY = VARIANTS = ("plain", "aspp", "quality")
BACKGROUND, OTHER_OBJECTS = MASK_INPUTS = ("background", "other-objects")
"""What the memory encoder is shown beside the object: all that is not the object (``conv1_bg``; the image comes
normalised), or the other objects (``conv1_o``; the network normalises the image itself)."""
SECOND_MASK = {BACKGROUND: "Encoder_M.conv1_bg.weight", OTHER_OBJECTS: "Encoder_M.conv1_o.weight"}
"""The one tensor in which the families differ."""
MASK, QUALITY_HEAD = "mask", "quality"
"""Names of the heads."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Shape = tuple[int, ...]

_PARTS = ("Encoder_M.", "Encoder_Q.", "KV_M_r4.", "KV_Q_r4.", "Decoder.")
_PYRAMID = "Decoder.layer5."
_QUALITY_PARTS = ("conv1.", "res5.", "fc.", "fc2.")
_STAGES = (("res2", 1, 3), ("res3", 2, 4), ("res4", 4, 6))
"""Name, width of its bottlenecks in multiples of the stem's, number of blocks: ResNet-50 to 1/16."""
_QUALITY_STAGE = ("res5", 8, 3)
_EXPANSION = 4
_HIDDEN = 1000
"""Of the quality head, whatever the network's width."""


def guess(shapes: Mapping[str, Shape]) -> dict[str, Any] | None:
    """Variant, family and widths after the tensors that show them best; None where parts of the network are missing.

    Whether all tensors agree is not looked at, so one that is missing can be named afterwards.
    """
    if not all(any(name.startswith(part) for name in shapes) for part in _PARTS):
        return None
    variant = PLAIN
    if any(name.startswith(_QUALITY_PARTS) for name in shapes):
        variant = QUALITY
    elif any(name.startswith(_PYRAMID) for name in shapes):
        variant = ASPP
    official = SECOND_MASK[OTHER_OBJECTS] in shapes and SECOND_MASK[BACKGROUND] not in shapes
    return {
        "variant": variant,
        "mask_input": OTHER_OBJECTS if official else BACKGROUND,
        "keydim": _length(shapes, "KV_M_r4.Key.weight", "KV_Q_r4.Key.weight"),
        "valdim": _length(shapes, "KV_M_r4.Value.weight", "KV_Q_r4.Value.weight"),
        "width": _length(shapes, "Encoder_Q.conv1.weight", "Encoder_M.conv1.weight"),
    }


def expected_shapes(parameters: Mapping[str, Any]) -> dict[str, Shape]:
    """Name and shape of every tensor of the network, in the order of its state dict.

    Parameters
    ----------
    parameters : mapping
        With the names of `PARAMETERS`. ``width`` is that of the stem, 64 in all published weights.

    Raises
    ------
    KeyError
        Where one is missing, or variant or mask input are none of those known.
    """
    variant, second_mask = parameters["variant"], SECOND_MASK[parameters["mask_input"]]
    if variant not in VARIANTS:
        raise KeyError(variant)
    width, keydim, valdim = (int(parameters[name]) for name in ("width", "keydim", "valdim"))
    shapes = dict(_encoder("Encoder_M", width, second_mask)) | dict(_encoder("Encoder_Q", width, ""))
    deepest = 4 * width * _EXPANSION
    for part in ("KV_M_r4", "KV_Q_r4"):
        shapes |= dict(_convolution(f"{part}.Key", keydim, deepest, 3))
        shapes |= dict(_convolution(f"{part}.Value", valdim, deepest, 3))
    shapes |= dict(_decoder(variant, width, 2 * valdim))
    if variant == QUALITY:
        shapes["conv1.weight"] = (deepest, deepest + 2, 3, 3)
        shapes |= dict(_stage("", _QUALITY_STAGE, width, deepest))
        pooled = _QUALITY_STAGE[1] * width * _EXPANSION
        shapes |= {"fc.weight": (_HIDDEN, pooled), "fc.bias": (_HIDDEN,), "fc2.weight": (1, _HIDDEN), "fc2.bias": (1,)}
    return shapes


def outputs(parameters: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """Channels of the input, and how many numbers each head answers."""
    heads = {MASK: 2}
    return 3, heads | ({QUALITY_HEAD: 1} if parameters["variant"] == QUALITY else {})


def assumed_input_and_heads(parameters: Mapping[str, Any]) -> tuple[tuple[Input, ...], tuple[Head, ...], list[str]]:
    """What the published networks were trained with, and the paths of all that is assumed thereby.

    Pictures of 8 bits, grey repeated as red, green and blue. The quality is the overlap of mask and truth
    (intersection over union), 0..1.
    """
    inside = parameters.get("mask_input") == OTHER_OBJECTS
    mean, std = ((0.0,) * 3, (1.0,) * 3) if inside else (IMAGENET_MEAN, IMAGENET_STD)
    image = Input(
        channels=("red", "green", "blue"),
        normalisation=Normalisation(NormalisationKind.FIXED, scale=255.0, mean=mean, std=std),
    )
    classes = (ClassInfo(0, "background"), ClassInfo(1, "object"))
    heads = [Head(MASK, HeadTask.SEGMENTATION, classes, Activation.SOFTMAX, threshold=0.5)]
    if parameters.get("variant") == QUALITY:
        heads.append(Head(QUALITY_HEAD, HeadTask.REGRESSION, activation=Activation.SIGMOID, unit="IoU"))
    assumed = [index_path("inputs", 0, name) for name in ("channels", "normalisation")]
    return (image,), tuple(heads), [*assumed, index_path("heads", 0, "threshold")]


def _encoder(name: str, width: int, second_mask: str) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.mean", (1, 3, 1, 1)
    yield f"{name}.std", (1, 3, 1, 1)
    if second_mask:
        yield f"{name}.conv1_m.weight", (width, 1, 7, 7)
        yield second_mask, (width, 1, 7, 7)
    yield f"{name}.conv1.weight", (width, 3, 7, 7)
    yield from _norm(f"{name}.bn1", width)
    before = width
    for stage in _STAGES:
        yield from _stage(f"{name}.", stage, width, before)
        before = stage[1] * width * _EXPANSION


def _stage(prefix: str, stage: tuple[str, int, int], width: int, before: int) -> Iterator[tuple[str, Shape]]:
    name, multiple, blocks = stage
    inner, outer = multiple * width, multiple * width * _EXPANSION
    for block in range(blocks):
        path = f"{prefix}{name}.{block}"
        convolutions = ((inner, before, 1), (inner, inner, 3), (outer, inner, 1))
        for number, (to, of, side) in enumerate(convolutions, start=1):
            yield f"{path}.conv{number}.weight", (to, of, side, side)
            yield from _norm(f"{path}.bn{number}", to)
        if block == 0:
            yield f"{path}.downsample.0.weight", (outer, before, 1, 1)
            yield from _norm(f"{path}.downsample.1", outer)
        before = outer


def _decoder(variant: str, width: int, joined: int) -> Iterator[tuple[str, Shape]]:
    inner = 4 * width
    if variant == PLAIN:
        yield from _convolution("Decoder.convFM", inner, joined, 3)
    else:
        yield from _convolution(f"{_PYRAMID}conv", inner, joined, 1)
        yield from _norm(f"{_PYRAMID}bn_x", inner)
        for branch, side in enumerate((1, 3, 3, 3)):
            yield from _convolution(f"{_PYRAMID}conv2d_{branch}", inner, joined, side)
            yield from _norm(f"{_PYRAMID}bn_{branch}", inner)
        yield from _convolution(f"{_PYRAMID}bottleneck", inner, 5 * inner, 3)
    yield from _residual("Decoder.ResMM", inner)
    for part, skip in (("RF3", 8 * width), ("RF2", 4 * width)):
        yield from _convolution(f"Decoder.{part}.convFS", inner, skip, 3)
        yield from _residual(f"Decoder.{part}.ResFS", inner)
        yield from _residual(f"Decoder.{part}.ResMM", inner)
    yield from _convolution("Decoder.pred2", 2, inner, 3)


def _residual(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _convolution(f"{name}.conv1", width, width, 3)
    yield from _convolution(f"{name}.conv2", width, width, 3)


def _convolution(name: str, to: int, of: int, side: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (to, of, side, side)
    yield f"{name}.bias", (to,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (width,)
    yield f"{name}.num_batches_tracked", ()


def _length(shapes: Mapping[str, Shape], *names: str) -> int:
    """The number of outputs of the first of some convolutions that is there; 1 where none is."""
    return next((shapes[name][0] for name in names if len(shapes.get(name, ())) == 4), 1)
