"""A result is taken into the scene whole or not at all."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import pytest
from phantoms import ball, ellipsoid, on_slices
from propagating import DRAWN, GRID, ORGAN, SHAPE, draw, mask_of, propagate, scene_of, small_disc

from MedAILib.errors import Cancelled, InputError, WorkerDied
from MedAILib.jobs.runner import InProcessRunner, JobState
from MedAILib.jobs.worker_runner import WorkerRunner
from MedAILib.mrml.nodes import run_id
from MedAILib.mrml.segment_edit import write_segment_block
from MedAILib.mrml.segmentations import (
    get_tag,
    set_tag,
)
from MedAILib.mrml.undo import UndoHistory
from MedAILib.volume import Geometry
from Mem3DPropagateLib.logic import (
    Options,
    ScenePropagation,
    read_record,
)
from Mem3DPropagateLib.record import TAG
from Mem3DPropagateLib.request import TASK, Axis

# Whole or not at all


def test_what_the_user_draws_during_a_run_is_not_overwritten(drawn) -> None:
    node, volume = drawn
    plan = ScenePropagation(node, volume)
    outcome = InProcessRunner().run(TASK, plan.request)
    draw(node, "organ", 16, small_disc())
    before, saved = scene_of(node), []
    with pytest.raises(InputError, match="changed while the propagation ran"):
        plan.write(outcome, lambda: saved.append(1))
    assert scene_of(node) == before and saved == []
    propagate(node, volume)
    np.testing.assert_array_equal(mask_of(node)[16], small_disc())


def test_drawing_on_another_segment_during_a_run_is_no_hindrance(a_volume, a_segmentation) -> None:
    node = a_segmentation(GRID, {"organ": on_slices(ORGAN, DRAWN), "other": np.zeros(SHAPE, bool)})
    plan = ScenePropagation(node, a_volume(), ["organ"])
    outcome = InProcessRunner().run(TASK, plan.request)
    drawn_meanwhile = np.zeros(SHAPE, bool)
    drawn_meanwhile[15:18, 10:20, 10:20] = True
    write_segment_block(node, "other", drawn_meanwhile, (0, 0, 0), GRID)
    plan.write(outcome)
    np.testing.assert_array_equal(mask_of(node, "other"), drawn_meanwhile)
    assert not (mask_of(node) & drawn_meanwhile).any()


@pytest.mark.parametrize("what", ["segment", "node"])
def test_a_segment_or_node_removed_during_a_run_is_told(scene, drawn, what) -> None:
    node, volume = drawn
    plan = ScenePropagation(node, volume)
    outcome = InProcessRunner().run(TASK, plan.request)
    if what == "node":
        scene.RemoveNode(node)
    else:
        node.GetSegmentation().RemoveSegment("organ")
    with pytest.raises(InputError, match="changed while"):
        plan.write(outcome)


def test_a_write_that_fails_half_way_is_taken_back(a_volume, a_segmentation, monkeypatch) -> None:
    node = a_segmentation(
        GRID, {"organ": on_slices(ORGAN, DRAWN), "b": on_slices(ball(SHAPE, (20, 15, 31), 2), (19, 21))}
    )
    plan = ScenePropagation(node, a_volume(), options=Options(axis=Axis.K))
    outcome = InProcessRunner().run(TASK, plan.request)
    before = scene_of(node)

    def full(*_args: Any) -> None:
        raise MemoryError("no room for the second tag")

    monkeypatch.setattr("Mem3DPropagateLib.logic.set_run_id", full)
    monkeypatch.setattr(
        "Mem3DPropagateLib.logic.set_tag", lambda node, one, *rest: full() if one == "b" else set_tag(node, one, *rest)
    )
    with pytest.raises(MemoryError):
        plan.write(outcome)
    assert scene_of(node) == before


def test_a_cancelled_run_leaves_the_scene_as_it_was(drawn) -> None:
    node, volume = drawn
    before, runner = scene_of(node), InProcessRunner()
    plan = ScenePropagation(node, volume)
    with pytest.raises(Cancelled):
        runner.run(TASK, plan.request, lambda progress: runner.job.cancel())
    assert scene_of(node) == before


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_worker_killed_in_mid_job_leaves_the_scene_as_it_was_and_says_so(a_volume, a_segmentation) -> None:
    grid = Geometry((160, 320, 320), np.eye(4))
    big = ellipsoid(grid.shape_kji, (80, 160, 160), (79, 150, 150))
    node = a_segmentation(grid, {"big": on_slices(big, (5, 40, 80, 120, 155))})
    plan = ScenePropagation(node, a_volume(grid))
    before = mask_of(node, "big", grid)
    seen: list[str] = []
    with WorkerRunner(threads=1) as runner:
        job = runner.start(TASK, plan.request, lambda progress: seen.append(progress.stage))
        end = time.monotonic() + 20
        while "Propagating" not in seen:
            assert job.poll() is JobState.RUNNING and time.monotonic() < end
        os.kill(runner.process_id, signal.SIGKILL)
        assert job.wait(5.0) is JobState.FAILED
        with pytest.raises(WorkerDied) as error:
            job.outcome()
    assert error.value.why and error.value.todo
    np.testing.assert_array_equal(mask_of(node, "big", grid), before)
    assert get_tag(node, "big", TAG) is None and run_id(node) is None


def test_a_worker_writes_what_this_process_writes(drawn, a_volume, a_segmentation) -> None:
    node, volume = drawn
    other = a_segmentation(GRID, {"organ": on_slices(ORGAN, DRAWN)})
    propagate(node, volume)
    with WorkerRunner(threads=1) as runner:
        propagate(other, volume, runner=runner)
    np.testing.assert_array_equal(mask_of(other), mask_of(node))
    assert read_record(other, "organ").fingerprints == read_record(node, "organ").fingerprints


def test_undo_and_redo_restore_voxels_and_memory_exactly(drawn) -> None:
    node, volume = drawn
    history = UndoHistory(node)
    drawing = scene_of(node)["masks"]
    for correct in (lambda: None, lambda: draw(node, "organ", 16, small_disc())):
        correct()
        before, tag = scene_of(node)["masks"], get_tag(node, "organ", TAG)
        plan = ScenePropagation(node, volume)
        plan.write(InProcessRunner().run(TASK, plan.request), history.save)
        after, new_tag = scene_of(node)["masks"], get_tag(node, "organ", TAG)
        assert history.undo()
        assert (scene_of(node)["masks"], get_tag(node, "organ", TAG)) == (before, tag)
        assert history.redo()
        assert (scene_of(node)["masks"], get_tag(node, "organ", TAG)) == (after, new_tag)
    while history.undo():
        pass
    assert scene_of(node)["masks"] == drawing
