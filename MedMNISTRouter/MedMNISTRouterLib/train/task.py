"""The task that trains a router or an expert."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedAILib.atomic import output_error, write_text
from MedAILib.errors import Cancelled, InputError
from MedAILib.jobs.task import Context
from MedAILib.models.config import CONFIG_FILE, ModelConfig
from MedAILib.models.torchmodel import import_torch
from MedAILib.models.torchuse import chosen_device, torch_threads
from MedMNISTRouterLib.datasets import ROUTER_KERAS_FILE, DatasetTask
from MedMNISTRouterLib.gate import MahalanobisGate
from MedMNISTRouterLib.modelfolder import FittedGate, write_model_folder
from MedMNISTRouterLib.train import measures
from MedMNISTRouterLib.train.card import CARD_FILE, model_card
from MedMNISTRouterLib.train.describing import Identity, description, expert_identity, router_identity
from MedMNISTRouterLib.train.folded import folded
from MedMNISTRouterLib.train.kerasfile import write_keras_file
from MedMNISTRouterLib.train.layout import layout_for
from MedMNISTRouterLib.train.onnxgraph import onnx_graph
from MedMNISTRouterLib.train.parity import PARITY_IMAGES, graph_difference
from MedMNISTRouterLib.train.plan import plan_for
from MedMNISTRouterLib.train.request import Kind, LogRow, TrainRequest, TrainResult
from MedMNISTRouterLib.train.samples import Part, Samples, dataset_of, expert_samples, router_samples
from MedMNISTRouterLib.train.state import (
    STATE_FILE,
    TrainingState,
    check_same,
    load_state,
    save_state,
    write_log,
)

if TYPE_CHECKING:
    import torch

BATCH_ASKED = 512
MOST_WATCHED = 2000
"""Validation images that are looked at after each epoch."""
MOST_FOR_GATE = 20_000
FEWEST_FOR_GATE = 20
"""Validation images without which no threshold is drawn."""
LEAST_ROUTER_CONFIDENCE = 0.5
"""Below it no route is taken: all others together are more probable."""


class TrainTask:
    """Trains a router or an expert, see `MedMNISTRouterLib.train`."""

    def run(self, request: TrainRequest, context: Context) -> TrainResult:
        """Run the request.

        Raises
        ------
        InputError
            The data or the settings cannot be used, or ``out`` holds a training that shall not be resumed.
        MissingPackage
            torch or onnx is not installed.
        OutputError
        Cancelled
            After the state was saved: the training can be resumed.
        """
        import_torch()
        device = chosen_device(context.device)
        _prepare_folder(request)
        context.progress("Reading images", 0.0)
        if request.kind is Kind.ROUTER:
            plan = plan_for(request.data)
            samples = router_samples(request, plan)
            identity = router_identity(plan, samples, request.origin)
        else:
            dataset = dataset_of(request)
            request = replace(request, flag=dataset.flag)
            samples = expert_samples(request)
            identity = expert_identity(dataset, samples, request.origin)
        for remark in samples.remarks:
            context.warn(remark)
        with torch_threads(context.threads):
            training = _Training(request, samples, device, context)
            training.go()
            return training.finish(identity)


class _Training:
    """One training: what it knows between two steps."""

    def __init__(self, request: TrainRequest, samples: Samples, device: str, context: Context) -> None:
        import torch

        from MedMNISTRouterLib.train.learning import augmentation_for, draws_evenly, optimizer_for
        from MedMNISTRouterLib.train.network import ResidualClassifier

        self.request, self.samples, self.device, self.context = request, samples, device, context
        self.layout = layout_for(request.network.value, samples.channels, len(samples.class_names), samples.size)
        self.batch = request.batch_for(len(samples.train))
        self.epochs = request.epochs_for(len(samples.train))
        self.steps_per_epoch = max(len(samples.train) // self.batch, 1)
        self.settings = {**request.settings(), "epochs": self.epochs, "batch_size": self.batch, "data": samples.facts()}
        self.evenly = draws_evenly(request.recipe, samples.task, is_router=request.kind is Kind.ROUTER)
        self.how = augmentation_for(request.flag)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed)
            self.network = ResidualClassifier(self.layout).to(device, memory_format=torch.channels_last)
        self.average = ResidualClassifier(self.layout).to(device, memory_format=torch.channels_last)
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = optimizer_for(self.network, request.recipe)
        self.step = 0
        self.log: tuple[LogRow, ...] = ()
        self.losses: list[float] = []
        self.seconds = self.cpu_seconds = 0.0
        self._resume()
        self.order_epoch, self.order = -1, np.zeros(0, int)

    def _resume(self) -> None:
        state = load_state(self.request.out, self.device)
        if state is None:
            return
        check_same(state, self.settings, self.request.out)
        self.network.load_state_dict(dict(state.network))
        self.average.load_state_dict(dict(state.average))
        self.optimizer.load_state_dict(dict(state.optimizer))
        self.step, self.log, self.losses = state.step, state.log, list(state.losses)
        self.seconds, self.cpu_seconds = state.seconds, state.cpu_seconds

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def go(self) -> None:
        """Take the steps that are left."""
        saved_at = time.monotonic()
        while self.step < self.steps:
            started, cpu_started = time.monotonic(), time.process_time()
            try:
                self.context.progress("Training", 0.02 + 0.9 * self.step / self.steps)
            except Cancelled:
                self._save()
                raise
            self._learn()
            if self.step % self.steps_per_epoch == 0:
                self._end_epoch()
            self.seconds += time.monotonic() - started
            self.cpu_seconds += time.process_time() - cpu_started
            if time.monotonic() - saved_at >= self.request.save_every_s or self.step == self.steps:
                self._save()
                saved_at = time.monotonic()

    def _learn(self) -> None:
        import torch

        from MedMNISTRouterLib.train import learning
        from MedMNISTRouterLib.train.request import Recipe

        request, train = self.request, self.samples.train
        epoch, within = divmod(self.step, self.steps_per_epoch)
        if epoch != self.order_epoch:
            self.order = learning.order_of_epoch(train.labels, request.seed, epoch, evenly=self.evenly)
            self.order_epoch = epoch
        chosen = self.order[within * self.batch : (within + 1) * self.batch]
        images = learning.as_tensor(train.images[chosen], self.device)
        if request.recipe is Recipe.SHORT:
            images = learning.augmented(images, self.how, np.random.default_rng([request.seed, 2, self.step]))
        labels = torch.from_numpy(train.labels[chosen]).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning.learning_rate(request.recipe, self.step, self.steps)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = learning.loss_of(self.network(learning.normalised(images)), labels, self.samples.task)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        learning.average_in(self.average, self.network, self.step, request.recipe)
        self.losses.append(float(loss.detach()))

    def _end_epoch(self) -> None:
        from MedMNISTRouterLib.train.learning import learning_rate

        val, task = self.samples.val, self.samples.task
        watched = np.unique(np.linspace(0, len(val) - 1, min(len(val), MOST_WATCHED)).astype(int))
        logits, _ = self._answers(val.images[watched])
        probability, labels = measures.probabilities(logits, task), val.labels[watched]
        row = LogRow(
            epoch=self.step // self.steps_per_epoch,
            learning_rate=learning_rate(self.request.recipe, self.step - 1, self.steps),
            loss=float(np.mean(self.losses)),
            val_accuracy=measures.accuracy(probability, labels, task),
            val_auc=measures.mean_auc(probability, labels, task),
            seconds=self.seconds,
        )
        self.losses.clear()
        self.log = (*self.log, row)

    def _save(self) -> None:
        state = TrainingState(
            self.step, self.settings, self.log, tuple(self.losses), self.seconds, self.cpu_seconds,
            self.network.state_dict(), self.average.state_dict(), self.optimizer.state_dict(),
        )  # fmt: skip
        save_state(self.request.out, state)
        write_log(self.request.out, self.log)

    def _answers(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Answers and features of the weights that are kept, both (n, numbers), float32."""
        import torch

        from MedMNISTRouterLib.train.learning import as_tensor, normalised

        self.average.eval()
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        with torch.inference_mode():
            for start in range(0, len(images), BATCH_ASKED):
                batch = normalised(as_tensor(images[start : start + BATCH_ASKED], self.device))
                found.append(self.average.with_features(batch))
        answers, features = (torch.cat(parts).float().cpu().numpy() for parts in zip(*found, strict=True))
        return answers, features

    def finish(self, identity: Identity) -> TrainResult:
        """Calibrate, fit the gate, measure, write."""
        samples, task = self.samples, self.samples.task
        self.context.progress("Calibrating", 0.93)
        val_logits, val_features = self._answers(samples.val.images)
        test_logits, test_features = self._answers(samples.test.images)
        temperature = measures.fitted_temperature(val_logits, samples.val.labels, task)
        metrics = measures.measured(test_logits, samples.test.labels, task, temperature)
        on_val = measures.measured(val_logits, samples.val.labels, task, temperature)
        metrics |= {f"val_{name}": value for name, value in on_val.items()}
        fitted = self._fit_gate(val_features)
        if fitted is not None:
            for prefix, features in (("", test_features), ("val_", val_features)):
                inside = fitted.gate.distances(features) <= fitted.threshold
                metrics[f"{prefix}gate_acceptance"] = float(inside.mean())
        config = self._described(identity, val_logits, temperature, metrics)
        return self._write(config, identity, fitted)

    def _fit_gate(self, val_features: np.ndarray) -> FittedGate | None:
        if len(val_features) < FEWEST_FOR_GATE:
            self.context.warn(f"No gate was fitted: it takes {FEWEST_FOR_GATE} validation images at least.")
            return None
        train = self.samples.train
        chosen = np.unique(np.linspace(0, len(train) - 1, min(len(train), MOST_FOR_GATE)).astype(int))
        _, features = self._answers(train.images[chosen])
        groups, acceptance, val = train.groups[chosen], self.request.acceptance, self.samples.val
        gate = MahalanobisGate.fit(features, groups)
        if train.labels.ndim == 1:
            first = np.unique(groups, return_index=True)[1]
            gate = gate.scaled(val_features, val.labels, train.labels[chosen][first], acceptance)
        least = LEAST_ROUTER_CONFIDENCE if self.request.kind is Kind.ROUTER else 0.0
        return FittedGate(gate, gate.threshold(val_features, acceptance), acceptance, least)

    def _described(
        self, identity: Identity, val_logits: np.ndarray, temperature: float, metrics: dict[str, float]
    ) -> ModelConfig:
        config = description(self.request, self.samples, self.layout, identity)
        val, task = self.samples.val, self.samples.task
        head = replace(
            config.heads[0], temperature=temperature, calibrated_on=f"{len(val)} validation images, not learned from"
        )
        if task is DatasetTask.MULTI_LABEL:
            probability = measures.probabilities(val_logits, task, temperature)
            head = replace(head, thresholds=measures.fitted_thresholds(probability, val.labels))
        rounded = {name: round(value, 5) for name, value in metrics.items()}
        return replace(config, heads=(head,), provenance=replace(config.provenance, metrics=rounded))

    def _write(self, config: ModelConfig, identity: Identity, fitted: FittedGate | None) -> TrainResult:
        request, samples, out = self.request, self.samples, self.request.out
        self.context.progress("Writing the model", 0.95)
        tensors = {name: value.cpu().numpy() for name, value in self.average.state_dict().items()}
        weights = folded(self.layout, tensors)
        graph = onnx_graph(self.layout, weights)
        images = samples.test.images[np.linspace(0, len(samples.test) - 1, PARITY_IMAGES).astype(int)]
        expected = self._answers(images)
        parity = graph_difference(graph, images, expected, self.context)
        several = samples.task is DatasetTask.MULTI_LABEL
        keras_file: Path | None = None
        if request.keras:
            self.context.progress("Writing the Keras file", 0.96)
            name = f"stage2_{request.flag}_final.keras" if request.kind is Kind.EXPERT else ROUTER_KERAS_FILE
            made = write_keras_file(
                out / name, self.layout, weights, "sigmoid" if several else "softmax",
                (images.astype(np.float32) / 255 - 0.5) / 0.5,
                measures.probabilities(expected[0], samples.task), self.context.threads,
            )  # fmt: skip
            keras_file = made.path
            if made.path is None:
                self.context.warn(made.remark)
        counts = {name: len(part) for name, part in self._parts().items()}
        spent = f"{self.cpu_seconds:.0f} s of the processor" if self.device == "cpu" else f"{self.seconds:.0f} s"
        took = f"Training took {spent} ({self.device})."
        write_text(out / CARD_FILE, model_card(config, counts, identity.limits, took))
        more = [out / CARD_FILE, *([keras_file] if keras_file else [])]
        config = write_model_folder(out, config, graph, fitted, more_files=more)
        self._save()
        return TrainResult(
            folder=out,
            model_id=config.id,
            keras_file=keras_file,
            class_names=samples.class_names,
            images=counts,
            metrics=dict(config.provenance.metrics),
            temperature=config.heads[0].temperature,
            gate_threshold=None if fitted is None else fitted.threshold,
            parity=parity,
            log=self.log,
            seconds=self.seconds,
            cpu_seconds=self.cpu_seconds,
            warnings=tuple(self.context.warnings),
        )

    def _parts(self) -> dict[str, Part]:
        return {"train": self.samples.train, "val": self.samples.val, "test": self.samples.test}


def _prepare_folder(request: TrainRequest) -> None:
    """Make the folder; refuse one that holds a training which nobody asked to go on with."""
    begun = any((request.out / name).exists() for name in (STATE_FILE, CONFIG_FILE))
    if begun and not request.resume:
        raise InputError(
            f"'{request.out}' already holds a training.",
            todo="Go on with it (--resume), or choose another folder.",
        )
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(request.out, error) from error
