"""The DOSMA networks: orientation, size, whitening and consensus, on networks whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need PyTorch, which is not installed")
pytest.importorskip("h5py", reason="Keras files need h5py, which is not installed")

from dosma_files import FILES, grey_classifier, save_classifiers  # noqa: E402
from keras_files import LAST, residual_unet  # noqa: E402
from synthetic_knees import dice, synthetic_volume  # noqa: E402

from KneeAnalysisLib.dosma import AXIAL, CORONAL, PLANES, SAGITTAL, DosmaNet, find_file  # noqa: E402
from KneeAnalysisLib.engines import SegmentTask  # noqa: E402
from KneeAnalysisLib.labels import NATIVE, Tissue, to_canonical  # noqa: E402
from KneeAnalysisLib.segmentation import (  # noqa: E402
    EngineName,
    EngineOptions,
    SegmentationFailed,
    SegmentRequest,
)
from KneeAnalysisLib.watch import Watch  # noqa: E402
from MedAILib.errors import FileMissing, InputError, InvalidWeights  # noqa: E402
from MedAILib.grids import axis_code, reoriented  # noqa: E402
from MedAILib.jobs.runner import InProcessRunner  # noqa: E402
from MedAILib.jobs.task import Context  # noqa: E402
from MedAILib.jobs.worker_runner import WorkerRunner  # noqa: E402
from MedAILib.volume import Volume  # noqa: E402

ENGINES = {
    "sagittal": EngineName.DOSMA_SAGITTAL,
    "coronal": EngineName.DOSMA_CORONAL,
    "axial": EngineName.DOSMA_AXIAL,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifiers(tmp_path_factory.mktemp("Gewichte ü"))


@pytest.fixture(scope="module")
def runner() -> Iterator[WorkerRunner]:
    with WorkerRunner(threads=1) as made:
        yield made


def _dices(result: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {tissue.key: dice(result == tissue, truth == tissue) for tissue in Tissue if (truth == tissue).any()}


@pytest.mark.parametrize("plane", FILES)
def test_a_network_labels_a_knee_through_the_worker(plane: str, weights: Path, runner: WorkerRunner) -> None:
    volume, labels = synthetic_volume("LPS")
    outcome = runner.run(SegmentTask, SegmentRequest(volume, ENGINES[plane], (weights,)))
    found = outcome.result.labels
    assert found.geometry.same_grid_as(volume.geometry)
    dices = _dices(found.layers[0], to_canonical(labels, NATIVE).layers[0])
    assert len(dices) == 9
    assert min(dices.values()) > 0.97
    assert [used.path.name for used in outcome.result.weights] == [FILES[plane][0]]
    assert len(outcome.result.weights[0].sha256) == 64


def test_the_consensus_of_three_labels_a_knee_through_the_worker(weights: Path, runner: WorkerRunner) -> None:
    volume, labels = synthetic_volume("RAS")
    outcome = runner.run(SegmentTask, SegmentRequest(volume, EngineName.DOSMA_STAPLE, (weights,)))
    dices = _dices(outcome.result.labels.layers[0], to_canonical(labels, NATIVE).layers[0])
    assert len(dices) == 9
    assert min(dices.values()) > 0.97
    assert len(outcome.result.weights) == 3


@pytest.mark.parametrize("axes", ["PIR", "RAS", "LPS", "AIL", "SRP"])
def test_every_orientation_of_the_image_gives_the_same_labels(axes: str, weights: Path) -> None:
    volume, _ = synthetic_volume(axes)
    request = SegmentRequest(volume, EngineName.DOSMA_CORONAL, (weights,))
    found = InProcessRunner().run(SegmentTask, request).result.labels
    assert axis_code(found.geometry) == axes
    straight, _ = synthetic_volume("PIR")
    expected = InProcessRunner().run(SegmentTask, SegmentRequest(straight, request.engine, request.weights))
    assert np.array_equal(reoriented(found, "PIR").layers[0], expected.result.labels.layers[0])


@pytest.mark.parametrize(("plane", "down", "across"), [("sagittal", 1, 2), ("coronal", 0, 1), ("axial", 0, 2)])
def test_rows_and_columns_of_a_network_run_along_the_axes_of_its_orientation(
    plane: str, down: int, across: int, tmp_path: Path
) -> None:
    """A network that answers what lies one pixel up and two pixels left shifts its labels down and right."""
    size = FILES[plane][1]
    model = grey_classifier(size)
    name = next(iter(model.weights))
    entry = next(layer for layer in model.layers if layer["name"] == name)
    entry["config"]["kernel_size"] = [3, 5]
    kernel = np.zeros((3, 5, 1, 10), np.float32)
    kernel[0, 0] = model.weights[name]["kernel"][0, 0]
    model.weights[name]["kernel"] = kernel
    volume, labels = synthetic_volume("PIR")
    net = DosmaNet(model.save(tmp_path / FILES[plane][0]), PLANES[plane])
    found, _ = net.predict(volume, EngineOptions(), Watch(Context()), "cpu")
    moved = np.roll(labels.layers[0], (1, 2), axis=(down, across))
    inner = (slice(4, -4),) * 3
    assert np.mean(found[inner] == moved[inner]) > 0.995
    assert np.mean(found[inner] == labels.layers[0][inner]) < 0.98


def test_another_image_size_than_the_networks_is_resized_there_and_back(tmp_path: Path) -> None:
    volume, labels = synthetic_volume("PIR")
    path = grey_classifier((128, 100)).save(tmp_path / SAGITTAL.file)
    net = DosmaNet(path, SAGITTAL)
    found, device = net.predict(volume, EngineOptions(batch_size=7), Watch(Context()), "cpu")
    assert (found.shape, found.dtype, device) == (volume.array.shape, np.uint8, "cpu")
    bones = np.isin(labels.layers[0], (7, 8))
    assert dice(np.isin(found, (7, 8)), bones) > 0.95


def test_grey_values_of_another_scale_give_the_same_labels(weights: Path) -> None:
    volume, _ = synthetic_volume("PIR")
    net = DosmaNet(weights / SAGITTAL.file, SAGITTAL)
    expected, _ = net.predict(volume, EngineOptions(), Watch(Context()), "cpu")
    scaled = Volume(volume.array * np.float32(4) + np.float32(1000), volume.ijk_to_ras)
    found, _ = net.predict(scaled, EngineOptions(), Watch(Context()), "cpu")
    assert np.mean(found == expected) > 0.9999


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_size_of_a_batch_changes_nothing(batch_size: int, tmp_path: Path) -> None:
    volume, _ = synthetic_volume("PIR")
    path = residual_unet((1, 64, 56), half_first=True).save(tmp_path / SAGITTAL.file)
    net = DosmaNet(path, SAGITTAL)
    expected, _ = net.predict(volume, EngineOptions(), Watch(Context()), "cpu")
    found, _ = net.predict(volume, EngineOptions(batch_size=batch_size), Watch(Context()), "cpu")
    assert np.mean(found == expected) > 0.9999
    assert len(np.unique(found)) > 1


def test_a_network_with_channels_last_is_understood(tmp_path: Path) -> None:
    volume, labels = synthetic_volume("PIR")
    net = DosmaNet(grey_classifier((64, 56), LAST).save(tmp_path / "sagittal.h5"), SAGITTAL)
    found, _ = net.predict(volume, EngineOptions(), Watch(Context()), "cpu")
    assert np.mean(found == labels.layers[0]) > 0.99


def test_the_output_of_full_size_is_taken_wherever_it_stands(tmp_path: Path) -> None:
    first = DosmaNet(residual_unet((1, 64, 56)).save(tmp_path / "a.h5"), SAGITTAL)
    second = DosmaNet(residual_unet((1, 64, 56), half_first=True).save(tmp_path / "b.h5"), SAGITTAL)
    volume, _ = synthetic_volume("PIR")
    answers = [net.predict(volume, EngineOptions(), Watch(Context()), "cpu")[0] for net in (first, second)]
    assert np.array_equal(*answers)


def test_a_network_of_other_classes_is_refused(tmp_path: Path) -> None:
    path = residual_unet((1, 64, 56), classes=5).save(tmp_path / SAGITTAL.file)
    with pytest.raises(InvalidWeights, match="not one of the knee networks"):
        DosmaNet(path, SAGITTAL)


def test_an_image_without_a_knee_is_told(tmp_path: Path) -> None:
    model = grey_classifier(FILES["sagittal"][1])
    next(iter(model.weights.values()))["bias"][0] = 1e6  # everything is background
    volume, _ = synthetic_volume("PIR")
    request = SegmentRequest(volume, EngineName.DOSMA_SAGITTAL, (model.save(tmp_path / SAGITTAL.file),))
    with pytest.raises(SegmentationFailed, match="no knee"):
        InProcessRunner().run(SegmentTask, request)


def test_a_labels_file_decides_over_the_networks_own_scheme(weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    file.write_text('{"tibia": 7, "femur": 8}', encoding="utf-8")
    volume, labels = synthetic_volume("PIR")
    request = SegmentRequest(volume, EngineName.DOSMA_SAGITTAL, (weights,), labels=str(file))
    found = InProcessRunner().run(SegmentTask, request).result.labels
    assert [segment.id for segment in found.segments] == ["femur", "tibia"]
    assert dice(found.mask("tibia"), labels.layers[0] == 7) > 0.97


def test_the_consensus_ignores_what_a_plane_does_not_see_well() -> None:
    assert [tissue.key for tissue in CORONAL.unseen] == ["patellar_cartilage"]
    assert {NATIVE.labels[tissue] for tissue in AXIAL.unseen} == {(3,), (4,), (5,), (6,)}


def test_a_network_is_found_by_its_name_in_a_folder(weights: Path, tmp_path: Path) -> None:
    assert find_file(CORONAL, [weights]).name == "coronal_best_model.h5"
    assert find_file(CORONAL, [weights / AXIAL.file]) == weights / AXIAL.file  # named outright: the user knows
    with pytest.raises(FileMissing, match="models get knee-dosma-bones-axial"):
        find_file(AXIAL, [tmp_path])
    for name in ("axial_a.h5", "axial_b.h5"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="not clear"):
        find_file(AXIAL, [tmp_path])
