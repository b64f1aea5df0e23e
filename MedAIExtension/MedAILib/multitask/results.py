"""What the multi-task predictor answers about one image; ``to_dict`` gives the names of the published service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Classification:
    """What the classification head says of a whole image.

    Attributes
    ----------
    predicted_class : int
        Of a head with a threshold the positive class from that probability on, else the other; of any other
        head the class of the highest probability.
    predicted_label : str
        Its name.
    confidence : float
        Probability of the predicted class, 0..1.
    tumor_probability : float
        Probability of the positive class, 0..1. Where the model's description names none: of all classes but
        the first.
    probabilities : mapping of str to float
        By class name.
    threshold : float or None
        What ``tumor_probability`` is compared with.
    calibrated : bool
        False where the threshold or the class names were assumed, not stated by the model's description.
    logits : tuple of float or None
        The head's raw output, where asked for.
    """

    predicted_class: int
    predicted_label: str
    confidence: float
    tumor_probability: float
    probabilities: Mapping[str, float]
    threshold: float | None
    calibrated: bool
    logits: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        result: dict[str, Any] = {
            "predicted_class": self.predicted_class,
            "predicted_label": self.predicted_label,
            "confidence": self.confidence,
            "tumor_probability": self.tumor_probability,
            "probabilities": dict(self.probabilities),
            "threshold": self.threshold,
            "calibrated": self.calibrated,
        }
        return result if self.logits is None else result | {"logits": list(self.logits)}


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What the segmentation head says of every pixel.

    Attributes
    ----------
    mask : ndarray, shape (rows, columns), uint8
        At the image's size: 0, or 1 + the index of the class among the classes that are not background.
    prob_map : ndarray, shape (rows, columns), float32
        Probability that the pixel is of any class but background; of several independent classes the highest.
    tumor_area_pixels : int
        Pixels of the mask that are not 0.
    tumor_percentage : float
        Their share of the image, 0..100.
    threshold : float
    calibrated : bool
        False where the threshold or the class names were assumed.
    logits : ndarray or None
        The head's raw output at the network's size, shape (channels, rows, columns), where asked for.
    """

    mask: np.ndarray
    prob_map: np.ndarray
    tumor_area_pixels: int
    tumor_percentage: float
    threshold: float
    calibrated: bool
    logits: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        result: dict[str, Any] = {
            "mask": self.mask,
            "prob_map": self.prob_map,
            "tumor_area_pixels": self.tumor_area_pixels,
            "tumor_percentage": self.tumor_percentage,
            "threshold": self.threshold,
            "calibrated": self.calibrated,
        }
        return result if self.logits is None else result | {"logits": self.logits}


@dataclass(frozen=True, eq=False)
class GradCam:
    """Where the classification head looked.

    Attributes
    ----------
    heatmap : ndarray, shape (rows, columns), float32
        At the image's size, 0..1; all 0 where nothing spoke for the class.
    target_class : int
    brain_masked : bool
        Whether the heat outside the image's foreground was removed.
    """

    heatmap: np.ndarray
    target_class: int
    brain_masked: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"heatmap": self.heatmap, "target_class": self.target_class, "brain_masked": self.brain_masked}


@dataclass(frozen=True, eq=False)
class Prediction:
    """All that was asked about one image; parts that were not asked for are None.

    Attributes
    ----------
    classification : Classification or None
    segmentation : Segmentation or None
    segmentation_computed : bool
        False too where a conditional prediction saw no reason to segment.
    recommendation : str
        Of a conditional prediction, one sentence; no diagnosis.
    gradcam : GradCam or None
    image_original : ndarray or None
        The image as given.
    """

    classification: Classification | None = None
    segmentation: Segmentation | None = None
    segmentation_computed: bool = False
    recommendation: str = ""
    gradcam: GradCam | None = None
    image_original: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries with arrays as they are; without the parts that were not asked for."""
        result: dict[str, Any] = {}
        if self.classification is not None:
            result["classification"] = self.classification.to_dict()
        result["segmentation"] = self.segmentation.to_dict() if self.segmentation is not None else None
        result["segmentation_computed"] = self.segmentation_computed
        if self.recommendation:
            result["recommendation"] = self.recommendation
        if self.gradcam is not None:
            result["gradcam"] = self.gradcam.to_dict()
        if self.image_original is not None:
            result["image_original"] = self.image_original
        return result
