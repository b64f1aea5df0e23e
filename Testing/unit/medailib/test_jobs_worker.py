"""The worker process: cancelled, killed, crashed, shouted over; with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sample_tasks as sample

from MedAILib.errors import Cancelled, JobError, OutputError, WorkerDied
from MedAILib.jobs.process import python_executable, worker_environment
from MedAILib.jobs.runner import JobState
from MedAILib.jobs.selfcheck import check_runner
from MedAILib.jobs.task import Progress
from MedAILib.jobs.worker_runner import WorkerJob, WorkerRunner

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX")


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerRunner]:
    """A runner whose job folders lie in a folder with a difficult name, which must be empty at the end."""
    folder = tmp_path / "Ordner mit ü漢"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with WorkerRunner(threads=1) as made:
        yield made
    assert list(folder.iterdir()) == []


def _wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> float:
    """Seconds until a condition holds; fails after the time."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "waited in vain"
        time.sleep(0.005)
    return time.monotonic() - started


def _is_running(process_id: int) -> bool:
    """False for a process that is gone or only waits to be buried."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return False
        done = subprocess.run(["ps", "-o", "state=", "-p", str(process_id)], capture_output=True, check=False)
        return done.stdout.strip() not in (b"", b"Z")
    return status.rpartition(")")[2].split()[0] not in "ZX"


def _start_and_wait_for_progress(runner: WorkerRunner, task: type, request: object) -> WorkerJob:
    seen: list[Progress] = []
    job = runner.start(task, request, seen.append)
    _wait_until(lambda: job.poll() is not JobState.RUNNING or bool(seen))
    assert job.state is JobState.RUNNING
    return job


def _read_process_id(file: Path) -> int:
    _wait_until(file.exists)
    return int(file.read_text(encoding="ascii"))


def test_twenty_jobs_run_in_one_worker(runner: WorkerRunner) -> None:
    found = {runner.run(sample.ProcessIdTask, sample.Number()).result.value for _ in range(20)}
    assert found == {runner.process_id}
    assert os.getpid() not in found


def test_starting_and_polling_never_wait(runner: WorkerRunner) -> None:
    runner.run(sample.ProcessIdTask, sample.Number())
    started = time.monotonic()
    job = runner.start(sample.SleepInCTask, sample.Number(30))
    for _ in range(10):
        assert job.poll() is JobState.RUNNING
    assert time.monotonic() - started < 0.2
    assert job.wait(timeout_s=0.05) is JobState.RUNNING


def test_a_second_start_while_one_runs_is_refused(runner: WorkerRunner) -> None:
    first = runner.start(sample.SleepPolitelyTask, sample.Number(20))
    with pytest.raises(JobError, match="already under way"):
        runner.start(sample.ProcessIdTask, sample.Number())
    assert first.poll() is JobState.RUNNING


def test_cancel_ends_a_task_that_sleeps_in_c_within_a_second(runner: WorkerRunner) -> None:
    job = _start_and_wait_for_progress(runner, sample.SleepInCTask, sample.Number(60))
    worker = runner.process_id
    assert worker is not None
    started = time.monotonic()
    job.cancel()
    assert time.monotonic() - started < 1
    assert not _is_running(worker)
    assert job.state is JobState.CANCELLED
    with pytest.raises(Cancelled):
        job.outcome()
    assert runner.run(sample.ProcessIdTask, sample.Number()).result.value != worker


def test_cancel_lets_a_polite_task_clean_up_and_keeps_the_worker(runner: WorkerRunner, tmp_path: Path) -> None:
    mark = tmp_path / "mark.txt"
    job = _start_and_wait_for_progress(runner, sample.CleanUpWhenCancelledTask, sample.Text(str(mark)))
    worker = runner.process_id
    job.cancel()
    assert job.state is JobState.CANCELLED
    assert mark.read_text(encoding="utf-8") == "cleaned up"
    assert runner.run(sample.ProcessIdTask, sample.Number()).result.value == worker


@posix_only
@pytest.mark.parametrize("task", [sample.ChildTask, sample.PoliteChildTask])
def test_cancel_ends_the_children_of_a_task_too(runner: WorkerRunner, task: type, tmp_path: Path) -> None:
    file = tmp_path / "child"
    job = _start_and_wait_for_progress(runner, task, sample.Text(str(file)))
    child = _read_process_id(file)
    assert _is_running(child)
    started = time.monotonic()
    job.cancel()
    assert time.monotonic() - started < 1
    assert _wait_until(lambda: not _is_running(child)) < 0.5


def test_cancel_right_after_the_start_is_heeded(runner: WorkerRunner) -> None:
    job = runner.start(sample.SleepInCTask, sample.Number(60))
    started = time.monotonic()
    job.cancel()
    job.cancel()
    assert time.monotonic() - started < 1
    assert job.poll() is JobState.CANCELLED


def test_a_cancelled_job_stays_cancelled_even_if_it_was_just_done(runner: WorkerRunner) -> None:
    job = runner.start(sample.ProcessIdTask, sample.Number())
    time.sleep(0.5)
    job.cancel()
    assert job.poll() is JobState.CANCELLED
    assert runner.run(sample.BugTask, sample.Number(1)).result.value == 1


@posix_only
def test_killing_the_worker_is_told_within_a_second(runner: WorkerRunner) -> None:
    job = _start_and_wait_for_progress(runner, sample.SleepInCTask, sample.Number(60))
    assert runner.process_id is not None
    os.kill(runner.process_id, signal.SIGKILL)
    assert _wait_until(lambda: job.poll() is not JobState.RUNNING) < 1
    with pytest.raises(WorkerDied, match="memory ran out"):
        job.outcome()
    assert runner.run(sample.BugTask, sample.Number(1)).result.value == 1


@posix_only
def test_a_dead_worker_is_noticed_though_its_child_holds_the_connection(runner: WorkerRunner, tmp_path: Path) -> None:
    file = tmp_path / "child"
    job = runner.start(sample.DieWithChildTask, sample.Text(str(file)))
    child = _read_process_id(file)
    assert _wait_until(lambda: job.poll() is not JobState.RUNNING) < 1.5
    assert job.state is JobState.FAILED
    _wait_until(lambda: not _is_running(child))


@posix_only
def test_a_worker_killed_between_two_jobs_is_replaced(runner: WorkerRunner) -> None:
    first = runner.run(sample.ProcessIdTask, sample.Number()).result.value
    os.kill(first, signal.SIGKILL)
    _wait_until(lambda: runner.process_id is None)
    second = runner.run(sample.ProcessIdTask, sample.Number()).result.value
    assert second != first


@posix_only
@pytest.mark.parametrize(
    ("task", "words", "details"),
    [
        (sample.ExitTask, "code 3: last words: Grüße 漢", "last words: Grüße 漢"),
        (sample.SegfaultTask, "native library crashed.*SIGSEGV", "in string_at"),
        (sample.KilledTask, "memory ran out", "exit code -9"),
    ],
)
def test_a_death_is_explained(runner: WorkerRunner, task: type, words: str, details: str) -> None:
    with pytest.raises(WorkerDied, match=words) as caught:
        runner.run(task, sample.Number(3))
    assert caught.value.todo
    assert details in caught.value.details
    assert runner.run(sample.BugTask, sample.Number(1)).result.value == 1


def test_a_task_that_exits_python_does_not_end_the_worker(runner: WorkerRunner) -> None:
    with pytest.raises(JobError, match="SystemExit"):
        runner.run(sample.SystemExitTask, sample.Number(3))
    assert runner.process_id is not None


@posix_only
def test_prints_to_standard_output_cannot_corrupt_the_messages(runner: WorkerRunner) -> None:
    request = sample.Text("ü漢" * 70_000)
    assert runner.run(sample.GarbageTask, request).result == request
    assert runner.run(sample.GarbageTask, sample.Text("again")).result.value == "again"


def test_standard_input_of_a_task_is_empty(runner: WorkerRunner) -> None:
    assert runner.run(sample.ReadStandardInputTask, sample.Number()).result.value == 0


def test_a_start_up_script_that_prints_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello from the system'); print('{}')\n", encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with WorkerRunner(threads=1) as runner:
        assert runner.run(sample.BugTask, sample.Number(1)).result.value == 1


def test_a_result_that_is_no_plain_value_is_an_error(runner: WorkerRunner) -> None:
    with pytest.raises(JobError, match=r"builtins\.set"):
        runner.run(sample.SetResultTask, sample.Number())


def test_a_request_that_is_no_plain_value_is_refused_at_the_start(runner: WorkerRunner) -> None:
    with pytest.raises(JobError, match=r"builtins\.set"):
        runner.start(sample.ProcessIdTask, {1, 2})
    assert runner.process_id is None


def test_a_large_array_passes(runner: WorkerRunner) -> None:
    large = np.random.default_rng(1).integers(0, 255, 50_000_000, dtype=np.uint8)
    request = sample.ArithmeticRequest(
        sample.Volume(np.zeros((1, 1, 1)), np.eye(4)), sample.Mode.ADD, 0.0, extras=(large,)
    )
    found = runner.run(sample.ArithmeticTask, request).result.extras[0]
    assert np.array_equal(found, large)


def test_arrays_may_change_once_the_job_has_started(runner: WorkerRunner) -> None:
    array = np.zeros((100, 100, 100))
    request = sample.ArithmeticRequest(sample.Volume(array, np.eye(4)), sample.Mode.ADD, 1.0)
    job = runner.start(sample.ArithmeticTask, request)
    array[:] = 7
    job.wait()
    assert job.outcome().result.volume.array.max() == 1


def test_results_outlive_the_worker_and_the_folder(runner: WorkerRunner) -> None:
    array = np.ones((60, 60, 60))
    request = sample.ArithmeticRequest(sample.Volume(array, np.eye(4)), sample.Mode.ADD, 1.0)
    job = runner.start(sample.ArithmeticTask, request)
    job.wait()
    outcome = job.outcome()
    assert job.outcome() is outcome
    assert not job.folder.exists()
    runner.close()
    assert outcome.result.volume.array.min() == 2


def test_a_job_whose_outcome_nobody_took_leaves_nothing_behind(runner: WorkerRunner) -> None:
    job = runner.start(sample.ProcessIdTask, sample.Number())
    job.wait()
    folder = job.folder
    assert folder.exists()
    del job
    runner.run(sample.ProcessIdTask, sample.Number())
    assert not folder.exists()


def test_threads_and_device_reach_the_task_and_this_process_keeps_its_environment() -> None:
    before = dict(os.environ)
    with WorkerRunner(device="cuda:1", threads=3) as runner:
        assert runner.run(sample.ThreadsTask, sample.Number()).result.value == "3 3 cuda:1"
    assert dict(os.environ) == before


def test_a_closed_runner_may_be_used_again(runner: WorkerRunner) -> None:
    first = runner.run(sample.ProcessIdTask, sample.Number()).result.value
    runner.close()
    assert runner.process_id is None
    assert not _is_running(first)
    assert runner.run(sample.ProcessIdTask, sample.Number()).result.value != first


def test_a_forgotten_runner_ends_its_worker() -> None:
    runner = WorkerRunner(threads=1)
    worker = runner.run(sample.ProcessIdTask, sample.Number()).result.value
    del runner
    assert not _is_running(worker)


@posix_only
@pytest.mark.parametrize("how", ["killed", "leaves at once", "ends"])
def test_the_worker_and_its_children_end_with_their_parent(how: str, tmp_path: Path) -> None:
    ids = tmp_path / "child"
    code = f"""
import os, sys, time, tempfile
sys.path.insert(0, {str(Path(sample.__file__).parent)!r})
tempfile.tempdir = {str(tmp_path)!r}
import sample_tasks as sample
from MedAILib.jobs.worker_runner import WorkerRunner
runner = WorkerRunner(threads=1)
job = runner.start(sample.ChildTask, sample.Text({str(ids)!r}))
print(runner.process_id, flush=True)
sys.stdin.readline()
os._exit(1) if {how!r} == "leaves at once" else None
"""
    environment = worker_environment(os.environ, 1)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        child = _read_process_id(ids)
        assert _is_running(worker)
        parent.kill() if how == "killed" else parent.stdin.close()
        parent.wait(10)
    _wait_until(lambda: not _is_running(worker) and not _is_running(child), 3)
    _wait_until(lambda: not list(tmp_path.glob("medai-job-*")), 1)


def test_an_interrupt_while_waiting_cancels_the_job(runner: WorkerRunner) -> None:
    jobs: list[WorkerJob | None] = []

    def interrupt(progress: Progress) -> None:
        jobs.append(runner.job)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(sample.SleepInCTask, sample.Number(60), interrupt)
    assert jobs[0] is not None
    assert jobs[0].state is JobState.CANCELLED
    assert runner.job is None


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "kein Python ü"
    with WorkerRunner(threads=1, executable=missing) as runner, pytest.raises(WorkerDied, match="kein Python ü"):
        runner.run(sample.ProcessIdTask, sample.Number())


@posix_only
def test_a_python_without_numpy_is_explained(tmp_path: Path) -> None:
    bare = tmp_path / "bare python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    with WorkerRunner(threads=1, executable=bare) as runner, pytest.raises(JobError, match="numpy"):
        runner.run(sample.ProcessIdTask, sample.Number())


@posix_only
def test_a_program_that_is_no_worker_is_explained(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho 'I am something else'\nexit 7\n", encoding="utf-8")
    other.chmod(0o755)
    with WorkerRunner(threads=1, executable=other) as runner, pytest.raises(WorkerDied, match="exited with code 7"):
        runner.run(sample.ProcessIdTask, sample.Number())


def test_a_full_disk_is_an_output_error(runner: WorkerRunner) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    job_request = sample.ArithmeticRequest(
        sample.Volume(np.zeros((1, 1, 1)), np.eye(4)), sample.Mode.ADD, 0.0, extras=(np.zeros(10),)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "save", lambda file, array, **options: _save_to(full, array))
        with pytest.raises(OutputError, match="Free some space"):
            runner.start(sample.ArithmeticTask, job_request)


def _save_to(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, array)


def test_inside_slicer_the_worker_runs_on_its_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "PythonSlicer"
    program.write_text("#!/bin/sh\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert python_executable(inside_slicer=True).name.startswith("PythonSlicer")
    assert python_executable(inside_slicer=False) == Path(sys.executable)


def test_the_environment_keeps_what_was_there_and_puts_our_library_first() -> None:
    base = {"PYTHONPATH": os.pathsep.join(["/other", ""]), "HOME": "/home/ü"}
    found = worker_environment(base, 2)
    library, *others = found["PYTHONPATH"].split(os.pathsep)
    assert (Path(library) / "MedAILib" / "errors.py").exists()
    assert others == ["/other"]
    assert (found["OMP_NUM_THREADS"], found["PYTHONUTF8"], found["HOME"]) == ("2", "1", "/home/ü")
    assert base == {"PYTHONPATH": os.pathsep.join(["/other", ""]), "HOME": "/home/ü"}


def test_the_check_of_the_worker_tells_times_and_python(runner: WorkerRunner) -> None:
    check = check_runner(runner)
    assert check.process_id == runner.process_id
    assert check.second_s < check.first_s < 10
    assert check.python.startswith("3.")
