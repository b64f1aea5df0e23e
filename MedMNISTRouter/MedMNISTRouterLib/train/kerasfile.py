"""The trained network as a Keras file, built in a process of its own, so that no TensorFlow is loaded here."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.atomic import replacing
from MedAILib.jobs.process import python_executable, worker_environment
from MedMNISTRouterLib.train.layout import Layout

logger = logging.getLogger(__name__)

LARGEST_DIFFERENCE = 1e-5
_MODULE = "MedMNISTRouterLib.train.kerasbuild"
_TIMEOUT_S = 300
_LIBRARY = Path(__file__).parents[2]


@dataclass(frozen=True)
class KerasFile:
    """What became of it.

    Attributes
    ----------
    path : Path, optional
        None: it was not written.
    parity : float, optional
        Largest difference of a probability from the trained network's.
    remark : str
        Why it was not written; else with which Keras it was.
    """

    path: Path | None
    parity: float | None
    remark: str


def write_keras_file(
    path: Path,
    layout: Layout,
    weights: Mapping[str, np.ndarray],
    activation: str,
    images: np.ndarray,
    expected: np.ndarray,
    threads: int = 1,
) -> KerasFile:
    """Build the file and compare its answers; where that cannot be done, say why and go on.

    Parameters
    ----------
    path : Path
    layout : Layout
    weights : mapping of str to ndarray
        As of `MedMNISTRouterLib.train.folded.folded`.
    activation : str
        ``softmax`` or ``sigmoid``: the Keras file answers probabilities, without the temperature.
    images : ndarray, shape (n, rows, columns, channels), float32
        Normalised.
    expected : ndarray, shape (n, outputs)
        Probabilities of the trained network.
    threads : int

    Raises
    ------
    OutputError
    """
    if importlib.util.find_spec("keras") is None:
        return KerasFile(None, None, "No Keras file was written: the package keras is not installed.")
    with tempfile.TemporaryDirectory(prefix="medai-keras-") as name:
        folder = Path(name)
        asked = {"layout": layout.parameters(), "activation": activation}
        (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        arrays: dict[str, Any] = {**weights, "images": images, "expected": expected}
        np.savez(folder / "arrays.npz", **arrays)
        trouble = _run(folder, threads)
        if trouble:
            return KerasFile(None, None, f"No Keras file was written: {trouble}")
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        if not report["parity"] <= LARGEST_DIFFERENCE:
            return KerasFile(None, None, f"No Keras file was written: its answers differ by {report['parity']:.2g}.")
        with replacing(path) as partial:
            shutil.copyfile(folder / "model.keras", partial)
        return KerasFile(path, report["parity"], f"Written by Keras {report['keras']} on {report['backend']}.")


def _run(folder: Path, threads: int) -> str:
    """Start the process and wait; why it failed, empty where it did not."""
    environment = worker_environment(os.environ, threads)
    environment["PYTHONPATH"] = os.pathsep.join([str(_LIBRARY), environment["PYTHONPATH"]])
    environment["KERAS_BACKEND"] = "tensorflow" if importlib.util.find_spec("tensorflow") else "torch"
    environment |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    command = [str(python_executable()), "-m", _MODULE, str(folder)]
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}."
    if ended.returncode:
        logger.info("kerasbuild ended with %d:\n%s", ended.returncode, ended.stderr)
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        return f"{lines[-1] if lines else f'exit status {ended.returncode}'}."
    return ""
