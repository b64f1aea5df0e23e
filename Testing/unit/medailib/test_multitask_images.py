"""Images on their way to the network and answers on their way back: normalisation, resizing, padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedAILib.errors import InputError
from MedAILib.models.heads import Input, Normalisation, NormalisationKind, Resize
from MedAILib.multitask.framing import framing_for, resampled
from MedAILib.multitask.normalise import finite, normalised

Kind = NormalisationKind
SIZES = st.tuples(st.integers(3, 90), st.integers(3, 90))
METHODS = st.sampled_from([Resize.NEAREST, Resize.LINEAR, Resize.CUBIC, Resize.AREA])


def an_image(rows: int = 20, columns: int = 30, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (channels, rows, columns)).astype(np.uint8)


def test_z_scores_have_mean_0_and_deviation_1_in_each_channel() -> None:
    result = normalised(an_image(channels=2) * np.uint16(50), Normalisation(Kind.Z_SCORE))
    assert result.dtype == np.float32
    assert result.mean(axis=(1, 2)) == pytest.approx([0, 0], abs=1e-6)
    assert result.std(axis=(1, 2)) == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize("kind", [Kind.Z_SCORE, Kind.MIN_MAX])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_8_12_and_16_bit_images_of_the_same_content_become_the_same(kind: Kind, dtype: type) -> None:
    image = an_image()
    factor = {np.uint8: 1, np.int16: 16}.get(dtype, 257)
    reference = normalised(image, Normalisation(kind))
    assert normalised(image.astype(dtype) * dtype(factor), Normalisation(kind)) == pytest.approx(reference, abs=1e-6)


def test_a_dark_8_bit_image_is_not_taken_for_one_from_0_to_1() -> None:
    dark, bright = np.array([[[0, 1], [1, 0]]], np.uint8), np.array([[[0, 2], [2, 0]]], np.uint8)
    fixed = Normalisation(Kind.FIXED, scale=255.0, mean=(0.0,), std=(1.0,))
    assert 2 * normalised(dark, fixed) == pytest.approx(normalised(bright, fixed))


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        (Normalisation(Kind.NONE), [-100, 0, 100, 300]),
        (Normalisation(Kind.MIN_MAX), [0, 0.25, 0.5, 1]),
        (Normalisation(Kind.WINDOW, 0, 200), [0, 0, 0.5, 1]),
        (Normalisation(Kind.PERCENTILES, 0, 100), [0, 0.25, 0.5, 1]),
        (Normalisation(Kind.FIXED, scale=100.0, mean=(1.0,), std=(2.0,)), [-1, -0.5, 0, 1]),
    ],
)
def test_each_kind_of_normalisation_does_what_it_says(normalisation: Normalisation, expected: list[float]) -> None:
    image = np.array([[[-100, 0], [100, 300]]], np.int16)
    assert normalised(image, normalisation).ravel() == pytest.approx(expected)


@pytest.mark.parametrize("kind", [Kind.Z_SCORE, Kind.MIN_MAX])
@pytest.mark.parametrize("value", [0, 7.3, 1e8])
def test_an_image_without_contrast_becomes_zero(kind: Kind, value: float) -> None:
    assert not normalised(np.full((1, 5, 5), value), Normalisation(kind)).any()


def test_a_fixed_normalisation_of_other_channels_is_refused() -> None:
    with pytest.raises(InputError, match="for 3 channels, the image has 2"):
        normalised(an_image(channels=2), Normalisation(Kind.FIXED, mean=(0, 0, 0), std=(1, 1, 1)))


def test_what_is_no_number_becomes_the_smallest_number() -> None:
    image = np.array([[[np.nan, 2.0], [np.inf, -1.0]]])
    assert finite(image).tolist() == [[[-1.0, 2.0], [-1.0, -1.0]]]
    with pytest.raises(InputError, match="holds no number"):
        finite(np.full((1, 2, 2), np.nan))


@given(SIZES, SIZES, METHODS)
def test_resizing_keeps_a_constant_image_constant(
    before: tuple[int, int], after: tuple[int, int], method: Resize
) -> None:
    assert resampled(np.full((1, *before), 7.5), after, method) == pytest.approx(7.5)


@given(SIZES, SIZES, st.sampled_from([Resize.LINEAR, Resize.AREA, None]))
def test_resizing_keeps_values_within_those_of_the_image(
    before: tuple[int, int], after: tuple[int, int], method: Resize | None
) -> None:
    image = np.random.default_rng(0).random((1, *before))
    result = resampled(image, after, method)
    assert image.min() - 1e-6 <= result.min() <= result.max() <= image.max() + 1e-6


@given(SIZES, METHODS)
def test_an_image_that_keeps_its_size_keeps_every_bit(size: tuple[int, int], method: Resize) -> None:
    image = np.random.default_rng(1).random((1, *size))
    assert resampled(image, size, method) is image


@given(st.integers(2, 40), st.integers(2, 40), st.integers(2, 5))
def test_averaging_over_whole_blocks_is_exact(rows: int, columns: int, factor: int) -> None:
    image = np.random.default_rng(2).random((1, rows * factor, columns * factor))
    blocks = image.reshape(1, rows, factor, columns, factor).mean(axis=(2, 4))
    assert resampled(image, (rows, columns), Resize.AREA) == pytest.approx(blocks, abs=1e-6)


@pytest.mark.parametrize("after", [(64, 64), (17, 23), (11, 90)])
@pytest.mark.parametrize(("method", "mode"), [(Resize.LINEAR, "bilinear"), (Resize.CUBIC, "bicubic")])
def test_resizing_agrees_with_torch(method: Resize, mode: str, after: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="compared with torch")
    image = np.random.default_rng(4).random((2, 31, 45))
    expected = torch.nn.functional.interpolate(torch.from_numpy(image)[None], after, mode=mode, align_corners=False)
    assert resampled(image, after, method) == pytest.approx(expected[0].numpy(), abs=1e-5)


@given(SIZES, st.integers(8, 64), st.floats(0.3, 3.0))
def test_keeping_the_aspect_fills_one_side_and_centres_the_other(
    size: tuple[int, int], target: int, pixel_ratio: float
) -> None:
    image_input = Input(size=(target, target), resize=Resize.LINEAR, keep_aspect=True)
    framing = framing_for(size, image_input, (pixel_ratio, 1.0))
    assert max(framing.content) == target
    before, after = (n - c - s for n, c, s in zip(framing.size, framing.content, framing.start, strict=True))
    assert all(0 <= extra - start <= 1 for extra, start in zip((before, after), framing.start, strict=True))
    proportion = size[0] * pixel_ratio / size[1]
    smaller = min(framing.content)
    if smaller > 1:  # else rounding rules
        assert framing.content[0] / framing.content[1] == pytest.approx(proportion, rel=0.51 / (smaller - 0.5))


@given(SIZES, st.booleans())
def test_an_answer_comes_back_at_the_images_size(size: tuple[int, int], keep_aspect: bool) -> None:
    framing = framing_for(size, Input(size=(32, 48), resize=Resize.LINEAR, keep_aspect=keep_aspect))
    framed = framing.padded(framing.resized(np.random.default_rng(5).random((1, *size))))
    assert framed.shape == (1, 32, 48)
    assert framing.back(framed).shape == (1, *size)


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("size", [(133, 160), (512, 300), (64, 64), (37, 91)])
def test_a_mask_sent_there_and_back_stays_where_it_was(size: tuple[int, int], keep_aspect: bool) -> None:
    rows, columns = np.mgrid[: size[0], : size[1]]
    disc = np.hypot((rows - 0.4 * size[0]) / size[0], (columns - 0.6 * size[1]) / size[1]) < 0.2
    framing = framing_for(size, Input(size=(256, 256), resize=Resize.LINEAR, keep_aspect=keep_aspect))
    there = framing.padded(framing.resized(disc[None].astype(np.float32)))
    back = framing.back(there)[0] > 0.5
    assert 2 * (back & disc).sum() / (back.sum() + disc.sum()) > 0.97
    for axis in (0, 1):
        assert np.nonzero(back)[axis].mean() == pytest.approx(np.nonzero(disc)[axis].mean(), abs=0.1)


def test_padding_takes_the_smallest_value_of_each_channel() -> None:
    framing = framing_for((4, 8), Input(size=(8, 8), resize=Resize.LINEAR, keep_aspect=True))
    content = np.stack([np.full((4, 8), 5.0), np.full((4, 8), -2.0)])
    framed = framing.padded(content)
    assert framed[0, 0, 0] == 5.0
    assert framed[1, 7, 7] == -2.0
    assert np.array_equal(framed[:, *framing.window], content)


def test_an_image_of_another_size_is_refused_where_the_model_does_not_resize() -> None:
    with pytest.raises(InputError, match=r"has 20 x 30 pixels, the model takes 32 x 32"):
        framing_for((20, 30), Input(size=(32, 32)))
    assert framing_for((20, 30), Input()).size == (20, 30)


def test_a_model_of_volumes_is_refused() -> None:
    with pytest.raises(InputError, match="3 dimensions, not slices"):
        framing_for((20, 30), Input(size=(8, 32, 32), resize=Resize.LINEAR))
