"""Multi-task prediction on images: `MultiTaskPredictor`.

    predictor = MultiTaskPredictor("model.safetensors")
    prediction = predictor.predict_full(image, include_gradcam=True)
    prediction.classification.tumor_probability

The network's architecture, input and classes come from the description that is bound to the weights, or are
read off the weights. There are no clinical weights: see `MedAILib.multitask`. torch is loaded when a predictor
is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from MedAILib.errors import InputError
from MedAILib.models.config import ModelConfig
from MedAILib.models.heads import HeadTask, Normalisation
from MedAILib.models.torchmodel import import_torch
from MedAILib.models.torchuse import chosen_device, exact_arithmetic, torch_threads
from MedAILib.multitask.answers import answering
from MedAILib.multitask.framing import Framing, framing_for, resampled
from MedAILib.multitask.gradcam import class_activation, foreground, scaled
from MedAILib.multitask.normalise import finite, normalised
from MedAILib.multitask.options import Asked, Options, check_heads, stated_input, weights_in
from MedAILib.multitask.results import GradCam, Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from MedAILib.models.tensors import WeightFile
    from MedAILib.multitask.network import MultiTaskUNet

CPU_BATCH = 2
GPU_BATCH = 16
"""Images that run at once. One image keeps all cores of a free processor busy: more gain nothing there, and 4 are
slower than 1 with a small network, whose features then leave the caches (``Testing/benchmarks/multitask.py``)."""


class MultiTaskPredictor:
    """A multi-task network that is loaded and ready.

    Parameters
    ----------
    checkpoint_path : path
        The weights: safetensors, or a ``.pth`` that `torch.load` reads with ``weights_only=True``; or the folder
        of a model, where it holds one weight file.
    device : str, optional
        ``cpu``, ``cuda:0``, ``mps``; default: the first GPU that can be used, else the processor.
    classification_threshold, segmentation_threshold : float, optional
        0..1; default: those of the model's description.
    normalisation : Normalisation, optional
        Default: that of the model's description; needed where the description states none.
    threads : int, optional
        Processor threads while predicting; default: what torch is set to.
    batch_size : int, optional
        Most images that run at once; bounds the memory.

    Raises
    ------
    InvalidWeights, ConfigMismatch, FileMissing
        The weights cannot be used, or contradict their description.
    InputError
        The device cannot be used, or nobody states the normalisation.
    MissingPackage
        torch is not installed.
    """

    _weights: WeightFile | None
    """The file that the network came from; None: none."""

    def __init__(
        self,
        checkpoint_path: str | os.PathLike[str],
        device: str | None = None,
        *,
        classification_threshold: float | None = None,
        segmentation_threshold: float | None = None,
        normalisation: Normalisation | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        import_torch()
        from MedAILib.models.checkpoint import load_model_with_config
        from MedAILib.multitask.network import create_multi_task_model

        options = Options(classification_threshold, segmentation_threshold, normalisation, threads, batch_size)
        device = chosen_device(device)
        with torch_threads(threads):
            file = weights_in(checkpoint_path)
            model, config, checkpoint = load_model_with_config(file, create_multi_task_model, device)
        self._take(cast("MultiTaskUNet", model), config, options)
        self.checkpoint_path = str(file)
        self._weights = checkpoint.weights

    @classmethod
    def from_model(cls, model: MultiTaskUNet, config: ModelConfig, options: Options | None = None) -> Self:
        """A predictor of a network in memory, on the device it is on; the network is put into evaluation mode."""
        predictor = cls.__new__(cls)
        predictor._take(model, config, options or Options())
        return predictor

    def _take(self, model: MultiTaskUNet, config: ModelConfig, options: Options) -> None:
        import torch

        from MedAILib.multitask.network import folded

        self.checkpoint_path = ""
        self._weights = None
        self.model = model.eval()
        self.config = config
        self.device = str(next(model.parameters()).device)
        self.threads = options.threads
        self.batch_size = options.batch_size or (CPU_BATCH if self.device == "cpu" else GPU_BATCH)
        self.input = stated_input(config, options.normalisation)
        self.classifying = answering(config, None, options.classification_threshold)
        self.segmenting = answering(config, HeadTask.SEGMENTATION, options.segmentation_threshold)
        check_heads(model, config, self.classifying, self.segmenting)
        self._fast = folded(model).to(memory_format=torch.channels_last)

    def predict_single(
        self, image: np.ndarray, do_seg: bool = True, do_cls: bool = True, return_logits: bool = False
    ) -> Prediction:
        """Answer about one image.

        Parameters
        ----------
        image : ndarray, shape (rows, columns), or (channels, rows, columns) for a model of several channels
            Stored values of any real type; never rescaled before the model's own normalisation.
        do_seg, do_cls : bool
            Which heads to ask.
        return_logits : bool
            Hand on the raw outputs.

        Raises
        ------
        InputError
            Where the image does not have the model's channels or cannot come to its size.
        """
        return self.predict_batch([image], do_seg, do_cls, return_logits)[0]

    def predict_batch(
        self,
        images: Sequence[np.ndarray] | np.ndarray,
        do_seg: bool = True,
        do_cls: bool = True,
        return_logits: bool = False,
    ) -> tuple[Prediction, ...]:
        """Answer about several images, which may differ in size; as `predict_single` does for each."""
        return tuple(self.predictions(images, Asked(segment=do_seg, classify=do_cls, logits=return_logits)))

    def predict_conditional(self, image: np.ndarray) -> Prediction:
        """Classify one image, and segment it where the tumour probability reaches the threshold."""
        return next(self.predictions([image], Asked(conditional=True)))

    def predict_with_gradcam(
        self, image: np.ndarray, target_class: int | None = None, use_brain_mask: bool = False
    ) -> Prediction:
        """Classify one image and show where the network looked.

        Parameters
        ----------
        target_class : int, optional
            Default: the predicted class.
        use_brain_mask : bool
            Remove heat outside the image's foreground, see `MedAILib.multitask.gradcam.foreground`.
        """
        asked = Asked(segment=False, gradcam=True, target_class=target_class, foreground_only=use_brain_mask)
        return next(self.predictions([image], asked))

    def predict_full(
        self, image: np.ndarray, include_gradcam: bool = False, use_brain_mask_for_gradcam: bool = False
    ) -> Prediction:
        """All there is about one image: `predict_conditional`, Grad-CAM where asked for, and the image itself."""
        asked = Asked(conditional=True, gradcam=include_gradcam, foreground_only=use_brain_mask_for_gradcam)
        return replace(next(self.predictions([image], asked)), image_original=np.asarray(image))

    def predictions(
        self, images: Iterable[np.ndarray], asked: Asked | None = None, pixel_mm: Sequence[float] = (1.0, 1.0)
    ) -> Iterator[Prediction]:
        """Answers one after the other, `batch_size` images at a time: what all other methods use.

        Parameters
        ----------
        images : iterable of ndarray
            Taken as they are needed.
        asked : Asked
        pixel_mm : sequence of two floats
            Height and width of their pixels, for models that keep the aspect.
        """
        asked = asked or Asked()
        self._check_target(asked)
        waiting: list[np.ndarray] = []
        for image in images:
            waiting.append(finite(self._channels_first(np.asarray(image))))
            if len(waiting) == self.batch_size:
                yield from self._answers(waiting, asked, pixel_mm)
                waiting = []
        if waiting:
            yield from self._answers(waiting, asked, pixel_mm)

    def get_model_info(self) -> dict[str, Any]:
        """What this predictor is, as plain JSON values."""
        from MedAILib.multitask.network import parameter_count

        return {
            "checkpoint_path": self.checkpoint_path,
            "weights_sha256": self._weights.sha256 if self._weights is not None else "",
            "model_id": self.config.id,
            "title": self.config.title,
            "architecture": self.config.get_model_params(),
            "parameters": parameter_count(self.model),
            "device": self.device,
            "input_size": list(self.input.size),
            "normalisation": self.input.normalisation.kind.value if self.input.normalisation else None,
            "class_names": list(self.classifying.head.class_names),
            "segment_names": list(self.segmenting.segment_names),
            "classification_threshold": self.classifying.head.threshold,
            "segmentation_threshold": self.segmenting.threshold,
            "calibrated": self.classifying.calibrated and self.segmenting.calibrated,
            "assumed": list(self.config.assumed),
            "licence": self.config.licence.spdx or self.config.licence.name,
            "trained_on": self.config.provenance.trained_on,
            "intended_use": self.config.intended_use,
        }

    def _answers(self, images: list[np.ndarray], asked: Asked, pixel_mm: Sequence[float]) -> list[Prediction]:
        """Predictions of one batch; images are finite and have their channels first."""
        import torch

        framings = [framing_for((image.shape[1], image.shape[2]), self.input, pixel_mm) for image in images]
        if len({framing.size for framing in framings}) > 1:  # a model of any size: one by one
            return [self._answers([image], asked, pixel_mm)[0] for image in images]
        self._check_size(framings[0])
        planes = np.stack([self._framed(image, framing) for image, framing in zip(images, framings, strict=True)])
        with torch_threads(self.threads), exact_arithmetic():
            batch = torch.from_numpy(planes).to(self.device).contiguous(memory_format=torch.channels_last)
            features = self._fast.encoder(batch)
            predictions = [Prediction() for _ in images]
            if asked.classify or asked.conditional or asked.gradcam:
                logits = self._fast.cls_head(features[-1]).float().cpu().numpy()
                answers = [self.classifying.classification(row, asked.logits) for row in logits]
                predictions = [Prediction(classification=answer) for answer in answers]
            chosen = [place for place, p in enumerate(predictions) if asked.segment and self._wanted(p, asked)]
            for place, segmented in self._segmented(features, chosen, framings, asked):
                predictions[place] = replace(predictions[place], segmentation=segmented, segmentation_computed=True)
            if asked.conditional:
                predictions = [replace(p, recommendation=self._recommendation(p)) for p in predictions]
            if asked.gradcam:
                maps = self._looked_at(features[-1], predictions, images, framings, asked)
                predictions = [replace(p, gradcam=heat) for p, heat in zip(predictions, maps, strict=True)]
        return predictions

    def _segmented(self, features: list[Tensor], chosen: list[int], framings: list[Framing], asked: Asked) -> Any:
        if not chosen:
            return
        part = features if len(chosen) == len(framings) else [level[chosen] for level in features]
        for place, logits in zip(chosen, self._fast.seg_decoder(part).float().cpu().numpy(), strict=True):
            probabilities = framings[place].back(self.segmenting.probabilities(logits))
            yield place, self.segmenting.segmentation(probabilities, logits if asked.logits else None)

    def _looked_at(
        self,
        deepest: Tensor,
        predictions: list[Prediction],
        images: list[np.ndarray],
        framings: list[Framing],
        asked: Asked,
    ) -> list[GradCam]:
        targets = [self._target(prediction, asked) for prediction in predictions]
        maps = class_activation(self._fast.cls_head, deepest, targets)
        found = []
        for target, heat, image, framing in zip(targets, maps, images, framings, strict=True):
            whole = framing.back(resampled(heat[None], framing.size, None))[0]
            if asked.foreground_only:
                whole = np.where(foreground(image), whole, np.float32(0))
            found.append(GradCam(scaled(whole), target, asked.foreground_only))
        return found

    def _target(self, prediction: Prediction, asked: Asked) -> int:
        if asked.target_class is not None:
            return asked.target_class
        assert prediction.classification is not None
        return min(prediction.classification.predicted_class, self.model.layout.cls_num_classes - 1)

    def _wanted(self, prediction: Prediction, asked: Asked) -> bool:
        return not asked.conditional or self.is_suspicious(prediction)

    def is_suspicious(self, prediction: Prediction) -> bool:
        """Whether the classification reaches the threshold; of a head without one, whether it says so."""
        answer = prediction.classification
        assert answer is not None
        if answer.threshold is None:
            return answer.predicted_class != 0
        return answer.tumor_probability >= answer.threshold

    def _recommendation(self, prediction: Prediction) -> str:
        answer = prediction.classification
        assert answer is not None
        finding = "reaches" if self.is_suspicious(prediction) else "stays below"
        threshold = "" if answer.threshold is None else f" of {answer.threshold:.2f}"
        consequence = "the image was segmented" if prediction.segmentation_computed else "it was not segmented"
        assumed = "" if answer.calibrated else " The threshold is assumed, not calibrated for this model."
        return (
            f"The network's probability of {answer.tumor_probability:.2f} {finding} the threshold{threshold}, "
            f"so {consequence}.{assumed} For research only: this is no diagnosis."
        )

    def _framed(self, image: np.ndarray, framing: Framing) -> np.ndarray:
        assert self.input.normalisation is not None  # see stated_input
        return framing.padded(normalised(framing.resized(image), self.input.normalisation))

    def _channels_first(self, image: np.ndarray) -> np.ndarray:
        channels = self.model.layout.in_channels
        if image.ndim == 2 and channels == 1:
            image = image[None]
        if image.ndim != 3 or image.shape[0] != channels or image.dtype.kind not in "biuf" or 0 in image.shape:
            form = "(rows, columns)" if channels == 1 else f"({channels}, rows, columns)"
            raise InputError(
                f"The model takes images of shape {form}, got {image.dtype} of shape {image.shape}.",
                why="A colour picture has its channels last." if image.ndim == 3 and image.shape[-1] in (3, 4) else "",
                todo="Convert it to the channels that the model was trained on.",
            )
        return image

    def _check_size(self, framing: Framing) -> None:
        smallest = 2**self.model.layout.depth
        if min(framing.size) < smallest:
            raise InputError(
                f"An image of {framing.size[0]} x {framing.size[1]} pixels is too small for this model.",
                why=f"It halves the image {self.model.layout.depth} times and needs {smallest} pixels a side.",
                todo="Give a larger image.",
            )

    def _check_target(self, asked: Asked) -> None:
        classes = self.model.layout.cls_num_classes
        if asked.target_class is not None and not 0 <= asked.target_class < classes:
            raise InputError(f"There is no class {asked.target_class}: the model has the classes 0 to {classes - 1}.")
