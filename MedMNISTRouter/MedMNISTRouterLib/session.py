"""An ONNX model, loaded: pictures in, answers and features out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.errors import InvalidWeights, MissingPackage
from MedMNISTRouterLib.request import Engine

MEMORY_PER_FILE_BYTE = 1.15
"""ResNet50 at 64 x 64, ONNX Runtime 1.31: 94 MB of file take 104 MB, and 5 to 50 MB while a batch runs."""
MEMORY_OF_A_SESSION = 8 << 20


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model answers for a batch.

    Attributes
    ----------
    answers : ndarray, shape (images, numbers), float32
        As the graph gives them: temperature and activation are still to come.
    features : ndarray, shape (images, features), float32, optional
        None where the model does not give them.
    """

    answers: np.ndarray
    features: np.ndarray | None = None


class OnnxModel:
    """A graph that ONNX Runtime executes on the processor; `run` may be called from several threads.

    Parameters
    ----------
    path : Path
    threads : int

    Raises
    ------
    MissingPackage
        onnxruntime is not installed.
    InvalidWeights
        The graph cannot be executed, or has not the inputs and outputs that `MedMNISTRouterLib.modelfolder` asks for.
    """

    engine = Engine.ONNX

    def __init__(self, path: Path, threads: int = 1) -> None:
        ort = _onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise _unusable(path, f"ONNX Runtime refuses it: {_first_line(error)}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1:
            names = ", ".join(f"'{item.name}'" for item in inputs)
            raise _unusable(path, f"it wants {len(inputs)} inputs ({names}); one picture is given")
        if len(outputs) not in (1, 2):
            raise _unusable(path, f"it has {len(outputs)} outputs instead of two (answers and features)")
        self._input, shape = inputs[0].name, inputs[0].shape
        if len(shape) != 4 or isinstance(shape[0], int) or inputs[0].type != "tensor(float)":
            raise _unusable(path, f"its input is {inputs[0].type} {shape} instead of float with an open batch")
        self.channels_first = shape[1] in (1, 3) and shape[3] not in (1, 3)
        self.nbytes = int(path.stat().st_size * MEMORY_PER_FILE_BYTE) + MEMORY_OF_A_SESSION
        self._run_options = ort.RunOptions()
        self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._run_options.log_severity_level = 3

    def run(self, batch: np.ndarray) -> Outputs:
        """Execute the graph.

        Parameters
        ----------
        batch : ndarray, shape (images, rows, columns, channels), float32

        Raises
        ------
        InvalidWeights
            The graph does not take such pictures.
        """
        if self.channels_first:
            batch = batch.transpose(0, 3, 1, 2)
        # A large batch leaves a large arena behind, which then is given back.
        options = self._run_options if len(batch) > 1 else None
        values = np.ascontiguousarray(batch, np.float32)
        try:
            found = self._session.run(None, {self._input: values}, options)
        except Exception as error:  # as above
            raise InvalidWeights(
                "A model could not be run.",
                why=f"ONNX Runtime answers: {_first_line(error)}.",
                todo="Get the model again, or mend 'inputs' in its model_config.json.",
            ) from error
        return Outputs(found[0], found[1] if len(found) > 1 else None)

    def close(self) -> None:
        self._session = None


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage(
            "Models cannot be run.",
            why="The package onnxruntime is not installed.",
            todo="pip install 'slicer-medai[router]'",
        ) from error
    return onnxruntime


def _unusable(path: Path, why: str) -> InvalidWeights:
    return InvalidWeights(f"'{path}' cannot be used.", why=f"{why[0].upper()}{why[1:]}.", todo="Get the model again.")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300].rstrip(".")
