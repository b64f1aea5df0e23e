"""Finding tables and written reports of which it is known what is true, made by chance from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from CTReportLib.findings import FINDINGS
from CTReportLib.request import Basis, Decision, FindingRow

PHRASES = {
    "medical_material": ("medical material", "pacemaker", "surgical clips", "central venous catheter"),
    "arterial_wall_calcification": ("calcified plaques of the aorta", "aortic wall calcification"),
    "cardiomegaly": ("cardiomegaly", "enlarged heart"),
    "pericardial_effusion": ("pericardial effusion", "fluid in the pericardial space"),
    "coronary_artery_wall_calcification": ("coronary calcification", "calcified plaques of the coronary arteries"),
    "hiatal_hernia": ("hiatal hernia", "sliding hiatus hernia"),
    "lymphadenopathy": ("lymphadenopathy", "enlarged lymph nodes"),
    "emphysema": ("emphysema", "emphysematous change", "bullae"),
    "atelectasis": ("atelectasis", "subsegmental atelectasis"),
    "lung_nodule": ("lung nodule", "pulmonary nodules"),
    "lung_opacity": ("lung opacity", "ground-glass opacity"),
    "pulmonary_fibrotic_sequela": ("fibrotic sequela", "pulmonary fibrosis", "scarring"),
    "pleural_effusion": ("pleural effusion", "pleural fluid"),
    "mosaic_attenuation_pattern": ("mosaic attenuation", "air trapping"),
    "peribronchial_thickening": ("peribronchial thickening", "bronchial wall thickening"),
    "consolidation": ("consolidation", "consolidations"),
    "bronchiectasis": ("bronchiectasis", "bronchiectatic change"),
    "interlobular_septal_thickening": ("interlobular septal thickening", "septal thickening"),
}
INVENTED = (
    "pneumothorax", "rib fracture", "a spiculated mass", "pulmonary embolism", "aortic dissection", "thyroid goitre",
    "free intraperitoneal gas", "vertebral collapse", "lymphangitic spread", "oesophageal varices", "breast lesion",
)  # fmt: skip
ASSERTED = (
    "There is {0}.", "{0} is seen.", "{0} is noted in this study.", "Findings of {0}.", "{0}.",
    "The study shows {0}.", "{0} is present.",
)  # fmt: skip
DOUBTED = ("Possible {0}.", "{0} cannot be excluded.", "{0}?", "Findings suspicious for {0}.", "Likely {0}.")
TRICKY = (
    "{0} is not absent.", "No doubt about {0}.", "Not only is there {0}, it has grown.", "There is no lack of {0}.",
    "Unchanged {0}.", "Interval development of {0}.", "Previously described {0} again identified.",
    "No abnormality except {0}.", "The lungs are clear apart from {0}.", "Lungs normal, however {0}.",
    "Normal study with {0}.", "Without question, {0} is identified.",
)  # fmt: skip
DENIED = ("No {0}.", "There is no {0}.", "{0} is not seen.", "No evidence of {0}.", "{0} was not detected.")
OTHER_SIDE = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Line:
    """A sentence of a written report.

    Attributes
    ----------
    text : str
    true : bool
        Whether the table bears it out.
    """

    text: str
    true: bool


def some_table(chance: random.Random) -> tuple[FindingRow, ...]:
    """Eighteen rows, about a third of each decision; at least one is present and one is absent."""
    decisions = [Decision.PRESENT, Decision.ABSENT, *(chance.choice(list(Decision)) for _ in FINDINGS[2:])]
    chance.shuffle(decisions)
    return tuple(_row(chance, one, decision) for one, decision in zip(FINDINGS, decisions, strict=True))


def _row(chance, finding, decision):
    row = FindingRow(finding.id, finding.name, decision, evidence="made up")
    if decision is not Decision.PRESENT:
        return row
    row = replace(
        row, basis=Basis.RULE, measurement=f"{finding.name} volume", value=float(chance.randint(20, 900)), unit="ml"
    )
    if not finding.has_side or chance.random() < 0.2:
        return row
    side, third = chance.choice(("left", "right")), chance.choice(("upper", "middle", "lower"))
    return replace(row, side=side, place=f"{third} third, {side}")


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def true_lines(chance: random.Random, table) -> list[Line]:
    """A sentence for most rows that says what the row says."""
    lines = []
    for row in table:
        phrase = PHRASES[row.finding][0]
        if row.decision is Decision.PRESENT:
            where = f" on the {row.side}" if row.side and chance.random() < 0.7 else ""
            lines.append(Line(capital(chance.choice(ASSERTED).format(f"{phrase}{where}")), True))
        elif row.decision is Decision.ABSENT:
            lines.append(Line(capital(chance.choice(DENIED).format(phrase)), True))
    chance.shuffle(lines)
    return lines


def wrong_side(chance, table) -> list[Line]:
    """Present findings on the other side, in another third, of another size."""
    lines = []
    for row in (row for row in table if row.decision is Decision.PRESENT):
        phrase = chance.choice(PHRASES[row.finding])
        side = OTHER_SIDE.get(row.side, "left")
        lines.append(Line(f"{capital(side)} {phrase}.", False))
        lines.append(Line(f"There is {phrase} on both sides.", False))
        third = next((t for t in ("upper", "lower") if t not in row.place), "upper")
        lines.append(Line(f"There is {phrase} in the {third} lobe.", False))
        lines.append(Line(f"There is {phrase} measuring {row.value + 7:.0f} ml.", False))
        lines.append(Line(f"There is {phrase}, {chance.randint(3, 19)} mm.", False))
    return lines


def invented(chance, table) -> list[Line]:
    """Findings that are absent, not judged, or not known here at all, alone and behind a true one."""
    lines = []
    for row in (row for row in table if row.decision is not Decision.PRESENT):
        phrase = chance.choice(PHRASES[row.finding])
        lines.append(Line(capital(chance.choice((*ASSERTED, *DOUBTED, *TRICKY)).format(phrase)), False))
    for thing in chance.sample(INVENTED, 4):
        lines.append(Line(capital(chance.choice((*ASSERTED, *DOUBTED, *TRICKY)).format(thing)), False))
    present = chance.choice([row for row in table if row.decision is Decision.PRESENT])
    absent = chance.choice([row for row in table if row.decision is Decision.ABSENT])
    true, denied, thing = PHRASES[present.finding][0], PHRASES[absent.finding][0], chance.choice(INVENTED)
    lines += [
        Line(f"There is {true} and {thing}.", False),
        Line(f"There is {true} with {thing}.", False),
        Line(f"{capital(true)}, {thing}, and {denied} are seen.", False),
        Line(f"No {denied}, {thing} is seen.", False),
        Line(f"No {denied} but {thing}.", False),
        Line(f"{capital(denied)} is not seen, {thing} is.", False),
    ]
    return lines


def contradictions(chance, table) -> list[Line]:
    """What denies what is present, and calls normal what is not or was never judged."""
    lines = [Line("Normal chest CT.", False), Line("The lungs are clear and the heart is normal.", False)]
    for row in (row for row in table if row.decision is Decision.PRESENT):
        lines.append(Line(capital(chance.choice(DENIED).format(PHRASES[row.finding][0])), False))
    for row in (row for row in table if row.decision is Decision.NOT_JUDGED):
        lines.append(Line(capital(chance.choice(DENIED).format(PHRASES[row.finding][0])), False))
    lines.append(Line("No abnormality is seen.", False))
    lines.append(Line("Study within normal limits.", False))
    return lines


def written(lines: list[Line]) -> str:
    """A report with the usual two headings."""
    half = len(lines) * 2 // 3
    findings, impression = (" ".join(line.text for line in part) for part in (lines[:half], lines[half:]))
    return f"FINDINGS:\n{findings}\nIMPRESSION:\n{impression}"
