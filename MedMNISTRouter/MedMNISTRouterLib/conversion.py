"""A user's Keras file becomes an ONNX graph, once: checked, converted in a worker process, compared, kept by hash.

The result lies in ``converted/<sha256 of the Keras file>/`` of the store: a model folder as any other, and
``conversion.json``, which says how it was made, or why it could not be made and Keras itself has to answer.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.atomic import output_error, write_text
from MedAILib.errors import InvalidWeights, MedAIError, MissingPackage
from MedAILib.jobs.runner import JobState
from MedAILib.jobs.worker_runner import WorkerRunner
from MedAILib.models.config import CONFIG_FILE, ModelConfig
from MedAILib.models.heads import Activation, HeadTask
from MedMNISTRouterLib.describe import describe_keras, with_activation
from MedMNISTRouterLib.hashes import FileHashes
from MedMNISTRouterLib.kerascheck import KerasFacts, check_keras_file
from MedMNISTRouterLib.kerasworker import CONVERT_TASK, Backend, Conversion, ConvertRequest
from MedMNISTRouterLib.modelfolder import ModelFolder, read_model_folder, write_model_folder

logger = logging.getLogger(__name__)

OnStage = Callable[[str], None]

CONVERTED = "converted"
RECORD_FILE = "conversion.json"
FEWEST_PICTURES = 8
_SECONDS_BETWEEN_LOOKS = 0.2
VERSION = 1
"""Of the way models are converted; earlier results are made anew."""


def _tell_nobody(text: str) -> None:
    return


@dataclass(frozen=True, eq=False)
class Converted:
    """A Keras file, ready to be served.

    Attributes
    ----------
    source : Path
    sha256 : str
        Of the Keras file.
    config : ModelConfig
    model : ModelFolder, optional
        The converted model; None: Keras itself must answer.
    why_not : str
        Why it could not be converted; empty where it was.
    warnings : tuple of str
        What a user should know of the model.
    """

    source: Path
    sha256: str
    config: ModelConfig
    model: ModelFolder | None
    why_not: str = ""
    warnings: tuple[str, ...] = ()


class Converter:
    """Converts Keras files.

    Parameters
    ----------
    home : Path
        The store.
    threads : int
        For the worker process.
    """

    def __init__(self, home: Path, threads: int = 1) -> None:
        self._folder = home / CONVERTED
        self._hashes = FileHashes(self._folder / "files.json")
        self._threads = threads

    def convert(
        self, path: Path, slot: str, pictures: Sequence[np.ndarray] = (), on_stage: OnStage = _tell_nobody
    ) -> Converted:
        """What to serve a Keras file with; at once where it was converted before.

        Parameters
        ----------
        path : Path
        slot : str
        pictures : sequence of ndarray, uint8
            Real pictures to compare the answers with; made-up ones are added.
        on_stage : callable
            Told now and again what is being done, in words for the user: a conversion takes 10 to 60 s. What it
            raises ends the conversion.

        Raises
        ------
        InvalidWeights
            The file must not or cannot be used.
        MissingPackage
            It was not converted yet, and Keras is not here.
        FileMissing, UnreadableFile, OutputError
        """
        sha256 = self._hashes.of(path)
        folder = self._folder / sha256
        known = self._known(path, sha256, folder, slot)
        if known is not None:
            return known
        facts = check_keras_file(path, slot)
        config = describe_keras(path, slot, facts, sha256)
        return self._make(path, sha256, folder, slot, facts, config, list(pictures), on_stage)

    def _known(self, path: Path, sha256: str, folder: Path, slot: str) -> Converted | None:
        """An earlier result, unless it was made in another way, for another slot, or was damaged since."""
        try:
            record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
            if record["version"] != VERSION or record["slot"] != slot:
                return None
            why_not, warnings = str(record["why_not"]), tuple(map(str, record["warnings"]))
            if why_not:
                return Converted(path, sha256, ModelConfig.load(folder / CONFIG_FILE), None, why_not, warnings)
            model = read_model_folder(folder, check_hashes=False)
            for entry in model.config.files:
                if self._hashes.of(folder / entry.path) != entry.sha256:
                    return None
        except (OSError, ValueError, KeyError, TypeError, MedAIError) as error:
            logger.debug("%s is converted anew: %s", path, error)
            return None
        return Converted(path, sha256, model.config, model, "", warnings)

    def _make(
        self,
        path: Path,
        sha256: str,
        folder: Path,
        slot: str,
        facts: KerasFacts,
        config: ModelConfig,
        pictures: list[np.ndarray],
        on_stage: OnStage,
    ) -> Converted:
        pictures += made_up_pictures(max(FEWEST_PICTURES - len(pictures), 2), config.inputs[0].size)
        _make_folder(self._folder)
        # In the store, so that the path of a large file does not lead to a small temporary disk.
        with tempfile.TemporaryDirectory(prefix=".part-", dir=self._folder) as scratch:
            request = ConvertRequest(
                path.absolute(), Path(scratch, "model.onnx"), slot, config.inputs[0], tuple(pictures)
            )
            done = self._tried(request, on_stage)
            config = _completed(config, done)
            warnings = (*facts.warnings, *_warnings(config, done))
            if not done.problem:
                graph = request.target.read_bytes()
                config = write_model_folder(folder, config, graph)
            else:
                _make_folder(folder)
                config.save(folder / CONFIG_FILE)
        record = {
            "version": VERSION,
            "slot": slot,
            "source": path.name,
            "why_not": done.problem,
            "warnings": list(warnings),
            "difference": done.difference,
            "pictures": len(pictures),
            "keras": done.keras_version,
        }
        write_text(folder / RECORD_FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        model = None if done.problem else read_model_folder(folder, check_hashes=False)
        return Converted(path, sha256, config, model, done.problem, warnings)

    def _tried(self, request: ConvertRequest, on_stage: OnStage) -> Conversion:
        """By TensorFlow's exporter; where its graph is wrong, by torch's, compared with TensorFlow's answers."""
        done = self._by(request, on_stage)
        if not done.problem:
            return done
        logger.info("%s by TensorFlow: %s", request.path.name, done.problem)
        try:
            other = self._by(replace(request, backend=Backend.TORCH, reference=done.reference), on_stage)
        except MissingPackage as error:
            logger.info("%s by torch: %s", request.path.name, error.text)
            return done
        if other.problem:
            logger.info("%s by torch: %s", request.path.name, other.problem)
            return replace(done, problem=f"{done.problem}; by torch: {other.problem[0].lower()}{other.problem[1:]}")
        return replace(other, statistics=done.statistics, activation=done.activation)

    def _by(self, request: ConvertRequest, on_stage: OnStage) -> Conversion:
        # A process of its own each: Keras cannot change its backend, and TensorFlow does not give memory back.
        with WorkerRunner(threads=self._threads) as runner:
            job = runner.start(CONVERT_TASK, request)
            on_stage(f"Converting {request.path.name} (once)")
            while job.wait(_SECONDS_BETWEEN_LOOKS) is JobState.RUNNING:
                on_stage(f"Converting {request.path.name} (once)")
            result: Any = job.outcome().result
        assert isinstance(result, Conversion)
        return result


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def made_up_pictures(count: int, size: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    """Colour pictures, the same in every run, shape (rows, columns, 3), uint8.

    Their amplitudes fall with the spatial frequency, as those of photographs do (Field, JOSA A 4:2379, 1987), so that
    every filter of a network answers.
    """
    rng = np.random.default_rng(seed)
    rows, columns = size
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None])
    amplitude = 1 / np.maximum(frequency, 1 / max(size))
    found = []
    for _ in range(count):
        shared, *own = (
            np.fft.irfft2(amplitude * np.exp(1j * rng.uniform(0, 2 * np.pi, amplitude.shape)), (rows, columns))
            for _ in range(4)
        )
        waves = np.stack([shared + 0.5 * channel for channel in own], axis=2)
        low, high = np.percentile(waves, [1, 99])
        found.append(np.rint(np.clip((waves - low) / (high - low), 0, 1) * rng.uniform(150, 255)).astype(np.uint8))
    return found


def _completed(config: ModelConfig, done: Conversion) -> ModelConfig:
    parameters = {**config.architecture.parameters, "outputs": done.outputs}
    config = replace(config, architecture=replace(config.architecture, parameters=parameters))
    return with_activation(config, done.activation)


def _warnings(config: ModelConfig, done: Conversion) -> tuple[str, ...]:
    found = []
    if done.statistics is not None and done.statistics.warning:
        found.append(done.statistics.warning)
    if config.heads[0].task is HeadTask.MULTI_LABEL and done.activation is Activation.SOFTMAX:
        found.append(
            "The network ends in a softmax, as if only one finding could be present; its probabilities of several "
            "findings cannot all be high. Train it with a sigmoid per finding."
        )
    return tuple(found)


def refused(path: Path, slot: str) -> InvalidWeights | None:
    """Why a Keras file would not be taken for a slot, without opening it with Keras; None where it would."""
    try:
        check_keras_file(path, slot)
    except InvalidWeights as error:
        return error
    return None
