"""Files routed a few at a time: the same answers, in order, with progress, and an end when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: no model can run")
pytest.importorskip("onnx", reason="onnx is not installed: no model can be made")

from picture_writers import save_picture
from router_store import a_grey_picture, write_store

from MedAILib.errors import Cancelled, FileMissing
from MedAILib.jobs.task import Context, Progress
from MedMNISTRouterLib import inputs
from MedMNISTRouterLib.files_task import FilesRequest, RouteFilesTask
from MedMNISTRouterLib.request import PlainImage, RouteRequest


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("models"))


@pytest.fixture
def request_for_nine(tmp_path: Path, store: Path) -> FilesRequest:
    """Nine pictures, every third of them missing its end."""
    for n in range(9):
        path = save_picture(tmp_path / f"{n}.png", a_grey_picture(n, bright_top=n % 2 == 0))
        if n % 3 == 2:
            path.write_bytes(path.read_bytes()[:60])
    return FilesRequest((tmp_path,), how=RouteRequest((), models_folder=store))


def test_answers_do_not_depend_on_how_many_files_are_read_at_a_time(
    request_for_nine: FilesRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, found = RouteFilesTask(), []
    for most_bytes in (1, 3000, 10**9):
        monkeypatch.setattr(inputs, "_BATCH_BYTES", most_bytes)
        found.append(task.run(request_for_nine, Context()).answers)
    labels = [[(answer.image, answer.predicted_class_name, answer.error_code) for answer in one] for one in found]
    assert labels[0] == labels[1] == labels[2]
    assert [name for name, _label, _code in labels[0]] == [f"{n}.png" for n in range(9)]
    assert [code for _name, _label, code in labels[0]] == ["", "", "INVALID_FORMAT"] * 3


def test_progress_grows_and_covers_the_whole_run(
    request_for_nine: FilesRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_BATCH_BYTES", 1)
    seen: list[Progress] = []
    context = Context(on_progress=seen.append)
    RouteFilesTask().run(request_for_nine, context)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions) and fractions[-1] > 0.7
    assert {"Reading files", "Routing"} <= {progress.stage for progress in seen}
    assert sum(context.stages.values()) < 60 and "Reading files" in context.stages


def test_a_run_ends_when_asked_to(request_for_nine: FilesRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_BATCH_BYTES", 1)
    seen: list[Progress] = []
    context = Context(on_progress=seen.append, is_cancelled=lambda: len(seen) > 6)
    with pytest.raises(Cancelled):
        RouteFilesTask().run(request_for_nine, context)
    assert len(seen) <= 8


def test_files_and_pictures_share_the_loaded_models(request_for_nine: FilesRequest, store: Path) -> None:
    task = RouteFilesTask()
    task.run(request_for_nine, Context())
    picture = PlainImage("x", a_grey_picture(50))
    result = task.run(RouteRequest((picture,), models_folder=store), Context())
    assert result.answers[0].predicted_class_name == "pneumonia"
    assert result.cache.misses == 2


def test_the_report_names_the_weights(request_for_nine: FilesRequest) -> None:
    context = Context()
    RouteFilesTask().run(request_for_nine, context)
    assert len(context.weights) == 2 and all("sha256:" in text for text in context.weights)


def test_a_pattern_without_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="No file matches"):
        RouteFilesTask().run(FilesRequest((tmp_path / "*.png",)), Context())
