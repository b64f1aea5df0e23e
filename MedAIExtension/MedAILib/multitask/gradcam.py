"""Grad-CAM: where the classification head looked.

Source: Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv:1610.02391, on the encoder's deepest features
(``encoder.down_blocks[-1]``). The head sees those features only, so its gradient with respect to them is all
that is needed: the network stays in evaluation mode, no parameter gets a gradient, and no statistic of a batch
normalisation moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn


def class_activation(head: nn.Module, deepest: Tensor, target_classes: list[int]) -> np.ndarray:
    """How strongly each place speaks for a class.

    Parameters
    ----------
    head : nn.Module
        From features to one logit per class, in evaluation mode.
    deepest : Tensor, shape (batch, channels, rows, columns)
    target_classes : list of int
        One per image.

    Returns
    -------
    ndarray, shape (batch, rows, columns), float32, at least 0
        In units of logits.
    """
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        features = deepest.detach().clone().requires_grad_(True)
        logits = head(features)
        chosen = logits[torch.arange(len(features)), torch.tensor(target_classes, device=logits.device)]
        (gradient,) = torch.autograd.grad(chosen.sum(), features)
    importance = gradient.mean(dim=(2, 3), keepdim=True)
    heat = torch.relu((importance * features.detach()).sum(dim=1))
    return heat.float().cpu().numpy()


def scaled(heat: np.ndarray) -> np.ndarray:
    """A map of one image from 0 to 1; one without any heat stays 0."""
    highest = heat.max()
    return (heat / highest if highest > 0 else heat).astype(np.float32)


def foreground(image: np.ndarray) -> np.ndarray:
    """Where the head or brain is: the largest connected part above Otsu's threshold, holes filled.

    Parameters
    ----------
    image : ndarray, shape (channels, rows, columns)
        Stored values, finite; channels are averaged.

    Returns
    -------
    ndarray, shape (rows, columns), bool
        All True for an image without contrast.

    Notes
    -----
    Otsu, IEEE Trans. SMC 9(1):62, 1979, on 256 bins. On images with a skull the skull belongs to it.
    """
    from scipy import ndimage

    grey = image.astype(np.float64).mean(axis=0)
    if grey.min() == grey.max():
        return np.ones(grey.shape, bool)
    counts, edges = np.histogram(grey, bins=256)
    labels, found = ndimage.label(grey > _otsu(counts, edges))
    if found == 0:
        return np.ones(grey.shape, bool)
    largest = 1 + int(np.bincount(labels.ravel())[1:].argmax())
    return np.asarray(ndimage.binary_fill_holes(labels == largest))


def _otsu(counts: np.ndarray, edges: np.ndarray) -> float:
    centres = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][np.nanargmax(between[:-1])])
