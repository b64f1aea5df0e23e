"""Our own network: what geometry foretells of a slice, corrected by what the image shows there.

Geometry gives every slice between (or beyond) the references a *prior*, a signed distance. The network sees the slice
with its two neighbours, how likely each pixel's brightness is inside the structure, and the prior; it reads, by
attention over image features, what the references look like inside and outside; and it answers a *correction* of the
prior in pixels. The correction is scaled down with the distance to the nearest reference, to nothing at a reference,
so that a densely drawn structure stays as geometry has it. Two small heads answer whether the structure is on the
slice at all and which Dice overlap to expect.

All slices of a gap are one batch: no slice waits for its neighbour. The memory read follows space-time memory networks
(Oh et al., ICCV 2019, arXiv:1904.00607) with the L2 similarity of STCN (Cheng et al., NeurIPS 2021,
arXiv:2106.05210). Needs torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGES = 4
"""Input planes of a slice: itself, the slices before and after it, and the log likelihood ratio."""

SCALARS = 7
"""Plain numbers per wanted slice, see `Mem3DPropagateLib.nets.gapinput`."""

SHAPE_SCALE_PX = 8.0
"""Signed distances enter divided by this and clipped to -1..1 twice as far."""

HALF_GATE_PX = 4.0
"""Distance to the nearest reference, in working pixels, at which half of a correction counts."""

LOGIT_PX = 1.5
"""Pixels of signed distance per unit of log-odds."""


@dataclass(frozen=True)
class GapOutputs:
    """What the network answers, B structures with Q wanted slices each.

    Attributes
    ----------
    level_px : Tensor, shape (B, Q, rows, columns)
        Corrected signed distance, positive inside, in working pixels.
    correction_px : Tensor, shape (B, Q, rows, columns)
        What was added to the prior.
    presence : Tensor, shape (B, Q)
        Log-odds that the structure is on the slice.
    quality : Tensor, shape (B, Q)
        Log-odds form of the expected Dice overlap.
    """

    level_px: Tensor
    correction_px: Tensor
    presence: Tensor
    quality: Tensor


class Block(nn.Module):
    """Pre-activation residual block: twice (norm, ReLU, 3x3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(channels), _norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.norm1(x)))
        return x + self.conv2(functional.relu(self.norm2(y)))


class Encoder(nn.Module):
    """Features at a half, a quarter and an eighth of the resolution."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, width, 3, stride=2, padding=1)
        self.block2 = Block(width)
        self.down4 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.block4 = Block(2 * width)
        self.down8 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        self.block8 = nn.Sequential(Block(4 * width), Block(4 * width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f2 = self.block2(self.stem(x))
        f4 = self.block4(self.down4(f2))
        return f2, f4, self.block8(self.down8(f4))


class ShapeEncoder(nn.Module):
    """A drawn reference (its image planes, signed distance, mask) at an eighth of the resolution."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(IMAGES + 2, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, values, 3, stride=2, padding=1),
            Block(values),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class GapNet(nn.Module):
    """The network.

    Parameters
    ----------
    width : int
        Channels at half resolution; twice and four times as many at a quarter and an eighth.
    keys : int
        Channels by which memory is searched.
    """

    def __init__(self, width: int = 24, keys: int = 32) -> None:
        super().__init__()
        values = 4 * width
        self.encoder = Encoder(IMAGES, width)
        self.shape_encoder = ShapeEncoder(width, values)
        self.key = nn.Conv2d(4 * width, keys, 3, padding=1)
        self.place_weight = nn.Parameter(torch.tensor(3.0))
        self.distance_weight = nn.Parameter(torch.tensor(0.5))
        self.scalars = nn.Sequential(nn.Linear(SCALARS, 32), nn.ReLU(), nn.Linear(32, 4 * width))
        self.join8 = nn.Conv2d(4 * width + values + 1, 4 * width, 3, padding=1)
        self.decode8 = Block(4 * width)
        self.join4 = nn.Conv2d(6 * width + 1, 2 * width, 3, padding=1)
        self.decode4 = Block(2 * width)
        self.join2 = nn.Conv2d(3 * width + 1, width, 3, padding=1)
        self.decode2 = Block(width)
        self.join1 = nn.Conv2d(width + IMAGES + 1, 16, 3, padding=1)
        self.answer = nn.Conv2d(16, 1, 3, padding=1)
        self.presence = nn.Sequential(nn.Linear(3 * 4 * width + SCALARS, 64), nn.ReLU(), nn.Linear(64, 1))
        pooled = 2 * 4 * width + 2 * width + SCALARS + 3
        self.quality = nn.Sequential(nn.Linear(pooled, 64), nn.ReLU(), nn.Linear(64, 1))
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)

    def memorise(self, images: Tensor, shapes: Tensor) -> tuple[Tensor, Tensor]:
        """Keys, shape (N, keys, h, w), and values, shape (N, values, h, w), of references.

        Parameters
        ----------
        images : Tensor, shape (N, IMAGES, rows, columns)
        shapes : Tensor, shape (N, 2, rows, columns)
            Scaled signed distance and mask.
        """
        key = self.key(self.encoder(images)[2])
        return key, self.shape_encoder(torch.cat((images, shapes), 1))

    def forward(
        self,
        references: Tensor,
        shapes: Tensor,
        held: Tensor,
        slices: Tensor,
        priors_px: Tensor,
        scalars: Tensor,
        apart_px: Tensor,
    ) -> GapOutputs:
        """Correct the priors of wanted slices.

        Parameters
        ----------
        references : Tensor, shape (B, R, IMAGES, rows, columns)
        shapes : Tensor, shape (B, R, 2, rows, columns)
        held : Tensor, shape (B, R), bool
            False for references that only fill up the batch.
        slices : Tensor, shape (B, Q, IMAGES, rows, columns)
        priors_px : Tensor, shape (B, Q, rows, columns)
        scalars : Tensor, shape (B, Q, SCALARS)
        apart_px : Tensor, shape (B, Q, R)
            Distance of each wanted slice to each reference, in working pixels.
        """
        many, count = priors_px.shape[:2]
        keys, values = self.memorise(references.flatten(0, 1), shapes.flatten(0, 1))
        prior = priors_px.flatten(0, 1)[:, None]
        f2, f4, f8 = self.encoder(slices.flatten(0, 1))
        read = self._read(self.key(f8), keys, values, held, apart_px)
        shape = (prior / SHAPE_SCALE_PX).clamp(-2, 2)
        numbers = scalars.flatten(0, 1)
        told = self.scalars(numbers)[:, :, None, None]
        d8 = self.decode8(self.join8(torch.cat((f8, read, functional.avg_pool2d(shape, 8)), 1)) + told)
        d4 = self.decode4(self.join4(torch.cat((_up(d8), f4, functional.avg_pool2d(shape, 4)), 1)))
        d2 = self.decode2(self.join2(torch.cat((_up(d4), f2, functional.avg_pool2d(shape, 2)), 1)))
        fine = torch.cat((_up(d2), slices.flatten(0, 1), shape), 1)
        answer = self.answer(functional.relu(self.join1(fine)))[:, 0]
        nearest_px = apart_px.masked_fill(~held[:, None], math.inf).amin(dim=2).flatten()
        gate = nearest_px / (nearest_px + HALF_GATE_PX)
        correction = answer * gate[:, None, None] * SHAPE_SCALE_PX
        level = prior[:, 0] + correction
        presence = self._presence(d8, read, prior, numbers)
        quality = self._quality(d8, d4, level, correction, numbers)
        rows, columns = priors_px.shape[2:]
        return GapOutputs(
            level.view(many, count, rows, columns),
            correction.view(many, count, rows, columns),
            presence.view(many, count),
            quality.view(many, count),
        )

    def _read(self, query: Tensor, keys: Tensor, values: Tensor, held: Tensor, apart_px: Tensor) -> Tensor:
        """What the references hold where they look like a wanted slice: shape (B * Q, values, h, w)."""
        many, count, refs = apart_px.shape
        h, w = query.shape[2:]
        tokens = h * w
        place = _places(h, w, query) * self.place_weight
        q = torch.cat((query, place.expand(len(query), -1, -1, -1)), 1)
        k = torch.cat((keys, place.expand(len(keys), -1, -1, -1)), 1)
        q = q.view(many, count, -1, tokens).transpose(2, 3).flatten(1, 2)
        k = k.view(many, refs, -1, tokens).transpose(2, 3).flatten(1, 2)
        v = values.view(many, refs, -1, tokens).transpose(2, 3).flatten(1, 2)
        likeness = (2 * q @ k.transpose(1, 2) - k.square().sum(2)[:, None]) / math.sqrt(query.shape[1])
        bias = -self.distance_weight.abs() * torch.log1p(apart_px)
        bias = bias.masked_fill(~held[:, None], -1e4)
        bias = bias[:, :, None, :, None].expand(-1, -1, tokens, -1, tokens).reshape(likeness.shape)
        read = torch.softmax((likeness + bias).float(), dim=2).to(v.dtype) @ v
        return read.view(many, count, tokens, -1).transpose(2, 3).reshape(many * count, -1, h, w)

    def _presence(self, d8: Tensor, read: Tensor, prior_px: Tensor, scalars: Tensor) -> Tensor:
        """Log-odds, shape (N,), that a slice holds the structure, from what lies where the prior has it."""
        inside = functional.avg_pool2d(torch.sigmoid(prior_px / LOGIT_PX), 8)
        pooled = (_mean(d8, inside), d8.amax((2, 3)), _mean(d8 - read, inside), scalars)
        return self.presence(torch.cat(pooled, 1))[:, 0]

    def _quality(self, d8: Tensor, d4: Tensor, level: Tensor, correction: Tensor, scalars: Tensor) -> Tensor:
        """Expected Dice as log-odds, shape (N,). It looks at what was answered and must not bend it to its liking."""
        d8, d4, level, correction = (x.detach() for x in (d8, d4, level, correction))
        inside = torch.sigmoid(level / LOGIT_PX)[:, None]
        area = inside.sum((1, 2, 3)) + 1.0
        outline = inside * (1 - inside)
        unsure = outline.sum((1, 2, 3)) / area.sqrt()
        moved = (correction[:, None].abs() * outline).sum((1, 2, 3)) / area.sqrt()
        inside8, inside4 = functional.avg_pool2d(inside, 8), functional.avg_pool2d(inside, 4)
        seen = (_mean(d8, inside8), d8.mean((2, 3)), _mean(d4, inside4))
        told = torch.stack((unsure, moved, area.log() / 4), 1)
        return self.quality(torch.cat((*seen, scalars, told), 1))[:, 0]


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    """Mean over rows and columns under a weight: (N, C, h, w) and (N, 1, h, w) to (N, C)."""
    return (x * weight).sum((2, 3)) / (weight.sum((2, 3)) + 0.05)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // 8, channels)


def _up(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _places(h: int, w: int, like: Tensor) -> Tensor:
    """Row and column of every token, in eighths of the largest working size: shape (1, 2, h, w)."""
    rows, columns = (torch.arange(n, device=like.device, dtype=like.dtype) / 8 for n in (h, w))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
