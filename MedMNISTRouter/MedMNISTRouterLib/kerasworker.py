"""What is done with Keras, in a worker process of its own: open a user's file, answer with it, write it as ONNX.

Only the tasks here import Keras, within their ``run``; they are given to a `MedAILib.jobs.worker_runner.WorkerRunner`
and never run in the process of the router. The file must have passed `MedMNISTRouterLib.kerascheck` before.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.errors import InvalidWeights, JobError, MissingPackage
from MedAILib.jobs.task import Context
from MedAILib.models.heads import Activation, Input
from MedMNISTRouterLib.kerascheck import check_outputs
from MedMNISTRouterLib.modelfolder import ANSWERS, FEATURES
from MedMNISTRouterLib.prepare import prepared
from MedMNISTRouterLib.scaling import LayerStatistics

CONVERT_TASK = "MedMNISTRouterLib.kerasworker:ConvertTask"
PREDICT_TASK = "MedMNISTRouterLib.kerasworker:PredictTask"
LOWEST_KERAS = (3, 15, 1)
"""Earlier versions can be made to run code or to read files by the model they load (CVE-2026-1669 and others)."""
TOLERANCE = 1e-5
"""Largest difference between Keras's numbers and ONNX Runtime's, relative to the largest number (at least 1)."""


class Backend(Enum):
    """What Keras computes with."""

    TENSORFLOW = "tensorflow"
    TORCH = "torch"


@dataclass(frozen=True, eq=False)
class Reference:
    """What Keras answers for the pictures, to compare with.

    Attributes
    ----------
    answers : ndarray, shape (pictures, numbers), float32
    features : ndarray, shape (pictures, features), float32
    """

    answers: np.ndarray
    features: np.ndarray


@dataclass(frozen=True, eq=False)
class ConvertRequest:
    """Write a Keras file as ONNX.

    Attributes
    ----------
    path : Path
        A ``.keras`` file.
    target : Path
        The ONNX file to write.
    slot : str
    wanted : Input
        How its pictures are prepared.
    pictures : tuple of ndarray, uint8
        For the comparison.
    backend : Backend
    reference : Reference, optional
        What to compare with; None: what this backend answers.
    """

    path: Path
    target: Path
    slot: str
    wanted: Input
    pictures: tuple[np.ndarray, ...]
    backend: Backend = Backend.TENSORFLOW
    reference: Reference | None = None


@dataclass(frozen=True, eq=False)
class Conversion:
    """How the conversion went.

    Attributes
    ----------
    problem : str
        Why the graph cannot be used; empty where ``target`` was written.
    outputs, feature_count : int
    activation : Activation
        What the network has applied to its answers already.
    difference : float, optional
        Largest difference from the reference, relative as in `TOLERANCE`.
    reference : Reference
    statistics : LayerStatistics, optional
        Of the first batch normalisation, for `MedMNISTRouterLib.scaling`.
    keras_version : str
    """

    problem: str
    outputs: int
    feature_count: int
    activation: Activation
    difference: float | None
    reference: Reference
    statistics: LayerStatistics | None
    keras_version: str


class ConvertTask:
    """Opens a Keras file, writes it as ONNX with two outputs, and compares the answers."""

    def run(self, request: ConvertRequest, context: Context) -> Conversion:
        """Convert.

        Raises
        ------
        MissingPackage
            Keras or its backend is not installed, or too old.
        InvalidWeights
            Keras refuses the file, or it answers another number of classes than the slot has.
        """
        context.progress("Starting Keras", 0.0)
        keras = _keras(request.backend)
        context.progress("Opening the model", 0.2)
        model = _load(keras, request.path)
        check_outputs(request.path, request.slot, int(model.output_shape[-1]))
        two_headed = _two_headed(keras, model)
        batch = np.stack([prepared(picture, request.wanted) for picture in request.pictures])
        own = Reference(*(_numpy(keras, output) for output in two_headed(batch, training=False)))
        reference = request.reference or own
        context.progress("Writing it as ONNX", 0.4)
        problem, difference = _export(two_headed, request.target, batch, reference)
        context.progress("Looking at its statistics", 0.9)
        return Conversion(
            problem,
            own.answers.shape[1],
            own.features.shape[1],
            _activation(model, own.answers),
            difference,
            reference,
            _statistics(keras, model, request),
            keras.__version__,
        )


@dataclass(frozen=True, eq=False)
class PredictRequest:
    """Answer for a batch, shape (pictures, rows, columns, channels), float32, already normalised."""

    path: Path
    batch: np.ndarray


class PredictTask:
    """Answers with Keras itself, where a model cannot be converted; keeps the model it was given last."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._model: Any = None

    def run(self, request: PredictRequest, context: Context) -> Reference:
        """Answers and features; errors as of `ConvertTask`."""
        keras = _keras(Backend.TENSORFLOW)
        if self._path != request.path:
            self._model, self._path = _two_headed(keras, _load(keras, request.path)), request.path
        answers, features = self._model.predict_on_batch(np.asarray(request.batch))
        return Reference(np.asarray(answers), np.asarray(features))


def _keras(backend: Backend) -> Any:
    """Keras, which takes its backend from the environment when it is first imported."""
    os.environ["KERAS_BACKEND"] = backend.value
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    warnings.simplefilter("ignore")
    try:
        import keras
    except ImportError as error:
        raise MissingPackage(
            "Keras models cannot be opened here.",
            why=f"{error}.",
            todo="Install what converts them once: pip install 'slicer-medai[router-keras]'. Models that are "
            "converted already, and those that come with the extension, need none of it.",
        ) from error
    found = tuple(int(part) for part in keras.__version__.split(".")[:3] if part.isdigit())
    if found < LOWEST_KERAS:
        raise MissingPackage(
            f"Keras {keras.__version__} is too old to open other people's models.",
            why="Models can make it run code or read files.",
            todo=f"pip install 'keras>={'.'.join(map(str, LOWEST_KERAS))}'",
        )
    if keras.backend.backend() != backend.value:
        raise JobError(f"Keras computes with {keras.backend.backend()}, not {backend.value}, in this process.")
    return keras


def _load(keras: Any, path: Path) -> Any:
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its layers do
        raise InvalidWeights(
            f"Keras {keras.__version__} cannot open '{path}'.",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}.",
            todo="Save it again with Keras 3 where it was trained: model.save('name.keras').",
        ) from error
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise InvalidWeights(
            f"'{path}' has {len(model.inputs)} inputs and {len(model.outputs)} outputs.",
            why="A model here takes one picture and answers one list of numbers.",
            todo="Save a model with one input and one output.",
        )
    return model


def _two_headed(keras: Any, model: Any) -> Any:
    """The model with a second output: what goes into its last layer with weights."""
    features = _penultimate(model)
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D()(features)
    elif len(features.shape) != 2:
        features = keras.layers.Flatten()(features)
    return keras.Model(model.inputs, [model.outputs[0], features])


def _penultimate(model: Any) -> Any:
    """The tensor that goes into the last layer with weights, which may lie within a model in the model."""
    layer = next((item for item in reversed(model.layers) if item.weights), None)
    if layer is None or not hasattr(layer, "input") or hasattr(layer, "layers"):
        return model.outputs[0]
    tensor = layer.input
    return tensor[0] if isinstance(tensor, list) else tensor


def _numpy(keras: Any, tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor), dtype=np.float32)


def _export(model: Any, target: Path, batch: np.ndarray, reference: Reference) -> tuple[str, float | None]:
    """Write the graph; why it cannot be used (empty: it can), and its largest difference."""
    try:
        model.export(str(target), format="onnx", verbose=False)
    except Exception as error:  # the exporters raise whatever they do
        return f"Writing it failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}", None
    problem = _renamed(target)
    if problem:
        return problem, None
    try:
        found = _executed(target, batch)
    except Exception as error:  # onnxruntime's exceptions have no common base of their own
        return f"ONNX Runtime refuses it: {' '.join(str(error).split())[:200]}", None
    if any(a.shape != b.shape for a, b in zip(found, (reference.answers, reference.features), strict=True)):
        return f"It answers arrays of {[a.shape for a in found]} instead of {reference.answers.shape}", None
    difference = max(
        float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))
        for a, b in zip(found, (reference.answers, reference.features), strict=True)
    )
    if not difference <= TOLERANCE:
        return f"Its answers differ from Keras's by {difference:.1e}", difference
    return "", difference


def _renamed(target: Path) -> str:
    """Give the graph our names; why that cannot be done, empty where it was."""
    import onnx

    graph_model = onnx.load(str(target))
    graph = graph_model.graph
    stored = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in stored]
    if len(inputs) != 1:
        return f"It has {len(inputs)} inputs instead of one: {', '.join(item.name for item in inputs)[:200]}"
    if len(graph.output) != 2:
        return f"It has {len(graph.output)} outputs instead of two"
    if not inputs[0].type.tensor_type.shape.dim[0].dim_param:
        return "It takes only batches of one size"
    for output, name in zip(graph.output, (ANSWERS, FEATURES), strict=True):
        graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
        output.name = name
    onnx.save(graph_model, str(target))
    return ""


def _executed(target: Path, batch: np.ndarray) -> list[np.ndarray]:
    """The graph's answers: all pictures but the last at once, then the last alone, so that both sizes are tried."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run([ANSWERS, FEATURES], {name: part}) for part in (batch[:-1], batch[-1:])]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _activation(model: Any, answers: np.ndarray) -> Activation:
    """What the last layer applied: what it is called, unless the numbers say otherwise."""
    last = model.layers[-1]
    while hasattr(last, "layers"):
        last = last.layers[-1]
    name = getattr(getattr(last, "activation", None), "__name__", type(last).__name__.lower())
    between_0_and_1 = bool((answers >= 0).all() and (answers <= 1).all())
    if name == "softmax":
        return Activation.SOFTMAX
    if name == "sigmoid":
        return Activation.SIGMOID
    if name == "linear" or not between_0_and_1:
        return Activation.NONE
    sums_to_1 = answers.shape[1] > 1 and np.abs(answers.sum(axis=1) - 1).max() < 1e-4
    return Activation.SOFTMAX if sums_to_1 else Activation.SIGMOID


def _statistics(keras: Any, model: Any, request: ConvertRequest) -> LayerStatistics | None:
    """What the first batch normalisation expects, and what raw pictures would give it."""
    layer = next((item for item in model.layers if type(item).__name__ == "BatchNormalization"), None)
    if layer is None:
        return None
    probe = keras.Model(model.inputs, layer.input)

    def seen(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = _numpy(keras, probe(batch, training=False))
        axes = tuple(range(values.ndim - 1))
        return values.mean(axis=axes), values.var(axis=axes)

    return LayerStatistics.measure(
        _numpy(keras, layer.moving_mean), _numpy(keras, layer.moving_variance), request.pictures, request.wanted, seen
    )
