"""The training itself: data, steps, validation, log, a state to go on from, and the network at the end."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedAILib.atomic import replacing, write_text
from MedAILib.errors import InputError
from MedAILib.jobs.task import Context
from MedAILib.models.torchmodel import import_torch, read_torch, write_torch
from Mem3DPropagateLib.train.request import LogRow, TrainRequest, TrainResult
from Mem3DPropagateLib.train.subjects import Kind, Subject, random_shapes, read_subjects, split_by_patient, with_regions

if TYPE_CHECKING:
    from Mem3DPropagateLib.nets.gapnet import GapNet
    from Mem3DPropagateLib.train.learning import Batch, Learner

logger = logging.getLogger(__name__)

STATE, LOG, WEIGHTS = "resume.pt", "log.csv", "model.safetensors"
VALIDATION_SEED = 1_000_003
"""Added to the seed for validation episodes."""


class TrainTask:
    """Trains a `GapNet`; ended at any moment, it goes on from the last state with ``resume``."""

    def run(self, request: TrainRequest, context: Context) -> TrainResult:
        """Run the request.

        Raises
        ------
        InputError
            The data cannot be used, or ``out`` holds a training of other settings or one that shall not be resumed.
        OutputError
        Cancelled
            The state in ``out`` is that of the last save.
        """
        torch = import_torch()
        torch.set_num_threads(context.threads)
        _check_folder(request)
        context.progress("Reading cases", 0.0)
        learning, validating = _subjects(request, context)
        run = _Run(request, context, learning, validating)
        run.train()
        return TrainResult(
            run.finish(),
            tuple(run.log),
            tuple(subject.name for subject in learning),
            tuple(subject.name for subject in validating),
        )


def _check_folder(request: TrainRequest) -> None:
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"'{request.out}' cannot be the folder of a training.", why=f"{error}.") from error
    if (request.out / STATE).exists() and not request.resume:
        raise InputError(
            f"'{request.out}' already holds a training.", todo="Go on with it by --resume, or give another folder."
        )


def _subjects(request: TrainRequest, context: Context) -> tuple[list[Subject], list[Subject]]:
    found = read_subjects(request.data)
    learning, validating = split_by_patient(found, request.validation_share, request.seed)
    if not learning:
        raise InputError("No patient is left to learn from.", todo="Lower the validation share.")
    if request.regions:
        for number, region in enumerate(with_regions(list(learning))):
            context.progress("Finding regions", 0.0, f"volume {number // 2 + 1}")
            learning.append(region)
    learning += random_shapes(request.seed, request.shapes)
    return learning, validating


class _Run:
    """A training on its way."""

    def __init__(
        self, request: TrainRequest, context: Context, learning: list[Subject], validating: list[Subject]
    ) -> None:
        from Mem3DPropagateLib.nets.gapnet import GapNet
        from Mem3DPropagateLib.train.learning import Learner

        torch = import_torch()
        torch.manual_seed(request.seed)
        self.request, self.context = request, context
        self.log: list[LogRow] = []
        self._learning = learning
        self._validation = self._validation_batches(validating)
        self._network: GapNet = GapNet(**request.network).to(context.device)
        self._learner: Learner = Learner(self._network, request.learning_rate, request.steps)
        self._step, self._losses, self._seconds = 0, [0.0, 0], 0.0
        if (request.out / STATE).exists():
            self._restore()

    def train(self) -> None:
        started = time.monotonic() - self._seconds
        half = self.request.half_precision
        for batch in self._batches():
            loss = self._learner.learn(batch.to(self.context.device), self._step, half)
            self._losses = [self._losses[0] + loss, self._losses[1] + 1]
            self._step += 1
            self._seconds = time.monotonic() - started
            last = self._step == self.request.steps
            if self._step % self.request.validate_every == 0 or last:
                self._log_row()
            if self._step % self.request.save_every == 0 or last:
                self._save()
            left_s = self._seconds / self._step * (self.request.steps - self._step)
            shown = f"step {self._step} of {self.request.steps}, loss {loss:.3f}"
            self.context.progress("Training", self._step / self.request.steps, shown, left_s)

    def finish(self) -> Path:
        """Write the averaged weights in half precision with their description; its path."""
        from Mem3DPropagateLib.nets.gapmodel import save_gap_model

        self._network.load_state_dict(self._learner.average)
        path = self.request.out / WEIGHTS
        validated = asdict(self.log[-1]) if self.log else {}
        patients = {subject.patient for subject in self._learning if subject.kind is not Kind.PAINTED}
        trained_on = f"{len(self._learning)} volumes and label maps, {len(patients)} patients among them"
        training = {"settings": self.request.settings(), "validation": validated}
        save_gap_model(self._network, path, self.request.network, training, trained_on)
        return path

    def _batches(self) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        from Mem3DPropagateLib.train.loading import EpisodeBatches

        data = EpisodeBatches(self._learning, self.request.seed, self.request.episodes, self._step, self.request.steps)
        loaders = self.request.loaders
        return iter(DataLoader(data, batch_size=None, num_workers=loaders, prefetch_factor=4 if loaders else None))

    def _validation_batches(self, subjects: list[Subject]) -> list[Batch]:
        from Mem3DPropagateLib.train.loading import EpisodeBatches

        if not subjects:
            return []
        count = -(-self.request.validation_episodes // self.request.episodes)
        seed = self.request.seed + VALIDATION_SEED
        data = EpisodeBatches(subjects, seed, self.request.episodes, 0, count)
        return [data[number] for number in range(count)]

    def _log_row(self) -> None:
        scores = self._validate()
        self.log.append(LogRow(self._step, self._losses[0] / max(self._losses[1], 1), **scores, seconds=self._seconds))
        self._losses = [0.0, 0]
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(LogRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.log)
        write_text(self.request.out / LOG, text.getvalue())
        logger.info("%s", self.log[-1])

    def _validate(self) -> dict[str, float | None]:
        from Mem3DPropagateLib.nets.gapnet import GapNet
        from Mem3DPropagateLib.train.learning import scores_of

        names = ("dice", "prior_dice", "far_dice", "far_prior_dice", "presence", "quality")
        if not self._validation:
            return dict.fromkeys(names)
        torch = import_torch()
        average = GapNet(**self.request.network).to(self.context.device).eval()
        average.load_state_dict(self._learner.average)
        parts: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode():
            for batch in self._validation:
                moved = batch.to(self.context.device)
                found = asdict(scores_of(average(**moved.inputs), moved))
                found["one_sided"] = moved.one_sided[:, None].expand_as(found["present"])
                for name, value in found.items():
                    parts.setdefault(name, []).append(value.cpu().numpy().ravel())
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        return _summary(joined)

    def _save(self) -> None:
        state = {
            "settings": self._settings(),
            "step": self._step,
            "seconds": self._seconds,
            "losses": self._losses,
            "log": [asdict(row) for row in self.log],
            **self._learner.state(),
        }
        with replacing(self.request.out / STATE) as beside:
            write_torch(beside, state)

    def _restore(self) -> None:
        state: Mapping[str, Any] = read_torch(self.request.out / STATE)
        before, wanted = state["settings"], self._settings()
        differing = sorted(name for name in {*before, *wanted} if before.get(name) != wanted.get(name))
        if differing:
            raise InputError(
                f"The training in '{self.request.out}' cannot be resumed: it was begun with other settings.",
                why=f"These differ: {', '.join(differing)}.",
                todo="Give the same settings and data as before, or another folder.",
            )
        self._learner.restore(state)
        self._step, self._seconds, self._losses = state["step"], state["seconds"], list(state["losses"])
        self.log = [LogRow(**row) for row in state["log"]]

    def _settings(self) -> dict[str, Any]:
        return {**self.request.settings(), "subjects": [subject.name for subject in self._learning]}


def _summary(scores: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Means over the validation slices, from flat arrays of the fields of `Scores` and ``one_sided``."""
    far, present = scores["one_sided"], scores["present"]

    def mean(name: str, chosen: np.ndarray) -> float | None:
        return float(scores[name][chosen].mean()) if chosen.any() else None

    right = scores["told_present"] == present
    spread = present.any() and scores["dice"][present].std() > 0 and scores["expected"][present].std() > 0
    return {
        "dice": mean("dice", ~far & present),
        "prior_dice": mean("prior_dice", ~far & present),
        "far_dice": mean("dice", far & present),
        "far_prior_dice": mean("prior_dice", far & present),
        "presence": float(right[far].mean()) if far.any() else None,
        "quality": float(np.corrcoef(scores["expected"][present], scores["dice"][present])[0, 1]) if spread else None,
    }
