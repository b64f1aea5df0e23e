"""A document as a Word file (python-docx): real headings, lists and tables, so that it can be worked on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from typing import Any

import docx
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Mm, Pt, RGBColor

from CTReportLib.document import Block, Document, Emphasis, Facts, Gallery, Line, Mark, Passage, Row, Table

_MARGIN, _WIDTH = Mm(16), Mm(210 - 2 * 16)
_PICTURE = (Mm(82), Mm(90))
_QUIET, _LINK, _STRUCK = RGBColor(0x55, 0x60, 0x6B), RGBColor(0x0B, 0x57, 0xA4), RGBColor(0x8A, 0x2F, 0x2F)
_NO_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest a ZIP file can say: the same document gives the same bytes."""


def docx_bytes(document: Document) -> bytes:
    """The document as a Word file; the same document gives the same bytes."""
    writer = _Writer(document)
    writer.write()
    stream = io.BytesIO()
    writer.docx.save(stream)
    return _undated(stream)


class _Writer:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.docx = docx.Document()
        self._bookmarks = 0

    def write(self) -> None:
        """Everything, in order."""
        self._properties()
        self._page()
        self.docx.add_heading(self.document.title, 0)
        for notice in (self.document.use, *self.document.notices):
            self._notice(notice)
        for block in self.document.blocks:
            self._block(block)
        self._notice(self.document.use)

    def _properties(self) -> None:
        known = self.docx.core_properties
        known.title, known.author, known.last_modified_by = self.document.title[:255], self.document.creator, ""
        known.subject, known.comments, known.language = self.document.running, self.document.use, "en"
        for name in ("dcterms:created", "dcterms:modified"):  # those of python-docx's own template
            for element in known._element.findall(qn(name)):
                known._element.remove(element)

    def _page(self) -> None:
        """A4, and header and footer of every page."""
        normal = self.docx.styles["Normal"]
        normal.font.name, normal.font.size = "Calibri", Pt(10.5)
        section = self.docx.sections[0]
        section.page_width, section.page_height = Mm(210), Mm(297)
        section.left_margin = section.right_margin = _MARGIN
        section.top_margin = section.bottom_margin = Mm(20)
        head = section.header.paragraphs[0]
        head.alignment = WD_ALIGN_PARAGRAPH.CENTER
        _small(head.add_run(self.document.running), bold=True)
        foot = section.footer.paragraphs[0]
        foot.alignment = WD_ALIGN_PARAGRAPH.CENTER
        _small(foot.add_run(f"{self.document.title} · Research use only · Page "))
        _field(foot, "PAGE")
        _small(foot.add_run(" of "))
        _field(foot, "NUMPAGES")

    def _notice(self, text: str) -> None:
        paragraph = self.docx.add_paragraph()
        _shaded(paragraph._p.get_or_add_pPr(), "FFF4E0")  # before the spacing: the schema has an order
        paragraph.paragraph_format.space_before = Pt(6)
        paragraph.add_run(text).bold = True

    def _block(self, block: Block) -> None:
        self.docx.add_heading(block.title, 1)
        if isinstance(block, Passage):
            for line in block.lines:
                self._sentence(line, struck=block.struck)
            return
        if isinstance(block, Gallery | Table) and block.note:
            _small(self.docx.add_paragraph().add_run(block.note))
        if isinstance(block, Gallery):
            self._pictures(block)
        elif isinstance(block, Table):
            self._table(block)
        else:
            self._facts(block)

    def _sentence(self, line: Line, *, struck: bool) -> None:
        paragraph = self.docx.add_paragraph(style="List Bullet")
        run = paragraph.add_run(line.text)
        if struck:
            run.font.strike, run.font.color.rgb = True, _STRUCK
        for mark in line.marks:
            _link(paragraph, mark)
        if line.note:
            _small(paragraph.add_run(f" ({line.note})"))

    def _pictures(self, gallery: Gallery) -> None:
        table = self.docx.add_table(rows=0, cols=2)
        for start in range(0, len(gallery.pictures), 2):
            cells = table.add_row().cells
            for cell, picture in zip(cells, gallery.pictures[start : start + 2], strict=False):
                run = cell.paragraphs[0].add_run()
                width, height = picture.fitted(*_PICTURE)
                shape = run.add_picture(io.BytesIO(picture.png.tobytes()), round(width), round(height))
                shape._inline.docPr.set("descr", f"Slice of the CT: {picture.title}")
                _small(cell.add_paragraph().add_run(picture.title))
        _never_split(table.rows)

    def _table(self, table: Table) -> None:
        widths = [round(share * _WIDTH) for share in table.widths]
        grid = self.docx.add_table(rows=1, cols=len(table.columns), style="Table Grid")
        grid.autofit = False
        for column, width in zip(grid.columns, widths, strict=True):
            column.width = width
        for cell, name in zip(grid.rows[0].cells, table.columns, strict=True):
            _cell(cell, name, bold=True)
            _shaded(cell._tc.get_or_add_tcPr(), "E8ECF0")
        repeated = OxmlElement("w:tblHeader")
        grid.rows[0]._tr.get_or_add_trPr().append(repeated)
        for row in table.rows:
            self._row(grid.add_row(), row)
        for line in grid.rows:
            for cell, width in zip(line.cells, widths, strict=True):
                cell.width = width
        _never_split(grid.rows)

    def _row(self, line: Any, row: Row) -> None:
        quiet, bold = row.emphasis is Emphasis.OPEN, row.emphasis is Emphasis.PRESENT
        for index, text in enumerate(row.cells):
            _cell(line.cells[index], text, bold=bold and index + 1 < len(row.cells), quiet=quiet)
        if row.anchor:
            self._bookmarks += 1
            _bookmark(line.cells[0].paragraphs[0], row.anchor, self._bookmarks)

    def _facts(self, facts: Facts) -> None:
        for key, value in facts.items:
            paragraph = self.docx.add_paragraph()
            paragraph.paragraph_format.space_after = Pt(0)
            _small(paragraph.add_run(f"{key}: {value}"))


def _cell(cell: Any, text: str, *, bold: bool = False, quiet: bool = False) -> None:
    run = cell.paragraphs[0].add_run(text)
    run.font.size, run.bold = Pt(7.5), bold
    if quiet:
        run.font.color.rgb = _QUIET


def _small(run: Any, *, bold: bool = False) -> None:
    run.font.size, run.bold, run.font.color.rgb = Pt(8.5), bold, _QUIET


def _field(paragraph: Any, instruction: str) -> None:
    """A number that Word fills in."""
    field = OxmlElement("w:fldSimple")
    field.set(qn("w:instr"), instruction)
    run = paragraph.add_run("1")
    _small(run)
    field.append(run._r)
    paragraph._p.append(field)


def _link(paragraph: Any, mark: Mark) -> None:
    """A raised number that leads to the bookmark of a row."""
    link = OxmlElement("w:hyperlink")
    link.set(qn("w:anchor"), mark.anchor)
    run = paragraph.add_run(f" [{mark.number}]")
    run.font.superscript, run.font.color.rgb = True, _LINK
    link.append(run._r)
    paragraph._p.append(link)


def _bookmark(paragraph: Any, name: str, number: int) -> None:
    start, end = OxmlElement("w:bookmarkStart"), OxmlElement("w:bookmarkEnd")
    for element in (start, end):
        element.set(qn("w:id"), str(number))
    start.set(qn("w:name"), name)
    paragraph._p.insert(1 if paragraph._p.pPr is not None else 0, start)
    paragraph._p.append(end)


def _shaded(properties: Any, color: str) -> None:
    shade = OxmlElement("w:shd")
    for name, value in (("val", "clear"), ("color", "auto"), ("fill", color)):
        shade.set(qn(f"w:{name}"), value)
    properties.append(shade)


def _never_split(rows: Iterable[Any]) -> None:
    for row in rows:
        row._tr.get_or_add_trPr().append(OxmlElement("w:cantSplit"))


def _undated(written: io.BytesIO) -> bytes:
    """The same ZIP file with the same date everywhere."""
    stream = io.BytesIO()
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            info = zipfile.ZipInfo(entry.filename, _NO_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(info, source.read(entry))
    return stream.getvalue()
