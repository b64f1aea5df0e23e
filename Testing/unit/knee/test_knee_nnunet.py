"""nnU-Net models trained here by nnU-Net itself: the same labels as its own predictor, and a way out at any time."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need PyTorch, which is not installed")
pytest.importorskip("nnunetv2", reason="nnU-Net models need the package nnunetv2, which is not installed")

from nnunet_folders import configuration_folder  # noqa: E402
from synthetic_knees import dice, synthetic_volume  # noqa: E402

from KneeAnalysisLib.engines import SegmentTask  # noqa: E402
from KneeAnalysisLib.labels import NATIVE, Tissue, to_canonical  # noqa: E402
from KneeAnalysisLib.nnunet import CASCADE, FULLRES, NnUnet  # noqa: E402
from KneeAnalysisLib.segmentation import EngineName, EngineOptions, SegmentRequest, TimedOut  # noqa: E402
from KneeAnalysisLib.watch import Watch  # noqa: E402
from MedAILib.errors import Cancelled, ConfigMismatch, InvalidWeights, OutOfMemory  # noqa: E402
from MedAILib.grids import reoriented  # noqa: E402
from MedAILib.jobs.runner import InProcessRunner  # noqa: E402
from MedAILib.jobs.task import Context, Progress  # noqa: E402
from MedAILib.jobs.worker_runner import WorkerRunner  # noqa: E402
from MedAILib.volume import Volume  # noqa: E402


@pytest.fixture(scope="module")
def model(trained_nnunet: Path) -> Path:
    return trained_nnunet


@pytest.fixture(scope="module")
def fullres(model: Path) -> NnUnet:
    return NnUnet([model], FULLRES, EngineOptions())


@pytest.fixture(scope="module")
def runner() -> Iterator[WorkerRunner]:
    with WorkerRunner(threads=1) as made:
        yield made


@pytest.fixture
def copied(model: Path, tmp_path: Path) -> Path:
    """A copy of the full-resolution folder, to be changed."""
    shutil.copytree(configuration_folder(model, FULLRES), configuration_folder(tmp_path, FULLRES))
    return tmp_path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _predict(net: NnUnet, volume: Volume, context: Context | None = None, **options: Any) -> np.ndarray:
    return net.predict(volume, EngineOptions(**options), Watch(context or Context()), "cpu")[0]


def _expected(
    model: Path, configuration: str, volume: Volume, previous: np.ndarray | None = None, **settings: Any
) -> np.ndarray:
    """What nnU-Net's own predictor answers."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, **{"use_mirroring": False, **settings})
    folder = configuration_folder(model, configuration)
    predictor.initialize_from_trained_model_folder(str(folder), (1,), "checkpoint_best.pth")
    properties = {"spacing": list(volume.geometry.spacing_kji_mm)}
    before = None if previous is None else previous[None].astype(np.int16)
    return predictor.predict_single_npy_array(np.array(volume.array)[None], properties, before, None, False)


def test_a_model_trained_here_labels_a_knee_through_the_worker(model: Path, runner: WorkerRunner) -> None:
    volume, labels = synthetic_volume("LPS", seed=7)
    progress: list[Progress] = []
    outcome = runner.run(SegmentTask, SegmentRequest(volume, EngineName.NNUNET_FULLRES, (model,)), progress.append)
    again = runner.run(SegmentTask, SegmentRequest(volume, EngineName.NNUNET_CASCADE, (model,)))
    truth = to_canonical(labels, NATIVE).layers[0]
    found = outcome.result.labels
    assert found.geometry.same_grid_as(volume.geometry)
    for bone in (Tissue.FEMUR, Tissue.TIBIA):
        assert dice(found.layers[0] == bone, truth == bone) > 0.7
    assert [used.path.parent.name for used in outcome.result.weights] == ["fold_1"]
    assert len(again.result.weights) == 2
    assert again.result.labels.layers[0].any()
    assert outcome.report.versions["torch"] == torch.__version__
    assert any(report.detail.startswith("tile ") for report in progress)
    assert [report.fraction for report in progress] == sorted(report.fraction for report in progress)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of another process from /proc")
def test_ten_jobs_in_one_worker_leave_its_memory_flat(model: Path, runner: WorkerRunner) -> None:
    options = EngineOptions(tile_step=1.0)
    request = SegmentRequest(synthetic_volume()[0], EngineName.NNUNET_FULLRES, (model,), options=options)
    resident = []
    for _ in range(10):
        runner.run(SegmentTask, request)
        status = Path(f"/proc/{runner.process_id}/status").read_text(encoding="ascii").splitlines()
        resident.append(next(int(line.split()[1]) >> 10 for line in status if line.startswith("VmRSS")))
    assert resident[-1] - resident[2] < 8, resident


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"tile_step": 0.75}, {"tile_step_size": 0.75}),
        ({"tile_step": 1.0}, {"tile_step_size": 1.0}),
        ({"mirroring": True, "tile_step": 1.0}, {"use_mirroring": True, "tile_step_size": 1.0}),
    ],
)
def test_labels_are_those_of_nnunets_own_predictor_to_the_voxel(
    model: Path, fullres: NnUnet, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    volume, _ = synthetic_volume(seed=3)
    assert np.array_equal(_predict(fullres, volume, **ours), _expected(model, FULLRES, volume, **theirs))


def test_an_image_of_other_spacing_and_smaller_than_a_tile_is_labelled_as_by_nnunet(
    model: Path, fullres: NnUnet
) -> None:
    volume, _ = synthetic_volume(seed=3)
    scaled = volume.ijk_to_ras.copy()
    scaled[:3, :3] *= 1.4
    cut = np.array(volume.array[8:24, 10:50, 6:50])
    cut[:2] = 0
    small = Volume(cut, scaled)
    assert np.array_equal(_predict(fullres, small), _expected(model, FULLRES, small))


def test_the_cascade_is_labelled_as_by_nnunet(model: Path) -> None:
    volume, _ = synthetic_volume(seed=3)
    low = _expected(model, "3d_lowres", volume)
    expected = _expected(model, CASCADE, volume, low)
    assert np.array_equal(_predict(NnUnet([model], CASCADE, EngineOptions()), volume), expected)


def test_tiles_in_batches_give_the_same_labels(fullres: NnUnet) -> None:
    volume, _ = synthetic_volume(seed=3)
    assert np.mean(_predict(fullres, volume, batch_size=5) == _predict(fullres, volume)) > 0.9999


@pytest.mark.parametrize("axes", ["RAS", "SRP"])
def test_every_orientation_of_the_image_gives_the_same_labels(axes: str, model: Path) -> None:
    runner, found = InProcessRunner(threads=1), []
    for code in ("PIR", axes):
        volume, _ = synthetic_volume(code, seed=3)
        result = runner.run(SegmentTask, SegmentRequest(volume, EngineName.NNUNET_FULLRES, (model,))).result
        found.append(reoriented(result.labels, "PIR").layers[0])
    assert np.array_equal(*found)


def test_folds_are_averaged(copied: Path) -> None:
    folder = configuration_folder(copied, FULLRES)
    shutil.copytree(folder / "fold_1", folder / "fold_0")
    volume, _ = synthetic_volume(seed=3)
    both = NnUnet([copied], FULLRES, EngineOptions())
    assert [used.path.parent.name for used in both.weights] == ["fold_0", "fold_1"]
    one = NnUnet([copied], FULLRES, EngineOptions(folds=("1",)))
    assert np.mean(_predict(both, volume) == _predict(one, volume)) > 0.9999


def test_cancel_is_heeded_between_two_layers_and_leaves_no_thread_behind(fullres: NnUnet) -> None:
    volume, _ = synthetic_volume(seed=3)
    seen: list[str] = []

    def ask(progress: Progress) -> None:
        seen.append(progress.detail)

    def asked() -> bool:
        return any(detail.startswith("tile 2 ") for detail in seen)

    before = set(threading.enumerate())
    context = Context(on_progress=ask, is_cancelled=asked)
    with pytest.raises(Cancelled):
        _predict(fullres, volume, context)
    assert seen[-1].startswith("tile 2 ")  # not a tile more
    assert set(threading.enumerate()) == before
    assert not any(module._forward_pre_hooks for module in fullres._stages[0]._network.modules())
    assert _predict(fullres, volume).any()  # the network is as usable as before


def test_the_time_limit_is_heeded(fullres: NnUnet) -> None:
    volume, _ = synthetic_volume(seed=3)
    with pytest.raises(TimedOut) as caught:
        fullres.predict(volume, EngineOptions(), Watch(Context(), timeout_s=0.05), "cpu")
    assert caught.value.code == "TIMEOUT"


class _SmallMemory:
    """Lets a network run out of memory, as a GPU does, on more than so many pieces at once."""

    def __init__(self, net: NnUnet, most: int) -> None:
        self.seen: list[int] = []
        self._most = most
        self._hook = net._stages[0]._network.register_forward_pre_hook(self._check)

    def _check(self, module: Any, inputs: tuple[Any, ...]) -> None:
        self.seen.append(len(inputs[0]))
        if len(inputs[0]) > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    def __enter__(self) -> _SmallMemory:
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()


def test_where_memory_runs_out_batches_get_smaller_and_the_labels_stay_the_same(fullres: NnUnet) -> None:
    volume, _ = synthetic_volume(seed=3)
    expected = _predict(fullres, volume)
    context = Context()
    with _SmallMemory(fullres, 2) as memory:
        found = _predict(fullres, volume, context, batch_size=8)
    assert memory.seen[:3] == [8, 4, 2]
    assert max(memory.seen[3:]) == 2
    assert len(context.warnings) == 2
    assert "going on with 4 instead of 8" in context.warnings[0]
    assert np.mean(found == expected) > 0.9999


def test_where_memory_does_not_hold_one_tile_the_error_says_what_to_do(fullres: NnUnet) -> None:
    volume, _ = synthetic_volume(seed=3)
    with _SmallMemory(fullres, 0), pytest.raises(OutOfMemory, match="one piece at a time"):
        _predict(fullres, volume, batch_size=4)
    assert _predict(fullres, volume).any()


class _Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        import os

        return os.system, ("touch it-ran",)


def test_a_checkpoint_with_code_in_it_is_refused(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = configuration_folder(copied, FULLRES) / "fold_1" / "checkpoint_best.pth"
    content = torch.load(path, weights_only=False)
    torch.save({**content, "logging": _Evil()}, path)
    with pytest.raises(InvalidWeights, match="not safe"):
        NnUnet([copied], FULLRES, EngineOptions())
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("change", ["shape", "missing", "strange"])
def test_a_checkpoint_of_another_model_is_refused(change: str, copied: Path) -> None:
    path = configuration_folder(copied, FULLRES) / "fold_1" / "checkpoint_best.pth"
    content = torch.load(path, weights_only=False)
    weights = content["network_weights"]
    name = next(iter(weights))
    if change == "shape":
        weights[name] = torch.zeros(3, 3)
    elif change == "missing":
        del weights[name]
    else:
        weights["one_more"] = torch.zeros(1)
    torch.save(content, path)
    with pytest.raises(ConfigMismatch, match="does not belong to the plans"):
        NnUnet([copied], FULLRES, EngineOptions())


def test_a_truncated_checkpoint_is_told(copied: Path) -> None:
    path = configuration_folder(copied, FULLRES) / "fold_1" / "checkpoint_best.pth"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InvalidWeights, match="damaged"):
        NnUnet([copied], FULLRES, EngineOptions())


@pytest.mark.filterwarnings("ignore:Network class .* not found:UserWarning")
def test_plans_with_an_unknown_network_are_told(copied: Path) -> None:
    path = configuration_folder(copied, FULLRES) / "plans.json"
    path.write_text(path.read_text(encoding="utf-8").replace("ResidualEncoderUNet", "SecretUNet"), encoding="utf-8")
    with pytest.raises(ConfigMismatch, match="cannot build the network"):
        NnUnet([copied], FULLRES, EngineOptions())


def test_nothing_is_printed(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    volume, _ = synthetic_volume(seed=3)
    _predict(NnUnet([model], FULLRES, EngineOptions()), volume)
    assert capfd.readouterr().out == ""
