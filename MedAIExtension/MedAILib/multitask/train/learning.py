"""One step of training, on tensors: augmentation, losses, what learns in which phase. Needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from MedAILib.multitask.network import MultiTaskUNet
from MedAILib.multitask.train.request import Phase, PhaseKind
from MedAILib.multitask.train.slices import SliceSet

CLS_WEIGHT = 0.5
"""Of the classification loss beside the segmentation loss where both learn."""
WARM_UP = 0.05
LOWEST_RATE = 0.01
LARGEST_GRADIENT = 1.0
WEIGHT_DECAY = 1e-4

TURN_RAD = math.radians(15)
SCALE = 0.1
SHIFT = 0.05
"""Of the image's side."""
GAIN = 0.15
OFFSET = 0.15
NOISE = 0.05
"""Of the image's own standard deviation."""


@dataclass(frozen=True)
class Losses:
    """Of one step; None: the phase has no such part."""

    total: float
    seg: float | None
    cls: float | None


def optimizer_for(model: MultiTaskUNet, phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimizer, and the parameters it leaves alone frozen."""
    model.requires_grad_(phase.kind is not PhaseKind.CLS)
    model.cls_head.requires_grad_(phase.kind is not PhaseKind.SEG)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learning, lr=phase.learning_rate, weight_decay=WEIGHT_DECAY)


def set_mode(model: MultiTaskUNet, kind: PhaseKind) -> None:
    """Training mode where something learns; what is frozen keeps its statistics."""
    model.train(kind is not PhaseKind.CLS)
    model.cls_head.train(kind is not PhaseKind.SEG)


def learning_rate(phase: Phase, step: int) -> float:
    """Of a step of a phase, counted from 0."""
    warm_up = max(round(WARM_UP * phase.steps), 1)
    if step < warm_up:
        return phase.learning_rate * (step + 1) / warm_up
    done = (step - warm_up) / max(phase.steps - warm_up, 1)
    return phase.learning_rate * (LOWEST_RATE + (1 - LOWEST_RATE) * (1 + math.cos(math.pi * done)) / 2)


def draw_batch(slices: SliceSet, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Slices at random, half of them with a tumour where there are both kinds.

    Returns
    -------
    images, masks : Tensor, shape (size, 1, rows, columns), float32
    """
    positive, negative = slices.positive, slices.negative
    half = size if not len(negative) else size // 2 if len(positive) else 0
    chosen = np.concatenate(
        [
            rng.choice(group, count, replace=count > len(group))
            for group, count in ((positive, half), (negative, size - half))
            if count
        ]
    )
    images = torch.from_numpy(slices.images[chosen]).unsqueeze(1)
    return images, torch.from_numpy(slices.masks[chosen]).unsqueeze(1).float()


def augmented(images: Tensor, masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Each slice flipped left to right, turned, scaled, shifted, and of another contrast, at random."""
    count = len(images)
    turn, scale = rng.uniform(-TURN_RAD, TURN_RAD, count), rng.uniform(1 - SCALE, 1 + SCALE, count)
    flip = rng.choice([-1.0, 1.0], count)
    matrix = np.zeros((count, 2, 3), np.float32)
    matrix[:, 0, 0], matrix[:, 0, 1] = flip * np.cos(turn) / scale, -np.sin(turn) / scale
    matrix[:, 1, 0], matrix[:, 1, 1] = flip * np.sin(turn) / scale, np.cos(turn) / scale
    matrix[:, :, 2] = rng.uniform(-2 * SHIFT, 2 * SHIFT, (count, 2))  # the grid runs from -1 to 1
    grid = functional.affine_grid(torch.from_numpy(matrix).to(images.device), list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    masks = (functional.grid_sample(masks, grid, align_corners=False) >= 0.5).float()

    def numbers(spread: float, centre: float) -> Tensor:
        drawn = rng.normal(centre, spread, (count, 1, 1, 1)).astype(np.float32)
        return torch.from_numpy(drawn).to(images.device)

    deviation = images.std(dim=(1, 2, 3), keepdim=True)
    noise = torch.from_numpy(rng.standard_normal(tuple(images.shape), np.float32)).to(images.device)
    return images * numbers(GAIN, 1.0) + deviation * (numbers(OFFSET, 0.0) + NOISE * noise), masks


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross entropy plus one minus the soft Dice of the whole batch.

    Of the whole batch, since the Dice of a slice without a tumour says nothing until its last pixel is right.
    Source of the soft Dice: Milletari et al., 3DV 2016, arXiv:1606.04797.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, masks)
    probabilities = logits.sigmoid()
    return entropy + 1 - (2 * (probabilities * masks).sum() + 1) / ((probabilities + masks).sum() + 1)


def start_from_prior(model: MultiTaskUNet, slices: SliceSet) -> None:
    """Let the untrained decoder answer how much of a slice with a tumour is tumour: hundreds of steps saved."""
    share = float(np.mean([slices.masks[index].mean() for index in slices.positive[:: 1 + len(slices.positive) // 64]]))
    share = min(max(share, 1e-4), 0.5)
    with torch.no_grad():
        model.seg_decoder.outc.conv.bias.fill_(math.log(share / (1 - share)))


def take_step(
    model: MultiTaskUNet, optimizer: torch.optim.Optimizer, phase: Phase, step: int, images: Tensor, masks: Tensor
) -> Losses:
    """Learn from one batch; the modules are in the mode that `set_mode` gives."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(phase, step)
    optimizer.zero_grad(set_to_none=True)
    outputs = model(images, do_seg=phase.kind is not PhaseKind.CLS, do_cls=phase.kind is not PhaseKind.SEG)
    seg = segmentation_loss(outputs["seg"], masks) if "seg" in outputs else None
    shows_tumour = masks.amax(dim=(1, 2, 3)).long()
    cls = functional.cross_entropy(outputs["cls"], shows_tumour) if "cls" in outputs else None
    total = seg + CLS_WEIGHT * cls if seg is not None and cls is not None else seg if seg is not None else cls
    assert total is not None
    total.backward()
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    torch.nn.utils.clip_grad_norm_(learning, LARGEST_GRADIENT)
    optimizer.step()
    return Losses(*(None if loss is None else float(loss.detach()) for loss in (total, seg, cls)))  # type: ignore[arg-type]


def answers(model: MultiTaskUNet, slices: SliceSet, chosen: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    """What the network says of slices, in evaluation mode.

    Returns
    -------
    cls_logits : ndarray, shape (slices, classes), float32
    masks : ndarray, shape (slices, rows, columns), bool
        Where a tumour is more likely than not.
    """
    model.eval()
    logits, masks = [], []
    with torch.inference_mode():
        for index in chosen:  # one by one: memory stays small, and a processor is no slower
            outputs = model(torch.from_numpy(slices.images[index].copy())[None, None].to(device))
            logits.append(outputs["cls"][0].float().cpu().numpy())
            masks.append((outputs["seg"][0, 0] > 0).cpu().numpy())
    return np.stack(logits), np.stack(masks)
