"""The chest-CT panel with models: small ones made here, run in the worker; and what is said of them before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def made() -> Any:
    """What makes small models; imported here, as other tests look whether panels load torch."""
    pytest.importorskip("torch", reason="torch is not installed: no model can run")
    pytest.importorskip("safetensors", reason="safetensors is not installed: no model can be read")
    sys.path.append(str(Path(__file__).resolve().parents[1] / "unit" / "ct"))
    import ct_models

    return ct_models


@pytest.fixture(scope="module")
def weights(made: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An encoder, a classifier that finds a nodule and no hernia, and a network that draws nothing."""
    folder = tmp_path_factory.mktemp("Modelle ü")
    encoder = made.an_encoder("ct_conv", folder / "encoder.safetensors")
    findings = ("lung_nodule", "hiatal_hernia")
    classifier = made.a_classifier(
        folder / "classifier.safetensors", findings, encoder=encoder, says=(4.0, -4.0), vision_dim=16
    )
    localizer = made.a_localizer(folder / "localizer.safetensors", ("lung_nodule",))
    return {"encoder": encoder, "classifier": classifier, "localizer": localizer}


@pytest.fixture
def module(open_module: Callable[[str], Any]) -> Iterator[Any]:
    import slicer

    yield open_module("CTReport")
    slicer.modules.MedAIExtensionInstance.runner.close()


def run(host: Any, module: Any) -> str:
    host.process_events()
    assert module.runPanel.button.enabled, module.runPanel.button.toolTip
    module.runPanel.button.click()
    host.wait_until(lambda: not module.runPanel.is_running, 180)
    host.process_events()
    return module.runPanel.message.text


def choose(host: Any, module: Any, **names: Path) -> None:
    for role, path in names.items():
        setattr(module._parameterNode, role, str(path))
    host.process_events()


def test_models_answer_beside_the_rules_and_are_named_in_the_scene(
    host: Any, module: Any, weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEDAI_HOME", str(tmp_path / "home"))
    module.ui.sampleButton.click()
    choose(host, module, **weights)
    assert module.ui.modelsSection.text.startswith("Models: encoder.safetensors, classifier.safetensors")
    assert "encoder.safetensors" in module.runPanel.statusLabel.text
    said = run(host, module)
    assert "is in the scene" in said, said
    result = module.report.result()
    nodule, hernia = result.row("lung_nodule"), result.row("hiatal_hernia")
    assert nodule.decision.value == "present" and nodule.probability > 0.9
    assert hernia.decision.value == "absent"
    tips = [module.findingsPanel.table.item(row, 0).toolTip() for row in range(18)]
    assert any(tip.startswith("Lung nodule: present (") for tip in tips[:2])
    told = module.report.text.GetAttribute("MedAI.CT.weights")
    assert "sha256:" in told and "small-conv" in told and "small-classifier" in told
    assert "lung_nodule=" in module.report.text.GetAttribute("MedAI.CT.thresholds")
    module.findingsPanel.table.cellClicked.emit(
        next(place for place, tip in enumerate(tips) if tip.startswith("Lung nodule")), 0
    )
    assert "small-classifier" in module.reportPanel.evidenceView.toPlainText()


def test_a_classifier_of_another_encoder_is_refused_in_words(
    host: Any, module: Any, made: Any, weights: dict[str, Path], tmp_path: Path
) -> None:
    other = made.an_encoder("primus", tmp_path / "other.safetensors")
    module.ui.sampleButton.click()
    choose(host, module, encoder=other, classifier=weights["classifier"])
    said = run(host, module)
    assert "is in the scene" not in said and said
    assert module.report is None


def test_a_language_model_writes_and_what_it_needs_is_said_before(
    host: Any, module: Any, made: Any, tmp_path: Path
) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed: no language model can run")
    pytest.importorskip("peft", reason="peft is not installed: no language model can run")
    from tiny_language import describe, save_base

    from CTReportLib.choices import Role

    folder = tmp_path / "Sprachmodell ü"
    save_base(folder / "base")
    describe(folder)
    module.ui.sampleButton.click()
    choose(host, module, language=folder)
    assert module.ui.modelsSection.text == "Models: none (measured findings)"  # it does not write yet
    module.ui.engineBox.setCurrentIndex(1)
    host.process_events()
    assert module.ui.modelsSection.text == "Models: Sprachmodell ü"
    assert "needs about" in module.ui.engineBadge.text and "working space" in module.ui.engineBadge.toolTip
    assert module.modelRows.badges[Role.LANGUAGE].text == module.ui.engineBadge.text
    host.process_events()
    module.runPanel.button.click()
    stages: set[str] = set()

    def ended() -> bool:
        stages.add(module.runPanel.stageLabel.text)
        return not module.runPanel.is_running

    host.wait_until(ended, 240)
    assert "is in the scene" in module.runPanel.message.text, module.runPanel.message.text
    assert any("token" in stage for stage in stages), stages
    # its weights are random: whatever it writes is struck, and what was measured is said nevertheless
    assert "Pleural effusion" in module.report.text.GetText()
    assert module.report.text.GetAttribute("MedAI.CT.prompt").count("FINDING")
    assert module.report.text.GetAttribute("MedAI.CT.engine") == "llm"


def test_models_may_run_on_a_gpu_in_a_worker_of_their_own(host: Any, module: Any) -> None:
    import slicer

    from CTReportLib.devices import DeviceRunners
    from MedAILib.jobs.worker_runner import WorkerRunner

    shared = slicer.modules.MedAIExtensionInstance.runner
    devices = module.logic.devices
    assert devices.device == "cpu" and devices.runner(models=True) is shared
    assert module.ui.deviceBox.itemText(0).startswith("CPU: ")
    devices.choose("cuda:0")
    gpu = devices.runner(models=True)
    assert isinstance(gpu, WorkerRunner) and gpu is not shared and devices.runner(models=True) is gpu
    assert devices.runner(models=False) is shared
    assert DeviceRunners(lambda: shared, slicer.app.settings()).device == "cuda:0"
    module.ui.deviceBox.currentIndexChanged.emit(0)
    assert devices.device == "cpu" and devices.runner(models=True) is shared
    devices.choose("cuda:0")
    devices.runner(models=True)
    devices.close()
    assert devices.runner(models=True) is not gpu
    devices.choose("cpu")
