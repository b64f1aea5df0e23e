"""What is read out of report sentences."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from CTReportLib.extractor import Polarity, clauses_of, labels_of, mentions_of, sentences_of
from CTReportLib.findings import FINDINGS
from CTReportLib.lexicon import FINDING_IDS

POSITIVE, UNCERTAIN, NEGATIVE = Polarity.POSITIVE, Polarity.UNCERTAIN, Polarity.NEGATIVE


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("Small left pleural effusion.", {"pleural_effusion": POSITIVE}),
        ("No pleural or pericardial effusion.", {"pleural_effusion": NEGATIVE, "pericardial_effusion": NEGATIVE}),
        ("Pleural effusion is not seen.", {"pleural_effusion": NEGATIVE}),
        ("Pericardial effusion on the left.", {"pericardial_effusion": POSITIVE}),
        ("No emphysema, but a nodule in the right lung.", {"emphysema": NEGATIVE, "lung_nodule": POSITIVE}),
        ("Emphysema without bronchiectasis.", {"emphysema": POSITIVE, "bronchiectasis": NEGATIVE}),
        ("Possible hiatal hernia.", {"hiatal_hernia": UNCERTAIN}),
        ("Heart is larger than normal.", {"cardiomegaly": POSITIVE}),
        ("The cardiothoracic ratio is normal.", {"cardiomegaly": NEGATIVE}),
        ("Calcified plaques of the coronary arteries.", {"coronary_artery_wall_calcification": POSITIVE}),
        ("Calcified plaques of the aorta.", {"arterial_wall_calcification": POSITIVE}),
        ("Not only emphysema was found.", {"emphysema": POSITIVE}),
        ("Compression fracture with collapsed T6 vertebra.", {"other:fracture": POSITIVE}),
        ("Subcutaneous emphysema.", {}),
        ("The trachea is midline.", {}),
    ],
)
def test_a_sentence_speaks_of_findings_and_asserts_or_denies_them(sentence: str, found: dict[str, Polarity]) -> None:
    assert {mention.finding: mention.polarity for mention in mentions_of(sentence)} == found


@pytest.mark.parametrize(
    ("sentence", "side", "lobes"),
    [
        ("Atelectasis in the left lower lobe.", "left", ("lower",)),
        ("Atelectasis of the right middle lobe.", "right", ("middle",)),
        ("Bilateral apical atelectasis.", "both", ("upper",)),
        ("Atelectasis on the right and on the left.", "both", ()),
        ("Atelectasis.", "", ()),
    ],
)
def test_side_and_lobe_are_those_of_the_clause(sentence: str, side: str, lobes: tuple[str, ...]) -> None:
    (mention,) = mentions_of(sentence)
    assert (mention.side, mention.lobes) == (side, lobes)


def test_a_consolidation_implies_an_opacity_without_naming_one() -> None:
    implied = {mention.finding: mention.implied for mention in mentions_of("Consolidation.")}
    assert implied == {"lung_opacity": True, "consolidation": False}


def test_numbers_do_not_end_sentences_and_bullets_do() -> None:
    text = "A nodule of 5.5 mm.\n• Emphysema; • No effusion\nIs it so? Yes."
    assert sentences_of(text) == ("A nodule of 5.5 mm", "Emphysema", "No effusion", "Is it so?", "Yes")


def test_a_denial_reaches_over_its_own_clause_only() -> None:
    assert clauses_of("No effusion, and there is a nodule") == ("No effusion", "there is a nodule")
    assert clauses_of("No mass, nodule or consolidation was seen") == ("No mass, nodule or consolidation was seen",)


def test_what_was_asked_or_is_advised_is_no_finding() -> None:
    report = "INDICATION: Pleural effusion?\nFINDINGS: Emphysema.\nIMPRESSION: Emphysema."
    assert labels_of(report) == {"emphysema"}


def test_every_finding_of_the_registry_has_terms() -> None:
    assert set(FINDING_IDS) == {finding.id for finding in FINDINGS}
    for finding in FINDINGS:
        assert finding.id in {mention.finding for mention in mentions_of(f"{finding.name} is seen.")}


def test_macro_f1_on_labelled_reports_is_at_least_three_quarters(shared_data, repository: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [str(repository / "Testing" / "benchmarks"), *sys.path])
    from ct_extractor import FILE, macro_f1, read_reports, scores

    held = scores(read_reports(shared_data(FILE), "held"))
    assert macro_f1(held) >= 0.9
    assert min(score.f1 for score in held) >= 0.7
