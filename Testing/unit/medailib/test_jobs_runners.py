"""The same request through both runners; what only one of them can do is in `test_jobs_worker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_tasks as sample

from MedAILib.errors import (
    Cancelled,
    JobError,
    MedAIError,
    MissingPackage,
    NothingDrawn,
    OutOfMemory,
)
from MedAILib.jobs.runner import InProcessRunner, JobState, Runner
from MedAILib.jobs.task import Progress, task_name
from MedAILib.jobs.worker_runner import WorkerRunner
from MedAILib.volume import Volume


@pytest.fixture(scope="module", params=["in process", "worker"])
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    with InProcessRunner() if request.param == "in process" else WorkerRunner(threads=1) as made:
        yield made


def _arithmetic_request() -> sample.ArithmeticRequest:
    rng = np.random.default_rng(3)
    matrix = np.diag([0.7, -0.8, 2.5, 1.0])
    return sample.ArithmeticRequest(
        volume=Volume(rng.integers(-1000, 1000, (40, 50, 60), dtype=np.int16)[::-1, ::2], matrix, "Bauch ü漢"),
        mode=sample.Mode.MULTIPLY,
        factor=1 / 3,
        note="größer 漢字 \U0001f600",
        path=Path("/data/with space/ü漢.nii"),
        extras=(np.zeros((0, 3), dtype=bool), np.array([np.nan, -0.0, np.inf]), np.arange(9)[::-2]),
    )


def test_the_same_request_gives_the_same_result_through_both_runners() -> None:
    request = _arithmetic_request()
    here = InProcessRunner().run(sample.ArithmeticTask, request).result
    with WorkerRunner(threads=1) as runner:
        there = runner.run(sample.ArithmeticTask, request).result
    assert here.volume.array.tobytes() == there.volume.array.tobytes()
    assert here.volume.array.dtype == there.volume.array.dtype
    assert here.volume.geometry.same_grid_as(there.volume.geometry, 0.0)
    assert (here.volume.name, here.mode, here.note, here.path) == (
        there.volume.name,
        there.mode,
        there.note,
        there.path,
    )
    for a, b in zip(here.extras, there.extras, strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    assert here.statistics["mean"] == there.statistics["mean"]
    assert np.isnan(there.statistics["nan"])


def test_progress_comes_in_order_and_ends_at_one(runner: Runner) -> None:
    seen: list[Progress] = []
    job = runner.start(sample.ArithmeticTask, _arithmetic_request(), seen.append)
    while job.poll() is JobState.RUNNING:
        pass
    stages = ["reading", "calculating", "finishing"]
    assert [stages.index(p.stage) for p in seen] == sorted({stages.index(p.stage) for p in seen})
    assert seen[-1] == Progress("finishing", 1.0)
    job.outcome()


def test_the_report_tells_stages_warnings_inputs_and_versions(runner: Runner) -> None:
    job = runner.start(sample.ArithmeticTask, _arithmetic_request())
    job.wait()
    report = job.outcome().report
    assert report.run_id == job.id
    assert report.task == "sample_tasks:ArithmeticTask"
    assert list(report.stages) == ["reading", "calculating", "finishing"]
    assert sum(report.stages.values()) == pytest.approx(report.seconds, abs=0.05)
    assert report.warnings == ("Käse 漢: this is only a test.",) == tuple(job.warnings)
    assert report.inputs["volume"]["array"] == "int16 40 x 25 x 60"
    assert report.inputs["mode"] == "MULTIPLY"
    assert report.versions["numpy"] == np.__version__
    assert report.threads == 1
    assert report.device == "cpu"


def test_the_report_names_each_of_the_weights_used_once_in_every_run(runner: Runner) -> None:
    for _ in range(2):
        report = runner.run(sample.WeighTask, sample.Number(2)).report
        assert report.weights == (f"knee-net sha256:{'ab' * 32}", "embedded model ü漢 sha256:0")
    assert runner.run(sample.ProcessIdTask, sample.Number()).report.weights == ()


def test_a_task_is_found_by_name_and_kept_between_runs(runner: Runner) -> None:
    name = task_name(sample.CountCallsTask)
    assert [runner.run(name, sample.Number()).result.value for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("task", "request_value", "kind", "words"),
    [
        (sample.NothingDrawnTask, sample.Text("Warum? ü漢"), NothingDrawn, "Nichts gezeichnet: ü漢. Warum"),
        (sample.BugTask, sample.Number(), JobError, "ZeroDivisionError: integer division"),
        (sample.MemoryHungryTask, sample.Number(), OutOfMemory, "more memory than there is"),
        (sample.MissingPackageTask, sample.Number(), MissingPackage, "'a_package_nobody_has' is not installed"),
        ("sample_tasks:NoSuchTask", sample.Number(), JobError, "no task 'sample_tasks:NoSuchTask'"),
        ("no_such_module:Task", sample.Number(), JobError, "no task 'no_such_module:Task'"),
        ("MedAILib.no_such_module:Task", sample.Number(), JobError, "no task"),
        ("sample_tasks:Mode", sample.Number(), JobError, "no task"),
    ],
    ids=["own error", "bug", "memory", "package", "no class", "no module", "no submodule", "not a task"],
)
def test_a_failure_keeps_its_kind_and_its_words(
    runner: Runner, task: Any, request_value: Any, kind: type[MedAIError], words: str
) -> None:
    job = runner.start(task, request_value)
    assert job.wait() is JobState.FAILED
    with pytest.raises(kind, match=words) as caught:
        job.outcome()
    assert type(caught.value) is kind


def test_an_unexpected_error_carries_the_end_of_its_traceback(runner: Runner) -> None:
    with pytest.raises(JobError) as caught:
        runner.run(sample.BugTask, sample.Number())
    assert "return Number(1 // request.value)" in caught.value.details
    assert caught.value.details.endswith("ZeroDivisionError: integer division or modulo by zero")


def test_the_runner_works_on_after_a_failure(runner: Runner) -> None:
    with pytest.raises(NothingDrawn):
        runner.run(sample.NothingDrawnTask, sample.Text())
    assert runner.run(sample.BugTask, sample.Number(1)).result == sample.Number(1)


def test_the_scratch_folder_lives_as_long_as_the_job(runner: Runner) -> None:
    scratch = Path(runner.run(sample.ScratchTask, sample.Number()).result.value)
    assert scratch.is_absolute()
    assert not scratch.exists()


def test_peak_memory_is_that_of_the_run(runner: Runner) -> None:
    large = runner.run(sample.TouchMemoryTask, sample.Number(300)).report.peak_memory_mb
    small = runner.run(sample.TouchMemoryTask, sample.Number(1)).report.peak_memory_mb
    if large is None or small is None:
        pytest.skip("this system does not tell the peak memory of a process")
    assert large > 300
    assert small < large - 200


def test_an_outcome_before_the_end_is_a_mistake_of_the_caller() -> None:
    with WorkerRunner(threads=1) as runner:
        job = runner.start(sample.SleepPolitelyTask, sample.Number(10))
        with pytest.raises(RuntimeError, match="not ended"):
            job.outcome()


def test_in_this_process_a_progress_listener_can_cancel() -> None:
    runner = InProcessRunner()
    job = runner.start(sample.SleepPolitelyTask, sample.Number(30), lambda progress: runner.job.cancel())
    assert job.state is JobState.CANCELLED
    with pytest.raises(Cancelled):
        job.outcome()


def test_in_this_process_a_job_within_a_job_is_refused() -> None:
    runner = InProcessRunner()
    refusals: list[JobError] = []

    def start_another(progress: Progress) -> None:
        with pytest.raises(JobError, match="already under way") as caught:
            runner.start(sample.BugTask, sample.Number(1))
        refusals.append(caught.value)

    runner.run(sample.ArithmeticTask, _arithmetic_request(), start_another)
    assert len(refusals) == 3
