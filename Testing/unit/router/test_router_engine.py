"""The engine on small graphs whose answers are known: routing, gates, groups, missing and broken experts, threads."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from router_models import (
    TILES,
    config_for,
    linear_graph,
    named_classes,
    smooth_picture,
    softmax,
    tile_means,
    weights_for,
    write_model,
)

from MedAILib.errors import Cancelled, InputError
from MedAILib.models.heads import ClassInfo
from MedMNISTRouterLib.datasets import BY_FLAG, FLAGS, DatasetTask
from MedMNISTRouterLib.engine import NO_EXPERT, RouteEngine
from MedMNISTRouterLib.gate import MahalanobisGate
from MedMNISTRouterLib.modelfolder import FittedGate
from MedMNISTRouterLib.request import (
    ROUTER,
    Answer,
    Engine,
    ModelChoice,
    PlainImage,
    RouteRequest,
    RouteResult,
    Stage,
)

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

COLOUR = tuple(PlainImage(f"colour {seed}", smooth_picture(seed, 3)) for seed in range(6))
GREY = tuple(PlainImage(f"grey {seed}", smooth_picture(seed)) for seed in range(6))


def fitted(pictures: tuple[PlainImage, ...], **more: float) -> FittedGate:
    """A gate for pictures like these: each, and each a little brighter or darker."""
    features = np.stack([tile_means(np.clip(p.pixels * k, 0, 255)) for p in pictures for k in np.linspace(0.9, 1.1, 9)])
    gate = MahalanobisGate.fit(features)
    return FittedGate(gate, gate.threshold(features, 1.0) * 1.01, 0.95, **more)


def routing_weights(to: dict[int, str], pictures: tuple[PlainImage, ...]) -> np.ndarray:
    """Weights of a router that sends picture i to ``to[i]``, by least squares."""
    features = np.stack([tile_means(picture.pixels) for picture in pictures])
    wanted = np.full((len(pictures), len(FLAGS)), -10.0)
    for index, flag in to.items():
        wanted[index, FLAGS.index(flag)] = 10.0
    return np.linalg.lstsq(features, wanted, rcond=None)[0].astype(np.float32)


def expected(slot: str, picture: PlainImage) -> np.ndarray:
    channels = BY_FLAG[slot].channels
    x = tile_means(picture.pixels) @ weights_for(slot, channels).astype(np.float64)
    return 1 / (1 + np.exp(-x)) if BY_FLAG[slot].task is DatasetTask.MULTI_LABEL else softmax(x)


def ask(folder: Path, images: tuple[PlainImage, ...], engine: RouteEngine | None = None, **more: object) -> RouteResult:
    more.setdefault("without_gate", True)
    return (engine or RouteEngine()).route(RouteRequest(images, models_folder=folder, **more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All twelve experts, and a router that sends colour picture i to a data set in colours."""
    home = tmp_path_factory.mktemp("Modèles of all slots")
    for flag in FLAGS:
        write_model(home / "trained" / flag, flag)
    to = {i: ("bloodmnist", "pathmnist", "dermamnist")[i % 3] for i in range(len(COLOUR))}
    write_model(home / "trained" / ROUTER, ROUTER, weights=routing_weights(to, COLOUR))
    return home


def test_pictures_come_back_in_order_each_from_its_own_expert(house: Path) -> None:
    answers = ask(house, COLOUR, batch_size=2).answers

    assert [answer.image for answer in answers] == [picture.name for picture in COLOUR]
    for index, (answer, picture) in enumerate(zip(answers, COLOUR, strict=True)):
        flag = ("bloodmnist", "pathmnist", "dermamnist")[index % 3]
        assert answer.success
        assert answer.routed_dataset == flag
        assert answer.router_confidence == pytest.approx(1, abs=1e-3)
        assert answer.all_class_probs == pytest.approx(expected(flag, picture).tolist(), abs=1e-4)
        assert answer.class_names == BY_FLAG[flag].class_names
        assert answer.predicted_class_index == int(np.argmax(expected(flag, picture)))
        assert answer.predicted_class_confidence == pytest.approx(max(answer.all_class_probs))
        assert answer.engine is Engine.ONNX
        assert [used.slot for used in answer.models] == [ROUTER, flag]
        assert all(len(used.sha256) == 64 for used in answer.models)
        assert set(answer.milliseconds) == {"prepare", "load", "router", "expert", "total"}


def test_one_picture_or_many_the_answers_are_the_same(house: Path) -> None:
    engine = RouteEngine()
    together = ask(house, COLOUR, engine).answers
    for picture, answer in zip(COLOUR, together, strict=True):
        alone = ask(house, (picture,), engine).answers[0]
        assert alone.all_class_probs == pytest.approx(answer.all_class_probs, abs=1e-6)
        assert alone.predicted_class_name == answer.predicted_class_name


def test_the_best_routes_are_listed_with_what_is_installed(house: Path, tmp_path: Path) -> None:
    answer = ask(house, COLOUR[:1], top=4).answers[0]
    assert len(answer.routes) == 4
    assert [route.confidence for route in answer.routes] == sorted((r.confidence for r in answer.routes), reverse=True)
    assert all(route.is_installed for route in answer.routes)

    alone = (ModelChoice(ROUTER, house / "trained" / ROUTER),)
    assert not any(route.is_installed for route in ask(tmp_path, COLOUR[:1], models=alone).answers[0].routes)


@pytest.mark.parametrize("flag", FLAGS)
def test_every_expert_answers_as_its_task_asks(flag: str, house: Path) -> None:
    picture = (GREY if BY_FLAG[flag].channels == 1 else COLOUR)[0]
    answer = ask(house, (picture,), expert=flag).answers[0]
    dataset = BY_FLAG[flag]

    assert answer.success, answer.error or answer.reason
    assert answer.router_confidence is None
    assert answer.task is dataset.task
    assert answer.all_class_probs == pytest.approx(expected(flag, picture).tolist(), abs=1e-4)
    multi_label = dataset.task is DatasetTask.MULTI_LABEL
    assert len(answer.positives) == (sum(p >= 0.5 for p in answer.all_class_probs) if multi_label else 0)
    grade = sum(i * p for i, p in enumerate(answer.all_class_probs))
    assert answer.expected_grade == (pytest.approx(grade) if dataset.task is DatasetTask.ORDINAL else None)


def test_a_missing_expert_is_named_with_its_file_and_the_others_go_on(house: Path, tmp_path: Path) -> None:
    models = (
        ModelChoice(ROUTER, house / "trained" / ROUTER),
        ModelChoice("pathmnist", house / "trained" / "pathmnist"),
    )
    answers = ask(tmp_path, COLOUR[:3], models=models).answers

    assert [answer.success for answer in answers] == [False, True, False]
    for answer, flag in ((answers[0], "bloodmnist"), (answers[2], "dermamnist")):
        assert f"stage2_{flag}_final.keras" in answer.error
        assert f"medai models import stage2_{flag}_final.keras --as medmnist-{flag}-keras" in answer.error
        assert answer.error_code == "MODEL_NOT_INSTALLED"
        assert answer.routed_dataset == flag
        assert answer.all_class_probs == ()


def test_a_missing_router_is_said_in_every_answer(tmp_path: Path) -> None:
    choices = (ModelChoice("pathmnist", write_model(tmp_path / "m", "pathmnist").folder),)
    for answer in ask(tmp_path, COLOUR[:2], models=choices).answers:
        assert not answer.success
        assert "stage1_final.keras" in answer.error or answer.routes, "unless one comes with the extension"


def test_a_broken_expert_is_named_and_the_others_go_on(house: Path, tmp_path: Path) -> None:
    broken = write_model(tmp_path / "broken", "bloodmnist")
    broken.graph.write_bytes(broken.graph.read_bytes()[:-5] + b"12345")
    wrong = write_model(tmp_path / "wrong", "dermamnist", weights=np.zeros((3 * TILES**2, 5), np.float32))
    models = tuple(
        ModelChoice(slot, path)
        for slot, path in (
            (ROUTER, house / "trained" / ROUTER),
            ("bloodmnist", broken.folder),
            ("dermamnist", wrong.folder),
            ("pathmnist", house / "trained" / "pathmnist"),
        )
    )
    blood, path, derma = ask(tmp_path, COLOUR[:3], models=models).answers

    assert path.success
    assert "SHA-256" in blood.error
    assert "5 numbers for 7 classes" in derma.error
    assert blood.error_code == derma.error_code == "INVALID_WEIGHTS"


def test_an_expert_for_another_data_set_is_refused(house: Path, tmp_path: Path) -> None:
    models = (ModelChoice("octmnist", house / "trained" / "organamnist"),)
    answer = ask(tmp_path, GREY[:1], models=models, expert="octmnist").answers[0]

    assert "no model for octmnist" in answer.error


def gated_house(folder: Path, pictures: tuple[PlainImage, ...], **more: float) -> tuple[ModelChoice, ...]:
    to = dict.fromkeys(range(len(pictures)), "pathmnist")
    router = write_model(folder / "r", ROUTER, weights=routing_weights(to, pictures), fitted=fitted(pictures, **more))
    return (ModelChoice(ROUTER, router.folder), ModelChoice("pathmnist", write_model(folder / "e", "pathmnist").folder))


def test_the_routers_gate_turns_pictures_of_another_kind_away_without_a_label(tmp_path: Path) -> None:
    models = gated_house(tmp_path, COLOUR[:3])
    others = tuple(replace(p, name="other", pixels=255 - smooth_picture(50 + i, 3)) for i, p in enumerate(COLOUR[3:]))
    answers = ask(tmp_path, COLOUR[:3] + others, models=models, without_gate=False).answers

    assert [answer.success for answer in answers] == [True] * 3 + [False] * 3
    for answer in answers[:3]:
        assert answer.recognised
        assert answer.distance is not None
        assert answer.threshold is not None
        assert answer.distance <= answer.threshold
        assert answer.reason == ""
    for answer in answers[3:]:
        assert_turned_away(answer, Stage.ROUTER, "not like the images the router was trained on")
        assert answer.distance is not None
        assert answer.threshold is not None
        assert answer.distance > answer.threshold
        assert answer.routes, "where it would have gone is still said"


def assert_turned_away(answer: Answer, stage: Stage, words: str) -> None:
    assert not answer.success
    assert not answer.recognised
    assert answer.stage is stage
    assert words in answer.reason
    assert answer.predicted_class_index is None
    assert answer.predicted_class_name == ""
    assert answer.all_class_probs == ()
    assert answer.class_names == ()
    assert answer.error == ""


def test_the_experts_gate_is_asked_too(tmp_path: Path) -> None:
    expert = write_model(tmp_path / "e", "pathmnist", fitted=fitted(COLOUR[:3]))
    models = (ModelChoice("pathmnist", expert.folder),)
    other = PlainImage("other", smooth_picture(77, 3))
    good, bad = ask(tmp_path, (COLOUR[0], other), models=models, expert="pathmnist", without_gate=False).answers

    assert good.success
    assert_turned_away(bad, Stage.EXPERT, "PathMNIST was trained on")


def test_a_router_that_is_not_sure_gives_no_label(tmp_path: Path) -> None:
    models = gated_house(tmp_path, COLOUR[:3], least_confidence=1.0)
    assert_turned_away(
        ask(tmp_path, COLOUR[:1], models=models, without_gate=False).answers[0], Stage.ROUTER, "not sure"
    )


def test_without_statistics_no_label_is_given_unless_asked_for(house: Path) -> None:
    answer = ask(house, COLOUR[:1], without_gate=False).answers[0]
    assert_turned_away(answer, Stage.EXPERT, "cannot be judged")
    assert "medai train gate --model" in answer.reason
    assert answer.routes

    allowed = ask(house, COLOUR[:1]).answers[0]
    assert allowed.success
    assert "No statistics" in allowed.reason


NOISE = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (NOISE.integers(0, 256, (64, 64, 3), dtype=np.uint8), "noise"),
        (np.full((64, 64), 77, np.uint8), "blank"),
        (np.zeros((5, 64), np.uint8), "small"),
    ],
)
@pytest.mark.parametrize("expert", ["", "pathmnist"])
def test_noise_and_blank_pictures_never_get_a_label(pixels: np.ndarray, words: str, expert: str, house: Path) -> None:
    assert_turned_away(ask(house, (PlainImage("x", pixels),), expert=expert).answers[0], Stage.INPUT, words)


def test_a_picture_in_colours_is_not_given_to_an_expert_for_grey_ones(house: Path) -> None:
    colour, grey = ask(house, (COLOUR[0], GREY[0]), expert="chestmnist").answers

    assert_turned_away(colour, Stage.EXPERT, "colours")
    assert grey.success


def test_a_grey_picture_for_an_expert_in_colours_is_warned_about(house: Path) -> None:
    answer = ask(house, GREY[:1], expert="bloodmnist").answers[0]
    assert answer.success
    assert any("grey" in text for text in answer.warnings)


def radiology_router(folder: Path) -> ModelChoice:
    classes = named_classes(
        ClassInfo(0, "chest radiograph", routes_to=("breastmnist", "chestmnist")), ClassInfo(1, "hand radiograph")
    )
    weights = np.zeros((TILES**2, 2), np.float32)
    weights[:, 0], weights[:, 1] = 4, -4
    weights[:, 1] += 3  # bright pictures are chests
    config = config_for(ROUTER, channels=("grey",), classes=classes)
    return ModelChoice(ROUTER, write_model(folder / "radio", ROUTER, grey=True, weights=weights, config=config).folder)


def test_a_kind_of_image_goes_to_the_first_of_its_experts_that_is_there(house: Path, tmp_path: Path) -> None:
    chest = ModelChoice("chestmnist", house / "trained" / "chestmnist")
    answer = ask(tmp_path / "s", GREY[:1], models=(radiology_router(tmp_path), chest)).answers[0]

    assert answer.routes[0].name == "chest radiograph"
    assert answer.routed_dataset == "chestmnist"
    assert answer.success


def test_a_kind_of_image_that_no_data_set_has_is_said(tmp_path: Path) -> None:
    models = (radiology_router(tmp_path),)
    folder = models[0].path
    weights = np.zeros((TILES**2, 2), np.float32)
    weights[:, 1] = 4
    model = write_model(tmp_path / "hand", ROUTER, grey=True, weights=weights, config=config_of(folder))
    answer = ask(tmp_path, GREY[:1], models=(ModelChoice(ROUTER, model.folder),)).answers[0]

    assert not answer.success
    assert answer.routed_dataset == ""
    assert "hand radiograph" in answer.error
    assert answer.error_code == NO_EXPERT


def config_of(folder: Path) -> object:
    from MedMNISTRouterLib.modelfolder import read_model_folder

    return read_model_folder(folder).config


def test_the_plane_of_a_slice_decides_between_the_organ_sets(house: Path, tmp_path: Path) -> None:
    weights = np.zeros((3 * TILES**2, len(FLAGS)), np.float32)
    weights[:, FLAGS.index("organamnist")] = 1.0
    weights[:, FLAGS.index("organcmnist")] = 0.9
    router = ModelChoice(ROUTER, write_model(tmp_path / "r", ROUTER, weights=weights).folder)
    images = (GREY[0], replace(GREY[0], plane="coronal"), replace(GREY[0], plane="axial"))
    plain, coronal, axial = ask(house, images, models=(router,)).answers

    assert [a.routed_dataset for a in (plain, coronal, axial)] == ["organamnist", "organcmnist", "organamnist"]
    assert coronal.router_confidence is not None
    assert plain.router_confidence is not None
    assert coronal.router_confidence > plain.router_confidence
    assert any("coronal" in text for text in coronal.warnings)


def test_calibrated_says_whether_a_temperature_was_fitted(tmp_path: Path) -> None:
    config = config_for("pathmnist", temperature=2.0, calibrated_on="100 validation images")
    model = write_model(tmp_path / "m", "pathmnist", config=config)
    answer = ask(tmp_path, COLOUR[:1], models=(ModelChoice("pathmnist", model.folder),), expert="pathmnist").answers[0]
    x = tile_means(COLOUR[0].pixels) @ weights_for("pathmnist").astype(float)

    assert answer.calibrated
    assert answer.all_class_probs == pytest.approx(softmax(x / 2).tolist(), abs=1e-4)


def test_channels_last_graphs_give_the_same_answers(tmp_path: Path) -> None:
    answers = []
    for first in (True, False):
        model = write_model(tmp_path / str(first), "pathmnist", channels_first=first)
        choice = (ModelChoice("pathmnist", model.folder),)
        answers.append(ask(tmp_path, COLOUR[:2], models=choice, expert="pathmnist").answers[1].all_class_probs)
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


def test_a_renewed_model_is_used_from_the_next_request_on(tmp_path: Path) -> None:
    engine, folder = RouteEngine(), tmp_path / "m"
    choice = (ModelChoice("pathmnist", folder),)

    def best() -> tuple[float, ...]:
        return ask(tmp_path, COLOUR[:1], engine, models=choice, expert="pathmnist").answers[0].all_class_probs

    write_model(folder, "pathmnist")
    before = best()
    write_model(folder, "pathmnist", weights=weights_for("pathmnist", seed=1))
    assert best() != before


def test_eight_threads_twelve_experts_and_room_for_three_give_right_answers(house: Path) -> None:
    engine = RouteEngine(memory_budget_bytes=int(3.5 * (9 << 20)))
    failures: list[object] = []

    def hammer(seed: int) -> None:
        try:
            for step in range(12):
                flag = FLAGS[(seed * 5 + step * (seed + 1)) % len(FLAGS)]
                picture = (GREY if BY_FLAG[flag].channels == 1 else COLOUR)[step % 6]
                answer = ask(house, (picture,), engine, expert=flag).answers[0]
                assert answer.success, answer.error
                assert answer.all_class_probs == pytest.approx(expected(flag, picture).tolist(), abs=1e-4)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hammer, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not any(thread.is_alive() for thread in threads), "they wait for each other for ever"
    assert not failures
    stats = engine.stats()
    assert 1 <= len(stats.loaded) <= 3
    assert stats.evictions > 0
    assert stats.hits + stats.misses == 8 * 12


def test_an_empty_request_has_an_empty_answer(tmp_path: Path) -> None:
    assert ask(tmp_path, ()).answers == ()


def test_a_request_that_cannot_be_understood_says_all_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no expert 'x'.*top is 0.*batch_size is -1"):
        ask(tmp_path, COLOUR, expert="x", top=0, batch_size=-1)
    with pytest.raises(InputError, match="no slot 'x'"):
        ask(tmp_path, COLOUR, models=(ModelChoice("x", tmp_path),))


def test_a_cancel_ends_the_run(house: Path) -> None:
    def cancel(stage: str, fraction: float) -> None:
        if stage.startswith("Asking"):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        RouteEngine().route(RouteRequest(COLOUR, models_folder=house, without_gate=True), cancel)


def test_a_graph_that_wants_more_than_a_picture_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    folder = write_model(tmp_path / "m", "pathmnist").folder
    model = onnx.load_from_string(linear_graph(weights_for("pathmnist")))
    model.graph.input.append(onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [1]))
    from MedMNISTRouterLib.modelfolder import write_model_folder

    write_model_folder(folder, config_for("pathmnist"), model.SerializeToString())
    answer = ask(tmp_path, COLOUR[:1], models=(ModelChoice("pathmnist", folder),), expert="pathmnist").answers[0]
    assert "2 inputs" in answer.error
