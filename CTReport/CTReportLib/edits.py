"""A report that a person edits: its text line by line, and what became of each sentence when the text changed.

A sentence that is the same as before keeps its evidence. One that was changed or added says only that a person wrote
it: it has no evidence, and what the guard would object to is told to the person and not enforced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from enum import Enum

from CTReportLib.extractor import sentences_of
from CTReportLib.guard import objections
from CTReportLib.request import RESEARCH_USE, Edit, FindingRow, ReportResult, ReportSection, Sentence, Verdict

NOT_COMPLETE = "THIS REPORT IS NOT COMPLETE."
_HEADER = "CHEST CT: "
_BULLETS = re.compile(r"^(?:[-*•–](?:\s+|$))+")
_LEAST_ALIKE = 0.5
"""Lines that are less alike than this are one taken out and another one put in."""


class LineKind(Enum):
    """What a line of the report's text is."""

    HEADER = "header"
    TITLE = "title"
    SENTENCE = "sentence"


@dataclass(frozen=True)
class ReportLine:
    """A line of the report's text that is not empty.

    Attributes
    ----------
    kind : LineKind
    text : str
        Without a bullet.
    section, sentence : int
        Index of the part, and of the sentence in it; -1 where there is none.
    """

    kind: LineKind
    text: str
    section: int = -1
    sentence: int = -1


def report_lines(result: ReportResult) -> tuple[ReportLine, ...]:
    """The lines of a report's text; struck sentences are not among them."""
    lines = [ReportLine(LineKind.HEADER, _one_line(text)) for text in (f"{_HEADER}{result.name}", RESEARCH_USE)]
    if not result.complete:
        lines.append(ReportLine(LineKind.HEADER, NOT_COMPLETE))
    for number, section in enumerate(result.sections):
        shown = [(place, one.text) for place, one in enumerate(section.sentences) if one.shown]
        if shown:
            lines.append(ReportLine(LineKind.TITLE, _one_line(section.title.upper()), number))
        lines += [ReportLine(LineKind.SENTENCE, _one_line(text), number, place) for place, text in shown]
    return tuple(lines)


def shown_text(result: ReportResult) -> str:
    """The report as text to read and to edit: header, and for each part its title and a line per sentence."""
    text = []
    for line in report_lines(result):
        text += ["", line.text] if line.kind is LineKind.TITLE else [f"{_mark(line.kind)}{line.text}"]
    return "\n".join([*text, ""])


def apply_edit(result: ReportResult, new_text: str, who: str, when: str) -> ReportResult:
    """A report after a person has changed its text.

    Parameters
    ----------
    result : ReportResult
    new_text : str
        What `shown_text` gave, edited. Bullets, blanks and empty lines do not count; the header comes back by itself.
    who : str
        As the system names the user.
    when : str
        UTC, ISO 8601.

    Returns
    -------
    ReportResult
        The same object where no sentence and no title has changed.
    """
    old = report_lines(result)
    old_keys, new_keys = [_key(line.text) for line in old], [_key(line) for line in new_text.splitlines()]
    new_keys = [key for key in new_keys if key]
    if [key for key in old_keys if key] == new_keys:
        return result
    return _Editor(result, old, new_keys, who, when).edited()


def remarks_on(text: str, table: Sequence[FindingRow]) -> tuple[str, ...]:
    """What the guard objects to in a text that a person wrote; for the person to know."""
    said = [reason for one in sentences_of(text) or (text,) for reason in objections(one, table)]
    return tuple(dict.fromkeys(said))


@dataclass
class _Part:
    """A section in the making: sentences, each with its place in the old report."""

    title: str
    origin: int | None
    items: list[tuple[Sentence, int]] = field(default_factory=list)


class _Editor:
    """One edit; the new text's lines are met from first to last."""

    def __init__(
        self, result: ReportResult, old: Sequence[ReportLine], new: Sequence[str], who: str, when: str
    ) -> None:
        self._result = result
        self._old = old
        self._new = new
        self._who, self._when = who, when
        self._edits: list[Edit] = []
        self._parts: list[_Part] = []
        self._same, self._instead, self._moved = _matched(old, new)

    def edited(self) -> ReportResult:
        for place, text in enumerate(self._new):
            if place in self._same:
                self._keep(self._old[self._same[place]], moved=place in self._moved)
            else:
                self._take(text, self._instead.get(place))
        gone = set(range(len(self._old))) - set(self._same.values()) - set(self._instead.values())
        for line in (self._old[place] for place in sorted(gone)):
            if line.kind is not LineKind.HEADER:
                self._note(self._result.sections[line.section].title, line.text, "")
        if not self._edits:
            return self._result
        for number, section in enumerate(self._result.sections):
            self._keep_struck(number, section)
        sections = tuple(ReportSection(one.title, tuple(s for s, _place in one.items)) for one in self._parts)
        return replace(self._result, sections=sections, edits=(*self._result.edits, *self._edits))

    def _keep(self, line: ReportLine, *, moved: bool) -> None:
        """A line that was there before."""
        if line.kind is LineKind.HEADER:
            return
        section = self._result.sections[line.section]
        if line.kind is LineKind.TITLE:
            self._parts.append(_Part(section.title, line.section))
        else:
            part = self._part(section.title, line.section)
            part.items.append((section.sentences[line.sentence], line.sentence if part.origin == line.section else -1))
        if moved:
            self._note(self._parts[-1].title, line.text, line.text)

    def _take(self, text: str, before: int | None) -> None:
        """A line that a person wrote."""
        old = self._old[before] if before is not None else None
        if (
            text in (_key(RESEARCH_USE), NOT_COMPLETE)
            or text.startswith(_HEADER)
            or (old and _is(old, LineKind.HEADER))
        ):
            return
        if _is(old, LineKind.TITLE) or (old is None and _looks_like_title(text)):
            title = self._known_title(text)
            self._parts.append(_Part(title, old.section if old else None))
            self._note(title, old.text if old else "", text)
            return
        part = self._part("Findings", None)
        remarks = remarks_on(text, self._result.table)
        place = old.sentence if old is not None and part.origin == old.section else -1
        part.items.append((Sentence(text, verdict=Verdict.EDITED, reason="; ".join(remarks)), place))
        self._note(part.title, old.text if old else "", text)

    def _part(self, title: str, origin: int | None) -> _Part:
        """The part that lines go into now; a new one where the text has shown no title yet."""
        if not self._parts:
            self._parts.append(_Part(title, origin))
        return self._parts[-1]

    def _known_title(self, text: str) -> str:
        titles = {section.title.upper(): section.title for section in self._result.sections}
        return titles.get(text.upper(), text.capitalize())

    def _note(self, section: str, before: str, after: str) -> None:
        self._edits.append(Edit(self._when, self._who, section, before, after))

    def _keep_struck(self, number: int, section: ReportSection) -> None:
        """Struck sentences stay on record, each behind the sentence that it stood behind."""
        struck = [(one, place) for place, one in enumerate(section.sentences) if not one.shown]
        if section.sentences and not struck:
            return
        part = next((one for one in self._parts if one.origin == number), None)
        if part is None:
            part = _Part(section.title, number)
            earlier = [at for at, one in enumerate(self._parts) if one.origin is not None and one.origin < number]
            self._parts.insert(earlier[-1] + 1 if earlier else 0, part)
        for sentence, place in struck:
            before = [at for at, (_sentence, old) in enumerate(part.items) if 0 <= old < place]
            part.items.insert(before[-1] + 1 if before else 0, (sentence, place))


def _matched(old: Sequence[ReportLine], new: Sequence[str]) -> tuple[dict[int, int], dict[int, int], set[int]]:
    """From new lines to the old lines that they are, and to those that they stand instead of; which have moved."""
    keys = [_key(line.text) for line in old]
    same: dict[int, int] = {}
    instead: dict[int, int] = {}
    changed: list[tuple[range, range]] = []
    for kind, a, b, c, d in SequenceMatcher(None, keys, list(new), autojunk=False).get_opcodes():
        if kind == "equal":
            same.update(zip(range(c, d), range(a, b), strict=True))
        else:
            changed.append((range(a, b), range(c, d)))
    free = {place for before, _after in changed for place in before}
    moved = set()
    for place in (place for _before, after in changed for place in after):
        found = next((one for one in sorted(free) if keys[one] == new[place]), None)
        if found is not None:
            same[place] = found
            free.discard(found)
            moved.add(place)
    for before, after in changed:
        left = [place for place in before if place in free]
        instead.update(_alike([(one, keys[one]) for one in left], [(n, new[n]) for n in after if n not in same]))
    return same, instead, moved


def _alike(old: Sequence[tuple[int, str]], new: Sequence[tuple[int, str]]) -> Iterator[tuple[int, int]]:
    """Pairs of lines of which the one was made from the other, in order."""
    start = 0
    for place, text in new:
        for at in range(start, len(old)):
            if SequenceMatcher(None, old[at][1], text, autojunk=False).ratio() >= _LEAST_ALIKE:
                yield place, old[at][0]
                start = at + 1
                break


def _is(line: ReportLine | None, kind: LineKind) -> bool:
    return line is not None and line.kind is kind


def _looks_like_title(text: str) -> bool:
    return text == text.upper() and any(char.isalpha() for char in text) and not text.endswith((".", "!", "?"))


def _mark(kind: LineKind) -> str:
    return "- " if kind is LineKind.SENTENCE else ""


def _key(line: str) -> str:
    """What counts of a line: neither bullet nor blanks."""
    return " ".join(_BULLETS.sub("", line.strip()).split())


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())
