"""What a segment remembers, and what of it changed since."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import a_request, ball, blob, propagated, propagated_one

from MedAILib.errors import InputError
from Mem3DPropagateLib.record import (
    EMPTY,
    TAG,
    Record,
    changed_slices,
    fingerprint,
    fingerprints,
    gaps_around,
    merged,
    new_record,
)
from Mem3DPropagateLib.request import Axis

SHAPE = (9, 11, 13)
MATRIX = np.array([[-0.7, 0, 0.1, 3], [0, 1 / 3, 0, 2], [0, 0, 2.5, 1], [0, 0, 0, 1]])


def a_record(seed: int = 3, axis: Axis = Axis.K, extend: int | None = 1) -> tuple[Record, np.ndarray]:
    mask = blob(seed, SHAPE)
    filled = np.flatnonzero(np.moveaxis(mask, axis.array_axis, 0).any(axis=(1, 2)))
    segment, found = propagated_one(mask, axis, filled[::3].tolist(), extend=extend)
    return new_record(segment, found, axis, "run-1", extend, MATRIX), found


@given(seed=st.integers(0, 10_000), axis=st.sampled_from(Axis), extend=st.sampled_from([0, 3, None]))
def test_a_record_comes_back_from_its_text(seed, axis, extend) -> None:
    record, _ = a_record(seed, axis, extend)
    text = record.to_json()
    assert text.isascii() and "|" not in text and "\n" not in text  # survives as a tag in a .seg.nrrd header
    found = Record.from_json(text)
    assert (found.axis, found.extend, found.run_id, found.variant) == (axis, extend, "run-1", record.variant)
    assert found.references == record.references and found.advice == record.advice
    assert found.fingerprints == record.fingerprints
    assert found.shape_kji == SHAPE
    np.testing.assert_array_equal(found.ijk_to_local, MATRIX)
    assert [(q.index, q.method, q.is_reference, q.used_slices) for q in found.slices] == [
        (q.index, q.method, q.is_reference, q.used_slices) for q in record.slices
    ]
    np.testing.assert_allclose([q.confidence for q in found.slices], [q.confidence for q in record.slices], atol=1e-4)
    assert found.to_json() == text


def test_a_record_of_a_thousand_slices_stays_small() -> None:
    mask = np.zeros((1000, 12, 12), bool)
    mask[:, 4:8, 4:8] = True
    segment, found = propagated_one(mask, Axis.K, (0, 250, 500, 750, 999))
    assert len(new_record(segment, found, Axis.K, "run", 0, MATRIX).to_json()) < 100_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "[]",
        "17",
        "{}",
        '{"version": 1}',
        '{"version": 99, "axis": "k"}',
        '{"version": 1, "axis": "z", "slices": [], "fingerprints": {}, "advice": {}}',
    ],
)
def test_a_damaged_record_is_refused_with_the_way_out(text) -> None:
    with pytest.raises(InputError) as error:
        Record.from_json(text)
    assert TAG in error.value.todo


@pytest.mark.parametrize("field", ["slices", "fingerprints", "advice", "axis", "run_id", "shape_kji", "ijk_to_local"])
def test_a_record_that_lacks_a_field_or_holds_another_is_refused(field) -> None:
    stored = json.loads(a_record()[0].to_json())
    without = {name: value for name, value in stored.items() if name != field}
    for damaged in (without, {**stored, field: [["x"]]}, {**stored, "surplus": 1}):
        if field == "run_id" and damaged.get("run_id") == [["x"]]:
            continue
        with pytest.raises(InputError):
            Record.from_json(json.dumps(damaged))


@given(seed=st.integers(0, 10_000), at=st.integers(0, 11 * 13 - 1))
def test_a_fingerprint_changes_with_any_voxel(seed, at) -> None:
    plane = blob(seed, (1, 11, 13))[0]
    other = plane.copy()
    other.flat[at] = ~other.flat[at]
    assert fingerprint(other) != fingerprint(plane) == fingerprint(plane.copy(order="F"))


def test_an_empty_slice_has_one_fingerprint_whatever_its_size() -> None:
    assert fingerprint(np.zeros((3, 70), bool)) == EMPTY == fingerprint(np.zeros((500, 2), bool))


@given(seed=st.integers(0, 10_000), axis=st.sampled_from(Axis))
def test_nothing_drawn_since_is_nothing_changed(seed, axis) -> None:
    record, mask = a_record(seed, axis)
    assert changed_slices(record, mask) == (set(), set())
    assert set(fingerprints(mask, axis)) <= set(record.fingerprints)


@given(seed=st.integers(0, 10_000), data=st.data())
def test_drawn_and_emptied_slices_are_told_apart(seed, data) -> None:
    record, mask = a_record(seed)
    drawn = data.draw(st.sets(st.integers(0, 8), max_size=3))
    filled = {int(n) for n in np.flatnonzero(mask.any(axis=(1, 2)))}
    emptied = data.draw(st.sets(st.sampled_from(sorted(filled)), max_size=2)) - drawn
    for index in drawn:
        mask[index, 5, 6] = ~mask[index, 5, 6]
        mask[index, 0, 0] = True
    mask[sorted(emptied)] = False
    untouched = {n for n in drawn if fingerprint(mask[n]) == record.fingerprints.get(n)}
    assert changed_slices(record, mask) == (drawn - untouched, emptied)


# Gaps


def test_the_gaps_around_a_slice_reach_to_its_neighbours() -> None:
    assert gaps_around({20}, [0, 10, 20, 30, 40], 60) == frozenset(range(10, 31))
    assert gaps_around({15}, [0, 10, 15, 20, 30], 60) == frozenset(range(10, 21))


def test_two_far_changes_leave_what_is_between_them_alone() -> None:
    gaps = gaps_around({5, 45}, [0, 5, 10, 20, 40, 45, 50], 60)
    assert gaps == frozenset(range(0, 11)) | frozenset(range(40, 51))


def test_changes_in_one_gap_are_one_gap() -> None:
    assert gaps_around({12, 16}, [0, 10, 12, 16, 20, 30], 60) == frozenset(range(10, 21))


def test_beyond_the_outermost_reference_the_gap_goes_on_to_the_edge() -> None:
    assert gaps_around({45}, [10, 30, 45], 60) == frozenset(range(30, 60))
    assert gaps_around({2}, [2, 10, 30], 60) == frozenset(range(0, 11))


def test_a_reference_given_up_leaves_the_gap_between_its_neighbours() -> None:
    assert gaps_around({20}, [10, 30], 60) == frozenset(range(10, 31))


def test_nothing_changed_is_no_gap() -> None:
    assert gaps_around(set(), [10, 30], 60) == frozenset()


def test_a_merged_record_takes_the_gaps_from_the_update_and_keeps_the_rest() -> None:
    mask = ball((31, 40, 40), (15, 20, 20), 14)
    before, found = propagated_one(mask, Axis.K, (3, 15, 27), extend=2)
    record = new_record(before, found, Axis.K, "first", 2, MATRIX)
    after = propagated(a_request({"a": mask}, Axis.K, (3, 9, 15, 27), extend=2, only_slices=(3, 15))).segments[0]
    corrected = found.copy()
    corrected[3:16] = mask[3:16]
    update = new_record(after, corrected, Axis.K, "second", 2, MATRIX)
    both = merged(record, update, gaps_around({9}, (3, 9, 15, 27), 31), corrected)
    assert both.run_id == "second" and both.references == (3, 9, 15, 27)
    assert [q.index for q in both.slices] == list(range(1, 30))
    assert both.slices[16:] == record.slices[16:]
    assert changed_slices(both, corrected) == (set(), set())
    assert both.advice.slice not in both.references


def test_a_merged_record_forgets_slices_that_the_update_does_not_reach() -> None:
    mask = ball((31, 40, 40), (15, 20, 20), 14)
    before, found = propagated_one(mask, Axis.K, (3, 15), extend=8)
    record = new_record(before, found, Axis.K, "first", 8, MATRIX)
    mask[20:] = False
    after = propagated(a_request({"a": mask}, Axis.K, (3, 15, 20), extend=8, only_slices=(15, 30))).segments[0]
    found[18:] = False
    update = new_record(after, found, Axis.K, "second", 8, MATRIX)
    both = merged(record, update, gaps_around({20}, (3, 15, 20), 31), found)
    assert max(q.index for q in both.slices) == 20 == max(both.fingerprints)
