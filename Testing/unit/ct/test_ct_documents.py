"""The report as files for people: the same content in every format, its use on each, whatever letters are in it."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_results import ADDED, EDIT, EDITED, STRUCK, a_picture, a_written_result, some_masks

from CTReportLib.document import Document, Facts, Gallery, Passage, Table, document_of, writable_text
from CTReportLib.documents import KINDS, export, file_name
from CTReportLib.exports import safe_name
from CTReportLib.label_nifti import flattened
from CTReportLib.measurement import Measurement
from CTReportLib.reporthtml import _STYLE, html_report
from CTReportLib.request import RESEARCH_USE, ReportResult
from MedAILib.errors import InputError, MissingPackage, OutputError
from MedAILib.imageio import read_label_map, read_volume
from MedAILib.volume import Geometry

FILES = ("txt", "json", "html", "pdf", "docx", "nii")
FOR_PEOPLE = ("html", "pdf", "docx")
PACKAGES = {"pdf": "reportlab", "docx": "docx"}
INCOMPLETE = "This report is not complete."
EVERY_SCRIPT = "Ärzte Łódź Ελλάδα Москва 漢字 한국 עברית العربية हिन्दी ไทย 😀 ﬁ ½ ²"


@pytest.fixture
def result() -> ReportResult:
    return a_written_result()


def needs(kind: str) -> None:
    if importlib.util.find_spec(PACKAGES.get(kind, "json")) is None:
        pytest.skip(f"{PACKAGES[kind]} is not installed")


def shown(path: Path) -> str:
    """What a reader of a file sees, spaces made one; of a PDF only where it is written with the built-in fonts."""
    content = path.read_bytes()
    if path.suffix == ".html":
        page = Page()
        page.feed(content.decode("utf-8"))
        text = " ".join(page.text)
    elif path.suffix == ".docx":
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            names = [name for name in parts.namelist() if re.match(r"word/(document|header|footer)\d*\.xml", name)]
            text = " ".join(_xml_text(parts.read(name).decode("utf-8")) for name in names)
    else:
        text = " ".join(pdf_pages(content)) if path.suffix == ".pdf" else content.decode("utf-8")
    return " ".join(text.split())


def pdf_pages(content: bytes) -> list[str]:
    """The texts drawn on each page of one of our PDF files."""
    pages = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", content, re.S):
        try:
            drawn = zlib.decompress(base64.a85decode(stream.strip(), adobe=False)
                                    if not stream.strip().endswith(b"~>") else
                                    base64.a85decode(b"<~" + stream.strip(), adobe=True))  # fmt: skip
        except (ValueError, zlib.error):
            continue
        if b" Tf " not in drawn:
            continue
        words = re.findall(rb"\(((?:\\.|[^\\)])*)\) Tj", drawn)
        pages.append(" ".join(_unescaped(word) for word in words))
    return pages


def _unescaped(word: bytes) -> str:
    plain = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), word)
    return re.sub(rb"\\(.)", rb"\1", plain).decode("cp1252")


def _xml_text(xml: str) -> str:
    import html

    runs = re.sub(r"</w:p>", " ", xml)
    return html.unescape(re.sub(r"<[^>]*>", "", runs))


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what is to be checked."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.text.append(data)

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attrs in self.tags for key, value in attrs.items() if key == name]


def page_of(result: ReportResult) -> Page:
    page = Page()
    page.feed(html_report(result))
    assert page.open == []
    return page


def told(document: Document) -> Iterator[str]:
    """Every text that a reader has to see."""
    yield from (document.title, document.use, *document.notices)
    for block in document.blocks:
        yield block.title
        if isinstance(block, Passage):
            yield from (part for line in block.lines for part in (line.text, line.note) if part)
        elif isinstance(block, Gallery):
            yield from (block.note, *(picture.title for picture in block.pictures))
        elif isinstance(block, Table):
            yield from (block.note, *block.columns, *(cell for row in block.rows for cell in row.cells))
        elif isinstance(block, Facts):
            yield from (part for pair in block.items for part in pair)


@pytest.fixture
def plain_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """PDF files with the built-in fonts only, whose letters can be read back."""
    needs("pdf")
    from CTReportLib import document_pdf, pdf_fonts

    monkeypatch.setattr(document_pdf, "document_fonts", lambda: pdf_fonts.Fonts((pdf_fonts.BUILT_IN,)))


# all formats


@pytest.mark.parametrize("kind", FILES)
def test_each_format_is_written_under_its_usual_name_and_says_research_use(kind, result, tmp_path, plain_fonts) -> None:
    needs(kind)
    path = export(result, kind, tmp_path)
    assert path == tmp_path / file_name(result, kind)
    assert path.name == f"Müller_1_漢{KINDS[kind].ending}"
    if kind == "nii":
        assert RESEARCH_USE in (tmp_path / "Müller_1_漢_localization.json").read_text(encoding="utf-8")
    else:
        assert RESEARCH_USE in shown(path)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize("kind", FOR_PEOPLE)
def test_every_format_for_people_shows_all_of_the_document(kind: str, tmp_path, plain_fonts) -> None:
    needs(kind)
    result = a_written_result(name="latin <&> ä")
    seen = shown(export(result, kind, tmp_path)).replace(" ", "")
    for text in told(document_of(result)):
        text = text.replace("漢", "?") if kind == "pdf" else text
        assert text.replace(" ", "") in seen, text


@pytest.mark.parametrize("kind", ("txt", *FOR_PEOPLE))
def test_a_part_of_a_report_says_so_and_a_whole_one_does_not(kind: str, result, tmp_path, plain_fonts) -> None:
    needs(kind)
    for complete in (True, False):
        seen = shown(export(replace(result, complete=complete), kind, tmp_path / f"{complete}")).lower()
        assert (INCOMPLETE.lower() in seen) is not complete
    assert json.loads(export(replace(result, complete=False), "json", tmp_path).read_bytes())["complete"] is False


@pytest.mark.parametrize("kind", ("txt", *FOR_PEOPLE))
def test_what_people_edited_is_marked_and_listed(kind: str, result, tmp_path, plain_fonts) -> None:
    needs(kind)
    seen = shown(export(result, kind, tmp_path))
    assert f"{EDITED.text} (edited by a person; not judged)" in re.sub(r" ?\[\d+\]", "", seen)
    assert all(part in seen for part in (EDIT.when, EDIT.who, EDIT.before, EDIT.after))
    assert "this report was edited by people: 1 change, listed below." in seen.lower()
    untouched = shown(export(replace(result, edits=()), kind, tmp_path))
    assert "edited by people" not in untouched.lower()


def test_a_warning_that_no_sentence_says_is_a_remark_and_one_that_is_said_is_not_repeated(result, tmp_path) -> None:
    for kind in ("txt", "html"):
        seen = shown(export(result, kind, tmp_path))
        assert seen.count("A warning that no sentence says.") == 1 and seen.count("CT of the chest.") == 1


def test_findings_alone_are_written_as_text_too(result, tmp_path) -> None:
    seen = shown(export(replace(result, sections=()), "txt", tmp_path))
    assert "- Pleural effusion: present. lower third, left - A rule of 20 ml. It may be more." in seen
    assert seen.count(": not judged.") > 10


def test_json_lists_the_edits_and_the_verdicts(result, tmp_path) -> None:
    read = json.loads(export(result, "json", tmp_path).read_bytes())
    assert read["edits"] == [{field.name: getattr(EDIT, field.name) for field in fields(EDIT)}]
    verdicts = {one["text"]: one["verdict"] for section in read["report"] for one in section["sentences"]}
    assert verdicts[EDITED.text] == "edited by a person"
    assert (verdicts[STRUCK.text], verdicts[ADDED.text]) == ("struck", "added")


@pytest.mark.parametrize("kind", ("html", "pdf", "docx", "txt", "json"))
def test_the_same_report_gives_the_same_bytes(kind: str, result, tmp_path) -> None:
    needs(kind)
    first = export(result, kind, tmp_path / "a").read_bytes()
    assert export(a_written_result(), kind, tmp_path / "b").read_bytes() == first


TEXTS = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(
    [
        "\x00\x1b\ud800",
        "</p><script>",
        "<a name='x'/>",
        "&amp;&#0;",
        "%s %(x)s {0}",
        "a" * 400,
        "\u202eabc\u200f",
        "\n\r\t",
    ]
)


@settings(max_examples=12)
@given(name=TEXTS, sentence=TEXTS, cell=TEXTS)
def test_no_letters_break_any_format(
    name: str, sentence: str, cell: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("letters")
    result = a_written_result(name=name, warnings=(sentence,), pictures=(a_picture(cell),), provenance={cell: sentence})
    measured = (Measurement("", cell, 1.0, "ml", sentence), *result.measurements)
    for kind in FILES:
        if importlib.util.find_spec(PACKAGES.get(kind, "json")) is not None:
            path = export(replace(result, measurements=measured), kind, folder)
            assert path.stat().st_size > 0 and path.parent == folder
    page_of(replace(result, measurements=measured))


def test_what_no_file_can_hold_is_replaced_and_line_breaks_stay() -> None:
    assert writable_text("a\x00b\ud800c\n\td\x9b") == "a�b�c\n\td�"
    assert writable_text(EVERY_SCRIPT) == EVERY_SCRIPT


# where to, and what is missing


def test_a_missing_ending_is_added_and_another_one_of_the_format_kept(result, tmp_path) -> None:
    assert export(result, "html", tmp_path / "report").name == "report.html"
    assert export(result, "html", tmp_path / "x.HTM").name == "x.HTM"
    assert export(result, "nii", tmp_path / "labels.nii").name == "labels.nii"
    assert export(result, "txt", tmp_path / "v1.2").name == "v1.2.txt"


def test_an_unknown_format_and_a_place_that_cannot_be_written_are_errors(result, tmp_path) -> None:
    with pytest.raises(InputError, match="The formats are: txt, json, html, pdf, docx, sr, seg, nii"):
        export(result, "rtf", tmp_path)
    for kind in FILES:
        if importlib.util.find_spec(PACKAGES.get(kind, "json")) is not None:
            with pytest.raises(OutputError):
                export(result, kind, tmp_path / "nowhere" / f"x{KINDS[kind].suffixes[0]}")
    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written_leaves_the_old_file(result, tmp_path, monkeypatch) -> None:
    path = export(result, "nii", tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr("CTReportLib.label_nifti.write_nifti", _full_disk)
    with pytest.raises(OutputError, match="disk is full"):
        export(a_written_result(masks=some_masks(result.masks.geometry, seed=2)), "nii", path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def _full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(kind: str, result, tmp_path, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, f"CTReportLib.document_{kind}", raising=False)
    monkeypatch.delitem(sys.modules, "CTReportLib.pdf_fonts", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGES[kind]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, PACKAGES[kind], None)
    with pytest.raises(MissingPackage, match=rf"{KINDS[kind].package}.*slicer-medai\[ct\]"):
        export(result, kind, tmp_path)
    assert not list(tmp_path.iterdir())


def test_opening_the_exports_loads_none_of_their_packages() -> None:
    import subprocess

    heavy = ("reportlab", "docx", "highdicom", "pydicom")
    code = f"import sys, CTReportLib.documents; print([n for n in {heavy} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_path())
    assert run.stdout.strip() == "[]"


def _path() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_names_of_files_are_short_enough_and_differ_where_the_whole_names_do() -> None:
    first, second = (safe_name("漢" * 300 + end) for end in "ab")
    assert first != second and max(len(name.encode("utf-8")) for name in (first, second)) < 140
    assert (safe_name("../a b/ü"), safe_name("..."), safe_name("x\ud800")) == ("a_b_ü", "ct", "x")


# the label map


def test_the_nifti_holds_every_segment_with_small_ones_over_large_ones_and_says_so(result, tmp_path) -> None:
    path = export(result, "nii", tmp_path)
    values = read_volume(path).array
    beside = json.loads((tmp_path / "Müller_1_漢_localization.json").read_text(encoding="utf-8"))
    masks = {info.id: result.masks.mask(info.id) for info in result.masks.segments}
    assert [label["value"] for label in beside["labels"]] == list(range(1, len(masks) + 1))
    smaller = np.zeros(values.shape, bool)
    for label in sorted(beside["labels"], key=lambda label: label["voxels"]):
        mask = masks[label["id"]]
        assert label["voxels"] == mask.sum()
        assert np.array_equal(values == label["value"], mask & ~smaller)
        assert label["hidden_voxels"] == (mask & smaller).sum()
        smaller |= mask
    assert "smaller one is shown" in beside["overlaps"]
    assert {label["finding"] for label in beside["labels"]} >= {"", "lung_nodule"}
    assert np.array_equal(read_label_map(path).layers[0], values)
    header = __import__("gzip").decompress(path.read_bytes())[:352]
    assert b"Research use only" in header[148:228]


def test_many_segments_need_wider_labels() -> None:
    masks = some_masks(Geometry((2, 2, 2), np.eye(4)))
    many = replace(masks, segments=tuple(replace(masks.segments[0], id=f"s{n}") for n in range(300)))
    flat, labels = flattened(many)
    assert (flat.dtype, len(labels)) == (np.uint16, 300)


def test_without_segments_there_is_no_label_map(result, tmp_path) -> None:
    with pytest.raises(InputError, match="Nothing was localised"):
        export(replace(result, masks=None), "nii", tmp_path)


# HTML


def test_the_page_fetches_nothing_and_runs_nothing(result) -> None:
    page = page_of(result)
    assert all(
        address.startswith(("#", "data:image/png;base64,"))
        for name in ("href", "src")
        for address in page.attributes(name)
    )
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert "url(" not in _STYLE and "@import" not in _STYLE
    (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_the_page_can_be_read_aloud(result) -> None:
    page = page_of(result)
    assert dict(page.tags)["html"] == {"lang": "en"}
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert all(attrs.get("scope") == "col" for tag, attrs in page.tags if tag == "th")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and set(levels[1:]) == {2}
    assert {"main", "header", "footer"} <= {tag for tag, _ in page.tags}


def test_every_mark_leads_to_a_row(result) -> None:
    page = page_of(result)
    ids = page.attributes("id")
    links = page.attributes("href")
    assert len(ids) == len(set(ids)) == 18
    assert links and {address[1:] for address in links} <= set(ids)


def test_colours_can_be_told_from_their_ground() -> None:
    ink = re.findall(r"[ {;]color: (#[0-9a-f]{6})", _STYLE)
    for colour in ink:
        for ground in ("#ffffff", "#fff4e0", "#fdf3c8"):
            assert contrast(colour, ground) >= 4.5, (colour, ground)
    assert len(ink) >= 4


def contrast(first: str, second: str) -> float:
    """Ratio of luminances (WCAG 2)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
