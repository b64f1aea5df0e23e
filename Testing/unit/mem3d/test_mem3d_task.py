"""The propagation task: references come back as drawn, structures come out whole, segments stay apart."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import a_request, a_volume, ball, blob, ellipsoid, on_slices, propagated, propagated_one, tube

from MedAILib.errors import Cancelled, InputError, NothingDrawn
from MedAILib.jobs.runner import InProcessRunner
from MedAILib.jobs.task import Context
from Mem3DPropagateLib.evaluate import placed
from Mem3DPropagateLib.request import Axis, Drawing, PropagateRequest, SliceMethod
from Mem3DPropagateLib.shapes import dice
from Mem3DPropagateLib.task import PropagateTask

SHAPE = (9, 11, 13)


def planes(mask: np.ndarray, axis: Axis) -> np.ndarray:
    return np.moveaxis(mask, axis.array_axis, 0)


def held(mask: np.ndarray, axis: Axis = Axis.K) -> list[int]:
    """Slices that hold a voxel."""
    return np.flatnonzero(planes(mask, axis).any(axis=(1, 2))).tolist()


# References


@st.composite
def drawn_blobs(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], Axis, list[int]]:
    axis = draw(st.sampled_from(Axis))
    count = draw(st.integers(1, 3))
    masks = {f"s{n}": blob(draw(st.integers(0, 10_000)), SHAPE) for n in range(count)}
    last = SHAPE[axis.array_axis] - 1
    references = set(draw(st.lists(st.integers(0, last), max_size=5))) | draw(
        st.sampled_from([frozenset(), frozenset({0}), frozenset({last}), frozenset({0, last})])
    )
    for mask in masks.values():  # each segment is drawn on one of them at least
        references.add(draw(st.sampled_from(held(mask, axis))))
    return masks, axis, sorted(references)


@given(drawn=drawn_blobs(), extend=st.sampled_from([0, 1, 3, None]))
def test_references_come_back_to_the_last_voxel(drawn, extend) -> None:
    masks, axis, references = drawn
    result = propagated(a_request(masks, axis, references, extend=extend))
    for segment, mask in zip(result.segments, masks.values(), strict=True):
        found = placed(segment, SHAPE)
        np.testing.assert_array_equal(planes(found, axis)[references], planes(mask, axis)[references])
        assert [q.index for q in segment.slices if q.is_reference] == references


@given(drawn=drawn_blobs(), extend=st.sampled_from([0, 2, None]))
def test_every_slice_of_a_result_is_accounted_for_once(drawn, extend) -> None:
    masks, axis, references = drawn
    for segment in propagated(a_request(masks, axis, references, extend=extend)).segments:
        indices = [q.index for q in segment.slices]
        assert indices == list(range(indices[0], indices[-1] + 1))
        assert indices[0] >= 0 and indices[-1] < SHAPE[axis.array_axis]
        assert segment.block.shape[axis.array_axis] == len(indices)
        assert segment.origin_kji[axis.array_axis] == indices[0]
        for quality in segment.slices:
            nearest = min(abs(quality.index - r) for r in references)
            assert 0.0 <= quality.confidence <= 1.0
            assert quality.is_reference == (quality.index in references)
            assert quality.distance_to_nearest_mm == nearest
            assert set(quality.used_slices) <= set(references) and quality.used_slices
        assert 0.0 <= segment.quality_score <= segment.confidence + 1e-9 <= 1.0 + 1e-9
        assert segment.advice.slice not in references


@given(seed=st.integers(0, 10_000), axis=st.sampled_from(Axis))
def test_a_drawing_on_every_slice_leaves_nothing_to_do(seed, axis) -> None:
    mask = blob(seed, SHAPE)
    segment, found = propagated_one(mask, axis, range(SHAPE[axis.array_axis]))
    np.testing.assert_array_equal(found, mask)
    assert segment.method is SliceMethod.NO_MEMORY
    assert segment.confidence == segment.quality_score == 1.0
    assert segment.advice.slice is None and "every slice" in segment.advice.reason.lower()


def test_a_reference_on_the_first_and_the_last_slice_of_the_volume_is_kept() -> None:
    mask = ellipsoid((21, 40, 40), (10, 20, 20), (18, 12, 15))
    segment, found = propagated_one(mask, Axis.K, (0, 10, 20), extend=5)
    assert [segment.slices[0].index, segment.slices[-1].index] == [0, 20]
    assert dice(found, mask) > 0.98


def test_a_volume_of_a_single_slice_comes_back_as_drawn() -> None:
    mask = ball((1, 12, 12), (0, 6, 6), 4)
    for extend in (0, 3, None):
        segment, found = propagated_one(mask, Axis.K, extend=extend)
        np.testing.assert_array_equal(found, mask)
        assert len(segment.slices) == 1


# Shapes known beforehand


@pytest.mark.parametrize(
    ("structure", "references", "least"),
    [
        (ball((41, 48, 48), (20, 24, 24), 18), (2, 20, 38), 0.95),
        (ball((41, 48, 48), (20, 24, 24), 18), (2, 8, 20, 32, 38), 0.98),
        (ellipsoid((41, 64, 64), (20, 30, 34), (19, 12, 26)), (2, 10, 20, 30, 38), 0.98),
        (tube((41, 64, 64), (4, 12, 14), (36, 48, 52), 7), (4, 20, 36), 0.90),
        (tube((41, 64, 64), (4, 12, 14), (36, 48, 52), 7), (4, 12, 20, 28, 36), 0.95),
    ],
    ids=["ball-3", "ball-5", "ellipsoid-5", "oblique tube-3", "oblique tube-5"],
)
@pytest.mark.parametrize("axis", Axis)
def test_a_simple_structure_comes_out_whole(structure, references, least, axis) -> None:
    turned = np.ascontiguousarray(np.moveaxis(structure, 0, axis.array_axis))
    _, found = propagated_one(turned, axis, references)
    between = [n for n in range(references[0], references[-1]) if n not in references]
    assert dice(planes(found, axis)[between], planes(turned, axis)[between]) >= least


def test_two_structures_in_one_segment_are_followed_one_by_one() -> None:
    shape = (41, 48, 96)
    one = tube(shape, (2, 12, 14), (38, 36, 34), 8)
    other = tube(shape, (2, 36, 84), (38, 12, 62), 8)
    segment, found = propagated_one(one | other, Axis.K, (2, 20, 38))
    assert dice(found, (one | other) & (np.arange(41) >= 2)[:, None, None] & (np.arange(41) <= 38)[:, None, None]) > 0.9
    assert segment.variant == "parts"


def test_a_structure_that_splits_and_merges_again_keeps_its_parts() -> None:
    shape = (41, 48, 64)
    ring = ellipsoid(shape, (20, 24, 32), (19, 12, 28)) & ~ellipsoid(shape, (20, 24, 32), (11, 30, 12))
    _, found = propagated_one(ring, Axis.K, (2, 10, 20, 30, 38))
    between = [n for n in range(3, 38) if n not in (10, 20, 30)]
    assert dice(found[between], ring[between]) > 0.88
    assert not found[20, 24, 32] and not found[16, 24, 32]


def test_hundreds_of_specks_do_not_take_minutes() -> None:
    specks = np.random.default_rng(1).random((21, 64, 64)) < 0.1
    started = time.process_time()
    _, found = propagated_one(specks, Axis.K, (0, 10, 20))
    assert time.process_time() - started < 5.0
    np.testing.assert_array_equal(found[[0, 10, 20]], specks[[0, 10, 20]])


# Beyond the ends


def test_a_single_reference_closes_like_a_ball_and_stops() -> None:
    mask = ball((61, 60, 60), (30, 30, 30), 20)
    segment, found = propagated_one(mask, Axis.K, (30,), extend=None)
    assert dice(found, mask) > 0.97
    assert held(found) == held(mask) or set(held(found)) ^ set(held(mask)) <= {10, 11, 49, 50}
    areas = found.sum(axis=(1, 2))
    assert (np.diff(areas[30:51]) <= 0).all()
    assert segment.slices[-1].index <= 50


def test_closing_follows_millimetres_not_slices() -> None:
    thick = np.diag([1.0, 1.0, 4.0, 1.0])
    mask = ellipsoid((31, 60, 60), (15, 30, 30), (5, 20, 20))
    _, found = propagated_one(mask, Axis.K, (15,), thick, extend=None)
    assert dice(found, mask) > 0.95


@given(seed=st.integers(0, 10_000), axis=st.sampled_from(Axis), extend=st.integers(1, 8), at=st.integers(0, 10_000))
def test_exactly_so_many_slices_beyond_are_filled_and_none_outside_the_volume(seed, axis, extend, at) -> None:
    mask = blob(seed, SHAPE)
    filled = held(mask, axis)
    references = sorted({filled[at % len(filled)], filled[(at // 7) % len(filled)]})
    _, found = propagated_one(mask, axis, references, extend=extend)
    first = max(references[0] - extend, 0)
    last = min(references[-1] + extend, SHAPE[axis.array_axis] - 1)
    assert held(found, axis) == list(range(first, last + 1))


def test_a_tiny_structure_is_extended_as_far_as_was_asked() -> None:
    mask = np.zeros((60, 20, 20), bool)
    mask[4, 10, 9:12] = True
    _, found = propagated_one(mask, Axis.K, extend=50)
    assert held(found) == list(range(55))


def test_a_structure_open_at_the_edge_of_the_volume_is_reported() -> None:
    mask = ball((12, 60, 60), (6, 30, 30), 25)
    result = propagated(a_request({"a": mask}, Axis.K, (6,), extend=None))
    assert result.warnings == ("A: the structure was still open at the edge of the volume.",)


# References on which nothing is drawn


def test_propagation_stops_at_an_empty_reference_slice() -> None:
    mask = tube((41, 40, 40), (0, 20, 20), (40, 20, 20), 8)
    mask[30:] = False
    for extend in (0, 4, None):
        _, found = propagated_one(mask, Axis.K, (0, 10, 20, 30), extend=extend)
        assert held(found) == list(range(25))
        assert (np.diff(found[20:].sum(axis=(1, 2))) <= 0).all()


def test_a_gap_in_a_structure_stays_a_gap() -> None:
    mask = tube((41, 40, 40), (0, 20, 20), (40, 20, 20), 8)
    mask[15:26] = False
    _, found = propagated_one(mask, Axis.K, (0, 10, 20, 30, 40))
    assert held(found) == [*range(15), *range(26, 41)]


def test_references_that_are_all_empty_are_refused() -> None:
    mask = ball(SHAPE, (4, 5, 6), 3)
    with pytest.raises(NothingDrawn, match="'Full'") as error:
        propagated(a_request({"full": mask}, Axis.K, (0, 8)))
    assert error.value.todo


def test_every_segment_must_be_drawn() -> None:
    with pytest.raises(NothingDrawn, match="'Empty'"):
        propagated(a_request({"full": ball(SHAPE, (4, 5, 6), 3), "empty": np.zeros(SHAPE, bool)}))


# Several segments


@given(seeds=st.lists(st.integers(0, 10_000), min_size=2, max_size=4), extend=st.sampled_from([0, 2, None]))
def test_segments_that_were_drawn_apart_share_no_voxel(seeds, extend) -> None:
    taken = np.zeros(SHAPE, bool)
    masks = {}
    for number, seed in enumerate(seeds):
        mask = blob(seed, SHAPE) & ~taken
        taken |= mask
        slices = [n for n in held(mask) if n % 2 == number % 2] or held(mask)
        if slices:
            masks[f"s{number}"] = on_slices(mask, slices)
    result = propagated(a_request(masks, extend=extend))
    assert sum(placed(segment, SHAPE).astype(int) for segment in result.segments).max() <= 1


def test_two_touching_structures_meet_without_a_gap_or_an_overlap() -> None:
    shape = (31, 40, 60)
    whole = ellipsoid(shape, (15, 20, 30), (14, 16, 26))
    left = whole & (np.arange(60) < 30 + 6 * np.sin(np.arange(31) / 6)[:, None, None])
    masks = {"left": left, "right": whole & ~left}
    result = propagated(a_request(masks, Axis.K, (2, 9, 15, 21, 28)))
    found = [placed(segment, shape) for segment in result.segments]
    assert not (found[0] & found[1]).any()
    inner = slice(2, 29)
    assert dice((found[0] | found[1])[inner], whole[inner]) > 0.96
    for mask, truth in zip(found, masks.values(), strict=True):
        assert dice(mask[inner], truth[inner]) > 0.94


def test_the_reference_of_one_segment_takes_its_voxels_from_what_is_propagated_of_another() -> None:
    shape = (21, 30, 30)
    trunk = tube(shape, (0, 15, 15), (20, 15, 15), 8)
    inlay = np.zeros(shape, bool)
    inlay[10, 12:18, 12:18] = True
    result = propagated(a_request({"trunk": on_slices(trunk, (0, 20)), "inlay": inlay}))
    assert (placed(result.segments[1], shape)[10] == inlay[10]).all()
    assert not (placed(result.segments[0], shape)[10] & inlay[10]).any()


def test_segments_drawn_over_each_other_stay_so() -> None:
    shape = (21, 40, 40)
    organ, tumour = ball(shape, (10, 20, 20), 9), ball(shape, (10, 20, 22), 5)
    result = propagated(a_request({"organ": organ, "tumour": tumour}, Axis.K, (1, 5, 10, 15, 19)))
    organ_found, tumour_found = (placed(segment, shape) for segment in result.segments)
    assert dice(organ_found, organ) > 0.97 and dice(tumour_found, tumour) > 0.93
    assert (organ_found & tumour_found)[8].sum() == tumour_found[8].sum()


def test_twelve_segments_come_back_in_the_order_they_were_given() -> None:
    shape = (15, 48, 64)
    masks = {f"s{n}": ellipsoid(shape, (7, 8 + 16 * (n % 3), 8 + 16 * (n // 3)), (7, 6, 5 + n % 3)) for n in range(12)}
    result = propagated(a_request(masks, Axis.K, (0, 4, 7, 10, 14)))
    assert [segment.segment_id for segment in result.segments] == list(masks)
    for segment, mask in zip(result.segments, masks.values(), strict=True):
        assert dice(placed(segment, shape), mask) > 0.94
    assert result.segment("S3") is result.segment("s3") is result.segments[3]


# Grids


def turned_matrix(spacing_ijk: tuple[float, float, float], angle: float = 0.0, flip: int | None = None) -> np.ndarray:
    matrix, direction = np.eye(4), np.eye(3)
    direction[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    if flip is not None:
        direction[:, flip] *= -1
    matrix[:3, :3] = direction @ np.diag(spacing_ijk)
    matrix[:3, 3] = (5.0, -7.0, 11.0)
    return matrix


@given(
    seed=st.integers(0, 10_000),
    axis=st.sampled_from(Axis),
    angle=st.floats(-3, 3),
    flip=st.sampled_from([None, 0, 1, 2]),
    spacing=st.tuples(*[st.sampled_from([0.5, 1.0, 2.5])] * 3),
)
def test_where_and_how_the_volume_lies_does_not_change_a_voxel(seed, axis, angle, flip, spacing) -> None:
    mask = blob(seed, SHAPE)
    references = held(mask, axis)[::3]
    plain, found_plain = propagated_one(mask, axis, references, np.diag([*spacing, 1.0]), extend=None)
    turned, found_turned = propagated_one(mask, axis, references, turned_matrix(spacing, angle, flip), extend=None)
    np.testing.assert_array_equal(found_plain, found_turned)
    assert [q.confidence for q in plain.slices] == pytest.approx([q.confidence for q in turned.slices])


@given(seed=st.integers(0, 10_000), axis=st.sampled_from(Axis))
def test_each_axis_gives_what_the_others_give_on_the_turned_volume(seed, axis) -> None:
    mask = blob(seed, SHAPE)
    references = held(mask, Axis.K)[::3]
    _, along_k = propagated_one(mask, Axis.K, references, extend=2)
    turned = np.ascontiguousarray(np.moveaxis(mask, 0, axis.array_axis))
    _, along = propagated_one(turned, axis, references, extend=2)
    np.testing.assert_array_equal(np.moveaxis(along, axis.array_axis, 0), along_k)


def test_distances_are_in_millimetres_along_the_axis() -> None:
    mask = tube((13, 30, 30), (0, 15, 15), (12, 15, 15), 6)
    segment, _ = propagated_one(mask, Axis.K, (0, 12), turned_matrix((0.7, 0.9, 2.5), 0.4))
    assert segment.distance_to_nearest == pytest.approx(15.0)
    assert segment.slices[3].distance_to_nearest_mm == pytest.approx(7.5)
    assert segment.slices[3].used_slices == (0, 12)
    assert segment.method is SliceMethod.FALLBACK


# A correction's request


@given(seed=st.integers(0, 10_000), first=st.integers(0, 8), count=st.integers(1, 9))
def test_only_the_asked_slices_are_computed_and_they_are_those_of_the_whole_run(seed, first, count) -> None:
    mask = blob(seed, SHAPE)
    references = sorted({0, *held(mask), 8})[::2]
    if not mask[references].any():
        references = held(mask)[:1]
    request = a_request({"a": mask}, Axis.K, references, extend=None)
    whole = placed(propagated(request).segments[0], SHAPE)
    asked = (first, min(first + count - 1, 8))
    part = propagated(a_request({"a": mask}, Axis.K, references, extend=None, only_slices=asked)).segments[0]
    assert all(asked[0] <= q.index <= asked[1] for q in part.slices)
    found = placed(part, SHAPE)
    np.testing.assert_array_equal(found[asked[0] : asked[1] + 1], whole[asked[0] : asked[1] + 1])
    assert not found[: asked[0]].any() and not found[asked[1] + 1 :].any()


# Requests that cannot be run, and runs that end early


def test_every_problem_of_a_request_is_said_at_once() -> None:
    masks = np.zeros((2, 5, 5), bool)
    request = PropagateRequest(a_volume(SHAPE), Axis.K, (Drawing("a", "A", (40, 3), masks),), extend=-1)
    with pytest.raises(InputError) as error:
        propagated(request)
    for words in ("not ascending", "[40]", "(0 to 8)", "(5, 5)", "(11, 13)", "extend is -1"):
        assert words in error.value.text


def test_a_request_without_a_segment_is_refused() -> None:
    with pytest.raises(InputError, match="no segment"):
        propagated(PropagateRequest(a_volume(SHAPE), Axis.K, ()))


def test_a_run_can_be_cancelled_at_any_of_its_reports() -> None:
    request = a_request({"a": ball(SHAPE, (4, 5, 6), 4)}, Axis.K, (1, 4, 7))
    reports: list[object] = []
    PropagateTask().run(request, Context(on_progress=reports.append))
    assert len(reports) > 5
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions) and fractions[-1] <= 1.0
    for stop_after in range(len(reports)):
        runner, seen = InProcessRunner(), []

        def listen(progress: object, runner=runner, seen=seen, stop_after=stop_after) -> None:
            seen.append(progress)
            if len(seen) > stop_after:
                runner.job.cancel()

        if stop_after < len(reports) - 1:
            with pytest.raises(Cancelled):
                runner.run(PropagateTask(), request, listen)
