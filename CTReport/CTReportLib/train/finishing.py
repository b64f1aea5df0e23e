"""What becomes of trained networks: calibrated on held patients, written with descriptions and a card. Needs torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from CTReportLib.findings import finding
from CTReportLib.layouts import input_of
from CTReportLib.nets.conv import ConvEncoder, describe_conv, save_conv
from CTReportLib.nets.heads_calibration import FEWEST, FindingCalibration
from CTReportLib.nets.heads_unet import TextUNet
from CTReportLib.nets.heads_weights import ENCODER_KEY, FACTORIES, describe_head, save_head
from CTReportLib.train.bank import FeatureBank
from CTReportLib.train.judging import Drawn
from CTReportLib.train.measures import FindingScore, finding_score
from CTReportLib.train.request import HEADS, LOCALIZER, TrainRequest
from MedAILib.models.config import ModelConfig

WEIGHTS = {name: f"{name}/{name}.safetensors" for name in ("encoder", "classifier", "localizer")}
"""Where each network is written, in the training's folder."""
LEAST_AUROC = 0.7
"""A finding that held patients show to be told worse than this is not answered: its threshold would be a guess."""
_PROBED = 32


@dataclass(frozen=True)
class Facts:
    """What every description says of the training.

    Attributes
    ----------
    settings : mapping
    trained_on : str
    prompts : str
        Where the findings' vectors come from.
    """

    settings: Mapping[str, Any]
    trained_on: str
    prompts: str = ""

    def training(self, **more: Any) -> dict[str, Any]:
        settings = {name: value for name, value in self.settings.items() if name != "data"}
        return {**more, **({"prompts": self.prompts} if self.prompts else {}), "settings": settings}


def write_encoder(encoder: ConvEncoder, request: TrainRequest, facts: Facts) -> Path:
    """The encoder with its description; its path."""
    path = _place(request.out, "encoder")
    config = describe_conv(
        _name(request.out, "encoder"),
        request.encoder_layout,
        base=request.base,
        training=facts.training(),
        trained_on=facts.trained_on,
    )
    save_conv(encoder, path, config)
    return path


def raw_answers(head: nn.Module, bank: FeatureBank, device: str) -> np.ndarray:
    """Raw numbers of a classifier for all cases of a bank, float64, shape (cases, findings)."""
    head.eval()
    if bank.pool is not None:
        bank.pool.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(bank), _PROBED):
            chosen = np.arange(start, min(start + _PROBED, len(bank)))
            found.append(head(bank.features(chosen, device)).float().cpu().double().numpy())
    return np.concatenate(found)


def write_classifier(
    head: nn.Module,
    request: TrainRequest,
    findings: Sequence[str],
    encoder_sha256: str,
    parameters: Mapping[str, Any],
    facts: Facts,
    fitted: tuple[FindingCalibration, ...],
    metrics: Mapping[str, Any],
) -> Path:
    """The classifier with its description, calibrated and with thresholds where there are held patients."""
    names = tuple(finding(name).name for name in findings)
    config = describe_head(
        _name(request.out, "classifier"), HEADS[request.head], names, encoder_sha256=encoder_sha256, **parameters
    )
    config = _told(config, "Classifier of chest CT findings", facts, {ENCODER_KEY: encoder_sha256}, metrics)
    path = _place(request.out, "classifier")
    save_head(head, path, config, fitted)
    return path


def held_scores(
    findings: Sequence[str],
    fitted: Sequence[FindingCalibration],
    raw: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[str],
) -> tuple[FindingScore, ...]:
    """Scores on the held patients, by probabilities and thresholds that were fitted on them."""
    return tuple(
        finding_score(
            name,
            1 / (1 + np.exp(-(one.slope * raw[:, number] + one.intercept))),
            labels[:, number],
            patients,
            one.threshold,
            calibrated=one.calibrated,
        )
        for number, (name, one) in enumerate(zip(findings, fitted, strict=True))
    )


def told_apart(scores: Sequence[FindingScore]) -> list[int]:
    """Numbers of the findings that held patients do not show to be beyond the classifier."""
    return [
        number
        for number, one in enumerate(scores)
        if one.auroc is None or min(one.positives, one.negatives) < FEWEST or one.auroc >= LEAST_AUROC
    ]


def only(head: nn.Module, request: TrainRequest, parameters: Mapping[str, Any], kept: Sequence[int]) -> nn.Module:
    """A classifier of some of the findings, which answers them as before."""
    smaller = FACTORIES[HEADS[request.head]](**parameters, findings=len(kept))
    wanted = smaller.state_dict()
    rows = torch.tensor(list(kept))
    state = head.state_dict()
    smaller.load_state_dict(
        {name: value.cpu() if value.shape == wanted[name].shape else value.cpu()[rows] for name, value in state.items()}
    )
    return smaller


def write_localizer(
    network: TextUNet,
    request: TrainRequest,
    findings: Sequence[str],
    facts: Facts,
    judged: Drawn,
) -> Path:
    """The localizer with its description."""
    names = tuple(finding(name).name for name in findings)
    parameters: dict[str, Any] = {
        "in_channels": len(request.localizer_layout.windows),
        "base": request.localizer_base,
        "depth": request.localizer_depth,
        "text_dim": int(network.prompt_features.shape[1]),
        **LOCALIZER,
    }
    config = describe_head(_name(request.out, "localizer"), "ct_text_unet", names, **parameters)
    measured = {} if judged.dice is None else {"held_dice": judged.dice}
    config = _told(config, "Localizer of chest CT findings", facts, {}, measured)
    head = replace(config.heads[0], threshold=judged.threshold, least_ml=judged.least_ml)
    config = replace(config, inputs=(input_of(request.localizer_layout),), heads=(head,))
    path = _place(request.out, "localizer")
    save_head(network, path, config)
    return path


def metrics_of(scores: Sequence[FindingScore]) -> dict[str, dict[str, float | None]]:
    """Plain numbers of each finding."""
    return {s.finding: {k: v for k, v in asdict(s).items() if k not in ("finding", "calibrated")} for s in scores}


def _told(
    config: ModelConfig, title: str, facts: Facts, more: Mapping[str, Any], metrics: Mapping[str, Any]
) -> ModelConfig:
    provenance = replace(
        config.provenance,
        trained_on=facts.trained_on,
        training=facts.training(**more),
        metrics=dict(metrics),
        date=datetime.now(UTC).date().isoformat(),
    )
    return replace(config, title=title, provenance=provenance, requirements={"torch": ">=2.10"})


def _place(out: Path, name: str) -> Path:
    path = out / WEIGHTS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _name(out: Path, role: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9]+", "-", out.resolve().name).strip("-")
    return f"ct-{role}-{plain or 'model'}"
