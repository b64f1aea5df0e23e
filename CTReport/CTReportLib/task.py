"""The report as a task that any runner runs: check, find the chest, measure, ask models, decide, write, hold.

Models stay loaded between runs, but for language models and while one of these needs the memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from CTReportLib import answers, preprocess
from CTReportLib.anatomy import Anatomy, find_anatomy
from CTReportLib.checks import Notice, check_anatomy, check_volume
from CTReportLib.keyimages import key_images
from CTReportLib.localised import localisation, measured_segments
from CTReportLib.measurement import Measurement
from CTReportLib.measures import measure
from CTReportLib.prediction import Prediction
from CTReportLib.report import Facts
from CTReportLib.request import ReportRequest, ReportResult
from CTReportLib.stages import Stages
from CTReportLib.table import finding_table
from CTReportLib.writing import LANGUAGE_MODEL, WrittenReport, check_writer, write
from MedAILib import __version__
from MedAILib.jobs.task import Context
from MedAILib.volume import Volume

if TYPE_CHECKING:
    from CTReportLib.nets.features import Features

TASK = "CTReportLib.task:ReportTask"
FIELD_OF_VIEW_CODES = frozenset({"lungs-cut", "lung-missing"})
"""Notices after which part of the chest was not seen."""
CHECKING, FINDING, MEASURING, WRITING = (
    "Checking the image", "Finding the lungs", "Measuring", "Writing the report",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Answers:
    """What the models said: see `CTReportLib.answers`."""

    predictions: tuple[Prediction, ...] = ()
    drawings: tuple[Measurement, ...] = ()
    remarks: tuple[str, ...] = ()
    features: Features | None = None
    encoder_sha256: str = ""
    names: tuple[str, ...] = ()


class ReportTask:
    """Reports one chest CT from what can be measured in it, and from what models say where the request names some."""

    def __init__(self) -> None:
        self._models = answers.KeptModels()

    def run(self, request: ReportRequest, context: Context) -> ReportResult:
        """Run the request.

        Raises
        ------
        ConfigError
            The request cannot be run; all problems at once. Or its models do not fit each other.
        InputError
            Not a CT, not a chest, empty, 2D, or too few slices.
        InvalidWeights, ConfigMismatch, FileMissing, MissingPackage, OutOfMemory
            Of the models.
        Cancelled
        """
        request.validate()
        stages = Stages(context, _weights(request))
        stages.enter(CHECKING)
        notices = check_volume(request.volume, request.modality)
        check_writer(request, context.device)
        opened = self._opened(request, context, stages)
        stages.enter(FINDING)
        anatomy = find_anatomy(request.volume)
        notices += check_anatomy(anatomy)
        stages.enter(MEASURING)
        given, remarks = _given(request, anatomy)
        measured = measure(request.volume, anatomy)
        said = _asked(opened, request, anatomy, context, stages)
        del opened
        if _writes_with_model(request):
            self._models.close()
        measurements = (*given, *measured, *said.drawings)
        masks = localisation(request.volume.geometry, anatomy, measurements)
        facts = facts_of(request, notices)
        whole = not facts.field_of_view
        table = finding_table(measurements, said.predictions, masks.segments, whole_chest=whole)
        stages.enter(WRITING)
        warnings = (*(notice.text for notice in notices), *remarks, *said.remarks)
        for warning in warnings:
            context.warn(warning)
        text = WrittenReport()
        if not request.findings_only:
            text = write(
                request,
                table,
                measurements,
                facts,
                said.features,
                context,
                encoder_sha256=said.encoder_sha256,
                fractions=stages.span(WRITING),
            )
        pictures = () if request.findings_only else key_images(request.volume, masks, request.window_hu)
        stages.within(1.0)
        return ReportResult(
            name=request.name,
            table=table,
            sections=text.sections,
            measurements=measurements,
            complete=text.complete,
            warnings=(*warnings, *text.warnings),
            masks=masks,
            pictures=pictures,
            provenance={**_provenance(request, context, said.names), **text.provenance},
        )

    def _opened(self, request: ReportRequest, context: Context, stages: Stages) -> answers.OpenModels:
        """The models that will be asked, loaded before the image is worked on: what does not fit is told at once."""
        models, encode = request.models, _reads_features(request)
        if not (models.classifier or models.localizer or (models.encoder and encode)):
            return answers.OpenModels()
        stages.enter(answers.LOADING)
        return self._models.opened(models, context.device, encode=encode)


def facts_of(request: ReportRequest, notices: Sequence[Notice]) -> Facts:
    """What the report says of the examination itself."""
    geometry = request.volume.geometry
    size = " x ".join(str(n) for n in reversed(geometry.shape_kji))
    spacing = " x ".join(f"{mm:.2f}" for mm in geometry.spacing_ijk_mm)
    seen = tuple(notice.text for notice in notices if notice.code in FIELD_OF_VIEW_CODES)
    other = tuple(notice.text for notice in notices if notice.code not in FIELD_OF_VIEW_CODES)
    return Facts((f"CT of the chest, {size} voxels of {spacing} mm.", *other), seen)


def volume_sha256(volume: Volume) -> str:
    """Of an image's voxels and matrix: the same image gives the same, whatever file it came in."""
    digest = hashlib.sha256(repr((volume.array.dtype.str, volume.array.shape)).encode("ascii"))
    digest.update(np.ascontiguousarray(volume.ijk_to_ras).tobytes())
    for plane in volume.array:
        digest.update(np.ascontiguousarray(plane).tobytes())
    return digest.hexdigest()


def _reads_features(request: ReportRequest) -> bool:
    """Whether anything is asked that reads what an encoder answers."""
    return request.models.classifier is not None or _writes_with_model(request)


def _writes_with_model(request: ReportRequest) -> bool:
    return request.engine == LANGUAGE_MODEL and not request.findings_only


def _weights(request: ReportRequest) -> Mapping[str, float]:
    """The stages of this run and how long each is beside the others, as measured on a processor."""
    models = request.models
    encodes = models.encoder is not None and _reads_features(request)
    stages = {CHECKING: 1.0}
    if encodes or models.classifier is not None or models.localizer is not None:
        stages[answers.LOADING] = 2.0
    stages |= {FINDING: 7.0, MEASURING: 10.0}
    if encodes:
        stages[answers.ENCODING] = 100.0
    if models.classifier is not None:
        stages[answers.CLASSIFYING] = 1.0
    if models.localizer is not None:
        stages[answers.DRAWING] = 30.0
    stages[WRITING] = 100.0 if _writes_with_model(request) else 2.0
    return stages


def _asked(
    opened: answers.OpenModels, request: ReportRequest, anatomy: Anatomy, context: Context, stages: Stages
) -> _Answers:
    if not opened.used:
        idle = request.models.encoder is not None
        return _Answers(remarks=("The encoder was not asked: nothing reads its features.",) if idle else ())
    from MedAILib.models.torchuse import torch_threads

    remarks = list(_remarks_on_encoder(opened))
    features: Features | None = None
    predictions: tuple[Prediction, ...] = ()
    with torch_threads(context.threads):
        if opened.encoder is not None:
            stages.enter(answers.ENCODING)
            features = answers.encoded(opened, request.volume, anatomy, stages, request.cache)
        if opened.classifier is not None and features is not None:
            stages.enter(answers.CLASSIFYING)
            predictions, others = answers.predicted(opened.classifier, features)
            remarks += _remarks_on(opened.classifier.encoder_sha256, others)
        if opened.localizer is not None:
            stages.enter(answers.DRAWING)
        drawn = answers.drawings(opened, request.volume, anatomy, stages)
    for one in opened.used:
        context.used_weights(one.id, one.sha256)
    return _Answers(
        predictions=predictions,
        drawings=drawn,
        remarks=tuple(remarks),
        features=features,
        encoder_sha256="" if opened.encoder is None else opened.encoder.sha256,
        names=tuple(f"{one.role} {one.id} sha256:{one.sha256}" for one in opened.used),
    )


def _remarks_on_encoder(opened: answers.OpenModels) -> Iterator[str]:
    if opened.encoder is not None and opened.encoder.assumed:
        yield (
            f"Nothing in the file of the encoder {opened.encoder.id} says what it reads: grid, window and axes are "
            "taken to be as published."
        )


def _remarks_on(encoder_sha256: str, others: Sequence[str]) -> list[str]:
    remarks = []
    if not encoder_sha256:
        remarks.append("The classifier does not say which encoder it was trained on; that it fits was not checked.")
    if others:
        remarks.append(f"Classes of the classifier that are no findings here were left out: {', '.join(others)}.")
    return remarks


def _given(request: ReportRequest, anatomy: Anatomy) -> tuple[tuple[Measurement, ...], tuple[str, ...]]:
    """What the segments of the request show, and what to say of those that show no finding."""
    if request.masks is None:
        return (), ()
    found, unknown = measured_segments(request.masks, anatomy)
    text = f"Segments that bear no finding's name were left out: {', '.join(unknown)}."
    return found, (text,) if unknown else ()


def _provenance(request: ReportRequest, context: Context, models: Sequence[str]) -> dict[str, str]:
    return {
        "medai": __version__,
        "engine": request.engine,
        "image_sha256": volume_sha256(request.volume),
        "file_sha256": request.input_sha256,
        "modality": request.modality or "not said",
        "models": "; ".join(models) or "none",
        "models_given": answers.fingerprint_of(request.models),
        "prompt": "none",
        "preprocessing": str(preprocess.VERSION),
        "device": context.device,
    }
