"""Narrow memory networks, filled by rule, and what they are asked in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedAILib.models.stm_inference import MASK_INPUTS, VARIANTS
from Mem3DPropagateLib.nets.stm import STM
from Mem3DPropagateLib.nets.stm_fill import fill
from Mem3DPropagateLib.nets.stm_weights import LoadedStm, load_stm

torch.set_num_threads(1)  # more only wait for each other with networks as small as these

NARROW = {"keydim": 16, "valdim": 32, "width": 4}
"""The published networks' topology, 16 times narrower."""
FULL = {"keydim": 128, "valdim": 512, "width": 64}
KINDS = [(variant, mask_input) for variant in VARIANTS for mask_input in MASK_INPUTS]


def narrow(variant: str = "plain", mask_input: str = "background", seed: int = 0) -> STM:
    network = STM(variant, mask_input, **NARROW).eval()
    fill(network, seed)
    return network


def loaded(folder: Path, network: STM) -> LoadedStm:
    path = folder / "network.pth"
    torch.save(network.state_dict(), path)
    return load_stm(path)


def a_frame(rows: int = 64, columns: int = 96) -> torch.Tensor:
    """A smooth picture, shape (1, 3, rows, columns), 0..1."""
    y, x = torch.meshgrid(torch.linspace(0, 3, rows), torch.linspace(0, 4, columns), indexing="ij")
    return torch.stack([(y * k + x).sin() * 0.5 + 0.5 for k in (1, 2, 3)])[None]


def discs(rows: int = 64, columns: int = 96) -> torch.Tensor:
    """Two discs that do not touch, shape (2, rows, columns), float32."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([((y - rows // 2) ** 2 + (x - c) ** 2 < (rows // 4) ** 2) for c in (24, columns - 24)]).float()


def a_volume(slices: int = 24, rows: int = 64, columns: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """An image with a bright body in it, float32, and the body, bool; both of shape (slices, rows, columns)."""
    z, y, x = np.mgrid[:slices, :rows, :columns]
    radius = 6 + 8 * np.sin(np.pi * (z + 1) / (slices + 1))
    body = (y - rows / 2 - z / 8) ** 2 + (x - columns / 2) ** 2 < radius**2
    texture = np.sin(x / 5) * np.cos(y / 7) + np.sin(z / 3)
    return (80.0 * body + 10 * texture).astype(np.float32), body


def checkpoint_of(state: dict[str, Any], *, prefix: str = "", training: bool = False) -> dict[str, Any]:
    """A state dict as training tools leave it."""
    named = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    if not training:
        return named
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-5, "params": [0]}]}
    facts = {"epoch": 12, "loss": 0.25, "minloss": 0.2, "max_jaccard": 0.8, "max_skip": 5}
    return {**facts, "state_dict": named, "optimizer": optimizer}
