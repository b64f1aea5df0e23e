"""The scaling trap: a network's first normalisation tells on which scale its pictures were when it was trained."""

from __future__ import annotations

import numpy as np
import pytest
from router_models import smooth_picture

from MedAILib.models.heads import Input, Normalisation, Resize
from MedMNISTRouterLib.prepare import GREY, prepared
from MedMNISTRouterLib.scaling import _ALTERNATIVES, BGR, CAFFE, LayerStatistics

TRAINED_ON = [smooth_picture(seed, 3, 64) for seed in range(100, 130)]
PICTURES = [smooth_picture(seed, 3, 64) for seed in range(8)]
FILTERS = np.random.default_rng(0).normal(0, 0.2, (3, 16))


def seen(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a layer of 1 x 1 filters with ReLU answers: mean and variance per filter."""
    values = np.maximum(batch @ FILTERS[: batch.shape[-1]], 0)
    return values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))


def way(channels: tuple[str, ...], normalisation: Normalisation) -> Input:
    return Input(channels=channels, size=(32, 32), resize=Resize.CUBIC, normalisation=normalisation)


def measured(trained: Input, assumed: Input) -> LayerStatistics:
    mean, variance = seen(np.stack([prepared(picture, trained) for picture in TRAINED_ON]))
    return LayerStatistics.measure(mean, variance, PICTURES, assumed, seen)


@pytest.mark.parametrize(("words", "channels", "normalisation"), _ALTERNATIVES)
def test_a_network_that_is_fed_as_it_was_trained_is_not_warned_about(
    words: str, channels: tuple[str, ...], normalisation: Normalisation
) -> None:
    assert measured(way(channels, normalisation), way(channels, normalisation)).warning == ""


@pytest.mark.parametrize(("words", "channels", "normalisation"), _ALTERNATIVES[2:])
def test_a_network_that_was_trained_on_small_values_is_warned_about(
    words: str, channels: tuple[str, ...], normalisation: Normalisation
) -> None:
    assert "which is not how" in measured(way(channels, normalisation), way(BGR, CAFFE)).warning


def test_a_network_that_was_trained_on_0_to_255_and_gets_0_to_1_is_warned_about() -> None:
    _, channels, small = _ALTERNATIVES[2]
    text = measured(way(BGR, CAFFE), way(channels, small)).warning
    assert "values from 0 to 255" in text


def test_a_layer_that_has_seen_nothing_says_nothing() -> None:
    found = LayerStatistics.measure(np.zeros(16), np.ones(16), PICTURES, way(BGR, CAFFE), seen)
    assert not found.is_trained
    assert found.warning == ""


def test_a_grey_network_is_judged_too() -> None:
    small = way(GREY, _ALTERNATIVES[2][2])
    raw = way(GREY, _ALTERNATIVES[1][2])
    assert measured(small, raw).warning
    assert not measured(small, small).warning
