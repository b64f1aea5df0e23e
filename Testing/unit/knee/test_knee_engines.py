"""The engines through the worker: cancelled, killed, timed out, out of memory, ten times in a row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need PyTorch, which is not installed")
pytest.importorskip("h5py", reason="Keras files need h5py, which is not installed")

from dosma_files import FILES, save_classifiers  # noqa: E402
from keras_files import residual_unet  # noqa: E402
from synthetic_knees import synthetic_volume  # noqa: E402

from KneeAnalysisLib.engines import ENGINES, SegmentTask, engine_info, load_engine  # noqa: E402
from KneeAnalysisLib.segmentation import EngineName, EngineOptions, SegmentRequest, TimedOut  # noqa: E402
from MedAILib.errors import Cancelled, FileMissing, GeometryMismatch, InputError, OutOfMemory, WorkerDied  # noqa: E402
from MedAILib.grids import Box, cropped  # noqa: E402
from MedAILib.jobs.runner import InProcessRunner, JobState  # noqa: E402
from MedAILib.jobs.task import Progress  # noqa: E402
from MedAILib.jobs.worker_runner import WorkerJob, WorkerRunner  # noqa: E402
from MedAILib.volume import Volume  # noqa: E402

GROWTH_MB = 8
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets limits of other processes")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks that answer at once."""
    return save_classifiers(tmp_path_factory.mktemp("schnelle Netze"))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes minutes for a knee."""
    path = tmp_path_factory.mktemp("langsam") / "sagittal_best_model.h5"
    return residual_unet((1, 512, 512), filters=24).save(path)


@pytest.fixture
def runner() -> Iterator[WorkerRunner]:
    with WorkerRunner(threads=1) as made:
        yield made


@pytest.fixture
def quick(weights: Path) -> SegmentRequest:
    return SegmentRequest(synthetic_volume()[0], EngineName.DOSMA_SAGITTAL, (weights,))


def _slow_request(slow: Path, **options: float) -> SegmentRequest:
    return SegmentRequest(
        synthetic_volume()[0], EngineName.DOSMA_SAGITTAL, (slow,), options=EngineOptions(batch_size=36, **options)
    )


def _started(runner: WorkerRunner, request: SegmentRequest) -> WorkerJob:
    """A job in the middle of its first batch."""
    seen: list[Progress] = []
    job = runner.start(SegmentTask, request, seen.append)
    end = time.monotonic() + 60
    while not any(progress.fraction >= 0.1 for progress in seen):
        assert job.poll() is JobState.RUNNING
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.2)
    return job


def test_cancel_ends_a_running_network_at_once_and_the_next_job_runs(
    runner: WorkerRunner, slow: Path, quick: SegmentRequest
) -> None:
    job = _started(runner, _slow_request(slow))
    began = time.monotonic()
    job.cancel()
    assert time.monotonic() - began < 10  # of minutes; Testing/benchmarks/knee_cancel.py prints how long
    with pytest.raises(Cancelled):
        job.outcome()
    assert runner.run(SegmentTask, quick).result.labels.layers[0].any()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_a_killed_worker_is_told_and_the_next_job_runs(runner: WorkerRunner, slow: Path, quick: SegmentRequest) -> None:
    job = _started(runner, _slow_request(slow))
    assert runner.process_id is not None
    os.kill(runner.process_id, signal.SIGKILL)
    assert job.wait(30) is JobState.FAILED
    with pytest.raises(WorkerDied, match="memory ran out"):
        job.outcome()
    assert runner.run(SegmentTask, quick).result.labels.layers[0].any()


def test_the_time_limit_ends_a_run_and_the_worker_goes_on(
    runner: WorkerRunner, slow: Path, quick: SegmentRequest
) -> None:
    runner.run(SegmentTask, quick)
    worker = runner.process_id
    began = time.monotonic()
    with pytest.raises(TimedOut, match="longer than the 1 s") as caught:
        runner.run(SegmentTask, _slow_request(slow, timeout_s=1.0))
    assert time.monotonic() - began < 30  # of minutes
    assert "faster engine" in caught.value.todo
    assert runner.run(SegmentTask, quick).result.labels.layers[0].any()
    assert runner.process_id == worker


@linux_only
def test_a_worker_without_memory_says_so_and_goes_on_when_there_is_some_again(
    runner: WorkerRunner, slow: Path, quick: SegmentRequest
) -> None:
    """Real want of memory: the worker's address space is limited while it runs."""
    import resource

    runner.run(SegmentTask, quick)
    worker = runner.process_id
    assert worker is not None
    limit = (_status_mb(worker, "VmSize") + 300) << 20
    resource.prlimit(worker, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    with pytest.raises(OutOfMemory) as caught:
        runner.run(SegmentTask, _slow_request(slow))
    assert caught.value.todo
    resource.prlimit(worker, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert runner.run(SegmentTask, quick).result.labels.layers[0].any()
    assert runner.process_id == worker


@linux_only
@pytest.mark.parametrize("engine", [EngineName.DOSMA_SAGITTAL, EngineName.DOSMA_STAPLE])
def test_ten_jobs_in_one_worker_leave_its_memory_flat(engine: EngineName, weights: Path, runner: WorkerRunner) -> None:
    request = SegmentRequest(synthetic_volume()[0], engine, (weights,))
    resident = []
    for _ in range(10):
        runner.run(SegmentTask, request)
        assert runner.process_id is not None
        resident.append(_status_mb(runner.process_id, "VmRSS"))
    assert resident[-1] - resident[2] < GROWTH_MB, resident


def _status_mb(process_id: int, key: str) -> int:
    lines = Path(f"/proc/{process_id}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(key))


def test_a_network_stays_loaded_until_its_file_changes(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "sagittal_best_model.h5"
    path.write_bytes((weights / "sagittal_best_model.h5").read_bytes())
    request = SegmentRequest(synthetic_volume()[0], EngineName.DOSMA_SAGITTAL, (path,))
    task, runner = SegmentTask(), InProcessRunner()
    first = runner.run(task, request).result
    engine = task._engine
    runner.run(task, request)
    assert task._engine is engine
    residual_unet((1, 64, 56)).save(path)
    second = runner.run(task, request).result
    assert task._engine is not engine
    assert second.weights[0].sha256 != first.weights[0].sha256


def test_a_label_map_that_is_there_is_taken_in_any_scheme_and_cut() -> None:
    volume, labels = synthetic_volume("LPS")
    part = cropped(labels, Box((2, 3, 4), labels.geometry.shape_kji))
    request = SegmentRequest(volume, EngineName.NONE, existing=part, labels="native")
    result = InProcessRunner().run(SegmentTask, request).result
    assert result.weights == ()
    assert result.labels.geometry.same_grid_as(volume.geometry)
    assert np.array_equal(result.labels.mask("femur")[2:, 3:, 4:], part.layers[0] == 7)


def test_a_label_map_on_another_grid_is_refused() -> None:
    volume, labels = synthetic_volume("LPS")
    shifted = labels.ijk_to_ras.copy()
    shifted[0, 3] += 0.2
    moved = type(labels)(labels.layers, shifted, labels.segments)
    request = SegmentRequest(volume, EngineName.NONE, existing=moved, labels="native")
    with pytest.raises(GeometryMismatch):
        InProcessRunner().run(SegmentTask, request)


def test_every_problem_of_a_request_is_said_at_once() -> None:
    options = EngineOptions(tile_step=0, batch_size=-1, timeout_s=-3, checkpoint="../x.pth")
    with pytest.raises(InputError) as caught:
        SegmentRequest(synthetic_volume()[0], EngineName.NNUNET_FULLRES, options=options).validate()
    for problem in ("tile step is 0", "batch size is -1", "time limit is -3", "'../x.pth'", "no weights"):
        assert problem in caught.value.what
    with pytest.raises(InputError, match="no label map"):
        SegmentRequest(synthetic_volume()[0], EngineName.NONE).validate()
    with pytest.raises(InputError, match="what the values of the label map mean"):
        SegmentRequest(synthetic_volume()[0], EngineName.NONE, existing=synthetic_volume()[1]).validate()


def test_the_consensus_takes_native_networks_only(weights: Path) -> None:
    volume, labels = synthetic_volume()
    request = SegmentRequest(volume, EngineName.DOSMA_STAPLE, (weights,), labels="canonical")
    with pytest.raises(InputError, match="native labels"):
        request.validate()
    told = InProcessRunner().run(SegmentTask, replace(request, labels="native")).result.labels
    assert np.mean((told.layers[0] == 1) == (labels.layers[0] == 7)) > 0.99


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_an_image_that_shows_nothing_is_refused_before_a_network_is_loaded(value: float, tmp_path: Path) -> None:
    volume = Volume(np.full((4, 5, 6), value, np.float32), np.eye(4))
    with pytest.raises(InputError):
        InProcessRunner().run(SegmentTask, SegmentRequest(volume, EngineName.DOSMA_AXIAL, (tmp_path / "absent.h5",)))


def test_weights_that_are_not_there_are_told_with_the_command_that_gets_them(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="medai models get knee-dosma-bones-coronal"):
        load_engine(EngineName.DOSMA_CORONAL, [tmp_path], EngineOptions())


def test_engines_are_known_by_the_names_of_the_command_line() -> None:
    assert set(ENGINES) == set(EngineName)
    assert engine_info("dosma-staple").models == tuple(f"knee-dosma-bones-{plane}" for plane in FILES)
    with pytest.raises(InputError, match="nnunet-fullres"):
        engine_info("nnunet")


def test_describing_the_engines_loads_no_network_library() -> None:
    code = (
        "import sys, KneeAnalysisLib.engines, KneeAnalysisLib.nnunet, KneeAnalysisLib.dosma;"
        "heavy = {'torch', 'nnunetv2', 'tensorflow', 'keras', 'h5py', 'SimpleITK', 'scipy', 'skimage'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
