"""One U-Net that draws every localised finding at once, each after its text. Needs torch.

The published design has a U-Net for each of five findings and lets all patches attend to one text, which adds the same
vector to every one of them and says nothing about places. Here the image is read once; the text of a finding, together
with what the whole volume shows, makes the last 1 x 1 x 1 convolution of that finding (as in the CLIP-driven universal
model, Liu et al., ICCV 2023, arXiv 2301.00785). A finding more costs one vector more.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from CTReportLib.nets.heads import take_prompts
from MedAILib.errors import InputError

LOCALISED_FINDINGS = 5
NORMS = ("group", "batch")
_GROUPS = 4
_SMOOTH = 1.0
"""Voxels added to overlap and sizes, so that a finding that is nowhere and drawn nowhere is right."""


class TextUNet(nn.Module):
    """Raw numbers for every voxel and finding.

    Normalised over groups of channels, batches of one volume and coarsest levels of one voxel train too; normalised
    over the batch it keeps how dense a whole crop is, which groups even out, and learns densities much faster, from
    batches of several crops.

    Parameters
    ----------
    in_channels : int
        Windows of the CT.
    base : int
        Channels at full resolution, a multiple of 4; doubled at every level.
    depth : int
        Levels, each half as fine as the one before.
    text_dim, findings : int
    norm : str
        One of `NORMS`.
    context : bool
        Whether the mean of all that it sees takes part in a finding's convolution. One that learned on crops and is
        given whole volumes must do without: the mean of a crop around a lesion is not that of a chest.
    """

    def __init__(
        self,
        in_channels: int = 1,
        base: int = 16,
        depth: int = 4,
        text_dim: int = 768,
        findings: int = LOCALISED_FINDINGS,
        norm: str = "group",
        context: bool = True,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise InputError(f"A U-Net cannot be normalised by '{norm}'.", todo=f"Choose {' or '.join(NORMS)}.")
        if base < _GROUPS or base % _GROUPS or depth < 1:
            raise InputError(f"A U-Net cannot have {base} channels and {depth} levels.", todo="Give a multiple of 4.")
        widths = [base << level for level in range(depth)]
        befores = [in_channels, *widths[:-1]]
        self.down = nn.ModuleList(_convolutions(of, to, norm) for of, to in zip(befores, widths, strict=True))
        self.up = nn.ModuleList(
            _convolutions(of + to, to, norm) for of, to in zip(widths[1:], widths[:-1], strict=True)
        )
        self.context = context
        told = text_dim + (widths[-1] if context else 0)
        self.kernel = nn.Sequential(nn.Linear(told, 4 * base), nn.GELU(), nn.Linear(4 * base, base + 1))
        self.register_buffer("prompt_features", torch.zeros(findings, text_dim))

    @property
    def step(self) -> int:
        """What every side of a volume must be a multiple of, voxels."""
        return 1 << (len(self.down) - 1)

    def set_prompts(self, features: torch.Tensor) -> None:
        """Take what a language model says of each finding's prompt, shape (findings, text_dim); else `InputError`."""
        take_prompts(self.prompt_features, features)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Raw numbers, shape (batch, findings, slices, rows, columns).

        Parameters
        ----------
        volume : torch.Tensor
            Shape (batch, channels, slices, rows, columns), windowed to 0..1; sides are multiples of `step`.

        Raises
        ------
        InputError
            Other axes or sides.
        """
        if volume.dim() != 5 or any(side % self.step for side in volume.shape[2:]):
            raise InputError(
                f"The network cannot take a volume of shape {tuple(volume.shape)}.",
                todo=f"Give (batch, channels, slices, rows, columns) with sides that are multiples of {self.step}.",
            )
        levels: list[torch.Tensor] = []
        for block in self.down:
            volume = block(functional.max_pool3d(volume, 2) if levels else volume)
            levels.append(volume)
        seen = levels.pop()
        kernel = self._kernels(seen.mean(dim=(2, 3, 4)))
        for block, skip in zip(reversed(self.up), reversed(levels), strict=True):
            finer = functional.interpolate(seen, scale_factor=2, mode="trilinear", align_corners=False)
            seen = block(torch.cat([finer, skip], dim=1))
        raw = torch.einsum("bczyx,bfc->bfzyx", seen, kernel[..., :-1])
        return raw + kernel[..., -1, None, None, None]

    def _kernels(self, whole: torch.Tensor) -> torch.Tensor:
        """Weights and bias of every finding's convolution, shape (batch, findings, base + 1)."""
        findings = len(self.prompt_features)
        width = self.prompt_features.shape[1]  # values of about 1, whatever the length of a text's vector
        texts = (functional.normalize(self.prompt_features, dim=-1) * width**0.5).expand(len(whole), -1, -1)
        if not self.context:
            return self.kernel(texts)
        return self.kernel(torch.cat([texts, whole[:, None].expand(-1, findings, -1)], dim=-1))


def drawing_loss(raw: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy plus one minus the Dice of each finding over the whole batch.

    Over the batch, as volume by volume the many without a finding would teach to draw nothing.

    Parameters
    ----------
    raw : torch.Tensor
        Shape (batch, findings, slices, rows, columns).
    wanted : torch.Tensor
        1 in the finding, 0 elsewhere; same shape.
    """
    wanted = wanted.to(raw.dtype)
    inside = (0, 2, 3, 4)
    chance = raw.sigmoid()
    overlap = (chance * wanted).sum(inside)
    dice = (2 * overlap + _SMOOTH) / (chance.sum(inside) + wanted.sum(inside) + _SMOOTH)
    return functional.binary_cross_entropy_with_logits(raw, wanted) + (1 - dice).mean()


def _convolutions(of: int, to: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (of, to):
        evened = nn.BatchNorm3d(to) if norm == "batch" else nn.GroupNorm(_GROUPS, to)
        layers += [nn.Conv3d(before, to, 3, padding=1, bias=False), evened, nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers)
