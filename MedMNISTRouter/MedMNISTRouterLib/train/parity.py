"""Whether a written graph answers as the network that it was written from."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from MedAILib.errors import JobError, MissingPackage
from MedAILib.jobs.task import Context
from MedMNISTRouterLib.session import OnnxModel
from MedMNISTRouterLib.train.layout import MEAN, STD

PARITY_IMAGES = 16
LARGEST_DIFFERENCE = 1e-4
"""Of an answer before the activation, which may be large, relative to 1 plus the largest of them."""


def graph_difference(
    graph: bytes, images: np.ndarray, expected: tuple[np.ndarray, np.ndarray], context: Context
) -> float | None:
    """Largest difference of answers and features, relative to 1 plus the largest of them; None where it cannot be run.

    Parameters
    ----------
    graph : bytes
    images : ndarray, shape (n, rows, columns, channels), uint8
    expected : tuple of ndarray
        The network's answers and features.
    context : Context

    Raises
    ------
    JobError
        The graph is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="medai-graph-") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(graph)
        try:
            model = OnnxModel(path, context.threads)
        except MissingPackage:
            context.warn("The written graph was not compared with the network: onnxruntime is not installed.")
            return None
        found = model.run(((images.astype(np.float32) / 255.0) - MEAN) / STD)
        model.close()
    assert found.features is not None
    pairs = zip((found.answers, found.features), expected, strict=True)
    difference = max(float(np.abs(a - b).max() / (1 + np.abs(b).max())) for a, b in pairs)
    if not difference <= LARGEST_DIFFERENCE:
        raise JobError(
            "The written graph does not answer as the trained network does.",
            why=f"Its answers differ by {difference:.2g}.",
            todo="Train again on the processor, and report this with the run's settings.",
        )
    return difference
