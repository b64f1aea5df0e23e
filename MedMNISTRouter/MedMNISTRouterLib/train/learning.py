"""One step of training, on tensors: which images, augmentation, losses, rates, the moving average. Needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from MedMNISTRouterLib.datasets import DatasetTask
from MedMNISTRouterLib.train.layout import MEAN, STD
from MedMNISTRouterLib.train.request import Recipe

RATE = 1e-3
WEIGHT_DECAY = 1e-4
WARM_UP = 0.05
LOWEST_RATE = 0.01
SLOWEST_AVERAGE = 0.99
"""Share of the moving average that a step keeps."""
GRADE_WEIGHT = 1.0
"""Of the distance between distributions of grades, beside the cross entropy."""
_SMALLEST_BASE = 1e-4


@dataclass(frozen=True)
class Augmentation:
    """How far images are changed at random.

    Attributes
    ----------
    turn_deg : float
    scale, shift : float
        Of the image's side; each direction by itself.
    gamma, contrast, brightness : float
        Standard deviations: of the exponent's logarithm, of the contrast's, and of what is added (white is 1).
    tint : float
        Standard deviation of what is added to each colour by itself.
    noise : float
        Largest standard deviation of noise.
    blur : bool
        Mix images with a smoothed copy of themselves.
    mirror : bool
        Swap left and right; never where labels name sides.
    any_turn : bool
        Also quarter turns: there is no up under a microscope.
    """

    turn_deg: float = 15.0
    scale: float = 0.15
    shift: float = 0.08
    gamma: float = 0.3
    contrast: float = 0.25
    brightness: float = 0.12
    tint: float = 0.0
    noise: float = 0.04
    blur: bool = True
    mirror: bool = True
    any_turn: bool = False


ROUTER_AUGMENTATION = Augmentation(gamma=0.2, contrast=0.15, brightness=0.08, noise=0.02)
_MICROSCOPE = Augmentation(gamma=0.15, contrast=0.15, brightness=0.06, tint=0.03, noise=0.02, any_turn=True)
_SIDES_MATTER = Augmentation(mirror=False)


def augmentation_for(flag: str) -> Augmentation:
    """What is done to the images of a data set; of the router where ``flag`` is empty."""
    if not flag:
        return ROUTER_AUGMENTATION
    if flag in ("bloodmnist", "dermamnist", "pathmnist", "tissuemnist"):
        return _MICROSCOPE
    return _SIDES_MATTER if flag.startswith("organ") else Augmentation()


def draws_evenly(recipe: Recipe, task: DatasetTask, *, is_router: bool) -> bool:
    """Whether classes are drawn equally often: of a binary task and of a router, whose shares tell nothing."""
    return recipe is Recipe.SHORT and (is_router or task is DatasetTask.BINARY)


def order_of_epoch(labels: np.ndarray, seed: int, epoch: int, *, evenly: bool) -> np.ndarray:
    """Indices of an epoch's images, as many as there are."""
    rng = np.random.default_rng([seed, 1, epoch])
    if not evenly:
        return rng.permutation(len(labels))
    kinds = np.unique(labels)
    share = math.ceil(len(labels) / len(kinds))
    drawn = []
    for kind in kinds:
        members = rng.permutation(np.flatnonzero(labels == kind))
        more = rng.choice(members, max(share - len(members), 0))
        drawn.append(np.concatenate([members[:share], more]))
    return rng.permutation(np.concatenate(drawn))[: len(labels)]


def as_tensor(images: np.ndarray, device: str) -> Tensor:
    """Pixels between 0 and 1, shape (n, channels, rows, columns), float32; `normalised` is still to come."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
    return tensor.to(torch.float32, memory_format=torch.channels_last) / 255.0


def normalised(images: Tensor) -> Tensor:
    return (images - MEAN) / STD


def augmented(images: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Images turned, scaled, shifted, and of other brightness, contrast and sharpness, each in its own way.

    Parameters
    ----------
    images : Tensor, shape (n, channels, size, size)
        Between 0 and 1.
    how : Augmentation
    rng : Generator
    """
    count, device = len(images), images.device

    def normal(spread: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.normal(0.0, spread, (count, channels, 1, 1)).astype(np.float32)).to(device)

    matrix = torch.from_numpy(_matrices(count, how, rng)).to(device)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    x = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    x = x.clamp(_SMALLEST_BASE, 1.0) ** torch.exp(normal(how.gamma))
    x = (x - 0.5) * torch.exp(normal(how.contrast)) + 0.5 + normal(how.brightness)
    if how.tint:
        x = x + normal(how.tint, images.shape[1])
    if how.blur:
        part = torch.from_numpy(rng.random((count, 1, 1, 1), np.float32)).to(device)
        x = torch.lerp(x, functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1), part)
    strength = rng.random((count, 1, 1, 1), np.float32) * how.noise
    grain = torch.from_numpy(rng.standard_normal(tuple(x.shape), np.float32) * strength).to(device)
    return (x + grain).contiguous(memory_format=torch.channels_last)


def _matrices(count: int, how: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Maps from places in the new image to places in the old one, shape (count, 2, 3), float32."""
    turn = np.radians(rng.uniform(-how.turn_deg, how.turn_deg, count))
    if how.any_turn:
        turn += rng.integers(0, 4, count) * (np.pi / 2)
    wide, high = (1 + rng.uniform(-how.scale, how.scale, count) for _ in range(2))
    flip = rng.choice([-1.0, 1.0], count) if how.mirror else np.ones(count)
    matrix = np.zeros((count, 2, 3), np.float32)
    matrix[:, 0, 0], matrix[:, 0, 1] = flip * wide * np.cos(turn), -flip * wide * np.sin(turn)
    matrix[:, 1, 0], matrix[:, 1, 1] = high * np.sin(turn), high * np.cos(turn)
    matrix[:, :, 2] = rng.uniform(-2 * how.shift, 2 * how.shift, (count, 2))  # the grid runs from -1 to 1
    return matrix


def loss_of(logits: Tensor, labels: Tensor, task: DatasetTask) -> Tensor:
    """Cross entropy; of several labels the binary one of each, of grades also how far off the distribution is.

    Notes
    -----
    The second term for grades is the squared distance between cumulative distributions (squared earth mover's
    distance: Hou, Yu and Samaras, arXiv:1611.05916): a wrong grade costs more the further off it is.
    """
    if task is DatasetTask.MULTI_LABEL:
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    loss = functional.cross_entropy(logits, labels)
    if task is not DatasetTask.ORDINAL:
        return loss
    grades = logits.shape[1]
    below = (labels[:, None] <= torch.arange(grades, device=logits.device)).to(logits.dtype)
    gaps = logits.softmax(dim=1).cumsum(dim=1) - below
    return loss + GRADE_WEIGHT * gaps.square().sum(dim=1).mean()


def optimizer_for(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe is Recipe.PUBLISHED:
        return torch.optim.Adam(network.parameters(), lr=RATE)
    return torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Of a step, counted from 0, of so many."""
    if recipe is Recipe.PUBLISHED:
        return RATE * 0.1 ** ((step >= 0.5 * steps) + (step >= 0.75 * steps))
    warm_up = max(round(WARM_UP * steps), 1)
    if step < warm_up:
        return RATE * (step + 1) / warm_up
    done = (step - warm_up) / max(steps - warm_up, 1)
    return RATE * (LOWEST_RATE + (1 - LOWEST_RATE) * (1 + math.cos(math.pi * done)) / 2)


@torch.no_grad()
def average_in(average: nn.Module, network: nn.Module, step: int, recipe: Recipe) -> None:
    """Let the weights' moving average follow by one step; of the published recipe it is the network itself."""
    keep = 0.0 if recipe is Recipe.PUBLISHED else min(SLOWEST_AVERAGE, (1 + step) / (10 + step))
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1 - keep)
        else:
            kept.copy_(new)
