"""Holds every sentence of a report against the finding table: nothing stays that no evidence supports.

A generated sentence stays only where each finding it names agrees with its row (present or absent, side, lobe,
numbers), where everything it calls normal was judged and found free, and where none of its words says more than the
table does. What does not stay is struck, with the reason; findings that are present and that no sentence says any more
are added from the table. So wrong wording costs style, never truth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from CTReportLib.extractor import Mention, Polarity, clauses_of, mentions_of, sentences_of
from CTReportLib.findings import Section, find
from CTReportLib.lexicon import OTHER, compiled
from CTReportLib.report import ANATOMY, FINDINGS, IMPRESSION, NOT_JUDGED, TECHNIQUE, impression_sentence, row_sentence
from CTReportLib.request import RESEARCH_USE, Decision, FindingRow, ReportSection, Sentence, Verdict
from CTReportLib.words import NEUTRAL_WORDS, SPECIFIC, STRUCTURE_WORDS, quantities_in, words_of

TRUNCATED = "The text broke off before its end; this report is not complete."
_NORMAL_WORDS = (
    r"\b(normal|natural|unremarkable|within (?:normal )?limits|clear|preserved|patent|intact|healthy|fine)\b"
)
_NORMAL = compiled(
    _NORMAL_WORDS + r"|\bnegative\b|\bno\b.{0,40}\b(abnormal\w*|patholog\w*|findings?|disease|lesions?)\b|"
    r"\babnormalit\w+\b.{0,20}\bnot\b"
)
_NOTHING_CALLED_NORMAL = ("the rest is normal.", "could be judged.")
"""How our own sentences on what was not judged end; they hold words of normality."""
_AIRWAYS = ("bronchiectasis", "peribronchial_thickening")
_HEART = ANATOMY[Section.HEART.value]
_STRUCTURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\blungs?\b|\bpulmonary\b|\bparenchym\w+", ANATOMY[Section.LUNGS.value]),
    (r"\bairways?\b|\bbronch\w+", _AIRWAYS),
    (r"\bpleura\w*", ANATOMY[Section.PLEURA.value]),
    (r"\bpericardi\w+", ("pericardial_effusion",)),
    (r"\bcoronar\w+", ("coronary_artery_wall_calcification",)),
    (r"\bheart size\b", ("cardiomegaly",)),
    (r"\bheart\b(?! size)|\bcardiac\b", _HEART),
    (r"\baort\w+|\bvascular\b|\bvessels?\b", ANATOMY[Section.VESSELS.value]),
    (
        r"\bmediastin\w+|\bhil(um|a|ar)\b",
        (*ANATOMY[Section.MEDIASTINUM.value], *ANATOMY[Section.VESSELS.value], *_HEART),
    ),
)
_DENIAL = compiled(r"\b(no|not|none|without|absent|absence|free|neither|negative|never)\b|n't\b")
_ASSERTION = compiled(
    r"\b(is|are|was|were|present|seen|observed|noted|detected|identified|found|visible|shown|left|right|both|bilateral)\b"
)
_HEADING = re.compile(r"^\s*#*\s*\**([A-Za-z][A-Za-z ,/&-]{2,40}?)\**\s*:\**\s*(.*)$")
_INLINE_HEADING = re.compile(r"\b(FINDINGS|IMPRESSION|CONCLUSION|Findings|Impression|Conclusion)\s*:")


@dataclass(frozen=True)
class Guarded:
    """A report that was held against the table.

    Attributes
    ----------
    sections : tuple of ReportSection
        Struck sentences stay in them for the record and are not shown.
    complete : bool
        False where the text broke off.
    """

    sections: tuple[ReportSection, ...]
    complete: bool = True

    @property
    def sentences(self) -> tuple[Sentence, ...]:
        """All of them, struck ones included."""
        return tuple(sentence for section in self.sections for sentence in section.sentences)

    @property
    def text(self) -> str:
        """What is shown."""
        return "\n".join(f"{section.title}: {section.text}" for section in self.sections if section.text)


def guard_generated(text: str, table: Sequence[FindingRow], *, complete: bool = True) -> Guarded:
    """Hold a text that a model wrote against the table.

    Parameters
    ----------
    text : str
        With or without headings such as ``FINDINGS:`` and ``IMPRESSION:``.
    table : sequence of FindingRow
    complete : bool
        False where the writer knows that it stopped early; a text that ends within a sentence is seen without.
    """
    sections = [
        replace(section, sentences=tuple(_held(sentence, table, generated=True) for sentence in section.sentences))
        for section in sections_of(_whole_sentences(text))
    ]
    return _completed(sections, table, complete and not broke_off(text))


def guard_template(sections: Sequence[ReportSection], table: Sequence[FindingRow]) -> Guarded:
    """Hold our own report against the table: its findings, sides and places; its wording is fixed.

    Technique and the list of what was not judged name no findings of the patient and pass.
    """
    held = [
        section
        if section.title in (TECHNIQUE, NOT_JUDGED)
        else replace(section, sentences=tuple(_held(one, table, generated=False) for one in section.sentences))
        for section in sections
    ]
    return _completed(held, table, True)


def sections_of(text: str) -> tuple[ReportSection, ...]:
    """A written report as sections of sentences; text before any heading counts as findings."""
    sections: list[tuple[str, list[Sentence]]] = [(FINDINGS, [])]
    for line in _INLINE_HEADING.sub(r"\n\1:", text).splitlines():
        match = _HEADING.match(line)
        if match and len(match.group(1).split()) <= 5 and not mentions_of(match.group(1)):
            sections.append((_title(match.group(1)), []))
            line = match.group(2)
        sections[-1][1].extend(
            Sentence(sentence if sentence.endswith("?") else f"{sentence}.") for sentence in sentences_of(line)
        )
    return tuple(ReportSection(title, tuple(sentences)) for title, sentences in sections if sentences)


def broke_off(text: str) -> bool:
    """Whether a text ends within a sentence, or has findings under a heading and no impression."""
    if not re.search(r"[.!?][\s\"”*)\]]*$", text.strip()):
        return True
    titles = {
        _title(match.group(1))
        for line in _INLINE_HEADING.sub(r"\n\1:", text).splitlines()
        if (match := _HEADING.match(line))
    }
    return FINDINGS in titles and IMPRESSION not in titles


def objections(sentence: str, table: Sequence[FindingRow], *, generated: bool = True) -> tuple[str, ...]:
    """Why a sentence cannot stay; empty where it can.

    Of our own sentences only the findings are read, not the numbers in brackets.
    """
    if not generated:
        sentence = re.sub(r"\s*\([^()]*\)", "", sentence)
    rows = {row.finding: row for row in table}
    mentions = [mention for mention in mentions_of(sentence) if not mention.implied]
    found = [reason for mention in mentions for reason in _objections_to(mention, rows.get(mention.finding))]
    for clause in clauses_of(sentence):
        found += _clause_objections(clause, table, generated=generated)
    if generated and not found:
        found += _surplus(sentence, [rows[m.finding] for m in mentions if m.finding in rows], mentions)
    return tuple(dict.fromkeys(found))


def _held(sentence: Sentence, table: Sequence[FindingRow], *, generated: bool) -> Sentence:
    if sentence.text == RESEARCH_USE:
        return sentence
    reasons = objections(sentence.text, table, generated=generated)
    if reasons:
        return replace(sentence, verdict=Verdict.STRUCK, reason="; ".join(reasons))
    if not generated:
        return sentence
    named = tuple(dict.fromkeys(m.finding for m in mentions_of(sentence.text) if not m.finding.startswith(OTHER)))
    measured = tuple(row.measurement for row in table if row.finding in named and row.measurement)
    return replace(sentence, findings=named, measurements=measured)


def _objections_to(mention: Mention, row: FindingRow | None) -> Iterator[str]:
    name = mention.finding.removeprefix(OTHER).replace("_", " ")
    if row is None or row.decision is Decision.NOT_JUDGED:
        yield f"{name} was not judged"
    elif mention.polarity is Polarity.NEGATIVE:
        elsewhere = mention.side in ("left", "right") and row.side in ("left", "right") and mention.side != row.side
        if row.decision is Decision.PRESENT and not elsewhere:
            yield f"{name} is present"
    elif row.decision is Decision.ABSENT:
        yield f"{name} was looked for and is absent"
    else:
        yield from _misplaced(mention, row, name)


def _misplaced(mention: Mention, row: FindingRow, name: str) -> Iterator[str]:
    if mention.side and mention.side != row.side and row.side != "both":
        yield f"{name} is {'on the ' + row.side if row.side else 'without a known side'}, not {mention.side}"
    place = row.place.lower()
    for lobe in mention.lobes:
        if lobe not in place:
            yield f"no mask shows {name} in the {lobe} part"


def _clause_objections(clause: str, table: Sequence[FindingRow], *, generated: bool) -> Iterator[str]:
    """Against what a clause calls normal, says without naming a finding, or denies in a way that can be misread."""
    names_finding = bool(mentions_of(clause))
    if names_finding and not generated:
        return
    says_normal = compiled(_NORMAL_WORDS).search(clause) if names_finding else _NORMAL.search(clause)
    if says_normal and not clause.endswith(_NOTHING_CALLED_NORMAL):
        open_ = [row.name for row in _scope(clause, table) if row.decision is not Decision.ABSENT]
        if open_:
            yield f"not found free: {', '.join(open_)}"
        elif generated and not names_finding and not _says_normal(clause):
            yield "what it calls normal cannot be read with certainty"
    elif generated and not names_finding:
        yield "no evidence speaks for it"
    if generated and _ambiguous(clause):
        yield "what it denies cannot be read with certainty"


def _scope(clause: str, table: Sequence[FindingRow]) -> list[FindingRow]:
    """The rows that a clause calls free: those of the structures it names, else all."""
    findings = [one for pattern, ids in _STRUCTURES if compiled(pattern).search(clause) for one in ids]
    return [row for row in table if not findings or row.finding in findings]


def _says_normal(clause: str) -> bool:
    """Whether it calls something normal and does not deny that."""
    return bool(compiled(r"^no\b").search(clause)) or not _DENIAL.search(clause)


def _ambiguous(clause: str) -> bool:
    """Two denials, or one that may or may not reach over a comma."""
    denials = list(_DENIAL.finditer(clause))
    if len(denials) > 1:
        return True
    if not denials:
        return False
    rest = clause[denials[0].end() :]
    joints = list(re.finditer(r",|\band\b|\bwith\b|:|\s[-–—]\s", rest))
    last = rest[joints[-1].end() :] if joints else ""
    return not re.search(r"\bor\b", last) and bool(_ASSERTION.search(last))


def _surplus(sentence: str, rows: Sequence[FindingRow], mentions: Sequence[Mention]) -> list[str]:
    """What a sentence says beyond the rows it speaks of: numbers and words."""
    found = []
    told = quantities_of(rows)
    wrong = [one.text for one in quantities_in(sentence) if not any(one.agrees_with(*fact) for fact in told)]
    if wrong:
        found.append(f"not measured: {', '.join(dict.fromkeys(wrong))}")
    named = {word for one in mentions for word in words_of(one.words) if not SPECIFIC.search(word)}
    known = NEUTRAL_WORDS | named | _words_of_rows(rows)
    if _NORMAL.search(sentence):
        known = known.union(*STRUCTURE_WORDS.values())
    unknown = [word for word in words_of(sentence) if word not in known]
    if unknown:
        found.append(f"nothing shows: {', '.join(dict.fromkeys(unknown))}")
    return found


def quantities_of(rows: Iterable[FindingRow]) -> tuple[tuple[float, str], ...]:
    """Every number with its unit that rows hold, those of their evidence included."""
    found: list[tuple[float, str]] = []
    for row in rows:
        limit = (row.threshold, row.unit if row.probability is None else "")
        numbers = ((row.value, row.unit), (row.volume_ml, "ml"), limit, (row.probability, ""))
        found += [(value, unit) for value, unit in numbers if value is not None]
    return tuple(found)


def _words_of_rows(rows: Iterable[FindingRow]) -> set[str]:
    known: set[str] = set()
    for row in rows:
        texts = [row.name, row.place, row.side]
        finding = find(row.finding)
        if finding is not None:
            texts += finding.aliases
            known |= STRUCTURE_WORDS[finding.section]
        known.update(word for text in texts for word in words_of(text))
    return known


def _completed(sections: Sequence[ReportSection], table: Sequence[FindingRow], complete: bool) -> Guarded:
    """With the present findings that no shown sentence says, and with a word on a text that broke off."""
    done = _added(_added(list(sections), table, FINDINGS), table, IMPRESSION)
    if not complete:
        notice = Sentence(TRUNCATED, verdict=Verdict.ADDED, reason="the text ends within a sentence or was cut")
        done.append(ReportSection("Not complete", (notice,)))
    return Guarded(tuple(done), complete)


def _added(sections: list[ReportSection], table: Sequence[FindingRow], kind: str) -> list[ReportSection]:
    mine = [section for section in sections if (section.title == IMPRESSION) == (kind == IMPRESSION)]
    said = {
        mention.finding
        for section in mine
        for sentence in section.sentences
        if sentence.shown
        for mention in mentions_of(sentence.text)
        if mention.asserted
    } | {
        one
        for section in mine
        for s in section.sentences
        if s.shown and section.title != NOT_JUDGED
        for one in s.findings
    }
    missing = [row for row in table if row.decision is Decision.PRESENT and row.finding not in said]
    if not missing:
        return sections
    make = impression_sentence if kind == IMPRESSION else row_sentence
    added = tuple(replace(make(row), verdict=Verdict.ADDED, reason="present, and not said") for row in missing)
    titles: Mapping[str, int] = {section.title: place for place, section in enumerate(sections)}
    if kind not in titles:
        return [*sections, ReportSection(kind, added)]
    old = sections[titles[kind]]
    sections[titles[kind]] = replace(old, sentences=old.sentences + added)
    return sections


def _whole_sentences(text: str) -> str:
    """A text up to its last full stop."""
    ends = [match.end() for match in re.finditer(r"[.!?](?=[\s\"”*)\]]|$)", text)]
    return text[: ends[-1]] if ends else ""


def _title(heading: str) -> str:
    lower = heading.strip().lower()
    if lower.startswith(("impression", "conclusion")):
        return IMPRESSION
    return FINDINGS if lower.startswith("finding") else f"{FINDINGS}: {heading.strip().capitalize()}"
