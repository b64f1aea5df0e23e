"""The architecture of the ReCT chest CT encoder, read off the names and shapes of its tensors.

How the patches lie (how many planes, rows and columns of them) decides no shape, only their number does: the volume's
size is given as assumed, square slices with the proportions of the published 64 x 512 x 512.

Source of the layout: ReCT-VLM (NEWMES-AI, 2025); ours in ``CTReportLib.nets.rect3d``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from MedAILib.models.heads import Head, Input, Normalisation, NormalisationKind, index_path

NAME = "rect3d"
FAMILY = "chest-ct-encoder"
PARAMETERS = (
    "in_channels",
    "embed_dim",
    "depth",
    "num_heads",
    "num_regions",
    "patch_slices",
    "patch_rows",
    "patch_columns",
    "tokens",
    "mlp_dim",
    "distances",
)
MASK_WIDTHS = (64, 128)
"""Channels of the network on the label map, which is in the published files and takes part in no answer."""
PUBLISHED_WINDOW_HU = (-160.0, 240.0)
"""Centre 40 HU, width 400 HU: the window of the mediastinum, though the publication calls it that of the lungs."""

Shape = tuple[int, ...]

TELLING = ("patch_embed.proj.weight", "patch_embed.pos_embed", "anatomical_encoder.region_prototypes")
"""Tensors without which the parameters cannot be read off the others."""

_PARTS = ("patch_embed.", "anatomical_encoder.", "blocks.", "norm.", "global_proj.")
_DEEPEST = 256
_BLOCK = re.compile(r"blocks\.(\d{1,4})\.")
_PLANES_PER_ROW = 0.5
"""Of patches in the published volume: 16 planes of 32 x 32."""


def guess(shapes: Mapping[str, Shape]) -> dict[str, Any] | None:
    """The parameters after the tensors that show them best; None where parts of the network are missing.

    Whether all tensors agree is not looked at, so one that is missing can be named afterwards.
    """
    if not all(any(name.startswith(part) for name in shapes) for part in _PARTS):
        return None
    blocks = {int(found[1]) for name in shapes if (found := _BLOCK.match(name))}
    patch, positions, regions = (shapes.get(name, ()) for name in TELLING)
    bias = _usual(shapes, blocks, "slice_attn.slice_bias")
    hidden = _usual(shapes, blocks, "mlp.fc1.weight")
    if len(patch) != 5 or len(positions) != 3 or len(regions) != 2 or len(bias) != 2 or len(hidden) != 2:
        return None
    if max(blocks) + 1 > _DEEPEST or 0 in (*patch, *positions, *regions, *bias, *hidden):
        return None
    return {
        "in_channels": patch[1],
        "embed_dim": patch[0],
        "depth": max(blocks) + 1,
        "num_heads": bias[0],
        "num_regions": regions[0],
        "patch_slices": patch[2],
        "patch_rows": patch[3],
        "patch_columns": patch[4],
        "tokens": positions[1],
        "mlp_dim": hidden[0],
        "distances": bias[1],
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
    found = {name: int(parameters[name]) for name in PARAMETERS}
    return dict(_tensors(found))


def outputs(parameters: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """Channels of the input; an encoder has no heads of its own."""
    return int(parameters["in_channels"]), {}


def assumed_input_and_heads(parameters: Mapping[str, Any]) -> tuple[tuple[Input, ...], tuple[Head, ...], list[str]]:
    """What the publication describes, and the paths of all that is assumed thereby.

    Of more channels than the published one nothing is assumed: nobody stated their windows.
    """
    channels = int(parameters.get("in_channels", 1))
    size: tuple[int, ...] = ()
    if all(name in parameters for name in PARAMETERS):
        grid = likely_grid(int(parameters["tokens"]))
        patch = (parameters[f"patch_{axis}"] for axis in ("slices", "rows", "columns"))
        size = tuple(count * int(side) for count, side in zip(grid, patch, strict=True))
    window = None
    if channels == 1:
        lower, upper = PUBLISHED_WINDOW_HU
        window = Normalisation(NormalisationKind.WINDOW, lower=lower, upper=upper)
    names = ("ct",) if channels == 1 else tuple(f"window {number}" for number in range(1, channels + 1))
    image = Input(modality="CT", channels=names, size=size, orientation="axial", normalisation=window)
    paths = [index_path("inputs", 0, name) for name in ("modality", "channels", "size", "orientation")]
    if window is not None:
        paths.append(index_path("inputs", 0, "normalisation"))
    return (image,), (), paths


def likely_grid(tokens: int) -> tuple[int, int, int]:
    """Planes, rows and columns of that many patches: square planes, as near to the published proportions as can be."""
    sides = (side for side in range(1, math.isqrt(tokens) + 1) if tokens % (side * side) == 0)
    side = min(sides, key=lambda side: abs(math.log(tokens / side**3 / _PLANES_PER_ROW)))
    return tokens // (side * side), side, side


def _usual(shapes: Mapping[str, Shape], blocks: set[int], name: str) -> Shape:
    """The shape that this tensor has in most blocks."""
    found = Counter(shapes[key] for block in sorted(blocks) if (key := f"blocks.{block}.{name}") in shapes)
    return found.most_common(1)[0][0] if found else ()


def _tensors(of: Mapping[str, int]) -> Iterator[tuple[str, Shape]]:
    width, regions = of["embed_dim"], of["num_regions"]
    yield "patch_embed.pos_embed", (1, of["tokens"], width)
    yield "patch_embed.cls_token", (1, 1, width)
    patch = (of["patch_slices"], of["patch_rows"], of["patch_columns"])
    yield from _layer("patch_embed.proj", width, of["in_channels"], *patch)
    yield "anatomical_encoder.region_prototypes", (regions, width)
    yield "anatomical_encoder.region_embeds.weight", (regions + 1, width)
    yield from _mask_encoder(width)
    for block in range(of["depth"]):
        yield from _block(f"blocks.{block}", of)
    yield from _norm("norm", width)
    for part in ("global_proj", "local_proj", "region_proj"):
        yield from _layer(f"{part}.0", width, width)
        yield from _layer(f"{part}.2", width, width)


def _block(name: str, of: Mapping[str, int]) -> Iterator[tuple[str, Shape]]:
    width = of["embed_dim"]
    for number in (1, 2, 3):
        yield from _norm(f"{name}.norm{number}", width)
    yield f"{name}.slice_attn.slice_bias", (of["num_heads"], of["distances"])
    yield from _layer(f"{name}.slice_attn.qkv", 3 * width, width)
    yield from _layer(f"{name}.slice_attn.proj", width, width)
    yield from _layer(f"{name}.region_attn.q", width, width)
    yield from _layer(f"{name}.region_attn.kv", 2 * width, width)
    yield from _layer(f"{name}.region_attn.proj", width, width)
    yield from _layer(f"{name}.mlp.fc1", of["mlp_dim"], width)
    yield from _layer(f"{name}.mlp.fc2", width, of["mlp_dim"])


def _mask_encoder(width: int) -> Iterator[tuple[str, Shape]]:
    name, before = "anatomical_encoder.mask_encoder", 1
    for index, after in zip((0, 4, 8), (*MASK_WIDTHS, width), strict=True):
        yield from _layer(f"{name}.{index}", after, before, 3, 3, 3)
        if index < 8:
            yield from _norm(f"{name}.{index + 1}", after)
            yield f"{name}.{index + 1}.running_mean", (after,)
            yield f"{name}.{index + 1}.running_var", (after,)
            yield f"{name}.{index + 1}.num_batches_tracked", ()
        before = after


def _layer(name: str, to: int, of: int, *kernel: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (to, of, *kernel)
    yield f"{name}.bias", (to,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
