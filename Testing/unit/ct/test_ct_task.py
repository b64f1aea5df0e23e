"""The report as a task: stages, cancel, and where its facts come from."""

from __future__ import annotations

import io

import numpy as np
import pytest
from chest_phantoms import ChestSpec, make_chest
from PIL import Image

from CTReportLib.request import Decision, ReportRequest
from CTReportLib.task import TASK, ReportTask, volume_sha256
from MedAILib.errors import Cancelled
from MedAILib.jobs.execute import load_task
from MedAILib.jobs.task import Context

CHEST = make_chest(ChestSpec()).volume


def test_the_task_is_found_by_its_name() -> None:
    assert isinstance(load_task(TASK), ReportTask)


def test_stages_come_in_order_and_the_request_is_answered_whole() -> None:
    told: list[tuple[str, float]] = []
    context = Context(on_progress=lambda progress: told.append((progress.stage, progress.fraction)))
    result = ReportTask().run(ReportRequest(CHEST, modality="CT", name="x"), context)
    assert list(dict.fromkeys(stage for stage, _ in told)) == [
        "Checking the image", "Finding the lungs", "Measuring", "Writing the report",
    ]  # fmt: skip
    assert [fraction for _, fraction in told] == sorted(fraction for _, fraction in told)
    assert result.complete and result.name == "x" and len(result.table) == 18
    assert {row.decision for row in result.table} >= {Decision.NOT_JUDGED}
    assert result.provenance["image_sha256"] == volume_sha256(CHEST)
    assert result.masks is not None and result.masks.geometry.same_grid_as(CHEST.geometry)


def test_key_images_show_the_patients_right_on_the_left_and_outline_what_was_measured() -> None:
    chest = make_chest(ChestSpec(effusion="right"))
    result = ReportTask().run(ReportRequest(chest.turned("LPS"), window_hu=(-160.0, 240.0)), Context())
    titles = [picture.title for picture in result.pictures]
    assert titles[:2] == ["Lungs, axial", "Lungs, coronal"]
    (fluid,) = [picture for picture in result.pictures if "fluid" in picture.title.lower()]
    rgb = np.asarray(Image.open(io.BytesIO(fluid.png.tobytes()))).astype(int)
    outline = np.argwhere(rgb[..., 0] - rgb[..., 2] > 60)
    assert outline[:, 1].mean() < rgb.shape[1] / 2 and outline[:, 0].mean() > rgb.shape[0] / 2


def test_a_run_can_be_cancelled_at_every_stage() -> None:
    for stop_at in range(1, 5):
        seen: list[str] = []
        context = Context(on_progress=lambda p, seen=seen: seen.append(p.stage))
        context.is_cancelled = lambda seen=seen, stop_at=stop_at: len(set(seen)) >= stop_at
        with pytest.raises(Cancelled):
            ReportTask().run(ReportRequest(CHEST), context)
        assert len(set(seen)) == stop_at


def test_the_same_image_has_the_same_hash_and_another_place_another() -> None:
    moved = CHEST.ijk_to_ras.copy()
    moved[0, 3] += 1
    assert volume_sha256(CHEST) == volume_sha256(type(CHEST)(CHEST.array.copy(), CHEST.ijk_to_ras))
    assert volume_sha256(CHEST) != volume_sha256(type(CHEST)(CHEST.array, moved))
