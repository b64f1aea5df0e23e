"""Reads findings out of report sentences: which, asserted or denied, on which side, where, how large.

A sentence is cut into clauses; a denial reaches over its own clause only. Rules, no network; what they reach on
labelled reports is measured by ``Testing/benchmarks/ct_extractor.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from CTReportLib.lexicon import OTHER, TERMS, compiled


class Polarity(Enum):
    """How a sentence speaks of a finding."""

    POSITIVE = "positive"
    UNCERTAIN = "uncertain"
    NEGATIVE = "negative"


@dataclass(frozen=True)
class Mention:
    """A finding that a sentence speaks of.

    Attributes
    ----------
    finding : str
        Id of the registry, or ``other:`` and a name.
    polarity : Polarity
    side : str
        ``left``, ``right``, ``both``, or empty.
    lobes : tuple of str
        Of ``upper``, ``middle``, ``lower``, as the clause has them.
    words : str
        Those that named it.
    implied : bool
        See `CTReportLib.lexicon.Term`.
    """

    finding: str
    polarity: Polarity
    side: str = ""
    lobes: tuple[str, ...] = ()
    words: str = ""
    implied: bool = False

    @property
    def asserted(self) -> bool:
        """Whether a reader would take it for something that is there, or may be."""
        return self.polarity is not Polarity.NEGATIVE


_ABBREVIATION = r"(?<!\b[A-Z])(?<!\bca)(?<!\bDr)(?<!\bfig)(?<!\bapprox)(?<!\bvs)(?<!\bi\.e)(?<!\be\.g)"
_SENTENCE_END = re.compile(rf'(?:{_ABBREVIATION}(?<!\d)\.|(?<=\d)\.(?=\s|$)|[!?](?!\s*[,)]))(?=[\s"”•]|$)|["“”•\n\r;]+')
_SECTION = re.compile(r"^\s*#*\s*\**([A-Za-z][A-Za-z /,&-]{2,40}?)\**\s*:\s*")
_UNREAD_SECTIONS = compiled(r"indication|clinical|history|technique|comparison|recommendation|limitation|not judged")

_NO = (
    r"(no|not|without|absence of|absent|free of|neither|never|none|non-?visuali[sz]ed|lack of|negative for|denies|"
    r"rather than|instead of|exclude[sd]?|ruled out|resolved|disappeared)"
)
_BEFORE = compiled(rf"\b{_NO}\b(?!\s+(?:only|significant (?:change|difference)|change|longer excluded))")
_VERB = r"(?:is|are|was|were|be|been|has|have|could|can|did|does|do)"
_AFTER = compiled(
    rf"\b{_VERB}(?:n't| not)\b|\bnot (?:clearly )?(?:observed|detected|seen|"
    rf"identified|noted|present|found|visible|selected|"
    r"encountered|distinguished|included|available)\b|\b(?:is|are|was|were|"
    r"appears?|has|have) (?:\w+ )?(?:absent|resolved|excluded|ruled out)\b|"
    r":\s*(?:none|no|absent|negative)\b"
)
_NORMAL = compiled(
    r"\b(normal|natural|unremarkable|within (?:normal )?limits|clear|open|preserved|patent|regular|intact)\b"
)
_UNCERTAIN = compiled(
    r"\b(may|might|could be|possib\w+|probab\w+|suspicio\w+|suspect\w*|suggest\w*|likely|question\w*|differential|"
    r"cannot be (?:excluded|ruled out)|consider\w*|equivocal|compatible with|consistent with)\b|\?"
)
_CUT_BEFORE = compiled(
    r"\s*(?:,|\band\b)?\s*\b(?:but|however|although|though|whereas|while|"
    r"except(?: for| that)?|apart from(?: this)?|other than|besides|"
    r"nevertheless|yet|otherwise)\b"
)
_NEW_STATEMENT = compiled(
    r"(?:,\s*(?:and\s+)?|\band\s+)(?=(?:there (?:is|are|was|were)|no\b|"
    r"an?\b|mild\b|minimal\b|some\b|several\b|(?:a )?few\b|"
    r"multiple\b|small\b|large\b|moderate\b|massive\b|severe\b|also\b|"
    r"it (?:is|was)\b|we\b|showing\b|shows?\b|with an?\b|new\b|bilateral\b|"
    r"the\b))"
)
_PREDICATE = compiled(
    rf"\b{_VERB}\b|\b(?:no|without|shows?|showing|demonstrat\w+|reveal\w*|"
    rf"contains?|with|seen|noted|observed|detected)\b"
)
_RIGHT, _LEFT = compiled(r"\bright\b"), compiled(r"\bleft\b(?!-?(?: facing|ward))")
_BOTH = compiled(
    r"\b(bilateral\w*|both (?:lungs?|sides?|hemithora\w+|pleura\w*|lower|upper|costo\w+)|either side|two lungs)\b"
)
_LOBES = {
    "upper": compiled(r"\b(upper|apical|apex|apices|lingul\w+)\b"),
    "middle": compiled(r"\bmiddle\b"),
    "lower": compiled(r"\b(lower|basal|bas(?:e|es)|posterobasal|basilar)\b"),
}


def sentences_of(text: str) -> tuple[str, ...]:
    """The sentences of a text without bullets, quotation marks and full stops; a heading stays with its sentence."""
    marked = re.sub(r"\?(?=\s|$)", " ?.", text)
    pieces = (piece.strip(" \t-*•·.,").replace(" ?", "?") for piece in _SENTENCE_END.split(marked))
    return tuple(piece for piece in pieces if any(char.isalpha() for char in piece))


def mentions_of(sentence: str) -> tuple[Mention, ...]:
    """Every finding that a sentence speaks of, in the order of its words; each once per clause and polarity."""
    found: dict[tuple[str, Polarity, str], Mention] = {}
    for clause in clauses_of(sentence):
        for mention in _in_clause(clause):
            key = (mention.finding, mention.polarity, clause)
            words = f"{found[key].words} {mention.words}" if key in found else mention.words
            found[key] = replace(mention, words=words, implied=mention.implied and found.get(key, mention).implied)
    return tuple(found.values())


def labels_of(report: str) -> frozenset[str]:
    """Ids of the findings of the registry that a whole report asserts; what is only considered counts as asserted."""
    found: set[str] = set()
    read = True
    for sentence in sentences_of(report):
        heading = _SECTION.match(sentence)
        if heading:
            read = not _UNREAD_SECTIONS.search(heading.group(1))
        if read:
            found |= {m.finding for m in mentions_of(sentence) if m.asserted and not m.finding.startswith(OTHER)}
    return frozenset(found)


def clauses_of(sentence: str) -> tuple[str, ...]:
    """Parts of a sentence over each of which a denial reaches."""
    parts: list[str] = []
    for part in _CUT_BEFORE.split(sentence):
        start = 0
        for match in _NEW_STATEMENT.finditer(part):
            if _PREDICATE.search(part[start : match.start()]) and not _in_denied_list(
                part[start : match.start()], part[match.end() :]
            ):
                parts.append(part[start : match.start()])
                start = match.end()
        parts.append(part[start:])
    return tuple(part.strip() for part in parts if part.strip())


def _in_denied_list(before: str, after: str) -> bool:
    """Whether words go on with a list that a later ``was not detected`` denies as a whole."""
    return bool(re.match(r"(?:the|bilateral)\b", after, re.IGNORECASE)) and not _VERB_SEEN.search(before)


_VERB_SEEN = compiled(rf"\b{_VERB}\b")


def _in_clause(clause: str) -> Iterator[Mention]:
    side, lobes = side_of(clause), tuple(name for name, pattern in _LOBES.items() if pattern.search(clause))
    for term in TERMS:
        if not term.fits(clause):
            continue
        for match in term.matcher.finditer(clause):
            polarity = _polarity(term.finding, clause, match)
            if polarity is not None:
                yield Mention(term.finding, polarity, side, lobes, match.group(0), term.implied)


def side_of(text: str) -> str:
    """``left``, ``right``, ``both`` or empty: the sides that words name."""
    right, left = bool(_RIGHT.search(text)), bool(_LEFT.search(text))
    if _BOTH.search(text) or (right and left):
        return "both"
    return "right" if right else "left" if left else ""


def _polarity(finding: str, clause: str, match: re.Match[str]) -> Polarity | None:
    judge = _SPECIAL.get(finding)
    verdict = judge(clause, match) if judge else Polarity.POSITIVE
    if verdict is not None and denied(clause, match.start(), match.end()):
        return Polarity.NEGATIVE
    if verdict is Polarity.POSITIVE and _UNCERTAIN.search(clause):
        return Polarity.UNCERTAIN
    return verdict


def denied(clause: str, start: int, end: int) -> bool:
    """Whether a clause denies what its characters from ``start`` to ``end`` name."""
    before, after = clause[:start], clause[end:]
    return bool(_BEFORE.search(before) or _AFTER.search(after) or _AFTER.search(before))


def _heart_size(clause: str, match: re.Match[str]) -> Polarity:
    """A ratio or index of the heart is a finding only where it is said to be increased."""
    if match.group(0).lower().startswith("cardiomeg"):
        return Polarity.POSITIVE
    if "thoracic" in match.group(0).lower():
        raised = compiled(r"\b(increas\w+|elevated|enlarged|high|above|exceed\w*|in favor of the heart)\b").search(
            clause
        )
        return Polarity.POSITIVE if raised else Polarity.NEGATIVE
    return (
        Polarity.NEGATIVE
        if _NORMAL.search(clause) and "larger than normal" not in clause.lower()
        else Polarity.POSITIVE
    )


def _lymph_node(clause: str, match: re.Match[str]) -> Polarity | None:
    """Nodes are a finding where they are large, many or pathological; small ones alone are not."""
    if "node" not in match.group(0).lower():
        return Polarity.POSITIVE
    if compiled(r"\bintra-?pulmonary lymph|did not reach|below pathological|not pathological").search(clause):
        return None
    return Polarity.POSITIVE


def _fluid(clause: str, match: re.Match[str]) -> Polarity | None:
    """Fluid around the heart is not fluid around a lung."""
    around_heart = compiled(r"\bpericard").search(clause) and not compiled(r"\bpleura|\bthora").search(clause)
    return None if around_heart else Polarity.POSITIVE


_SPECIAL = {"cardiomegaly": _heart_size, "lymphadenopathy": _lymph_node, "pleural_effusion": _fluid}
