"""A document as a PDF file (reportlab): the same pages from Slicer and from the command line, byte for byte."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import (
    BaseDocTemplate,
    CondPageBreak,
    Flowable,
    Frame,
    Image,
    LongTable,
    PageTemplate,
    Paragraph,
    Spacer,
)
from reportlab.platypus import Table as Grid

from CTReportLib.document import Block, Document, Emphasis, Facts, Gallery, Line, Passage, Row, Table
from CTReportLib.keyimages import KeyImage
from CTReportLib.pdf_fonts import REPLACEMENT, Fonts, document_fonts

_MARGIN, _HEAD = 16 * mm, 20 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_PICTURE = (_WIDTH / 2 - 4 * mm, 78 * mm)
_INK, _QUIET, _LINE = HexColor("#22262b"), HexColor("#55606b"), HexColor("#c9d0d7")
_LINK, _STRUCK, _WARN, _WARN_EDGE = HexColor("#0b57a4"), HexColor("#8a2f2f"), HexColor("#fff4e0"), HexColor("#b36b00")
_SHORT_TITLE = 48
_REPLACED = f"Letters that no font of this machine has are replaced by '{REPLACEMENT}' in this file."


def pdf_bytes(document: Document, fonts: Fonts | None = None) -> bytes:
    """The document as a PDF file; the same document and fonts give the same bytes.

    Parameters
    ----------
    document : Document
    fonts : Fonts, optional
        Those of this machine where not given.
    """
    fonts = fonts or document_fonts()
    list(_Writer(document, fonts, pages=0).story())  # which letters are missing
    _, pages = _Writer(document, fonts, pages=0).write()
    content, _ = _Writer(document, fonts, pages=pages).write()
    return content


class _Writer:
    """Lays one document out; once to count its pages, once with their number."""

    def __init__(self, document: Document, fonts: Fonts, *, pages: int) -> None:
        self.document = document
        self.fonts = fonts
        self.pages = pages
        self.styles = _styles(fonts)

    def write(self) -> tuple[bytes, int]:
        """The file, and how many pages it has."""
        stream = io.BytesIO()
        template = _Template(
            stream,
            pagesize=A4,
            title=self.document.title,
            author=self.document.creator,
            creator=self.document.creator,
            subject=self.document.running,
            lang="en",
            invariant=1,
            displayDocTitle=True,
        )
        frame = Frame(_MARGIN, _HEAD, _WIDTH, A4[1] - 2 * _HEAD, 0, 0, 0, 0)
        template.addPageTemplates(PageTemplate("page", [frame], onPage=self._page))
        template.build(list(self.story()))
        return stream.getvalue(), template.page

    def _page(self, canvas: Any, template: Any) -> None:
        """Header and footer."""
        title = self.document.title
        short = title if len(title) <= _SHORT_TITLE else f"{title[: _SHORT_TITLE - 1]}…"
        number = f"Research use only. Page {canvas.getPageNumber()} of {self.pages}"
        self._line(canvas, self.document.running, "center", A4[1] - _HEAD + 5 * mm, _MARGIN, _WIDTH)
        self._line(canvas, short, "left", _HEAD - 9 * mm, _MARGIN, 0.62 * _WIDTH)
        self._line(canvas, number, "right", _HEAD - 9 * mm, _MARGIN + 0.62 * _WIDTH, 0.38 * _WIDTH)
        canvas.setStrokeColor(_LINE)
        for y in (A4[1] - _HEAD + 3 * mm, _HEAD - 3 * mm):
            canvas.line(_MARGIN, y, A4[0] - _MARGIN, y)

    def _line(self, canvas: Any, text: str, align: str, y: float, x: float, width: float) -> None:
        paragraph = Paragraph(self.fonts.markup(text), self.styles[align])
        _, height = paragraph.wrapOn(canvas, width, _HEAD)
        paragraph.drawOn(canvas, x, y - (height - self.styles[align].leading))

    def story(self) -> Iterator[Flowable]:
        """What is on the pages, in order."""
        yield self._paragraph(self.document.title, "title")
        notices = (self.document.use, *self.document.notices, *([_REPLACED] if self.fonts.replaced else ()))
        yield self._boxed(notices)
        for block in self.document.blocks:
            yield from self._block(block)
        yield Spacer(1, 5 * mm)
        yield self._boxed((self.document.use,))

    def _block(self, block: Block) -> Iterator[Flowable]:
        yield CondPageBreak(30 * mm)
        yield self._paragraph(block.title, "heading")
        if isinstance(block, Passage):
            yield from (self._sentence(line, struck=block.struck) for line in block.lines)
            return
        if isinstance(block, Gallery | Table) and block.note:
            yield self._paragraph(block.note, "small")
        if isinstance(block, Gallery):
            yield from self._pictures(block.pictures)
        elif isinstance(block, Table):
            yield self._table(block)
        else:
            yield from self._facts(block)

    def _paragraph(self, text: str, style: str) -> Paragraph:
        return Paragraph(
            self.fonts.markup(text, bold=style in ("title", "heading", "strong", "head")), self.styles[style]
        )

    def _boxed(self, texts: Iterable[str]) -> Flowable:
        edge = [("BACKGROUND", (0, 0), (-1, -1), _WARN), ("LINEBEFORE", (0, 0), (0, -1), 2.5, _WARN_EDGE)]
        rows = [[self._paragraph(text, "strong")] for text in texts]
        return Grid(rows, colWidths=[_WIDTH], style=[*edge, ("LEFTPADDING", (0, 0), (-1, -1), 8)], hAlign="LEFT")

    def _sentence(self, line: Line, *, struck: bool) -> Paragraph:
        text = self.fonts.markup(line.text)
        if struck:
            text = f'<font color="{_STRUCK.hexval()}"><strike>{text}</strike></font>'
        marks = " ".join(
            f'<a href="#{mark.anchor}" color="{_LINK.hexval()}">[{mark.number}]</a>' for mark in line.marks
        )
        note = f' <font color="{_QUIET.hexval()}" size="8">({self.fonts.markup(line.note)})</font>' if line.note else ""
        return Paragraph(text + (f" <super size='7'>{marks}</super>" if marks else "") + note, self.styles["item"], "•")

    def _pictures(self, pictures: tuple[KeyImage, ...]) -> Iterator[Flowable]:
        for start in range(0, len(pictures), 2):
            row = [self._picture(one) for one in pictures[start : start + 2]]
            row += [[]] * (2 - len(row))
            yield Grid([row], colWidths=[_WIDTH / 2] * 2, style=[("VALIGN", (0, 0), (-1, -1), "TOP"), *_no_padding()])

    def _picture(self, picture: KeyImage) -> list[Flowable]:
        width, height = picture.fitted(*_PICTURE)
        image = Image(io.BytesIO(picture.png.tobytes()), width, height, hAlign="LEFT")
        return [image, self._paragraph(picture.title, "small"), Spacer(1, 3 * mm)]

    def _table(self, table: Table) -> Flowable:
        head = [self._paragraph(name, "head") for name in table.columns]
        body = [self._row(row) for row in table.rows]
        style = [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LINEBELOW", (0, 0), (-1, 0), 0.8, _QUIET),
            ("LINEBELOW", (0, 1), (-1, -1), 0.3, _LINE),
            *((f"{side}PADDING", (0, 0), (-1, -1), 2.5) for side in ("LEFT", "RIGHT", "TOP", "BOTTOM")),
        ]
        widths = [share * _WIDTH for share in table.widths]
        return LongTable([head, *body], colWidths=widths, repeatRows=1, splitInRow=1, style=style, hAlign="LEFT")

    def _row(self, row: Row) -> list[Paragraph]:
        """The last cell, which says why, is never bold: it is the longest."""
        bold = [row.emphasis is Emphasis.PRESENT] * (len(row.cells) - 1) + [False]
        plain = "cell_quiet" if row.emphasis is Emphasis.OPEN else "cell"
        texts = [self.fonts.markup(cell, bold=strong) for cell, strong in zip(row.cells, bold, strict=True)]
        if row.anchor:
            texts[0] = f'<a name="{row.anchor}"/>{texts[0]}'
        styles = [self.styles["cell_strong" if strong else plain] for strong in bold]
        return [Paragraph(text, style) for text, style in zip(texts, styles, strict=True)]

    def _facts(self, facts: Facts) -> Iterator[Flowable]:
        for key, value in facts.items:
            yield Paragraph(f"{self.fonts.markup(key)}: {self.fonts.markup(value)}", self.styles["fact"])


class _Template(BaseDocTemplate):
    """Puts headings among the bookmarks of the file."""

    _headings = 0

    def afterFlowable(self, flowable: Flowable) -> None:  # noqa: N802 (reportlab's name)
        if isinstance(flowable, Paragraph) and flowable.style.name == "heading":
            self._headings += 1
            key = f"part-{self._headings}"
            self.canv.bookmarkPage(key)
            self.canv.addOutlineEntry(flowable.getPlainText(), key)


def _no_padding() -> list[tuple[str, tuple[int, int], tuple[int, int], float]]:
    return [(f"{side}PADDING", (0, 0), (-1, -1), 0) for side in ("LEFT", "RIGHT", "TOP", "BOTTOM")]


def _styles(fonts: Fonts) -> dict[str, ParagraphStyle]:
    plain, bold = fonts.main.regular, fonts.main.bold
    base = ParagraphStyle("base", fontName=plain, fontSize=9.5, leading=13, textColor=_INK)
    cell = ParagraphStyle("cell", base, fontSize=7.2, leading=9)
    line = ParagraphStyle("line", base, fontSize=7, leading=8.5, textColor=_QUIET)
    styles = (
        ParagraphStyle("title", base, fontName=bold, fontSize=17, leading=21, spaceAfter=3 * mm),
        ParagraphStyle("heading", base, fontName=bold, fontSize=11.5, leading=15, spaceBefore=4 * mm, spaceAfter=1 * mm,
                       keepWithNext=1),
        ParagraphStyle("strong", base, fontName=bold, fontSize=9, leading=12),
        ParagraphStyle("item", base, leftIndent=4.5 * mm, bulletIndent=0.5 * mm, bulletFontSize=8, bulletFontName=plain,
                       spaceAfter=0.6 * mm),
        ParagraphStyle("small", base, fontSize=8, leading=10.5, textColor=_QUIET, spaceAfter=1.5 * mm, keepWithNext=1),
        ParagraphStyle("fact", base, fontSize=8, leading=10.5, textColor=_QUIET, leftIndent=4 * mm,
                       firstLineIndent=-4 * mm),
        ParagraphStyle("head", cell, fontName=bold),
        cell,
        ParagraphStyle("cell_strong", cell, fontName=bold),
        ParagraphStyle("cell_quiet", cell, textColor=_QUIET),
        ParagraphStyle("left", line),
        ParagraphStyle("center", line, alignment=1),
        ParagraphStyle("right", line, alignment=2),
    )  # fmt: skip
    return {style.name: style for style in styles}
