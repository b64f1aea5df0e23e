"""What an analysis of a knee is asked: images as values, the steps, and how each is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from KneeAnalysisLib.echoes import EchoSeries
from KneeAnalysisLib.labels import LabelScheme, label_scheme, scheme_from_keys
from KneeAnalysisLib.measures import ThicknessOptions
from KneeAnalysisLib.segmentation import EngineName, EngineOptions
from KneeAnalysisLib.t2 import TISSUE_T1_MS, UNIFORM_T1_MS, DecayFit, T2Options
from MedAILib.errors import ConfigError, MedAIError
from MedAILib.volume import LabelMap, Volume

SIDES = ("auto", "left", "right")


class Step(Enum):
    """The steps of an analysis, in their order, as the command line spells them."""

    SEGMENT = "segment"
    MESHES = "meshes"
    THICKNESS = "thickness"
    SUBREGIONS = "subregions"
    T2 = "t2"
    STATISTICS = "statistics"
    REPORT = "report"

    @property
    def title(self) -> str:
        """For people."""
        return _TITLES[self]


_TITLES = {
    Step.SEGMENT: "Segmentation",
    Step.MESHES: "Surfaces",
    Step.THICKNESS: "Thickness",
    Step.SUBREGIONS: "Sub-regions",
    Step.T2: "T2",
    Step.STATISTICS: "Statistics",
    Step.REPORT: "Report",
}

ALL_STEPS: tuple[Step, ...] = tuple(Step)

NEEDS: Mapping[Step, tuple[Step, ...]] = {
    Step.SEGMENT: (),
    Step.MESHES: (Step.SEGMENT,),
    Step.THICKNESS: (Step.MESHES,),
    Step.SUBREGIONS: (Step.SEGMENT,),
    Step.T2: (Step.SEGMENT,),
    Step.STATISTICS: (Step.THICKNESS,),
    Step.REPORT: (Step.STATISTICS,),
}
"""What must be there before a step. Statistics take of sub-regions and T2 what was asked for."""

DEFAULT_TIMEOUTS_S: Mapping[Step, float] = {step: 1800.0 if step is Step.SEGMENT else 600.0 for step in Step}


@dataclass(frozen=True)
class T2Settings:
    """How T2 is found; see `KneeAnalysisLib.t2.T2Options`.

    Attributes
    ----------
    fit : DecayFit
        Of multi-echo series.
    skip_first_echo : bool
    uniform_t1 : bool
        qDESS: one T1 of 1200 ms for every tissue, as the reference pipeline has it.
    """

    fit: DecayFit = DecayFit.NON_LINEAR
    skip_first_echo: bool = False
    uniform_t1: bool = False

    def options(self) -> T2Options:
        """As the T2 functions take them."""
        t1_ms = UNIFORM_T1_MS if self.uniform_t1 else TISSUE_T1_MS
        return T2Options(fit=self.fit, skip_first_echo=self.skip_first_echo, t1_ms=t1_ms)


@dataclass(frozen=True, eq=False)
class KneeRequest:
    """Analyse one knee.

    Attributes
    ----------
    image : Volume or None
        The MRI, needed by networks only; of a qDESS examination the root of the sum of squares.
    label_map : LabelMap or None
        A segmentation that is there; taken where the engine is ``none``.
    labels : str or mapping
        What the label map's values mean, or those that a network puts out: ``native``, ``canonical``, the path of a
        JSON file, or a mapping of tissue keys to labels as such a file holds. Empty for a network: its own
        description says.
    engine : EngineName
    weights : tuple of Path
    engine_options : EngineOptions
    echoes : EchoSeries or None
        For T2; without it the step is left out.
    side : str
        ``auto``, ``left`` or ``right``.
    steps : tuple of Step
        Those they need are done as well.
    thickness : ThicknessOptions
        Surfaces included.
    t2 : T2Settings
    finer : bool
        Also split trochlea, weight-bearing condyles and tibial plateaus further.
    name : str
        Start of the names of result files.
    out : Path or None
        Folder for result files and for the results of steps; None keeps nothing.
    resume : bool
        Take steps from that folder that were finished with the same input and options.
    timeouts_s : mapping of str to float
        Seconds that a step may take, by its name, where not `DEFAULT_TIMEOUTS_S`; 0: no limit.
    """

    image: Volume | None = None
    label_map: LabelMap | None = None
    labels: str | Mapping[str, object] = ""
    engine: EngineName = EngineName.NONE
    weights: tuple[Path, ...] = ()
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    echoes: EchoSeries | None = None
    side: str = "auto"
    steps: tuple[Step, ...] = ALL_STEPS
    thickness: ThicknessOptions = field(default_factory=ThicknessOptions)
    t2: T2Settings = field(default_factory=T2Settings)
    finer: bool = False
    name: str = "knee"
    out: Path | None = None
    resume: bool = False
    timeouts_s: Mapping[str, float] = field(default_factory=dict)

    def validate(self) -> None:
        """Say every problem at once.

        Raises
        ------
        ConfigError
            Settings or a combination of them that cannot be run.
        """
        problems = [*self._input_problems(), *self.engine_options.problems(), *self._timeout_problems()]
        if self.side not in SIDES:
            problems.append(f"the side is '{self.side}'; it is auto, left or right")
        if not self.steps:
            problems.append("no step is asked for")
        if not self.name or Path(self.name).name != self.name:
            problems.append(f"the name '{self.name}' cannot start the name of a file")
        if self.resume and self.out is None:
            problems.append("to resume, a folder with the earlier results is needed")
        for check in (self.thickness.validate, self.scheme):
            try:
                check()
            except MedAIError as error:
                problems.append(error.text.rstrip("."))
        if problems:
            raise ConfigError("The analysis cannot start: " + "; ".join(problems) + ".")

    def scheme(self) -> LabelScheme | None:
        """What ``labels`` means; None where it is left to the network.

        Raises
        ------
        InputError
            See `KneeAnalysisLib.labels.label_scheme`.
        """
        if isinstance(self.labels, str):
            return label_scheme(self.labels) if self.labels else None
        return scheme_from_keys(self.labels)

    def timeout_s(self, step: Step) -> float | None:
        """Seconds that a step may take; None for no limit."""
        return self.timeouts_s.get(step.value, DEFAULT_TIMEOUTS_S[step]) or None

    @property
    def plan(self) -> tuple[Step, ...]:
        """The steps asked for and those they need, in their order."""
        return with_needs(self.steps)

    def _input_problems(self) -> list[str]:
        problems = []
        if self.engine is EngineName.NONE:
            if self.label_map is None:
                problems.append("there is no label map, and the engine 'none' makes none")
            if not self.labels:
                problems.append("it is not said what the labels mean: native, canonical, or a JSON file")
        else:
            if self.image is None:
                problems.append(f"the engine '{self.engine.value}' needs an image")
            if not self.weights:
                problems.append(f"there are no weights for the engine '{self.engine.value}'")
            if not isinstance(self.labels, str):
                problems.append("the labels of a network are said by name or file, not as a mapping")
        return problems

    def _timeout_problems(self) -> list[str]:
        known = {step.value for step in Step}
        unknown = [f"there is no step '{name}' to limit" for name in self.timeouts_s if name not in known]
        return unknown + [f"the time limit of {n} is {s} s" for n, s in self.timeouts_s.items() if not s >= 0]


def with_needs(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Steps and those they need, in their order."""
    wanted = set(steps)
    for step in reversed(Step):
        if step in wanted:
            wanted.update(NEEDS[step])
    return tuple(step for step in Step if step in wanted)


def steps_named(text: str) -> tuple[Step, ...]:
    """Steps from their names, separated by commas; ``all`` for every one.

    Raises
    ------
    ConfigError
        A name that is no step.
    """
    if text.strip() == "all":
        return ALL_STEPS
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = {step.value: step for step in Step}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(
            f"There is no step '{', '.join(unknown)}'.", todo="The steps are: " + ", ".join(known) + ", or all."
        )
    return tuple(step for step in Step if step.value in names)
