"""The methods of a propagation through the task: which one runs, what it says of itself, what it keeps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from phantoms import ellipsoid, on_slices

from MedAILib.errors import FileMissing, InputError, InvalidWeights, MissingPackage
from MedAILib.jobs.runner import InProcessRunner
from MedAILib.jobs.task import Context
from MedAILib.jobs.worker_runner import WorkerRunner
from MedAILib.volume import Volume
from Mem3DPropagateLib import methods
from Mem3DPropagateLib.drawings import take_drawing
from Mem3DPropagateLib.evaluate import placed
from Mem3DPropagateLib.nets.gapmodel import EMBEDDED, MODEL_ID
from Mem3DPropagateLib.request import TASK, Axis, Method, PropagateRequest, SliceMethod
from Mem3DPropagateLib.shapes import dice
from Mem3DPropagateLib.task import PropagateTask

torch = pytest.importorskip("torch")

SHAPE = (40, 60, 64)
EGG = ellipsoid(SHAPE, (19, 30, 30), (13, 15, 12))
BESIDE = ellipsoid(SHAPE, (19, 30, 52), (9, 10, 8))


def an_image(contrast: float = 80.0) -> Volume:
    noise = np.random.default_rng(0).normal(100, 12, SHAPE)
    image = noise + contrast * EGG + 0.6 * contrast * BESIDE
    return Volume(image.astype(np.float32), np.diag([1.0, 1.0, 1.5, 1.0]))


def a_request(*slices: int, masks=None, **options) -> PropagateRequest:
    drawings = tuple(
        take_drawing(name, name, on_slices(mask, slices), Axis.K, slices)
        for name, mask in (masks or {"egg": EGG}).items()
    )
    return PropagateRequest(an_image(), Axis.K, drawings, **options)


def run(request: PropagateRequest, context: Context | None = None):
    return PropagateTask().run(request, context or Context())


def test_the_network_answers_between_drawn_slices_and_says_so():
    context = Context()
    (segment,) = run(a_request(8, 19, 30), context).segments
    assert segment.method is SliceMethod.MEMORY
    assert segment.model == MODEL_ID
    assert any(text.startswith(MODEL_ID) and "sha256:" in text for text in context.weights)
    assert all(q.method is SliceMethod.MEMORY for q in segment.slices if not q.is_reference)
    found = placed(segment, SHAPE)
    np.testing.assert_array_equal(found[[8, 19, 30]], EGG[[8, 19, 30]])
    assert dice(found[8:31], EGG[8:31]) > 0.93


def test_geometry_bears_no_model_and_needs_no_weights():
    context = Context()
    (segment,) = run(a_request(8, 19, 30, method=Method.GEOMETRY), context).segments
    assert (segment.method, segment.model, context.weights) == (SliceMethod.FALLBACK, "", [])


def test_from_one_slice_the_network_goes_on_until_the_structure_ends():
    (segment,) = run(a_request(19, extend=None)).segments
    found = placed(segment, SHAPE)
    held = np.flatnonzero(found.any(axis=(1, 2)))
    assert dice(found, EGG) > 0.85
    assert abs(held[0] - 6) <= 3
    assert abs(held[-1] - 32) <= 3


def test_a_stated_number_of_slices_is_gone_on_by():
    (segment,) = run(a_request(12, 26, extend=3)).segments
    assert [q.index for q in segment.slices] == list(range(9, 30))


def test_slices_drawn_empty_end_the_structure():
    (segment,) = run(a_request(2, 19, 37, extend=None)).segments
    found = placed(segment, SHAPE)
    assert not found[[2, 37]].any()
    assert segment.slices[0].index >= 2
    assert segment.slices[-1].index <= 37
    assert dice(found, EGG) > 0.6


def test_a_correction_changes_only_what_it_was_asked_for_and_gives_the_same_there():
    request = a_request(8, 19, 30)
    whole = placed(run(request).segments[0], SHAPE)
    (part,) = run(a_request(8, 19, 30, only_slices=(19, 30))).segments
    assert [q.index for q in part.slices] == list(range(19, 31))
    np.testing.assert_array_equal(placed(part, SHAPE)[19:31], whole[19:31])


def test_segments_that_were_drawn_apart_stay_apart():
    result = run(a_request(12, 19, 26, masks={"egg": EGG & ~BESIDE, "beside": BESIDE}))
    one, other = (placed(segment, SHAPE) for segment in result.segments)
    assert not (one & other).any()


@pytest.mark.parametrize("axis", list(Axis))
def test_every_axis_gives_the_same_shapes(axis):
    turned = np.moveaxis(EGG, 0, axis.array_axis)
    image = np.moveaxis(an_image().array, 0, axis.array_axis)
    spacing = [1.0, 1.0]
    spacing.insert(axis.array_axis, 1.5)
    volume = Volume(image, np.diag([*reversed(spacing), 1.0]))
    drawing = take_drawing("egg", "egg", turned, axis, [8, 19, 30])
    (segment,) = run(PropagateRequest(volume, axis, (drawing,))).segments
    found = np.moveaxis(placed(segment, turned.shape), axis.array_axis, 0)
    (straight,) = run(a_request(8, 19, 30)).segments
    assert dice(found, placed(straight, SHAPE)) > 0.999


def test_what_lies_far_away_does_not_matter():
    request = a_request(8, 19, 30)
    far = request.volume.array.copy()
    far[:, :4] = 5000
    other = PropagateRequest(Volume(far, request.volume.ijk_to_ras), Axis.K, request.drawings)
    found = [placed(run(one).segments[0], SHAPE) for one in (request, other)]
    assert dice(*found) > 0.98


@pytest.fixture
def no_torch(monkeypatch):
    for name in [name for name in sys.modules if name == "torch" or name.startswith("Mem3DPropagateLib.nets.gapnet")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    methods._kept_network.cache_clear()
    yield
    methods._kept_network.cache_clear()


def test_without_pytorch_auto_falls_back_on_geometry_and_says_so(no_torch):
    context = Context()
    result = run(a_request(8, 19, 30), context)
    assert result.segments[0].method is SliceMethod.FALLBACK
    assert any("PyTorch" in text and "Geometry" in text for text in result.warnings)


def test_without_pytorch_the_network_asked_for_is_an_error(no_torch):
    with pytest.raises(MissingPackage, match="PyTorch"):
        run(a_request(8, 19, 30, method=Method.NETWORK))


def test_a_memory_network_without_weights_is_asked_for_them():
    with pytest.raises(InputError, match="needs weights") as caught:
        run(a_request(8, 19, 30, method=Method.STM))
    assert "network" in caught.value.todo


def test_weights_that_are_not_there_or_of_another_network_are_refused(tmp_path):
    with pytest.raises(FileMissing):
        run(a_request(8, 19, 30, method=Method.STM, weights=str(tmp_path / "none.pth")))
    with pytest.raises(InvalidWeights):
        run(a_request(8, 19, 30, method=Method.STM, weights=str(EMBEDDED)))


@pytest.fixture(scope="module")
def narrow_stm_file(tmp_path_factory) -> Path:
    """Weights of a narrow memory network, by rule."""
    from stm_cases import loaded, narrow

    folder = tmp_path_factory.mktemp("stm")
    loaded(folder, narrow())
    return folder / "network.pth"


def test_a_memory_network_with_weights_propagates_through_the_task(narrow_stm_file):
    context = Context()
    request = a_request(12, 26, masks={"egg": EGG, "beside": BESIDE}, method=Method.STM, weights=str(narrow_stm_file))
    result = run(request, context)
    assert len(context.weights) == 1
    for segment, mask in zip(result.segments, (EGG, BESIDE), strict=True):
        found = placed(segment, SHAPE)
        np.testing.assert_array_equal(found[[12, 26]], mask[[12, 26]])
        assert [q.index for q in segment.slices] == list(range(12, 27))
        assert {q.method for q in segment.slices if not q.is_reference} == {SliceMethod.MEMORY}


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerRunner]:
    with WorkerRunner(threads=1) as runner:
        yield runner


def test_both_runners_give_the_same_to_the_bit(worker):
    request = a_request(8, 19, 30, extend=2)
    here, there = InProcessRunner().run(TASK, request), worker.run(TASK, request)
    np.testing.assert_array_equal(here.result.segments[0].block, there.result.segments[0].block)
    assert here.report.weights == there.report.weights != ()
