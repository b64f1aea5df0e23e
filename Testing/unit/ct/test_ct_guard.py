"""What the guard lets through of written reports, and what it does not."""

from __future__ import annotations

import random

import pytest
from ct_tables import contradictions, invented, some_table, true_lines, written, wrong_side

from CTReportLib.extractor import mentions_of
from CTReportLib.guard import broke_off, guard_generated, guard_template, objections
from CTReportLib.report import IMPRESSION, Facts, template_report
from CTReportLib.request import Basis, Decision, FindingRow, Verdict
from CTReportLib.table import finding_table

KINDS = ("wrong side", "invented", "omitted", "contradiction", "truncated")
LIES = {"wrong side": wrong_side, "invented": invented, "contradiction": contradictions}


def plain(text: str) -> str:
    """A sentence without its end mark and capitals."""
    return text.strip(" .?!").lower()


def adversarial(number: int):
    """The table, the lines and the text of adversarial report ``number``; five kinds in turn."""
    chance = random.Random(number)
    table, kind = some_table(chance), KINDS[number % len(KINDS)]
    lines = true_lines(chance, table)
    if kind == "omitted":
        lines = chance.sample(lines, len(lines) // 3)
    elif kind in LIES:
        lines = lines + LIES[kind](chance, table)
    chance.shuffle(lines)
    text = written(lines)
    if kind == "truncated":
        text = text[: int(len(text) * chance.uniform(0.4, 0.9))].rstrip(". ")
    return kind, table, lines, text


@pytest.mark.parametrize("kind", KINDS)
def test_of_forty_adversarial_reports_of_each_kind_no_unsupported_statement_survives(kind: str) -> None:
    for number in range(KINDS.index(kind), 200, len(KINDS)):
        _, table, lines, text = adversarial(number)
        guarded = guard_generated(text, table)
        shown = {plain(one.text) for one in guarded.sentences if one.shown and one.verdict is not Verdict.ADDED}
        survived = [line.text for line in lines if not line.true and plain(line.text) in shown]
        assert not survived, (number, survived)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_survives_agrees_with_the_table_and_no_present_finding_is_missing(kind: str) -> None:
    for number in range(KINDS.index(kind), 200, len(KINDS)):
        _, table, _, text = adversarial(number)
        rows = {row.finding: row for row in table}
        guarded = guard_generated(text, table)
        said = {finding for one in guarded.sentences if one.shown for finding in one.findings}
        assert {row.finding for row in table if row.decision is Decision.PRESENT} <= said
        for sentence in guarded.sentences:
            if sentence.shown and sentence.verdict is Verdict.SUPPORTED:
                for mention in mentions_of(sentence.text):
                    if not mention.implied:
                        wanted = Decision.PRESENT if mention.asserted else Decision.ABSENT
                        assert rows[mention.finding].decision is wanted, (number, sentence.text)


def test_most_true_sentences_stay_as_they_were_written() -> None:
    kept = total = 0
    for number in range(200):
        kind, table, lines, text = adversarial(number)
        if kind == "truncated":
            continue
        shown = {one.text for one in guard_generated(text, table).sentences if one.shown}
        true = [line.text for line in lines if line.true]
        kept += sum(line in shown for line in true)
        total += len(true)
    assert kept / total > 0.97


def test_a_truncated_report_is_never_shown_as_finished() -> None:
    for number in range(KINDS.index("truncated"), 200, len(KINDS)):
        _, table, _, text = adversarial(number)
        guarded = guard_generated(text, table)
        assert not guarded.complete
        assert "not complete" in guarded.text
    table = some_table(random.Random(3))
    assert not guard_generated("FINDINGS: Normal.", table, complete=False).complete


ROW = FindingRow(
    "pleural_effusion", "Pleural effusion", Decision.PRESENT, Basis.RULE,
    measurement="Pleural fluid, left", value=212.4, unit="ml", side="left", place="lower third, left", volume_ml=212.4,
)  # fmt: skip
ABSENT = FindingRow("emphysema", "Emphysema", Decision.ABSENT, Basis.RULE)
OPEN = FindingRow("lung_nodule", "Lung nodule", Decision.NOT_JUDGED)
TABLE = (ROW, ABSENT, OPEN)


@pytest.mark.parametrize(
    "sentence",
    [
        "Left pleural effusion.",
        "There is pleural effusion in the lower third on the left, 212 ml.",
        "Pleural effusion measuring 0.2 l on the left.",
        "No emphysema.",
        "No right pleural effusion.",
        "Pleural effusion is present on the left, and there is no emphysema.",
    ],
)
def test_a_sentence_that_the_table_bears_out_stays(sentence: str) -> None:
    assert objections(sentence, TABLE) == ()


@pytest.mark.parametrize(
    ("sentence", "because"),
    [
        ("Right pleural effusion.", "on the left, not right"),
        ("Bilateral pleural effusion.", "on the left, not both"),
        ("Left pleural effusion, upper third.", "no mask shows"),
        ("Left pleural effusion of 300 ml.", "not measured: 300 ml"),
        ("Left pleural effusion of 2 cm.", "not measured: 2 cm"),
        ("Large left pleural effusion.", "nothing shows: large"),
        ("Left pleural effusion with empyema formation.", "nothing shows"),
        ("Normal lungs without emphysema.", "not found free: Lung nodule"),
        ("Left empyema.", "nothing shows: empyema"),
        ("Hydropneumothorax on the left.", "pneumothorax was not judged"),
        ("Left pleural effusion is seen in the heart.", "nothing shows: heart"),
        ("No pleural effusion.", "is present"),
        ("Emphysema.", "looked for and is absent"),
        ("No lung nodule.", "not judged"),
        ("Lung nodule.", "not judged"),
        ("No pneumothorax.", "not judged"),
        ("The lungs are clear.", "not found free: Lung nodule"),
        ("Emphysema is not absent.", "cannot be read with certainty"),
        ("No emphysema, goitre is seen.", "cannot be read with certainty"),
        ("The liver is cirrhotic.", "no evidence speaks for it"),
    ],
)
def test_a_sentence_that_it_does_not_is_struck_with_the_reason(sentence: str, because: str) -> None:
    assert because in "; ".join(objections(sentence, TABLE))


def test_normal_is_said_only_of_what_was_judged_and_found_free() -> None:
    heart = tuple(
        FindingRow(name, name.replace("_", " ").capitalize(), Decision.ABSENT, Basis.RULE)
        for name in ("cardiomegaly", "pericardial_effusion", "coronary_artery_wall_calcification")
    )
    assert objections("The heart is normal.", (*TABLE, *heart)) == ()
    assert objections("Heart size is normal.", (*TABLE, *heart)) == ()
    assert objections("Normal chest.", (*TABLE, *heart)) != ()


def test_the_record_keeps_what_was_struck_and_marks_what_was_added() -> None:
    guarded = guard_generated("FINDINGS: Right pleural effusion. IMPRESSION: Emphysema.", TABLE)
    verdicts = [(one.verdict, one.text) for one in guarded.sentences]
    assert (Verdict.STRUCK, "Right pleural effusion.") in verdicts
    added = [one for one in guarded.sentences if one.verdict is Verdict.ADDED]
    assert len(added) == 2
    assert all(one.findings == ("pleural_effusion",) and one.measurements for one in added)
    assert "Right" not in guarded.text


def test_the_template_report_of_any_table_passes_the_guard_untouched() -> None:
    for table in [finding_table(()), *(some_table(random.Random(1000 + number)) for number in range(60))]:
        sections = template_report(table, (), Facts(("CT of the chest.",), ()))
        guarded = guard_template(sections, table)
        assert guarded.sections == sections, [(s.text, s.reason) for s in guarded.sentences if s.reason]


def test_the_guard_catches_a_template_that_says_another_side_than_its_table() -> None:
    sections = template_report((ROW,), (), Facts())
    moved = FindingRow(
        "pleural_effusion", "Pleural effusion", Decision.PRESENT, Basis.RULE, side="right", place="right"
    )
    guarded = guard_template(sections, (moved,))
    assert any(one.verdict is Verdict.STRUCK for one in guarded.sentences)
    assert IMPRESSION in {section.title for section in guarded.sections}


@pytest.mark.parametrize(
    ("text", "off"),
    [("All is said.", False), ("Is it?", False), ("It is", True), ("", True), ("FINDINGS: None.", True)],
)
def test_a_text_broke_off_where_it_ends_within_a_sentence_or_before_the_impression(text: str, off: bool) -> None:
    assert broke_off(text) is off
