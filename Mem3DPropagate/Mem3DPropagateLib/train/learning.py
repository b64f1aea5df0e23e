"""One step of learning, on tensors: losses, the average of the weights, the learning rate. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from Mem3DPropagateLib.nets.gapnet import LOGIT_PX, GapNet, GapOutputs
from Mem3DPropagateLib.train.episodes import Episode

WARM_UP = 0.04
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 1.0
AVERAGE_DECAY = 0.999
OUTLINE_WEIGHT = 4.0
ELSEWHERE_WEIGHT = 0.05
"""Of pixels farther than two from the true outline, in the mean over a slice."""
ABSENT_WEIGHT = 0.3
"""Of the outline's loss on slices without the structure, which the presence head is to tell."""
SMOOTH_PX = 20.0
QUALITY_WEIGHT, PRESENCE_WEIGHT, CORRECTION_WEIGHT = 0.3, 0.2, 0.02

INPUTS = ("references", "shapes", "held", "slices", "priors_px", "scalars", "apart_px")


@dataclass(frozen=True)
class Batch:
    """Episodes as tensors, the first dimension the episode; names and shapes are those of `Episode`."""

    inputs: Mapping[str, Tensor]
    truth: Tensor
    one_sided: Tensor

    @classmethod
    def of(cls, episodes: list[Episode]) -> Batch:
        def joined(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(episode, name) for episode in episodes]))

        one_sided = torch.tensor([episode.one_sided for episode in episodes])
        return cls({name: joined(name) for name in INPUTS}, joined("truth"), one_sided)

    def to(self, device: str) -> Batch:
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return Batch(inputs, self.truth.to(device, non_blocking=True), self.one_sided.to(device))


@dataclass(frozen=True)
class Scores:
    """How good the answers to a batch are, one number per wanted slice: shape (B, Q).

    Attributes
    ----------
    dice, prior_dice : Tensor
        Of the answer and of the prior alone; 1 where truth and mask are empty.
    expected : Tensor
        The expected Dice the network states.
    present : Tensor, bool
        Slices that hold the structure.
    told_present : Tensor, bool
        Slices the network says hold it.
    """

    dice: Tensor
    prior_dice: Tensor
    expected: Tensor
    present: Tensor
    told_present: Tensor


def loss_of(outputs: GapOutputs, truth: Tensor) -> Tensor:
    """Outline, overlap, quality and presence together, a number."""
    target = truth.to(outputs.level_px.dtype)
    present = truth.any(dim=3).any(dim=2)
    weight = torch.where(present, 1.0, ABSENT_WEIGHT)
    logits = outputs.level_px / LOGIT_PX
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    near = _outline(target)
    shares = ELSEWHERE_WEIGHT + near
    outline = OUTLINE_WEIGHT * (entropy * shares).sum((2, 3)) / shares.sum((2, 3))
    inside = torch.sigmoid(logits)
    both = (inside * target).sum((2, 3))
    overlap = 1 - (2 * both + SMOOTH_PX) / (inside.sum((2, 3)) + target.sum((2, 3)) + SMOOTH_PX)
    quality = functional.smooth_l1_loss(
        torch.sigmoid(outputs.quality), dice_of(outputs.level_px >= 0, truth), reduction="none", beta=0.1
    )
    presence = functional.binary_cross_entropy_with_logits(outputs.presence, present.to(target.dtype))
    correction = (outputs.correction_px.abs() * near).sum((2, 3)) / (near.sum((2, 3)) + 100.0)
    return (
        (weight * (outline + overlap)).mean()
        + QUALITY_WEIGHT * (quality * present).sum() / present.sum().clamp(min=1)
        + PRESENCE_WEIGHT * presence
        + CORRECTION_WEIGHT * correction.mean()
    )


def scores_of(outputs: GapOutputs, batch: Batch) -> Scores:
    """Scores of one batch; the outputs need no gradient."""
    return Scores(
        dice_of(outputs.level_px >= 0, batch.truth),
        dice_of(batch.inputs["priors_px"] >= 0, batch.truth),
        torch.sigmoid(outputs.quality),
        batch.truth.any(dim=3).any(dim=2),
        outputs.presence >= 0,
    )


def dice_of(masks: Tensor, truth: Tensor) -> Tensor:
    """Dice per slice: two of (B, Q, rows, columns) to (B, Q), float32."""
    both = (masks & truth).sum((2, 3)).float()
    total = (masks.sum((2, 3)) + truth.sum((2, 3))).float()
    return torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0)


def _outline(target: Tensor) -> Tensor:
    """1 within two pixels of the outline of masks, shape (B, Q, rows, columns), else 0."""
    grown = functional.max_pool2d(target, 5, 1, 2)
    shrunk = -functional.max_pool2d(-target, 5, 1, 2)
    return grown - shrunk


class Learner:
    """A network with its optimizer and the running average of its weights, which is what is kept in the end.

    Parameters
    ----------
    network : GapNet
    learning_rate : float
    steps : int
        Of the whole training: the rate falls to nothing over them along a cosine.
    """

    def __init__(self, network: GapNet, learning_rate: float, steps: int) -> None:
        self.network = network.train()
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self._rate, self._steps = learning_rate, steps
        decaying = [p for p in network.parameters() if p.dim() > 1]
        others = [p for p in network.parameters() if p.dim() <= 1]
        groups = [{"params": decaying, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate)

    def learn(self, batch: Batch, step: int, half_precision: bool = False) -> float:
        """Learn from a batch; ``step`` counts from 0. Returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self._rate, step, self._steps)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(batch.truth.device.type, torch.bfloat16, enabled=half_precision):
            outputs = self.network(**batch.inputs)
        loss = loss_of(_full(outputs), batch.truth)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """All that learning goes on from."""
        return {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])


def learning_rate(highest: float, step: int, steps: int) -> float:
    """Of a step, counted from 0: linear warm-up, then a cosine to nothing."""
    warm_up = max(round(WARM_UP * steps), 1)
    if step < warm_up:
        return highest * (step + 1) / warm_up
    done = (step - warm_up) / max(steps - warm_up, 1)
    return highest * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _full(outputs: GapOutputs) -> GapOutputs:
    return GapOutputs(
        outputs.level_px.float(), outputs.correction_px.float(), outputs.presence.float(), outputs.quality.float()
    )
