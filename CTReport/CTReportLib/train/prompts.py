"""A vector for each finding: from a text encoder, or fixed ones that are told apart and mean nothing. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from CTReportLib.findings import finding

LEAST_WIDTH = 32


def prompt_vectors(findings: Sequence[str], text_encoder: Path | None) -> tuple[torch.Tensor, str]:
    """Vectors of findings, float32, shape (findings, width), and in words where they come from.

    Without a text encoder they are unit vectors at right angles: the order of the eighteen and of ground glass decides,
    so that a finding has the same vector in every training.

    Raises
    ------
    FileMissing, InvalidWeights, MissingPackage
        The text encoder cannot be used.
    """
    if text_encoder is None:
        from CTReportLib.findings import FINDINGS, GROUND_GLASS

        order = [one.id for one in (*FINDINGS, GROUND_GLASS)]
        places = torch.tensor([order.index(name) for name in findings])
        return torch.eye(LEAST_WIDTH)[places], "fixed unit vectors at right angles, one per finding; no text encoder"
    from CTReportLib.language.textencoder import load_text_encoder

    loaded = load_text_encoder(text_encoder)
    vectors = loaded.encode([finding(name).name.lower() for name in findings])
    return vectors, f"the findings' names in lower case, through the text encoder of sha256 {loaded.sha256}"
