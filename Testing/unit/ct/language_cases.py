"""Finding tables, adapters and folders around tiny language models, for the tests of what writes reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny_language as tiny
import torch

from CTReportLib.findings import FINDINGS
from CTReportLib.language.families import LLAMA, Family
from CTReportLib.language.lora import save_adapter, with_adapter
from CTReportLib.language.projector import VisualProjector, describe_projector, save_projector
from CTReportLib.nets.features import Features
from CTReportLib.request import Basis, Decision, FindingRow

WIDTH = 24
"""Of the features that projectors read here."""


def a_table(**present: str) -> tuple[FindingRow, ...]:
    """All findings absent but those named; their values are places, such as ``lower third, left``."""
    rows = []
    for one in FINDINGS:
        row = FindingRow(one.id, one.name, Decision.ABSENT, Basis.RULE, evidence="made up")
        if one.id in present:
            place = present[one.id]
            side = next((side for side in ("left", "right") if place.endswith(side)), "both" if "both" in place else "")
            row = replace(row, decision=Decision.PRESENT, side=side, place=place)
        rows.append(row)
    return tuple(rows)


def some_features(batch: int = 1, width: int = WIDTH, seed: int = 0) -> Features:
    torch.manual_seed(seed)
    patches = torch.randn(batch, 12, width)
    return Features(pooled=patches.mean(1), patches=patches, grid=(3, 2, 2))


def a_projector(llm_dim: int, width: int = WIDTH, seed: int = 0, **changed: Any) -> VisualProjector:
    """An untrained projector to eight tokens."""
    torch.manual_seed(seed)
    return VisualProjector(width, llm_dim, **{"queries": 8, "depth": 1, "heads": 4, **changed}).eval()


def moved(network: Any, size: float = 0.3, seed: int = 0) -> Any:
    """An adapter whose change is no longer nothing, as after training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.copy_(size * torch.randn_like(parameter))
    return network


def save_moved_adapter(folder: Path, network: Any, family: Family = LLAMA, rank: int = 4) -> Path:
    """A saved adapter, as training leaves one; the network keeps it."""
    return save_adapter(moved(with_adapter(network, family, rank=rank, alpha=2 * rank, dropout=0.0)), folder)


def save_whole(folder: Path, *, encoder_sha256: str = "") -> Path:
    """Our folder with a Llama, an adapter and a projector."""
    tiny.save_base(folder / "base")
    save_moved_adapter(folder / "adapter", tiny.a_network(words=tiny.a_tokenizer().get_vocab_size()))
    projector = a_projector(tiny.SHAPE["hidden_size"])
    (folder / "projector").mkdir()
    config = describe_projector("tiny-projector", projector, encoder_sha256=encoder_sha256)
    save_projector(projector, folder / "projector" / "projector.safetensors", config)
    return tiny.describe(folder, adapter="adapter", projector="projector/projector.safetensors")
