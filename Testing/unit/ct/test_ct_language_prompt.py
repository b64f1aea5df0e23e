"""What a language model is asked, and what is made of its answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_language as tiny
from hypothesis import given
from hypothesis import strategies as st
from language_cases import a_table

from CTReportLib.findings import FINDINGS
from CTReportLib.landmarks import THIRDS, Place
from CTReportLib.language.answer import Answer, read_answer
from CTReportLib.language.prompt import INSTRUCTION, NOTHING, finding_lines, region_text, report_prompt
from CTReportLib.language.tokens import TextTokens
from CTReportLib.request import Decision


def test_the_prompt_has_the_published_layout() -> None:
    table = a_table(pleural_effusion="lower third, left", cardiomegaly="")
    assert report_prompt(table) == (
        "[FINDING] Cardiomegaly detected\n"
        "[FINDING] Pleural effusion detected in lower left region\n"
        "\n"
        "Generate a clinical radiology report based on the CT scan findings:"
    )


def test_a_table_without_a_present_finding_says_so() -> None:
    assert report_prompt(a_table()) == f"{NOTHING}\n\n{INSTRUCTION}"
    open_ = tuple(replace(row, decision=Decision.NOT_JUDGED) for row in a_table(emphysema="left"))
    assert report_prompt(open_) == f"{NOTHING}\n\n{INSTRUCTION}"


@pytest.mark.parametrize(
    ("place", "region"),
    [
        ("lower third, left", "lower left"),
        ("upper and middle thirds, right", "upper and middle right"),
        ("all thirds, left", "left"),
        ("upper and middle and lower thirds, left", "left"),
        ("lower third, both sides", "lower left and right"),
        ("both", "left and right"),
        ("posterior lower third, right", "lower right posterior"),
        ("right", "right"),
        ("", ""),
        ("in the heart's region", ""),
    ],
)
def test_places_of_the_table_become_regions(place: str, region: str) -> None:
    assert region_text(place) == region


def test_each_place_of_a_finding_has_a_line_of_its_own() -> None:
    (row,) = (one for one in a_table(lung_nodule="upper third, left; lower third, right") if one.place)
    assert list(finding_lines(row)) == [
        "[FINDING] Lung nodule detected in upper left region",
        "[FINDING] Lung nodule detected in lower right region",
    ]
    (side_only,) = finding_lines(replace(row, place="", side="right"))
    assert side_only == "[FINDING] Lung nodule detected in right region"


@given(
    st.dictionaries(
        st.sampled_from([one.id for one in FINDINGS]),
        st.builds(Place, st.sampled_from(["left", "right", "both"]), st.sets(st.sampled_from(THIRDS)).map(tuple)),
    )
)
def test_a_prompt_never_names_what_the_table_does_not(places: dict[str, Place]) -> None:
    table = a_table(**{finding: place.text for finding, place in places.items()})
    *lines, blank, instruction = report_prompt(table).split("\n")
    assert (blank, instruction) == ("", INSTRUCTION)
    assert len(lines) == max(len(places), 1)
    for one in FINDINGS:
        mine = [line for line in lines if line.startswith(f"[FINDING] {one.name} detected")]
        assert len(mine) == (one.id in places)
        for line in mine:
            place = places[one.id]
            for side, other in (("left", "right"), ("right", "left")):
                assert (side not in line.split()) == (place.side == other)
            for third in THIRDS:
                assert third not in line.split() or third in place.thirds


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("FINDINGS: none.", Answer("FINDINGS: none.")),
        ("<think>It may be <b>.</think>\n\nFINDINGS: none.", Answer("FINDINGS: none.")),
        ("begun in the prompt</think>FINDINGS: none.", Answer("FINDINGS: none.")),
        ("<think>a</think>one <think>b</think>two", Answer("one two")),
        ("<think>never closed, FINDINGS: wrong.", Answer("", (), False)),
        ("Report.<answer>Emphysema, Lung nodule</answer>", Answer("Report.", ("Emphysema", "Lung nodule"))),
        ("Report.\n<answer>- Emphysema\n- Atelectasis.</answer>", Answer("Report.", ("Emphysema", "Atelectasis"))),
        ("Report.<answer></answer>", Answer("Report.")),
        ("Report.<answer>Emph", Answer("Report.", (), False)),
        ("", Answer("")),
    ],
)
def test_thoughts_are_left_out_and_labels_kept_apart(text: str, answer: Answer) -> None:
    assert read_answer(text) == answer


def test_a_thought_that_the_prompt_began_is_no_report_before_it_is_closed() -> None:
    began, closed = "Report?<think>\n", "Report?<think>\n\n</think>\n\n"
    assert read_answer("It may be an effusion.", began) == Answer("", (), False)
    assert read_answer("It may be one.</think>FINDINGS: none.", began) == Answer("FINDINGS: none.")
    assert read_answer("FINDINGS: none.", closed) == Answer("FINDINGS: none.")


def test_tags_are_kept_apart_also_where_the_tokenizer_takes_them_for_no_text() -> None:
    for special in (True, False):
        tokenizer = tiny.a_tokenizer(begins=False)
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(["<think>", "</think>", "<|im_end|>"])
        tokens = TextTokens(tokenizer, (2,))
        text = "<think>Café, fluid?</think>FINDINGS:\nNo emphysema.<answer>Emphysema</answer>"
        ids = tokens.encode(text)
        assert tokens.decode([*ids, tokens.id_of("</s>"), 0]) == text
        if special:
            assert tokens.decode([*ids, tokens.id_of("<|im_end|>")]) == text


@given(st.text(alphabet="ab<>/\n "), st.text(alphabet="xyz.,"), st.text(alphabet="uvw. "))
def test_no_thought_is_ever_part_of_a_report(thought: str, labels: str, report: str) -> None:
    found = read_answer(f"<think>SECRET {thought}</think>{report}<answer>LABEL{labels}</answer>")
    assert "SECRET" not in found.report and "LABEL" not in found.report
    assert found.report == report.strip() and found.complete
