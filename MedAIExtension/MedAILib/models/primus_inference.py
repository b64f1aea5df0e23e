"""The architecture of Primus, the encoder of the open chest CT models of 2026, read off the names of its tensors.

How many heads share the width decides no shape: it is taken from the published sizes, and must be stated for others.

Source of the layout: Wald et al., "Primus: Enforcing Attention Usage for 3D Medical Image Segmentation", 2025
(arXiv 2503.01835), with layer scale and normed attention as COLIPRI (arXiv 2510.15042) trains it; ours in
``CTReportLib.nets.primus``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from MedAILib.models.heads import Head, Input, index_path

NAME = "primus"
FAMILY = "chest-ct-encoder"
PARAMETERS = (
    "in_channels",
    "embed_dim",
    "depth",
    "patch_slices",
    "patch_rows",
    "patch_columns",
    "mlp_dim",
    "decoder",
    "decoder_classes",
)
DECODERS = ("none", "patches")
"""Without or with the layers that make a segmentation of the features; the encoder's answers need none."""
PUBLISHED_HEADS = {396: 6, 792: 12, 864: 12, 1056: 16}
"""Heads of the attention by width: Primus-S, B, M and L."""
PUBLISHED_TOKENS = (24, 24, 24)
"""Patches of the volumes that the open models read."""

Shape = tuple[int, ...]

TELLING = ("down_projection.proj.weight", "eva.norm.weight", "mask_token")
"""Tensors without which nothing is taken for this network."""

_DEEPEST = 256
_BLOCK = re.compile(r"eva\.blocks\.(\d{1,4})\.")
_DECODER = re.compile(r"up_projection\.decode\.(\d{1,2})\.(?:0\.)?weight")


def guess(shapes: Mapping[str, Shape]) -> dict[str, Any] | None:
    """The parameters after the tensors that show them best; None where parts of the network are missing.

    Whether all tensors agree is not looked at, so one that is missing can be named afterwards.
    """
    blocks = {int(found[1]) for name in shapes if (found := _BLOCK.match(name))}
    if not blocks or not all(name in shapes for name in TELLING):
        return None
    patch, hidden = shapes[TELLING[0]], _usual(shapes, blocks, "mlp.fc1_g.weight")
    if len(patch) != 5 or len(hidden) != 2 or 0 in (*patch, *hidden) or max(blocks) + 1 > _DEEPEST:
        return None
    decoder = [shape for name, shape in shapes.items() if _DECODER.fullmatch(name) and len(shape) == 5]
    return {
        "in_channels": patch[1],
        "embed_dim": patch[0],
        "depth": max(blocks) + 1,
        "patch_slices": patch[2],
        "patch_rows": patch[3],
        "patch_columns": patch[4],
        "mlp_dim": hidden[0],
        "decoder": DECODERS[bool(decoder)],
        "decoder_classes": min((shape[1] for shape in decoder), default=1) or 1,
    }


def expected_shapes(parameters: Mapping[str, Any]) -> dict[str, Shape]:
    """Name and shape of every tensor of the network, in the order of its state dict.

    Parameters
    ----------
    parameters : mapping
        With the names of `PARAMETERS`.

    Raises
    ------
    KeyError
        Where one is missing.
    """
    found = {name: int(parameters[name]) for name in PARAMETERS if name != "decoder"}
    return dict(_tensors(found, with_decoder=parameters["decoder"] != DECODERS[0]))


def outputs(parameters: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """Channels of the input; an encoder has no heads of its own."""
    return int(parameters["in_channels"]), {}


def assumed_input_and_heads(parameters: Mapping[str, Any]) -> tuple[tuple[Input, ...], tuple[Head, ...], list[str]]:
    """What COLIPRI describes, and the paths of all that is assumed thereby.

    It reads 2 mm voxels whose axes run to the right, to anterior and superior, in that order. Of more channels than
    its one nothing is assumed: nobody stated their windows.
    """
    channels = int(parameters.get("in_channels", 1))
    names = tuple(f"window {number}" for number in range(1, channels + 1))
    if channels == 1:
        names = ("-1000..1000 HU to -1..1",)
    patch = [int(parameters.get(f"patch_{axis}", 8)) for axis in ("slices", "rows", "columns")]
    size = tuple(count * side for count, side in zip(PUBLISHED_TOKENS, patch, strict=True))
    image = Input(modality="CT", channels=names, size=size, spacing_mm=(2.0, 2.0, 2.0), orientation="RAS")
    paths = [index_path("inputs", 0, name) for name in ("modality", "channels", "size", "spacing_mm", "orientation")]
    return (image,), (), paths


def decoder_layers(width: int, classes: int, patch: tuple[int, int, int]) -> list[tuple[int, int, Shape]]:
    """Channels before and after, and the stride, of each transposed convolution from patches to classes.

    Each makes the grid twice as fine along every side of the patch that is still even; channels narrow evenly.
    """
    stages = int(math.log2(max(patch)))
    narrowing = (width / (2 * classes)) ** (1 / max(stages, 1))
    widths = [width, *(_multiple_of_8(width / narrowing**stage) for stage in range(1, stages)), classes]
    strides = [tuple(2 if side / 2**stage % 2 == 0 else 1 for side in patch) for stage in reversed(range(stages))]
    return [(widths[n], widths[n + 1], stride) for n, stride in enumerate(strides)]


def _usual(shapes: Mapping[str, Shape], blocks: set[int], name: str) -> Shape:
    """The shape that this tensor has in most blocks."""
    found = Counter(shapes[key] for block in sorted(blocks) if (key := f"eva.blocks.{block}.{name}") in shapes)
    return found.most_common(1)[0][0] if found else ()


def _tensors(of: Mapping[str, int], *, with_decoder: bool) -> Iterator[tuple[str, Shape]]:
    width = of["embed_dim"]
    yield "mask_token", (1, 1, width)
    patch = (of["patch_slices"], of["patch_rows"], of["patch_columns"])
    yield from _layer("down_projection.proj", width, of["in_channels"], *patch)
    if with_decoder:
        yield from _decoder(of)
    for block in range(of["depth"]):
        yield from _block(f"eva.blocks.{block}", width, of["mlp_dim"])
    yield from _norm("eva.norm", width)


def _block(name: str, width: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.gamma_1", (width,)
    yield f"{name}.gamma_2", (width,)
    yield from _norm(f"{name}.norm1", width)
    yield from _layer(f"{name}.attn.q_proj", width, width)
    yield f"{name}.attn.k_proj.weight", (width, width)
    yield from _layer(f"{name}.attn.v_proj", width, width)
    yield from _norm(f"{name}.attn.norm", width)
    yield from _layer(f"{name}.attn.proj", width, width)
    yield from _norm(f"{name}.norm2", width)
    yield from _layer(f"{name}.mlp.fc1_g", hidden, width)
    yield from _layer(f"{name}.mlp.fc1_x", hidden, width)
    yield from _norm(f"{name}.mlp.norm", hidden)
    yield from _layer(f"{name}.mlp.fc2", width, hidden)


def _decoder(of: Mapping[str, int]) -> Iterator[tuple[str, Shape]]:
    patch = (of["patch_slices"], of["patch_rows"], of["patch_columns"])
    layers = decoder_layers(of["embed_dim"], of["decoder_classes"], patch)
    for number, (before, after, stride) in enumerate(layers):
        name = f"up_projection.decode.{number}"
        last = number == len(layers) - 1
        yield f"{name}.weight" if last else f"{name}.0.weight", (before, after, *stride)
        yield f"{name}.bias" if last else f"{name}.0.bias", (after,)
        if not last:
            yield from _norm(f"{name}.1", after)


def _multiple_of_8(value: float) -> int:
    return max(8, round((value + 1e-6) / 8) * 8)


def _layer(name: str, to: int, of: int, *kernel: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (to, of, *kernel)
    yield f"{name}.bias", (to,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
