"""What the header of a weight file tells of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of a tensor; ``dtype`` as numpy and torch name it, ``float32``."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Content:
    """What lies in a weight file.

    Attributes
    ----------
    tensors : mapping of str to TensorInfo
        By the names in the file.
    wrapper : str
        Keys that lead to the tensors in a checkpoint, ``model_state_dict``; empty where they lie bare.
    embedded : object
        The description that the file carries of itself, as parsed JSON; None: none.
    other_keys : tuple of str
        What else a checkpoint has: epoch, metrics, ...
    remarks : tuple of str
        For the user.
    """

    tensors: Mapping[str, TensorInfo]
    wrapper: str = ""
    embedded: Any = None
    other_keys: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
