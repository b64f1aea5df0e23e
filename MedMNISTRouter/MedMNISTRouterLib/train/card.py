"""The model card that lies beside a trained model: what it is, what it was made of, how good it was, its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from MedAILib.models.config import ModelConfig
from MedMNISTRouterLib.train.request import TrainResult

CARD_FILE = "MODEL_CARD.md"
INTENDED_USE = "Research only. Not validated for clinical use; no diagnosis may rest on it."
_NAMES = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ece": "calibration error (ECE, 15 bins)",
    "ece_uncalibrated": "... before temperature scaling",
    "kappa": "quadratic kappa",
    "mean_grade_error": "mean error of the expected grade",
    "gate_acceptance": "images that the gate accepts",
}


def model_card(config: ModelConfig, images: Mapping[str, int], limits: Sequence[str], seconds: str) -> str:
    """The card as Markdown.

    Parameters
    ----------
    config : ModelConfig
        With metrics in its provenance, ``val_``... those of the validation images.
    images : mapping of str to int
        How many of ``train``, ``val``, ``test``.
    limits : sequence of str
        Sentences.
    seconds : str
        What the training took.
    """
    head, provenance, licence = config.heads[0], config.provenance, config.licence
    routes = any(item.routes_to for item in head.classes)
    columns = "| class | routes to |\n|---|---|" if routes else "| | class |\n|---|---|"
    rows = [
        f"| {c.name} | {', '.join(c.routes_to) or '-'} |" if routes else f"| {c.index} | {c.name} |"
        for c in sorted(head.classes, key=lambda item: item.index)
    ]
    counts = ", ".join(f"{count} {name}" for name, count in images.items())
    parts = [
        f"# {config.title}",
        f"**{INTENDED_USE}**",
        config.description,
        "## Classes\n\n" + "\n".join([columns, *rows]),
        f"## Data\n\n{provenance.trained_on}\n\nImages: {counts}.",
        f"## Measured\n\n{_table(provenance.metrics)}\n\nTemperature {head.temperature:.3f}. {seconds}",
        "## Limits\n\n" + "\n".join(f"- {text}" for text in limits) if limits else "",
        f"## Licence of the weights\n\n{licence.name or licence.spdx}{f' ({licence.url})' if licence.url else ''}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(metrics: Mapping[str, float]) -> str:
    rows = ["| | test | validation |", "|---|---|---|"]
    for name, title in _NAMES.items():
        values = [metrics.get(prefix + name) for prefix in ("", "val_")]
        if any(value is not None for value in values):
            rows.append(f"| {title} | {' | '.join('-' if value is None else f'{value:.3f}' for value in values)} |")
    return "\n".join(rows)


def summary_lines(result: TrainResult) -> list[str]:
    """What became of a training, for people."""
    counts = ", ".join(f"{count} {name}" for name, count in result.images.items())
    names = [f"{_NAMES[name]} {result.metrics[name]:.3f}" for name in _NAMES if name in result.metrics]
    lines = [
        f"{result.model_id}: {len(result.class_names)} classes, images: {counts}.",
        f"Learned in {result.seconds:.0f} s ({result.cpu_seconds:.0f} s of the processor), {len(result.log)} epochs.",
        f"On the test images: {', '.join(names)}.",
        f"Temperature {result.temperature:.3f}; gate accepts up to a distance of {result.gate_threshold:.3f}."
        if result.gate_threshold is not None
        else f"Temperature {result.temperature:.3f}.",
    ]
    if result.parity is not None:
        lines.append(f"The written graph differs from the trained network by {result.parity:.1g}.")
    return [*lines, f"Written: {result.folder}"]
