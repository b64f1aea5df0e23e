"""Twelve experts as large as a ResNet50 under a budget of 400 MB: what the process really holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from router_models import linear_graph, weights_for

from MedMNISTRouterLib.memory import LARGEST_DEFAULT_BUDGET, default_budget, resident_bytes
from MedMNISTRouterLib.modelfolder import GRAPH_FILE

BUDGET_MB = 400
EXPERTS = 12
RESNET50_BYTES = 94_000_000

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from MedMNISTRouterLib.cache import ModelCache
from MedMNISTRouterLib.memory import resident_bytes
from MedMNISTRouterLib.session import MEMORY_OF_A_SESSION, MEMORY_PER_FILE_BYTE, OnnxModel

folder, budget = Path(sys.argv[1]), int(sys.argv[2])
files = sorted(folder.glob("*/model.onnx"))
batch = np.zeros((4, 32, 32, 3), np.float32)
OnnxModel(folder / "warm.onnx").run(batch)  # the library itself is no model's memory
start = most = resident_bytes()
cache = ModelCache(budget)
for file in [*files, *files[:4]]:
    expected = int(file.stat().st_size * MEMORY_PER_FILE_BYTE) + MEMORY_OF_A_SESSION
    with cache.using(file.parent.name, expected, lambda: OnnxModel(file)) as model:
        model.run(batch)
        most = max(most, resident_bytes())
stats = cache.stats()
cache.clear()
print(json.dumps({
    "start": start, "most": most, "cleared": resident_bytes(),
    "loaded": len(stats.loaded), "used": stats.bytes_used, "misses": stats.misses, "evictions": stats.evictions,
}))
"""


@pytest.fixture(scope="module")
def twelve_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One graph with random weights under twelve names: what differs is not what takes memory."""
    folder = tmp_path_factory.mktemp("experts")
    edge = int((RESNET50_BYTES / 4) ** 0.5)
    ballast = np.random.default_rng(0).normal(0, 1, (edge, edge)).astype(np.float32)
    (folder / "warm.onnx").write_bytes(linear_graph(weights_for("pathmnist")))
    (folder / "expert").write_bytes(linear_graph(weights_for("pathmnist"), ballast=ballast))
    for number in range(EXPERTS):
        (folder / f"{number:02}").mkdir()
        os.link(folder / "expert", folder / f"{number:02}" / GRAPH_FILE)
    return folder


def test_memory_stays_within_the_budget_and_comes_back_after_clear(twelve_experts: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    if resident_bytes() is None:
        pytest.skip("this system does not tell how much memory a process holds")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(twelve_experts), str(BUDGET_MB << 20)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    held_mb = {name: (found[name] - found["start"]) / 2**20 for name in ("most", "cleared")}

    assert found["loaded"] == 3
    assert found["used"] <= BUDGET_MB << 20
    assert found["misses"] == EXPERTS + 4
    assert held_mb["most"] < BUDGET_MB
    assert held_mb["cleared"] < 100


def test_the_default_budget_is_a_tenth_of_the_machine_and_a_gigabyte_at_most() -> None:
    assert 0 < default_budget() <= LARGEST_DEFAULT_BUDGET
