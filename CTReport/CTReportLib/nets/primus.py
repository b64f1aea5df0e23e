"""Primus, the encoder of the open chest CT models of 2026: a transformer on patches with rotary positions. Needs torch.

    encoder = Primus().eval()
    features = encoder(volume)              # volume (batch, 1, 192, 192, 192)

Names and shapes of all tensors are those of `dynamic_network_architectures`, so published weight files load, and so do
the formulas; neither that package nor timm nor torchvision is needed. Attention is computed for a part of the patches
at a time: its table of all patches by all patches (9 GB at the published size) never exists.

The mask token and the layers that make a segmentation (``decoder``) are in published files and in no answer: kept, not
used.

Source: Wald et al., 2025 (arXiv 2503.01835), re-implemented; rotary positions after Su et al., 2021 (arXiv 2104.09864).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from CTReportLib.nets.features import Features
from MedAILib.errors import InputError
from MedAILib.models.primus_inference import DECODERS, PUBLISHED_HEADS, decoder_layers

Size = tuple[int, int, int]

AXES = 3
BASE = 10_000.0
"""Of the wavelengths of the rotary positions."""
LAYER_SCALE = 0.1
_POOL_HEAD = 64
"""Width of a head of the attention that pools: 12 of them in the published space of 768."""
_SCORES_AT_ONCE = 1 << 28
"""Numbers of the table of patches by patches that may exist at once, of all heads together: 1 GB."""


class PatchEmbedding(nn.Module):
    """Patches of a volume as vectors."""

    def __init__(self, channels: int, width: int, patch: Size) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return self.proj(volume).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Attention of all patches to all patches, queries and keys turned by their places, its answer normed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, width)

    def forward(self, patches: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        queries = turned(self._split(self.q_proj(patches)), turns)
        keys = turned(self._split(self.k_proj(patches)), turns)
        seen = attended(queries, keys, self._split(self.v_proj(patches)))
        return self.proj(self.norm(seen.transpose(1, 2).flatten(2)))

    def _split(self, vectors: torch.Tensor) -> torch.Tensor:
        """(batch, patches, width) to (batch, heads, patches, width of a head)."""
        return vectors.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class GatedMlp(nn.Module):
    """Two layers whose inner values are gated (SwiGLU; Shazeer, 2020, arXiv 2002.05202) and normed."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(width, hidden)
        self.fc1_x = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.norm(functional.silu(self.fc1_g(patches)) * self.fc1_x(patches)))


class Block(nn.Module):
    """Attention, then the gated layers; each on normed values, scaled channel by channel and added to its input."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.gamma_1 = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.gamma_2 = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = GatedMlp(width, hidden)

    def forward(self, patches: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        patches = patches + self.gamma_1 * self.attn(self.norm1(patches), turns)
        return patches + self.gamma_2 * self.mlp(self.norm2(patches))


class Transformer(nn.Module):
    """All blocks, and the norm after them."""

    def __init__(self, width: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, patches: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            patches = block(patches, turns)
        return self.norm(patches)


class SegmentationLayers(nn.Module):
    """The layers that make a segmentation of the features: their tensors only."""

    def __init__(self, width: int, classes: int, patch: Size) -> None:
        super().__init__()
        layers = decoder_layers(width, classes, patch)
        steps: list[nn.Module] = []
        for number, (of, to, stride) in enumerate(layers, start=1):
            finer = nn.ConvTranspose3d(of, to, kernel_size=stride, stride=stride)
            steps.append(finer if number == len(layers) else nn.Sequential(finer, nn.LayerNorm(to)))
        self.decode = nn.ModuleList(steps)


class SharedSpace(nn.Module):
    """From patches to one vector in the space that the encoder's training shared with texts.

    Patches are projected; their mean asks all of them, and what it is answered is the volume's vector (COLIPRI, 2025,
    arXiv 2510.15042).
    """

    def __init__(self, width: int, shared: int) -> None:
        super().__init__()
        self.width = shared
        self.projector = nn.Conv3d(width, shared, kernel_size=1)
        self.pooler = nn.ModuleDict({"attn": nn.MultiheadAttention(shared, shared // _POOL_HEAD, batch_first=True)})

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Shape (batch, shared width), of patches (batch, patches, width)."""
        projected = functional.linear(patches, self.projector.weight.flatten(1), self.projector.bias)
        mean = projected.mean(dim=1, keepdim=True)
        return self.pooler["attn"](mean, projected, projected, need_weights=False)[0].squeeze(1)


class Primus(nn.Module):
    """The encoder; the defaults are the published size, 144 million parameters (Primus-M).

    Parameters
    ----------
    in_channels : int
        Windows of the CT.
    embed_dim, depth, mlp_dim : int
        Width, blocks, width inside the blocks.
    patch_slices, patch_rows, patch_columns : int
        Voxels of a patch along the volume's axes, slowest first.
    decoder : str
        One of `DECODERS`; with ``patches``, the tensors of ``decoder_classes`` classes are kept.
    decoder_classes : int
    num_heads : int, optional
        Heads of the attention. None: of the published sizes, after the width.

    Raises
    ------
    InputError
        The heads are not known, do not divide the width, or their width is no multiple of 6.

    Attributes
    ----------
    shared : SharedSpace, optional
        None until it is given one.
    """

    def __init__(
        self,
        in_channels: int = 1,
        embed_dim: int = 864,
        depth: int = 16,
        patch_slices: int = 8,
        patch_rows: int = 8,
        patch_columns: int = 8,
        mlp_dim: int = 2304,
        decoder: str = DECODERS[0],
        decoder_classes: int = 1,
        num_heads: int | None = None,
    ) -> None:
        super().__init__()
        heads = _heads(embed_dim, num_heads)
        self.in_channels = in_channels
        self.width = embed_dim
        self.patch: Size = (patch_slices, patch_rows, patch_columns)
        self.register_buffer("mask_token", torch.zeros(1, 1, embed_dim))
        self.down_projection = PatchEmbedding(in_channels, embed_dim, self.patch)
        if decoder != DECODERS[0]:
            self.up_projection = SegmentationLayers(embed_dim, decoder_classes, self.patch).requires_grad_(False)
        self.eva = Transformer(embed_dim, depth, heads, mlp_dim)
        self.head_width = embed_dim // heads
        self.shared: SharedSpace | None = None
        self._initialise()

    @property
    def blocks(self) -> nn.ModuleList:
        """Of the transformer, in order."""
        return self.eva.blocks

    def forward(self, volume: torch.Tensor) -> Features:
        """Features of a batch of volumes.

        Parameters
        ----------
        volume : torch.Tensor
            Shape (batch, channels, three sides), windowed as the weights were trained; sides are whole patches.

        Raises
        ------
        InputError
            Other axes, channels or sides.
        """
        grid = self._grid(volume)
        turns = rotations(grid, self.head_width, volume.device)
        patches = self.eva(self.down_projection(volume), turns)
        shared = None if self.shared is None else self.shared(patches)
        return Features(pooled=patches.mean(dim=1), patches=patches, grid=grid, shared=shared)

    def _grid(self, volume: torch.Tensor) -> Size:
        fits = volume.dim() == 5 and volume.shape[1] == self.in_channels
        if not fits or any(not side or side % step for side, step in zip(volume.shape[2:], self.patch, strict=True)):
            patch = " x ".join(str(side) for side in self.patch)
            raise InputError(
                f"The encoder cannot take a volume of shape {tuple(volume.shape)}.",
                todo=f"Give (batch, {self.in_channels}, three sides), with sides that are whole patches of {patch}.",
            )
        k, j, i = (side // step for side, step in zip(volume.shape[2:], self.patch, strict=True))
        return k, j, i

    def _initialise(self) -> None:
        """Usual values for training from nothing; deeper blocks add less at first."""
        for module in self.eva.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for number, block in enumerate(self.eva.blocks, start=1):
                for last in (block.attn.proj, block.mlp.fc2):
                    last.weight /= math.sqrt(2 * number)


def rotations(grid: Size, head_width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Turns of every patch's pairs of values: complex numbers of length 1, shape (patches, head width / 2).

    A third of a head belongs to each axis, slowest first; within it, pair n turns by ``place / BASE ** (n / pairs)``.
    """
    pairs = head_width // (2 * AXES)
    speeds = BASE ** (-torch.arange(pairs, device=device, dtype=torch.float32) / pairs)
    places = torch.meshgrid(*(torch.arange(side, device=device, dtype=torch.float32) for side in grid), indexing="ij")
    angles = (torch.stack(places, dim=-1)[..., None] * speeds).flatten(3).flatten(0, 2)
    return torch.polar(torch.ones_like(angles), angles)


def turned(vectors: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Vectors (batch, heads, patches, head width) with each pair of values turned by its patch's place."""
    pairs = torch.view_as_complex(vectors.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).to(vectors.dtype)


def attended(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention of (batch, heads, patches, head width), as many queries at once as the memory's bound allows."""
    batch, heads, patches, _ = queries.shape
    at_once = max(1, _SCORES_AT_ONCE // (batch * heads * patches))
    bounds = [*range(0, patches, at_once), patches]
    parts = (
        functional.scaled_dot_product_attention(queries[:, :, first:last], keys, values)
        for first, last in pairwise(bounds)
    )
    return torch.cat(list(parts), dim=2)


def _heads(width: int, heads: int | None) -> int:
    found = PUBLISHED_HEADS.get(width) if heads is None else heads
    if found is None:
        raise InputError(
            f"Nothing says how many heads share the width of {width}.",
            why="Their number shows in no tensor.",
            todo="State num_heads among the architecture's parameters in the model's description.",
        )
    if found < 1 or width % found or width // found % (2 * AXES):
        raise InputError(
            f"{found} heads cannot share a width of {width}.",
            todo=f"Give a divisor of it, with heads whose width is a multiple of {2 * AXES}.",
        )
    return found
