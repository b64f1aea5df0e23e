"""What a language model reads: picture, prompt, answer, and padding that it must not see. Needs torch.

Padding stands before everything else, never between picture and prompt, and is masked; in training neither it nor the
picture nor the prompt counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

IGNORED = -100
"""Label of what does not count, as in transformers."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A batch for a language model.

    Attributes
    ----------
    embeddings : torch.Tensor
        Shape (batch, tokens, width).
    mask : torch.Tensor
        1 where there is something to read, 0 for padding; int64, shape (batch, tokens).
    labels : torch.Tensor
        The tokens that count in training, `IGNORED` elsewhere; int64, shape (batch, tokens).
    """

    embeddings: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    @property
    def positions(self) -> torch.Tensor:
        """Place of each token among those that are read, from 0; int64, shape (batch, tokens)."""
        return positions_of(self.mask)


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """Places of tokens among those that are not masked; 0 for padding."""
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)


def reading(
    network: Any,
    prompts: Sequence[Sequence[int]],
    visual: torch.Tensor | None = None,
    answers: Sequence[Sequence[int]] | None = None,
) -> Reading:
    """Put a batch together.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        Whose words become vectors.
    prompts : sequence of sequences of int
        Tokens.
    visual : torch.Tensor, optional
        Tokens of the picture, shape (batch, tokens, width); they come before the prompt.
    answers : sequence of sequences of int, optional
        What shall be learnt to follow, with the token that ends a text.
    """
    embed = network.get_input_embeddings()
    device, dtype = embed.weight.device, embed.weight.dtype
    nothing = embed.weight.new_zeros(0, embed.weight.shape[-1])
    parts, labels = [], []
    for row, prompt in enumerate(prompts):
        answer = list(answers[row]) if answers is not None else []
        ids = torch.tensor([*prompt, *answer], dtype=torch.long, device=device)
        seen = nothing if visual is None else visual[row].to(device, dtype)
        parts.append(torch.cat([seen, embed(ids)]))
        before = torch.full((len(seen) + len(prompt),), IGNORED, dtype=torch.long, device=device)
        labels.append(torch.cat([before, ids[len(prompt) :]]))
    length = max(map(len, parts))
    mask = torch.stack([torch.arange(length, device=device) >= length - len(part) for part in parts]).long()
    return Reading(
        torch.stack([functional.pad(part, (0, 0, length - len(part), 0)) for part in parts]),
        mask,
        torch.stack([functional.pad(one, (length - len(one), 0), value=IGNORED) for one in labels]),
    )


def reading_loss(network: Any, batch: Reading) -> torch.Tensor:
    """Mean cross entropy of the answers' tokens, a single number with its gradient."""
    logits = network(
        inputs_embeds=batch.embeddings, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).logits
    told, wanted = logits[:, :-1].float(), batch.labels[:, 1:]
    return functional.cross_entropy(told.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)
