"""The whole analysis through the worker: with networks, ended early in every way, and never twice in one folder."""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from knee_cases import a_request
from synthetic_knees import dice, synthetic_volume

from KneeAnalysisLib.chain import with_resume_advice
from KneeAnalysisLib.exports import finish_output
from KneeAnalysisLib.labels import NATIVE, Tissue, to_canonical
from KneeAnalysisLib.request import ALL_STEPS, KneeRequest, Step
from KneeAnalysisLib.results import KneeResult
from KneeAnalysisLib.segmentation import EngineName, EngineOptions, GpuOutOfMemory, SegmentationFailed, TimedOut
from KneeAnalysisLib.stepstore import LOCK_FILE, read_state, reserved
from KneeAnalysisLib.task import KneeTask
from MedAILib.errors import Cancelled, InUse, OutOfMemory
from MedAILib.jobs.worker_runner import WorkerJob, WorkerRunner

Simulated = Callable[[str], WorkerRunner]
BEFORE_THICKNESS = {"segment", "meshes"}

SMALL_MEMORY = """
from KneeAnalysisLib import steps

def too_large(*arguments):
    raise MemoryError("cannot allocate 90 GiB")

steps.measure = too_large
"""
"""Run as a worker starts: memory runs out while thickness is measured."""

SMALL_GPU = """
import torch
from KneeAnalysisLib import engines

move = torch.nn.Module.to

def refusing(module, place, *rest):
    if str(place).startswith("cuda"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return move(module, place, *rest)

engines.chosen_device = lambda device: "cuda:0"
torch.nn.Module.to = refusing
"""
"""Likewise: there is a GPU, and its memory holds no network."""


@pytest.fixture(scope="module")
def runner() -> Iterator[WorkerRunner]:
    with WorkerRunner(threads=1) as made:
        yield made


@pytest.fixture
def simulated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulated]:
    """A function from what a machine wants for to a runner whose worker runs on such a machine."""
    with ExitStack() as runners:

        def started_on(machine: str) -> WorkerRunner:
            folder = tmp_path_factory.mktemp("machine")
            (folder / "sitecustomize.py").write_text(machine, encoding="utf-8")
            path = [str(folder), *(entry for entry in sys.path if entry)]
            monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
            return runners.enter_context(WorkerRunner(threads=1))

        yield started_on


@pytest.fixture(scope="module")
def dosma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Keras 2 file of which the labels of a synthetic knee are known."""
    pytest.importorskip("torch", reason="networks need PyTorch, which is not installed")
    pytest.importorskip("h5py", reason="Keras files need h5py, which is not installed")
    from dosma_files import save_classifiers

    return save_classifiers(tmp_path_factory.mktemp("Gewichte ü"))


def a_network_request(weights: Path, out: Path, **changes: object) -> KneeRequest:
    settings: dict[str, object] = {
        "image": synthetic_volume("LPS", seed=7)[0],
        "engine": EngineName.DOSMA_SAGITTAL,
        "weights": (weights,),
        "out": out,
    }
    return KneeRequest(**(settings | changes))  # type: ignore[arg-type]


def reused(result: KneeResult) -> set[str]:
    return {one.step for one in result.steps if one.reused}


def means(result: KneeResult) -> dict[str, float]:
    assert result.statistics is not None
    return {row.key: row.mean_mm for row in result.statistics.thickness}


def started(runner: WorkerRunner, request: KneeRequest, until: str) -> WorkerJob:
    """A job whose step of that name is finished."""
    assert request.out is not None
    job = runner.start(KneeTask, request)
    while until not in read_state(request.out):
        job.poll()
        time.sleep(0.005)
    return job


# Networks


def test_a_dosma_file_of_keras_2_becomes_tables_meshes_and_a_report(
    dosma: Path, tmp_path: Path, runner: WorkerRunner
) -> None:
    request = a_network_request(dosma, tmp_path / "Knie ü", steps=ALL_STEPS, finer=True, name="k")
    outcome = runner.run(KneeTask, request)
    archive = finish_output(outcome, request.out)
    found = means(outcome.result)
    assert found["med_tib_cart"] == pytest.approx(2.4, abs=0.3)  # four voxels of 0.6 mm
    assert found["pat_cart"] == pytest.approx(2.4, abs=0.3)
    truth = to_canonical(synthetic_volume("LPS")[1], NATIVE).layers[0]
    assert dice(outcome.result.segmented.labels.layers[0] == Tissue.FEMUR, truth == Tissue.FEMUR) > 0.97
    files = {file.name for file in (tmp_path / "Knie ü").iterdir()}
    assert {"k_results.csv", "k_all-labels.nrrd", "femur_mesh.vtk", "report.html", "run_report.json"} <= files
    assert archive.is_file() and LOCK_FILE not in files
    with (tmp_path / "Knie ü" / "k_results.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["med_tib_cart_mm_mean"]) > 1.0


def test_an_nnu_net_trained_here_goes_through_the_whole_chain(
    trained_nnunet: Path, tmp_path: Path, runner: WorkerRunner
) -> None:
    request = a_network_request(trained_nnunet, tmp_path, engine=EngineName.NNUNET_FULLRES, steps=ALL_STEPS)
    result = runner.run(KneeTask, request).result
    truth = to_canonical(synthetic_volume("LPS")[1], NATIVE).layers[0]
    labels = result.segmented.labels.layers[0]
    assert all(dice(labels == bone, truth == bone) > 0.7 for bone in (Tissue.FEMUR, Tissue.TIBIA))
    assert result.surfaces.of(Tissue.FEMUR) is not None and result.segmented.engine == "nnunet-fullres"
    assert [used.path.parent.name for used in result.segmented.weights] == ["fold_1"]
    missing = {tissue for tissue in result.missing if not (labels == tissue).any()}
    assert missing == set(result.missing)  # what so short a training has not learnt is named
    assert "segment" in reused(runner.run(KneeTask, replace(request, resume=True)).result)


def test_labels_of_a_network_that_cannot_be_a_knee_are_a_failed_segmentation(
    dosma: Path, tmp_path: Path, runner: WorkerRunner
) -> None:
    turned_over = tmp_path / "labels.json"
    turned_over.write_text(json.dumps({"tibia": 7, "femur": 8, "femoral_cartilage": 2}), encoding="utf-8")
    with pytest.raises(SegmentationFailed, match="the tibia would lie above the femur") as caught:
        runner.run(KneeTask, a_network_request(dosma, tmp_path, labels=str(turned_over)))
    assert caught.value.code == "SEGMENTATION_FAILED" and "another engine" in caught.value.todo


def test_a_gpu_too_small_hands_over_to_the_processor_and_the_user_is_told(
    dosma: Path, tmp_path: Path, simulated: Simulated
) -> None:
    outcome = simulated(SMALL_GPU).run(KneeTask, a_network_request(dosma, tmp_path, steps=(Step.STATISTICS,)))
    assert outcome.result.segmented.device == "cpu"
    assert any("the processor goes on" in warning for warning in outcome.report.warnings)
    assert means(outcome.result)["med_tib_cart"] == pytest.approx(2.4, abs=0.3)


@pytest.mark.parametrize("engine", [EngineName.DOSMA_SAGITTAL, EngineName.NNUNET_FULLRES])
def test_a_gpu_too_small_without_the_processor_is_gpu_oom_and_the_next_run_goes_on(
    engine: EngineName, request: pytest.FixtureRequest, tmp_path: Path, simulated: Simulated
) -> None:
    runner = simulated(SMALL_GPU)
    weights = request.getfixturevalue("dosma" if engine is EngineName.DOSMA_SAGITTAL else "trained_nnunet")
    strict = a_network_request(
        weights, tmp_path, engine=engine, steps=(Step.MESHES,), engine_options=EngineOptions(cpu_fallback=False)
    )
    with pytest.raises(GpuOutOfMemory, match="cuda:0") as caught:
        runner.run(KneeTask, strict)
    assert caught.value.code == "GPU_OOM" and caught.value.exit_status == 5
    assert "let the processor take over" in caught.value.todo and "step: segment" in caught.value.details
    assert runner.run(KneeTask, replace(strict, engine_options=EngineOptions())).result.surfaces.bones


# Ended early: finished steps stay, and the message says how to go on. Killed: see test_knee_task


def test_a_cancelled_job_leaves_finished_steps_and_says_how_to_go_on(tmp_path: Path, runner: WorkerRunner) -> None:
    request = a_request(tmp_path)
    job = started(runner, request, "meshes")
    job.cancel()
    with pytest.raises(Cancelled) as caught:
        job.outcome()
    assert "segment, meshes" in with_resume_advice(caught.value, tmp_path).todo
    assert reused(runner.run(KneeTask, replace(request, resume=True)).result) >= BEFORE_THICKNESS


def test_a_step_out_of_time_leaves_finished_steps_and_says_how_to_go_on(tmp_path: Path, runner: WorkerRunner) -> None:
    request = a_request(tmp_path, timeouts_s={"thickness": 1e-6})
    with pytest.raises(TimedOut, match="'thickness'") as caught:
        runner.run(KneeTask, request)
    assert caught.value.code == "TIMEOUT" and caught.value.todo.startswith("Give it more time")
    assert "segment, meshes" in caught.value.todo and str(tmp_path) in caught.value.todo
    assert reused(runner.run(KneeTask, replace(request, timeouts_s={}, resume=True)).result) == BEFORE_THICKNESS


def test_a_step_out_of_memory_leaves_finished_steps_and_says_how_to_go_on(
    tmp_path: Path, runner: WorkerRunner, simulated: Simulated
) -> None:
    request = a_request(tmp_path)
    with pytest.raises(OutOfMemory, match="90 GiB") as caught:
        simulated(SMALL_MEMORY).run(KneeTask, request)
    assert caught.value.exit_status == 5 and "segment, meshes" in caught.value.todo
    assert reused(runner.run(KneeTask, replace(request, resume=True)).result) == BEFORE_THICKNESS


# One analysis in a folder at a time


def test_a_folder_in_use_is_refused_and_free_again_afterwards(tmp_path: Path, runner: WorkerRunner) -> None:
    request = a_request(tmp_path, steps=(Step.MESHES,))
    with reserved(tmp_path), pytest.raises(InUse, match="Another analysis") as caught:
        runner.run(KneeTask, request)
    assert caught.value.exit_status == 11 and str(os.getpid()) in caught.value.why
    assert runner.run(KneeTask, request).result.surfaces.bones


def test_a_killed_analysis_does_not_keep_its_folder(tmp_path: Path) -> None:
    request = a_request(tmp_path)
    with WorkerRunner(threads=1) as first:
        started(first, request, "segment").cancel()
        assert first.run(KneeTask, replace(request, resume=True)).result.statistics is not None
    with reserved(tmp_path):
        pass


def test_ten_analyses_with_a_network_leave_the_worker_s_memory_flat(dosma: Path, tmp_path: Path) -> None:
    if not Path("/proc/self/statm").is_file():
        pytest.skip("reads the memory of another process from /proc")
    request = a_network_request(dosma, tmp_path, steps=(Step.STATISTICS, Step.SUBREGIONS))
    with WorkerRunner(threads=1) as one:
        sizes = []
        for _ in range(10):
            one.run(KneeTask, request)
            pages = int(Path(f"/proc/{one.process_id}/statm").read_text(encoding="ascii").split()[1])
            sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    assert max(sizes[3:]) - sizes[2] < 30, sizes
