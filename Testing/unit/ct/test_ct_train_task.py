"""Training as a task: what it writes, that it goes on where it ended, that one seed gives one result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chest_cohort import write_ct_rate
from ct_models import an_encoder

from CTReportLib.answers import open_models
from CTReportLib.nets.encoders import load_encoder
from CTReportLib.nets.heads_weights import load_head
from CTReportLib.preprocess import Layout
from CTReportLib.request import Models
from CTReportLib.train.request import TASK, WINDOWS, Stage, TrainRequest, TrainResult
from CTReportLib.train.task import CARD, STATE, TrainTask
from MedAILib.errors import Cancelled, ConfigError, InputError, InvalidWeights, MedAIError
from MedAILib.jobs.execute import load_task
from MedAILib.jobs.task import Context
from MedAILib.models.tensors import file_sha256

torch.set_num_threads(1)

COARSE = Layout("ct_conv", (24, 16, 24), 14.0, WINDOWS)
COARSE_DRAWN = Layout("ct_text_unet", (24, 16, 24), 14.0, WINDOWS[1:3])


@pytest.fixture(scope="module")
def a_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Kohorte ö")
    write_ct_rate(folder, range(40, 72))
    return folder


@pytest.fixture(scope="module")
def a_small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    write_ct_rate(folder, range(80, 96))
    return folder


def _request(data: Path, out: Path, **changed: object) -> TrainRequest:
    request = TrainRequest(
        data=data,
        out=out,
        encoding=Stage(6, 4, 2e-3),
        probing=Stage(12, 8, 2e-3),
        drawing=Stage(6, 2, 2e-3),
        base=4,
        localizer_base=4,
        localizer_depth=2,
        encoder_layout=COARSE,
        localizer_layout=COARSE_DRAWN,
        crop=16,
        log_every=3,
        save_every=4,
    )
    return replace(request, **changed)  # type: ignore[arg-type]


def _trained(request: TrainRequest, **told: object) -> TrainResult:
    return TrainTask().run(request, Context(**told))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def a_training(a_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainRequest, TrainResult]:
    request = _request(a_cohort, tmp_path_factory.mktemp("out") / "first one")
    return request, _trained(request)


def test_the_task_is_found_by_its_name() -> None:
    assert isinstance(load_task(TASK), TrainTask)


def test_three_networks_are_written_that_a_report_opens_together(
    a_training: tuple[TrainRequest, TrainResult],
) -> None:
    result = a_training[1]
    opened = open_models(Models(result.encoder, result.classifier, result.localizer), "cpu")
    assert opened.encoder is not None and opened.encoder.layout == COARSE and opened.encoder.width == 16
    assert opened.classifier is not None and opened.classifier.encoder_sha256 == opened.encoder.sha256
    assert opened.classifier.head.class_names[1] == "Cardiomegaly" and len(result.findings) >= 7
    assert opened.localizer is not None and len(opened.localizer.head.classes) == len(result.drawn) >= 4
    assert opened.localizer.head.threshold is not None and len(opened.localizer.head.least_ml) in (0, len(result.drawn))


def test_the_descriptions_and_the_card_say_how_they_came_to_be(a_training: tuple[TrainRequest, TrainResult]) -> None:
    request, result = a_training
    config = load_head(result.classifier).config  # type: ignore[arg-type]
    training = config.provenance.training
    assert training["settings"]["seed"] == 0 and "data" not in training["settings"]
    assert "24 scans of 24 patients" in config.provenance.trained_on and "Research use only" in config.intended_use
    drawing = load_head(result.localizer).config  # type: ignore[arg-type]
    assert "right angles" in drawing.provenance.training["prompts"]
    card = (request.out / CARD).read_text(encoding="utf-8")
    for words in ("Research use only", "Cardiomegaly", "kept apart", "Labels read from reports", "AUROC"):
        assert words in card
    assert "Hiatal" not in card.split("## Limits")[0]


def test_the_log_has_a_row_every_few_steps_of_every_phase(a_training: tuple[TrainRequest, TrainResult]) -> None:
    request, result = a_training
    assert [(row.phase, row.step) for row in result.log] == [
        ("encoder", 3), ("encoder", 6), *(("classifier", step) for step in (3, 6, 9, 12)),
        ("localizer", 3), ("localizer", 6),
    ]  # fmt: skip
    assert all(np.isfinite(row.loss) for row in result.log)
    lines = (request.out / "log.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 9 and lines[0].startswith("phase,step,learning_rate,loss")


def test_no_held_patient_was_learned_from_and_few_of_them_calibrate_nothing(
    a_training: tuple[TrainRequest, TrainResult],
) -> None:
    result = a_training[1]
    assert not set(result.learned_from) & set(result.held) and len(result.held) == 8
    assert load_head(result.classifier).head.calibrated_on == ""  # type: ignore[arg-type]


class _Stop(Exception):
    pass


def _at(phase: str, step: int, deed: Callable[[], None]) -> Callable[..., None]:
    def told(progress: object) -> None:
        if getattr(progress, "stage", "") == f"Training: {phase}" and f"step {step} of" in progress.detail:  # type: ignore[attr-defined]
            deed()

    return told


def _die() -> None:
    raise _Stop


@pytest.mark.parametrize(("phase", "step"), [("encoder", 6), ("classifier", 2), ("localizer", 6)])
def test_a_training_that_died_ends_as_one_that_did_not(
    a_training: tuple[TrainRequest, TrainResult], tmp_path: Path, phase: str, step: int
) -> None:
    request = replace(a_training[0], out=tmp_path / "first one")
    with pytest.raises(_Stop):
        _trained(request, on_progress=_at(phase, step, _die))
    result = _trained(replace(request, resume=True))
    for name in ("encoder", "classifier", "localizer"):
        before, after = (_tensors(getattr(one, name)) for one in (a_training[1], result))
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before), name
    assert [(row.phase, row.step) for row in result.log] == [(row.phase, row.step) for row in a_training[1].log]


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_a_cancelled_training_saves_its_state_first(a_cohort: Path, tmp_path: Path) -> None:
    context = Context()
    asked: list[int] = []
    context.on_progress = _at("encoder", 3, lambda: asked.append(1))
    context.is_cancelled = lambda: bool(asked)
    with pytest.raises(Cancelled):
        TrainTask().run(_request(a_cohort, tmp_path / "out"), context)
    state = torch.load(tmp_path / "out" / STATE, weights_only=True)
    assert '"step": 3' in state["plain"]


def test_a_folder_with_a_training_is_not_begun_again_nor_resumed_with_other_settings(
    a_training: tuple[TrainRequest, TrainResult], tmp_path: Path
) -> None:
    request = a_training[0]
    with pytest.raises(InputError, match="already holds a training"):
        _trained(request)
    copy = tmp_path / "copy"
    shutil.copytree(request.out, copy)
    with pytest.raises(InputError, match="seed"):
        _trained(replace(request, out=copy, seed=1, resume=True))
    (copy / STATE).write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(InvalidWeights, match="damaged"):
        _trained(replace(request, out=copy, resume=True))


@pytest.mark.parametrize(("kind", "head"), [("primus", "linear"), ("ct_conv", "attention"), ("rect3d", "prompt")])
def test_a_given_encoder_stays_as_it_is_and_is_asked_once(
    a_small_cohort: Path, tmp_path: Path, kind: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = an_encoder(kind, tmp_path / "encoder.safetensors")
    before = file_sha256(encoder)
    request = _request(
        a_small_cohort,
        tmp_path / "out",
        encoder=encoder,
        head=head,
        drawing=Stage(0, 1, 1e-3),
        probing=Stage(4, 8, 2e-3),
    )
    result = _trained(request)
    assert result.encoder is None and result.localizer is None and file_sha256(encoder) == before
    loaded = load_head(result.classifier)  # type: ignore[arg-type]
    assert loaded.encoder_sha256 == before
    open_models(Models(encoder, result.classifier), "cpu")
    if kind == "primus":
        monkeypatch.setattr(type(load_encoder(encoder)), "features", _never)
        again = replace(request, out=tmp_path / "again")
        shutil.copytree(request.out / "prepared", again.out / "prepared")
        assert _trained(again).findings == result.findings


def _never(*_: object, **__: object) -> None:
    raise AssertionError("the encoder was asked again")


def test_prompts_come_from_a_text_encoder_where_one_is_given(a_cohort: Path, tmp_path: Path) -> None:
    tiny = pytest.importorskip("tiny_language")
    text_encoder = tiny.save_bert(tmp_path / "bert")
    request = _request(a_cohort, tmp_path / "out", text_encoder=text_encoder, head="prompt", encoding=Stage(1, 4, 1e-3))
    result = _trained(replace(request, drawing=Stage(1, 2, 1e-3)))
    loaded = load_head(result.classifier)  # type: ignore[arg-type]
    assert "text encoder of sha256" in loaded.config.provenance.training["prompts"]
    vectors = loaded.network.prompt_features
    assert not torch.allclose(vectors[0], vectors[1])


def test_without_masks_there_is_a_classifier_and_no_localizer(a_cohort: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(a_cohort, data, ignore=shutil.ignore_patterns("masks"))
    result = _trained(_request(data, tmp_path / "out", encoding=Stage(2, 4, 1e-3), probing=Stage(2, 8, 1e-3)))
    assert result.localizer is None and result.classifier is not None
    assert any("no masks" in text for text in result.warnings)


def test_everything_that_is_wrong_with_a_request_is_said_at_once(tmp_path: Path) -> None:
    request = TrainRequest(tmp_path, tmp_path, head="x", loss="y", held_share=1.5, crop=30, log_every=0)
    with pytest.raises(ConfigError) as raised:
        request.validate()
    for words in ("head 'x'", "loss 'y'", "1.5", "multiples of 4", "every so many"):
        assert words in raised.value.what


def test_a_loss_that_is_no_number_ends_the_training_with_advice(a_cohort: Path, tmp_path: Path) -> None:
    request = _request(a_cohort, tmp_path / "out", encoding=Stage(40, 4, 0.999), drawing=Stage(0, 1, 1e-3))
    from CTReportLib.train import phases

    def broken(*_: object) -> float:
        raise FloatingPointError("the loss is nan")

    original = phases.EncodingPhase.learn
    phases.EncodingPhase.learn = broken  # type: ignore[method-assign,assignment]
    try:
        with pytest.raises(MedAIError, match="lower learning rate"):
            _trained(request)
    finally:
        phases.EncodingPhase.learn = original  # type: ignore[method-assign]


@pytest.mark.parametrize("given", [False, True])
def test_progress_never_goes_back(a_small_cohort: Path, tmp_path: Path, given: bool) -> None:
    encoder = an_encoder("ct_conv", tmp_path / "encoder.safetensors") if given else None
    told: list[tuple[float, str]] = []
    request = _request(a_small_cohort, tmp_path / "out", encoder=encoder, encoding=Stage(2, 4, 1e-3))
    _trained(
        replace(request, probing=Stage(2, 8, 1e-3), drawing=Stage(2, 2, 1e-3)),
        on_progress=lambda progress: told.append((progress.fraction, progress.stage)),
    )
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions), told
    assert fractions[0] == 0.0 and fractions[-1] >= 0.95
