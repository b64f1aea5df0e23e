"""The hub's multi-task panel: a small real network, the real worker, nodes in the scene."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.medailib.model_files import SMALL, write_json
from unit.medailib.weight_servers import sha256_of

from MedAILib.errors import InputError
from MedAILib.models.config import CONFIG_FILE
from MedAILib.mrml.nodes import run_id
from MedAILib.mrml.segmentations import segment_ids, segment_info
from MedAILib.mrml.tables import read_table
from MedAILib.mrml.volumes import write_volume
from MedAILib.volume import Volume

COUNT = 9
SAVE_MODELS = """
import sys
from importlib.util import find_spec
from pathlib import Path
from unit.medailib.multitask_models import config_for, saved, small_model
model, folder = small_model(), Path(sys.argv[1])
saved(folder / "stated", model, config_for(model))
saved(folder / "assumed", model, config_for(model, threshold=None, assumed=("$.heads[1].threshold",)))
"""

pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("torch", "safetensors"))), reason="the multi-task network needs torch and safetensors"
)


@pytest.fixture(scope="module", autouse=True)
def one_worker(running_host: Any) -> Iterator[None]:
    """The tests share a worker that has torch loaded, as a user's runs do."""
    yield
    import slicer

    slicer.modules.MedAIExtensionInstance.runner.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Saved by another process: this one, like Slicer's, is to stay without torch."""
    folder = tmp_path_factory.mktemp("a model ü")
    path = os.pathsep.join(str(repository / name) for name in ("Testing", "MedAIExtension"))
    command = [sys.executable, "-c", SAVE_MODELS, str(folder)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True, timeout=120)
    return folder


@pytest.fixture(scope="session")
def checkpoint(models: Path) -> Path:
    return models / "stated" / "model.safetensors"


@pytest.fixture
def home(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose own catalogue knows the network; it is not installed."""
    home = tmp_path / "store"
    (home / "catalogues").mkdir(parents=True)
    content = checkpoint.read_bytes()
    description = json.loads((checkpoint.parent / CONFIG_FILE).read_text(encoding="utf-8"))
    entry = {
        "id": "zz-tumour",
        "title": "A small trial network",
        "feature": "multitask",
        "task": "segmentation and classification",
        "summary": "Weights of no use.",
        "licence": {"spdx": "MIT", "name": "MIT License"},
        "architecture": {"name": "multitask_unet", "parameters": SMALL},
        "inputs": description["inputs"],
        "heads": description["heads"],
        "files": [{"path": checkpoint.name, "size": len(content), "sha256": sha256_of(content)}],
    }
    write_json(home / "catalogues" / "trial.json", {"schema": 1, "models": [entry]})
    monkeypatch.setenv("MEDAI_HOME", str(home))
    return home


@pytest.fixture
def hub(home: Path, open_module: Callable[[str], Any]) -> Any:
    hub = open_module("MedAIExtension")
    hub.ui.multitaskSection.collapsed = False
    return hub


@pytest.fixture
def volume(hub: Any, host: Any) -> Any:
    """Blobs that grow from slice to slice."""
    rng = np.random.default_rng(7)
    k, j, i = np.mgrid[:COUNT, :24, :20]
    blob = 400 * np.exp(-((i - 10) ** 2 + (j - 9) ** 2) / (6.0 + 4 * k))
    matrix = np.diag([-0.8, -1.2, 3.0, 1.0])
    matrix[:3, 3] = (12.0, -7.0, 30.0)
    node = write_volume(host.scene, Volume((blob + 60 * rng.random(blob.shape)).astype(np.int16), matrix, "FLAIR"))
    hub.multitaskPanel.volumeSelector.setCurrentNode(node)
    return node


def _run(host: Any, hub: Any) -> str:
    panel = hub.multitaskPanel.runPanel
    panel.button.click()
    host.wait_until(lambda: not panel.is_running, 60)
    return panel.message.text


def test_what_is_missing_is_said(hub: Any, host: Any) -> None:
    button = hub.multitaskPanel.runPanel.button
    assert not button.enabled
    assert "Choose the volume." in button.toolTip and "File… takes a checkpoint" in button.toolTip


def test_a_checkpoint_file_and_a_volume_become_a_segmentation_and_a_table(
    host: Any, hub: Any, volume: Any, checkpoint: Path
) -> None:
    hub.multitaskPanel.choose_checkpoint(checkpoint)
    with host.heartbeat() as beat:
        text = _run(host, hub)
    assert beat.longest_pause_s < 0.5 and "'FLAIR tumour'" in text
    nodes = hub.multitaskPanel.nodes
    (one,) = segment_ids(nodes.segmentation)
    info = segment_info(nodes.segmentation, one)
    assert info.name == "Tumor" and "SCT^4147007^Mass" in info.tags["TerminologyEntry"]
    assert len(read_table(nodes.table)[1]) == COUNT
    assert run_id(nodes.segmentation) == run_id(nodes.table) != ""
    assert run_id(nodes.table) in hub.multitaskPanel.runPanel.details.text


def test_the_result_is_told_in_a_few_lines_and_leads_to_its_slices(
    host: Any, hub: Any, volume: Any, checkpoint: Path
) -> None:
    panel = hub.multitaskPanel
    panel.choose_checkpoint(checkpoint)
    _run(host, hub)
    assert f"of {COUNT} slices along k" in panel.resultLabel.text and "mm³" in panel.resultLabel.text
    assert "Not calibrated" not in panel.resultLabel.text
    result = panel.nodes.result
    assert [button.text.split(":")[0] for button in panel.sliceButtons] == [
        f"Slice {n}" for n in result.most_suspicious
    ]
    red = host.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    red.SetLayoutName("Red")
    red.SetOrientation("Axial")
    for button, index in zip(panel.sliceButtons, result.most_suspicious, strict=True):
        button.click()
        assert red.GetSliceToRAS().GetElement(2, 3) == pytest.approx(30.0 + 3.0 * index)


def test_a_model_that_states_no_threshold_is_not_called_calibrated(
    host: Any, hub: Any, volume: Any, models: Path
) -> None:
    hub.multitaskPanel.choose_checkpoint(models / "assumed" / "model.safetensors")
    text = _run(host, hub)
    assert "Not calibrated" in hub.multitaskPanel.resultLabel.text and "assumed: heads[1].threshold" in text


def test_an_installed_model_is_offered_with_its_licence(host: Any, hub: Any, volume: Any, checkpoint: Path) -> None:
    panel = hub.multitaskPanel
    assert panel.choice is None
    hub.logic.importModel(checkpoint)
    host.exit(hub)
    host.enter(hub)
    assert panel.choice.title == "A small trial network"
    assert panel.runPanel.statusLabel.text.startswith("A small trial network · MIT · CPU")
    assert "are in the scene" in _run(host, hub)
    panel.choose_checkpoint(checkpoint)
    panel.show_models()
    assert panel.choice.checkpoint == checkpoint and panel.modelBox.count == 2


def test_options_reach_the_task(host: Any, hub: Any, volume: Any, checkpoint: Path) -> None:
    panel = hub.multitaskPanel
    panel.choose_checkpoint(checkpoint)
    panel.everySliceBox.checked = True
    panel.smallestBox.value = 1e6
    _run(host, hub)
    assert all(finding.segmented for finding in panel.nodes.result.slices)
    assert sum(panel.nodes.result.volume_mm3.values()) == 0


def test_weights_of_another_kind_are_refused_in_the_panel(host: Any, hub: Any, volume: Any, tmp_path: Path) -> None:
    page = tmp_path / "model.pth"
    page.write_text("<!DOCTYPE html><html><body>Please sign in</body></html>")
    hub.multitaskPanel.choose_checkpoint(page)
    before = host.scene.GetNumberOfNodes()
    assert "model.pth" in _run(host, hub) and hub.multitaskPanel.nodes is None
    assert host.scene.GetNumberOfNodes() == before and host.messages.shown == []


def test_a_run_can_be_cancelled_and_started_again(host: Any, hub: Any, volume: Any, checkpoint: Path) -> None:
    panel = hub.multitaskPanel
    panel.choose_checkpoint(checkpoint)
    panel.runPanel.button.click()
    panel.runPanel.button.click()
    assert not panel.runPanel.is_running and "cancelled" in panel.runPanel.message.text and panel.nodes is None
    assert "are in the scene" in _run(host, hub)


def test_the_panel_survives_the_scenes_end(host: Any, hub: Any, volume: Any, checkpoint: Path) -> None:
    panel = hub.multitaskPanel
    panel.choose_checkpoint(checkpoint)
    _run(host, hub)
    panel.runPanel.button.click()
    host.scene.Clear(False)
    assert not panel.runPanel.is_running and panel.nodes is None and panel.sliceButtons == []
    assert panel.resultLabel.isHidden() and "Choose the volume." in panel.runPanel.button.toolTip
    assert panel.choice.checkpoint == checkpoint


def test_the_console_predicts_by_path_and_by_id(hub: Any, volume: Any, checkpoint: Path) -> None:
    by_path = hub.logic.predictTumour(volume, str(checkpoint))
    hub.logic.importModel(checkpoint)
    by_id = hub.logic.predictTumour(volume, "zz-tumour")
    assert by_path.result.slices == by_id.result.slices and by_id.segmentation is not by_path.segmentation
    with pytest.raises(InputError):
        hub.logic.predictTumour(volume, checkpoint.parent / "no such file.pth")


def test_a_checkpoint_is_chosen_by_its_window(
    hub: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qt

    mine = Path(shutil.copytree(checkpoint.parent, tmp_path / "mine")) / checkpoint.name
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", staticmethod(lambda *_arguments: (str(mine), "")))
    hub.multitaskPanel.fileButton.click()
    assert hub.multitaskPanel.choice.checkpoint == mine


def test_a_panel_that_is_opened_loads_no_heavy_package(repository: Path) -> None:
    program = (
        "import sys; from host.qt_host import start_host; host = start_host();"
        "host.open_module('MedAIExtension/MedAIExtension.py');"
        "import MedAILib.mrml.multitask_result;"
        "print(sorted({'torch', 'huggingface_hub', 'requests', 'safetensors', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        env={"PYTHONPATH": "Testing:MedAIExtension", "PATH": "/usr/bin:/bin", "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
