"""Small Primus encoders with values by rule, and how their frozen answers were made."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from CTReportLib.nets.primus import Primus

torch.set_num_threads(1)  # more only wait for each other with networks as small as these

FROZEN = Path(__file__).with_name("primus_reference.npz")
"""Answers of ``dynamic_network_architectures`` 0.4.4 with timm 1.0.22 to `CASES`, float32."""
CASES: Mapping[str, dict[str, Any]] = {
    "cubes": {"width": 24, "heads": 2, "depth": 2, "patch": (4, 4, 4), "size": (16, 12, 20), "channels": 1},
    "slabs": {"width": 36, "heads": 3, "depth": 1, "patch": (2, 4, 8), "size": (8, 16, 16), "channels": 2},
}
SMALL: dict[str, Any] = {
    "in_channels": 1,
    "embed_dim": 24,
    "depth": 2,
    "patch_slices": 4,
    "patch_rows": 4,
    "patch_columns": 4,
    "mlp_dim": 64,
    "decoder": "none",
    "decoder_classes": 1,
}
"""Parameters as a weight file shows them; the two heads it does not show."""


def by_rule(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Values that depend on a name only, the same everywhere; weights of norms lie about 1."""
    generator = np.random.RandomState(zlib.crc32(name.encode()))
    values = 0.15 * generator.standard_normal(shape)
    if "norm" in name and name.endswith("weight"):
        values = values + 1
    return torch.from_numpy(values.astype(np.float32))


def fill(network: torch.nn.Module) -> torch.nn.Module:
    """Every tensor of a network by rule."""
    network.load_state_dict({name: by_rule(name, tuple(t.shape)) for name, t in network.state_dict().items()})
    return network.eval()


def small(**changed: Any) -> Primus:
    encoder = fill(Primus(**{**SMALL, "num_heads": 2, **changed}))
    assert isinstance(encoder, Primus)
    return encoder


def of_case(case: Mapping[str, Any]) -> Primus:
    """Our encoder of a case."""
    patch = dict(zip(("patch_slices", "patch_rows", "patch_columns"), case["patch"], strict=True))
    width = case["width"]
    encoder = Primus(
        case["channels"], width, case["depth"], **patch, mlp_dim=int(width * 8 / 3), num_heads=case["heads"]
    )
    fill(encoder)
    return encoder


def volume_of(name: str, case: Mapping[str, Any]) -> torch.Tensor:
    """Two volumes of a case."""
    return 5 * by_rule(f"volume {name}", (2, case["channels"], *case["size"]))


def published_answer(name: str, case: Mapping[str, Any]) -> np.ndarray:
    """What the published package answers: patches, shape (2, patches, width); it must be importable."""
    from dynamic_network_architectures.architectures.primus import Primus as Published

    network = Published(
        input_channels=case["channels"],
        embed_dim=case["width"],
        patch_embed_size=case["patch"],
        num_classes=1,
        eva_depth=case["depth"],
        eva_numheads=case["heads"],
        input_shape=case["size"],
        use_abs_pos_embed=False,
        init_values=0.1,
        scale_attn_inner=True,
    )
    fill(network)
    network.up_projection = torch.nn.Identity()
    with torch.inference_mode():
        answer: np.ndarray = network(volume_of(name, case)).flatten(2).transpose(1, 2).numpy()
    return answer
