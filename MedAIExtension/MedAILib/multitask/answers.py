"""From the heads' raw outputs to answers, by what the model's description says of each head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from MedAILib.errors import InvalidWeights
from MedAILib.models.config import ModelConfig
from MedAILib.models.heads import Activation, Head, HeadTask, index_path
from MedAILib.multitask.results import Classification, Segmentation

USUAL_THRESHOLD = 0.5
"""Taken where a description states none, and then marked as assumed."""


@dataclass(frozen=True)
class Answering:
    """A head of a model's description, ready to answer.

    Attributes
    ----------
    head : Head
        With a threshold wherever one is compared with.
    calibrated : bool
        False where classes, activation or threshold are not stated by the description or the user.
    """

    head: Head
    calibrated: bool

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities along the first axis.

        Parameters
        ----------
        logits : ndarray, shape (classes, ...), float32
        """
        scaled = logits / np.float32(self.head.temperature)
        if self.head.activation is Activation.SOFTMAX:
            powers = np.exp(scaled - scaled.max(axis=0, keepdims=True))
            return powers / powers.sum(axis=0, keepdims=True)
        if self.head.activation is Activation.SIGMOID:
            small = np.exp(-np.abs(scaled))
            return np.where(scaled >= 0, 1.0, small) / (1.0 + small)
        return scaled

    def positive_probability(self, probabilities: np.ndarray) -> float:
        """Of the positive class, else of all but the first; of a single class its own."""
        positive = self.head.positive_class
        if positive is not None:
            return float(probabilities[positive])
        if len(probabilities) == 1:
            return float(probabilities[0])
        rest = probabilities[1:]
        return float(rest.sum() if self.head.activation is Activation.SOFTMAX else rest.max())

    def classification(self, logits: np.ndarray, with_logits: bool) -> Classification:
        """The answer for one image; logits of shape (classes,)."""
        probabilities = self.probabilities(logits.astype(np.float64))
        positive = self.positive_probability(probabilities)
        names, threshold = self.head.class_names, self.head.threshold
        chosen = self._chosen(probabilities, positive)
        if len(probabilities) == 1:  # one class that is there or not
            label = names[0] if chosen else f"No {names[0]}"
            confidence = positive if chosen else 1.0 - positive
        else:
            label, confidence = names[chosen], float(probabilities[chosen])
        return Classification(
            predicted_class=chosen,
            predicted_label=label,
            confidence=confidence,
            tumor_probability=positive,
            probabilities={name: float(p) for name, p in zip(names, probabilities, strict=True)},
            threshold=threshold,
            calibrated=self.calibrated,
            logits=tuple(float(value) for value in logits) if with_logits else None,
        )

    def _chosen(self, probabilities: np.ndarray, positive: float) -> int:
        threshold, index = self.head.threshold, self.head.positive_class
        if len(probabilities) == 1:
            return int(positive >= (threshold if threshold is not None else USUAL_THRESHOLD))
        if len(probabilities) == 2 and threshold is not None:
            index = 1 if index is None else index
            return index if positive >= threshold else 1 - index
        return int(probabilities.argmax())

    def segmentation(self, probabilities: np.ndarray, logits: np.ndarray | None) -> Segmentation:
        """The answer for one image.

        Parameters
        ----------
        probabilities : ndarray, shape (classes, rows, columns), float32
            At the image's size.
        logits : ndarray or None
            To hand on.
        """
        background = self.head.activation is Activation.SOFTMAX and len(probabilities) > 1
        classes = probabilities[1:] if background else probabilities
        prob_map = classes.sum(axis=0) if background else classes.max(axis=0)
        threshold = np.float32(self.threshold)
        labels = (1 + classes.argmax(axis=0)).astype(np.uint8)
        mask = np.where(prob_map > threshold, labels, np.uint8(0))
        area = int(np.count_nonzero(mask))
        return Segmentation(
            mask=mask,
            prob_map=prob_map,
            tumor_area_pixels=area,
            tumor_percentage=100.0 * area / mask.size,
            threshold=float(self.threshold),
            calibrated=self.calibrated,
            logits=logits,
        )

    @property
    def threshold(self) -> float:
        return USUAL_THRESHOLD if self.head.threshold is None else self.head.threshold

    @property
    def segment_names(self) -> tuple[str, ...]:
        """Names of the mask's labels from 1 on."""
        names = self.head.class_names
        return names[1:] if self.head.activation is Activation.SOFTMAX and len(names) > 1 else names


def answering(config: ModelConfig, task: HeadTask | None, threshold: float | None = None) -> Answering:
    """The head that segments (``HeadTask.SEGMENTATION``) or the one that classifies (None), ready to answer.

    Parameters
    ----------
    threshold : float, optional
        The user's own; it then counts as stated.

    Raises
    ------
    InvalidWeights
        Where the description has no such head.
    """
    for index, head in enumerate(config.heads):
        if (head.task is HeadTask.SEGMENTATION) == (task is HeadTask.SEGMENTATION):
            return _answering(config, index, head, threshold)
    wanted = "segments" if task is HeadTask.SEGMENTATION else "classifies"
    raise InvalidWeights(
        f"The description of '{config.id}' has no head that {wanted}.",
        todo="Write one from the weights themselves: medai models describe PATH --write",
    )


def _answering(config: ModelConfig, index: int, head: Head, threshold: float | None) -> Answering:
    needs_threshold = head.task is HeadTask.SEGMENTATION or len(head.classes) <= 2
    stated = head.threshold is not None and not _is_assumed(config, index, "threshold")
    if threshold is not None:
        head, stated = replace(head, threshold=threshold), True
    elif head.threshold is None and needs_threshold:
        head = replace(head, threshold=USUAL_THRESHOLD)
    known = not any(_is_assumed(config, index, name) for name in ("classes", "activation", "positive_class"))
    return Answering(head, known and (stated or not needs_threshold))


def _is_assumed(config: ModelConfig, index: int, name: str) -> bool:
    """Whether a field of a head, or something around or within it, is marked as assumed."""
    place = _steps(index_path("heads", index, name))
    return any(path[: len(place)] == place[: len(path)] for path in map(_steps, config.assumed))


def _steps(path: str) -> list[str]:
    """``$.heads[1].threshold`` as its steps: ``$``, ``heads``, ``1``, ``threshold``."""
    return path.replace("]", "").replace("[", ".").split(".")
