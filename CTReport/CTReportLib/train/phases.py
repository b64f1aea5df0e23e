"""The three phases of a training: what learns in each, and one step of it. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from CTReportLib.findings import LOCALISED
from CTReportLib.nets.conv import ConvEncoder
from CTReportLib.nets.heads import finding_loss
from CTReportLib.nets.heads_unet import TextUNet
from CTReportLib.preprocess import Window
from CTReportLib.train import learning
from CTReportLib.train.bank import FeatureBank
from CTReportLib.train.request import Stage
from CTReportLib.train.store import Store, bits

ENCODER, CLASSIFIER, LOCALIZER = "encoder", "classifier", "localizer"
BALANCED = 0.4
"""Share of the localizer's steps after which rare voxels count no more than others."""
_NUMBERS = {ENCODER: 1, CLASSIFIER: 2, LOCALIZER: 3}


class Phase(Protocol):
    """Part of a training on its way.

    Attributes
    ----------
    name : str
    stage : Stage
    optimizer : torch.optim.Optimizer
    """

    name: str
    stage: Stage
    optimizer: torch.optim.Optimizer

    def learn(self, step: int) -> float:
        """Take a step, counted from 0; the loss."""


class _Base:
    """What the phases share: random numbers that only seed, phase and step decide; precision; the rate."""

    name = ""

    def __init__(
        self, stage: Stage, modules: Sequence[nn.Module], seed: int, device: str, *, half: bool, decay: float
    ) -> None:
        self.stage, self._modules, self._seed, self._device = stage, modules, seed, device
        self._half = half and device.startswith("cuda")
        self.optimizer = learning.optimizer_for(modules, stage.learning_rate, decay)

    def learn(self, step: int) -> float:
        for module in self._modules:
            module.train()
        rng = np.random.default_rng([self._seed, _NUMBERS[self.name], step])
        with self._precision():
            loss = self._loss(rng, step)
        return learning.take_step(
            self.optimizer, loss, learning.learning_rate(self.stage.learning_rate, step, self.stage.steps)
        )

    def _loss(self, rng: np.random.Generator, step: int) -> torch.Tensor:
        raise NotImplementedError

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.partition(":")[0], torch.bfloat16, enabled=self._half)


class EncodingPhase(_Base):
    """Encoder and classifier learn together, from the labels of scans and, coarsely, from masks."""

    name = ENCODER

    def __init__(
        self,
        stage: Stage,
        encoder: ConvEncoder,
        head: nn.Module,
        store: Store,
        labels: np.ndarray,
        windows: Sequence[Window],
        *,
        focal: bool,
        **shared: Any,
    ) -> None:
        super().__init__(stage, (encoder, head), decay=learning.WEIGHT_DECAY, **shared)
        self._encoder, self._head, self._focal = encoder, head, focal
        self._store, self._labels, self._windows = store, labels, windows

    def _loss(self, rng: np.random.Generator, step: int) -> torch.Tensor:
        chosen, hu, drawn = learning.encoder_batch(self._store, self.stage.batch_size, rng)
        return learning.encoder_loss(
            self._encoder,
            self._head,
            learning.windowed(hu, self._windows).to(self._device),
            torch.from_numpy(self._labels[chosen]).to(self._device),
            torch.from_numpy(bits(drawn, range(len(LOCALISED)))).to(self._device),
            torch.from_numpy(self._store.known[chosen]).to(self._device),
            focal=self._focal,
        )


class ProbingPhase(_Base):
    """The classifier learns on kept features; of the encoder that was trained here, its last layer too."""

    name = CLASSIFIER

    def __init__(
        self, stage: Stage, head: nn.Module, bank: FeatureBank, labels: np.ndarray, *, focal: bool, **shared: Any
    ) -> None:
        modules = (head,) if bank.pool is None else (head, bank.pool)
        super().__init__(stage, modules, decay=learning.PROBE_DECAY, **shared)
        self._head, self._bank, self._labels, self._focal = head, bank, labels, focal

    def _loss(self, rng: np.random.Generator, step: int) -> torch.Tensor:
        chosen = np.sort(rng.choice(len(self._bank), min(self.stage.batch_size, len(self._bank)), replace=False))
        raw = self._head(self._bank.features(chosen, self._device)).float()
        labels = self._labels[chosen % len(self._labels)]
        return finding_loss(raw, torch.from_numpy(labels).to(self._device), focal=self._focal)


class DrawingPhase(_Base):
    """The localizer learns on crops."""

    name = LOCALIZER

    def __init__(
        self,
        stage: Stage,
        network: TextUNet,
        store: Store,
        findings: Sequence[int],
        crop: int,
        windows: Sequence[Window],
        **shared: Any,
    ) -> None:
        super().__init__(stage, (network,), decay=learning.WEIGHT_DECAY, **shared)
        self._network, self._store, self._findings = network, store, findings
        self._crop, self._windows = crop, windows
        self._shares = learning.drawing_shares(store, findings)

    def _loss(self, rng: np.random.Generator, step: int) -> torch.Tensor:
        hu, wanted, known = learning.crop_batch(
            self._store, self._findings, self._shares, self._crop, self.stage.batch_size, rng
        )
        return learning.localizer_loss(
            self._network,
            learning.windowed(hu, self._windows).to(self._device),
            torch.from_numpy(wanted).to(self._device),
            torch.from_numpy(known).to(self._device),
            balance=max(0.0, 1 - step / max(BALANCED * self.stage.steps, 1)),
        )
