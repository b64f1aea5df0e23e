"""The task that fits the gate of a model which is on disk: one of ours, or a converted Keras file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedAILib.errors import InputError, InvalidWeights
from MedAILib.jobs.task import Context
from MedMNISTRouterLib.gate import MahalanobisGate
from MedMNISTRouterLib.modelfolder import FittedGate, ModelFolder, read_model_folder, write_gate
from MedMNISTRouterLib.prepare import prepared
from MedMNISTRouterLib.session import OnnxModel
from MedMNISTRouterLib.train.npzfile import read_npz
from MedMNISTRouterLib.train.plan import Source, plan_for

TASK = "MedMNISTRouterLib.train.gatefit:GateTask"
MOST_IMAGES = 20_000
"""For the statistics, of all files together."""
FEWEST_IMAGES = 20
_BATCH = 64
_SEED = 12


@dataclass(frozen=True)
class GateRequest:
    """Fit a gate.

    Attributes
    ----------
    model : Path
        Folder with ``model_config.json``.
    data : tuple of Path
        As for a training, see `MedMNISTRouterLib.train.request.TrainRequest`.
    acceptance : float
        Share of the validation images that it shall accept.
    """

    model: Path
    data: tuple[Path, ...]
    acceptance: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.acceptance < 1:
            raise InputError(f"The acceptance must be between 0 and 1, not {self.acceptance}.")


@dataclass(frozen=True)
class GateResult:
    """A gate that was fitted.

    Attributes
    ----------
    folder : Path
    train_images, val_images : int
    threshold, acceptance : float
    warnings : tuple of str
    """

    folder: Path
    train_images: int
    val_images: int
    threshold: float
    acceptance: float
    warnings: tuple[str, ...] = ()


class GateTask:
    """Fits the gate of a model."""

    def run(self, request: GateRequest, context: Context) -> GateResult:
        """Run the request.

        Raises
        ------
        FileMissing, InvalidWeights
            The folder holds no model, or its graph gives no features.
        InputError
            The images cannot be used.
        OutputError
        """
        folder = read_model_folder(request.model)
        pieces = _pieces(request.data)
        model = OnnxModel(folder.graph, context.threads)
        total, done = sum(len(piece.images) for piece in pieces), 0
        features: dict[str, list[np.ndarray]] = {"train": [], "val": []}
        for piece in pieces:
            for start in range(0, len(piece.images), _BATCH):
                context.progress("Features", 0.95 * (done + start) / total)
                features[piece.part].append(_features(model, folder, piece.images[start : start + _BATCH]))
            done += len(piece.images)
        model.close()
        train, val = (np.concatenate(features[name]) for name in ("train", "val"))
        if min(len(train), len(val)) < FEWEST_IMAGES:
            raise InputError(
                f"{len(train)} training and {len(val)} validation images are too few for a gate.",
                todo=f"Give at least {FEWEST_IMAGES} of each.",
            )
        learned, held_out = ([piece for piece in pieces if piece.part == name] for name in ("train", "val"))
        groups = np.concatenate([piece.groups for piece in learned])
        gate = MahalanobisGate.fit(train, groups)
        first = np.unique(groups, return_index=True)[1]
        kinds_of_groups = np.concatenate([piece.kinds for piece in learned])[first]
        kinds = np.concatenate([piece.kinds for piece in held_out])
        gate = gate.scaled(val, kinds, kinds_of_groups, request.acceptance)
        before = folder.config.gate
        least = before.least_confidence if before is not None else 0.0
        fitted = FittedGate(gate, gate.threshold(val, request.acceptance), request.acceptance, least)
        write_gate(folder.folder, folder.config, fitted)
        return GateResult(
            request.model, len(train), len(val), fitted.threshold, request.acceptance, tuple(context.warnings)
        )


@dataclass(frozen=True, eq=False)
class _Piece:
    """Images of one source.

    Attributes
    ----------
    part : str
        ``train`` or ``val``.
    images : ndarray, uint8
    kinds, groups : ndarray of int, shape (images,)
        Class of the model; of a router also divided by the source's own labels.
    """

    part: str
    images: np.ndarray
    kinds: np.ndarray
    groups: np.ndarray


def _pieces(data: Sequence[Path]) -> list[_Piece]:
    """Training and validation images, at the size their files have."""
    if len(data) == 1 and data[0].suffix == ".npz":
        sources: list[tuple[int | None, Source]] = [(None, Source(data[0]))]
    else:
        classes = plan_for(data).classes
        sources = [(number, source) for number, item in enumerate(classes) for source in item.sources]
    rng = np.random.default_rng(_SEED)
    pieces, first = [], 0
    for number, source in sources:
        file = read_npz(source.file)
        most = min(MOST_IMAGES // len(sources), source.most or MOST_IMAGES)
        for part in ("train", "val"):
            whole = file.parts[part]
            if source.labels and whole.labels.ndim == 1:
                whole = whole.taken(np.isin(whole.labels, source.labels))
            whole = whole.taken(np.sort(rng.permutation(len(whole))[:most]))
            labels = whole.labels if whole.labels.ndim == 1 else np.zeros(len(whole), np.int64)
            kinds = labels if number is None else np.full(len(whole), number)
            pieces.append(_Piece(part, whole.images, kinds, first + labels))
        first = 1 + max(int(piece.groups.max(initial=first)) for piece in pieces)
    return pieces


def _features(model: OnnxModel, folder: ModelFolder, images: np.ndarray) -> np.ndarray:
    wanted = folder.config.inputs[0]
    features = model.run(np.stack([prepared(image, wanted) for image in images])).features
    if features is None:
        raise InvalidWeights(
            f"'{folder.graph}' gives no features, so that no gate can be fitted.",
            todo="Convert the model again, or train it with 'medai train'.",
        )
    return features
