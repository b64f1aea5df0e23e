"""The formulas of the ReCT encoder as they stand, every table written out: slow, large, and easy to check.

On the state dict of a `CTReportLib.nets.rect3d.Rect3D`. Tables of patches by patches and a loop over patches and
regions are meant here: this is what the fast encoder is held against.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.functional import conv3d, embedding, gelu, layer_norm, linear

State = Mapping[str, torch.Tensor]
Size = tuple[int, int, int]
FURTHEST = 32


def positions(grid: Size) -> torch.Tensor:
    """Centres of the patches as shares of the volume, shape (patches, 3): planes, rows, columns."""
    axes = [(torch.arange(count, dtype=torch.float32) + 0.5) / count for count in grid]
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], dim=-1)


def slice_attention(state: State, name: str, patches: torch.Tensor, heads: int, centres: torch.Tensor) -> torch.Tensor:
    """Scores of all pairs of patches plus half the bias of their planes' distance, in one table."""
    batch, count, width = patches.shape
    table = state[f"{name}.slice_bias"]
    distance = (centres[:, None, 0] - centres[None, :, 0]).abs()
    entry = (distance * FURTHEST).long().clamp(max=FURTHEST)
    bias = embedding(entry, table.T).permute(2, 0, 1)
    joined = linear(patches, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"])
    query, key, value = (_by_head(part, heads) for part in joined.split(width, dim=-1))
    scores = torch.einsum("bhid,bhjd->bhij", query, key) / (width // heads) ** 0.5 + 0.5 * bias
    answer = torch.einsum("bhij,bhjd->bihd", scores.softmax(dim=-1), value).reshape(batch, count, width)
    return linear(answer, state[f"{name}.proj.weight"], state[f"{name}.proj.bias"])


def region_attention(
    state: State, name: str, patches: torch.Tensor, heads: int, prototypes: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """Scores of patches and regions, times the shares, plus the published constant."""
    batch, count, width = patches.shape
    regions = prototypes.expand(batch, -1, -1)
    query = _by_head(linear(patches, state[f"{name}.q.weight"], state[f"{name}.q.bias"]), heads)
    joined = linear(regions, state[f"{name}.kv.weight"], state[f"{name}.kv.bias"])
    key, value = (_by_head(part, heads) for part in joined.split(width, dim=-1))
    scores = torch.einsum("bhid,bhjd->bhij", query, key) / (width // heads) ** 0.5
    weights = (scores * shares[:, None] + 1e-8).softmax(dim=-1)
    answer = torch.einsum("bhij,bhjd->bihd", weights, value).reshape(batch, count, width)
    return linear(answer, state[f"{name}.proj.weight"], state[f"{name}.proj.bias"])


def shares_of(labels: torch.Tensor, regions: int, patch: Size) -> torch.Tensor:
    """Shares of the regions, one patch and one region after the other."""
    planes, rows, columns = (length // side for length, side in zip(labels.shape[1:], patch, strict=True))
    found = torch.zeros(len(labels), planes * rows * columns, regions)
    for number, volume in enumerate(labels):
        for index in range(planes * rows * columns):
            k, j, i = index // (rows * columns), index // columns % rows, index % columns
            box = volume[k * patch[0] :, j * patch[1] :, i * patch[2] :][: patch[0], : patch[1], : patch[2]]
            for region in range(1, regions + 1):
                found[number, index, region - 1] = (box == region).sum().float() / box.numel()
    found = found + 1e-6
    return found / found.sum(dim=-1, keepdim=True)


def encode(
    state: State, volume: torch.Tensor, labels: torch.Tensor, heads: int, grid: Size, patch: Size
) -> dict[str, torch.Tensor]:
    """All answers of the encoder by name."""
    prototypes = state["anatomical_encoder.region_prototypes"]
    shares = shares_of(labels, len(prototypes), patch)
    cut = conv3d(volume, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    patches = cut.flatten(2).mT + state["patch_embed.pos_embed"]
    centres = positions(grid)
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    for name in (f"blocks.{index}" for index in range(depth)):
        patches = patches + slice_attention(
            state, f"{name}.slice_attn", _norm(state, f"{name}.norm1", patches), heads, centres
        )
        normed = _norm(state, f"{name}.norm2", patches)
        patches = patches + region_attention(state, f"{name}.region_attn", normed, heads, prototypes, shares)
        hidden = linear(
            _norm(state, f"{name}.norm3", patches), state[f"{name}.mlp.fc1.weight"], state[f"{name}.mlp.fc1.bias"]
        )
        patches = patches + linear(gelu(hidden), state[f"{name}.mlp.fc2.weight"], state[f"{name}.mlp.fc2.bias"])
    raw = _norm(state, "norm", patches)
    regions = torch.einsum("bnr,bnc->brc", shares, raw) + prototypes
    return {
        "pooled": _projected(state, "global_proj", raw.mean(dim=1)),
        "patches": _projected(state, "local_proj", raw),
        "regions": _projected(state, "region_proj", regions),
        "raw": raw,
        "shares": shares,
    }


def _by_head(values: torch.Tensor, heads: int) -> torch.Tensor:
    return values.unflatten(-1, (heads, -1)).transpose(1, 2)


def _norm(state: State, name: str, values: torch.Tensor) -> torch.Tensor:
    return layer_norm(values, values.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def _projected(state: State, name: str, values: torch.Tensor) -> torch.Tensor:
    inner = linear(values, state[f"{name}.0.weight"], state[f"{name}.0.bias"]).relu()
    return linear(inner, state[f"{name}.2.weight"], state[f"{name}.2.bias"])
