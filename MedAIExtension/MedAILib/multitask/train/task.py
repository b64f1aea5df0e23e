"""The training itself: phases step by step, validation, log, states, and a model with its description at the end."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedAILib.atomic import output_error
from MedAILib.errors import Cancelled, InputError
from MedAILib.jobs.task import Context
from MedAILib.models.checkpoint import load_model_with_config, save_model_with_config
from MedAILib.models.config import Architecture, ModelConfig, Provenance
from MedAILib.models.heads import (
    Activation,
    ClassInfo,
    Code,
    Head,
    HeadTask,
    Input,
    Resize,
)
from MedAILib.models.torchmodel import import_torch
from MedAILib.models.torchuse import chosen_device, torch_threads
from MedAILib.multitask.planes import axes_of
from MedAILib.multitask.train.cases import Split, read_cases, split_by_patient
from MedAILib.multitask.train.measures import auc, dice, fitted_temperature, fitted_threshold
from MedAILib.multitask.train.request import LogRow, Phase, PhaseKind, TrainRequest, TrainResult
from MedAILib.multitask.train.slices import SliceSet, cut
from MedAILib.multitask.train.state import TrainingState, check_same, load_state, save_state, states, write_log

if TYPE_CHECKING:
    import torch

    from MedAILib.multitask.network import MultiTaskUNet

WEIGHTS = "model.safetensors"
LOG = "log.csv"
BEST = "best"
JUDGED_BY = {PhaseKind.SEG: ("dice",), PhaseKind.CLS: ("auc",), PhaseKind.JOINT: ("dice", "auc")}
"""Validation metrics whose mean decides which weights of the last phase are kept."""
MOST_VALIDATION_SLICES = 128
"""More are thinned out evenly while training; the final metrics count all."""
INTENDED_USE = "Research only. Not validated for clinical use; no diagnosis may rest on it."


class TrainTask:
    """Trains a multi-task network, see `MedAILib.multitask.train`."""

    def run(self, request: TrainRequest, context: Context) -> TrainResult:
        """Run the request.

        Raises
        ------
        InputError
            The data or the settings cannot be used, or ``out`` holds a training that shall not be resumed.
        OutputError
        Cancelled
            After the state was saved: the training can be resumed.
        """
        import_torch()
        device = chosen_device(context.device)
        split = split_by_patient(read_cases(request.data), request.validation_fraction, request.seed)
        _prepare_folder(request)
        with torch_threads(context.threads), tempfile.TemporaryDirectory(dir=context.scratch) as folder:
            image_input = input_of(request)
            axes = axes_of(request.orientation)
            train = cut(split.train, image_input, axes, Path(folder), context, "training")
            validation = cut(split.validation, image_input, axes, Path(folder), context, "validation")
            warnings = _checked_data(request, split, train, validation)
            for text in warnings:
                context.warn(text)
            training = _Training(request, split, train, validation, device, context)
            training.go()
            return training.finish(warnings)


def input_of(request: TrainRequest) -> Input:
    """What the trained network takes."""
    return Input(
        modality=request.modality,
        channels=("image",),
        size=(request.size, request.size),
        orientation=request.orientation,
        resize=Resize.LINEAR,
        keep_aspect=request.keep_aspect,
        normalisation=request.normalisation,
    )


def description(request: TrainRequest, split: Split) -> ModelConfig:
    """Of the network before it is trained; thresholds are assumed as long as nothing was fitted."""
    tumour = Code("SCT", "4147007", "Mass")
    heads = (
        Head("seg", HeadTask.SEGMENTATION, (ClassInfo(0, "Tumor", tumour),), Activation.SIGMOID, threshold=0.5),
        Head(
            "cls",
            HeadTask.BINARY,
            (ClassInfo(0, "No Tumor"), ClassInfo(1, "Tumor", tumour)),
            Activation.SOFTMAX,
            threshold=0.5,
            positive_class=1,
        ),
    )
    patients = sorted({case.patient for case in split.train})
    return ModelConfig(
        id="multitask-" + (re.sub(r"[^A-Za-z0-9]+", "-", request.out.resolve().name).strip("-") or "model"),
        family="multitask-unet",
        architecture=Architecture("multitask_unet", dict(request.network)),
        title="Multi-task U-Net",
        intended_use=INTENDED_USE,
        inputs=(input_of(request),),
        heads=heads,
        provenance=Provenance(
            trained_on=f"{len(split.train)} images of {len(patients)} patients",
            training=request.settings(),
            date=datetime.now(UTC).date().isoformat(),
        ),
        requirements={"torch": ">=2.10"},
        assumed=("$.heads[0].threshold", "$.heads[1].threshold"),
    )


@dataclass
class _Sums:
    """Running means of the losses between two lines of the log."""

    values: dict[str, tuple[float, int]]

    def add(self, name: str, value: float | None) -> None:
        if value is not None:
            total, count = self.values.get(name, (0.0, 0))
            self.values[name] = (total + value, count + 1)

    def mean(self, name: str) -> float | None:
        total, count = self.values.get(name, (0.0, 0))
        return total / count if count else None


class _Training:
    """One training: what it knows between two steps."""

    def __init__(
        self,
        request: TrainRequest,
        split: Split,
        train: SliceSet,
        validation: SliceSet,
        device: str,
        context: Context,
    ) -> None:
        self.request, self.split, self.train, self.validation = request, split, train, validation
        self.device, self.context = device, context
        self.config = description(request, split)
        self.settings = {**request.settings(), "data": _facts(split)}
        self.step = 0
        self.best: float | None = None
        self.log: tuple[LogRow, ...] = ()
        self.sums = _Sums({})
        self.seconds_before, self.started = 0.0, time.monotonic()
        self.watched = _thinned(len(validation), MOST_VALIDATION_SLICES)
        self.model, self.optimizer = self._begin()

    def _begin(self) -> tuple[MultiTaskUNet, torch.optim.Optimizer]:
        import torch

        from MedAILib.multitask.network import create_multi_task_model
        from MedAILib.multitask.train.learning import optimizer_for, start_from_prior

        saved = states(self.request.out)
        if saved:
            model, optimizer_state, progress = load_state(saved[-1], self.device)
            check_same(progress, self.settings, self.request.out)
            self.step, self.best, self.log = progress.step, progress.best, progress.log
            self.sums, self.seconds_before = _Sums(dict(progress.sums)), progress.seconds
            optimizer = optimizer_for(model, self._phase_at(max(self.step - 1, 0))[1])
            optimizer.load_state_dict(dict(optimizer_state))
            return model, optimizer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.request.seed)
            model = create_multi_task_model(**self.request.network).to(self.device)
        start_from_prior(model, self.train)
        return model, optimizer_for(model, self.request.phases[0])

    def go(self) -> None:
        """Take the steps that are left."""
        request = self.request
        while self.step < request.steps:
            try:
                fraction = 0.05 + 0.9 * self.step / request.steps
                number, phase, within = self._phase_at(self.step)
                self.context.progress(f"Training: {phase.kind.value}", fraction)
            except Cancelled:
                self._save()
                raise
            self._learn(number, phase, within)
            last = within + 1 == phase.steps
            if self.step % request.validate_every == 0 or last:
                self._validate(phase, within, number)
            if self.step % request.save_every == 0 or last:
                self._save()

    def _learn(self, number: int, phase: Phase, within: int) -> None:
        import torch

        from MedAILib.multitask.train import learning

        if within == 0:
            self.optimizer = learning.optimizer_for(self.model, phase)
        learning.set_mode(self.model, phase.kind)
        rng = np.random.default_rng([self.request.seed, number, within])
        images, masks = (part.to(self.device) for part in learning.draw_batch(self.train, self.request.batch_size, rng))
        if self.request.augment:
            images, masks = learning.augmented(images, masks, rng)
        with torch.random.fork_rng(devices=[self.device] if self.device.startswith("cuda") else []):
            torch.manual_seed(int(rng.integers(2**62)))  # dropout draws from torch's own numbers
            losses = learning.take_step(self.model, self.optimizer, phase, within, images, masks)
        for name, value in (("loss", losses.total), ("seg_loss", losses.seg), ("cls_loss", losses.cls)):
            self.sums.add(name, value)
        self.step += 1

    def _validate(self, phase: Phase, within: int, number: int) -> None:
        from MedAILib.multitask.train.learning import learning_rate

        metrics = self._metrics(self.watched)[0] if len(self.watched) else {}
        row = LogRow(
            step=self.step,
            phase=phase.kind.value,
            learning_rate=learning_rate(phase, within),
            loss=self.sums.mean("loss") or 0.0,
            seg_loss=self.sums.mean("seg_loss"),
            cls_loss=self.sums.mean("cls_loss"),
            val_dice=metrics.get("dice"),
            val_auc=metrics.get("auc"),
            val_accuracy=metrics.get("accuracy"),
            seconds=self._seconds(),
        )
        self.sums = _Sums({})
        self.log = (*self.log, row)
        scores = [metrics[name] for name in JUDGED_BY[phase.kind] if name in metrics]
        if scores and number == len(self.request.phases) - 1 and (self.best is None or np.mean(scores) > self.best):
            self.best = float(np.mean(scores))
            self._save_best(metrics)

    def _metrics(self, chosen: np.ndarray) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        """Metrics on validation slices, the classification head's logits, and which slices show a tumour."""
        from MedAILib.multitask.train.learning import answers

        logits, masks = answers(self.model, self.validation, chosen, self.device)
        truth = np.stack([self.validation.masks[index] > 0 for index in chosen])
        shows = np.asarray(truth.any(axis=(1, 2)))
        margin = logits[:, 1] - logits[:, 0]
        metrics: dict[str, float | None] = {
            "accuracy": float(((margin > 0) == shows).mean()),
            "auc": auc(margin, shows),
            "dice": float(np.mean([dice(a, b) for a, b in zip(masks[shows], truth[shows], strict=True)]))
            if shows.any()
            else None,
        }
        return {name: value for name, value in metrics.items() if value is not None}, logits, shows

    def _save(self) -> None:
        progress = TrainingState(self.step, self.settings, self.log, self.sums.values, self.best, self._seconds())
        save_state(self.request.out, self.model, self.optimizer, self.config, progress)
        write_log(self.request.out / LOG, self.log)

    def _save_best(self, metrics: Mapping[str, float]) -> None:
        folder = self.request.out / BEST
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise output_error(folder, error) from error
        save_model_with_config(self.model, folder / WEIGHTS, self.config, None, self.step, metrics)

    def finish(self, warnings: tuple[str, ...]) -> TrainResult:
        """Write the model with the description of what became of it."""
        from MedAILib.multitask.network import create_multi_task_model

        best = self.request.out / BEST / WEIGHTS
        if self.best is not None and best.is_file():
            self.model, _, _ = load_model_with_config(best, create_multi_task_model, self.device)
        metrics: dict[str, float] = {}
        threshold = temperature = None
        config = self.config
        if len(self.validation):
            self.context.progress("Validating", 0.96)
            metrics, logits, shows = self._metrics(np.arange(len(self.validation)))
            if shows.any() and not shows.all():
                temperature = fitted_temperature(logits, shows)
                probability = 1.0 / (1.0 + np.exp(-(logits[:, 1] - logits[:, 0]).astype(np.float64) / temperature))
                threshold = fitted_threshold(probability, shows)
                cls = replace(config.heads[1], threshold=threshold, temperature=temperature)
                config = replace(config, heads=(config.heads[0], cls), assumed=())
        checkpoint = self.request.out / WEIGHTS
        save_model_with_config(self.model, checkpoint, config, None, self.step, metrics)
        write_log(self.request.out / LOG, self.log)
        return TrainResult(
            checkpoint=checkpoint,
            log=self.log,
            train_patients=_patients(self.split.train),
            validation_patients=_patients(self.split.validation),
            train_slices=len(self.train),
            train_tumor_slices=len(self.train.positive),
            metrics=metrics,
            classification_threshold=threshold,
            temperature=temperature,
            warnings=warnings,
        )

    def _phase_at(self, step: int) -> tuple[int, Phase, int]:
        """Number of the phase that a step belongs to, the phase, and the step within it."""
        for number, phase in enumerate(self.request.phases):
            if step < phase.steps:
                return number, phase, step
            step -= phase.steps
        raise IndexError(step)

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started


def _prepare_folder(request: TrainRequest) -> None:
    """Make the folder; refuse one that holds a training which nobody asked to go on with."""
    begun = states(request.out) or (request.out / WEIGHTS).exists()
    if begun and not request.resume:
        raise InputError(
            f"'{request.out}' already holds a training.",
            todo="Go on with it (resume), or choose another folder.",
        )
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(request.out, error) from error


def _checked_data(request: TrainRequest, split: Split, train: SliceSet, validation: SliceSet) -> tuple[str, ...]:
    """What the user should know of the data; `InputError` where nothing can be learned from it."""
    fixed = {"in_channels": 1, "seg_out_channels": 1, "cls_num_classes": 2}
    wrong = [
        f"{name}={request.network[name]}" for name, value in fixed.items() if request.network.get(name, value) != value
    ]
    if wrong:
        raise InputError(f"Training is for one channel, one segment and two classes, not {', '.join(wrong)}.")
    if not len(train.positive):
        raise InputError(
            f"No slice of the {len(split.train)} training images shows a tumour.",
            todo="Check the masks, and the 'labels' in the manifest.",
        )
    found = []
    if not len(train.negative):
        found.append("Every training slice shows a tumour: the classification cannot learn what none looks like.")
    if not len(validation):
        found.append("No patient is kept apart: nothing is validated, and the thresholds are not calibrated.")
    if all(phase.kind is PhaseKind.SEG for phase in request.phases):
        found.append("No phase trains the classification head: its probabilities mean nothing.")
    return tuple(found)


def _facts(split: Split) -> list[list[Any]]:
    """What the data is, as plain JSON values: names and sizes of its files."""

    def size(path: Path | None) -> int | None:
        return None if path is None else path.stat().st_size

    return sorted(
        [case.patient, case.image.name, size(case.image), size(case.mask), list(case.labels or ())]
        for case in (*split.train, *split.validation)
    )


def _patients(cases: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(sorted({case.patient for case in cases}))


def _thinned(count: int, most: int) -> np.ndarray:
    """At most so many indices, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)) if count else np.zeros(0, int)
