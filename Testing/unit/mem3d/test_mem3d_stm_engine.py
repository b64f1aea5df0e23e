"""Propagation by a memory network: order, memory, region, several objects, corrections, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="memory networks need torch")

from stm_cases import a_volume, loaded, narrow  # noqa: E402
from stm_literal import LiteralStm, interleaved, propagate  # noqa: E402

from MedAILib.errors import Cancelled, InputError, NothingDrawn  # noqa: E402
from MedAILib.jobs.report import peak_memory_mb, restart_peak_memory  # noqa: E402
from MedAILib.jobs.task import Context  # noqa: E402
from Mem3DPropagateLib.nets.stm import STM  # noqa: E402
from Mem3DPropagateLib.nets.stm_engine import StmEngine, StmOptions, StmSlice  # noqa: E402
from Mem3DPropagateLib.nets.stm_frame import OUTSIDE_LEVEL, Frame, RegionOptions, frame_for  # noqa: E402
from Mem3DPropagateLib.nets.stm_plan import nearest, runs  # noqa: E402
from Mem3DPropagateLib.nets.stm_sight import Precision, Sight  # noqa: E402
from Mem3DPropagateLib.nets.stm_weights import LoadedStm  # noqa: E402

WHOLE = RegionOptions(full_frame=True, smallest_px=16)
EXACT = StmOptions(region=WHOLE)

slices = st.integers(0, 60)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LoadedStm:
    return loaded(tmp_path_factory.mktemp("stm"), tuned("plain"))


def tuned(variant: str = "plain", mask_input: str = "background", shift: float = 0.0) -> STM:
    """A narrow network whose answers change sign within a picture: the bias of its last layer is set to that."""
    network = narrow(variant, mask_input, seed=2)
    image, body = a_volume()
    literal = LiteralStm(network.state_dict())
    frame = frame_for(image, [(8, body[8][None])], (1, 1), WHOLE)
    pictures = [frame.picture(image[at], unit_range=mask_input == "other-objects") for at in (8, 9)]
    with torch.inference_mode():
        key, value = literal.memorised(pictures[0], frame.masks(body[8][None]))
        probabilities, _ = literal.segmented(pictures[1], [key], [value])
    middle = (probabilities[1] / probabilities[0]).log().median() / 2  # two logits oppose each other
    with torch.no_grad():
        network.Decoder.pred2.bias[1] -= middle - shift
    return network


def exact(network: LoadedStm, kept_bytes: int = 1 << 29) -> Sight:
    return Sight(network, Precision.FLOAT32, kept_bytes)


def found(
    engine: StmEngine, references: dict[int, np.ndarray], wanted: Iterable[int], context: Context | None = None
) -> dict[int, StmSlice]:
    answers = list(engine.propagate(references, list(wanted), context or Context()))
    by_index = {answer.index: answer for answer in answers}
    assert len(by_index) == len(answers)
    return by_index


# the order of slices


@settings(max_examples=80, deadline=None)
@given(st.sets(slices, min_size=1, max_size=6), st.sets(slices, max_size=30))
def test_every_wanted_slice_is_predicted_once_from_its_nearest_reference(
    references: set[int], wanted: set[int]
) -> None:
    known = sorted(references)
    plan = list(runs(known, sorted(wanted)))
    visited = [index for run in plan for index in run.slices]
    assert len(visited) == len(set(visited))
    assert wanted - references <= set(visited)
    assert not references & set(visited)
    for run in plan:
        steps = [abs(index - run.reference) for index in run.slices]
        assert steps == list(range(1, len(steps) + 1))
        assert set(run.slices) & wanted
        assert all(abs(i - run.reference) == min(abs(i - r) for r in known) for i in run.slices)
        assert run.is_outward == (run.slices[-1] < known[0] or run.slices[-1] > known[-1])


@settings(max_examples=80, deadline=None)
@given(st.sets(slices, min_size=1, max_size=8), slices, st.integers(1, 6))
def test_a_slice_remembers_the_references_on_both_sides_and_the_nearest_others(
    references: set[int], index: int, count: int
) -> None:
    known = sorted(references - {index}) or [index + 1]
    used = nearest(known, index, count)
    assert list(used) == sorted(set(used))
    assert len(used) == min(count, len(known))
    around = [r for r in known if r < index][-1:] + [r for r in known if r > index][:1]
    assert set(around[:count]) <= set(used)


def test_the_published_order_looks_back_to_the_other_side() -> None:
    assert list(interleaved(3, 7)) == [
        (2, (3,)),
        (4, (3, 2)),
        (1, (3, 4)),
        (5, (3, 1)),
        (0, (3, 5)),
        (6, (3, 0)),
    ]
    assert list(interleaved(0, 9))[5:] == [(6, (0, 5)), (7, (0, 5, 6)), (8, (0, 5, 7))]


# the answers


@pytest.mark.parametrize(("variant", "mask_input"), [("plain", "background"), ("aspp", "other-objects")])
def test_the_engine_answers_what_the_formulas_answer_slice_by_slice(
    tmp_path: Path, variant: str, mask_input: str
) -> None:
    image, body = a_volume()
    masks = np.stack([body, np.roll(body, 20, axis=2) & ~body], 1)
    references = {4: masks[4], 18: masks[18]}
    net = tuned(variant, mask_input)
    engine = StmEngine(exact(loaded(tmp_path, net)), image, options=EXACT)
    answers = found(engine, references, range(24))

    frame = frame_for(image, references.items(), (1, 1), WHOLE)
    frames = [frame.picture(plane, unit_range=net.takes_unit_range) for plane in image]
    steps = []
    for run in runs([4, 18], range(24)):
        for number, index in enumerate(run.slices):
            steps.append((index, (4, 18, *run.slices[max(number - 3, 0) : number])))
    with torch.inference_mode():
        drawn = {index: frame.masks(reference) for index, reference in references.items()}
        expected = dict(propagate(LiteralStm(net.state_dict()), frames, drawn, steps))
    assert answers.keys() == expected.keys() == set(range(24)) - {4, 18}
    sizes = []
    for index, answer in answers.items():
        probabilities = expected[index].numpy()
        winner = probabilities.argmax(0)
        inside = answer.level >= 0
        sizes += [int(inside.sum())]
        assert np.mean(inside != np.stack([winner == 1, winner == 2])) < 1e-3
        rivals = np.delete(probabilities, 1, axis=0).max(0)
        level = np.log(probabilities[1]) - np.log(rivals)
        certain = np.abs(level) < 12
        assert np.abs(answer.level[0] - level)[certain].max() < 2e-3
        assert answer.used == (4, 18)
    assert 0 < min(sizes) < max(sizes) < 2 * image[0].size


def test_objects_never_overlap_not_even_where_they_are_equally_likely(network: LoadedStm) -> None:
    image, body = a_volume()
    engine = StmEngine(exact(network), image, options=EXACT)
    for answer in found(engine, {8: np.stack([body[8], body[8]])}, range(6, 12)).values():
        inside = answer.level >= 0
        assert inside[0].any()
        assert not (inside[0] & inside[1]).any()


def test_an_object_alone_has_the_log_odds_of_its_probability(network: LoadedStm) -> None:
    image, body = a_volume()
    frame = frame_for(image, [(8, body[8][None])], (1, 1), WHOLE)
    answer = found(StmEngine(exact(network), image, options=EXACT), {8: body[8][None]}, [9])[9]
    literal = LiteralStm(network.network.state_dict())
    with torch.inference_mode():
        key, value = literal.memorised(frame.picture(image[8], unit_range=False), frame.masks(body[8][None]))
        probabilities, _ = literal.segmented(frame.picture(image[9], unit_range=False), [key], [value])
    assert np.allclose(answer.level[0], probabilities[1].logit().numpy(), atol=1e-3)
    assert answer.quality == (None,)


def test_the_quality_head_answers_for_every_slice_and_object(tmp_path: Path) -> None:
    image, body = a_volume()
    engine = StmEngine(exact(loaded(tmp_path, tuned("quality"))), image, options=EXACT)
    answers = found(engine, {8: np.stack([body[8], ~body[8]])}, range(24))
    qualities = np.array([answer.quality for answer in answers.values()], dtype=float)
    assert qualities.shape == (23, 2)
    assert ((qualities > 0) & (qualities < 1)).all()
    assert np.unique(qualities[:, 0]).size > 1


def test_bfloat16_answers_nearly_the_same(network: LoadedStm) -> None:
    image, body = a_volume()
    answers = []
    for precision in (Precision.FLOAT32, Precision.BFLOAT16):
        engine = StmEngine(Sight(network, precision), image, options=EXACT)
        answers.append(found(engine, {8: body[8][None]}, [9])[9].level)
    assert answers[1].dtype == np.float32
    assert np.corrcoef(answers[0].ravel(), answers[1].ravel())[0, 1] > 0.99


# corrections


def test_a_correction_gives_what_a_new_engine_gives_and_looks_at_no_slice_again(network: LoadedStm) -> None:
    image, body = a_volume()
    sight = exact(network)
    first = {4: body[4][None], 20: body[20][None]}
    found(StmEngine(sight, image, options=EXACT), first, range(24))
    corrected = {**first, 12: body[12][None]}
    before = len(sight.kept)
    again = found(StmEngine(sight, image.copy(), options=EXACT), corrected, range(5, 20))  # another array, same content
    assert len(sight.kept) == before + 1  # the new reference
    fresh = found(StmEngine(exact(network), image, options=EXACT), corrected, range(5, 20))
    assert again.keys() == fresh.keys() == set(range(5, 20)) - {12}
    for index, answer in again.items():
        assert np.array_equal(answer.level, fresh[index].level)


def test_another_image_is_never_taken_for_the_one_seen_before(network: LoadedStm) -> None:
    image, body = a_volume()
    sight = exact(network)
    found(StmEngine(sight, image, options=EXACT), {8: body[8][None]}, [9])
    image[9, 30] += 60
    again = found(StmEngine(sight, image, options=EXACT), {8: body[8][None]}, [9])[9].level
    fresh = found(StmEngine(exact(network), image, options=EXACT), {8: body[8][None]}, [9])[9].level
    assert np.array_equal(again, fresh)


def test_a_reference_drawn_anew_is_remembered_anew(network: LoadedStm) -> None:
    image, body = a_volume()
    engine = StmEngine(exact(network), image, options=EXACT)
    found(engine, {8: body[8][None]}, [9])
    changed = {8: ~body[8][None]}
    fresh = found(StmEngine(exact(network), image, options=EXACT), changed, [9])[9].level
    assert np.array_equal(found(engine, changed, [9])[9].level, fresh)


# where it ends


@pytest.mark.parametrize(("shift", "ends"), [(-50.0, True), (50.0, False)], ids=["nothing seen", "all seen"])
def test_a_run_ends_after_two_slices_without_the_object(tmp_path: Path, shift: float, ends: bool) -> None:
    image, body = a_volume()
    options = StmOptions(region=WHOLE, stops_at_the_end=True)
    engine = StmEngine(exact(loaded(tmp_path, tuned(shift=shift))), image, options=options)
    answers = found(engine, {6: body[6][None], 12: body[12][None]}, range(24))
    beyond = {4, 5, 13, 14} if ends else {*range(6), *range(13, 24)}
    assert answers.keys() == {*range(7, 12), *beyond}  # between references nothing stops
    assert all((answer.level >= 0).any() != ends for answer in answers.values())


def test_nothing_is_looked_for_beyond_a_reference_that_says_it_has_ended(network: LoadedStm) -> None:
    image, body = a_volume()
    options = StmOptions(region=WHOLE, stops_at_the_end=True)
    references = {8: np.stack([body[8], body[8]]), 12: np.stack([np.zeros_like(body[8]), body[12]])}
    answers = found(StmEngine(exact(network), image, options=options), references, range(8, 16))
    for index, answer in answers.items():
        assert ((answer.level[0] == OUTSIDE_LEVEL).all()) == (index > 12)
    empty = {8: body[8][None], 12: np.zeros_like(body[8])[None]}
    assert found(StmEngine(exact(network), image, options=options), empty, range(8, 16)).keys() == {9, 10, 11}


# the region


def test_the_network_is_shown_the_region_around_the_references_alone(network: LoadedStm) -> None:
    image, body = a_volume(rows=160, columns=192)
    region = RegionOptions(margin=0.25, smallest_margin_px=4, smallest_px=16)
    frame = frame_for(image, [(8, body[8][None])], (1, 1), region)
    assert (frame.bottom - frame.top, frame.right - frame.left) == frame.scaled == frame.size == (96, 64)
    options = StmOptions(region=region)
    level = found(StmEngine(exact(network), image, options=options), {8: body[8][None]}, [9])[9].level[0]
    outside = np.ones(level.shape, bool)
    outside[frame.top : frame.bottom, frame.left : frame.right] = False
    assert (level[outside] == OUTSIDE_LEVEL).all()
    assert (level[~outside] > OUTSIDE_LEVEL / 2 - 1).all()
    elsewhere = image.copy()
    elsewhere[:, outside] = 500
    again = found(StmEngine(exact(network), elsewhere, options=options), {8: body[8][None]}, [9])[9].level[0]
    assert np.array_equal(level, again)


def test_a_mask_comes_to_the_network_and_back_in_its_place() -> None:
    _, body = a_volume(rows=96, columns=128)
    for pixel_mm in ((1.0, 1.0), (0.5, 1.0), (2.0, 0.7)):
        for smallest, largest in ((16, 512), (256, 512), (16, 48)):
            region = RegionOptions(smallest_px=smallest, largest_px=largest)
            frame = frame_for(body.astype(np.float32), [(8, body[8][None])], pixel_mm, region)
            assert all(length % 16 == 0 for length in frame.size)
            back = frame.level(frame.masks(body[8][None]) - 0.5)[0] >= 0
            overlap = 2 * (back & body[8]).sum() / (back.sum() + body[8].sum())
            assert overlap > (0.999 if frame.scaled == (frame.bottom - frame.top, frame.right - frame.left) else 0.9)


def test_pixels_that_are_no_squares_are_shown_as_squares() -> None:
    image, body = a_volume(rows=64, columns=128)
    frame = frame_for(image, [(8, body[8][None])], (2.0, 1.0), RegionOptions(full_frame=True, smallest_px=16))
    assert frame.scaled == (128, 128)


def test_the_window_does_not_follow_single_voxels() -> None:
    image, body = a_volume()
    usual = frame_for(image, [(8, body[8][None])], (1, 1), WHOLE).window
    image[3, 2, 2], image[9, 30, 30], image[10, 5, 5] = 3000, -1024, np.nan
    low, high = frame_for(image, [(8, body[8][None])], (1, 1), WHOLE).window
    assert (low, high) == pytest.approx(usual, abs=3)
    given_window = RegionOptions(full_frame=True, window=(-79.0, 304.0))
    assert frame_for(image, [(8, body[8][None])], (1, 1), given_window).window == (-79.0, 304.0)
    assert torch.isfinite(
        frame_for(image, [(8, body[8][None])], (1, 1), WHOLE).picture(image[10], unit_range=False)
    ).all()


def test_a_picture_of_one_value_is_shown() -> None:
    image, body = a_volume()
    frame = frame_for(np.full_like(image, 7), [(8, body[8][None])], (1, 1), WHOLE)
    assert frame.picture(np.full_like(image[0], 7), unit_range=True).unique().tolist() == [0.0]


def test_a_small_change_of_the_drawing_leaves_the_region_as_it_is() -> None:
    image, body = a_volume(rows=200, columns=200)
    frames = set[Frame]()
    for at, shift in ((8, 0), (9, 0), (8, 1)):
        masks = np.roll(body[at], shift, axis=1)[None]
        frames.add(frame_for(image, [(2, body[2][None]), (at, masks)], (1, 1), RegionOptions()))
    assert len(frames) == 1


# what it costs, and what it refuses


def test_memory_does_not_grow_from_100_to_1000_slices(network: LoadedStm) -> None:
    image = np.random.default_rng(0).integers(0, 255, (1000, 48, 48), dtype=np.uint8)
    mask = a_volume(1, 48, 48)[1][0][None]
    peaks_mb = []
    for count in (100, 1000):
        restart_peak_memory()
        engine = StmEngine(exact(network, 1 << 20), image[:count], options=EXACT)
        assert sum(1 for _ in engine.propagate({0: mask}, range(count), Context())) == count - 1
        peaks_mb.append(peak_memory_mb() or 0)
    assert peaks_mb[1] - peaks_mb[0] < 16


def test_what_is_kept_stays_within_its_bytes(network: LoadedStm) -> None:
    image, body = a_volume()
    for most in (0, 300_000):
        sight = exact(network, most)
        found(StmEngine(sight, image, options=EXACT), {8: body[8][None]}, range(24))
        assert sight.kept.bytes == sum(thing.nbytes for thing in sight.kept._things.values()) <= most
        assert (len(sight.kept) > 0) == (most > 0)


def test_the_report_names_the_weights(network: LoadedStm) -> None:
    image, body = a_volume()
    context = Context()
    found(StmEngine(exact(network), image, options=EXACT), {8: body[8][None]}, [9], context)
    assert context.weights == [f"network sha256:{network.sha256}"]


def test_it_stops_when_asked(network: LoadedStm) -> None:
    image, body = a_volume()
    seen: list[int] = []
    context = Context(is_cancelled=lambda: len(seen) == 3)
    with pytest.raises(Cancelled):
        for answer in StmEngine(exact(network), image, options=EXACT).propagate({8: body[8][None]}, range(24), context):
            seen.append(answer.index)
    assert len(seen) == 3


def test_requests_that_make_no_sense_are_refused(network: LoadedStm) -> None:
    image, body = a_volume()
    engine = StmEngine(exact(network), image, options=EXACT)
    for references, wanted, kind, words in (
        ({8: body[8][None]}, [99], InputError, r"Slices \[99\] lie outside the image \(0 to 23\)"),
        ({8: body[8]}, [9], InputError, "shapes"),
        ({8: body[8][None], 9: np.stack([body[9]] * 2)}, [10], InputError, "shapes"),
        ({8: np.zeros_like(body[8])[None]}, [9], NothingDrawn, "Nothing is drawn"),
        ({}, [9], NothingDrawn, "Nothing is drawn"),
    ):
        with pytest.raises(kind, match=words):
            found(engine, references, wanted)
    with pytest.raises(InputError, match="'cuda:77' cannot be used"):
        found(engine, {8: body[8][None]}, [9], Context(device="cuda:77"))
    with pytest.raises(InputError, match="window from 5 to 5 is empty"):
        frame_for(image, [(8, body[8][None])], (1, 1), RegionOptions(window=(5, 5)))
