"""Weights by rule, for parity: whoever follows the rule elsewhere builds the same network and can compare its answers.

Each tensor is filled from ``numpy.random.RandomState((crc32(name) + seed) % 2**32)``, whose streams NumPy keeps for
ever, with ``standard_normal(shape)`` called ``n``:

* convolutions and linear layers: ``n / sqrt(number of inputs of one output)``;
* normalisation weights: ``1 + 0.1 n``, those that end a block (``bn3``): ``0.3 + 0.03 n``;
* biases and running means: ``0.05 n``; running variances: ``1 + 0.1 |n|``; counters: 1000;
* ``mean`` and ``std``: ImageNet's.

Needs torch.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import nn

from MedAILib.models.stm_inference import IMAGENET_MEAN, IMAGENET_STD

_LAST_NORM_GAIN = 0.3


def fill(network: nn.Module, seed: int = 0) -> None:
    """Fill every tensor of a network's state by the rule above, in place."""
    for name, tensor in network.state_dict().items():
        tensor.copy_(torch.from_numpy(filled(name, tuple(tensor.shape), seed)).view(tensor.shape))


def filled(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """The values of one tensor by the rule above.

    Parameters
    ----------
    name : str
        In the state dict, without prefix.
    shape : tuple of int
    seed : int

    Returns
    -------
    ndarray, float64
    """
    kind = name.rpartition(".")[2]
    constants = {"num_batches_tracked": (1000.0,), "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    if kind in constants:
        return np.array(constants[kind], dtype=np.float64).reshape(shape)
    normal = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
    if kind in ("bias", "running_mean"):
        return 0.05 * normal
    if kind == "running_var":
        return 1 + 0.1 * np.abs(normal)
    if len(shape) == 1:
        return (_LAST_NORM_GAIN if ".bn3." in name else 1.0) * (1 + 0.1 * normal)
    return normal / math.sqrt(math.prod(shape[1:]))
