"""The chest-CT module's panel, opened from its own file: runs, evidence, edits, files."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def module(open_module: Callable[[str], Any]) -> Iterator[Any]:
    import slicer

    yield open_module("CTReport")
    slicer.modules.MedAIExtensionInstance.runner.close()


@pytest.fixture
def view(host: Any, module: Any) -> Any:
    """A slice view, to see where the module jumps."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    node.SetLayoutName("Red")
    node.SetOrientation("Axial")
    return node


@pytest.fixture
def reported(host: Any, module: Any) -> Any:
    """The module with the sample reported, without the worker: what runs there is tested once."""
    module.ui.sampleButton.click()
    module.logic.report(module._parameterNode.volume)
    module.showReport()
    host.process_events()
    return module


def run(host: Any, module: Any) -> str:
    """Press Report, wait for the end, and answer what the panel says."""
    host.process_events()
    assert module.runPanel.button.enabled, module.runPanel.button.toolTip
    module.runPanel.button.click()
    host.wait_until(lambda: not module.runPanel.is_running, 90)
    host.process_events()
    return module.runPanel.message.text


def sentence_row(module: Any, words: str) -> int:
    """The place of the first sentence that holds some words."""
    items = module.reportPanel._items
    return next(row for row, one in enumerate(items) if one is not None and words in one.text)


def set_text(report: Any, text: str) -> None:
    """What Slicer's own Texts module does when the user saves."""
    report.text.SetText(text, report.text.GetEncoding())


# Runs


def test_the_module_opens_with_its_name_and_asks_for_what_is_missing(module: Any) -> None:
    import slicer

    known = slicer.modules.ctreport
    assert (known.title, known.categories) == ("CT Report (MedAI)", ["Segmentation"])
    assert not module.runPanel.button.enabled and "Choose the CT" in module.runPanel.button.toolTip
    assert module.findingsPanel.summaryLabel.text == "Nothing is reported yet."
    assert module.ui.reportSection.isHidden() and module.ui.exportSection.isHidden()
    assert "research use only" in module.runPanel.researchLabel.text.lower()
    assert module.ui.modelsSection.text == "Models: none (measured findings)"
    assert module.ui.engineBadge.text == "No model is needed."


def test_the_sample_is_reported_in_the_worker_and_the_window_stays_alive(host: Any, module: Any) -> None:
    module.ui.sampleButton.click()
    with host.heartbeat() as beat:
        said = run(host, module)
    assert "'Synthetic chest report' is in the scene: 4 nodes in one folder." in said
    assert beat.longest_pause_s < 1.0
    assert module.findingsPanel.summaryLabel.text == "1 present, 4 absent, 13 not judged"
    assert module.findingsPanel.table.rowCount == 18
    assert module.findingsPanel.table.item(0, 0).toolTip().startswith("Pleural effusion: present (")
    assert "line: threshold" in module.findingsPanel.legendLabel.text
    assert "Research use only" in module.reportPanel.useLabel.text
    titles = [module.reportPanel.list.item(0).text(), module.reportPanel._items[0]]
    assert titles == ["Technique", None]
    assert not module.ui.exportSection.isHidden() and module.reportPanel.struckBox.isHidden()


def test_the_same_ct_is_reported_into_the_same_nodes_and_the_first_report_can_be_had_back(
    host: Any, reported: Any
) -> None:
    import slicer

    module, count = reported, slicer.mrmlScene.GetNumberOfNodes()
    volume = module._parameterNode.volume
    first = module.report.text.GetText()
    assert not module.reportPanel.restoreButton.enabled
    array = slicer.util.arrayFromVolume(volume)
    array[(array > -20) & (array < 30)] = 45  # the fluid is gone
    module.logic.report(volume)
    module.showReport()
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    assert module.findingsPanel.summaryLabel.text.startswith("0 present")
    module.reportPanel.restoreButton.click()
    assert module.report.text.GetText() == first
    assert module.findingsPanel.summaryLabel.text.startswith("1 present")
    assert not module.reportPanel.restoreButton.enabled


def test_only_findings_are_reported_where_that_is_asked_for(host: Any, module: Any) -> None:
    module.ui.sampleButton.click()
    module.ui.findingsOnlyBox.setChecked(True)
    run(host, module)
    assert module.findingsPanel.table.rowCount == 18
    assert "no report text" in module.reportPanel.stateLabel.text and module.reportPanel.list.isHidden()


def test_what_is_no_chest_ct_is_said_in_the_panel(host: Any, module: Any) -> None:
    import slicer

    from MedAILib.mrml.volumes import write_volume
    from MedAILib.volume import Volume

    flat = write_volume(slicer.mrmlScene, Volume(np.zeros((1, 40, 40), np.int16), np.eye(4), "Picture"))
    module.ui.volumeSelector.setCurrentNode(flat)
    before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTextNode")
    said = run(host, module)
    assert said and "is in the scene" not in said
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTextNode") == before
    assert module.ui.reportSection.isHidden()


def test_a_cancelled_run_says_so_and_leaves_nothing(host: Any, module: Any) -> None:
    module.ui.sampleButton.click()
    host.process_events()
    module.runPanel.button.click()
    assert module.runPanel.is_running
    module.runPanel.button.click()
    assert not module.runPanel.is_running
    assert "cancelled" in module.runPanel.message.text.lower()
    assert module.report is None and module.ui.reportSection.isHidden()


# Evidence


def test_a_sentence_shows_its_evidence_and_its_place(reported: Any, view: Any) -> None:
    module = reported
    module.reportPanel.list.setCurrentRow(sentence_row(module, "Pleural effusion: present"))
    evidence = module.reportPanel.evidenceView.toPlainText()
    assert "Pleural effusion: present" in evidence and "Rule:" in evidence and "Limits:" in evidence
    assert "185 ml" in evidence and "measured by rule, not diagnosed" in evidence
    assert view.GetSliceOffset() < 0.0  # the fluid lies low
    display = module.report.segmentation.GetDisplayNode()
    assert display.GetSegmentOpacity2DOutline("left_lung") < 0.5
    assert module.findingsPanel.table.currentRow() == 0
    module.reportPanel.list.setCurrentRow(sentence_row(module, "CT of the chest"))
    assert "needs no evidence" in module.reportPanel.evidenceView.toPlainText()
    assert display.GetSegmentOpacity2DOutline("left_lung") == 1.0


def test_a_finding_shows_what_it_rests_on_and_the_sentence_about_it(reported: Any, view: Any) -> None:
    module = reported
    module.findingsPanel.table.cellClicked.emit(0, 0)
    assert "Pleural effusion: present" in module.reportPanel.evidenceView.toPlainText()
    assert module.reportPanel.current is not None and "Pleural effusion" in module.reportPanel.current.text
    assert view.GetSliceOffset() < 0.0
    module.findingsPanel.table.cellClicked.emit(17, 0)
    assert "not judged" in module.reportPanel.evidenceView.toPlainText()


def test_struck_and_added_sentences_are_marked_and_struck_ones_shown_on_demand(reported: Any) -> None:
    from CTReportLib.guard import guard_generated

    module = reported
    record = module.report.record()
    text = "FINDINGS: There is a pneumothorax. No emphysema.\nIMPRESSION: No emphysema."
    guarded = guard_generated(text, record.result.table)
    module.report.fill(replace(record, result=replace(record.result, sections=guarded.sections, complete=False)))
    module.showReport()
    panel = module.reportPanel
    assert "not complete" in panel.stateLabel.text
    shown = [panel.list.item(row).text() for row in range(panel.list.count)]
    assert any(one.endswith("[added by the guard]") for one in shown)
    assert not any("pneumothorax" in one for one in shown)
    assert panel.struckBox.text == "Show struck sentences (1)" and not panel.struckBox.isHidden()
    panel.struckBox.setChecked(True)
    row = sentence_row(module, "pneumothorax")
    assert panel.list.item(row).text().endswith("[struck]") and panel.list.item(row).font().strikeOut()
    panel.list.setCurrentRow(row)
    assert "Struck by the guard: pneumothorax was not judged" in panel.evidenceView.toPlainText()


def test_probabilities_are_hatched_unless_calibrated_and_say_so(reported: Any) -> None:
    from CTReportLib.request import Basis, Decision

    module = reported
    record = module.report.record()
    told = {
        "lung_nodule": {"probability": 0.81, "calibrated": True, "threshold": 0.5, "decision": Decision.PRESENT},
        "atelectasis": {"probability": 0.2, "calibrated": False, "threshold": 0.4, "decision": Decision.ABSENT},
    }
    table = tuple(
        replace(row, basis=Basis.MODEL, **told[row.finding]) if row.finding in told else row
        for row in record.result.table
    )
    module.report.fill(replace(record, result=replace(record.result, table=table)))
    module.showReport()
    tips = [module.findingsPanel.table.item(row, 0).toolTip() for row in range(18)]
    assert tips[0].startswith("Lung nodule: present (81 %)\nProbability calibrated.")
    assert any(tip.startswith("Atelectasis: absent (20 %)\nProbability not calibrated.") for tip in tips)
    assert "Hatched" in module.findingsPanel.legendLabel.text
    module.findingsPanel.table.cellClicked.emit(0, 0)
    assert "probability 0.81, calibrated, threshold 0.50" in module.reportPanel.evidenceView.toPlainText()


# Edits


def test_an_edit_in_the_panel_keeps_the_evidence_of_the_rest_and_can_be_undone(reported: Any) -> None:
    module, panel = reported, reported.reportPanel
    before = module.report.text.GetText()
    panel.editButton.click()
    assert panel.is_editing and panel.list.isHidden() and panel.editor.toPlainText() == before
    panel.editor.setPlainText(before.replace("TECHNIQUE\n", "TECHNIQUE\n- There is a pneumothorax.\n"))
    panel.keepButton.click()
    assert not panel.is_editing and "pneumothorax" in module.report.text.GetText()
    row = sentence_row(module, "pneumothorax")
    assert panel.list.item(row).text() == "There is a pneumothorax. [edited]"
    panel.list.setCurrentRow(row)
    assert "The guard would object: pneumothorax was not judged" in panel.evidenceView.toPlainText()
    assert panel.stateLabel.text.startswith("Edited: 1 change, by ")
    panel.list.setCurrentRow(sentence_row(module, "Pleural effusion: present"))
    assert "Rule:" in panel.evidenceView.toPlainText()
    panel.restoreButton.click()
    assert module.report.text.GetText() == before and module.report.result().edits == ()


def test_an_edit_that_is_discarded_changes_nothing(reported: Any) -> None:
    panel = reported.reportPanel
    before = reported.report.text.GetText()
    panel.editButton.click()
    panel.editor.setPlainText("")
    panel.discardButton.click()
    assert not panel.is_editing and reported.report.text.GetText() == before
    panel.editButton.click()
    panel.keepButton.click()  # nothing was changed
    assert reported.report.result().edits == () and not panel.restoreButton.enabled


def test_a_text_that_is_being_edited_is_not_lost(host: Any, reported: Any) -> None:
    module, panel = reported, reported.reportPanel
    panel.editButton.click()
    panel.editor.setPlainText("Half a sent")
    assert not module.runPanel.button.enabled and "Keep or discard" in module.runPanel.button.toolTip
    host.exit(module)
    host.enter(module)
    assert panel.is_editing and panel.editor.toPlainText() == "Half a sent"
    panel.discardButton.click()
    assert module.runPanel.button.enabled and not panel.is_editing
    panel.editButton.click()
    module.ui.volumeSelector.setCurrentNode(module.logic.loadSample())  # another CT
    host.process_events()
    assert not panel.is_editing and module.runPanel.button.enabled


def test_an_edit_in_slicers_texts_module_is_noticed(host: Any, reported: Any) -> None:
    module = reported
    text = module.report.text.GetText()
    set_text(module.report, text.replace("TECHNIQUE\n", "TECHNIQUE\n- Breath held.\n"))
    assert module.report.result().edits[0].after == "Breath held."
    assert sentence_row(module, "Breath held.") == 1
    host.exit(module)
    set_text(module.report, text)  # while another module is open
    host.enter(module)
    assert [one.after for one in module.report.result().edits] == ["Breath held.", ""]
    assert module.reportPanel.restoreButton.enabled


def test_a_run_after_an_edit_elsewhere_can_be_undone_to_the_edited_report(reported: Any) -> None:
    module = reported
    module.follow(None)  # nobody watches
    report = module.logic.reportOf(module._parameterNode.volume)
    set_text(report, report.text.GetText().replace("TECHNIQUE\n", "TECHNIQUE\n- Breath held.\n"))
    module.logic.report(module._parameterNode.volume)
    assert "Breath held." not in report.text.GetText()
    assert module.logic.restore(report) and "Breath held." in report.text.GetText()


def test_a_record_that_cannot_be_read_is_said_and_the_text_is_left_alone(reported: Any) -> None:
    module = reported
    text = module.report.text.GetText()
    module.report.record_node.SetText("{}", 0)
    module.showReport()
    assert "cannot be read" in module.runPanel.message.text
    assert module.ui.reportSection.isHidden() and module.report.text.GetText() == text


# Scenes


def test_a_loaded_scene_shows_its_report_without_a_run(host: Any, reported: Any, tmp_path: Path) -> None:
    from host.scene_io import load_scene, save_scene

    module = reported
    module.logic.edit(module.report, module.report.text.GetText() + "- Geprüft, Zoë.\n")
    path = tmp_path / "szene ü.mrb"
    save_scene(host.scene, path)
    host.scene.Clear(False)
    host.process_events()
    assert module.report is None and module.ui.reportSection.isHidden()
    load_scene(host.scene, path)
    host.process_events()
    assert module._parameterNode.volume.GetName() == "Synthetic chest"
    assert module.findingsPanel.summaryLabel.text == "1 present, 4 absent, 13 not judged"
    assert "Edited: 1 change" in module.reportPanel.stateLabel.text
    row = sentence_row(module, "Geprüft, Zoë.")
    module.reportPanel.list.setCurrentRow(row)
    assert "Written by a person" in module.reportPanel.evidenceView.toPlainText()


def test_a_report_that_was_deleted_is_said_at_the_next_click(host: Any, reported: Any, view: Any) -> None:
    import slicer

    module = reported
    slicer.mrmlScene.RemoveNode(module.report.record_node)
    module.reportPanel.list.setCurrentRow(sentence_row(module, "Pleural effusion: present"))
    assert "has left the scene" in module.runPanel.message.text
    slicer.mrmlScene.RemoveNode(module.report.text)
    module.findingsPanel.table.cellClicked.emit(0, 0)
    module.exportPanel.buttons["txt"].click()
    assert "has left the scene" in module.runPanel.message.text
    host.exit(module)
    host.enter(module)
    assert module.report is None and module.ui.reportSection.isHidden()
    module.logic.report(module._parameterNode.volume)
    module.showReport()
    assert not module.ui.reportSection.isHidden()


def test_another_ct_shows_its_own_report_or_none(host: Any, reported: Any) -> None:
    module, first = reported, reported._parameterNode.volume
    other = module.logic.loadSample()
    module.ui.volumeSelector.setCurrentNode(other)
    host.process_events()
    assert module.report is None and module.findingsPanel.summaryLabel.text == "Nothing is reported yet."
    module.ui.volumeSelector.setCurrentNode(first)
    host.process_events()
    assert module.report is not None and not module.ui.reportSection.isHidden()


# Files


def test_the_report_is_written_where_the_window_says(
    reported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qt

    asked: list[tuple[Any, ...]] = []

    def answer(*arguments: Any) -> tuple[str, str]:
        asked.append(arguments)
        return str(tmp_path / "Bericht ü"), ""

    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", answer)
    reported.exportPanel.buttons["html"].click()
    page = (tmp_path / "Bericht ü.html").read_text(encoding="utf-8")
    assert "Research use only" in page and "data:image/png" in page
    assert asked[0][2].endswith("Synthetic_chest_report.html") and "*.html" in asked[0][3]
    assert "Bericht ü.html" in reported.runPanel.message.text
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_arguments: ("", ""))
    reported.exportPanel.buttons["txt"].click()
    assert not list(tmp_path.glob("*.txt"))


def test_dicom_is_written_only_for_a_ct_of_the_dicom_database(
    reported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import slicer

    module, buttons = reported, reported.exportPanel.buttons
    assert set(buttons) == {"txt", "json", "html", "pdf", "docx", "sr", "seg", "nii"}
    assert [kind for kind, button in buttons.items() if not button.enabled] == ["sr", "seg"]
    assert "DICOM database" in buttons["sr"].toolTip
    here = tmp_path / "1.dcm"
    here.write_bytes(b"no DICOM")

    class Database:
        def fileForInstance(self, uid: str) -> str:
            return str(here) if uid == "1.2" else ""

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    module._parameterNode.volume.SetAttribute("DICOM.instanceUIDs", "1.1 1.2")
    module.showReport()
    assert buttons["sr"].enabled and buttons["seg"].enabled
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_arguments: (str(tmp_path / "out.dcm"), ""))
    buttons["sr"].click()
    assert module.runPanel.message.text and not (tmp_path / "out.dcm").exists()


# Models


def test_a_model_that_is_not_installed_is_offered_said_and_led_to(host: Any, module: Any) -> None:
    from CTReportLib.choices import Role

    module.ui.sampleButton.click()
    rows = module.modelRows
    box = rows.boxes[Role.ENCODER]
    titles = [box.itemText(place) for place in range(box.count)]
    assert titles[0] == "none (measured findings)" and "Chest CT encoder (COLIPRI) (not installed)" in titles
    box.setCurrentIndex(titles.index("Chest CT encoder (COLIPRI) (not installed)"))
    host.process_events()
    assert module._parameterNode.encoder == "ct-colipri"
    assert rows.badges[Role.ENCODER].text.startswith("not installed · MIT")
    assert not module.runPanel.button.enabled and "not installed" in module.runPanel.button.toolTip
    opened: list[str] = []
    rows._get_model = opened.append
    rows.getButtons[Role.ENCODER].click()
    assert opened == ["ct-colipri"]
    box.setCurrentIndex(0)
    host.process_events()
    assert module.runPanel.button.enabled and rows.getButtons[Role.ENCODER].isHidden()


def test_a_language_model_must_be_chosen_to_write(host: Any, module: Any) -> None:
    module.ui.sampleButton.click()
    module.ui.engineBox.setCurrentIndex(1)
    host.process_events()
    assert "Choose the language model" in module.runPanel.button.toolTip
    assert module.ui.engineBadge.text == "Choose a language model below."
    assert not module.ui.modelsSection.collapsed


def test_a_model_of_the_users_own_is_taken_from_a_file(
    host: Any, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qt

    from CTReportLib.choices import Role

    module.ui.sampleButton.click()
    weights = tmp_path / "mein Modell.safetensors"
    weights.write_bytes(b"")
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_arguments: (str(weights), ""))
    module.modelRows.fileButtons[Role.CLASSIFIER].click()
    host.process_events()
    assert module._parameterNode.classifier == str(weights)
    assert "mein Modell.safetensors" in module.modelRows.badges[Role.CLASSIFIER].text
    assert module.modelRows.boxes[Role.CLASSIFIER].currentText == "mein Modell.safetensors"
    assert "the encoder that the model" in module.runPanel.button.toolTip
    assert module.ui.modelsSection.text == "Models: mein Modell.safetensors"
    weights.unlink()
    module.onChoiceChanged()
    assert "There is no" in module.runPanel.button.toolTip


def test_a_folder_that_is_no_language_model_is_said_at_once(
    host: Any, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qt

    from CTReportLib.choices import Role

    module.ui.sampleButton.click()
    module.ui.engineBox.setCurrentIndex(1)
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_arguments: str(tmp_path))
    module.modelRows.fileButtons[Role.LANGUAGE].click()
    host.process_events()
    assert module._parameterNode.language == str(tmp_path)
    assert tmp_path.name in module.ui.engineBadge.text and len(module.ui.engineBadge.text) > len(tmp_path.name) + 15


# The whole


def test_the_panel_fits_a_narrow_window(host: Any, reported: Any, tmp_path: Path) -> None:
    reported.ui.modelsSection.collapsed = False
    reported.reportPanel.editButton.click()
    assert reported.parent.minimumSizeHint.width() <= 340
    table = reported.findingsPanel.table
    for width_px in (500, 340):
        assert host.screenshot(reported, tmp_path / "panel.png", width=width_px).stat().st_size > 10000
        assert 0 < table.viewport().width - table.iconSize.width() < 20  # bars follow the panel's width


def test_closing_the_scene_clears_the_result(host: Any, reported: Any) -> None:
    host.scene.Clear(False)
    host.process_events()
    assert reported.report is None and reported.reportPanel.current is None
    assert reported.findingsPanel.summaryLabel.text == "Nothing is reported yet."
    assert reported.ui.exportSection.isHidden() and not reported.logic._history._states


def test_the_console_reports_without_the_panel(module: Any, tmp_path: Path) -> None:
    from CTReport import CTReportLogic
    from MedAILib.errors import ConfigError

    logic = CTReportLogic()
    node = logic.loadSample()
    report = logic.report(node, findingsOnly=True)
    assert report.table.GetNumberOfRows() == 18 and report.result().sections == ()
    assert logic.report(node).text is report.text and logic.reportOf(node).text is report.text
    assert logic.edit(report, report.text.GetText() + "- Seen.\n") and not logic.edit(report, report.text.GetText())
    assert logic.restore(report) and logic.restore(report) and not logic.restore(report)
    written = logic.export(report, "json", tmp_path)
    assert written.is_file() and logic.dicomSource(node) is None
    with pytest.raises(ConfigError, match="language model"):
        logic.report(node, engine="llm")


def test_the_self_test_of_the_module_succeeds(module: Any) -> None:
    import CTReport

    result = unittest.TestResult()
    CTReport.CTReportTest("runTest").run(result)
    assert result.testsRun == 1 and result.wasSuccessful(), result.errors + result.failures
