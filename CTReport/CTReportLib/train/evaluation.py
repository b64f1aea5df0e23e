"""Models measured on scans of which labels, masks or reports are known, through the very steps of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from CTReportLib import answers
from CTReportLib.anatomy import Anatomy, find_anatomy
from CTReportLib.exports import report_text
from CTReportLib.extractor import labels_of
from CTReportLib.findings import FINDINGS, find
from CTReportLib.localised import DRAWN
from CTReportLib.prediction import Prediction
from CTReportLib.request import Models, ReportRequest
from CTReportLib.stages import Stages
from CTReportLib.task import ReportTask
from CTReportLib.train.ctrate import CtCase, read_data
from CTReportLib.train.measures import (
    DrawingScore,
    FindingScore,
    drawing_score,
    finding_score,
    label_f1,
    structure_score,
)
from CTReportLib.train.store import known_masks
from MedAILib.errors import ConfigError
from MedAILib.grids import resampled
from MedAILib.imageio import read_volume
from MedAILib.jobs.task import Context
from MedAILib.models.torchuse import torch_threads
from MedAILib.multitask.train.measures import dice
from MedAILib.volume import Volume

TASK = "CTReportLib.train.evaluation:EvaluateTask"
REPORT_SECTIONS = ("Technique", "Findings", "Impression")
LARGE_MM = 10.0
"""Nodules above this are scored by themselves as well."""
LARGE_NODULES = f"lung_nodule over {LARGE_MM:.0f} mm"


@dataclass(frozen=True)
class EvaluateRequest:
    """Measure models on a data set.

    Attributes
    ----------
    data : Path
        See `CTReportLib.train.ctrate`.
    models : Models
    split : str
        Only this one; empty: all.
    reports : bool
        Also write a report of each scan and hold its findings against those of the given report, or, where there is
        none, against the labels.
    cache : Path or None
        Folder for features; None: that of the reports.
    seed : int
        Of the bootstraps.
    """

    data: Path
    models: Models
    split: str = ""
    reports: bool = False
    cache: Path | None = None
    seed: int = 0

    def validate(self) -> None:
        """Say every problem at once; raises `ConfigError`."""
        problems = list(self.models.problems())
        if self.models.classifier is None and self.models.localizer is None and not self.reports:
            problems.append("there is no classifier, no localizer and no report to measure")
        if problems:
            raise ConfigError("The models cannot be measured: " + "; ".join(problems) + ".")


@dataclass(frozen=True)
class ReportScore:
    """How well the findings of written reports agree with those of the given ones.

    Attributes
    ----------
    scans : int
    macro_f1 : float or None
        Of label sets, as our extractor reads both texts.
    f1 : dict
        Of each finding that occurs.
    structure : float
        Mean share of the sections that the written reports have, in order.
    against : str
        ``reports`` or ``labels``.
    """

    scans: int
    macro_f1: float | None
    f1: dict[str, float]
    structure: float
    against: str


@dataclass(frozen=True)
class EvaluateResult:
    """What was measured.

    Attributes
    ----------
    scans, patients : int
    findings : tuple of FindingScore
    drawings : tuple of DrawingScore
    reports : ReportScore or None
    models : dict
        Id and sha256 of each that answered, by its role.
    """

    scans: int
    patients: int
    findings: tuple[FindingScore, ...] = ()
    drawings: tuple[DrawingScore, ...] = ()
    reports: ReportScore | None = None
    models: dict[str, dict[str, str]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class EvaluateTask:
    """Measures encoder, classifier and localizer on a data set."""

    def run(self, request: EvaluateRequest, context: Context) -> EvaluateResult:
        """Run the request.

        Raises
        ------
        ConfigError
            The models cannot be measured, or do not fit each other.
        InputError, FileMissing
            Of the data.
        InvalidWeights, ConfigMismatch, MissingPackage
            Of the models.
        Cancelled
        """
        request.validate()
        context.progress("Reading the data", 0.0)
        data = read_data(request.data)
        for text in data.remarks:
            context.warn(text)
        cases = data.of_split(request.split)
        with torch_threads(context.threads):
            opened = answers.open_models(request.models, context.device)
            for model in opened.used:
                context.used_weights(model.id, model.sha256)
            tally = _Tally(request, cases)
            for number, case in enumerate(cases):
                context.progress("Measuring", number / len(cases), f"scan {number + 1} of {len(cases)}: {case.name}")
                _measure(case, opened, tally, context)
        context.progress("Measuring", 1.0)
        return tally.result({model.role: {"id": model.id, "sha256": model.sha256} for model in opened.used})


def _measure(case: CtCase, opened: answers.OpenModels, tally: _Tally, context: Context) -> None:
    volume = read_volume(case.volume)
    stages = Stages(Context(is_cancelled=context.is_cancelled), {answers.ENCODING: 1.0, answers.DRAWING: 1.0})
    if opened.classifier is not None:
        stages.enter(answers.ENCODING)
        features = answers.encoded(opened, volume, None, stages, tally.request.cache)
        tally.add_predictions(answers.predicted(opened.classifier, features)[0])
    if opened.localizer is not None:
        stages.enter(answers.DRAWING)
        tally.add_drawings(case, _drawn(opened, volume, find_anatomy(volume), stages), volume)
    if tally.request.reports:
        report = tally.reporter.run(
            ReportRequest(volume, modality="CT", name=case.name, models=tally.request.models),
            Context(device=context.device, threads=context.threads, is_cancelled=context.is_cancelled),
        )
        tally.add_report(case, report_text(report))


def _drawn(opened: answers.OpenModels, volume: Volume, anatomy: Anatomy, stages: Stages) -> Mapping[str, Volume]:
    found = {}
    for one in answers.drawings(opened, volume, anatomy, stages):
        finding = find(one.name.removesuffix(DRAWN))
        if finding is not None and one.mask is not None:
            found[finding.id] = one.mask
    return found


@dataclass
class _Pairs:
    """Of a drawn finding, scan by scan."""

    dices: list[float] = field(default_factory=list)
    errors_ml: list[float] = field(default_factory=list)
    alarms: list[bool] = field(default_factory=list)

    def add(self, drawn: np.ndarray, truth: np.ndarray, voxel_ml: float) -> None:
        if truth.any():
            self.dices.append(dice(drawn, truth))
            self.errors_ml.append((int(drawn.sum()) - int(truth.sum())) * voxel_ml)
        else:
            self.alarms.append(bool(drawn.any()))


class _Tally:
    """What was found so far."""

    def __init__(self, request: EvaluateRequest, cases: Sequence[CtCase]) -> None:
        self.request, self._cases = request, cases
        self.reporter = ReportTask()
        self._predictions: list[tuple[Prediction, ...]] = []
        self._pairs: dict[str, _Pairs] = {}
        self._texts: list[tuple[frozenset[str], frozenset[str]]] = []
        self._structure: list[float] = []
        self._against = "reports" if any(case.report for case in cases) else "labels"

    def add_predictions(self, predictions: tuple[Prediction, ...]) -> None:
        self._predictions.append(predictions)

    def add_drawings(self, case: CtCase, drawn: Mapping[str, Volume], volume: Volume) -> None:
        """Of the findings whose truth is known."""
        geometry = volume.geometry
        voxel_ml = abs(float(np.linalg.det(geometry.ijk_to_ras[:3, :3]))) / 1000
        for name, mask in known_masks(case).items():
            empty = np.zeros(geometry.shape_kji, dtype=bool)
            truth = empty if mask is None else resampled(mask, geometry, "nearest").array > 0
            found = drawn[name].array > 0 if name in drawn else empty
            self._pairs.setdefault(name, _Pairs()).add(found, truth, voxel_ml)
            if name == "lung_nodule":
                large, rest = _large_only(truth, found, voxel_ml)
                if large.any() or not truth.any():
                    self._pairs.setdefault(LARGE_NODULES, _Pairs()).add(rest, large, voxel_ml)

    def add_report(self, case: CtCase, text: str) -> None:
        self._structure.append(structure_score(text, REPORT_SECTIONS))
        if case.report:
            self._texts.append((labels_of(text), labels_of(case.report)))
        elif self._against == "labels":
            known = {one.id for one, label in zip(FINDINGS, case.labels, strict=True) if label >= 0}
            truth = frozenset(one.id for one, label in zip(FINDINGS, case.labels, strict=True) if label == 1)
            self._texts.append((labels_of(text) & known, truth))

    def result(self, models: dict[str, dict[str, str]]) -> EvaluateResult:
        reports = None
        if self._structure:
            macro, each = label_f1(self._texts)
            reports = ReportScore(len(self._texts), macro, each, float(np.mean(self._structure)), self._against)
        return EvaluateResult(
            scans=len(self._cases),
            patients=len({case.patient for case in self._cases}),
            findings=self._finding_scores(),
            drawings=tuple(
                drawing_score(name, pairs.dices, pairs.errors_ml, pairs.alarms, self.request.seed)
                for name, pairs in self._pairs.items()
            ),
            reports=reports,
            models=models,
        )

    def _finding_scores(self) -> tuple[FindingScore, ...]:
        if not self._predictions:
            return ()
        scores = []
        for place, first in enumerate(self._predictions[0]):
            number = next(n for n, one in enumerate(FINDINGS) if one.id == first.finding)
            scores.append(
                finding_score(
                    first.finding,
                    np.array([row[place].probability for row in self._predictions]),
                    np.array([case.labels[number] for case in self._cases]),
                    [case.patient for case in self._cases],
                    first.threshold,
                    calibrated=first.calibrated,
                    seed=self.request.seed,
                )
            )
        return tuple(scores)


def _large_only(truth: np.ndarray, drawn: np.ndarray, voxel_ml: float) -> tuple[np.ndarray, np.ndarray]:
    """Truth above `LARGE_MM`, by equivalent diameter; the drawing without bodies that touch smaller ones only."""
    from scipy import ndimage

    around = np.ones((3, 3, 3), dtype=bool)
    labels, count = ndimage.label(truth, around)
    sizes_ml = np.bincount(labels.ravel(), minlength=count + 1) * voxel_ml
    sizes_ml[0] = 0.0
    large: np.ndarray = (sizes_ml > np.pi / 6 * (LARGE_MM / 10) ** 3)[labels]
    bodies, count = ndimage.label(drawn, around)
    touches_small = np.zeros(count + 1, dtype=bool)
    touches_large = np.zeros(count + 1, dtype=bool)
    touches_small[np.unique(bodies[truth & ~large])] = True
    touches_large[np.unique(bodies[large])] = True
    gone = touches_small & ~touches_large
    gone[0] = True
    return large, ~gone[bodies]
