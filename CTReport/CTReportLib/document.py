"""What a report says to people, in order, and nothing of how it looks: HTML, PDF and Word are drawn from this alone.

A `Document` is a title, notices and blocks. A block is one of four kinds, and a format draws each kind once, so that no
format can leave out or reword what another one shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any

from CTReportLib.keyimages import KeyImage
from CTReportLib.measurement import LABEL, Measurement
from CTReportLib.report import number_text
from CTReportLib.request import (
    RESEARCH_USE,
    Decision,
    Edit,
    FindingRow,
    ReportResult,
    ReportSection,
    Sentence,
    Verdict,
)

INCOMPLETE = "This report is not complete."
NOTHING = "–"
"""In a cell for which there is nothing to say."""
_UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_ADDED, _EDITED = "added by the guard", "edited by a person"
_PICTURES_NOTE = "The patient's right is on the left. Outlined: what was measured or given."


class Emphasis(Enum):
    """How much a row of a table matters to a reader."""

    PLAIN = "plain"
    PRESENT = "present"
    OPEN = "open"


@dataclass(frozen=True)
class Mark:
    """The number after a sentence that leads to a row of the finding table.

    Attributes
    ----------
    number : int
        Of the row, from 1.
    anchor : str
        Of the row: its `Row.anchor`.
    """

    number: int
    anchor: str


@dataclass(frozen=True)
class Line:
    """A sentence as it is shown.

    Attributes
    ----------
    text : str
    marks : tuple of Mark
        What it rests on.
    note : str
        Who else than the engine wrote it, or why it was struck; empty where there is nothing to say.
    """

    text: str
    marks: tuple[Mark, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Passage:
    """A heading with sentences.

    Attributes
    ----------
    title : str
    lines : tuple of Line
    struck : bool
        Whether these sentences were taken out of the report.
    """

    title: str
    lines: tuple[Line, ...]
    struck: bool = False


@dataclass(frozen=True, eq=False)
class Gallery:
    """A heading with pictures."""

    title: str
    note: str
    pictures: tuple[KeyImage, ...]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes
    ----------
    cells : tuple of str
        As many as the table has columns.
    anchor : str
        What marks refer to; empty where none does.
    emphasis : Emphasis
    """

    cells: tuple[str, ...]
    anchor: str = ""
    emphasis: Emphasis = Emphasis.PLAIN


@dataclass(frozen=True)
class Table:
    """A heading with a table.

    Attributes
    ----------
    title, note : str
    columns : tuple of str
    widths : tuple of float
        Of the columns, as shares of 1; for formats that need them.
    rows : tuple of Row
    """

    title: str
    note: str
    columns: tuple[str, ...]
    widths: tuple[float, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Facts:
    """A heading with names and values."""

    title: str
    items: tuple[tuple[str, str], ...]


Block = Passage | Gallery | Table | Facts


@dataclass(frozen=True, eq=False)
class Document:
    """A report for people.

    Attributes
    ----------
    title : str
    use : str
        What it may be used for: at the start, at the end and on every page.
    notices : tuple of str
        What a reader must know first, such as that it is not complete.
    running : str
        What every page says: the use, and that it is not complete where it is not.
    blocks : tuple of Passage, Gallery, Table or Facts
        In order.
    creator : str
        The program that made it, with its version.
    """

    title: str
    use: str
    notices: tuple[str, ...]
    running: str
    blocks: tuple[Block, ...]
    creator: str


def document_of(result: ReportResult) -> Document:
    """The document of a report."""
    version = result.provenance.get("medai", "")
    document = Document(
        title=f"Chest CT: {result.name}",
        use=RESEARCH_USE,
        notices=tuple(_notices(result)),
        running=RESEARCH_USE if result.complete else f"{INCOMPLETE} {RESEARCH_USE}",
        blocks=tuple(_blocks(result)),
        creator=f"MedAI CTReport {version}".strip(),
    )
    return _writable(document)


def writable_text(text: str) -> str:
    """A text without what a file of text or XML cannot hold: control characters, halves of characters.

    Line breaks and tabs stay. File names in an unknown encoding bring such halves.
    """
    return _UNWRITABLE.sub("\ufffd", text)


def _writable(value: Any) -> Any:
    """A document, or a part of one, with every text in it made writable."""
    if isinstance(value, str):
        return writable_text(value)
    if isinstance(value, tuple):
        return tuple(_writable(part) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _writable(getattr(value, field.name)) for field in fields(value)})
    return value


def sentence_note(sentence: Sentence) -> str:
    """Who else than the engine wrote a sentence, and what the guard says of a person's; empty where nobody did."""
    if sentence.verdict is Verdict.EDITED and sentence.reason:
        return f"{_EDITED}; {sentence.reason}"
    return {Verdict.ADDED: _ADDED, Verdict.EDITED: _EDITED}.get(sentence.verdict, "")


def edits_notice(edits: Sequence[Edit]) -> str:
    """That people changed a report; empty where none did."""
    if not edits:
        return ""
    return f"This report was edited by people: {len(edits)} {'change' if len(edits) == 1 else 'changes'}, listed below."


def unsaid_warnings(result: ReportResult) -> tuple[str, ...]:
    """Warnings that no sentence of the report says."""
    said = " ".join(one.text for section in result.sections for one in section.sentences if one.shown)
    return tuple(text for text in result.warnings if text not in said)


def _notices(result: ReportResult) -> Iterator[str]:
    if not result.complete:
        yield INCOMPLETE
    if result.edits:
        yield edits_notice(result.edits)


def _blocks(result: ReportResult) -> Iterator[Block]:
    anchors = {row.finding: Mark(number, row.finding) for number, row in enumerate(result.table, start=1)}
    for section in result.sections:
        lines = tuple(_line(one, anchors) for one in section.sentences if one.shown)
        if lines:
            yield Passage(section.title, lines)
    warnings = unsaid_warnings(result)
    if warnings:
        yield Passage("Remarks", tuple(Line(text) for text in warnings))
    if result.pictures:
        yield Gallery("Key images", _PICTURES_NOTE, result.pictures)
    yield _finding_table(result.table)
    if result.measurements:
        yield _measurement_table(result.measurements)
    struck = tuple(_struck(result.sections))
    if struck:
        yield Passage("Struck by the guard", struck, struck=True)
    if result.edits:
        yield _edit_table(result.edits)
    facts = tuple((key.replace("_", " "), value) for key, value in result.provenance.items() if value)
    if facts:
        yield Facts("How it was made", facts)


def _line(sentence: Sentence, anchors: dict[str, Mark]) -> Line:
    marks = tuple(anchors[finding] for finding in sentence.findings if finding in anchors)
    return Line(sentence.text, marks, sentence_note(sentence))


def _struck(sections: Iterable[ReportSection]) -> Iterator[Line]:
    for section in sections:
        yield from (Line(one.text, note=one.reason) for one in section.sentences if not one.shown)


def _finding_table(table: Iterable[FindingRow]) -> Table:
    return Table(
        "Finding table",
        "Numbers after sentences lead to these rows.",
        ("No.", "Finding", "Decision", "Probability", "Measured", "Place", "Grounds"),
        (0.06, 0.17, 0.12, 0.14, 0.12, 0.13, 0.26),
        tuple(_row(number, row) for number, row in enumerate(table, start=1)),
    )


def _row(number: int, row: FindingRow) -> Row:
    emphasis = {Decision.PRESENT: Emphasis.PRESENT, Decision.NOT_JUDGED: Emphasis.OPEN}.get(
        row.decision, Emphasis.PLAIN
    )
    decision = row.decision.value
    if row.candidate or row.decision is not Decision.NOT_JUDGED:
        decision += f" ({'candidates' if row.candidate else row.basis.value})"
    place = row.place or row.side or NOTHING
    cells = (str(number), row.name, decision, _probability(row), _measured(row), place, row.evidence or NOTHING)
    return Row(cells, row.finding, emphasis)


def _probability(row: FindingRow) -> str:
    if row.probability is None:
        return NOTHING
    kind = "calibrated" if row.calibrated else "not calibrated"
    limit = f", threshold {row.threshold:.2f}" if row.threshold is not None else ""
    return f"{row.probability:.2f} ({kind}{limit})"


def _measured(row: FindingRow) -> str:
    if row.value is None:
        return NOTHING if row.volume_ml is None else number_text(row.volume_ml, "ml")
    text = number_text(row.value, row.unit)
    if row.threshold is not None and row.probability is None:
        text += f" (threshold {number_text(row.threshold, row.unit)})"
    if row.volume_ml is not None and (row.unit != "ml" or row.volume_ml != row.value):
        text += f", {number_text(row.volume_ml, 'ml')} together"
    return text


def _measurement_table(measurements: Iterable[Measurement]) -> Table:
    rows = tuple(
        Row((one.name, value_text(one.value, one.unit), one.place or one.side or NOTHING, one.rule, one.limits))
        for one in measurements
    )
    columns = ("Quantity", "Value", "Place", "Rule", "Limits")
    return Table("Measurements", f"{LABEL[:1].upper()}{LABEL[1:]}.", columns, (0.19, 0.10, 0.13, 0.30, 0.28), rows)


def _edit_table(edits: Iterable[Edit]) -> Table:
    rows = tuple(
        Row((one.when, one.who or NOTHING, one.section, one.before or NOTHING, one.after or NOTHING)) for one in edits
    )
    columns = ("When (UTC)", "Who", "Part", "Before", "After")
    return Table("Edits by people", "In the order they were made.", columns, (0.19, 0.11, 0.14, 0.28, 0.28), rows)


def value_text(value: float | None, unit: str) -> str:
    """A measured value with its unit, or the sign for none."""
    return NOTHING if value is None else number_text(value, unit)
