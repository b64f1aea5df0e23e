"""The engine: pictures through the router to the experts, in groups, with a reason for every picture turned away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from MedAILib.errors import Cancelled, InputError, MedAIError, ModelNotInstalled
from MedAILib.models.heads import HeadTask
from MedMNISTRouterLib.answers import TASKS, probabilities, read
from MedMNISTRouterLib.cache import ModelCache
from MedMNISTRouterLib.checks import is_colour, problem_with
from MedMNISTRouterLib.datasets import BY_FLAG, FLAGS, Crop
from MedMNISTRouterLib.memory import default_budget
from MedMNISTRouterLib.prepare import GREY, eight_bit, prepared
from MedMNISTRouterLib.request import (
    ROUTER,
    Answer,
    CacheStats,
    ModelChoice,
    PlainImage,
    RouteRequest,
    RouteResult,
    Stage,
)
from MedMNISTRouterLib.routes import Choice, choose
from MedMNISTRouterLib.served import LoadedModel, Served, Server
from MedMNISTRouterLib.session import Outputs
from MedMNISTRouterLib.slots import Slots

OnProgress = Callable[[str, float], None]
_PICTURES_TO_COMPARE = 8
NO_EXPERT = "NO_EXPERT"


@dataclass(eq=False)
class _Case:
    """One picture on its way."""

    image: PlainImage
    answer: Answer
    pixels: np.ndarray
    milliseconds: dict[str, float] = field(default_factory=dict)
    is_open: bool = True
    gated: bool = False
    """Whether a gate has accepted it."""

    def close(self, **changes: object) -> None:
        self.answer = replace(self.answer, **changes)  # type: ignore[arg-type]
        self.is_open = False

    def turn_away(self, stage: Stage, reason: str, **changes: object) -> None:
        self.close(recognised=False, stage=stage, reason=reason, **changes)

    def fail(self, error: MedAIError) -> None:
        self.close(error=error.text, error_code=error.code)

    def took(self, what: str, seconds: float) -> None:
        self.milliseconds[what] = self.milliseconds.get(what, 0.0) + 1000 * seconds


@dataclass(frozen=True)
class _Told:
    """Progress of one stage: from ``start`` on, so much of the whole run."""

    on_progress: OnProgress
    name: str
    start: float
    span: float

    def share(self, done: float) -> None:
        self.on_progress(self.name, self.start + done * self.span)

    def stage(self, name: str) -> None:
        """Something else that has to be done first."""
        self.on_progress(name, self.start)


class RouteEngine:
    """Keeps models loaded from request to request; may be used from several threads.

    Parameters
    ----------
    threads : int
        Per model that runs.
    memory_budget_bytes : int, optional
        For loaded models; default: `default_budget`. A request may state another.
    """

    def __init__(self, threads: int = 1, memory_budget_bytes: int | None = None) -> None:
        self._threads = threads
        self._budget = default_budget() if memory_budget_bytes is None else memory_budget_bytes
        self._cache: ModelCache[LoadedModel] = ModelCache(self._budget)
        self._servers: dict[tuple[Path | None, tuple[ModelChoice, ...]], Server] = {}
        self._making = threading.Lock()

    def route(self, request: RouteRequest, on_progress: OnProgress = lambda stage, fraction: None) -> RouteResult:
        """Answer a request. Whatever goes wrong with one model is said in the answers that needed it.

        Parameters
        ----------
        request : RouteRequest
        on_progress : callable
            Told the stage and the fraction done; what it raises ends the run.

        Raises
        ------
        InputError
            The request itself cannot be understood.
        """
        validate(request)
        budget = self._budget if request.memory_budget_bytes is None else request.memory_budget_bytes
        self._cache.set_budget(budget)
        server = self._server(request)
        on_progress("Looking at the pictures", 0.0)
        cases = [_started(image) for image in request.images]
        for case in cases:
            case.answer = replace(case.answer, routed_dataset=request.expert)
        if not request.expert:
            told = _Told(on_progress, "Routing", 0.05, 0.35)
            self._route(server, request, [case for case in cases if case.is_open], told)
        groups = _by_dataset(case for case in cases if case.is_open)
        at, total = 0.4, sum(map(len, groups.values()))
        for flag, group in groups.items():
            span = 0.6 * len(group) / total
            self._ask(server, request, flag, group, _Told(on_progress, f"Asking the {_expert(flag)}", at, span))
            at += span
        return RouteResult(tuple(_finished(case) for case in cases), self._cache.stats())

    def stats(self) -> CacheStats:
        """The loaded models."""
        return self._cache.stats()

    def clear(self) -> None:
        """Close every loaded model; its memory goes back to the operating system."""
        self._cache.clear()

    def _server(self, request: RouteRequest) -> Server:
        key = (request.models_folder, request.models)
        with self._making:
            if key not in self._servers:
                self._servers[key] = Server(Slots(request.models_folder, request.models), self._threads)
            return self._servers[key]

    def _route(self, server: Server, request: RouteRequest, cases: list[_Case], told: _Told) -> None:
        """Send each picture to a data set, or turn it away."""
        served = _served(server, ROUTER, cases, told)
        if served is None:
            return
        cases = _without_colour_for(served.wanted.channels == GREY, Stage.ROUTER, "the router knows grey images", cases)
        run = self._run(served, cases, request.batch_size, "router", told)
        if run is None:
            return
        chances, distances = run
        installed: dict[str, bool] = {}

        def is_installed(flag: str) -> bool:
            if flag not in installed:
                installed[flag] = server.slots.find(flag).is_usable
            return installed[flag]

        for case, row, distance in zip(cases, chances, distances, strict=True):
            choice = choose(served.head, row, is_installed, request.top, case.image.plane)
            case.answer = replace(
                case.answer,
                router_confidence=choice.confidence,
                routes=choice.routes,
                calibrated=bool(served.head.calibrated_on),
                warnings=(*case.answer.warnings, *choice.warnings),
            )
            if _passes_gate(case, served, distance, choice.confidence, Stage.ROUTER):
                _send(case, choice)

    def _ask(self, server: Server, request: RouteRequest, flag: str, cases: list[_Case], told: _Told) -> None:
        """Let the expert of a data set answer for its pictures."""
        dataset = BY_FLAG[flag]
        served = _served(server, flag, cases, told)
        if served is None:
            return
        knows = f"the images of {dataset.title} are grey"
        cases = _without_colour_for(dataset.channels == 1, Stage.EXPERT, knows, cases)
        run = self._run(served, cases, request.batch_size, "expert", told, dataset.crop)
        if run is None:
            return
        for case, row, distance in zip(cases, *run, strict=True):
            if not _passes_gate(case, served, distance, float(row.max()), Stage.EXPERT):
                continue
            if not case.gated and not request.without_gate:
                case.turn_away(Stage.EXPERT, _ungated(flag, served))
                continue
            reading = read(served.head, row)
            if dataset.channels == 3 and not is_colour(case.pixels):
                text = f"The picture is grey; the images of {dataset.title} are in colours."
                case.answer = replace(case.answer, warnings=(*case.answer.warnings, text))
            case.close(
                success=True,
                recognised=True,
                reason="" if case.gated else "No statistics tell whether the models know pictures of this kind.",
                task=TASKS[served.head.task],
                class_names=served.head.class_names,
                calibrated=bool(served.head.calibrated_on),
                **vars(reading),
            )

    def _run(
        self,
        served: Served,
        cases: list[_Case],
        batch_size: int,
        what: str,
        told: _Told,
        crop: Crop = Crop.NONE,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Probabilities and distances of the pictures; None where there are none, or the model failed (then said)."""
        if not cases:
            return None
        try:
            started = time.perf_counter()
            with self._cache.using(served.key, served.expected_bytes, served.load) as model:
                _share(cases, "load", time.perf_counter() - started)
                parts = []
                for at in range(0, len(cases), batch_size):
                    told.share(at / len(cases))
                    parts.append(_run_chunk(model, served, cases[at : at + batch_size], what, crop))
            answers = np.concatenate([part.answers for part in parts])
            features = [part.features for part in parts if part.features is not None]
            chances = probabilities(served.head, answers)
            distances = np.full(len(cases), np.nan)
            if served.gate is not None and features:
                distances = served.gate.distances(np.concatenate(features))
        except Cancelled:
            raise
        except MedAIError as error:
            for case in cases:
                case.fail(error)
            return None
        for case in cases:
            case.answer = replace(
                case.answer,
                models=(*case.answer.models, served.used),
                engine=served.used.engine,
                warnings=(*case.answer.warnings, *served.warnings),
            )
        return chances, distances


def validate(request: RouteRequest) -> None:
    """Say every problem of a request at once."""
    problems = []
    if request.expert and request.expert not in FLAGS:
        problems.append(f"there is no expert '{request.expert}' (there are: {', '.join(FLAGS)})")
    for name in ("top", "batch_size"):
        if getattr(request, name) < 1:
            problems.append(f"{name} is {getattr(request, name)}; it must be 1 or more")
    if request.memory_budget_bytes is not None and request.memory_budget_bytes < 0:
        problems.append("the memory budget is below 0")
    if problems:
        raise InputError("The pictures cannot be routed: " + "; ".join(problems) + ".")


def _started(image: PlainImage) -> _Case:
    started = time.perf_counter()
    shown = eight_bit(image)
    warnings = (shown.remark,) if shown.remark else ()
    case = _Case(image, Answer(image.name, warnings=warnings), shown.pixels)
    problem = problem_with(image, shown.pixels)
    if problem:
        case.turn_away(Stage.INPUT, problem)
    case.took("prepare", time.perf_counter() - started)
    return case


def _served(server: Server, slot: str, cases: list[_Case], told: _Told) -> Served | None:
    """What serves a slot; where nothing does, that is the answer of all its pictures."""
    if not cases:
        return None
    started = time.perf_counter()
    try:
        return server.serve(slot, [case.pixels for case in cases[:_PICTURES_TO_COMPARE]], told.stage)
    except Cancelled:
        raise
    except MedAIError as error:
        for case in cases:
            case.fail(error)
        return None
    finally:
        _share(cases, "load", time.perf_counter() - started)


def _run_chunk(model: LoadedModel, served: Served, cases: list[_Case], what: str, crop: Crop) -> Outputs:
    with _timed(cases, "prepare"):
        batch = np.stack([prepared(case.pixels, served.wanted, crop) for case in cases])
    with _timed(cases, what):
        return model.run(batch)


def _without_colour_for(grey_only: bool, stage: Stage, knows: str, cases: list[_Case]) -> list[_Case]:
    """Turn away pictures in colours where only grey ones are known; answers the others."""
    for case in cases if grey_only else ():
        if is_colour(case.pixels):
            case.turn_away(stage, f"It is a picture in colours; {knows}.")
    return [case for case in cases if case.is_open]


def _passes_gate(case: _Case, served: Served, distance: float, confidence: float, stage: Stage) -> bool:
    """Judge a picture by its features and by the confidence; a model without statistics lets everything pass."""
    threshold = served.threshold
    if threshold is None or np.isnan(distance):
        return True
    case.answer = replace(case.answer, distance=float(distance), threshold=threshold)
    who = "router" if stage is Stage.ROUTER else _expert(served.used.slot)
    if not distance <= threshold:
        case.turn_away(
            stage,
            f"It is not like the images the {who} was trained on: its features lie {distance:.2f} from theirs, "
            f"up to {threshold:.2f} is accepted.",
        )
        return False
    if confidence < served.least_confidence and served.head.task is not HeadTask.MULTI_LABEL:
        case.turn_away(
            stage,
            f"The {who} is not sure: its best answer has the probability {confidence:.2f}, "
            f"{served.least_confidence:.2f} is asked for.",
        )
        return False
    case.gated = True
    return True


def _send(case: _Case, choice: Choice) -> None:
    """To the chosen data set; where there is none, the picture is known and nobody can say more."""
    case.answer = replace(case.answer, routed_dataset=choice.dataset, recognised=case.gated)
    if not choice.dataset:
        error = ModelNotInstalled(
            f"It looks like this: {choice.name}. None of the twelve data sets has such images, so no expert knows them."
        )
        case.close(error=error.text, error_code=NO_EXPERT)


def _expert(flag: str) -> str:
    return f"expert for {BY_FLAG[flag].title}"


def _ungated(flag: str, served: Served) -> str:
    fit = f"Fit them (medai train gate --model '{served.folder}' --data {flag}.npz), or ask" if served.folder else "Ask"
    return (
        "Whether the models know pictures of this kind cannot be judged: there are no statistics of their training "
        f"images. {fit} for an answer without them (--without-gate)."
    )


def _by_dataset(cases: Iterable[_Case]) -> dict[str, list[_Case]]:
    groups: dict[str, list[_Case]] = {}
    for case in cases:
        groups.setdefault(case.answer.routed_dataset, []).append(case)
    return groups


def _finished(case: _Case) -> Answer:
    times: Mapping[str, float] = {**case.milliseconds, "total": sum(case.milliseconds.values())}
    return replace(case.answer, milliseconds=times, warnings=tuple(dict.fromkeys(case.answer.warnings)))


@contextmanager
def _timed(cases: list[_Case], what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    _share(cases, what, time.perf_counter() - started)


def _share(cases: list[_Case], what: str, seconds: float) -> None:
    """Book time that was spent for several pictures together."""
    for case in cases:
        case.took(what, seconds / len(cases))
