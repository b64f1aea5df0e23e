"""Heads that tell findings from an encoder's features: by prompts, linear, by attention. Needs torch.

Every head answers raw numbers, one per finding, shape (batch, findings). What makes probabilities of them is
`CTReportLib.nets.heads_calibration`; before that they are not calibrated, whatever their size.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from CTReportLib.nets.features import Features
from CTReportLib.nets.heads_calibration import UNKNOWN
from MedAILib.errors import InputError

CT_RATE_FINDINGS = 18
PUBLISHED_TEMPERATURE, LEAST_TEMPERATURE = 0.07, 0.01
SMALL = 0.02
"""Standard deviation of learned vectors before training."""


class PromptClassifier(nn.Module):
    """Findings by the angle between the volume and a text for each finding.

    The number for a finding is the cosine of the two, divided by a learned temperature, plus a learned bias. The
    publication computes its texts once, with a projection that was never trained; ``live`` keeps what the language
    model said of the prompts instead and projects it anew, so that the projection learns and new prompts can be given.

    Parameters
    ----------
    vision_dim, text_dim, shared_dim : int
        Width of the features, of the language model, and of the space in which they meet.
    findings : int
    live : bool
        False: the tensors of the published files, whose texts cannot be changed.

    Source: ReCT-VLM (NEWMES-AI, 2025), re-implemented.
    """

    def __init__(
        self,
        vision_dim: int = 768,
        text_dim: int = 768,
        shared_dim: int = 512,
        findings: int = CT_RATE_FINDINGS,
        live: bool = True,
    ) -> None:
        super().__init__()
        self.live = live
        self.vision_proj = _projection(vision_dim, shared_dim)
        self.text_proj = _projection(text_dim, shared_dim)
        self.temperature = nn.Parameter(torch.tensor(PUBLISHED_TEMPERATURE))
        self.soft_prompts = nn.Parameter(torch.randn(findings, shared_dim) * SMALL)
        self.disease_bias = nn.Parameter(torch.zeros(findings))
        name, width = ("prompt_features", text_dim) if live else ("disease_text_embeds", shared_dim)
        self.register_buffer(name, torch.zeros(findings, width))

    def set_prompts(self, features: torch.Tensor) -> None:
        """Take what a language model says of each finding's prompt.

        Parameters
        ----------
        features : torch.Tensor
            Shape (findings, text_dim).

        Raises
        ------
        InputError
            Another shape, values that are no numbers, or a network whose texts cannot be changed.
        """
        if not self.live:
            raise InputError("The texts of this classifier are fixed.", todo="Train one with live=True.")
        take_prompts(self.prompt_features, features)

    def forward(self, features: Features) -> torch.Tensor:
        """Raw numbers, shape (batch, findings)."""
        cosines = self.similarities(features)
        return cosines / self.temperature.clamp(min=LEAST_TEMPERATURE) + self.disease_bias

    def similarities(self, features: Features) -> torch.Tensor:
        """Cosines of volumes and texts, -1 to 1, shape (batch, findings)."""
        seen = features.pooled if features.regions is None else (features.pooled + features.regions.mean(dim=1)) / 2
        return functional.normalize(self.vision_proj(seen), dim=-1) @ self.texts().T

    def texts(self) -> torch.Tensor:
        """Vector of length 1 for each finding, shape (findings, shared_dim)."""
        if not self.live:
            return functional.normalize(self.disease_text_embeds + self.soft_prompts, dim=-1)
        texts = functional.normalize(self.text_proj(self.prompt_features), dim=-1)
        return functional.normalize(texts + self.soft_prompts, dim=-1)


class LinearProbe(nn.Module):
    """One linear layer on the whole volume's features: what the encoder already knows."""

    def __init__(self, vision_dim: int = 768, findings: int = CT_RATE_FINDINGS) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(vision_dim)
        self.linear = nn.Linear(vision_dim, findings)

    def forward(self, features: Features) -> torch.Tensor:
        """Raw numbers, shape (batch, findings)."""
        return self.linear(self.norm(features.pooled))


class AttentionProbe(nn.Module):
    """One learned question per finding to all patches: small findings are not averaged away.

    Where a finding's question looks (`attention`) is a hint to the place; it is no segmentation.
    """

    def __init__(self, vision_dim: int = 768, findings: int = CT_RATE_FINDINGS) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(vision_dim)
        self.key = nn.Linear(vision_dim, vision_dim, bias=False)
        self.value = nn.Linear(vision_dim, vision_dim)
        self.queries = nn.Parameter(torch.randn(findings, vision_dim) * SMALL)
        self.weight = nn.Parameter(torch.randn(findings, vision_dim) * SMALL)
        self.bias = nn.Parameter(torch.zeros(findings))

    def forward(self, features: Features) -> torch.Tensor:
        """Raw numbers, shape (batch, findings)."""
        pooled = self.attention(features).flatten(2) @ self.value(self.norm(features.patches))
        return (pooled * self.weight).sum(dim=-1) + self.bias

    def attention(self, features: Features) -> torch.Tensor:
        """How much each finding looks at each patch: shape (batch, findings, planes, rows, columns), of sum 1."""
        keys = self.key(self.norm(features.patches))
        scores = self.queries @ keys.transpose(-2, -1) * keys.shape[-1] ** -0.5
        return scores.softmax(dim=-1).unflatten(-1, features.grid)


def take_prompts(into: torch.Tensor, features: torch.Tensor) -> None:
    """Copy one text vector per finding; `InputError` where shapes differ or values are no numbers."""
    if features.shape != into.shape or not bool(features.isfinite().all()):
        raise InputError(
            f"The prompts have the shape {tuple(features.shape)}, or hold values that are no numbers.",
            todo=f"Give one vector per finding: {tuple(into.shape)}.",
        )
    with torch.no_grad():
        into.copy_(features)


def prompt_pair(finding: str) -> tuple[str, str]:
    """The two prompts of zero-shot classification, as CT-CLIP was trained to compare them."""
    return f"{finding} is present.", f"{finding} is not present."


def zero_shot(vision: torch.Tensor, present: torch.Tensor, absent: torch.Tensor, temperature: float) -> torch.Tensor:
    """Raw numbers whose sigmoid is the softmax over a finding's two prompts, shape (batch, findings).

    Parameters
    ----------
    vision : torch.Tensor
        Shape (batch, width).
    present, absent : torch.Tensor
        What the text encoder says of the prompts with and without the finding, shape (findings, width).
    temperature : float
        Of the contrastive training, above 0.

    Raises
    ------
    InputError
        Widths or numbers of findings that differ, or a temperature that is not above 0.
    """
    if present.shape != absent.shape or vision.shape[-1] != present.shape[-1] or not temperature > 0:
        raise InputError(
            f"Volumes of shape {tuple(vision.shape)} and prompts of shapes {tuple(present.shape)} and "
            f"{tuple(absent.shape)} at temperature {temperature} cannot be compared.",
            todo="Take image and text encoder of the same model.",
        )
    seen, yes, no = (functional.normalize(part, dim=-1) for part in (vision, present, absent))
    return seen @ (yes - no).T / temperature


def finding_loss(
    raw: torch.Tensor, labels: torch.Tensor, *, focal: bool = False, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """Mean cross entropy over all findings that are known, or its focal form (Lin et al. 2017, arXiv 1708.02002).

    Parameters
    ----------
    raw : torch.Tensor
        Shape (batch, findings).
    labels : torch.Tensor
        1 present, 0 absent, `CTReportLib.nets.heads_calibration.UNKNOWN` not looked for; same shape.
    """
    known = labels != UNKNOWN
    wanted = labels.clamp(min=0).to(raw.dtype)
    each = functional.binary_cross_entropy_with_logits(raw, wanted, reduction="none")
    if focal:
        missed = (wanted - raw.sigmoid()).abs()
        each = each * missed**gamma * (alpha * wanted + (1 - alpha) * (1 - wanted))
    return (each * known).sum() / known.sum().clamp(min=1)


def _projection(width: int, shared: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, shared), nn.LayerNorm(shared), nn.GELU(), nn.Linear(shared, shared), nn.LayerNorm(shared)
    )
