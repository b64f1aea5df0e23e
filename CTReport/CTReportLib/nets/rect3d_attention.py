"""The two attentions of the ReCT encoder, exactly and without a tensor of patches by patches. Needs torch.

*Slice-aware*: every patch looks at every patch, and each head learns how much the distance between their planes
counts. The distance is the same for all pairs of the same two planes, so one plane of queries needs one row of biases
over the keys, not a table of patches by patches: at 16,384 patches 0.8 MB instead of 13 GB.

*Region-aware*: every patch looks at the learned prototypes of the anatomical regions. Scores are multiplied by the
share of the patch that lies in the region; this is a gate and no mask, as published: a score of 0 stays 0.

Source of the formulas: ReCT-VLM (NEWMES-AI, 2025), re-implemented.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class SliceAwareAttention(nn.Module):
    """Self-attention of all patches with a learned bias by the distance between their planes.

    Parameters
    ----------
    width, heads : int
    distances : int
        Entries of the table of biases; the last one serves all larger distances.
    weight : float
        What the bias is multiplied by before it is added.
    """

    def __init__(self, width: int, heads: int, distances: int, weight: float) -> None:
        super().__init__()
        self.heads = heads
        self.weight = weight
        self.slice_bias = nn.Parameter(torch.empty(heads, distances))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, patches: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Answer of shape (batch, patches, width), as the input's.

        Parameters
        ----------
        patches : torch.Tensor
            Shape (batch, patches, width); planes slowest.
        steps : torch.Tensor
            Entries of the table of biases for every pair of planes, shape (planes, planes), int64: see `plane_steps`.
        """
        planes = len(steps)
        batch, count, width = patches.shape
        query, key, value = self.qkv(patches).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        inside = count // planes
        bias = (self.weight * self.slice_bias)[:, steps]  # (heads, planes, planes)
        seen = []
        for plane in range(planes):
            queries = query[:, :, plane * inside : (plane + 1) * inside]
            if torch.is_grad_enabled():  # scores are computed again on the way back, not kept for every plane
                seen.append(checkpoint(_attend, queries, key, value, bias[:, plane], use_reentrant=False))
            else:
                seen.append(_attend(queries, key, value, bias[:, plane]))
        return self.proj(torch.cat(seen, dim=2).transpose(1, 2).reshape(batch, count, width))


class RegionAwareAttention(nn.Module):
    """Attention of patches to anatomical regions, gated by the share of the patch in the region."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, patches: torch.Tensor, prototypes: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Answer of shape (batch, patches, width).

        Parameters
        ----------
        patches : torch.Tensor
            Shape (batch, patches, width).
        prototypes : torch.Tensor
            Shape (regions, width): the same for every volume, so keys and values are computed once per batch.
        shares : torch.Tensor
            Shape (batch, patches, regions): see `CTReportLib.nets.rect3d_regions.region_shares`.
        """
        batch, count, width = patches.shape
        query = self.q(patches).view(batch, count, self.heads, -1).transpose(1, 2)
        key, value = self.kv(prototypes).view(len(prototypes), 2, self.heads, -1).permute(1, 2, 0, 3)
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        # the published constant 1e-8 on every score drops out of the softmax
        weights = (scores * shares[:, None].to(scores.dtype)).softmax(dim=-1)
        return self.proj((weights @ value).transpose(1, 2).reshape(batch, count, width))


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """What one plane of queries sees, shape (batch, heads, patches of the plane, width of a head).

    ``bias`` is that of every plane of keys, shape (heads, planes).
    """
    inside = query.shape[2]
    row = bias.repeat_interleave(inside, dim=-1)[None, :, None].to(query.dtype)
    mask = row.expand(len(query), -1, inside, -1)  # no memory of its own
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def plane_steps(planes: int, distances: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Which entry of the table of biases each pair of planes takes, shape (planes, planes), int64.

    Distances are shares of the whole volume times ``distances - 1``, cut to whole numbers, in float32 as the formula
    has it, so that rounding falls on the same side.
    """
    places = (torch.arange(planes, dtype=torch.float32, device=device) + 0.5) / planes
    steps = ((places[:, None] - places[None]).abs() * (distances - 1)).long()
    return steps.clamp(max=distances - 1)
