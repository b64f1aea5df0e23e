"""The report for people: one HTML file in which every sentence leads to what it rests on; nothing is fetched."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

from CTReportLib.measurement import LABEL, Measurement
from CTReportLib.report import number_text
from CTReportLib.request import RESEARCH_USE, Decision, FindingRow, ReportResult, ReportSection, Sentence, Verdict

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22262b; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { font-size: 1.15em; margin: 1.6em 0 .3em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .6em; text-align: left; border-bottom: 1px solid #dfe3e8; vertical-align: top; }
ul { margin: .2em 0; } sup a { text-decoration: none; }
.use { background: #fff4e0; border-left: 4px solid #e69500; padding: .5em 1em; }
.present { font-weight: 600; } .open { color: #5b6570; } .small { color: #5b6570; font-size: .9em; }
.struck { text-decoration: line-through; color: #8a2f2f; } :target { background: #fdf3c8; }
div.wide { overflow-x: auto; } figcaption { color: #5b6570; font-size: .9em; }
div.pictures { display: flex; flex-wrap: wrap; gap: 1em; } figure { margin: 0; } img { max-width: 330px; height: auto; }
"""


def html_report(result: ReportResult) -> str:
    """The report as one HTML document."""
    parts = [f"<h1>Chest CT: {_text(result.name)}</h1>", _use()]
    if not result.complete:
        parts.append('<p class="use"><b>This report is not complete.</b></p>')
    numbers = {row.finding: number for number, row in enumerate(result.table, start=1)}
    parts += [_section(section, numbers) for section in result.sections]
    parts += [
        _pictures(result),
        "<h2>Finding table</h2>",
        _table(result.table),
        "<h2>Measurements</h2>",
        _measured(result.measurements),
    ]
    parts += [_struck(result.sections), "<h2>How it was made</h2>", _made(result), _use()]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Chest CT: {_text(result.name)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _use() -> str:
    return f'<p class="use"><b>{_text(RESEARCH_USE)}</b></p>'


def _section(section: ReportSection, numbers: dict[str, int]) -> str:
    shown = [sentence for sentence in section.sentences if sentence.shown]
    if not shown:
        return ""
    items = "".join(f"<li>{_text(one.text)}{_links(one, numbers)}</li>" for one in shown)
    return f"<h2>{_text(section.title)}</h2><ul>{items}</ul>"


def _pictures(result: ReportResult) -> str:
    figures = "".join(
        f'<figure><img alt="{_text(one.title)}" src="data:image/png;base64,'
        f'{base64.b64encode(one.png.tobytes()).decode("ascii")}"><figcaption>{_text(one.title)}</figcaption></figure>'
        for one in result.pictures
    )
    note = '<p class="small">The patient\'s right is on the left. Outlined: what was measured.</p>'
    return f'<h2>Key images</h2>{note}<div class="pictures">{figures}</div>' if figures else ""


def _links(sentence: Sentence, numbers: dict[str, int]) -> str:
    """Marks that lead to the rows a sentence rests on."""
    marks = [
        f'<a href="#{_text(finding)}" title="evidence">[{numbers[finding]}]</a>'
        for finding in sentence.findings
        if finding in numbers
    ]
    added = " added by the guard" if sentence.verdict is Verdict.ADDED else ""
    return (f"<sup>{' '.join(marks)}</sup>" if marks else "") + (f'<span class="small">{added}</span>' if added else "")


def _table(table: Iterable[FindingRow]) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("", "Finding", "Decision", "Probability", "Measured", "Place", "Grounds")
    )
    body = "".join(_row(number, row) for number, row in enumerate(table, start=1))
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(number: int, row: FindingRow) -> str:
    kind = {Decision.PRESENT: "present", Decision.NOT_JUDGED: "open"}.get(row.decision, "")
    decision = f"{row.decision.value} (candidates)" if row.candidate else row.decision.value
    probability = "–"
    if row.probability is not None:
        probability = f"{row.probability:.2f} ({'calibrated' if row.calibrated else 'not calibrated'})"
    measured = _value(row.value, row.unit)
    cells = (str(number), row.name, decision, probability, measured, row.place or row.side or "–", row.evidence)
    return f'<tr id="{_text(row.finding)}" class="{kind}">{"".join(f"<td>{_text(cell)}</td>" for cell in cells)}</tr>'


def _measured(measurements: Iterable[Measurement]) -> str:
    rows = "".join(
        f"<tr><td>{_text(one.name)}</td><td>{_text(_value(one.value, one.unit))}</td>"
        f"<td>{_text(one.place or one.side or '–')}</td><td>{_text(one.rule)}</td><td>{_text(one.limits)}</td></tr>"
        for one in measurements
    )
    head = "".join(f"<th>{name}</th>" for name in ("Quantity", "Value", "Place", "Rule", "Limits"))
    return (
        f'<p class="small">{_text(LABEL[:1].upper() + LABEL[1:])}.</p><div class="wide"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _struck(sections: Iterable[ReportSection]) -> str:
    struck = [one for section in sections for one in section.sentences if not one.shown]
    if not struck:
        return ""
    items = "".join(f'<li><span class="struck">{_text(one.text)}</span> {_text(one.reason)}</li>' for one in struck)
    return f"<h2>Struck by the guard</h2><ul>{items}</ul>"


def _made(result: ReportResult) -> str:
    facts = "".join(f"<li>{_text(key)}: {_text(value)}</li>" for key, value in result.provenance.items() if value)
    return f'<ul class="small">{facts}</ul>'


def _value(value: float | None, unit: str) -> str:
    return "–" if value is None else number_text(value, unit)


def _text(value: object) -> str:
    return html.escape(str(value))
