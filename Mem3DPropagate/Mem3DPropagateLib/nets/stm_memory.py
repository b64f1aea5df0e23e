"""What a space-time memory network keeps of slices, with masks and without, and how it reads it. Needs torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_QUERIES_AT_ONCE = 128
"""Positions that read at once: the affinities of all of them to all of a long memory would fill the computer."""


@dataclass(frozen=True, eq=False)
class Query:
    """A slice as the network sees it, without any mask: it can be kept and asked again.

    Attributes
    ----------
    key : Tensor, shape (1, positions, keydim)
    value : Tensor, shape (1, valdim, rows / 16, columns / 16)
    fine, finer : Tensor
        What the decoder needs of the image at 1/8 and at 1/4.
    deep : Tensor, optional
        Image features at 1/16, which only the quality head needs.
    """

    key: Tensor
    value: Tensor
    fine: Tensor
    finer: Tensor
    deep: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        tensors = (self.key, self.value, self.fine, self.finer, self.deep)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@dataclass(frozen=True, eq=False)
class Memory:
    """What is remembered of slices and the objects on them.

    Attributes
    ----------
    keys : Tensor, shape (objects, positions, keydim), float32
    values : Tensor, shape (objects, positions, valdim), float32
    """

    keys: Tensor
    values: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.keys.nbytes + self.values.nbytes

    @staticmethod
    def joined(memories: list[Memory]) -> Memory:
        """All positions of several memories of the same objects."""
        if len(memories) == 1:
            return memories[0]
        return Memory(torch.cat([m.keys for m in memories], 1), torch.cat([m.values for m in memories], 1))


def read(memory: Memory, key: Tensor) -> Tensor:
    """What the query reads: softmax(keys . key / sqrt(keydim)) over all positions of the memory, times their values.

    Parameters
    ----------
    memory : Memory
    key : Tensor, shape (1, positions, keydim), float32

    Returns
    -------
    Tensor, shape (objects, positions, valdim)
    """
    keys = memory.keys
    asked = key.expand(len(keys), -1, -1).split(_QUERIES_AT_ONCE, dim=1)
    return torch.cat([functional.scaled_dot_product_attention(part, keys, memory.values) for part in asked], dim=1)
