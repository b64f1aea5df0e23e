"""Weight files and descriptions for the tests: small networks, and headers of large ones without their numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from MedAILib.models.unet_inference import expected_shapes

FLAT = {
    "base_filters": 64,
    "depth": 4,
    "in_channels": 1,
    "seg_out_channels": 1,
    "cls_num_classes": 2,
    "model_type": "multitask",
    "version": "1.0",
    "description": "joint training",
    "trained_on": "BraTS slices",
    "training_config": "joint.yaml",
}
"""As the old generator wrote it beside every checkpoint."""

SMALL = {
    "in_channels": 1,
    "seg_out_channels": 1,
    "cls_num_classes": 2,
    "base_filters": 4,
    "depth": 2,
    "bilinear": True,
    "cls_hidden_dim": 8,
}

COMBINATIONS = tuple(
    {
        "in_channels": channels,
        "seg_out_channels": seg,
        "cls_num_classes": classes,
        "base_filters": filters,
        "depth": depth,
        "bilinear": bilinear,
        "cls_hidden_dim": hidden,
    }
    for channels, seg, classes, filters, depth, bilinear, hidden in product(
        (1, 3), (1, 4), (2, 3), (8, 16, 32, 64), (2, 4, 5), (True, False), (16, 64, 256)
    )
)


def write_hollow_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str] | None = None
) -> Path:
    """A safetensors file whose tensors are a hole: header true, numbers zero, hardly any space on the disk."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        counter = name.endswith("num_batches_tracked")
        begin, end = end, end + math.prod(shape) * (8 if counter else 4)
        header[name] = {"dtype": "I64" if counter else "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)
    return path


def write_hollow_unet(path: Path, parameters: Mapping[str, Any] = SMALL) -> Path:
    """A hollow safetensors file of a multi-task U-Net."""
    return write_hollow_safetensors(path, expected_shapes(parameters))


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
