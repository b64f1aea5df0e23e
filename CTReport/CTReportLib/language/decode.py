"""Token after token, the most probable one each time: the same picture and prompt give the same text. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch

from CTReportLib.language.sequences import Reading, positions_of
from MedAILib.errors import InvalidWeights


@dataclass(frozen=True)
class Written:
    """What a language model wrote.

    Attributes
    ----------
    ids : tuple of int
        Without the token that ended it.
    finished : bool
        Whether the model itself ended it; False: it was stopped at the limit.
    """

    ids: tuple[int, ...]
    finished: bool


def greedy(
    network: Any,
    batch: Reading,
    stop_ids: Collection[int],
    limit: int,
    on_token: Callable[[int], None] = lambda count: None,
    positions: torch.Tensor | None = None,
) -> Written:
    """Write after what was read, to its end or to the limit.

    Parameters
    ----------
    network : transformers.PreTrainedModel
    batch : Reading
        Of one text.
    stop_ids : collection of int
    limit : int
        The most tokens to write.
    on_token : callable
        Told the number of tokens so far, before each step; what it raises ends the work.
    positions : torch.Tensor, optional
        Places of what was read, for models that count them otherwise: shape (rows, 1, tokens); what is written goes on
        from the highest. Default: those of the batch.

    Raises
    ------
    InvalidWeights
        The model answers values that are no numbers.
    """
    mask = batch.mask
    places = positions_of(mask) if positions is None else positions
    after = int(places.max())
    step: dict[str, Any] = {"inputs_embeds": batch.embeddings, "position_ids": places}
    ids: list[int] = []
    cache = None
    while len(ids) < limit:
        on_token(len(ids))
        told = network(**step, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, token = told.past_key_values, _most_probable(told.logits)
        if token in stop_ids:
            return Written(tuple(ids), True)
        ids.append(token)
        after += 1
        mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
        step = {
            "input_ids": torch.tensor([[token]], device=mask.device),
            "position_ids": torch.full_like(places[..., -1:], after),
        }
    return Written(tuple(ids), False)


def _most_probable(logits: torch.Tensor) -> int:
    last = logits[0, -1].float()
    if not bool(torch.isfinite(last.max())):
        raise InvalidWeights(
            "The language model answers values that are no numbers.",
            why="Its weights are damaged, or too large for the number format they are computed in.",
            todo="Set dtype to float32 in the model's description, or get the model again.",
        )
    return int(last.argmax())
