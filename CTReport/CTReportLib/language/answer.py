"""What a language model wrote, taken apart: its thoughts, its report, its list of labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from CTReportLib.findings import find

NO_FINDING = ("no chest finding", "no abdomen finding", "no finding")
"""Labels, in lower case, that say that there is none."""
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""What parts of a text are told apart by."""
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """A model's text in its parts.

    Attributes
    ----------
    report : str
        Without thoughts and labels.
    labels : tuple of str
        As the model wrote them between ``<answer>`` and ``</answer>``; empty where it wrote none.
    complete : bool
        Whether every block that it began is closed.
    """

    report: str
    labels: tuple[str, ...] = ()
    complete: bool = True


@dataclass(frozen=True)
class LabelledFindings:
    """A model's labels as findings of ours.

    Attributes
    ----------
    findings : tuple of str
        Ids.
    others : tuple of str
        Labels for which there is none here.
    contradictory : bool
        Whether it says that there is no finding, and lists some.
    """

    findings: tuple[str, ...]
    others: tuple[str, ...]
    contradictory: bool = False


def labelled_findings(labels: Sequence[str]) -> LabelledFindings:
    """What of a model's labels is known here."""
    none = [label for label in labels if label.casefold() in NO_FINDING]
    named = [label for label in labels if label.casefold() not in NO_FINDING]
    known = {label: found.id for label in named if (found := find(label)) is not None}
    others = tuple(dict.fromkeys(label for label in named if label not in known))
    return LabelledFindings(tuple(dict.fromkeys(known.values())), others, bool(none and named))


def read_answer(text: str, prompt: str = "") -> Answer:
    """Take a model's text apart.

    A thought that is not closed is a text that broke off, and nothing after its beginning is part of the report; it
    may have begun at the end of the prompt.
    """
    thinks = prompt.rfind("<think>") > prompt.rfind("</think>")
    rest = _THOUGHT.sub("", f"<think>{text}" if thinks else text)
    _, closed, end = rest.rpartition("</think>")
    rest = end if closed else rest
    rest, thinking, _ = rest.partition("<think>")
    found = _ANSWER.findall(rest)
    rest = _ANSWER.sub("", rest)
    rest, listing, _ = rest.partition("<answer>")
    labels = tuple(part for one in found for piece in re.split(r"[,\n;]", one) if (part := piece.strip(" .-*\t")))
    return Answer(rest.strip(), labels, not thinking and not listing)
