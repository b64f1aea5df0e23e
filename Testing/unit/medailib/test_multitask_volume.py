"""Whole volumes: the same answer for every orientation, every batch size and every runner; measured in mm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the multi-task network needs torch")

from multitask_models import config_for, saved, small_model  # noqa: E402

from MedAILib.errors import Cancelled, InputError  # noqa: E402
from MedAILib.grids import axis_code, reoriented  # noqa: E402
from MedAILib.imageio import read_volume  # noqa: E402
from MedAILib.jobs.runner import InProcessRunner  # noqa: E402
from MedAILib.jobs.task import Context, Progress  # noqa: E402
from MedAILib.jobs.worker_runner import WorkerRunner  # noqa: E402
from MedAILib.models.tensors import file_sha256  # noqa: E402
from MedAILib.multitask.predictor import MultiTaskPredictor  # noqa: E402
from MedAILib.multitask.volume_task import TASK, VolumeRequest, VolumeResult, VolumeTask  # noqa: E402
from MedAILib.volume import Volume  # noqa: E402

SPACING_IJK_MM = (0.8, 1.2, 3.0)
CODES = ["RAS", "LPS", "LAS", "PIR", "ASL", "SRP", "IAL", "RSA"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small_model()
    return saved(tmp_path_factory.mktemp("multitask"), model, config_for(model))


def a_volume() -> Volume:
    """Slices of growing brightness contrast, oblique a little; LPS."""
    rng = np.random.default_rng(7)
    k, j, i = np.mgrid[:9, :24, :20]
    blob = 400 * np.exp(-((i - 10) ** 2 + (j - 9) ** 2) / (6.0 + 4 * k))
    matrix = np.diag([-SPACING_IJK_MM[0], -SPACING_IJK_MM[1], SPACING_IJK_MM[2], 1.0])
    tilt = np.deg2rad(8)
    matrix[1:3, 1:3] = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]) @ matrix[1:3, 1:3]
    matrix[:3, 3] = [12.0, -7.0, 30.0]
    return Volume((blob + 60 * rng.random(blob.shape)).astype(np.int16), matrix, "a volume")


def run(request: VolumeRequest) -> VolumeResult:
    return VolumeTask().run(request, Context(threads=1))


def test_every_slice_is_answered_as_the_predictor_answers_it(checkpoint: Path) -> None:
    volume, predictor = a_volume(), MultiTaskPredictor(checkpoint, "cpu", threads=1)
    result = run(VolumeRequest(volume, checkpoint, conditional=False))
    assert axis_code(volume.geometry) == "LPS"
    assert [finding.index for finding in result.slices] == list(range(9))
    for finding, plane, mask in zip(result.slices, volume.array, result.mask.layers[0], strict=True):
        alone = predictor.predict_single(plane)
        assert alone.classification is not None
        assert alone.segmentation is not None
        assert finding.tumor_probability == pytest.approx(alone.classification.tumor_probability, abs=1e-6)
        assert np.array_equal(mask, alone.segmentation.mask)


@pytest.mark.parametrize("code", CODES)
def test_the_orientation_of_the_voxels_changes_no_answer(code: str, checkpoint: Path) -> None:
    volume = a_volume()
    turned = reoriented(volume, code)
    reference = run(VolumeRequest(volume, checkpoint))
    result = run(VolumeRequest(turned, checkpoint))
    assert result.mask.geometry.same_grid_as(turned.geometry, 1e-9)
    assert np.array_equal(reoriented(result.mask, "LPS").layers[0], reference.mask.layers[0])
    assert result.volume_mm3 == pytest.approx(reference.volume_mm3)
    by_height = {round(finding.centre_ras_mm[2], 6): finding for finding in result.slices}
    for finding in reference.slices:
        other = by_height[round(finding.centre_ras_mm[2], 6)]
        assert other.tumor_probability == pytest.approx(finding.tumor_probability, abs=1e-6)
        assert other.area_mm2 == pytest.approx(finding.area_mm2)
        assert other.centre_ras_mm == pytest.approx(finding.centre_ras_mm)


@pytest.mark.parametrize("code", CODES)
def test_slice_indices_are_those_of_the_given_volume(code: str, checkpoint: Path) -> None:
    volume = reoriented(a_volume(), code)
    result = run(VolumeRequest(volume, checkpoint))
    place = "ijk".index(result.axis)
    assert len(result.slices) == volume.array.shape[2 - place]
    for finding in result.slices:
        ijk = np.linalg.inv(volume.ijk_to_ras) @ [*finding.centre_ras_mm, 1.0]
        assert ijk[place] == pytest.approx(finding.index, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_number_of_slices_at_once_changes_no_answer(batch_size: int, checkpoint: Path) -> None:
    reference = run(VolumeRequest(a_volume(), checkpoint, batch_size=2))
    result = run(VolumeRequest(a_volume(), checkpoint, batch_size=batch_size))
    assert result.tumor_probability == pytest.approx(reference.tumor_probability, abs=1e-6)
    assert np.array_equal(result.mask.layers[0], reference.mask.layers[0])


def test_areas_and_volumes_are_in_mm(checkpoint: Path) -> None:
    result = run(VolumeRequest(a_volume(), checkpoint, conditional=False))
    i, j, k = SPACING_IJK_MM
    counts = result.mask.layers[0].astype(bool).sum(axis=(1, 2))
    assert counts.any()
    assert [finding.area_mm2 for finding in result.slices] == pytest.approx(counts * i * j)
    assert result.volume_mm3 == {"Tumor": pytest.approx(counts.sum() * i * j * k)}
    assert sum(finding.area_mm2 for finding in result.slices) * k == pytest.approx(result.volume_mm3["Tumor"])


def test_only_suspicious_slices_are_segmented_unless_all_shall_be(checkpoint: Path) -> None:
    free = run(VolumeRequest(a_volume(), checkpoint, conditional=False))
    middle = float(np.median(free.tumor_probability))
    result = run(VolumeRequest(a_volume(), checkpoint, classification_threshold=middle))
    assert {finding.suspicious for finding in result.slices} == {True, False}
    assert all(finding.segmented == finding.suspicious for finding in result.slices)
    for finding, mask, whole in zip(result.slices, result.mask.layers[0], free.mask.layers[0], strict=True):
        assert np.array_equal(mask, whole if finding.suspicious else np.zeros_like(mask))
    assert all(finding.segmented for finding in free.slices)


def test_the_most_suspicious_slices_come_first(checkpoint: Path) -> None:
    result = run(VolumeRequest(a_volume(), checkpoint, most_suspicious=4))
    expected = sorted(range(9), key=lambda index: -result.tumor_probability[index])[:4]
    assert list(result.most_suspicious) == expected


def test_nothing_found_is_an_empty_mask_with_its_segment(checkpoint: Path) -> None:
    result = run(VolumeRequest(a_volume(), checkpoint, classification_threshold=1.0))
    assert not result.has_tumor
    assert not result.mask.layers[0].any()
    assert [info.name for info in result.mask.segments] == ["Tumor"]
    assert result.volume_mm3 == {"Tumor": 0.0}


def test_the_segment_has_the_name_colour_and_term_of_the_description(checkpoint: Path) -> None:
    (info,) = run(VolumeRequest(a_volume(), checkpoint)).mask.segments
    assert (info.name, info.label_value, info.color_rgb) == ("Tumor", 1, (1.0, 0.0, 0.0))
    assert "~SCT^4147007^Mass~" in info.tags["TerminologyEntry"]


def test_small_objects_are_removed_where_that_is_asked_for(checkpoint: Path) -> None:
    from scipy import ndimage

    request = VolumeRequest(a_volume(), checkpoint, conditional=False, segmentation_threshold=0.8)
    whole = run(request).mask.layers[0]
    parts, count = ndimage.label(whole, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    assert count > 1
    voxel_mm3 = float(np.prod(SPACING_IJK_MM))
    limit_mm3 = (sizes.max() - 0.5) * voxel_mm3
    result = run(replace(request, smallest_object_mm3=limit_mm3))
    kept = parts == 1 + int(sizes.argmax())
    assert np.array_equal(result.mask.layers[0] > 0, kept)
    assert result.volume_mm3["Tumor"] == pytest.approx(kept.sum() * voxel_mm3)


@pytest.mark.parametrize(("orientation", "code"), [("coronal", "LIP"), ("Sagittal", "PIL"), ("RAS", "RAS")])
def test_slices_are_cut_as_the_description_says(orientation: str, code: str, tmp_path: Path) -> None:
    model, volume = small_model(), a_volume()
    config = config_for(model)
    config = replace(config, inputs=(replace(config.inputs[0], orientation=orientation),))
    result = run(VolumeRequest(volume, saved(tmp_path, model, config), conditional=False))
    planes = reoriented(volume, code).array
    assert len(result.slices) == len(planes)
    predictor = MultiTaskPredictor.from_model(model, config)
    masks = reoriented(result.mask, code).layers[0]
    for plane, mask in zip(planes, masks, strict=True):
        answer = predictor.predict_single(plane).segmentation
        assert answer is not None
        assert np.array_equal(answer.mask, mask)


def test_keeping_the_aspect_heeds_the_size_of_the_pixels(tmp_path: Path) -> None:
    model = small_model()
    config = config_for(model)
    config = replace(config, inputs=(replace(config.inputs[0], keep_aspect=True),))
    path = saved(tmp_path, model, config)
    result = run(VolumeRequest(a_volume(), path, conditional=False))
    predictor = MultiTaskPredictor(path, "cpu", threads=1)
    answer = next(predictor.predictions([a_volume().array[4]], pixel_mm=(1.2, 0.8))).segmentation
    assert answer is not None
    assert np.array_equal(result.mask.layers[0][4], answer.mask)


def test_a_worker_gives_the_same_result(checkpoint: Path) -> None:
    request = VolumeRequest(a_volume(), checkpoint)
    ran_here = InProcessRunner(threads=1).run(TASK, request)
    with WorkerRunner(threads=1) as worker:
        ran_there = worker.run(TASK, request)
    here, there = ran_here.result, ran_there.result
    assert ran_there.report.weights == ran_here.report.weights
    assert ran_here.report.weights == (f"{here.model['model_id']} sha256:{file_sha256(checkpoint)}",)
    assert there.to_dict() == here.to_dict()
    assert np.array_equal(there.mask.layers[0], here.mask.layers[0])
    assert there.mask.segments == here.mask.segments


def test_the_model_is_loaded_once_and_again_when_its_file_changes(tmp_path: Path) -> None:
    model = small_model()
    path = saved(tmp_path, model, config_for(model))
    task = VolumeTask()
    first = task.run(VolumeRequest(a_volume(), path), Context(threads=1))
    kept = task._predictor
    task.run(VolumeRequest(a_volume(), path), Context(threads=1))
    assert task._predictor is kept
    other = small_model(seed=5)
    saved(tmp_path, other, config_for(other))
    second = task.run(VolumeRequest(a_volume(), path), Context(threads=1))
    assert task._predictor is not kept
    assert not np.allclose(first.tumor_probability, second.tumor_probability, atol=1e-6)


def test_what_is_assumed_is_warned_of(tmp_path: Path) -> None:
    model = small_model()
    config = config_for(model, assumed=("$.heads[1].threshold", "$.inputs[0].normalisation"))
    context = Context(threads=1)
    result = VolumeTask().run(VolumeRequest(a_volume(), saved(tmp_path, model, config)), context)
    assert not result.calibrated
    assert result.warnings == tuple(context.warnings)
    assert "heads[1].threshold, inputs[0].normalisation" in context.warnings[0]


def test_a_model_of_two_channels_is_refused(tmp_path: Path) -> None:
    model = small_model(in_channels=2)
    with pytest.raises(InputError, match="takes 2 channels, a volume has one"):
        run(VolumeRequest(a_volume(), saved(tmp_path, model, config_for(model))))


def test_a_run_can_be_cancelled_between_slices(checkpoint: Path) -> None:
    seen: list[Progress] = []
    context = Context(threads=1, on_progress=seen.append, is_cancelled=lambda: len(seen) > 3)
    with pytest.raises(Cancelled):
        VolumeTask().run(VolumeRequest(a_volume(), checkpoint, batch_size=1), context)
    assert len(seen) == 4


def test_the_memory_does_not_grow_with_the_number_of_slices(checkpoint: Path) -> None:
    predictor = MultiTaskPredictor(checkpoint, "cpu", threads=1, batch_size=2)
    sizes: list[int] = []
    predictor._fast.encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    taken = 0

    def slices() -> object:
        nonlocal taken
        for plane in np.tile(a_volume().array, (3, 1, 1)):
            taken += 1
            yield plane

    for done, _ in enumerate(predictor.predictions(slices()), start=1):  # type: ignore[arg-type]
        assert taken - done < 2
    assert max(sizes) == 2


@settings(max_examples=8)
@given(st.sampled_from(CODES), st.integers(1, 3), st.integers(4, 40), st.integers(4, 40))
def test_volumes_of_any_shape_keep_their_grid(code: str, k: int, j: int, i: int) -> None:
    model = small_model()
    rng = np.random.default_rng(0)
    volume = reoriented(Volume(rng.integers(-1000, 3000, (k, j, i)).astype(np.int16), np.diag([-1.5, -1, 4, 1])), code)
    task = VolumeTask()
    predictor = MultiTaskPredictor.from_model(model, config_for(model))
    task._predictor_for = lambda request, context: predictor  # type: ignore[method-assign]
    result = task.run(VolumeRequest(volume, Path("unused")), Context(threads=1))
    assert result.mask.layers[0].shape == volume.array.shape
    assert np.array_equal(result.mask.ijk_to_ras, volume.ijk_to_ras)
    assert len(result.slices) == k


def test_a_real_volume_is_answered_on_its_own_grid(shared_data: object, checkpoint: Path) -> None:
    volume = read_volume(shared_data("vol3d/pyrad_brain1/image.nii.gz"))  # type: ignore[operator]
    result = run(VolumeRequest(volume, checkpoint))
    assert axis_code(volume.geometry) == "LAS"
    assert result.axis == "k"
    assert len(result.slices) == 25
    assert np.array_equal(result.mask.ijk_to_ras, volume.ijk_to_ras)
