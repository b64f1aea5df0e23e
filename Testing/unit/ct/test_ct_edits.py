"""A report's text edited by a person: what stays keeps its evidence, what is new has none, what is gone is recorded."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from ct_tables import some_table
from hypothesis import given, settings
from hypothesis import strategies as st

from CTReportLib.edits import LineKind, apply_edit, remarks_on, report_lines, shown_text
from CTReportLib.exports import report_text
from CTReportLib.guard import guard_generated
from CTReportLib.report import Facts, template_report
from CTReportLib.request import RESEARCH_USE, Edit, ReportResult, ReportSection, Sentence, Verdict

WHO, WHEN = "Dr. Zoë", "2026-01-01T10:00:00Z"
TABLE = some_table(random.Random(7))


def a_report(seed: int = 7) -> ReportResult:
    """A template report of a table made by chance."""
    table = some_table(random.Random(seed))
    return ReportResult("case", table, template_report(table, (), Facts(("CT of the chest.",), ())))


def a_guarded_report() -> ReportResult:
    """A report with a struck sentence between two that stay."""
    present = next(row for row in TABLE if row.decision.value == "present")
    name = present.name.lower()
    text = f"FINDINGS: There is {name}. There is a fracture. Findings of {name}.\nIMPRESSION: There is {name}."
    result = ReportResult("case", TABLE, guard_generated(text, TABLE).sections)
    struck = [one for section in result.sections for one in section.sentences if not one.shown]
    assert len(struck) == 1
    return result


def edited(result: ReportResult, old: str, new: str) -> ReportResult:
    text = shown_text(result)
    assert old in text
    return apply_edit(result, text.replace(old, new, 1), WHO, WHEN)


def sentences(result: ReportResult) -> list[Sentence]:
    return [one for section in result.sections for one in section.sentences]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30) | st.sampled_from(
    ["IMPRESSION", "- a", "* b", "-", "  ", "x\ny", RESEARCH_USE, "CHEST CT: case", "a\u2028b", "• •"]
)
some_sentences = st.builds(
    Sentence, texts, st.just(("emphysema",)), st.just(("m",)), st.sampled_from([Verdict.SUPPORTED, Verdict.STRUCK])
)
reports = st.builds(
    ReportResult,
    st.just("case"),
    st.just(TABLE),
    st.lists(st.builds(ReportSection, texts, st.lists(some_sentences, max_size=4).map(tuple)), max_size=4).map(tuple),
    complete=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(reports)
def test_nothing_changed_gives_the_very_same_report(result: ReportResult) -> None:
    assert apply_edit(result, shown_text(result), WHO, WHEN) is result
    as_windows = shown_text(result).replace("\n", "\r\n\r\n").replace("- ", "  *   ")
    assert apply_edit(result, as_windows, WHO, WHEN) is result


@settings(max_examples=150, deadline=None)
@given(reports, texts, st.randoms(use_true_random=False))
def test_any_edit_keeps_struck_sentences_and_what_is_read_next_is_what_was_written(
    result: ReportResult, text: str, chance: random.Random
) -> None:
    lines = shown_text(result).split("\n")
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(lines) + 1)
        lines[place : place + chance.randint(0, 2)] = [text]
    again = apply_edit(result, "\n".join(lines), WHO, WHEN)
    assert sorted(s.text for s in sentences(again) if not s.shown) == sorted(
        s.text for s in sentences(result) if not s.shown
    )
    assert again.edits[: len(result.edits)] == result.edits
    assert apply_edit(again, shown_text(again), WHO, WHEN) is again
    known = {id(one) for one in sentences(result)}
    assert all(id(one) in known or one.verdict is Verdict.EDITED for one in sentences(again))


def test_the_text_to_edit_has_every_sentence_that_is_exported_and_says_what_the_report_is() -> None:
    for result in (a_report(), replace(a_report(), complete=False), a_guarded_report()):
        exported = report_text(result)
        lines = report_lines(result)
        assert all(line.text in exported for line in lines)
        assert len(lines) == sum(1 for line in exported.splitlines() if line)
        assert [line.kind for line in lines].count(LineKind.HEADER) == (2 if result.complete else 3)
        assert RESEARCH_USE in shown_text(result)


def test_a_changed_sentence_loses_its_evidence_and_all_others_keep_theirs() -> None:
    result = a_report()
    before = next(one for one in sentences(result) if one.findings and "present" in one.text)
    again = edited(result, before.text, before.text.replace("present", "clearly present"))
    changed = [one for one in sentences(again) if one not in sentences(result)]
    assert len(changed) == 1
    assert (changed[0].verdict, changed[0].findings, changed[0].measurements) == (Verdict.EDITED, (), ())
    assert len(sentences(again)) == len(sentences(result))
    assert {id(one) for one in sentences(again)} - {id(changed[0])} == {id(o) for o in sentences(result)} - {id(before)}
    section = next(s.title for s in result.sections if before in s.sentences)
    assert again.edits == (Edit(WHEN, WHO, section, before.text, changed[0].text),)


def test_the_guard_objects_and_a_person_may_still_say_it() -> None:
    again = edited(a_report(), "CT of the chest.", "CT of the chest.\n- There is a pneumothorax on the left.")
    (added,) = [one for one in sentences(again) if one.verdict is Verdict.EDITED]
    assert added.shown and "pneumothorax" in added.reason
    assert remarks_on("There is a pneumothorax. It is large.", TABLE)[0] == "pneumothorax was not judged"
    assert again.edits[-1].before == ""


def test_a_sentence_taken_out_is_recorded() -> None:
    result = a_report()
    gone = next(one for one in sentences(result) if one.findings)
    again = edited(result, f"- {gone.text}\n", "")
    assert gone.text not in shown_text(again)
    assert (again.edits[-1].before, again.edits[-1].after) == (gone.text, "")
    assert again.table == result.table


def test_a_sentence_moved_to_another_place_keeps_its_evidence() -> None:
    result = a_report()
    moved = next(one for one in result.sections[1].sentences if one.findings)
    text = shown_text(result).replace(f"- {moved.text}\n", "", 1) + f"- {moved.text}\n"
    again = apply_edit(result, text, WHO, WHEN)
    assert again.sections[-1].sentences[-1] is moved
    assert [(one.section, one.before, one.after) for one in again.edits] == [
        (result.sections[-1].title, moved.text, moved.text)
    ]


def test_a_struck_sentence_stays_where_it_was_struck() -> None:
    result = a_guarded_report()
    first = result.sections[0].sentences[0]
    again = edited(result, first.text, f"{first.text} As before.")
    assert [one.shown for one in again.sections[0].sentences[:3]] == [True, False, True]
    none_left = "\n".join(line for line in shown_text(result).split("\n") if not line.startswith("- "))
    empty = apply_edit(result, none_left, WHO, WHEN)
    assert [one.text for one in sentences(empty)] == ["There is a fracture."]


def test_a_new_title_starts_a_new_part_and_a_known_one_keeps_its_spelling() -> None:
    result = a_report()
    again = apply_edit(result, shown_text(result) + "\nRECOMMENDATION\n- See a physician.\n", WHO, WHEN)
    assert again.sections[-1].title == "Recommendation"
    assert [one.text for one in again.sections[-1].sentences] == ["See a physician."]
    assert [one.title for one in again.sections[:-1]] == [one.title for one in result.sections]


def test_the_header_comes_back_by_itself() -> None:
    result = a_report()
    text = shown_text(result).replace(RESEARCH_USE, "", 1)
    assert apply_edit(result, text, WHO, WHEN) is result
    assert RESEARCH_USE in shown_text(apply_edit(result, "IMPRESSION\n- Well.", WHO, WHEN))


def test_edits_grow_with_each_edit() -> None:
    once = edited(a_report(), "CT of the chest.", "CT of the thorax.")
    twice = edited(once, "CT of the thorax.", "CT of the thorax, without contrast.")
    assert [one.after for one in twice.edits] == ["CT of the thorax.", "CT of the thorax, without contrast."]
    assert twice.edits[1].before == "CT of the thorax."


@pytest.mark.parametrize("text", ["", "\n\n", "- \n*"])
def test_an_empty_text_takes_every_sentence_out(text: str) -> None:
    again = apply_edit(a_report(), text, WHO, WHEN)
    assert sentences(again) == [] and len(again.edits) >= len(sentences(a_report()))
