"""PDF and Word: header and footer on every page, tables that break, links, letters of every script."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace

import pytest
from written_results import a_picture, a_written_result

from CTReportLib.document import Document, Emphasis, Row, Table, document_of
from CTReportLib.measurement import Measurement
from CTReportLib.request import RESEARCH_USE

pytest.importorskip("reportlab", reason="reportlab is not installed")
docx = pytest.importorskip("docx", reason="python-docx is not installed")
from test_ct_documents import EVERY_SCRIPT, INCOMPLETE, pdf_pages  # noqa: E402

from CTReportLib.document_docx import docx_bytes  # noqa: E402
from CTReportLib.document_pdf import pdf_bytes  # noqa: E402
from CTReportLib.pdf_fonts import BUILT_IN, Fonts, document_fonts  # noqa: E402


def plain_pdf(document: Document) -> bytes:
    """With the built-in fonts, whose letters can be read back."""
    return pdf_bytes(document, Fonts((BUILT_IN,)))


def a_long_document(rows: int = 150) -> Document:
    measured = tuple(
        Measurement("", f"Quantity {n}", float(n), "ml", "A rule that goes on and on.") for n in range(rows)
    )
    return document_of(a_written_result(name="long", measurements=measured))


# PDF


def test_every_page_says_its_use_and_its_number() -> None:
    for complete in (True, False):
        document = document_of(a_written_result(name="n", complete=complete))
        pages = pdf_pages(plain_pdf(document))
        assert len(pages) >= 2
        for number, text in enumerate(pages, start=1):
            assert RESEARCH_USE in text
            assert f"Research use only. Page {number} of {len(pages)}" in text
            assert (INCOMPLETE in text) is not complete


def test_a_table_breaks_over_pages_and_each_has_its_head() -> None:
    pages = pdf_pages(plain_pdf(a_long_document()))
    with_rows = [text for text in pages if re.search(r"Quantity \d", text)]
    assert len(with_rows) >= 3
    assert all("Quantity Value Place Rule Limits" in text for text in with_rows)
    assert {int(n) for text in with_rows for n in re.findall(r"Quantity (\d+)", text)} == set(range(150))


def test_a_cell_longer_than_a_page_is_split() -> None:
    endless = Measurement("", "Endless", 1.0, "ml", "word " * 4000, limits="x" * 3000)
    pages = pdf_pages(plain_pdf(document_of(a_written_result(name="n", measurements=(endless,)))))
    assert sum(text.count("word") for text in pages) == 4000


def test_pictures_of_every_shape_fit_and_none_is_lost() -> None:
    shapes = ((10, 900), (900, 10), (1, 1), (300, 300), (2000, 1500))
    pictures = tuple(a_picture(f"{shape}", shape, grey=n) for n, shape in enumerate(shapes))
    content = plain_pdf(document_of(a_written_result(pictures=pictures)))
    assert len(set(re.findall(rb"/Width (\d+)", content))) == len({width for width, _ in shapes})


def test_the_file_says_what_it_is_and_its_marks_lead_to_rows() -> None:
    content = plain_pdf(document_of(a_written_result(name="A name")))
    assert b"/Title (Chest CT: A name)" in content and b"/Creator (MedAI CTReport 9.9)" in content
    assert b"/Lang (en)" in content and b"/DisplayDocTitle true" in content
    assert len(re.findall(rb"/Dest \[ \d+ 0 R /XYZ [^\]]*\][^>]*/Subtype /Link", content)) > 15
    assert b"2026" not in content.replace(b"2026-11-21T10:00:00Z", b""), "no date of its own"
    assert b"/Outlines" in content and b"(Finding table)" in content


def test_letters_of_every_script_are_drawn_or_replaced_and_the_file_says_so() -> None:
    document = document_of(a_written_result(name=EVERY_SCRIPT))
    fonts = document_fonts()
    assert pdf_bytes(document, fonts).startswith(b"%PDF")
    told = fonts.markup("plain text")
    assert told == "plain text"
    plain = Fonts((BUILT_IN,))
    pages = pdf_pages(pdf_bytes(document, plain))
    assert "漢" in plain.replaced and "Ä" not in plain.replaced
    assert "Letters that no font of this machine has are replaced by '?'" in pages[0]
    assert "Ärzte ?ód?" in pages[0]
    latin = pdf_pages(plain_pdf(document_of(a_written_result(name="Ärzte"))))
    assert "Letters that no font" not in pdf_pages(plain_pdf(_latin()))[0], latin[0]


def test_a_second_font_is_taken_for_the_letters_the_first_one_lacks() -> None:
    fonts = document_fonts()
    if fonts.main is BUILT_IN:
        pytest.skip("this machine has no TrueType font that is looked for")
    two = Fonts((BUILT_IN, fonts.main))
    assert two.markup("aΩ<b") == f'a<font name="{fonts.main.regular}">Ω</font>&lt;b'
    assert two.markup("Ω", bold=True) == f'<font name="{fonts.main.bold}">Ω</font>'
    assert not two.replaced


def test_words_that_run_from_the_right_are_drawn_so() -> None:
    fonts = document_fonts()
    if fonts.main is BUILT_IN:
        pytest.skip("this machine has no TrueType font that is looked for")
    assert fonts.markup("Dr. אבג דה, x") == "Dr. הד גבא, x"
    assert fonts.markup("אָב") == "באָ", "a mark stays with its letter"


def _latin() -> Document:
    """A document in which every letter is one of Windows-1252."""
    document = document_of(a_written_result(name="n"))
    table = Table("T", "", ("a",), (1.0,), (Row(("ä ½ –",), "x", Emphasis.PRESENT),))
    return replace(document, blocks=(table,))


# Word


def opened(document: Document) -> docx.document.Document:
    return docx.Document(io.BytesIO(docx_bytes(document)))


def part(document: Document, name: str) -> str:
    with zipfile.ZipFile(io.BytesIO(docx_bytes(document))) as parts:
        return parts.read(name).decode("utf-8")


def test_the_word_file_has_real_headings_lists_and_tables() -> None:
    document = document_of(a_written_result())
    word = opened(document)
    headings = [p.text for p in word.paragraphs if p.style.name == "Heading 1"]
    assert headings == [block.title for block in document.blocks]
    assert [p.text for p in word.paragraphs if p.style.name == "Title"] == [document.title]
    assert sum(p.style.name == "List Bullet" for p in word.paragraphs) > 10
    tables = [block for block in document.blocks if isinstance(block, Table)]
    grids = [table for table in word.tables if table.style.name == "Table Grid"]
    for block, grid in zip(tables, grids, strict=True):
        assert [cell.text for cell in grid.rows[0].cells] == list(block.columns)
        assert len(grid.rows) == len(block.rows) + 1
        assert "w:tblHeader" in grid.rows[0]._tr.xml


def test_header_and_footer_say_its_use_and_the_page() -> None:
    section = opened(document_of(a_written_result(complete=False))).sections[0]
    assert section.header.paragraphs[0].text == f"{INCOMPLETE} {RESEARCH_USE}"
    foot = section.footer._element.xml
    assert "Research use only" in foot and 'w:instr="PAGE"' in foot and 'w:instr="NUMPAGES"' in foot


def test_marks_of_the_word_file_lead_to_bookmarks_and_pictures_have_a_text() -> None:
    body = part(document_of(a_written_result()), "word/document.xml")
    targets, marks = (
        set(re.findall(r'w:bookmarkStart[^>]*w:name="([^"]+)"', body)),
        re.findall(r'w:anchor="([^"]+)"', body),
    )
    assert len(targets) == 18 and marks and set(marks) <= targets
    assert len(set(re.findall(r'w:bookmarkStart w:id="(\d+)"', body))) == 18
    assert re.findall(r'descr="(Slice of the CT: [^"]+)"', body) == [
        f"Slice of the CT: {title}" for title in ("Lungs, axial", "Fluid &amp; more", "Nodule")
    ]


def test_the_word_file_has_a_title_and_no_date() -> None:
    core = part(document_of(a_written_result()), "docProps/core.xml")
    assert "<dc:title>Chest CT: Müller &lt;1&gt; 漢</dc:title>" in core and "MedAI CTReport 9.9" in core
    assert "created" not in core and "modified" not in core


def test_properties_of_the_word_file_stand_in_the_order_of_its_schema() -> None:
    body = part(document_of(a_written_result(complete=False)), "word/document.xml")
    order = {
        "pPr": ("pStyle", "keepNext", "numPr", "shd", "spacing", "ind", "jc", "rPr"),
        "tcPr": ("tcW", "gridSpan", "shd"),
        "rPr": ("rStyle", "rFonts", "b", "strike", "color", "sz", "vertAlign"),
    }
    for name, children in order.items():
        groups = re.findall(rf"<w:{name}>(.*?)</w:{name}>", body, re.S)
        assert groups
        for group in groups:
            found = re.findall(r"<w:(\w+)[ />]", group)
            assert found == sorted(found, key=children.index)
