"""Findings by prompts alone, without training: the volume beside two texts for each finding. Needs torch."""

from __future__ import annotations

import torch
from torch import nn

from CTReportLib.nets.features import Features
from CTReportLib.nets.heads import CT_RATE_FINDINGS, take_prompts, zero_shot
from MedAILib.errors import InputError


class ZeroShot(nn.Module):
    """What the text encoder of a model of images and texts says of each finding's two prompts, stored.

    The prompts are those of `CTReportLib.nets.heads.prompt_pair`; so the text encoder is not needed to classify. It
    answers on features whose encoder came with a projection into the space shared with texts.

    Parameters
    ----------
    shared_dim : int
        Width of that space.
    findings : int
    """

    def __init__(self, shared_dim: int = 768, findings: int = CT_RATE_FINDINGS) -> None:
        super().__init__()
        self.register_buffer("present", torch.zeros(findings, shared_dim))
        self.register_buffer("absent", torch.zeros(findings, shared_dim))
        self.register_buffer("temperature", torch.ones(()))

    def set_prompts(self, present: torch.Tensor, absent: torch.Tensor, temperature: float) -> None:
        """Take what the text encoder says of the prompts with and without each finding, shape (findings, shared_dim).

        Raises
        ------
        InputError
            Another shape, values that are no numbers, or a temperature that is not above 0.
        """
        if not temperature > 0:
            raise InputError(f"A temperature of {temperature} compares nothing.", todo="Give that of the training.")
        take_prompts(self.present, present)
        take_prompts(self.absent, absent)
        self.temperature.fill_(temperature)

    def forward(self, features: Features) -> torch.Tensor:
        """Raw numbers, shape (batch, findings).

        Raises
        ------
        InputError
            The features are not in the shared space.
        """
        if features.shared is None:
            raise InputError(
                "Prompts cannot be compared with these features.",
                why="The encoder's file has no projection into the space that its training shared with texts.",
                todo="Take the whole file of the model of images and texts as encoder.",
            )
        return zero_shot(features.shared, self.present, self.absent, float(self.temperature))
