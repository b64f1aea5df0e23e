"""What the predictor promises: alone or in a batch the same, nothing guessed, nothing changed by looking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the multi-task network needs torch")

from multitask_models import Z_SCORE, config_for, saved, small_model, state_hash  # noqa: E402

from MedAILib.errors import ConfigMismatch, FileMissing, InputError  # noqa: E402
from MedAILib.models.heads import Normalisation, NormalisationKind  # noqa: E402
from MedAILib.multitask.gradcam import foreground  # noqa: E402
from MedAILib.multitask.predictor import Asked, MultiTaskPredictor, Options  # noqa: E402
from MedAILib.multitask.results import Prediction  # noqa: E402


@pytest.fixture
def predictor() -> MultiTaskPredictor:
    model = small_model()
    return MultiTaskPredictor.from_model(model, config_for(model), Options(threads=1))


def some_images(count: int = 7, size: tuple[int, int] = (40, 28)) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[: size[0], : size[1]]
    blobs = [np.exp(-((rows - 8 - 3 * n) ** 2 + (columns - 14) ** 2) / 30) for n in range(count)]
    return [(1000 * blob + 100 * rng.random(size)).astype(np.uint16) for blob in blobs]


def assert_same(one: Prediction, other: Prediction, tolerance: float = 1e-6) -> None:
    assert one.classification is not None
    assert other.classification is not None
    assert one.classification.tumor_probability == pytest.approx(other.classification.tumor_probability, abs=tolerance)
    assert one.classification.predicted_label == other.classification.predicted_label
    assert (one.segmentation is None) == (other.segmentation is None)
    if one.segmentation is not None and other.segmentation is not None:
        assert one.segmentation.prob_map == pytest.approx(other.segmentation.prob_map, abs=tolerance)
        near = np.abs(one.segmentation.prob_map - one.segmentation.threshold) <= tolerance
        assert np.array_equal(one.segmentation.mask[~near], other.segmentation.mask[~near])


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_an_image_alone_is_answered_as_in_a_batch(batch_size: int) -> None:
    model = small_model()
    predictor = MultiTaskPredictor.from_model(model, config_for(model), Options(batch_size=batch_size, threads=1))
    images = some_images()
    for image, together in zip(images, predictor.predict_batch(images), strict=True):
        assert_same(predictor.predict_single(image), together)


def test_a_deep_network_too_answers_alone_as_in_a_batch() -> None:
    model = small_model(base_filters=8, depth=4, cls_hidden_dim=16)
    predictor = MultiTaskPredictor.from_model(model, config_for(model, size=(64, 64)), Options(batch_size=5, threads=1))
    images = some_images(5)
    for image, together in zip(images, predictor.predict_batch(images), strict=True):
        assert_same(predictor.predict_single(image), together)


def test_an_image_is_answered_as_the_network_itself_answers(predictor: MultiTaskPredictor) -> None:
    image = np.random.default_rng(2).normal(size=(32, 32))
    ours = predictor.predict_single(image, return_logits=True)
    z_scores = (image - image.mean()) / image.std()
    with torch.inference_mode():
        theirs = predictor.model(torch.from_numpy(z_scores[None, None]).float())
    assert ours.classification is not None
    assert ours.segmentation is not None
    assert ours.classification.logits == pytest.approx(theirs["cls"][0].tolist(), abs=1e-5)
    assert ours.segmentation.prob_map == pytest.approx(theirs["seg"][0, 0].sigmoid().numpy(), abs=1e-5)
    assert ours.classification.tumor_probability == pytest.approx(theirs["cls"].softmax(1)[0, 1].item(), abs=1e-5)


def test_images_of_different_sizes_go_in_one_batch(predictor: MultiTaskPredictor) -> None:
    images = [some_images(1, size)[0] for size in ((40, 28), (16, 64), (32, 32))]
    masks = [p.segmentation.mask for p in predictor.predict_batch(images) if p.segmentation is not None]
    assert [mask.shape for mask in masks] == [(40, 28), (16, 64), (32, 32)]


def test_a_model_of_any_size_takes_each_image_as_it_is() -> None:
    model = small_model()
    predictor = MultiTaskPredictor.from_model(model, config_for(model, size=()), Options(batch_size=4, threads=1))
    images = [some_images(1, size)[0] for size in ((40, 28), (17, 33))]
    for image, together in zip(images, predictor.predict_batch(images), strict=True):
        assert_same(predictor.predict_single(image), together)
    with pytest.raises(InputError, match="too small for this model"):
        predictor.predict_single(np.zeros((3, 40)))


def test_the_depth_of_the_stored_values_changes_nothing(predictor: MultiTaskPredictor) -> None:
    image = some_images(1)[0] % np.uint16(256)
    reference = predictor.predict_single(image.astype(np.uint8))
    for other in (image, image * np.uint16(257), image.astype(np.int16) * 16 - 2000, image / 255.0, image * 1e6):
        assert_same(predictor.predict_single(other), reference, 2e-6)


def test_a_mask_that_covers_nearly_all_is_not_turned_inside_out() -> None:
    model = small_model()
    with torch.no_grad():
        model.seg_decoder.outc.conv.bias.fill_(50.0)
    predictor = MultiTaskPredictor.from_model(model, config_for(model), Options(threads=1))
    image = some_images(1)[0]
    for prediction in (predictor.predict_single(image), predictor.predict_batch([image, image])[1]):
        assert prediction.segmentation is not None
        assert prediction.segmentation.mask.all()
        assert prediction.segmentation.tumor_percentage == 100.0


def test_the_mask_is_where_the_probability_is_above_the_threshold(predictor: MultiTaskPredictor) -> None:
    answer = predictor.predict_single(some_images(1)[0]).segmentation
    assert answer is not None
    assert np.array_equal(answer.mask > 0, answer.prob_map > 0.5)
    assert 0 < answer.tumor_area_pixels < answer.mask.size
    assert answer.tumor_percentage == pytest.approx(100 * answer.mask.mean())


def test_only_the_heads_asked_for_answer(predictor: MultiTaskPredictor) -> None:
    image = some_images(1)[0]
    assert predictor.predict_single(image, do_seg=False).segmentation is None
    assert predictor.predict_single(image, do_cls=False).classification is None


def test_the_threshold_of_the_description_decides_the_class_and_the_segmentation() -> None:
    model, image = small_model(), some_images(1)[0]
    free = MultiTaskPredictor.from_model(model, config_for(model), Options(threads=1)).predict_single(image)
    assert free.classification is not None
    probability = free.classification.tumor_probability
    for threshold, found in ((probability - 0.01, True), (probability + 0.01, False)):
        config = config_for(model, threshold=threshold)
        answer = MultiTaskPredictor.from_model(model, config, Options(threads=1)).predict_conditional(image)
        assert answer.classification is not None
        assert answer.classification.predicted_label == ("Tumor" if found else "No Tumor")
        assert answer.classification.confidence == pytest.approx(probability if found else 1 - probability)
        assert answer.segmentation_computed is found
        assert (answer.segmentation is not None) is found
        assert "no diagnosis" in answer.recommendation


def test_a_conditional_batch_segments_only_what_is_suspicious_and_as_alone() -> None:
    model, images = small_model(), some_images()
    free = MultiTaskPredictor.from_model(model, config_for(model), Options(threads=1)).predict_batch(images)
    middle = float(np.median([p.classification.tumor_probability for p in free if p.classification is not None]))
    options = Options(classification_threshold=middle, batch_size=4, threads=1)
    predictor = MultiTaskPredictor.from_model(model, config_for(model), options)
    conditional = list(predictor.predictions(images, Asked(conditional=True)))
    assert {p.segmentation_computed for p in conditional} == {True, False}
    for one, whole in zip(conditional, free, strict=True):
        if one.segmentation is not None and whole.segmentation is not None:
            assert np.array_equal(one.segmentation.mask, whole.segmentation.mask)


def test_a_temperature_softens_the_probabilities() -> None:
    model, image = small_model(), some_images(1)[0]
    config = config_for(model)
    soft = replace(config, heads=(config.heads[0], replace(config.heads[1], temperature=5.0)))
    sharp_answer, soft_answer = (
        MultiTaskPredictor.from_model(model, c, Options(threads=1)).predict_single(image) for c in (config, soft)
    )
    assert sharp_answer.classification is not None
    assert soft_answer.classification is not None
    probabilities = np.array([answer.classification.tumor_probability for answer in (sharp_answer, soft_answer)])
    margins = np.log(probabilities / (1 - probabilities))
    assert margins[0] == pytest.approx(5 * margins[1], rel=1e-4)


def test_grad_cam_leaves_the_network_as_it_was(predictor: MultiTaskPredictor) -> None:
    modes: list[bool] = []
    for module in predictor.model.modules():
        module.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    before = state_hash(predictor.model)
    for image in some_images(3):
        predictor.predict_full(image, include_gradcam=True)
        predictor.predict_with_gradcam(image, target_class=0)
    assert state_hash(predictor.model) == before
    assert not any(modes)
    assert not predictor.model.training
    assert all(parameter.grad is None for parameter in predictor.model.parameters())


def test_grad_cam_is_what_hooks_on_the_whole_network_give(predictor: MultiTaskPredictor) -> None:
    image = np.random.default_rng(5).normal(size=(32, 32))
    heatmap = predictor.predict_with_gradcam(image, target_class=1).gradcam
    assert heatmap is not None
    kept: list[torch.Tensor] = []
    handle = predictor.model.encoder.down_blocks[-1].register_forward_hook(lambda *a: kept.append(a[2]))
    z_scores = torch.from_numpy((image - image.mean()) / image.std())[None, None].float()
    logits = predictor.model(z_scores, do_seg=False)["cls"]
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, 1], kept[0])
    heat = torch.relu((gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1, keepdim=True))
    whole = torch.nn.functional.interpolate(heat, (32, 32), mode="bilinear", align_corners=False)[0, 0]
    expected = (whole / whole.max()).detach().numpy() if whole.max() > 0 else whole.detach().numpy()
    assert heatmap.heatmap == pytest.approx(expected, abs=1e-4)


def test_grad_cam_shows_the_predicted_class_and_can_be_kept_to_the_foreground(predictor: MultiTaskPredictor) -> None:
    image = some_images(1)[0].copy()
    image[:, :6] = 0
    prediction = predictor.predict_with_gradcam(image, use_brain_mask=True)
    assert prediction.gradcam is not None
    assert prediction.classification is not None
    assert prediction.gradcam.target_class == prediction.classification.predicted_class
    assert prediction.gradcam.brain_masked
    assert prediction.gradcam.heatmap.shape == image.shape
    assert not prediction.gradcam.heatmap[~foreground(image[None])].any()
    with pytest.raises(InputError, match="no class 2"):
        predictor.predict_with_gradcam(image, target_class=2)


def test_the_foreground_is_the_head_without_holes_and_without_specks() -> None:
    rows, columns = np.mgrid[:64, :64]
    head = np.hypot(rows - 32, columns - 32) < 20
    image = 100.0 * head
    image[30:34, 30:34] = 0
    image[2, 2] = 100
    assert np.array_equal(foreground(image[None]), head)
    assert foreground(np.ones((1, 4, 4))).all()


def test_answers_bear_the_published_names(predictor: MultiTaskPredictor) -> None:
    image = some_images(1)[0]
    answer = predictor.predict_full(image, include_gradcam=True).to_dict()
    parts = {"classification", "segmentation", "segmentation_computed", "recommendation", "gradcam", "image_original"}
    assert parts == set(answer)
    facts = {"predicted_class", "predicted_label", "confidence", "tumor_probability", "probabilities"}
    assert facts <= set(answer["classification"])
    assert set(answer["classification"]["probabilities"]) == {"No Tumor", "Tumor"}
    assert sum(answer["classification"]["probabilities"].values()) == pytest.approx(1)
    assert {"heatmap", "target_class", "brain_masked"} == set(answer["gradcam"])
    assert np.array_equal(answer["image_original"], image)
    whole = predictor.predict_single(image, return_logits=True).to_dict()
    assert {"mask", "prob_map", "tumor_area_pixels", "tumor_percentage", "logits"} <= set(whole["segmentation"])
    assert len(whole["classification"]["logits"]) == 2


def test_a_checkpoint_needs_no_architecture_and_its_description_is_used(tmp_path: Path) -> None:
    model = small_model(base_filters=6, depth=3, bilinear=False)
    path = saved(tmp_path / "mä model", model, config_for(model, threshold=0.42))
    for place in (path, path.parent, str(path)):
        predictor = MultiTaskPredictor(place, "cpu", threads=1)
        info = predictor.get_model_info()
        assert info["architecture"]["base_filters"] == 6
        assert info["classification_threshold"] == 0.42
        assert info["calibrated"] is True
        assert info["class_names"] == ["No Tumor", "Tumor"]
        assert len(info["weights_sha256"]) == 64
    image = some_images(1)[0]
    in_memory = MultiTaskPredictor.from_model(model, config_for(model, threshold=0.42), Options(threads=1))
    assert_same(predictor.predict_single(image), in_memory.predict_single(image))


def test_a_bare_checkpoint_is_used_with_what_is_usual_and_says_that_this_is_assumed(tmp_path: Path) -> None:
    model = small_model()
    path = tmp_path / "best_model.pth"
    torch.save({"model_state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    predictor = MultiTaskPredictor(path, "cpu", threads=1)
    assert predictor.input.size == (256, 256)
    answer = predictor.predict_single(some_images(1)[0])
    assert answer.classification is not None
    assert answer.classification.threshold == 0.3
    assert answer.to_dict()["classification"]["calibrated"] is False
    assert answer.to_dict()["segmentation"]["calibrated"] is False
    assert "$.heads[1].threshold" in predictor.get_model_info()["assumed"]
    assert "assumed" in predictor.predict_conditional(some_images(1)[0]).recommendation


def test_a_threshold_of_the_user_is_not_an_assumed_one() -> None:
    model = small_model()
    config = config_for(model, assumed=("$.heads[1].threshold",))
    assert not MultiTaskPredictor.from_model(model, config).classifying.calibrated
    own = MultiTaskPredictor.from_model(model, config, Options(classification_threshold=0.2))
    assert own.classifying.calibrated
    assert own.classifying.head.threshold == 0.2


@pytest.mark.parametrize("path", ["$.heads", "$.heads[1]", "$.heads[1].classes", "$.heads[1].classes[0].name"])
def test_assumed_class_names_are_not_calibrated(path: str) -> None:
    model = small_model()
    predictor = MultiTaskPredictor.from_model(model, config_for(model, assumed=(path,)))
    assert not predictor.classifying.calibrated


def test_a_normalisation_that_nobody_states_is_asked_for() -> None:
    model = small_model()
    config = config_for(model, normalisation=None)
    with pytest.raises(InputError, match="Nobody states how images are normalised"):
        MultiTaskPredictor.from_model(model, config)
    window = Normalisation(NormalisationKind.WINDOW, 0.0, 1000.0)
    assert MultiTaskPredictor.from_model(model, config, Options(normalisation=window)).input.normalisation == window


def test_classes_that_the_network_does_not_have_are_refused() -> None:
    config = config_for(small_model(cls_num_classes=3))
    with pytest.raises(ConfigMismatch, match="names 3 classes for the head 'cls', the network has 2"):
        MultiTaskPredictor.from_model(small_model(), config)


def test_several_classes_and_segments_are_told_apart() -> None:
    model = small_model(cls_num_classes=3, seg_out_channels=2)
    config = config_for(model, threshold=None)
    answer = MultiTaskPredictor.from_model(model, config, Options(threads=1)).predict_single(some_images(1)[0])
    assert answer.classification is not None
    assert answer.segmentation is not None
    probabilities = answer.classification.probabilities
    assert answer.classification.predicted_label == max(probabilities, key=lambda name: probabilities[name])
    assert answer.classification.tumor_probability == pytest.approx(probabilities["B"] + probabilities["C"])
    assert set(np.unique(answer.segmentation.mask)) <= {0, 1, 2}


def test_images_the_model_cannot_take_are_named(predictor: MultiTaskPredictor) -> None:
    for image in (np.zeros((20, 20, 3), np.uint8), np.zeros((2, 20, 20)), np.zeros(5), np.zeros((0, 5))):
        with pytest.raises(InputError, match=r"takes images of shape \(rows, columns\)"):
            predictor.predict_single(image)
    with pytest.raises(InputError, match="takes images of shape"):
        predictor.predict_single(np.array([["a", "b"]]))


def test_a_model_of_two_channels_takes_images_of_two_channels() -> None:
    model = small_model(in_channels=2)
    predictor = MultiTaskPredictor.from_model(model, config_for(model), Options(threads=1))
    image = np.stack(some_images(2))
    assert predictor.predict_single(image).segmentation is not None
    with pytest.raises(InputError, match=r"\(2, rows, columns\)"):
        predictor.predict_single(image[0])


def test_the_number_of_threads_is_put_back(predictor: MultiTaskPredictor) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    predictor._fast.encoder.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        predictor.predict_single(some_images(1)[0])
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_wrong_options_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0 to 1, not 1\.5"):
        Options(classification_threshold=1.5)
    with pytest.raises(InputError, match="batch size must be at least 1"):
        Options(batch_size=0)
    with pytest.raises(FileMissing):
        MultiTaskPredictor(tmp_path / "absent.safetensors", "cpu")
    with pytest.raises(InputError, match="cannot be used"):
        MultiTaskPredictor(saved(tmp_path, small_model(), config_for(small_model())), "cuda:63")


def test_the_normalisation_of_the_tests_is_the_published_one() -> None:
    assert Z_SCORE.kind is NormalisationKind.Z_SCORE
