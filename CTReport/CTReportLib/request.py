"""What a report of a chest CT is asked, and what comes back: findings with their evidence, sentences with theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from CTReportLib.keyimages import KeyImage
from CTReportLib.measurement import Measurement
from MedAILib.errors import ConfigError
from MedAILib.volume import LabelMap, Volume

RESEARCH_USE = "Research use only. Not for clinical diagnosis. Computed, not verified by a physician."
ENGINES = ("template", "llm")
"""What writes the report: the template from the finding table alone, or a language model whose text is guarded."""
GIVEN_SEGMENT = ", given segment"
"""End of the names of measurements of segments that came with the image."""
FINDING_TAG, MEASUREMENT_TAG = "MedAI.Finding", "MedAI.Measurement"
"""Tags of segments that show a finding: its id, and the name of the measurement made on it."""


class Decision(Enum):
    """What is said of a finding."""

    PRESENT = "present"
    ABSENT = "absent"
    NOT_JUDGED = "not judged"


class Basis(Enum):
    """What a decision rests on."""

    RULE = "measured by rule"
    MODEL = "model"
    MASK = "segment"
    NOTHING = "nothing"


class Verdict(Enum):
    """What the guard made of a sentence."""

    SUPPORTED = "supported"
    ADDED = "added"
    STRUCK = "struck"
    EDITED = "edited by a person"


@dataclass(frozen=True)
class Models:
    """Which models answer; all optional, as what can be measured needs none.

    Attributes
    ----------
    encoder : Path or None
        Weight file of an encoder of the CT.
    classifier : Path or None
        Weight file of a head for findings that was trained on that encoder.
    localizer : Path or None
        Weight file of a network that draws findings.
    language : Path or None
        Folder of a language model, for the engine that writes with one.
    """

    encoder: Path | None = None
    classifier: Path | None = None
    localizer: Path | None = None
    language: Path | None = None

    @property
    def any(self) -> bool:
        """Whether there is one at all."""
        return any((self.encoder, self.classifier, self.localizer, self.language))

    def problems(self) -> tuple[str, ...]:
        """What keeps them from answering together, in words; the files are not looked at."""
        found = []
        if self.classifier is not None and self.encoder is None:
            found.append("a classifier of findings needs the encoder it was trained on, and none is given")
        for role in ("encoder", "classifier", "localizer"):
            path = getattr(self, role)
            if path is not None and not path.is_file():
                found.append(f"there is no file '{path}' of weights ({role})")
        if self.language is not None and not self.language.is_dir():
            found.append(f"there is no folder '{self.language}' of a language model")
        return tuple(found)


@dataclass(frozen=True, eq=False)
class ReportRequest:
    """Report one chest CT.

    Attributes
    ----------
    volume : Volume
        Hounsfield units.
    masks : LabelMap or None
        Segments on the volume's grid that are known already, such as the lungs.
    modality : str
        As DICOM names it (``CT``, ``MR``); empty where nobody said.
    engine : str
        One of `ENGINES`.
    findings_only : bool
        The finding table without sentences.
    window_hu : tuple of float or None
        Black and white (HU) of key images; None: lung and mediastinum.
    name : str
        Start of the names of result files.
    input_sha256 : str
        Of the file or series, where the face knows it; for provenance.
    models : Models
    cache : Path or None
        Folder in which an encoder's features are kept; None: in that of the models, see
        `CTReportLib.nets.featurecache`.
    """

    volume: Volume
    masks: LabelMap | None = None
    modality: str = ""
    engine: str = "template"
    findings_only: bool = False
    window_hu: tuple[float, float] | None = None
    name: str = "ct"
    input_sha256: str = ""
    models: Models = Models()
    cache: Path | None = None

    def validate(self) -> None:
        """Say every problem at once.

        Raises
        ------
        ConfigError
        """
        problems = list(self.models.problems())
        if self.engine not in ENGINES:
            problems.append(f"there is no engine '{self.engine}'; there is {', '.join(ENGINES)}")
        if self.engine == "llm" and self.models.language is None:
            problems.append("the engine 'llm' needs a language model, and none is given")
        if self.window_hu is not None and not self.window_hu[0] < self.window_hu[1]:
            problems.append("the window's lower value is not the lower one")
        if not self.name or re.search(r"[/\\\0]", self.name):
            problems.append(f"the name '{self.name}' cannot start the name of a file")
        if self.masks is not None and not self.masks.geometry.same_grid_as(self.volume.geometry):
            problems.append("the label map does not lie on the image's grid")
        if problems:
            raise ConfigError("The report cannot be made: " + "; ".join(problems) + ".")


@dataclass(frozen=True)
class FindingRow:
    """A finding of the table: the machine's truth, from which every sentence is made or against which it is held.

    Attributes
    ----------
    finding : str
        Its id in `CTReportLib.findings`.
    name : str
        For people.
    decision : Decision
    basis : Basis
    probability : float or None
        0..1, where a model answered.
    calibrated : bool
        Whether that probability was calibrated.
    threshold : float or None
        Of the probability where there is one, else of the measured value.
    evidence : str
        What the decision rests on, in words; of one that is not judged, why not.
    measurement : str
        Key of the measurement, see `CTReportLib.measurement`; empty where there is none.
    value : float or None
        The measured value.
    unit : str
    side : str
        ``left``, ``right``, ``both``, or empty where none applies or none was found. Only from masks and measurements.
    place : str
        Such as ``lower third of the left lung``; only from masks and measurements.
    volume_ml : float or None
    segment : str
        Id of the segment that shows it; empty where there is none.
    candidate : bool
        Not judged, but there are places worth a look.
    """

    finding: str
    name: str
    decision: Decision
    basis: Basis = Basis.NOTHING
    probability: float | None = None
    calibrated: bool = False
    threshold: float | None = None
    evidence: str = ""
    measurement: str = ""
    value: float | None = None
    unit: str = ""
    side: str = ""
    place: str = ""
    volume_ml: float | None = None
    segment: str = ""
    candidate: bool = False


@dataclass(frozen=True)
class Sentence:
    """A sentence and what it rests on.

    Attributes
    ----------
    text : str
    findings : tuple of str
        Ids of the rows of the table that it speaks of.
    measurements : tuple of str
        Keys of measurements.
    verdict : Verdict
    reason : str
        Why it was struck or added.
    """

    text: str
    findings: tuple[str, ...] = ()
    measurements: tuple[str, ...] = ()
    verdict: Verdict = Verdict.SUPPORTED
    reason: str = ""

    @property
    def shown(self) -> bool:
        """Whether it belongs to the report; a struck one is kept for the record only."""
        return self.verdict is not Verdict.STRUCK


@dataclass(frozen=True)
class ReportSection:
    """A part of the report.

    Attributes
    ----------
    title : str
        Such as ``Technique``, ``Impression``; of findings by anatomy ``Findings: Pleura``.
    sentences : tuple of Sentence
    """

    title: str
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """What is shown of it, one paragraph."""
        return " ".join(sentence.text for sentence in self.sentences if sentence.shown)


@dataclass(frozen=True)
class Edit:
    """What a person changed in a report.

    Attributes
    ----------
    when : str
        UTC, ISO 8601.
    who : str
        As the system names the user; empty where it does not.
    section : str
        Title of the part.
    before, after : str
        The sentence as it was and as it is now; an empty one was not there, or is gone.
    """

    when: str
    who: str
    section: str
    before: str
    after: str


@dataclass(frozen=True, eq=False)
class ReportResult:
    """A reported chest CT.

    Attributes
    ----------
    name : str
    table : tuple of FindingRow
        All findings in canonical order.
    sections : tuple of ReportSection
        Empty where only findings were asked for.
    measurements : tuple of Measurement
        Also those without a finding.
    complete : bool
        False where part of what was asked could not be done: such a report is never shown as finished.
    warnings : tuple of str
    masks : LabelMap or None
        Lungs and what was localised, on the image's grid.
    pictures : tuple of KeyImage
    provenance : mapping of str to str
        Input, versions, thresholds, engine.
    edits : tuple of Edit
        By people, in order; empty: as it was computed.
    """

    name: str
    table: tuple[FindingRow, ...]
    sections: tuple[ReportSection, ...]
    measurements: tuple[Measurement, ...] = ()
    complete: bool = True
    warnings: tuple[str, ...] = ()
    masks: LabelMap | None = None
    pictures: tuple[KeyImage, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()

    def row(self, finding: str) -> FindingRow | None:
        """The row of a finding; None where the table has none."""
        return next((row for row in self.table if row.finding == finding), None)
