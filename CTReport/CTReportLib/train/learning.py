"""One step of training, on tensors: batches, losses, learning rates. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from CTReportLib.nets.conv import ConvEncoder
from CTReportLib.nets.features import Features
from CTReportLib.nets.heads import finding_loss
from CTReportLib.nets.heads_unet import TextUNet
from CTReportLib.preprocess import Window
from CTReportLib.train.store import Store, bits

WARM_UP = 0.06
LARGEST_GRADIENT = 1.0
WEIGHT_DECAY, PROBE_DECAY = 1e-2, 1.0
SHIFT_VOXELS = 2
OFFSET_HU = 8.0
"""Standard deviation of what is added to a whole volume: scanners differ."""
DRAFT_WEIGHT = 1.0
LESION_SHARE = 0.75
"""Of the crops that lie around a lesion."""
RARITY = 0.25
"""0: crops lie around every finding alike; 1: every voxel of a lesion is met as often as the others."""
BALANCE_WEIGHT = 0.25
_SPACE = (0, 2, 3, 4)


def optimizer_for(
    modules: Sequence[nn.Module], learning_rate: float, decay: float = WEIGHT_DECAY
) -> torch.optim.Optimizer:
    """AdamW on all parameters of some networks."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=decay)


def learning_rate(highest: float, step: int, steps: int) -> float:
    """Of a step, counted from 0: up in a straight line, down along a cosine."""
    warm_up = max(round(WARM_UP * steps), 1)
    if step < warm_up:
        return highest * (step + 1) / warm_up
    return highest * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1))) / 2


def take_step(optimizer: torch.optim.Optimizer, loss: torch.Tensor, rate: float) -> float:
    """Learn from a loss; its value.

    Raises
    ------
    FloatingPointError
        The loss is no number; nothing was learned.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss is {value}")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    torch.nn.utils.clip_grad_norm_(learning, LARGEST_GRADIENT)
    optimizer.step()
    return value


def windowed(hu: np.ndarray, windows: Sequence[Window]) -> torch.Tensor:
    """Channels of volumes: float32, shape (batch, windows, k, j, i)."""
    return torch.from_numpy(np.stack([window.applied(hu) for window in windows], axis=1))


def encoder_batch(store: Store, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Volumes at random, a little shifted and a little brighter or darker.

    Returns
    -------
    chosen : ndarray, shape (size,)
    hu : ndarray, shape (size, k, j, i), int16
    drawn : ndarray, shape (size, k, j, i), uint8
    """
    chosen = rng.choice(len(store), size, replace=len(store) < size)
    hu, drawn = [], []
    for index in chosen:
        shift = rng.integers(-SHIFT_VOXELS, SHIFT_VOXELS + 1, 3)
        hu.append(varied(store.hu[index], shift, rng))
        drawn.append(_shifted(store.drawn[index], shift))
    return chosen, np.stack(hu), np.stack(drawn)


def varied(hu: np.ndarray, shift: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A volume (k, j, i) moved by whole voxels, a little brighter or darker."""
    return _shifted(hu, shift) + np.int16(rng.normal(0.0, OFFSET_HU))


def encoder_loss(
    encoder: ConvEncoder,
    head: nn.Module,
    volumes: torch.Tensor,
    labels: torch.Tensor,
    drafts: torch.Tensor,
    known: torch.Tensor,
    *,
    focal: bool,
) -> torch.Tensor:
    """Loss of the findings, and of the drafts where masks are known.

    Parameters
    ----------
    volumes : torch.Tensor
        Shape (batch, windows, k, j, i).
    labels : torch.Tensor
        Shape (batch, findings).
    drafts : torch.Tensor
        Masks of the localised findings on the volumes' grid, shape (batch, drafts, k, j, i).
    known : torch.Tensor
        Bool, shape (batch, drafts).
    """
    answer = encoder.answer(volumes)
    loss = finding_loss(head(answer.features).float(), labels, focal=focal)
    side = volumes.shape[2] // answer.drafts.shape[2]
    wanted = functional.max_pool3d(drafts, side)
    return loss + DRAFT_WEIGHT * draft_loss(answer.drafts.float(), wanted, known)


def draft_loss(raw: torch.Tensor, wanted: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Cross entropy where a finding is plus that where it is not, each a mean: so the rare one counts as much.

    Parameters
    ----------
    raw, wanted : torch.Tensor
        Shape (batch, findings, k, j, i).
    known : torch.Tensor
        Bool, shape (batch, findings); the others take no part.
    """
    each = functional.binary_cross_entropy_with_logits(raw, wanted, reduction="none")
    weight = known[:, :, None, None, None].to(raw.dtype)
    return _balanced(each, wanted * weight, weight).mean()


def drawing_shares(store: Store, findings: Sequence[int]) -> np.ndarray:
    """How often crops shall lie around each finding, of sum 1: the smaller it is, the more often."""
    voxels = np.zeros(len(findings))
    for drawn in store.drawn:
        voxels += [np.count_nonzero(drawn & np.uint8(1 << bit)) for bit in findings]
    shares: np.ndarray = np.maximum(voxels, 1.0) ** -RARITY
    return shares / shares.sum()


def crop_batch(
    store: Store, findings: Sequence[int], shares: np.ndarray, crop: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops, most of them around a voxel of a lesion.

    Parameters
    ----------
    store : Store
    findings : sequence of int
        Numbers of the localised findings.
    shares : ndarray, shape (findings,)
        See `drawing_shares`.
    crop : int
        Voxels of a side.
    size : int
        Crops.
    rng : numpy.random.Generator

    Returns
    -------
    hu : ndarray, shape (size, crop, crop, crop), int16
    wanted : ndarray, shape (size, findings, crop, crop, crop), float32
    known : ndarray, shape (size, findings), bool
    """
    shape = np.array(store.hu.shape[1:])
    hu, drawn, known = [], [], []
    for _ in range(size):
        index, centre = int(rng.integers(len(store))), None
        if rng.random() < LESION_SHARE:
            index, centre = _lesion(store, int(rng.choice(findings, p=shares)), rng) or (index, None)
        if centre is None:
            centre = rng.integers(0, shape)
        low = np.clip(centre - crop // 2 + rng.integers(-crop // 4, crop // 4 + 1, 3), 0, shape - crop)
        k, j, i = (slice(int(start), int(start) + crop) for start in low)
        hu.append(store.hu[index, k, j, i] + np.int16(rng.normal(0.0, OFFSET_HU)))
        drawn.append(store.drawn[index, k, j, i])
        known.append(store.known[index, list(findings)])
    return np.stack(hu), bits(np.stack(drawn), findings), np.stack(known)


def localizer_loss(
    network: TextUNet, volumes: torch.Tensor, wanted: torch.Tensor, known: torch.Tensor, *, balance: float
) -> torch.Tensor:
    """Cross entropy, and one minus the Dice of each finding that the batch shows.

    A finding that fills a thousandth of the voxels is soon drawn nowhere, and from there Dice leads nowhere either. So
    at the beginning its voxels count as much as all others together.

    Parameters
    ----------
    network : TextUNet
    volumes : torch.Tensor
        Shape (batch, windows, k, j, i).
    wanted : torch.Tensor
        Shape (batch, findings, k, j, i).
    known : torch.Tensor
        Bool, shape (batch, findings); the others take no part.
    balance : float
        How much that counts, 1 to 0.
    """
    raw = network(volumes).float()
    weight = known[:, :, None, None, None].to(raw.dtype)
    each = functional.binary_cross_entropy_with_logits(raw, wanted, reduction="none") * weight
    chance, truth = raw.sigmoid() * weight, wanted * weight
    sizes = truth.sum(_SPACE)
    shown = (sizes > 0).to(raw.dtype)
    count = shown.sum().clamp(min=1)
    dice = (2 * (chance * truth).sum(_SPACE) + 1) / (chance.sum(_SPACE) + sizes + 1)
    loss = each.sum() / weight.expand_as(each).sum().clamp(min=1) + ((1 - dice) * shown).sum() / count
    if balance > 0:
        loss = loss + BALANCE_WEIGHT * balance * (_balanced(each, truth, weight) * shown).sum() / count
    return loss


def _balanced(each: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean where a finding is plus mean where it is not, shape (findings,)."""
    there, elsewhere = truth, weight - truth
    hit = (each * there).sum(_SPACE) / there.sum(_SPACE).clamp(min=1)
    return hit + (each * elsewhere).sum(_SPACE) / elsewhere.sum(_SPACE).clamp(min=1)


def gathered(features: Sequence[Features]) -> Features:
    """Features of single volumes as those of a batch."""
    regions = [one.regions for one in features if one.regions is not None]
    return Features(
        pooled=torch.cat([one.pooled for one in features]),
        patches=torch.cat([one.patches for one in features]),
        grid=features[0].grid,
        regions=torch.cat(regions) if regions else None,
    )


def _lesion(store: Store, bit: int, rng: np.random.Generator) -> tuple[int, np.ndarray] | None:
    """A case with that finding and a voxel of it; None where twenty draws find none."""
    for index in rng.integers(0, len(store), 20):
        where = np.flatnonzero((store.drawn[index] >> np.uint8(bit)) & 1)
        if len(where):
            return int(index), np.array(np.unravel_index(rng.choice(where), store.drawn.shape[1:]))
    return None


def _shifted(array: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Moved by whole voxels; what comes in repeats the border."""
    for axis, by in enumerate(shift):
        if by:
            array = np.take(array, np.clip(np.arange(array.shape[axis]) - by, 0, array.shape[axis] - 1), axis)
    return array
