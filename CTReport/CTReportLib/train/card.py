"""The model card that lies beside the trained networks: what they learned from, how good they were, their limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from CTReportLib.findings import finding

if TYPE_CHECKING:
    from CTReportLib.train.finishing import Facts
    from CTReportLib.train.judging import Drawn
    from CTReportLib.train.measures import FindingScore
    from CTReportLib.train.request import TrainRequest

CARD_FILE = "MODEL_CARD.md"
INTENDED_USE = "Research use only. Not validated for clinical use; no diagnosis may rest on it."


def model_card(
    request: TrainRequest,
    facts: Facts,
    scores: Sequence[FindingScore],
    drawn_names: Sequence[str],
    judged: Drawn,
    seconds: str,
    warnings: Sequence[str],
) -> str:
    """The card as Markdown.

    Parameters
    ----------
    request : TrainRequest
    facts : Facts
    scores : sequence of FindingScore
        On the held patients.
    drawn_names : sequence of str
        Ids of what the localizer draws.
    judged : Drawn
    seconds : str
        What the training took.
    warnings : sequence of str
    """
    rows = [
        f"| {finding(s.finding).name} | {s.positives} / {s.negatives} | {_number(s.auroc)} | "
        f"{_number(s.sensitivity)} | "
        f"{_number(s.specificity)} | {_number(s.calibration_error)} | {'yes' if s.calibrated else 'no'} |"
        for s in scores
    ]
    table = [
        "| finding | present / absent | AUROC | sensitivity | specificity | ECE | calibrated |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    drawings = (
        f"Draws {', '.join(finding(name).name.lower() for name in drawn_names)}; a voxel counts from the probability "
        f"{judged.threshold:.1f}, which gave a Dice of {_number(judged.dice)} over the voxels of the held scans."
        if drawn_names
        else ""
    )
    parts = [
        f"# Chest CT models: {request.out.resolve().name}",
        f"**{INTENDED_USE}**",
        f"## Data\n\n{facts.trained_on}",
        "## Findings, on the held patients\n\nCalibration and thresholds were fitted on the same patients: on new ones "
        "expect less.\n\n" + "\n".join(table)
        if scores
        else "",
        f"## Places\n\n{drawings}" if drawings else "",
        f"## How\n\nPrompts: {facts.prompts or 'none'}. {seconds}",
        "## Limits\n\n" + "\n".join(f"- {text}" for text in (*warnings, "Labels read from reports are not the truth.")),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
