"""How good a result is, and what is told of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import a_request, ball, blob, propagated, propagated_one

from Mem3DPropagateLib.evaluate import evaluate, placed
from Mem3DPropagateLib.request import Axis
from Mem3DPropagateLib.shapes import dice
from Mem3DPropagateLib.summary import result_summary

SHAPE = (9, 11, 13)


@given(seed=st.integers(0, 10_000), other=st.integers(0, 10_000), axis=st.sampled_from(Axis))
def test_references_do_not_count(seed, other, axis) -> None:
    mask, truth = blob(seed, SHAPE), blob(other, SHAPE)
    filled = np.flatnonzero(np.moveaxis(mask, axis.array_axis, 0).any(axis=(1, 2)))[::2].tolist()
    segment, found = propagated_one(mask, axis, filled)
    evaluation = evaluate(segment, truth, axis)
    result, expected = (np.delete(np.moveaxis(m, axis.array_axis, 0), filled, axis=0) for m in (found, truth))
    assert evaluation.volume_dice == pytest.approx(dice(result, expected))
    assert not set(evaluation.slice_dice) & set(filled)
    assert all(0.0 <= value <= 1.0 for value in evaluation.slice_dice.values())


def test_a_perfect_result_is_perfect_and_a_missed_slice_counts_as_zero() -> None:
    mask = ball((21, 30, 30), (10, 15, 15), 8)
    segment, found = propagated_one(mask, Axis.K, (4, 10, 16))
    assert evaluate(segment, found, Axis.K).volume_dice == 1.0
    longer = found.copy()
    longer[18] = longer[10]
    assert evaluate(segment, longer, Axis.K).slice_dice[18] == 0.0


def test_a_block_is_placed_where_its_origin_says() -> None:
    mask = ball((21, 40, 50), (10, 30, 12), 6)
    segment, _ = propagated_one(mask, Axis.J, (26, 30, 34))
    assert segment.block.size < 0.5 * mask.size
    whole = placed(segment, mask.shape)
    np.testing.assert_array_equal(whole[:, 30], mask[:, 30])
    assert whole.shape == mask.shape and whole.sum() == segment.block.sum()


def test_a_summary_is_plain_json_with_the_published_names() -> None:
    masks = {"a": ball(SHAPE, (4, 5, 4), 3), "b": ball(SHAPE, (4, 5, 9), 2)}
    result = propagated(a_request(masks, Axis.K, (2, 4, 6)))
    told = json.loads(json.dumps(result_summary(result), allow_nan=False))
    assert told["axis"] == "k" and [s["id"] for s in told["segments"]] == ["a", "b"]
    first = told["segments"][0]
    assert first["method"] == "mem3d_fallback"
    assert {"confidence", "quality_score", "used_slices", "distance_to_nearest", "advice"} <= set(first)
    assert [s["index"] for s in first["slices"]] == [2, 3, 4, 5, 6]
    assert first["slices"][1]["distance_to_nearest"] == 1.0 and first["used_slices"] == [2, 4, 6]
