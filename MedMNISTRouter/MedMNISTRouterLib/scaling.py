"""The scaling trap: were a network's pictures scaled to 0..1 when it was trained, and are they not here?

A Keras file does not say how its pictures were prepared. It does hold, in every batch normalisation, mean and variance
of what that layer saw in training. Pictures prepared in the right way give the first of these layers about the same;
pictures on the wrong scale give it a variance that is thousands of times too large or too small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedAILib.models.heads import Input, Normalisation, NormalisationKind
from MedMNISTRouterLib.prepare import GREY, prepared

BGR: tuple[str, ...] = ("B", "G", "R")
RGB: tuple[str, ...] = ("R", "G", "B")
CAFFE = Normalisation(NormalisationKind.FIXED, mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0))
"""ResNet50's preprocessing in Keras, channels blue, green, red: mean of ImageNet's pictures taken off."""
RAW = Normalisation(NormalisationKind.NONE)

_ALTERNATIVES: tuple[tuple[str, tuple[str, ...], Normalisation], ...] = (
    ("0 to 255, ImageNet's mean taken off (ResNet50)", BGR, CAFFE),
    ("0 to 255", RGB, RAW),
    ("0 to 1", RGB, Normalisation(NormalisationKind.FIXED, scale=255.0, mean=(0.0,), std=(1.0,))),
    ("-1 to 1", RGB, Normalisation(NormalisationKind.FIXED, scale=127.5, mean=(1.0,), std=(1.0,))),
)
_CLEARLY_WRONG = np.log(20.0)
"""Of the variance's ratio: pictures of another kind give about 5, the wrong scale at least 4000."""
_CLEARLY_BETTER = np.log(10.0)
_ASLEEP = 1e-6
"""Share of the largest variance up to which a channel answers nothing and tells nothing."""


@dataclass(frozen=True)
class LayerStatistics:
    """How far what a layer sees lies from what it saw in training.

    Attributes
    ----------
    is_trained : bool
        Whether its statistics differ from those of a layer that has seen nothing.
    assumed : float
        For pictures prepared as assumed: median over channels of how far the logarithms of the variance, and of the
        second moment about the stored mean, lie from that of the stored variance.
    others : tuple of (str, float)
        The same for other ways, in words.
    """

    is_trained: bool
    assumed: float
    others: tuple[tuple[str, float], ...]

    @classmethod
    def measure(
        cls,
        moving_mean: np.ndarray,
        moving_variance: np.ndarray,
        pictures: Sequence[np.ndarray],
        wanted: Input,
        seen: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> LayerStatistics:
        """Measure with pictures, uint8; ``seen`` answers mean and variance per channel for a prepared batch."""

        awake = moving_variance > _ASLEEP * moving_variance.max()

        def off(way: Input) -> float:
            mean, variance = seen(np.stack([prepared(picture, way) for picture in pictures]))
            about_their_mean = variance[awake] / moving_variance[awake]  # too small where values are too small
            about_the_stored = about_their_mean + (mean - moving_mean)[awake] ** 2 / moving_variance[awake]
            logs = [np.abs(np.log(ratio + _ASLEEP)) for ratio in (about_their_mean, about_the_stored)]
            return float(np.median(np.maximum(*logs))) if awake.any() else 0.0

        is_trained = bool(np.abs(moving_mean).max() > 1e-6 or np.abs(moving_variance - 1).max() > 1e-6)
        others = []
        for words, channels, normalisation in _ALTERNATIVES:
            channels = GREY if wanted.channels == GREY else channels
            if wanted.channels != GREY or len(normalisation.mean) < 3:
                others.append((words, off(replace(wanted, channels=channels, normalisation=normalisation))))
        return cls(is_trained, off(wanted), tuple(others))

    @property
    def warning(self) -> str:
        """What is said where the assumed scaling is clearly wrong; empty otherwise."""
        if not self.is_trained or self.assumed < _CLEARLY_WRONG:
            return ""
        words, off = min(self.others, key=lambda item: item[1])
        if off > self.assumed - _CLEARLY_BETTER:
            return ""
        return (
            f"The network seems to have been trained on values from {words}, which is not how its pictures are "
            f"prepared here; its first layer sees variances {np.exp(self.assumed):,.0f} times off. State the right "
            "normalisation in its model_config.json."
        )
