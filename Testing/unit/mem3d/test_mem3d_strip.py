"""The confidence strip, pixel by pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from Mem3DPropagateLib.request import Advice, SliceMethod, SliceQuality
from Mem3DPropagateLib.strip import (
    REFERENCE_RGB,
    SUGGESTED_RGB,
    Chart,
    confidence_rgb,
    draw_strip,
    png_bytes,
    shown_span,
)

NOTHING = Advice(None, "")


def a_quality(index: int, confidence: float, is_reference: bool = False) -> SliceQuality:
    return SliceQuality(index, SliceMethod.FALLBACK, confidence, is_reference, (0,), 1.0)


def test_colours_go_from_red_to_green() -> None:
    reds, greens = zip(*((r, g) for r, g, _ in map(confidence_rgb, (0.0, 0.5, 0.75, 1.0))), strict=True)
    assert reds[0] > greens[0] and greens[-1] > reds[-1]
    assert list(greens[:3]) == sorted(greens[:3])


@given(confidence=st.floats(0, 1))
def test_every_confidence_has_a_colour(confidence) -> None:
    assert all(0 <= part <= 255 for part in confidence_rgb(confidence))


def test_a_strip_reaches_to_an_advised_slice_beyond_the_result() -> None:
    slices = [a_quality(n, 0.5) for n in range(5, 9)]
    assert shown_span(slices, Advice(12, "")) == (5, 12)
    assert shown_span(slices, Advice(2, "")) == (2, 8)
    assert shown_span(slices, Advice(None, "")) == (5, 8)


def test_each_slice_has_a_bar_of_its_height_and_colour() -> None:
    slices = [a_quality(10, 1.0, True), a_quality(11, 0.9), a_quality(12, 0.25), a_quality(13, 1.0, True)]
    pixels = np.asarray(draw_strip(slices, NOTHING, 400, 92))
    chart = Chart((10, 13), 400, 92)
    for quality in slices:
        colour = REFERENCE_RGB if quality.is_reference else confidence_rgb(quality.confidence)
        column = round(chart.x(quality.index))
        inside = round((chart.y(quality.confidence) + chart.bottom) / 2)
        assert tuple(pixels[inside, column]) == colour
        above = round(chart.y(quality.confidence)) - 3
        assert tuple(pixels[above, column]) != colour


def test_the_advised_slice_is_marked() -> None:
    slices = [a_quality(n, 0.5) for n in range(20)]
    pixels = np.asarray(draw_strip(slices, Advice(7, "because"), 400, 92))
    chart = Chart((0, 19), 400, 92)
    marked = np.flatnonzero((pixels[2] == SUGGESTED_RGB).all(axis=-1))
    assert abs(marked.mean() - chart.x(7)) < 1.0
    assert not (np.asarray(draw_strip(slices, NOTHING, 400, 92)) == SUGGESTED_RGB).all(axis=-1).any()


@given(
    first=st.integers(0, 2000),
    count=st.integers(1, 2000),
    width=st.integers(150, 1200),
    height=st.integers(60, 200),
)
def test_a_chart_of_any_length_keeps_its_bars_within_the_picture(first, count, width, height) -> None:
    chart = Chart((first, first + count - 1), width, height)
    for index in {first, first + count // 2, first + count - 1}:
        left, top, right, bottom = chart.bar(a_quality(index, 0.8))
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
    labelled = chart.labelled
    assert labelled[0] == first and labelled[-1] == first + count - 1 and len(labelled) <= width // 20


@pytest.mark.parametrize("count", [1, 2, 700])
def test_a_strip_of_one_or_many_slices_can_be_drawn(count) -> None:
    slices = [a_quality(n, 0.5 + 0.4 * (n % 2), n == 0) for n in range(count)]
    assert draw_strip(slices, Advice(0, ""), 280, 92).size == (280, 92)


def test_a_strip_is_a_small_png_file() -> None:
    from PIL import Image

    data = png_bytes(draw_strip([a_quality(n, 0.5) for n in range(50)], NOTHING, 400, 92))
    assert data.startswith(b"\x89PNG") and len(data) < 20_000
    assert Image.open(io.BytesIO(data)).size == (400, 92)
