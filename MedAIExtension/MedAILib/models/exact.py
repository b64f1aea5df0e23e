"""Weight files that are exactly those of a network, or refused with the names of every tensor that does not fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from MedAILib.errors import InvalidWeights
from MedAILib.models.infer import differences

logger = logging.getLogger(__name__)

_NAMED_IN_MESSAGE = 12

Shape = tuple[int, ...]


def shapes_of(state: Mapping[str, Any]) -> dict[str, Shape]:
    """Name and shape of every tensor, as of a network's ``state_dict()``."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def require_exact(expected: Mapping[str, Shape], actual: Mapping[str, Shape], file_name: str, network: str) -> None:
    """Refuse tensors that are not exactly those of a network.

    Parameters
    ----------
    expected, actual : mapping of str to tuple of int
        Names and shapes; known prefixes of the actual ones are seen through.
    file_name, network : str
        For the message: the file, and what it resembles, in words.

    Raises
    ------
    InvalidWeights
        Its message names a dozen of the differences, its ``details`` and the log all of them, a line each.
    """
    refuse(list(differences(expected, actual, counters_may_be_missing=False)), file_name, network)


def refuse(found: Sequence[str], file_name: str, network: str) -> None:
    """Raise the `InvalidWeights` of `require_exact` where there are differences, each in words."""
    if not found:
        return
    more = f"; and {len(found) - _NAMED_IN_MESSAGE} more" if len(found) > _NAMED_IN_MESSAGE else ""
    error = InvalidWeights(
        f"'{file_name}' is refused: {len(found)} of its tensors are not those of the network it resembles.",
        why=f"It resembles {network}, but {'; '.join(found[:_NAMED_IN_MESSAGE])}{more}.",
        todo="Get the whole file: a network with one tensor unset answers nonsense.",
    )
    error.details = "\n".join(found)
    logger.error("%s", error.details)
    raise error


def require_finite(state: Mapping[str, object], file_name: str) -> None:
    """Refuse tensors with values that are no numbers.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
    file_name : str
        For the message.

    Raises
    ------
    InvalidWeights
        It names the tensors.
    """
    from MedAILib.models.torchmodel import import_torch

    torch = import_torch()
    bad = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise InvalidWeights(
            f"'{file_name}' is refused: it holds values that are no numbers.",
            why=f"They are in {', '.join(bad)}.",
            todo="The training that wrote it went astray: take an earlier checkpoint.",
        )
