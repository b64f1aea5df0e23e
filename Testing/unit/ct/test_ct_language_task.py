"""The whole task with a language model: a guarded report, honest about its end, and memory that comes back."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_language as tiny
from chest_phantoms import ChestSpec, make_chest
from ct_models import an_encoder
from language_cases import a_projector, a_table, save_whole

from CTReportLib import writing
from CTReportLib.guard import TRUNCATED
from CTReportLib.language import engine, memory
from CTReportLib.language.projector import describe_projector, save_projector
from CTReportLib.nets.primus import Primus
from CTReportLib.request import RESEARCH_USE, Decision, Models, ReportRequest, Verdict
from CTReportLib.task import TASK, ReportTask
from MedAILib.cli.main import main
from MedAILib.errors import ConfigError, ConfigMismatch, FileMissing, InvalidWeights, NotEnoughMemory
from MedAILib.imageio import write_volume
from MedAILib.jobs.task import Context
from MedAILib.jobs.worker_runner import WorkerRunner

CHEST = make_chest(ChestSpec(effusion="right")).volume


@pytest.fixture(scope="module")
def a_language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whole(tmp_path_factory.mktemp("language") / "model")


@pytest.fixture
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained models never end by themselves: 24 tokens are enough to see that."""
    whole = engine.write_report
    monkeypatch.setattr(engine, "write_report", lambda *given, **named: whole(*given, 24, **named))


@pytest.mark.usefixtures("few_tokens")
def test_a_report_by_a_language_model_is_guarded_and_says_who_wrote_it(a_language_model: Path) -> None:
    context = Context()
    request = ReportRequest(CHEST, modality="CT", engine="llm", models=Models(language=a_language_model))
    result = ReportTask().run(request, context)
    assert not result.complete
    assert result.sections[0].title == "Technique"
    text = " ".join(section.text for section in result.sections)
    assert TRUNCATED in text and RESEARCH_USE in text and "Written by a language model" in text
    present = [row for row in result.table if row.decision is Decision.PRESENT]
    assert present and all(row.name in text for row in present)
    shown = [one for section in result.sections for one in section.sentences if one.shown]
    assert any(one.verdict is Verdict.ADDED for one in shown)
    assert result.provenance["prompt"].startswith("[FINDING]")
    assert "tiny-language/base sha256:" in result.provenance["language_models"]
    assert result.provenance["language_tokens"] == "24" and result.provenance["language_finished"] == "no"
    assert any(name.startswith("tiny-language/adapter sha256:") for name in context.weights)
    assert any("from the table alone" in warning for warning in result.warnings)


def test_what_is_missing_is_said_before_anything_is_computed(
    a_language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="language model"):
        ReportTask().run(ReportRequest(CHEST, engine="llm"), Context())
    with pytest.raises(ConfigError, match="no folder"):
        ReportTask().run(ReportRequest(CHEST, engine="llm", models=Models(language=tmp_path / "gone")), Context())
    stages: list[str] = []
    context = Context(on_progress=lambda progress: stages.append(progress.stage))
    tiny.save_base(tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").unlink()
    with pytest.raises(FileMissing, match="no tokenizer"):
        ReportTask().run(ReportRequest(CHEST, engine="llm", models=Models(language=tmp_path / "base")), context)
    monkeypatch.setattr(memory, "free_memory_bytes", lambda device: 1 << 20)
    with pytest.raises(NotEnoughMemory, match="1 MB are free"):
        ReportTask().run(ReportRequest(CHEST, engine="llm", models=Models(language=a_language_model)), context)
    assert set(stages) == {"Checking the image"}


def test_a_models_own_list_of_findings_is_held_against_the_table() -> None:
    table = a_table(emphysema="left")
    remarks = list(writing._remarks_on_labels(("Emphysema", "Cardiomegaly", "Rib fracture"), table))
    assert len(remarks) == 1 and "Cardiomegaly" in remarks[0] and "Emphysema" not in remarks[0]
    assert list(writing._remarks_on_labels(("Emphysema",), table)) == []
    (remark,) = writing._remarks_on_labels(("No Chest Finding", "Emphysema"), table)
    assert "contradicts itself" in remark


def test_a_model_that_reads_only_pictures_needs_an_encoder(tmp_path: Path) -> None:
    tiny.save_reason(tmp_path / "nv", Primus(embed_dim=396, depth=1, mlp_dim=64))
    request = ReportRequest(CHEST, engine="llm", models=Models(language=tmp_path / "nv"))
    with pytest.raises(ConfigError, match="no encoder is given"):
        ReportTask().run(request, Context())


@pytest.mark.usefixtures("few_tokens")
def test_encoder_projector_and_language_model_work_together(a_language_model: Path, tmp_path: Path) -> None:
    encoder = an_encoder("primus", tmp_path / "encoder.safetensors")
    context = Context()
    models = Models(encoder=encoder, language=a_language_model)
    request = ReportRequest(CHEST, modality="CT", engine="llm", models=models, cache=tmp_path / "cache")
    result = ReportTask().run(request, context)
    assert [name.split(" ")[0] for name in context.weights] == [
        "small-primus", "tiny-language/base", "tiny-language/adapter", "tiny-language/projector",
    ]  # fmt: skip
    assert not any("from the table alone" in warning for warning in result.warnings)
    assert "tiny-language/projector" in result.provenance["language_models"]


def test_a_projector_for_another_encoder_is_refused_with_both_widths(a_language_model: Path, tmp_path: Path) -> None:
    models = Models(encoder=an_encoder("ct_conv", tmp_path / "conv.safetensors"), language=a_language_model)
    request = ReportRequest(CHEST, modality="CT", engine="llm", models=models, cache=tmp_path / "cache")
    with pytest.raises(ConfigMismatch, match="reads features of 24 numbers; the encoder answers features of 16"):
        ReportTask().run(request, Context())


def test_findings_alone_need_no_language_model(a_language_model: Path) -> None:
    models = Models(language=a_language_model)
    result = ReportTask().run(ReportRequest(CHEST, engine="llm", findings_only=True, models=models), Context())
    assert result.sections == () and result.complete
    assert "language_models" not in result.provenance


def test_the_template_is_as_it_was() -> None:
    result = ReportTask().run(ReportRequest(CHEST, modality="CT"), Context())
    assert result.complete and result.sections[-1].title == "Impression"
    assert writing.WrittenReport() == writing.WrittenReport((), True, (), {})


@pytest.mark.usefixtures("few_tokens")
def test_the_command_writes_with_a_language_model_and_exits_with_3_where_it_broke_off(
    a_language_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(CHEST, tmp_path / "chest.nii.gz")
    out = tmp_path / "out"
    command = ["ct", "report", str(tmp_path / "chest.nii.gz"), "--out", str(out), "--llm", str(a_language_model)]
    assert main([*command, "--engine", "llm"]) == 3
    assert TRUNCATED in capsys.readouterr().out
    summary = json.loads((out / "chest_summary.json").read_text(encoding="utf-8"))
    assert summary["complete"] is False and summary["provenance"]["engine"] == "llm"


def test_the_command_says_what_is_wrong_with_a_language_model(
    a_language_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(CHEST, tmp_path / "chest.nii.gz")
    model = Path(shutil.copytree(a_language_model, tmp_path / "model"))
    command = ["ct", "report", str(tmp_path / "chest.nii.gz"), "--out", str(tmp_path / "out"), "--llm", str(model)]
    projector = a_projector(64)
    save_projector(projector, model / "projector" / "projector.safetensors", describe_projector("p", projector))
    assert main(command) == InvalidWeights.exit_status
    assert "answers vectors of 64 numbers; the language model reads vectors of 48" in capsys.readouterr().err
    (model / "base" / "tokenizer.json").unlink()
    assert main(command) == FileMissing.exit_status
    assert "has no tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "out" / "chest_summary.json").exists()


def silent(folder: Path, **shape: Any) -> Path:
    """A language model whose first word is its last: loading it is all that takes time and memory."""
    network = tiny.a_network(**shape)
    network.model.norm.weight.data.zero_()
    tiny.save_base(folder, network=network)
    tiny.change_json(folder / "generation_config.json", eos_token_id=[0, 2])
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_the_worker_gives_all_memory_of_a_language_model_back(tmp_path: Path) -> None:
    """A run loads it and lets go of it; what the worker holds afterwards is what it held before."""
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 5, "max_position_embeddings": 544}
    small, big = (silent(tmp_path / name, **shape) for name, shape in (("small", {}), ("big", shape)))
    size_mb = (big / "model.safetensors").stat().st_size / 1e6
    assert size_mb > 60
    with WorkerRunner(threads=1) as runner:

        def run(language: Path) -> tuple[float, float]:
            """Peak within the run and what is held after it, in MB."""
            outcome = runner.run(TASK, ReportRequest(CHEST, engine="llm", models=Models(language=language)))
            peak_mb = outcome.report.peak_memory_mb
            assert peak_mb is not None and runner.process_id is not None
            pages = int(Path(f"/proc/{runner.process_id}/statm").read_text().split()[1])
            return float(peak_mb) * 1.048576, pages * 4096 / 1e6

        run(small)
        small_peak_mb, before_mb = run(small)
        for _ in range(2):
            peak_mb, after_mb = run(big)

            assert peak_mb > small_peak_mb + 0.7 * size_mb, (small_peak_mb, peak_mb)
            assert after_mb < before_mb + 0.15 * size_mb, (before_mb, after_mb)
