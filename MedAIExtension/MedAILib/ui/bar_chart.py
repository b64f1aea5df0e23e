"""Bars with names and values, painted in the panel's own font and colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt

from MedAILib.ui.bars import Bar, BarKind

_RGB = {
    BarKind.CHOSEN: (38, 110, 214),
    BarKind.OTHER: (148, 154, 162),
    BarKind.WITHIN: (46, 150, 80),
    BarKind.BEYOND: (222, 110, 22),
}
_ROW_SPACE_PX = 7
_GAP_PX = 8
_LARGEST_NAME_SHARE = 0.46
_TRACK_ALPHA, _FADED_ALPHA, _HATCHED_ALPHA = 28, 130, 60


def draw_bars(bars: Sequence[Bar], width_px: int, widget: Any) -> Any:
    """A picture of bars, one below the other: name, bar with the mark of its threshold, value.

    Parameters
    ----------
    bars : sequence of Bar
        At least one.
    width_px : int
    widget : QWidget
        Whose font and colours are used.

    Returns
    -------
    QPixmap
        As wide as asked, on a transparent ground; names that are too long are elided.
    """
    metrics = qt.QFontMetrics(widget.font)
    row_px = row_height_px(widget)
    names_px = min(_widest(metrics, [bar.name for bar in bars]), round(_LARGEST_NAME_SHARE * width_px))
    texts_px = _widest(metrics, [bar.text for bar in bars])
    left = names_px + _GAP_PX
    length = max(width_px - left - texts_px - _GAP_PX, 20)
    picture = qt.QPixmap(width_px, row_px * len(bars))
    picture.fill(qt.QColor(0, 0, 0, 0))
    ink = widget.palette.color(qt.QPalette.WindowText)
    track, pale = _with_alpha(ink, _TRACK_ALPHA), _with_alpha(ink, _FADED_ALPHA)
    painter = qt.QPainter()
    painter.begin(picture)
    painter.setFont(widget.font)
    for row, bar in enumerate(bars):
        top, baseline = row * row_px, row * row_px + _ROW_SPACE_PX // 2 + metrics.ascent()
        bar_top, bar_px = top + 3, row_px - 6
        painter.setPen(pale if bar.faded else ink)
        painter.drawText(0, baseline, metrics.elidedText(bar.name, qt.Qt.ElideMiddle, names_px))
        painter.fillRect(left, bar_top, length, bar_px, track)
        for brush in _brushes(bar):
            painter.fillRect(left, bar_top, _filled(bar.share, length), bar_px, brush)
        if bar.mark is not None:
            painter.fillRect(left + round(bar.mark * length) - 1, top + 1, 2, row_px - 2, ink)
        painter.drawText(width_px - metrics.horizontalAdvance(bar.text), baseline, bar.text)
    painter.end()
    return picture


def row_height_px(widget: Any) -> int:
    """Of one bar of `draw_bars`."""
    return int(qt.QFontMetrics(widget.font).height()) + _ROW_SPACE_PX


def bars_text(bars: Sequence[Bar]) -> str:
    """The same as lines of text, for a tooltip."""
    return "\n".join(f"{bar.name}: {bar.text}" for bar in bars)


def _with_alpha(color: Any, alpha: int) -> Any:
    changed = qt.QColor(color)
    changed.setAlpha(alpha)
    return changed


def _brushes(bar: Bar) -> tuple[Any, ...]:
    """What a bar is filled with, one over the other."""
    color = qt.QColor(*_RGB[bar.kind])
    if not bar.hatched:
        return (qt.QBrush(color),)
    return qt.QBrush(_with_alpha(color, _HATCHED_ALPHA)), qt.QBrush(color, qt.Qt.BDiagPattern)


def _filled(share: float, length: int) -> int:
    return max(round(min(max(share, 0.0), 1.0) * length), 1 if share > 0 else 0)


def _widest(metrics: Any, texts: Sequence[str]) -> int:
    return max(metrics.horizontalAdvance(text) for text in texts) + 1
