"""The ReCT chest CT encoder: a transformer on patches that knows planes and anatomical regions. Needs torch.

    encoder = Rect3D().eval()
    features = encoder(volume, labels)      # volume (batch, 1, 64, 512, 512), labels (batch, 64, 512, 512)

Names and shapes of all tensors are those of the publication, so its weight files load; the formulas are, too, computed
without its tables of patches by patches (`CTReportLib.nets.rect3d_attention`) and its loop over patches and regions
(`CTReportLib.nets.rect3d_regions`).

Three parts are in its files and in no answer: the network on the label map, the table of region embeddings, and the
class token, which the publication takes away again before the first block. They are kept, and not trained.

Source: ReCT-VLM (NEWMES-AI, 2025), re-implemented.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from CTReportLib.nets.features import Features
from CTReportLib.nets.rect3d_attention import RegionAwareAttention, SliceAwareAttention, plane_steps
from CTReportLib.nets.rect3d_regions import Size, region_shares
from MedAILib.errors import InputError
from MedAILib.models.rect3d_inference import MASK_WIDTHS, likely_grid

UNUSED = ("patch_embed.cls_token", "anatomical_encoder.region_embeds.", "anatomical_encoder.mask_encoder.")
"""What the names of tensors begin with that take part in no answer."""
SLICE_WEIGHT = 0.5
"""What the publication multiplies the bias of planes by."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Rect3DFeatures(Features):
    """All that the encoder says of a batch of volumes; ``pooled``, ``patches`` and ``regions`` are projected.

    The publication sums over patches for a region, it does not average: regions have norms some hundred times larger
    than ``pooled``.

    Attributes
    ----------
    raw : torch.Tensor
        Patches before their projection, shape (batch, patches, width).
    shares : torch.Tensor
        Of the regions in every patch, shape (batch, patches, regions).
    """

    raw: torch.Tensor
    shares: torch.Tensor


class PatchEmbedding(nn.Module):
    """Patches of a volume as vectors, with a learned one for each place added."""

    def __init__(self, channels: int, width: int, patch: Size, tokens: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, width))
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.proj = nn.Conv3d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return self.proj(volume).flatten(2).transpose(1, 2) + self.pos_embed


class AnatomicalEncoder(nn.Module):
    """The learned prototypes of the regions, and what the published files hold beside them."""

    def __init__(self, width: int, regions: int) -> None:
        super().__init__()
        first, second = MASK_WIDTHS
        self.region_prototypes = nn.Parameter(torch.empty(regions, width))
        self.region_embeds = nn.Embedding(regions + 1, width)
        self.mask_encoder = nn.Sequential(
            *(nn.Conv3d(1, first, 3, padding=1), nn.BatchNorm3d(first), nn.ReLU(), nn.MaxPool3d(2)),
            *(nn.Conv3d(first, second, 3, padding=1), nn.BatchNorm3d(second), nn.ReLU(), nn.MaxPool3d(2)),
            nn.Conv3d(second, width, 3, padding=1),
        )


class Mlp(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(patches)))


class Block(nn.Module):
    """Attention to all patches, attention to the regions, two layers; each on normed values and added to its input."""

    def __init__(self, width: int, heads: int, hidden: int, distances: int, slice_weight: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.slice_attn = SliceAwareAttention(width, heads, distances, slice_weight)
        self.region_attn = RegionAwareAttention(width, heads)
        self.mlp = Mlp(width, hidden)

    def forward(
        self, patches: torch.Tensor, prototypes: torch.Tensor, shares: torch.Tensor, steps: torch.Tensor
    ) -> torch.Tensor:
        patches = patches + self.slice_attn(self.norm1(patches), steps)
        patches = patches + self.region_attn(self.norm2(patches), prototypes, shares)
        return patches + self.mlp(self.norm3(patches))


class Rect3D(nn.Module):
    """The encoder; the defaults are the published size, 133 million parameters.

    Parameters
    ----------
    in_channels : int
        Windows of the CT.
    embed_dim, depth, num_heads, mlp_dim : int
        Width, blocks, heads of the attention, width inside the blocks.
    num_regions : int
        Anatomical regions; their labels are 1 to this number.
    patch_slices, patch_rows, patch_columns : int
        Voxels of a patch.
    tokens : int
        Patches of a volume.
    distances : int
        Entries of the table of biases between planes.
    planes, rows : int, optional
        How the patches lie. None: planes of square shape, with the published proportions as nearly as can be.
    slice_weight : float

    Raises
    ------
    InputError
        Heads do not divide the width, or planes and rows do not divide the patches.
    """

    def __init__(
        self,
        in_channels: int = 1,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        num_regions: int = 20,
        patch_slices: int = 4,
        patch_rows: int = 16,
        patch_columns: int = 16,
        tokens: int = 16_384,
        mlp_dim: int = 3072,
        distances: int = 33,
        planes: int | None = None,
        rows: int | None = None,
        slice_weight: float = SLICE_WEIGHT,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise InputError(f"{num_heads} heads cannot share a width of {embed_dim}.", todo="Give a divisor of it.")
        self.in_channels = in_channels
        self.width = embed_dim
        self.regions = num_regions
        self.patch: Size = (patch_slices, patch_rows, patch_columns)
        self.grid = _grid(tokens, planes, rows)
        self.patch_embed = PatchEmbedding(in_channels, embed_dim, self.patch, tokens)
        self.anatomical_encoder = AnatomicalEncoder(embed_dim, num_regions)
        blocks = (Block(embed_dim, num_heads, mlp_dim, distances, slice_weight) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(embed_dim)
        self.global_proj = _projection(embed_dim)
        self.local_proj = _projection(embed_dim)
        self.region_proj = _projection(embed_dim)
        self.distances = distances
        self._initialise()

    @property
    def size(self) -> Size:
        """Slices, rows and columns of the volumes it takes."""
        slices, rows, columns = (count * side for count, side in zip(self.grid, self.patch, strict=True))
        return slices, rows, columns

    def forward(self, volume: torch.Tensor, labels: torch.Tensor | None = None) -> Rect3DFeatures:
        """Features of a batch of volumes.

        Parameters
        ----------
        volume : torch.Tensor
            Shape (batch, channels, slices, rows, columns), windowed to 0..1, of the network's `size`.
        labels : torch.Tensor, optional
            Anatomical regions, shape (batch, slices, rows, columns), whole numbers, 0 for none. None: no region is
            known anywhere, which is as a label map of zeros.

        Raises
        ------
        InputError
            Another size, or labels that are no regions.
        """
        self._check(volume, labels)
        shares = self._shares(volume, labels)
        prototypes = self.anatomical_encoder.region_prototypes
        steps = plane_steps(self.grid[0], self.distances, volume.device)
        patches = self.patch_embed(volume)
        for block in self.blocks:
            patches = block(patches, prototypes, shares, steps)
        raw = self.norm(patches)
        regions = shares.transpose(1, 2).to(raw.dtype) @ raw + prototypes
        return Rect3DFeatures(
            pooled=self.global_proj(raw.mean(dim=1)),
            patches=self.local_proj(raw),
            grid=self.grid,
            regions=self.region_proj(regions),
            raw=raw,
            shares=shares,
        )

    def _shares(self, volume: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        if labels is not None:
            return region_shares(labels.to(volume.device), self.regions, self.patch)
        shape = (len(volume), math.prod(self.grid), self.regions)
        return torch.full(shape, 1 / self.regions, device=volume.device)

    def _check(self, volume: torch.Tensor, labels: torch.Tensor | None) -> None:
        wanted = (self.in_channels, *self.size)
        if volume.dim() != 5 or tuple(volume.shape[1:]) != wanted:
            raise InputError(
                f"The encoder takes a batch of volumes of shape {wanted}, not {tuple(volume.shape)}.",
                todo="Resample the volume to the size in the model's description.",
            )
        if labels is not None and tuple(labels.shape) != (len(volume), *self.size):
            raise InputError(
                f"The label map of regions has the shape {tuple(labels.shape)}, the volume {tuple(volume.shape)}.",
                todo="Give it as (batch, slices, rows, columns) on the grid of the volume.",
            )

    def _initialise(self) -> None:
        """Usual values for training from nothing; what takes part in no answer is not trained."""
        for name, parameter in self.named_parameters():
            if name.startswith(UNUSED):
                parameter.requires_grad_(False)
            if name.endswith((".pos_embed", ".cls_token", ".slice_bias", "region_prototypes")):
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)


def _projection(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


def _grid(tokens: int, planes: int | None, rows: int | None) -> Size:
    if planes is None and rows is None:
        return likely_grid(tokens)
    planes = likely_grid(tokens)[0] if planes is None else planes
    inside, rest = divmod(tokens, planes) if planes > 0 else (0, 1)
    rows = math.isqrt(inside) if rows is None else rows
    if rest or rows < 1 or inside % rows:
        raise InputError(
            f"{tokens} patches cannot lie in {planes} planes of {rows} rows.",
            todo="Give planes and rows whose product divides the number of patches.",
        )
    return planes, rows, inside // rows
