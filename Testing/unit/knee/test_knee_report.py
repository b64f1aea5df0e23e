"""The HTML report and its pictures."""

from __future__ import annotations

import io
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from knee_cases import a_label_map, a_request, some_echoes
from knee_phantoms import without

from KneeAnalysisLib.chain import KneeChain
from KneeAnalysisLib.labels import Tissue
from KneeAnalysisLib.pictures import draw_pictures, point_colors, views
from KneeAnalysisLib.report import cell_text, html_report
from KneeAnalysisLib.results import RESEARCH_USE, KneeResult, Report
from MedAILib.errors import Cancelled
from MedAILib.jobs.task import Context


@pytest.fixture(scope="module")
def result() -> KneeResult:
    label_map = replace(a_label_map(), name="x")
    return KneeChain(a_request(label_map=label_map, echoes=some_echoes(label_map), name="<b>Knie & Co")).run()


class _Tags(HTMLParser):
    """Checks that every tag is closed and collects texts and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs) if tag == "img" else None

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(report: str) -> _Tags:
    parser = _Tags()
    parser.feed(report)
    assert parser.open == []
    return parser


def test_the_report_is_whole_html_that_names_regions_numbers_and_its_use(result: KneeResult) -> None:
    page = read(html_report(result))
    text = " ".join(page.text)
    assert RESEARCH_USE in text and "Medial tibial cartilage" in text and "T2 superficial" in text
    assert "Right knee" in text and "8 echoes" in text and "label map" in text
    assert all(address.startswith("data:") for address in page.addresses)


def test_finer_regions_have_a_part_of_their_own() -> None:
    finer = KneeChain(a_request(finer=True)).run()
    page = html_report(finer)
    before, _, after = page.partition("<h2>Finer regions</h2>")
    assert "Central lateral tibial cartilage" in after and "Central lateral tibial cartilage" not in before
    assert "Area (mm²)" in before and page.count("<svg") == 2


def test_names_cannot_break_the_page(result: KneeResult) -> None:
    report = html_report(result)
    assert "<b>Knie" not in report and "&lt;b&gt;Knie &amp; Co" in report


def test_what_is_missing_and_why_there_are_no_pictures_is_said(result: KneeResult) -> None:
    lacking = KneeChain(a_request(label_map=without(a_label_map(), Tissue.PATELLA))).run()
    text = " ".join(read(html_report(replace(lacking, report=Report(no_pictures="No way to draw <here>.")))).text)
    assert (
        "The segmentation lacks: patella." in text and "patellar cartilage" in text and "No way to draw <here>." in text
    )


def test_values_are_rounded_to_what_their_unit_deserves() -> None:
    assert [cell_text("mean_mm", 1.2345), cell_text("volume_mm3", 99.6), cell_text("t2_mean_ms", 40.04)] == [
        "1.23", "100", "40.0",
    ]  # fmt: skip
    assert cell_text("t2_mean_ms", float("nan")) == "–" and cell_text("region", "a") == "a"


def test_pictures_show_each_bone_from_six_views(result: KneeResult) -> None:
    from PIL import Image

    drawn = draw_pictures(result.bones, "right", Context())
    assert drawn.titles == ("Femur", "Tibia", "Patella") and len(drawn.pictures) == 3
    picture = np.asarray(Image.open(io.BytesIO(drawn.pictures[0].tobytes())))
    assert picture.shape[0] > 600 and picture.shape[1] > 1000
    panels = [
        picture[row * 340 + 40 : row * 340 + 300, column * 340 + 20 : column * 340 + 320]
        for row in (0, 1)
        for column in range(3)
    ]
    assert all((panel < 250).any(axis=2).mean() > 0.1 for panel in panels)  # a bone in each
    page = html_report(replace(result, report=drawn))
    assert page.count("data:image/png;base64,") == 3 and "from six views" in page


def test_the_views_of_a_left_knee_are_named_the_other_way_round() -> None:
    right, left, unknown = ([view.title for view in views(side)] for side in ("right", "left", ""))
    assert (
        right[2:4] == ["Lateral", "Medial"] and left[2:4] == ["Medial", "Lateral"] and unknown[2:4] == ["Right", "Left"]
    )


def test_colours_tell_thick_thin_denuded_and_bare(result: KneeResult) -> None:
    bone = result.bones[0]
    thickness = np.zeros(len(bone.mesh), np.float32)
    thickness[:2] = 0.5, 4.0
    labels = np.zeros(len(bone.mesh), np.uint8)
    labels[:3] = 11
    colors = point_colors(replace(bone, thickness_mm=thickness, labels=labels))
    assert len({tuple(color) for color in colors[:4].tolist()}) == 4
    assert tuple(colors[1]) == (0xFD, 0xE7, 0x25)


def test_nothing_measured_needs_no_pictures() -> None:
    assert draw_pictures((), "", Context()).no_pictures


def test_drawing_can_be_cancelled(result: KneeResult) -> None:
    asked: list[int] = []

    def is_cancelled() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Cancelled):
        draw_pictures(result.bones, "right", Context(is_cancelled=is_cancelled))
