"""The embedded models: what they are measured at, and that images of unknown kinds get no label."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import router_outsiders as outsiders

from MedAILib.models.config import ModelConfig
from MedMNISTRouterLib.datasets import DatasetTask
from MedMNISTRouterLib.modelfolder import read_model_folder
from MedMNISTRouterLib.request import PlainImage, RouteRequest, RouteResult
from MedMNISTRouterLib.train import measures
from MedMNISTRouterLib.train.npzfile import read_npz

pytest.importorskip("onnxruntime", reason="running models needs onnxruntime")

from MedMNISTRouterLib.engine import RouteEngine
from MedMNISTRouterLib.prepare import prepared
from MedMNISTRouterLib.session import OnnxModel

SLOTS = ("router", "pneumoniamnist", "pathmnist")
LARGEST_BYTES = 1_000_000


@pytest.fixture(scope="module")
def models(repository: Path) -> Path:
    return repository / "MedMNISTRouter" / "MedMNISTRouterLib" / "models"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[np.ndarray]], RouteResult]:
    """Routes pictures with the embedded models alone."""
    running, empty = RouteEngine(), tmp_path_factory.mktemp("store")

    def route(images: list[np.ndarray]) -> RouteResult:
        pictures = tuple(PlainImage(str(number), image) for number, image in enumerate(images))
        return running.route(RouteRequest(pictures, models_folder=empty))

    return route


@pytest.mark.parametrize("slot", SLOTS)
def test_each_is_whole_small_and_has_a_card(models: Path, slot: str) -> None:
    model = read_model_folder(models / slot)
    assert sum(path.stat().st_size for path in (models / slot).iterdir()) < LARGEST_BYTES
    assert model.gate is not None
    card = (models / slot / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in ("Research only", "## Data", "## Measured", "## Limits", "## Licence"):
        assert words in card


def test_the_pneumonia_expert_is_as_good_as_published_on_the_official_test_images(models: Path) -> None:
    metrics = ModelConfig.from_checkpoint_dir(models / "pneumoniamnist").provenance.metrics
    assert metrics["accuracy"] >= 0.86
    assert metrics["auc"] >= 0.96
    assert metrics["ece"] <= 0.05


def test_the_pneumonia_expert_answers_the_official_validation_images_as_its_card_says(
    models: Path, shared_data: Callable[[str], Path]
) -> None:
    with np.load(shared_data("img2d/pneumoniamnist_trainval.npz"), allow_pickle=False) as file:
        images, labels = file["val_images"], file["val_labels"].ravel().astype(int)
    model = read_model_folder(models / "pneumoniamnist")
    head, wanted = model.config.heads[0], model.config.inputs[0]
    logits = OnnxModel(model.graph).run(np.stack([prepared(image, wanted) for image in images])).answers
    found = measures.measured(logits, labels, DatasetTask.BINARY, head.temperature)
    for name in ("accuracy", "auc", "ece"):
        assert found[name] == pytest.approx(model.config.provenance.metrics[f"val_{name}"], abs=2e-3)


def test_noise_and_blanks_get_no_label(engine: Callable[[list[np.ndarray]], RouteResult]) -> None:
    answers = engine([*outsiders.noise(4), *outsiders.blanks()]).answers
    assert [answer.image for answer in answers if answer.recognised or answer.success] == []


def test_photographs_get_no_label(engine: Callable[[list[np.ndarray]], RouteResult]) -> None:
    photographs = outsiders.photographs()
    if not photographs:
        pytest.skip("neither scikit-image nor scikit-learn, which come with photographs, is installed")
    for images in (photographs, outsiders.grey(photographs)):
        answers = engine(images).answers
        assert np.mean([answer.recognised for answer in answers]) <= 0.06
        assert np.mean([answer.success for answer in answers]) <= 0.02


def test_blood_smears_get_no_label(
    engine: Callable[[list[np.ndarray]], RouteResult], shared_data: Callable[[str], Path]
) -> None:
    answers = engine(outsiders.blood_cells(shared_data("img2d/bccd64.npz").parents[1], 200)).answers
    assert np.mean([answer.recognised for answer in answers]) <= 0.02
    assert np.mean([answer.success for answer in answers]) <= 0.01


def test_radiographs_of_children_reach_the_pneumonia_expert(
    engine: Callable[[list[np.ndarray]], RouteResult], shared_data: Callable[[str], Path]
) -> None:
    part = read_npz(shared_data("img2d/pneumoniamnist_trainval.npz")).parts["test"]
    answers = engine(list(part.images[:200])).answers
    answered = [answer for answer in answers if answer.success]
    assert len(answered) >= 0.85 * len(answers)
    assert {answer.routed_dataset for answer in answered} == {"pneumoniamnist"}
    right = [answer.predicted_class_index == label for answer, label in zip(answers, part.labels, strict=False)
             if answer.success]  # fmt: skip
    assert np.mean(right) >= 0.86


def test_tissue_sections_reach_the_small_path_expert(
    engine: Callable[[list[np.ndarray]], RouteResult], shared_data: Callable[[str], Path]
) -> None:
    answers = engine(list(read_npz(shared_data("img2d/pathmnist_sub.npz")).parts["test"].images)).answers
    assert np.mean([answer.routed_dataset == "pathmnist" for answer in answers]) >= 0.8


def test_a_chest_radiograph_of_an_adult_is_recognised_and_its_missing_expert_is_named(
    engine: Callable[[list[np.ndarray]], RouteResult], shared_data: Callable[[str], Path]
) -> None:
    part = read_npz(shared_data("img2d/medicalmnist6.npz")).parts["test"]
    answers = engine(list(part.images[part.labels == 2][:20])).answers
    named = [answer for answer in answers if answer.routes and answer.routes[0].name == "chest radiograph"]
    assert len(named) >= 15
    waiting = [answer for answer in named if answer.recognised]
    assert waiting
    assert all(not answer.success and "chestmnist" in answer.error for answer in waiting)
