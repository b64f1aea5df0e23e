"""A Keras model that cannot be converted: a worker process with TensorFlow answers."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from MedAILib.jobs.worker_runner import WorkerRunner
from MedMNISTRouterLib.kerasworker import PREDICT_TASK, PredictRequest
from MedMNISTRouterLib.request import Engine
from MedMNISTRouterLib.session import Outputs

MEMORY_OF_TENSORFLOW = 500 << 20
MEMORY_PER_FILE_BYTE = 2


class KerasModel:
    """As `MedMNISTRouterLib.session.OnnxModel`; calls from several threads wait for each other.

    Closing it ends its process: TensorFlow gives memory back in no other way.
    """

    engine = Engine.TENSORFLOW

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._path = path.absolute()
        self._runner = WorkerRunner(threads=threads)
        self._running = threading.Lock()
        self.nbytes = path.stat().st_size * MEMORY_PER_FILE_BYTE + MEMORY_OF_TENSORFLOW

    def run(self, batch: np.ndarray) -> Outputs:
        """Answers for a batch, shape (images, rows, columns, channels), float32; raises what the worker met."""
        with self._running:
            found = self._runner.run(PREDICT_TASK, PredictRequest(self._path, batch)).result
        return Outputs(found.answers, found.features)

    def close(self) -> None:
        with self._running:
            self._runner.close()
