"""Which slice is worth drawing next, and why."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import ball, blob, propagated_one, tube

from Mem3DPropagateLib.advice import WORTH_DRAWING, advise
from Mem3DPropagateLib.request import Axis, SliceMethod, SliceQuality
from Mem3DPropagateLib.shapes import dice


def qualities(last: int, references: list[int], confidence: float = 0.7) -> list[SliceQuality]:
    found = []
    for n in range(last + 1):
        near = min(abs(n - r) for r in references)
        used = (min(references, key=lambda r, n=n: abs(n - r)),)
        here = 1.0 if n in references else confidence
        found.append(SliceQuality(n, SliceMethod.FALLBACK, here, n in references, used, float(near)))
    return found


def test_a_ball_drawn_on_its_two_ends_is_to_be_drawn_in_its_middle() -> None:
    mask = ball((61, 60, 60), (30, 30, 30), 28)
    segment, _ = propagated_one(mask, Axis.K, (4, 56))
    assert abs(segment.advice.slice - 30) <= 2
    assert "between the drawn slices 4 and 56" in segment.advice.reason


def test_the_widest_gap_comes_first() -> None:
    mask = tube((81, 40, 40), (0, 20, 20), (80, 20, 20), 12)
    segment, _ = propagated_one(mask, Axis.K, (0, 10, 20, 60, 80))
    assert abs(segment.advice.slice - 40) <= 3
    assert "between the drawn slices 20 and 60" in segment.advice.reason


def test_of_two_equal_gaps_the_one_that_holds_more_comes_first() -> None:
    areas = [10] * 21 + [500] * 20
    assert abs(advise(qualities(40, [0, 20, 40]), areas).slice - 30) <= 2


def test_of_two_equal_gaps_the_less_certain_comes_first() -> None:
    given_ = qualities(40, [0, 20, 40])
    sure = [
        q if q.is_reference or q.index < 20 else SliceQuality(q.index, q.method, 0.98, False, q.used_slices, 1.0)
        for q in given_
    ]
    assert abs(advise(sure, [100] * 41).slice - 10) <= 2


@given(seed=st.integers(0, 10_000), axis=st.sampled_from(Axis), extend=st.sampled_from([0, 3, None]))
def test_a_drawn_slice_is_never_advised_and_the_reason_names_the_slice(seed, axis, extend) -> None:
    mask = blob(seed, (15, 17, 19))
    filled = np.flatnonzero(np.moveaxis(mask, axis.array_axis, 0).any(axis=(1, 2)))
    segment, _ = propagated_one(mask, axis, filled[::4].tolist(), extend=extend)
    advice = segment.advice
    if advice.slice is None:
        assert advice.reason.endswith(".")
    else:
        inside = [q.index for q in segment.slices]
        assert advice.slice not in filled[::4] and 0 <= advice.slice < mask.shape[axis.array_axis]
        assert advice.slice in inside or extend != 0
        assert re.match(rf"Slice {advice.slice}: .*\d\.\d\d.*\.$", advice.reason)
        assert WORTH_DRAWING <= advice.expected_gain <= 1.0


def test_with_every_slice_drawn_nothing_is_advised() -> None:
    advice = advise(qualities(5, list(range(6))), [10] * 6)
    assert advice.slice is None and advice.expected_gain == 0.0


def test_where_little_is_to_be_gained_no_slice_is_advised_and_the_reason_says_so() -> None:
    advice = advise(qualities(4, [0, 2, 4], confidence=0.999), [100] * 5)
    assert advice.slice is None and "0.003" in advice.reason


def test_with_one_slice_drawn_and_nothing_beyond_it_a_second_one_is_asked_for() -> None:
    segment, _ = propagated_one(ball((31, 40, 40), (15, 20, 20), 12), Axis.K, (15,), extend=0)
    assert segment.advice.slice is None and "second" in segment.advice.reason


def test_with_one_slice_drawn_and_extended_a_slice_beyond_it_is_advised() -> None:
    segment, _ = propagated_one(ball((31, 40, 40), (15, 20, 20), 12), Axis.K, (15,), extend=None)
    assert 2 <= abs(segment.advice.slice - 15) <= 12
    assert "beyond the last drawn slice 15" in segment.advice.reason


def test_an_end_that_is_predicted_and_not_drawn_may_lie_further_out() -> None:
    found = qualities(40, [0, 20])
    within = advise(found, [100] * 41)
    beyond = advise(found, [100] * 41, room=(0, 30))
    assert within.slice == 30 and 30 < beyond.slice <= 36
    assert "beyond the last drawn slice 20" in beyond.reason


def test_a_large_slice_at_an_end_says_that_the_structure_goes_on() -> None:
    advice = advise(qualities(0, [0]), [31_400], room=(0, 100), pixel_slices=0.4)
    assert 1 < advice.slice <= 20 and "the structure may reach it" in advice.reason
    assert advise(qualities(0, [0]), [31_400], room=(0, 0), pixel_slices=0.4).slice is None


def test_an_empty_result_is_judged_without_dividing_by_nothing() -> None:
    assert advise(qualities(4, [0, 4]), [0] * 5).slice is None
    assert advise([], []).slice is None


@pytest.mark.parametrize("rounds", [4])
def test_following_the_advice_makes_the_result_better(rounds) -> None:
    mask = tube((61, 80, 80), (2, 16, 20), (58, 60, 55), 9) | ball((61, 80, 80), (40, 46, 43), 15)
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    references = [int(filled[2]), int(filled[-3])]
    reached = []
    for _ in range(rounds):
        segment, found = propagated_one(mask, Axis.K, sorted(references))
        reached.append(dice(found[filled[2] : filled[-3]], mask[filled[2] : filled[-3]]))
        references.append(segment.advice.slice)
    assert reached == sorted(reached)
    evenly, found = propagated_one(mask, Axis.K, np.linspace(filled[2], filled[-3], 5).round().astype(int))
    assert reached[-1] > dice(found[filled[2] : filled[-3]], mask[filled[2] : filled[-3]]) - 0.02, evenly.variant
