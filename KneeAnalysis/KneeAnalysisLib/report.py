"""The report for people: one HTML file with pictures, bars and tables, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence

from KneeAnalysisLib.results import RESEARCH_USE, KneeResult
from KneeAnalysisLib.table import Row, heading, rows

_THICKNESS_FIELDS = (
    "region",
    "mean_mm",
    "sd_mm",
    "median_mm",
    "p5_mm",
    "p95_mm",
    "two_surfaces_mean_mm",
    "area_mm2",
    "denuded_percent",
    "volume_mm3",
)
_T2_FIELDS = ("region", "t2_mean_ms", "t2_sd_ms", "t2_median_ms", "t2_deep_ms", "t2_superficial_ms")
_DECIMALS = {"mm": 2, "mm2": 0, "mm3": 0, "ms": 1, "percent": 1}
_BAR_HEIGHT, _BAR_LENGTH, _BAR_LEFT, _BAR_ROOM = 22, 360, 340, 120

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22262b; max-width: 1260px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .6em; text-align: right; border-bottom: 1px solid #dfe3e8; } th { font-weight: 600; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
svg { max-width: 100%; height: auto; }
img { max-width: 100%; border: 1px solid #dfe3e8; border-radius: 4px; }
.use { background: #fff4e0; border-left: 4px solid #e69500; padding: .5em 1em; }
.small { color: #5b6570; font-size: .9em; }
div.wide { overflow-x: auto; }
"""


def html_report(result: KneeResult) -> str:
    """The report as one HTML document."""
    found = rows(result)
    whole = len(result.statistics.thickness) if result.statistics else 0
    parts = [
        f"<h1>Knee: {_text(result.name)}</h1>",
        f'<p class="small">{_text(_facts(result))}</p>',
        f'<p class="use"><b>{_text(RESEARCH_USE)}</b></p>',
        _notes(result),
        "<h2>Cartilage thickness</h2>",
        _thickness(found[:whole]),
    ]
    if found[whole:]:
        parts += ["<h2>Finer regions</h2>", _bars(found[whole:]), _table(_THICKNESS_FIELDS, found[whole:])]
    if result.t2 is not None:
        parts += ["<h2>T2</h2>", f'<p class="small">{_text(result.t2.stated)}</p>', _table(_T2_FIELDS, found[:whole])]
    parts += ["<h2>Thickness on the bones</h2>", *_pictures(result), "<h2>How it was made</h2>", _made(result)]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Knee: {_text(result.name)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def cell_text(field: str, value: object) -> str:
    """A value of a row for people: rounded to what its unit deserves; a dash where there is none."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.{_DECIMALS.get(field.rpartition('_')[2], 2)}f}" if math.isfinite(value) else "–"


def _facts(result: KneeResult) -> str:
    side = {"left": "Left knee", "right": "Right knee"}.get(result.side, "Side not known")
    engine = result.segmented.engine
    how = "an existing label map" if engine == "none" else f"the engine {engine} on {result.segmented.device}"
    return f"{side}; tissues from {how}."


def _notes(result: KneeResult) -> str:
    absent = ", ".join(region.title.lower() for region in result.missing_regions) if result.statistics else ""
    notes = [*result.notes, *([f"Regions that could not be measured: {absent}."] if absent else [])]
    return f"<ul>{''.join(f'<li>{_text(note)}</li>' for note in notes)}</ul>" if notes else ""


def _thickness(found: Sequence[Row]) -> str:
    if not found:
        return "<p>No region could be measured.</p>"
    return (
        f"{_bars(found)}\n{_table(_THICKNESS_FIELDS, found)}"
        '<p class="small">Mean, SD, median and percentiles are weighted by area on the bone, denuded bone counted as '
        "zero. “Two surfaces” is the mean where the normal crosses the cartilage’s own surface exactly twice, the "
        "definition of the reference pipeline and of the keys in the results file.</p>"
    )


def _bars(found: Sequence[Row]) -> str:
    """Mean and SD of every region as bars (SVG)."""
    longest = max(max(row.mean_mm + row.sd_mm for row in found), 0.1)
    height = _BAR_HEIGHT * len(found) + 6
    width = _BAR_LEFT + _BAR_LENGTH + _BAR_ROOM
    lines = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="Mean and SD of every region">'
    ]
    for number, row in enumerate(found):
        y = number * _BAR_HEIGHT + 4
        length, spread = (_BAR_LENGTH * mm / longest for mm in (row.mean_mm, row.sd_mm))
        end, middle = _BAR_LEFT + length, y + 8
        lines.append(
            f'<text x="{_BAR_LEFT - 8}" y="{y + 13}" text-anchor="end" font-size="13">{_text(row.region)}</text>'
            f'<rect x="{_BAR_LEFT}" y="{y}" width="{length:.1f}" height="16" fill="#2b7bba" rx="2"/>'
            f'<line x1="{max(end - spread, _BAR_LEFT):.1f}" x2="{end + spread:.1f}" y1="{middle}" y2="{middle}" '
            'stroke="#16324a" stroke-width="1.5"/>'
            f'<text x="{end + spread + 6:.1f}" y="{y + 13}" font-size="13">{row.mean_mm:.2f} mm</text>'
        )
    return "\n".join([*lines, "</svg>"])


def _table(names: Sequence[str], found: Iterable[Row]) -> str:
    head = "".join(f"<th>{_text(heading(name).replace('mm2', 'mm²').replace('mm3', 'mm³'))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell_text(name, getattr(row, name)))}</td>" for name in names) + "</tr>"
        for row in found
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _pictures(result: KneeResult) -> list[str]:
    report = result.report
    if report is None or not report.pictures:
        return [f"<p>No pictures. {_text(report.no_pictures if report else '')}</p>"]
    return [
        f'<h3>{_text(title)}</h3><img alt="{_text(title)}: thickness from six views" '
        f'src="data:image/png;base64,{base64.b64encode(picture.tobytes()).decode("ascii")}">'
        for title, picture in zip(report.titles, report.pictures, strict=True)
    ]


def _made(result: KneeResult) -> str:
    lines = []
    for step in result.steps:
        what = f"left out: {step.skipped}" if step.skipped else f"{step.seconds:.1f} s"
        lines.append(f"<li>{_text(step.step)}: {_text(what)}{' (of an earlier run)' if step.reused else ''}</li>")
    weights = "".join(
        f"<li>Weights {_text(used.path.name)}, SHA-256 {_text(used.sha256)}</li>" for used in result.segmented.weights
    )
    return f'<ul class="small">{"".join(lines)}{weights}</ul>'


def _text(value: object) -> str:
    return html.escape(str(value))
