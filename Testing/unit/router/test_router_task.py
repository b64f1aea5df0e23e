"""The task through runners: the same answers here and in a worker process, and a report that names the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from router_models import smooth_picture, write_model

from MedAILib.jobs.runner import InProcessRunner
from MedAILib.jobs.worker_runner import WorkerRunner
from MedMNISTRouterLib.request import ROUTE_TASK, Answer, ModelChoice, PlainImage, RouteRequest, RouteResult

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def without_times(result: RouteResult) -> list[Answer]:
    return [replace(answer, milliseconds={}) for answer in result.answers]


def test_the_answers_are_the_same_here_and_in_a_worker_process_which_keeps_its_models(tmp_path: Path) -> None:
    model = write_model(tmp_path / "Modell", "chestmnist")
    images = tuple(PlainImage(f"slice {seed}", smooth_picture(seed, size=300)) for seed in range(3))
    chosen = (ModelChoice("chestmnist", model.folder),)
    request = RouteRequest(images, "chestmnist", models_folder=tmp_path, models=chosen, without_gate=True)

    with InProcessRunner() as here, WorkerRunner(threads=1) as there:
        ours = here.run(ROUTE_TASK, request)
        first = there.run(ROUTE_TASK, request)
        second = there.run(ROUTE_TASK, request)

    assert all(answer.success for answer in ours.result.answers)
    assert without_times(first.result) == without_times(ours.result)
    assert first.result.cache.misses == 1
    assert (second.result.cache.misses, second.result.cache.hits) == (1, 1)
    assert second.report.weights == (f"test-chestmnist sha256:{model.sha256}",)
