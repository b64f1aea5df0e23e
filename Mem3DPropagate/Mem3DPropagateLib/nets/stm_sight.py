"""A memory network made ready on a device, and what it has seen: kept between propagations. Needs torch."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from Mem3DPropagateLib.nets.stm import STM, folded
from Mem3DPropagateLib.nets.stm_frame import Frame
from Mem3DPropagateLib.nets.stm_memory import Memory, Query
from Mem3DPropagateLib.nets.stm_weights import LoadedStm

Seen = TypeVar("Seen", Query, Memory)


class Precision(Enum):
    """In which numbers the network calculates."""

    AUTO = "auto"
    """bfloat16 where the processor or the GPU multiplies it itself, else float32."""
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Sight:
    """What looks at slices.

    What it saw is kept by the content of the slice, not by its place in an image: a correction costs no second look,
    also where the image comes anew with each request, and an image that changed is never taken for the former one.

    Parameters
    ----------
    loaded : LoadedStm
    precision : Precision
    kept_bytes : int
        Most memory for what is kept of slices.
    """

    def __init__(self, loaded: LoadedStm, precision: Precision = Precision.AUTO, kept_bytes: int = 1 << 29) -> None:
        self.loaded = loaded
        self.kept = Kept(kept_bytes)
        self._precision = precision
        self._device = ""
        self._dtype = torch.float32
        self._network: STM | None = None

    @property
    def name(self) -> str:
        """The model's id."""
        return self.loaded.name

    @property
    def sha256(self) -> str:
        """Of the weight file."""
        return self.loaded.sha256

    @property
    def network(self) -> STM:
        """The network as it calculates; `be_on` comes first."""
        assert self._network is not None
        return self._network

    def be_on(self, device: str) -> None:
        """Make the network ready on a device; what was seen on another one is given up."""
        if self._network is not None and self._device == device:
            return
        self.kept.clear()
        self._device = device
        self._dtype = _dtype(self._precision, device)
        fast = folded(self.loaded.network)
        self._network = fast.to(device=device, dtype=self._dtype, memory_format=torch.channels_last)

    def query(self, frame: Frame, plane: np.ndarray) -> Query:
        """What it sees of a slice, shape (rows, columns), stored values."""
        return self.kept.get(
            ("query", frame, _digest(frame.part(plane))), lambda: self.network.query(self._picture(frame, plane))
        )

    def reference(self, frame: Frame, plane: np.ndarray, masks: np.ndarray) -> Memory:
        """What it remembers of a slice that was drawn on; masks of shape (objects, rows, columns), bool."""
        key = ("reference", frame, _digest(frame.part(plane)), _digest(np.packbits(masks)), len(masks))
        return self.kept.get(key, lambda: self.remember(frame, plane, frame.masks(masks)))

    def remember(self, frame: Frame, plane: np.ndarray, masks: Tensor) -> Memory:
        """What it remembers of a slice and of probabilities, shape (objects, *frame.size)."""
        return self.network.memorise(self._picture(frame, plane), masks.to(self._device, self._dtype))

    def _picture(self, frame: Frame, plane: np.ndarray) -> Tensor:
        picture = frame.picture(plane, unit_range=self.network.takes_unit_range)
        return picture.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last)


class Kept:
    """Things by key, the latest ones within a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._things: OrderedDict[Hashable, Query | Memory] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Seen]) -> Seen:
        """The thing of that key, made where it is not there."""
        found = self._things.get(key)
        if found is not None:
            self._things.move_to_end(key)
            return found  # type: ignore[return-value]
        made = make()
        self._things[key] = made
        self.bytes += made.nbytes
        while self.bytes > self.most_bytes:
            self.bytes -= self._things.popitem(last=False)[1].nbytes
        return made

    def clear(self) -> None:
        self._things.clear()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._things)


def _digest(array: np.ndarray) -> bytes:
    """Of type, shape and content."""
    hashed = hashlib.blake2b(f"{array.dtype} {array.shape} ".encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(array).data)
    return hashed.digest()


def _dtype(precision: Precision, device: str) -> torch.dtype:
    if precision is Precision.AUTO:
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32


def _multiplies_bfloat16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16 itself; where it does not, converting costs more than it saves."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("arm_bf16"))
    return False
