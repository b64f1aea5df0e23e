"""The same request gives the same result through every runner; a run that is ended leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from phantoms import a_request, ball, ellipsoid, tube

from MedAILib.errors import Cancelled, NothingDrawn, WorkerDied
from MedAILib.jobs.runner import InProcessRunner, JobState
from MedAILib.jobs.worker_runner import WorkerRunner
from Mem3DPropagateLib.feature import FEATURE
from Mem3DPropagateLib.request import Axis, PropagateRequest, PropagateResult
from Mem3DPropagateLib.summary import result_summary

(TASK,) = FEATURE.tasks
TURNED = np.array([[0.0, 0.9, 0.1, 3], [0.8, 0.0, 0.0, -20], [0.0, 0.2, -2.5, 7], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerRunner]:
    with WorkerRunner(threads=1) as runner:
        yield runner


def assert_identical(one: PropagateResult, other: PropagateResult) -> None:
    assert result_summary(one) == result_summary(other) and one.warnings == other.warnings
    for a, b in zip(one.segments, other.segments, strict=True):
        assert (a.slices, a.advice, a.confidence) == (b.slices, b.advice, b.confidence)
        assert a.origin_kji == b.origin_kji and b.block.dtype == bool
        np.testing.assert_array_equal(a.block, b.block)


@pytest.mark.parametrize(
    "request_",
    [
        a_request({"a": ball((21, 30, 30), (10, 15, 15), 9)}, Axis.K, (2, 10, 18)),
        a_request({"a": ball((21, 30, 30), (10, 15, 15), 9)}, Axis.I, (15,), TURNED, extend=None),
        a_request(
            {"ä": tube((30, 25, 25), (0, 8, 8), (29, 15, 15), 5), "漢 字": ball((30, 25, 25), (15, 18, 18), 5)},
            Axis.K,
            (2, 12, 16, 26),
            extend=3,
        ),
        a_request({"a": ball((21, 30, 30), (10, 15, 15), 9)}, Axis.J, (8, 12, 20), only_slices=(9, 14)),
        a_request({"a": ball((5, 9, 9), (2, 4, 4), 2)}, Axis.K, range(5)),
    ],
    ids=["plain", "turned, one slice", "two segments", "correction", "all drawn"],
)
def test_a_worker_answers_bit_for_bit_what_this_process_does(worker: WorkerRunner, request_: PropagateRequest) -> None:
    here, there = InProcessRunner().run(TASK, request_), worker.run(TASK, request_)
    assert_identical(here.result, there.result)
    assert here.report.task == there.report.task == TASK
    assert list(here.report.stages) == list(there.report.stages)


def test_an_error_of_the_task_keeps_its_kind_across_the_process_border(worker: WorkerRunner) -> None:
    request = a_request({"a": ball((9, 9, 9), (4, 4, 4), 2)}, Axis.K, (0, 8))
    with pytest.raises(NothingDrawn, match="'A'") as error:
        worker.run(TASK, request)
    assert "three to five slices" in error.value.todo


def test_warnings_of_the_task_come_with_the_outcome(worker: WorkerRunner) -> None:
    request = a_request({"a": ball((12, 60, 60), (6, 30, 30), 25)}, Axis.K, (6,), extend=None)
    outcome = worker.run(TASK, request)
    assert outcome.report.warnings == outcome.result.warnings != ()


def a_long_request() -> PropagateRequest:
    """Some seconds of work."""
    mask = ellipsoid((160, 320, 320), (80, 160, 160), (79, 150, 150))
    return a_request({"a": mask}, Axis.K, (5, 40, 80, 120, 155))


def started(worker: WorkerRunner, request: PropagateRequest):
    seen = []
    job = worker.start(TASK, request, seen.append)
    end = time.monotonic() + 20
    while not any(progress.stage == "Propagating" for progress in seen):
        assert job.poll() is JobState.RUNNING and time.monotonic() < end
    return job


def test_a_long_run_reports_how_far_it_is_and_can_be_cancelled_within_a_second(worker: WorkerRunner) -> None:
    job = started(worker, a_long_request())
    begin = time.monotonic()
    job.cancel()
    assert time.monotonic() - begin < 1.0 and job.state is JobState.CANCELLED
    with pytest.raises(Cancelled):
        job.outcome()


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_worker_killed_in_mid_job_is_told_and_the_next_run_succeeds(worker: WorkerRunner) -> None:
    job = started(worker, a_long_request())
    os.kill(worker.process_id, signal.SIGKILL)
    assert job.wait(5.0) is JobState.FAILED
    with pytest.raises(WorkerDied) as error:
        job.outcome()
    assert error.value.why and error.value.todo
    request = a_request({"a": ball((9, 9, 9), (4, 4, 4), 3)}, Axis.K, (1, 4, 7))
    assert_identical(worker.run(TASK, request).result, InProcessRunner().run(TASK, request).result)


def test_the_task_is_imported_without_torch_vtk_or_slicer(repository: Path) -> None:
    program = (
        "import sys, Mem3DPropagateLib.task, Mem3DPropagateLib.command, Mem3DPropagateLib.record;"
        "print(sorted({'torch', 'vtk', 'slicer', 'qt', 'SimpleITK', 'pydicom', 'PIL'} & set(sys.modules)))"
    )
    paths = os.pathsep.join(str(repository / name) for name in ("MedAIExtension", "Mem3DPropagate"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr
