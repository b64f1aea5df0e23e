"""The analysis as a chain: each step once, in order, under a time limit, kept on disk, or taken from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from KneeAnalysisLib import steps
from KneeAnalysisLib.engines import SegmentTask
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import LabelScheme
from KneeAnalysisLib.request import KneeRequest, Step, with_needs
from KneeAnalysisLib.results import (
    Divided,
    KneeResult,
    Report,
    Segmented,
    Statistics,
    StepRecord,
    Surfaces,
    T2Found,
    Thickness,
    named_regions,
)
from KneeAnalysisLib.segmentation import EngineName, TimedOut
from KneeAnalysisLib.stepstore import Kept, StepStore, fingerprint, loaded_or_none, read_state
from KneeAnalysisLib.thickness import BoneThickness
from MedAILib.errors import Cancelled, MedAIError, WorkerDied
from MedAILib.jobs.failure import as_medai_error
from MedAILib.jobs.task import Context
from MedAILib.volume import LabelMap

VERSION = 1
"""To be raised where a step gives other numbers from the same input: older results are then computed anew."""

NO_ECHOES = "no series with several echoes was given"

_USUAL_S = {
    Step.SEGMENT: 1.5,
    Step.MESHES: 1.5,
    Step.THICKNESS: 2.0,
    Step.SUBREGIONS: 1.0,
    Step.T2: 8.0,
    Step.STATISTICS: 0.7,
    Step.REPORT: 4.0,
}
_USUAL_NETWORK_S = 120.0
"""Seconds of each step, for the share of the progress bar that it gets."""


class KneeChain:
    """One analysis, all of it by `run` or step by step by `value`.

    Parameters
    ----------
    request : KneeRequest
    context : Context, optional
        Progress, cancel, device.
    segmenter : SegmentTask, optional
        Keeps networks loaded between analyses.

    Raises
    ------
    ConfigError
        See `KneeRequest.validate`.
    """

    def __init__(
        self, request: KneeRequest, context: Context | None = None, segmenter: SegmentTask | None = None
    ) -> None:
        request.validate()
        self.request = request
        self.context = context or Context()
        self._segmenter = segmenter or SegmentTask()
        self._scheme = request.scheme()
        self._values: dict[Step, Any] = {}
        self._records: dict[Step, StepRecord] = {}
        self._store = StepStore(request.out) if request.out is not None else None
        if self._store is not None and not request.resume:
            self._store.clear()
        self._keys: dict[Step, str] = {}
        self._plan = request.plan

    def run(self) -> KneeResult:
        """Do every step of the plan that is not done yet; answers all that was found.

        Raises
        ------
        MedAIError
            What a step raised; steps finished before it are kept and the message says where.
        """
        for step in self._plan:
            self.value(step)
        return self.result()

    def value(self, step: Step) -> Any:
        """The value of a step: of this run, of an earlier one, or computed now with all that it needs."""
        if step not in self._values:
            if step not in self._plan:
                self._plan = with_needs((*self._plan, step))
                self._keys.clear()
            for needed in with_needs((step,))[:-1]:
                self.value(needed)
            for wanted in _TAKES.get(step, ()):
                if wanted in self._plan:
                    self.value(wanted)
            self._values[step] = self._obtained(step)
        return self._values[step]

    def result(self) -> KneeResult:
        """What the steps done so far have found."""
        segmented: Segmented = self.value(Step.SEGMENT)
        found = self._values.get
        surfaces: Surfaces | None = found(Step.MESHES)
        thickness: Thickness | None = found(Step.THICKNESS)
        divided: Divided | None = found(Step.SUBREGIONS)
        t2: T2Found | None = found(Step.T2)
        statistics: Statistics | None = found(Step.STATISTICS)
        bones = () if thickness is None else thickness.bones
        return KneeResult(
            name=self.request.name,
            segmented=segmented,
            regions=self._undone(None if divided is None else divided.labels),
            finer_regions=self._undone_finer(divided),
            depth=self._undone_depth(divided, t2),
            surfaces=surfaces,
            bones=_with_labels(bones, statistics),
            t2=None if t2 is None else t2.map,
            statistics=statistics,
            report=found(Step.REPORT),
            missing=self.knee.missing,
            notes=self._notes(segmented, surfaces, divided, t2),
            steps=tuple(self._records[step] for step in Step if step in self._records),
            out=self.request.out,
        )

    @cached_property
    def knee(self) -> Knee:
        """The segmented knee in canonical orientation."""
        return steps.knee_of(self.value(Step.SEGMENT))

    # One step

    def _obtained(self, step: Step) -> Any:
        if step is Step.T2 and self.request.echoes is None:
            self._records[step] = StepRecord(step.value, skipped=NO_ECHOES)
            return T2Found(None)
        key = self._key(step)
        kept = self._kept(step, key)
        value = loaded_or_none(self._store, step.value) if kept is not None and self._store is not None else None
        if kept is not None and value is not None:
            self._records[step] = StepRecord(step.value, kept.seconds, reused=True)
            return value
        return self._computed(step, key)

    def _computed(self, step: Step, key: str) -> Any:
        started = time.monotonic()
        context = StepContext(self.context, step, self._span(step), self.request.timeout_s(step))
        try:
            context.progress("", 0.0)
            value = self._work[step](context)
            context.check()
        except (MedAIError, MemoryError) as error:
            raise self._with_advice(as_medai_error(error), step) from error
        seconds = time.monotonic() - started
        if self._store is not None:
            self._store.save(step.value, key, value, seconds)
        self._records[step] = StepRecord(step.value, seconds)
        return value

    @property
    def _work(self) -> dict[Step, Callable[[Context], Any]]:
        request, get = self.request, self._values.get
        return {
            Step.SEGMENT: lambda context: steps.segment(request, context, self._segmenter),
            Step.MESHES: lambda context: steps.make_surfaces(self.knee, request.thickness.mesh, context),
            Step.THICKNESS: lambda context: steps.measure(
                self.knee, self._values[Step.MESHES], request.thickness, context
            ),
            Step.SUBREGIONS: lambda context: steps.divide(self.knee, request.finer, context),
            Step.T2: lambda context: steps.find_t2(self.knee, request.echoes, request.t2.options(), context),  # type: ignore[arg-type]
            Step.STATISTICS: lambda context: steps.gather(
                self.knee,
                self._values[Step.THICKNESS],
                get(Step.SUBREGIONS),
                get(Step.T2),
                request.thickness.largest_hole_mm2,
                context,
            ),
            Step.REPORT: self._report,
        }

    def _report(self, context: Context) -> Report:
        from KneeAnalysisLib.pictures import draw_pictures

        return draw_pictures(self.result().bones, self.value(Step.SEGMENT).side, context)

    def _with_advice(self, error: MedAIError, step: Step) -> MedAIError:
        """The error with what is finished and how to go on."""
        done = [one.value for one in Step if one in self._records and not self._records[one].skipped]
        if self._store is not None and done:
            error.todo = f"{error.todo} {resume_advice(done, self._store.out)}".strip()
        error.details = f"step: {step.value}\n{error.details}".rstrip()
        return error

    # Keys and progress

    def _kept(self, step: Step, key: str) -> Kept | None:
        return self._store.kept(step.value, key) if self._store is not None and self.request.resume else None

    def _key(self, step: Step) -> str:
        """Fingerprint of all that a step's value depends on."""
        if step not in self._keys:
            before = [self._key(one) for one in with_needs((step,))[:-1]]
            before += [self._key(one) for one in _TAKES.get(step, ()) if one in self._plan]
            self._keys[step] = fingerprint(VERSION, step, before, self._inputs(step))
        return self._keys[step]

    def _inputs(self, step: Step) -> Any:
        request = self.request
        if step is Step.SEGMENT:
            scheme = None if self._scheme is None else _plain(self._scheme)
            if request.engine is EngineName.NONE:
                return (request.label_map, scheme, request.side)
            return (request.image, scheme, request.side, request.engine, request.weights, request.engine_options)
        return {
            Step.MESHES: request.thickness.mesh,
            Step.THICKNESS: request.thickness,
            Step.SUBREGIONS: request.finer,
            Step.T2: (request.echoes, request.t2),
        }.get(step)

    def _span(self, step: Step) -> tuple[float, float]:
        """Where a step begins and ends on the progress of the whole; reused steps take nothing."""
        network = self.request.engine is not EngineName.NONE
        usual = dict(_USUAL_S) | ({Step.SEGMENT: _USUAL_NETWORK_S} if network else {})
        to_do = [one for one in self._plan if self._takes_time(one, step)]
        total = sum(usual[one] for one in to_do)
        low = sum(usual[one] for one in to_do if list(Step).index(one) < list(Step).index(step)) / total
        return low, low + usual[step] / total

    def _takes_time(self, step: Step, now: Step) -> bool:
        if step is now:
            return True
        if step is Step.T2 and self.request.echoes is None:
            return False
        record = self._records.get(step)
        return not record.reused if record is not None else self._kept(step, self._key(step)) is None

    # Results on the grid of the input

    def _undone(self, labels: np.ndarray | None) -> LabelMap | None:
        return None if labels is None else self.knee.undone(named_regions(labels, self.knee.label_map()))

    def _undone_finer(self, divided: Divided | None) -> LabelMap | None:
        if divided is None or divided.finer is None:
            return None
        return self.knee.undone(steps.finer_label_map(divided.finer, self.knee))

    def _undone_depth(self, divided: Divided | None, t2: T2Found | None) -> LabelMap | None:
        if t2 is None or t2.depth is None:
            return None
        regions = self.knee.labels if divided is None or divided.labels is None else divided.labels
        return self.knee.undone(steps.depth_label_map(steps.depth_values(regions, t2.depth), self.knee))

    def _notes(
        self, segmented: Segmented, surfaces: Surfaces | None, divided: Divided | None, t2: T2Found | None
    ) -> tuple[str, ...]:
        notes = list(segmented.notes)
        if self.knee.missing:
            names = ", ".join(tissue.title.lower() for tissue in self.knee.missing)
            notes.append(f"The segmentation lacks: {names}.")
        for part in (surfaces, divided, t2):
            notes += [] if part is None else part.notes
        return tuple(dict.fromkeys(notes))


class StepContext(Context):
    """A context that a step gets: its progress is a part of the whole, and its time may be limited.

    Parameters
    ----------
    whole : Context
    step : Step
    span : tuple of float
        Fractions of the whole at which the step begins and ends.
    timeout_s : float or None
    """

    def __init__(self, whole: Context, step: Step, span: tuple[float, float], timeout_s: float | None) -> None:
        super().__init__(whole.device, whole.threads, whole.scratch, warnings=whole.warnings, stages=whole.stages)
        self._whole = whole
        self._step = step
        self._span = span
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def progress(self, stage: str, fraction: float, detail: str = "", eta_s: float | None = None) -> None:
        self.check()
        low, high = self._span
        within = ", ".join(part for part in (stage, detail) if part)
        self._whole.progress(self._step.title, low + min(max(fraction, 0.0), 1.0) * (high - low), within)

    def check(self) -> None:
        self._whole.check()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TimedOut(
                f"The step '{self._step.value}' took longer than the {self._timeout_s:g} s it was given.",
                todo="Give it more time, or a faster machine.",
            )

    def warn(self, text: str) -> None:
        self._whole.warn(text)


def with_resume_advice(error: MedAIError, out: Path) -> MedAIError:
    """An error of a runner (a worker that died, a run that was cancelled) with what is finished and how to go on."""
    done = [step.value for step in Step if step.value in read_state(out)]
    advice = resume_advice(done, out)
    if done and isinstance(error, WorkerDied | Cancelled) and advice not in error.todo:
        error.todo = f"{error.todo} {advice}".strip()
    return error


def resume_advice(done: Sequence[str], out: Path) -> str:
    """What to do after a run that ended early."""
    return f"Finished steps ({', '.join(done)}) are kept in '{out}'; resume there and they are not computed again."


_TAKES = {Step.STATISTICS: (Step.SUBREGIONS, Step.T2)}
"""What a step takes into account where it is part of the plan."""


def _plain(scheme: LabelScheme) -> dict[str, tuple[int | str, ...]]:
    return {tissue.key: tuple(values) for tissue, values in sorted(scheme.labels.items())}


def _with_labels(bones: tuple[BoneThickness, ...], statistics: Statistics | None) -> tuple[BoneThickness, ...]:
    if statistics is None:
        return bones
    return tuple(replace(bone, labels=labels) for bone, labels in zip(bones, statistics.point_labels, strict=True))
