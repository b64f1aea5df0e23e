"""What a language model is asked: the finding table as lines, and the instruction.

Layout as ReCT-VLM (NEWMES-AI, 2025) publishes it. Places come from the table only, so a prompt never holds more than
masks and measurements show; where the table names no place the line names none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from CTReportLib.request import Decision, FindingRow

MARK = "[FINDING]"
NOTHING = f"{MARK} No significant abnormalities detected"
INSTRUCTION = "Generate a clinical radiology report based on the CT scan findings:"
HEIGHTS, SIDES, DEPTHS = ("upper", "middle", "lower"), ("left", "right"), ("anterior", "mid", "posterior")
"""Words of a region, in the order of a line."""


def report_prompt(table: Sequence[FindingRow]) -> str:
    """The whole prompt: a line for each place of each present finding, a blank line, the instruction."""
    lines = [line for row in table if row.decision is Decision.PRESENT for line in finding_lines(row)]
    return "\n".join([*(lines or [NOTHING]), "", INSTRUCTION])


def finding_lines(row: FindingRow) -> Iterator[str]:
    """A line for each place of a present finding, or one without a place."""
    places = [region for part in (row.place or row.side).split(";") if (region := region_text(part))]
    if not places:
        yield f"{MARK} {row.name} detected"
    for region in places:
        yield f"{MARK} {row.name} detected in {region} region"


def region_text(place: str) -> str:
    """``lower left`` of ``lower third, left``; several of a kind are joined: ``upper and middle left``.

    Where a finding is in all heights (or depths) none is named.
    """
    said = set(re.findall(r"[a-z]+", place.lower()))
    if "both" in said:
        said |= set(SIDES)
    heights, sides, depths = ([word for word in words if word in said] for words in (HEIGHTS, SIDES, DEPTHS))
    parts = (heights if len(heights) < len(HEIGHTS) else [], sides, depths if len(depths) < len(DEPTHS) else [])
    return " ".join(" and ".join(part) for part in parts if part)
