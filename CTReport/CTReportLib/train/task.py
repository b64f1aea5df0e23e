"""The training itself: data, phases, log, a state to go on from, and the three networks at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from CTReportLib.findings import LOCALISED, finding
from CTReportLib.train.ctrate import CtCase, read_data
from CTReportLib.train.parts import FEWEST_SCANS, Parts, facts_of, parts_of, patients_of
from CTReportLib.train.request import HEADS, LOCALIZER, LogRow, Stage, TrainRequest, TrainResult
from CTReportLib.train.store import Store, labels_array, make_store
from MedAILib.atomic import output_error, write_text
from MedAILib.errors import Cancelled, InputError, MedAIError
from MedAILib.jobs.task import Context
from MedAILib.models import resume
from MedAILib.models.tensors import file_sha256
from MedAILib.models.torchmodel import import_torch
from MedAILib.models.torchuse import chosen_device, torch_threads

if TYPE_CHECKING:
    from torch import nn

    from CTReportLib.nets.encoders import Encoder
    from CTReportLib.train.bank import FeatureBank
    from CTReportLib.train.phases import Phase

STATE, LOG, CARD, PREPARED = "resume.pt", "log.csv", "MODEL_CARD.md", "prepared"
VARIED = 1
"""Variants of each volume, beside itself, that the classifier learns on."""
FEWEST_DRAWN = 3
"""Scans in which a finding is drawn that a localizer needs to learn it."""
_SPANS = {"encoder": (0.1, 0.5), "classifier": (0.5, 0.55), "localizer": (0.55, 0.95)}
_HELD_SPANS = {"classifier": (0.95, 0.97), "localizer": (0.97, 0.99)}
"""Parts of the whole run: of each phase, and of what is done with held patients afterwards."""
Span = tuple[float, float]


class TrainTask:
    """Trains encoder, classifier and localizer; ended at any moment, it goes on from the last state with ``resume``."""

    def run(self, request: TrainRequest, context: Context) -> TrainResult:
        """Run the request.

        Raises
        ------
        ConfigError
            The settings cannot be used; all problems at once.
        InputError, FileMissing
            The data cannot be used, or ``out`` holds a training of other settings or one that shall not be resumed.
        OutputError
        Cancelled
            After the state was saved.
        """
        import_torch()
        request.validate()
        context.device = chosen_device(context.device)
        context.progress("Reading the data", 0.0)
        parts = parts_of(read_data(request.data), request)
        _prepare_folder(request)
        for text in parts.remarks:
            context.warn(text)
        with torch_threads(context.threads):
            training = _Training(request, parts, context)
            training.go()
            return training.finish()


def _prepare_folder(request: TrainRequest) -> None:
    begun = (request.out / STATE).exists() or (request.out / CARD).exists()
    if begun and not request.resume:
        raise InputError(
            f"'{request.out}' already holds a training.", todo="Go on with it by --resume, or give another folder."
        )
    try:
        (request.out / PREPARED).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(request.out, error) from error


class _Training:
    """One training: what it knows between two steps."""

    def __init__(self, request: TrainRequest, parts: Parts, context: Context) -> None:
        self.request, self.parts, self.context = request, parts, context
        self.log: list[LogRow] = []
        self.losses: list[float] = []
        self.done: list[str] = []
        self.answered: tuple[str, ...] = ()
        self.step = 0
        self.seconds_before = self.cpu_before = 0.0
        self.started, self.cpu_started = time.monotonic(), time.process_time()
        self.given = self._given_encoder()
        self.settings = {**request.settings(), "data": facts_of(parts)}
        state = self._restored()
        self.drawn = self._drawn_findings()
        self.modules, self.head_parameters, self.prompts = self._networks()
        if state is not None:
            for name, tensors in state["networks"].items():
                self.modules[name].load_state_dict(tensors)
        self._optimizer = None if state is None else state["optimizer"]

    @property
    def names(self) -> list[str]:
        """The phases that are to be run, in order."""
        request, found = self.request, []
        if self.given is None and request.encoding.steps and self.parts.findings:
            found.append("encoder")
        if self.parts.findings and (found or self.given is not None) and request.probing.steps:
            found.append("classifier")
        if self.drawn:
            found.append("localizer")
        return found

    def go(self) -> None:
        """Take the steps that are left of every phase."""
        if not self.names:
            raise InputError(
                "There is nothing to learn: no finding has enough labels or masks.",
                todo=f"At least {FEWEST_SCANS} scans with it and {FEWEST_SCANS} without are needed.",
            )
        for name in self.names:
            if name in self.done:
                continue
            phase = self._phase(name)
            if self._optimizer is not None and self.step:
                phase.optimizer.load_state_dict(self._optimizer)
            self._optimizer = None
            self._run(name, phase)
            self.done.append(name)
            self.step = 0
            self._save(None)

    def _run(self, name: str, phase: Phase) -> None:
        steps = phase.stage.steps
        begin, end = _SPANS[name]
        while self.step < steps:
            shown = f"step {self.step + 1} of {steps}" + (f", loss {self.losses[-1]:.3f}" if self.losses else "")
            try:
                self.context.progress(f"Training: {name}", begin + (end - begin) * self.step / steps, shown)
            except Cancelled:
                self._save(phase)
                raise
            try:
                self.losses.append(phase.learn(self.step))
            except FloatingPointError as error:
                raise MedAIError(
                    f"The training of the {name} broke down at step {self.step + 1}: {error}.",
                    why="The learning rate is too high for these data, or a volume holds values that are no numbers.",
                    todo="Start again in another folder with a lower learning rate.",
                ) from error
            self.step += 1
            if self.step % self.request.log_every == 0 or self.step == steps:
                self._log_row(name, phase.stage)
            if self.step % self.request.save_every == 0 and self.step < steps:
                self._save(phase)

    def _networks(self) -> tuple[dict[str, nn.Module], dict[str, Any], str]:
        """All that learns here, untrained; parameters of the classifier; where the prompts come from."""
        import torch

        from CTReportLib.nets.conv import ConvEncoder
        from CTReportLib.nets.heads_unet import TextUNet
        from CTReportLib.nets.heads_weights import FACTORIES
        from CTReportLib.train.prompts import prompt_vectors

        request, device = self.request, self.context.device
        modules: dict[str, nn.Module] = {}
        parameters: dict[str, Any] = {}
        told = ""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed)
            if "encoder" in self.names:
                modules["encoder"] = ConvEncoder(len(request.encoder_layout.windows), request.base)
            if {"encoder", "classifier"} & set(self.names):
                width = 4 * request.base if self.given is None else self.given.width
                parameters = {"vision_dim": width}
                if request.head == "prompt":
                    vectors, told = prompt_vectors(self.parts.findings, request.text_encoder)
                    parameters |= {"text_dim": vectors.shape[1], "shared_dim": min(512, 2 * width)}
                modules["classifier"] = FACTORIES[HEADS[request.head]](**parameters, findings=len(self.parts.findings))
                if request.head == "prompt":
                    modules["classifier"].set_prompts(vectors)
            if self.drawn:
                drawn = [LOCALISED[number].id for number in self.drawn]
                vectors, told = prompt_vectors(drawn, request.text_encoder)
                network = TextUNet(
                    len(request.localizer_layout.windows),
                    request.localizer_base,
                    request.localizer_depth,
                    int(vectors.shape[1]),
                    len(drawn),
                    **LOCALIZER,
                )
                network.set_prompts(vectors)
                modules["localizer"] = network
        return {name: module.to(device) for name, module in modules.items()}, parameters, told

    def _given_encoder(self) -> Encoder | None:
        if self.request.encoder is None:
            return None
        from CTReportLib.nets.encoders import load_encoder

        encoder = load_encoder(self.request.encoder, self.context.device)
        self.context.used_weights(encoder.id, encoder.sha256)
        return encoder

    def _drawn_findings(self) -> tuple[int, ...]:
        """Numbers of the localised findings that enough scans show."""
        if not self.request.drawing.steps:
            return ()
        if not any(case.masks for case in self.parts.learning):
            self.context.warn("The data has no masks: no localizer is trained.")
            return ()
        store = self._drawing_store(self.parts.learning, (0.0, 0.05))
        shown = np.zeros(len(LOCALISED), int)
        for drawn in store.drawn:
            shown += [bool((drawn >> np.uint8(bit) & 1).any()) for bit in range(len(LOCALISED))]
        few = [one.name for one, count in zip(LOCALISED, shown, strict=True) if count < FEWEST_DRAWN]
        if few:
            self.context.warn(f"Drawn in too few scans for the localizer to learn: {', '.join(few)}.")
        return tuple(int(bit) for bit in np.flatnonzero(shown >= FEWEST_DRAWN))

    def _phase(self, name: str) -> Phase:
        from CTReportLib.train.phases import DrawingPhase, EncodingPhase, ProbingPhase

        request, parts = self.request, self.parts
        shared = {"seed": request.seed, "device": self.context.device, "half": request.half_precision}
        focal = request.loss == "focal"
        labels = labels_array(parts.learning, parts.findings)
        if name == "encoder":
            store = self._encoder_store(parts.learning, (0.05, 0.1))
            return EncodingPhase(
                request.encoding, self.modules["encoder"], self.modules["classifier"], store, labels,
                request.encoder_layout.windows, focal=focal, **shared,
            )  # fmt: skip
        if name == "classifier":
            bank = self._bank(parts.learning, _SPANS["encoder"], VARIED)
            return ProbingPhase(request.probing, self.modules["classifier"], bank, labels, focal=focal, **shared)
        store = self._drawing_store(parts.learning, (0.55, 0.55))
        return DrawingPhase(
            request.drawing, self.modules["localizer"], store, self.drawn, request.crop,
            request.localizer_layout.windows, **shared,
        )  # fmt: skip

    def _bank(self, cases: Sequence[CtCase], span: Span, varied: int = 0) -> FeatureBank:
        from CTReportLib.train.bank import given_bank, own_bank

        patches, folder = self.request.head == "attention", self.request.out / PREPARED
        if self.given is not None:
            return given_bank(self.given, cases, folder, folder / "features", self.context, span, patches=patches)
        store = self._encoder_store(cases, (span[0], span[0]))
        windows = self.request.encoder_layout.windows
        return own_bank(
            self.modules["encoder"], store, windows, folder, self.context,
            patches=patches, varied=varied, seed=self.request.seed,
        )  # fmt: skip

    def _encoder_store(self, cases: Sequence[CtCase], span: Span) -> Store:
        layout, folder = self.request.encoder_layout, self.request.out / PREPARED
        return make_store(cases, layout, folder, self.context, "Preparing volumes for the encoder", span)

    def _drawing_store(self, cases: Sequence[CtCase], span: Span) -> Store:
        layout, folder = self.request.localizer_layout, self.request.out / PREPARED
        masked = [case for case in cases if case.masks is not None]
        return make_store(masked, layout, folder, self.context, "Preparing volumes for the localizer", span)

    def finish(self) -> TrainResult:
        """Calibrate, write everything; what became of it."""
        from CTReportLib.train import finishing
        from CTReportLib.train.card import model_card
        from CTReportLib.train.judging import Drawn
        from CTReportLib.train.judging import judged as judge

        request, parts = self.request, self.parts
        self.context.progress("Calibrating", 0.95)
        facts = finishing.Facts(self.settings, self._trained_on(), self.prompts)
        encoder = classifier = localizer = None
        scores: tuple[Any, ...] = ()
        judged = Drawn()
        if "encoder" in self.modules:
            encoder = finishing.write_encoder(self.modules["encoder"], request, facts)
        if "classifier" in self.modules:
            sha256 = (
                self.given.sha256 if self.given is not None else file_sha256(request.out / finishing.WEIGHTS["encoder"])
            )
            classifier, scores = self._write_classifier(facts, sha256)
        if "localizer" in self.modules:
            held = [case for case in parts.held if case.masks is not None]
            if held:
                store = self._drawing_store(held, _HELD_SPANS["localizer"])
                judged = judge(self.modules["localizer"], store, self.drawn, request, self.context)
            localizer = finishing.write_localizer(self.modules["localizer"], request, self._drawn_ids(), facts, judged)
        seconds = f"Learned in {self._seconds():.0f} s ({self._cpu():.0f} s of the processor)."
        warnings = tuple(dict.fromkeys((*parts.remarks, *self.context.warnings)))
        text = model_card(request, facts, scores, self._drawn_ids(), judged, seconds, warnings)
        write_text(request.out / CARD, text)
        return TrainResult(
            encoder=encoder,
            classifier=classifier,
            localizer=localizer,
            findings=self.answered,
            drawn=self._drawn_ids() if localizer else (),
            log=tuple(self.log),
            learned_from=patients_of(parts.learning),
            held=patients_of(parts.held),
            metrics=finishing.metrics_of(scores),
            warnings=warnings,
        )

    def _write_classifier(self, facts: Any, encoder_sha256: str) -> tuple[Path, tuple[Any, ...]]:
        from CTReportLib.nets.heads_calibration import fit_calibration
        from CTReportLib.train import finishing

        head, parts = self.modules["classifier"], self.parts
        fitted: tuple[Any, ...] = ()
        scores: tuple[Any, ...] = ()
        kept = list(range(len(parts.findings)))
        if parts.held:
            bank = self._bank(parts.held, _HELD_SPANS["classifier"])
            raw = finishing.raw_answers(head, bank, self.context.device)
            labels = labels_array(parts.held, parts.findings)
            fitted = fit_calibration(raw, labels, sensitivity=self.request.sensitivity)
            scores = finishing.held_scores(parts.findings, fitted, raw, labels, [c.patient for c in parts.held])
            kept = finishing.told_apart(scores) or kept
        if len(kept) < len(parts.findings):
            dropped = [finding(name).name for n, name in enumerate(parts.findings) if n not in kept]
            self.context.warn(
                f"The classifier does not answer {', '.join(dropped)}: on held patients its AUROC is below "
                f"{finishing.LEAST_AUROC}."
            )
            head = finishing.only(head, self.request, self.head_parameters, kept)
        self.answered = tuple(parts.findings[n] for n in kept)
        path = finishing.write_classifier(
            head, self.request, self.answered, encoder_sha256, self.head_parameters, facts,
            tuple(fitted[n] for n in kept) if fitted else (), finishing.metrics_of(scores),
        )  # fmt: skip
        return path, scores

    def _restored(self) -> Mapping[str, Any] | None:
        found = resume.load_state(self.request.out / STATE, self.context.device)
        if found is None:
            return None
        plain, tensors = found
        resume.check_same(plain["settings"], self.settings, self.request.out)
        self.log = [LogRow(**row) for row in plain["log"]]
        self.losses, self.done, self.step = list(plain["losses"]), list(plain["done"]), int(plain["step"])
        self.seconds_before, self.cpu_before = plain["seconds"], plain["cpu_seconds"]
        return tensors

    def _save(self, phase: Phase | None) -> None:
        plain = {
            "settings": self.settings,
            "log": [asdict(row) for row in self.log],
            "losses": self.losses,
            "done": self.done,
            "step": self.step,
            "seconds": self._seconds(),
            "cpu_seconds": self._cpu(),
        }
        networks = {name: module.state_dict() for name, module in self.modules.items()}
        optimizer = None if phase is None else phase.optimizer.state_dict()
        resume.save_state(self.request.out / STATE, plain, {"networks": networks, "optimizer": optimizer})
        resume.write_log(self.request.out / LOG, LogRow, self.log)

    def _log_row(self, name: str, stage: Stage) -> None:
        from CTReportLib.train.learning import learning_rate

        rate = learning_rate(stage.learning_rate, self.step - 1, stage.steps)
        mean = float(np.mean(self.losses))
        self.log.append(LogRow(name, self.step, rate, mean, round(self._seconds(), 3), round(self._cpu(), 3)))
        self.losses = []

    def _drawn_ids(self) -> tuple[str, ...]:
        return tuple(LOCALISED[number].id for number in self.drawn)

    def _trained_on(self) -> str:
        learned, held = self.parts.learning, self.parts.held
        names = ", ".join(finding(name).name.lower() for name in self.parts.findings) or "none"
        return (
            f"{len(learned)} scans of {len(patients_of(learned))} patients; {len(held)} scans of "
            f"{len(patients_of(held))} others were kept apart. Labelled findings: {names}."
        )

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _cpu(self) -> float:
        return self.cpu_before + time.process_time() - self.cpu_started
