"""A store of small models for the router, and pictures that they know, for the tests of every face.

The router tells grey pictures (to PneumoniaMNIST) from reddish ones (to BloodMNIST, whose expert is not installed).
The expert of PneumoniaMNIST calls a picture that is brighter at the top "pneumonia"; that of ChestMNIST (multi-label,
without statistics) finds the same in every picture. Its statistics know smooth pictures: stripes are not recognised.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent / "unit" / "router"))

from router_models import SIZE, TILES, class_count, config_for, smooth_picture, tile_means, write_model

from MedAILib.models.config import ModelConfig
from MedMNISTRouterLib.datasets import FLAGS
from MedMNISTRouterLib.gate import MahalanobisGate
from MedMNISTRouterLib.modelfolder import FittedGate
from MedMNISTRouterLib.prepare import GREY
from MedMNISTRouterLib.request import ROUTER
from MedMNISTRouterLib.slots import trained_folder

_COUNT = 150
_PER_CHANNEL = TILES * TILES
_STRENGTH = 40.0 / _PER_CHANNEL


def a_grey_picture(seed: int = 0, *, bright_top: bool = True) -> np.ndarray:
    """A smooth picture, uint8, brighter at the top or at the bottom."""
    ramp = np.linspace(200, 40, SIZE)[:, None] + (smooth_picture(seed).astype(float) - 128) * 0.3
    pixels: np.ndarray = np.clip(ramp, 0, 255).astype(np.uint8)
    return pixels if bright_top else pixels[::-1].copy()


def a_reddish_picture(seed: int = 0) -> np.ndarray:
    """A smooth picture in colours, uint8."""
    colours = np.repeat(a_grey_picture(seed)[..., None], 3, axis=2).astype(float)
    colours[..., 1:] *= 0.5
    return colours.astype(np.uint8)


def a_strange_picture() -> np.ndarray:
    """Broad stripes, as no training picture has them."""
    stripes = np.where(np.arange(SIZE) // 8 % 2, 250, 5).astype(np.uint8)
    return np.tile(stripes, (SIZE, 1))


def write_store(home: Path) -> Path:
    """Put the router and the experts of PneumoniaMNIST and ChestMNIST into a store; answers its folder."""
    is_bright_top = np.arange(_COUNT) % 2 == 0
    greys = [a_grey_picture(seed, bright_top=bool(top)) for seed, top in enumerate(is_bright_top)]
    colours = [np.repeat(grey[..., None], 3, axis=2) for grey in greys]
    reds = [a_reddish_picture(seed) for seed in range(_COUNT)]
    write_model(
        trained_folder(home, ROUTER),
        ROUTER,
        weights=_grey_against_red(),
        fitted=_gate([*colours, *reds], np.repeat([0, 1], _COUNT)),
        config=_calibrated(config_for(ROUTER)),
    )
    write_model(
        trained_folder(home, "pneumoniamnist"),
        "pneumoniamnist",
        weights=_top_against_bottom(),
        fitted=_gate(greys, is_bright_top.astype(int)),
        config=_calibrated(config_for("pneumoniamnist", channels=GREY)),
    )
    write_model(trained_folder(home, "chestmnist"), "chestmnist", weights=_two_findings())
    return home


def _grey_against_red() -> np.ndarray:
    weights = np.zeros((3 * _PER_CHANNEL, class_count(ROUTER)), np.float32)
    red, green = (np.arange(3 * _PER_CHANNEL) // _PER_CHANNEL == channel for channel in (0, 1))
    weights[green, FLAGS.index("pneumoniamnist")] = 1.5 * _STRENGTH
    weights[red, FLAGS.index("bloodmnist")] = 2.5 * _STRENGTH
    weights[green, FLAGS.index("bloodmnist")] = -1.5 * _STRENGTH
    return weights


def _top_against_bottom() -> np.ndarray:
    weights = np.zeros((_PER_CHANNEL, 2), np.float32)
    weights[: _PER_CHANNEL // 2, 1] = weights[_PER_CHANNEL // 2 :, 0] = 1.0
    return weights


def _two_findings() -> np.ndarray:
    weights = np.full((_PER_CHANNEL, 14), -1.0, np.float32)
    weights[:, [0, 2]] = 0.2
    return weights


def _gate(pictures: Sequence[np.ndarray], labels: np.ndarray) -> FittedGate:
    features = np.array([tile_means(picture) for picture in pictures])
    gate = MahalanobisGate.fit(features, labels)
    return FittedGate(gate, 1.5 * gate.threshold(features, 0.99), 0.99)


def _calibrated(config: ModelConfig) -> ModelConfig:
    return replace(config, heads=(replace(config.heads[0], calibrated_on="pictures made in a test"),))
