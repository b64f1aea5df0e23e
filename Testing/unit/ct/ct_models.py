"""Small models in files: encoders of every kind, classifiers on their features, a network that draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from primus_cases import SMALL as PRIMUS_SMALL
from primus_cases import small as small_primus
from rect3d_cases import SMALL as RECT_SMALL
from rect3d_cases import small as small_rect3d

from CTReportLib.layouts import input_of
from CTReportLib.nets.conv import ConvEncoder, describe_conv, save_conv
from CTReportLib.nets.heads_calibration import fit_calibration
from CTReportLib.nets.heads_weights import FACTORIES, describe_head, save_head
from CTReportLib.preprocess import MEDIASTINAL_WINDOW, WIDE_WINDOW, Layout
from MedAILib.models.checkpoint import save_model_with_config
from MedAILib.models.config import Architecture, ModelConfig
from MedAILib.models.heads import Input
from MedAILib.models.tensors import file_sha256

torch.set_num_threads(1)  # more only wait for each other with networks as small as these

COARSE = Layout("coarse", (32, 24, 32), 12.0, (WIDE_WINDOW,))
"""A whole chest in few voxels; its sides differ, so that axes cannot be mixed up unseen."""
SLABS = Layout("slabs", (12, 16, 16), None, (MEDIASTINAL_WINDOW,))
WIDTHS = {"rect3d": 24, "primus": 24, "ct_conv": 16}


def an_encoder(kind: str, path: Path, **changed: Any) -> Path:
    """A file with an encoder of that kind, described."""
    if kind == "ct_conv":
        torch.manual_seed(3)
        save_conv(ConvEncoder(1, 4), path, describe_conv("small-conv", COARSE, base=4))
    elif kind == "primus":
        config = _config("small-primus", kind, {**PRIMUS_SMALL, "num_heads": 2}, input_of(COARSE), **changed)
        save_model_with_config(small_primus(), path, config)
    else:
        config = _config("small-rect3d", kind, {**RECT_SMALL, "planes": 6}, input_of(SLABS), **changed)
        save_model_with_config(small_rect3d(), path, config)
    return path


def _config(name: str, kind: str, parameters: dict[str, Any], image: Input, **changed: Any) -> ModelConfig:
    config = ModelConfig(name, "chest-ct-encoder", Architecture(kind, parameters), inputs=(image,))
    return replace(config, **changed)


def a_classifier(
    path: Path,
    findings: tuple[str, ...],
    *,
    encoder: Path | None = None,
    architecture: str = "ct_linear_probe",
    says: tuple[float, ...] = (),
    calibrated: bool = True,
    **parameters: Any,
) -> Path:
    """A file with a classifier; ``says``: raw number that it answers for each finding, whatever it sees."""
    torch.manual_seed(5)
    network = FACTORIES[architecture](**parameters, findings=len(findings))
    if says:
        with torch.no_grad():
            network.linear.weight.zero_()
            network.linear.bias.copy_(torch.tensor(says))
    sha256 = "" if encoder is None else file_sha256(encoder)
    config = describe_head("small-classifier", architecture, findings, encoder_sha256=sha256, **parameters)
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(60) % 2, (len(findings), 1)).T
    fitted = fit_calibration(2.0 * labels - 1 + generator.normal(0, 1, labels.shape), labels) if calibrated else ()
    save_head(network, path, config, fitted)
    return path


def a_localizer(path: Path, findings: tuple[str, ...], *, bias: float = -20.0, layout: Layout = COARSE) -> Path:
    """A file with a network that draws; with a low bias it draws nothing, with a high one everything."""
    torch.manual_seed(7)
    parameters = {"in_channels": len(layout.windows), "base": 4, "depth": 2, "text_dim": 8}
    network = FACTORIES["ct_text_unet"](**parameters, findings=len(findings))
    with torch.no_grad():
        last = network.kernel[-1]
        last.weight.zero_()
        last.bias.zero_()
        last.bias[-1] = bias
    config = replace(
        describe_head("small-localizer", "ct_text_unet", findings, **parameters), inputs=(input_of(layout),)
    )
    save_head(network, path, config)
    return path
