"""What is loaded when: describing the router loads nothing heavy, and graphs are run without TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from router_models import write_model

HEAVY = ("tensorflow", "keras", "torch", "onnxruntime", "onnx", "SimpleITK", "scipy", "vtk", "h5py")


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **environment},
    )


@pytest.mark.parametrize(
    "code",
    [
        "import MedMNISTRouterLib.feature, MedMNISTRouterLib.request, MedMNISTRouterLib.task",
        "import MedMNISTRouterLib.engine, MedMNISTRouterLib.kerasworker",
        "from MedMNISTRouterLib.slots import Slots; Slots().all()",
        "from MedAILib.cli.main import main\ntry: main(['route', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    done = run(f"{code}\nimport sys\nheavy = [n for n in {HEAVY} if n in sys.modules]\nsys.exit(', '.join(heavy) or 0)")
    assert done.returncode == 0, done.stderr


NO_FRAMEWORK = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('tensorflow', 'keras', 'torch', 'onnx', 'tf2onnx', 'h5py'):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Gone())
from pathlib import Path
import numpy as np
from MedMNISTRouterLib.engine import RouteEngine
from MedMNISTRouterLib.request import ModelChoice, PlainImage, RouteRequest
pixels = np.add.outer(np.arange(40), np.arange(40)).astype(np.uint8)
request = RouteRequest(
    (PlainImage("x", np.stack([pixels, pixels[::-1], pixels[:, ::-1]], axis=2)),),
    expert="pathmnist", without_gate=True, models_folder=Path(sys.argv[1]),
    models=(ModelChoice("pathmnist", Path(sys.argv[1]) / "m"),),
)
answer = RouteEngine().route(request).answers[0]
sys.exit(0 if answer.success and len(answer.all_class_probs) == 9 else answer.error or answer.reason or "no answer")
"""


def test_a_machine_without_tensorflow_routes_with_onnx_models(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    write_model(tmp_path / "m", "pathmnist")
    done = run(NO_FRAMEWORK, str(tmp_path))
    assert done.returncode == 0, done.stderr
