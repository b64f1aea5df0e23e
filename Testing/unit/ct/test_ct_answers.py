"""Reports with models: encoder, classifier and localizer asked once, fitting each other, or refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chest_phantoms import ChestSpec, make_chest

torch = pytest.importorskip("torch", reason="models need torch")
save_file = pytest.importorskip("safetensors.torch", reason="weight files need safetensors").save_file

from ct_models import COARSE, a_classifier, a_localizer, an_encoder  # noqa: E402

from CTReportLib import answers  # noqa: E402
from CTReportLib.localised import DRAWN, MODEL_TAG  # noqa: E402
from CTReportLib.nets.heads_weights import describe_head, load_head, save_head  # noqa: E402
from CTReportLib.nets.heads_zeroshot import ZeroShot  # noqa: E402
from CTReportLib.request import Basis, Decision, Models, ReportRequest, ReportResult  # noqa: E402
from CTReportLib.task import ReportTask  # noqa: E402
from MedAILib.errors import (  # noqa: E402
    Cancelled,
    ConfigError,
    ConfigMismatch,
    FileMissing,
    InputError,
    InvalidWeights,
    MedAIError,
)
from MedAILib.imageio import read_volume  # noqa: E402
from MedAILib.jobs.runner import InProcessRunner  # noqa: E402
from MedAILib.jobs.task import Context  # noqa: E402
from MedAILib.models.checkpoint import load_model_with_config  # noqa: E402
from MedAILib.models.tensors import file_sha256  # noqa: E402

CHEST = make_chest(ChestSpec(effusion="right")).volume
FINDINGS = ("pleural_effusion", "Pneumothorax", "Bronchiectasis", "mosaic_attenuation_pattern")
"""As a published list mixes them: an id, one that is none of the eighteen, a name."""
LOUD = (9.0, 9.0, 9.0, -9.0)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    folder = tmp_path / "Modelle ü"
    folder.mkdir()
    encoder = an_encoder("ct_conv", folder / "encoder.safetensors")
    classifier = a_classifier(folder / "classifier.safetensors", FINDINGS, encoder=encoder, says=LOUD, vision_dim=16)
    localizer = a_localizer(folder / "localizer.safetensors", ("consolidation", "lung_nodule"))
    return Models(encoder, classifier, localizer)


def report(models: Models, cache: Path, context: Context | None = None, **options: object) -> ReportResult:
    request = ReportRequest(CHEST, modality="CT", models=models, cache=cache, **options)  # type: ignore[arg-type]
    return ReportTask().run(request, context or Context())


def test_a_report_with_models_names_them_and_what_they_say(models: Models, tmp_path: Path) -> None:
    context = Context()
    result = report(models, tmp_path / "cache", context)
    said = result.row("bronchiectasis")
    assert said is not None
    assert (said.decision, said.basis, said.calibrated) == (Decision.PRESENT, Basis.MODEL, True)
    assert said.probability is not None and said.threshold is not None and said.probability > said.threshold > 0
    denied = result.row("mosaic_attenuation_pattern")
    assert denied is not None and (denied.decision, denied.basis) == (Decision.ABSENT, Basis.MODEL)
    agreed = result.row("pleural_effusion")
    assert agreed is not None and (agreed.decision, agreed.basis) == (Decision.PRESENT, Basis.RULE)
    assert agreed.probability is not None and agreed.value is not None
    assert any("Pneumothorax" in warning for warning in result.warnings)
    assert models.encoder is not None and f"small-conv sha256:{file_sha256(models.encoder)}" in context.weights
    assert len(context.weights) == 3
    for role in ("encoder small-conv", "classifier small-classifier", "localizer small-localizer"):
        assert role in result.provenance["models"]
    assert "Bronchiectasis: present by model" in " ".join(section.text for section in result.sections)


def test_the_encoder_sees_a_ct_once(models: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = report(models, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    stamp = kept.stat().st_ino
    again = report(models, tmp_path / "cache")
    assert (kept.stat().st_ino, len(list((tmp_path / "cache").iterdir()))) == (stamp, 1)
    assert [row.probability for row in again.table] == [row.probability for row in first.table]


def test_stages_come_in_order_and_the_progress_never_goes_back(models: Models, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    context = Context(on_progress=lambda progress: told.append((progress.stage, progress.fraction)))
    report(models, tmp_path, context)
    assert list(dict.fromkeys(stage for stage, _ in told)) == [
        "Checking the image", "Loading the models", "Finding the lungs", "Measuring",
        "Reading the CT with the encoder", "Telling findings", "Drawing findings", "Writing the report",
    ]  # fmt: skip
    assert [fraction for _, fraction in told] == sorted(fraction for _, fraction in told)
    assert told[-1][1] == 1.0


@pytest.mark.parametrize("stage", ["Loading the models", "Reading the CT with the encoder", "Drawing findings"])
def test_a_run_with_models_can_be_cancelled(models: Models, tmp_path: Path, stage: str) -> None:
    seen: list[str] = []
    context = Context(on_progress=lambda progress: seen.append(progress.stage))
    context.is_cancelled = lambda: bool(seen) and seen[-1] == stage
    with pytest.raises(Cancelled):
        report(models, tmp_path, context)
    assert seen[-1] == stage


def test_the_threads_of_a_run_are_those_it_was_given_and_are_put_back(models: Models, tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), []
    context = Context(threads=2, on_progress=lambda progress: seen.append((progress.stage, torch.get_num_threads())))
    report(models, tmp_path, context)
    assert ("Telling findings", 2) in seen
    assert torch.get_num_threads() == before


def test_what_the_localizer_draws_is_measured_placed_and_shown(models: Models, tmp_path: Path) -> None:
    assert models.encoder is not None
    drawing = a_localizer(models.encoder.with_name("loud.safetensors"), ("consolidation", "GGO"), bias=20.0)
    result = report(Models(localizer=drawing), tmp_path)
    row = result.row("consolidation")
    assert row is not None and result.masks is not None
    assert (row.decision, row.basis, row.probability) == (Decision.PRESENT, Basis.MODEL, None)
    assert (row.side, row.measurement) == ("both", f"Consolidation{DRAWN}")
    segment = result.masks.segment(row.segment)
    assert segment.tags[MODEL_TAG] == "small-localizer"
    voxel_ml = abs(np.linalg.det(CHEST.ijk_to_ras[:3, :3])) / 1000
    assert row.volume_ml == pytest.approx(result.masks.mask(row.segment).sum() * voxel_ml)
    wider = result.row("lung_opacity")
    assert wider is not None and wider.measurement == f"Ground glass opacity{DRAWN}"
    assert wider.segment in {info.id for info in result.masks.segments} - {row.segment}


def test_where_the_localizer_draws_nothing_nothing_is_excluded(models: Models, tmp_path: Path) -> None:
    result = report(replace(models, encoder=None, classifier=None), tmp_path)
    row = result.row("consolidation")
    assert row is not None and (row.decision, row.probability) == (Decision.NOT_JUDGED, None)


def test_every_row_names_a_segment_that_is_there(models: Models, tmp_path: Path) -> None:
    result = report(models, tmp_path)
    assert result.masks is not None
    named = {row.segment for row in result.table if row.segment}
    assert named and named <= {info.id for info in result.masks.segments}


def test_an_encoder_that_nobody_reads_is_not_asked(models: Models, tmp_path: Path) -> None:
    result = report(Models(encoder=models.encoder), tmp_path / "cache")
    assert any("encoder was not asked" in warning for warning in result.warnings)
    assert result.provenance["models"] == "none" and not (tmp_path / "cache").exists()


def test_what_a_file_does_not_say_of_its_encoders_input_is_told(tmp_path: Path) -> None:
    from rect3d_cases import SMALL, small

    bare = tmp_path / "bare.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in small().state_dict().items()}, str(bare))
    head = a_classifier(tmp_path / "h.safetensors", ("emphysema",), encoder=bare, vision_dim=SMALL["embed_dim"])
    assert any("taken to be as published" in text for text in report(Models(bare, head), tmp_path / "c").warnings)


def test_an_uncalibrated_classifier_is_marked_so(models: Models, tmp_path: Path) -> None:
    assert models.encoder is not None
    raw = a_classifier(
        tmp_path / "raw.safetensors", ("emphysema", "bronchiectasis"), encoder=models.encoder, says=(-0.1, 0.1),
        calibrated=False, vision_dim=16,
    )  # fmt: skip
    result = report(replace(models, classifier=raw, localizer=None), tmp_path)
    row = result.row("bronchiectasis")
    assert row is not None and (row.decision, row.calibrated, row.threshold) == (Decision.PRESENT, False, 0.5)
    assert "not calibrated" in row.evidence


def test_a_head_that_does_not_name_its_encoder_is_used_and_that_is_said(models: Models, tmp_path: Path) -> None:
    head = a_classifier(tmp_path / "head.safetensors", ("emphysema",), vision_dim=16)
    result = report(replace(models, classifier=head, localizer=None), tmp_path)
    assert any("does not say which encoder" in warning for warning in result.warnings)


def refused(models: Models, tmp_path: Path) -> MedAIError:
    """The error of a run; nothing was computed before it."""
    seen: list[str] = []
    context = Context(on_progress=lambda progress: seen.append(progress.stage))
    with pytest.raises(MedAIError) as caught:
        report(models, tmp_path / "cache", context)
    assert set(seen) <= {"Checking the image", "Loading the models"}
    assert caught.value.why and caught.value.todo
    return caught.value


def test_a_head_without_an_encoder_is_refused(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the encoder it was trained on"):
        report(replace(models, encoder=None), tmp_path)


def test_a_head_of_another_encoder_is_refused_with_both_hashes(models: Models, tmp_path: Path) -> None:
    other = an_encoder("primus", tmp_path / "other.safetensors")
    error = refused(replace(models, encoder=other), tmp_path)
    assert isinstance(error, ConfigError) and "trained on another encoder than 'small-primus'" in error.what
    assert file_sha256(other)[:16] in error.why


def test_a_wrong_width_is_refused_with_both_widths(models: Models, tmp_path: Path) -> None:
    wide = a_classifier(tmp_path / "wide.safetensors", ("emphysema",), encoder=models.encoder, vision_dim=24)
    error = refused(replace(models, classifier=wide), tmp_path)
    assert isinstance(error, ConfigError) and "width 24" in error.why and "16" in error.why


def test_missing_files_are_all_named_at_once(models: Models, tmp_path: Path) -> None:
    gone = Models(tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "c.safetensors", tmp_path / "d")
    with pytest.raises(ConfigError) as caught:
        report(gone, tmp_path)
    assert all(f"{name}'" in caught.value.what for name in ("a.safetensors", "b.safetensors", "c.safetensors", "d"))


def test_models_in_each_others_place_are_refused(models: Models, tmp_path: Path) -> None:
    swapped = refused(replace(models, classifier=models.localizer), tmp_path)
    assert isinstance(swapped, ConfigError) and "draws findings" in swapped.why
    other = refused(replace(models, localizer=models.classifier), tmp_path)
    assert isinstance(other, ConfigError) and "cannot be the localizer" in other.what
    head = refused(replace(models, encoder=models.localizer), tmp_path)
    assert isinstance(head, ConfigError) and "no encoder of chest CTs" in head.what
    encoder = refused(replace(models, classifier=models.encoder), tmp_path)
    assert isinstance(encoder, InvalidWeights) and "no head for findings" in encoder.what


def test_a_model_of_other_findings_is_refused(models: Models, tmp_path: Path) -> None:
    head = a_classifier(tmp_path / "knee.safetensors", ("meniscus tear",), encoder=models.encoder, vision_dim=16)
    assert "meniscus tear" in refused(replace(models, classifier=head), tmp_path).why


def test_a_broken_and_a_renamed_file_are_refused(models: Models, tmp_path: Path) -> None:
    assert models.classifier is not None
    short = tmp_path / "short.safetensors"
    short.write_bytes(models.classifier.read_bytes()[:-50])
    assert isinstance(refused(replace(models, classifier=short), tmp_path), InvalidWeights)
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><html>sign in</html>")
    assert isinstance(refused(replace(models, encoder=tmp_path / "page.safetensors"), tmp_path), InvalidWeights)


def test_a_localizer_that_does_not_say_what_it_reads_is_refused(models: Models, tmp_path: Path) -> None:
    assert models.localizer is not None
    network, config, _ = load_model_with_config(models.localizer, load_network_of(models.localizer))
    mute = tmp_path / "mute" / "mute.safetensors"
    mute.parent.mkdir()
    save_head(network, mute, replace(config, inputs=(), files=()))
    error = refused(replace(models, localizer=mute), tmp_path)
    assert isinstance(error, ConfigMismatch) and "does not say how a CT is prepared" in error.what


def load_network_of(path: Path):
    from CTReportLib.nets.heads_weights import FACTORIES

    return FACTORIES[load_head(path).config.architecture.name]


def test_a_device_that_is_not_there_is_named(models: Models, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cuda:7' cannot be used"):
        report(models, tmp_path, Context(device="cuda:7"))


def test_prompts_alone_classify_where_the_encoder_has_a_way_to_texts(tmp_path: Path) -> None:
    from test_ct_primus_weights import colipri, slim

    path = colipri(tmp_path / "model.safetensors", slim())
    torch.manual_seed(0)
    head = ZeroShot(128, 2)
    head.set_prompts(torch.randn(2, 128), torch.randn(2, 128), 0.07)
    names = ("emphysema", "atelectasis")
    config = describe_head("prompts", "ct_zero_shot", names, encoder_sha256=file_sha256(path), shared_dim=128)
    save_head(head, tmp_path / "prompts.safetensors", config)
    opened = answers.open_models(Models(path, tmp_path / "prompts.safetensors"), "cpu")
    assert opened.encoder is not None and opened.encoder.shared_width == 128
    with torch.inference_mode():
        features = opened.encoder.network(torch.randn(1, 1, 8, 8, 16))
    assert opened.classifier is not None
    predictions, others = answers.predicted(opened.classifier, features)
    assert [one.finding for one in predictions] == list(names) and not others
    present = torch.nn.functional.cosine_similarity(features.shared, head.present) / 0.07
    absent = torch.nn.functional.cosine_similarity(features.shared, head.absent) / 0.07
    wanted = torch.stack([present, absent]).softmax(0)[0]
    assert [one.probability for one in predictions] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_prompts_need_an_encoder_with_a_way_to_texts(models: Models, tmp_path: Path) -> None:
    head = ZeroShot(16, 1)
    save_head(head, tmp_path / "p.safetensors", describe_head("p", "ct_zero_shot", ("emphysema",), shared_dim=16))
    error = refused(replace(models, classifier=tmp_path / "p.safetensors"), tmp_path)
    assert "no projection into a space shared with texts" in error.why


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_compares_nothing_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="compares nothing"):
        ZeroShot(4, 2).set_prompts(torch.zeros(2, 4), torch.zeros(2, 4), temperature)


def test_the_same_models_have_the_same_fingerprint_and_others_another(models: Models, tmp_path: Path) -> None:
    assert models.encoder is not None
    assert answers.fingerprint_of(Models()) == ""
    first = answers.fingerprint_of(models)
    copy = tmp_path / "moved.safetensors"
    copy.write_bytes(models.encoder.read_bytes())
    assert answers.fingerprint_of(replace(models, encoder=copy)) == first
    assert answers.fingerprint_of(replace(models, classifier=None)) != first
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text("{}")
    with_language = answers.fingerprint_of(replace(models, language=tmp_path / "llm"))
    (tmp_path / "llm" / "config.json").write_text("{ }")
    assert len({first, with_language, answers.fingerprint_of(replace(models, language=tmp_path / "llm"))}) == 3
    with pytest.raises(FileMissing):
        answers.fingerprint_of(Models(encoder=tmp_path / "gone"))


def test_a_runner_answers_the_same(models: Models, tmp_path: Path) -> None:
    request = ReportRequest(CHEST, modality="CT", models=models, cache=tmp_path / "one")
    with InProcessRunner() as runner:
        outcome = runner.run("CTReportLib.task:ReportTask", request)
    assert [row.probability for row in outcome.result.table] == [
        row.probability for row in report(models, tmp_path / "two").table
    ]
    assert len(outcome.report.weights) == 3


def test_models_stay_loaded_until_others_are_asked_for_or_a_file_changes(models: Models) -> None:
    kept = answers.KeptModels()
    first = kept.opened(models, "cpu")
    assert kept.opened(models, "cpu") is first
    assert kept.opened(replace(models, localizer=None), "cpu") is not first
    again = kept.opened(models, "cpu")
    assert models.localizer is not None
    a_localizer(models.localizer, ("consolidation", "lung_nodule", "pleural_effusion"))
    changed = kept.opened(models, "cpu")
    assert changed is not again and changed.localizer is not None and len(changed.localizer.head.classes) == 3
    kept.close()
    assert kept.opened(models, "cpu") is not changed


def test_a_layout_that_fits_the_lungs_is_drawn_on_too(tmp_path: Path) -> None:
    layout = replace(COARSE, name="fitted", spacing_mm=None)
    drawing = a_localizer(tmp_path / "fitted.safetensors", ("consolidation",), bias=20.0, layout=layout)
    row = report(Models(localizer=drawing), tmp_path).row("consolidation")
    assert row is not None and row.volume_ml is not None and 2000 < row.volume_ml < 30000


def test_in_a_real_crop_of_a_chest_models_exclude_nothing(
    models: Models, tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    volume = read_volume(shared_data("dicom/ct_pat1_rtstruct"))
    request = ReportRequest(volume, modality="CT", models=models, cache=tmp_path)
    result = ReportTask().run(request, Context())
    denied, said = result.row("mosaic_attenuation_pattern"), result.row("bronchiectasis")
    assert denied is not None and said is not None
    assert (denied.decision, said.decision) == (Decision.NOT_JUDGED, Decision.PRESENT)
    assert "does not hold the whole chest" in denied.evidence
    assert any("does not hold whole lungs" in warning for warning in result.warnings)


@pytest.mark.parametrize("case", ["chestct_lidc0314", "chestct_lung1_001"])
def test_real_chests_are_reported_with_models(
    models: Models, tmp_path: Path, shared_data: Callable[[str], Path], case: str
) -> None:
    assert models.encoder is not None
    drawing = a_localizer(tmp_path / "loud.safetensors", ("consolidation",), bias=20.0)
    volume = read_volume(shared_data(f"vol3d/{case}/image.nii.gz"))
    request = ReportRequest(volume, models=replace(models, localizer=drawing), cache=tmp_path / "cache")
    result = ReportTask().run(request, Context())
    assert result.complete and result.masks is not None
    assert {row.basis for row in result.table} >= {Basis.MODEL}
    row = result.row("consolidation")
    assert row is not None and (row.decision, row.side) == (Decision.PRESENT, "both")
    assert result.masks.geometry.same_grid_as(volume.geometry)
    assert result.masks.mask(row.segment).any()


def test_a_worker_answers_the_same(models: Models, tmp_path: Path) -> None:
    from MedAILib.jobs.worker_runner import WorkerRunner

    request = ReportRequest(CHEST, modality="CT", models=models, cache=tmp_path / "worker")
    with WorkerRunner(threads=1) as runner:
        result = runner.run("CTReportLib.task:ReportTask", request).result
    here = report(models, tmp_path / "here")
    assert result.table == here.table
    assert result.provenance == here.provenance
    assert [section.text for section in result.sections] == [section.text for section in here.sections]


def test_the_encoder_inside_a_training_checkpoint_is_read_as_published(tmp_path: Path) -> None:
    from rect3d_cases import SMALL
    from test_ct_rect3d_weights import a_checkpoint

    from CTReportLib.nets.encoders import load_encoder
    from CTReportLib.nets.rect3d import Rect3D

    torch.save(a_checkpoint(Rect3D(**SMALL)), tmp_path / "best_model.pt")
    encoder = load_encoder(tmp_path / "best_model.pt")
    (window,) = encoder.layout.windows
    assert (encoder.architecture, window.low, window.high) == ("rect3d", -160.0, 240.0)
    assert encoder.layout.spacing_mm is None and encoder.regions == () and encoder.assumed
    assert encoder.layout.shape_kji == encoder.network.size
