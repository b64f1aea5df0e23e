"""Pictures on their way into a network, against the original service's preprocessing; and pictures turned away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from router_models import smooth_picture

from MedAILib.errors import ConfigError
from MedAILib.models.heads import Input, Normalisation, NormalisationKind, Resize
from MedMNISTRouterLib.checks import is_colour, problem_with
from MedMNISTRouterLib.datasets import Crop
from MedMNISTRouterLib.prepare import GREY, cropped, eight_bit, prepared
from MedMNISTRouterLib.request import PlainImage
from MedMNISTRouterLib.scaling import BGR, CAFFE, RAW, RGB

SERVICE = Input(channels=BGR, size=(64, 64), resize=Resize.CUBIC, normalisation=CAFFE)
OURS = Input(
    channels=GREY,
    size=(28, 28),
    resize=Resize.AREA,
    normalisation=Normalisation(NormalisationKind.FIXED, scale=255.0, mean=(0.5,), std=(0.5,)),
)


@given(
    rows=st.integers(20, 150), columns=st.integers(20, 150), channels=st.sampled_from([1, 3]), seed=st.integers(0, 9)
)
def test_pictures_go_in_as_in_the_published_service(rows: int, columns: int, channels: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, channels), dtype=np.uint8)
    pixels = pixels[..., 0] if channels == 1 else pixels
    small = np.asarray(Image.fromarray(pixels).convert("RGB").resize((64, 64)), np.float32)
    expected = small[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)

    assert prepared(pixels, SERVICE) == pytest.approx(expected, abs=1e-4)


def test_our_own_models_take_grey_from_minus_one_to_one() -> None:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[:, 14:] = 255
    found = prepared(pixels, OURS)

    assert found.shape == (28, 28, 1)
    assert found.dtype == np.float32
    assert set(np.unique(found)) == {-1.0, 1.0}


def test_a_grey_network_sees_the_luma_of_a_colour_picture() -> None:
    pixels = smooth_picture(3, 3, 28)
    expected = np.asarray(Image.fromarray(pixels).convert("L"), float)

    assert (prepared(pixels, OURS)[..., 0] * 127.5 + 127.5) == pytest.approx(expected, abs=1.01)


@pytest.mark.parametrize(
    ("shape", "crop", "expected"),
    [
        ((100, 60), Crop.SHORT_EDGE, (60, 60)),
        ((60, 101), Crop.SHORT_EDGE, (60, 60)),
        ((360, 363), Crop.MIDDLE_200, (200, 200)),
        ((363, 360), Crop.MIDDLE_200, (200, 200)),
        ((28, 28), Crop.MIDDLE_200, (28, 28)),
        ((100, 60), Crop.ORGAN, (100, 60)),
        ((100, 60), Crop.NONE, (100, 60)),
    ],
)
def test_the_middle_is_cut_out_as_the_makers_of_the_data_set_did(
    shape: tuple[int, int], crop: Crop, expected: tuple[int, int]
) -> None:
    pixels = np.arange(shape[0] * shape[1]).reshape(shape)
    found = cropped(pixels, crop)
    top, left = (shape[0] - expected[0]) // 2, (shape[1] - expected[1]) // 2

    assert found.shape == expected
    assert found[0, 0] == pixels[top, left]


@pytest.mark.parametrize(
    ("pixels", "value_range", "remark"),
    [
        (np.array([[0, 128, 255]], np.uint8), None, ""),
        (np.array([[0, 2056, 4095]], np.uint16), None, ""),
        (np.array([[0, 32896, 65535]], np.uint16), (0, 65535), ""),
        (np.array([[-160, 41, 240]], np.float32), (-160, 240), ""),
        (np.array([[0, 0.502, 1]], np.float32), None, "between 0 and 1"),
        (np.array([[0, 128, 255]], np.float32), None, "between 0 and 255"),
        (np.array([[-1000, 0, 1000]], np.float32) * 1.0, None, "between -1000 and 1000"),
    ],
)
def test_values_become_eight_bits_and_what_was_guessed_is_said(
    pixels: np.ndarray, value_range: tuple[float, float] | None, remark: str
) -> None:
    found = eight_bit(PlainImage("x", pixels, value_range))

    assert found.pixels.dtype == np.uint8
    assert found.pixels[0].tolist() == pytest.approx([0, 128, 255], abs=1)
    assert remark in found.remark
    assert bool(remark) == bool(found.remark)


def test_a_float_picture_is_the_same_whether_it_was_scaled_to_1_or_to_255() -> None:
    pixels = smooth_picture(1).astype(np.float32)
    pixels[0, 0], pixels[-1, -1] = 0, 255

    assert np.array_equal(eight_bit(PlainImage("x", pixels)).pixels, eight_bit(PlainImage("x", pixels / 255)).pixels)


@pytest.mark.parametrize(
    "wanted",
    [
        Input(channels=RGB, size=(64, 64)),
        Input(channels=("a", "b"), size=(64, 64), normalisation=RAW),
        Input(size=(64, 64), normalisation=RAW),
        Input(channels=RGB, size=(3, 64, 64), normalisation=RAW),
        Input(channels=RGB, size=(64, 64), normalisation=Normalisation(NormalisationKind.WINDOW, 0.0, 1.0)),
    ],
)
def test_a_description_that_leaves_something_open_is_an_error_and_no_guess(wanted: Input) -> None:
    with pytest.raises(ConfigError):
        prepared(smooth_picture(0), wanted)


def problem(pixels: np.ndarray, value_range: tuple[float, float] | None = None) -> str:
    image = PlainImage("x", pixels, value_range)
    return problem_with(image, eight_bit(image).pixels)


NOISE = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((64, 64), np.uint8), "blank"),
        (np.full((64, 64, 3), 200, np.uint8), "blank"),
        (np.full((64, 64), 0.5, np.float32), "blank"),
        (np.zeros((64, 64), np.uint16), "blank"),
        (NOISE.integers(0, 256, (64, 64), dtype=np.uint8), "noise"),
        (NOISE.integers(0, 256, (64, 64, 3), dtype=np.uint8), "noise"),
        (NOISE.normal(0, 1, (128, 100)).astype(np.float32), "noise"),
        (NOISE.integers(0, 256, (28, 28), dtype=np.uint8), "noise"),
        (NOISE.integers(0, 256, (64, 64), dtype=np.uint8).repeat(4, 0).repeat(4, 1), "noise"),
        (smooth_picture(0)[:10], "too small"),
        (smooth_picture(0) // 128, "0 or 1"),
        (np.where(np.eye(32) > 0, np.nan, smooth_picture(0)).astype(np.float32), "not numbers"),
        (np.zeros((64, 64, 4), np.uint8), "shape"),
    ],
)
def test_what_no_model_should_see_is_turned_away_by_name(pixels: np.ndarray, words: str) -> None:
    assert words in problem(pixels)


def test_a_smooth_picture_is_not_turned_away() -> None:
    assert problem(smooth_picture(0)) == ""
    assert problem(smooth_picture(0, 3)) == ""


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("pneumoniamnist_trainval.npz", "val_images"),
        ("pathmnist_sub.npz", "images"),
        ("cxr_nih100.npz", "images"),
        ("bccd64.npz", "images"),
    ],
)
def test_no_real_image_is_turned_away(file: str, key: str, shared_data: Callable[[str], Path]) -> None:
    with np.load(shared_data(f"img2d/{file}")) as data:
        pictures = data[key]

    assert [problem(picture) for picture in pictures if problem(picture)] == []


def test_colours_are_told_from_a_tint(shared_data: Callable[[str], Path]) -> None:
    grey = np.repeat(smooth_picture(0)[..., None], 3, axis=2)
    assert not is_colour(smooth_picture(0))
    assert not is_colour(grey)
    assert not is_colour(np.clip(np.add(grey, np.array([0, 2, 4])), 0, 255).astype(np.uint8))
    with np.load(shared_data("img2d/pathmnist_sub.npz")) as data:
        assert all(is_colour(picture) for picture in data["images"])
