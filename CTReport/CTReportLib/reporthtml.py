"""The report for people: one HTML file in which every sentence leads to what it rests on; nothing is fetched."""

from __future__ import annotations

import base64
import html

from CTReportLib.document import Block, Document, Emphasis, Facts, Gallery, Line, Passage, Row, Table, document_of
from CTReportLib.request import ReportResult

_NOTHING_FETCHED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22262b; background: #fff; max-width: 1100px;
  margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; line-height: 1.2; margin: 0 0 .4em; overflow-wrap: anywhere; }
h2 { font-size: 1.15em; margin: 1.6em 0 .3em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .6em; text-align: left; border-bottom: 1px solid #dfe3e8; vertical-align: top; }
td { overflow-wrap: break-word; } th:last-child { min-width: 15em; }
ul { margin: .2em 0; } sup a { text-decoration: none; } a { color: #0b57a4; }
.use { background: #fff4e0; border-left: 4px solid #b36b00; padding: .5em 1em; margin: .5em 0; }
.present td:not(:last-child) { font-weight: 600; }
.open, .small, figcaption { color: #55606b; } .small, figcaption { font-size: .9em; }
del { color: #8a2f2f; } :target { background: #fdf3c8; } div.wide { overflow-x: auto; }
div.pictures { display: flex; flex-wrap: wrap; gap: 1em; } figure { margin: 0; max-width: 330px; }
img { max-width: 100%; height: auto; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .1em 1em; }
dt, dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; } div.wide { overflow: visible; }
  h2 { break-after: avoid; } tr, figure, li { break-inside: avoid; } thead { display: table-header-group; } }
"""
_PAGES = """@page { margin: 18mm 14mm; @top-center { content: "%s"; font: 8pt sans-serif; }
  @bottom-right { content: "Page " counter(page) " of " counter(pages); font: 8pt sans-serif; } }
"""


def html_report(result: ReportResult) -> str:
    """The report as one HTML document."""
    return page_of(document_of(result))


def page_of(document: Document) -> str:
    """A document as one HTML page, without scripts and without anything to load."""
    use = f'<p class="use"><b>{_text(document.use)}</b></p>'
    notices = "\n".join(f'<p class="use" role="note"><b>{_text(notice)}</b></p>' for notice in document.notices)
    parts = (f"<header>\n<h1>{_text(document.title)}</h1>", use, notices, "</header>\n<main>")
    body = "\n".join(
        part for part in (*parts, *map(_block, document.blocks), f"</main>\n<footer>{use}</footer>") if part
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FETCHED}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="{_text(document.creator)}"><title>{_text(document.title)}</title>'
        f"<style>{_STYLE}{_PAGES % document.running}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _block(block: Block) -> str:
    heading = f"<h2>{_text(block.title)}</h2>"
    if isinstance(block, Passage):
        items = "".join(f"<li>{_line(line, struck=block.struck)}</li>" for line in block.lines)
        return f"<section>{heading}<ul>{items}</ul></section>"
    if isinstance(block, Gallery):
        return f"<section>{heading}{_note(block.note)}{_pictures(block)}</section>"
    if isinstance(block, Table):
        return f"<section>{heading}{_note(block.note)}{_table(block)}</section>"
    return f"<section>{heading}{_facts(block)}</section>"


def _line(line: Line, *, struck: bool) -> str:
    text = f"<del>{_text(line.text)}</del>" if struck else _text(line.text)
    marks = " ".join(
        f'<a href="#{_text(mark.anchor)}" aria-label="evidence, row {mark.number}">[{mark.number}]</a>'
        for mark in line.marks
    )
    note = f' <span class="small">({_text(line.note)})</span>' if line.note else ""
    return f"{text}{f'<sup>{marks}</sup>' if marks else ''}{note}"


def _note(text: str) -> str:
    return f'<p class="small">{_text(text)}</p>'


def _pictures(gallery: Gallery) -> str:
    figures = "".join(
        f'<figure><img alt="Slice of the CT: {_text(one.title)}" src="data:image/png;base64,'
        f'{base64.b64encode(one.png.tobytes()).decode("ascii")}"><figcaption>{_text(one.title)}</figcaption></figure>'
        for one in gallery.pictures
    )
    return f'<div class="pictures">{figures}</div>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in table.columns)
    body = "".join(map(_row, table.rows))
    region = f'<div class="wide" role="region" aria-label="{_text(table.title)}" tabindex="0">'
    return f"{region}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _row(row: Row) -> str:
    anchor = f' id="{_text(row.anchor)}"' if row.anchor else ""
    kind = "" if row.emphasis is Emphasis.PLAIN else f' class="{row.emphasis.value}"'
    return f"<tr{anchor}{kind}>{''.join(f'<td>{_text(cell)}</td>' for cell in row.cells)}</tr>"


def _facts(facts: Facts) -> str:
    items = "".join(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in facts.items)
    return f'<dl class="small">{items}</dl>'


def _text(value: str) -> str:
    return html.escape(value)
