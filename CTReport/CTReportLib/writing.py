"""The report's text by the chosen engine, held against the table: nothing passes that was not guarded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from CTReportLib.guard import guard_generated, guard_template
from CTReportLib.measurement import Measurement
from CTReportLib.report import NOT_JUDGED, TECHNIQUE, Facts, template_report
from CTReportLib.request import RESEARCH_USE, Decision, FindingRow, ReportRequest, ReportSection, Sentence
from MedAILib.errors import ConfigError
from MedAILib.jobs.task import Context

if TYPE_CHECKING:
    from CTReportLib.nets.features import Features

LANGUAGE_MODEL = "llm"


@dataclass(frozen=True)
class WrittenReport:
    """A report that was held against the table.

    Attributes
    ----------
    sections : tuple of ReportSection
    complete : bool
        False where a language model's text broke off.
    warnings : tuple of str
    provenance : mapping of str to str
        What a language model was asked, and how its text was made; empty for the template.
    """

    sections: tuple[ReportSection, ...] = ()
    complete: bool = True
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)


def check_writer(request: ReportRequest, device: str) -> None:
    """Refuse a language model that is not whole, or would not fit, before anything else is done; loads nothing.

    Raises
    ------
    NotEnoughMemory
        With the estimate in words.
    ConfigError
        It needs an encoder, and none is given.
    MedAIError
        Of its folder, see `CTReportLib.language.folder.read_language_folder`.
    """
    if request.engine != LANGUAGE_MODEL or request.models.language is None or request.findings_only:
        return
    from CTReportLib.language.folder import read_language_folder
    from CTReportLib.language.memory import estimate, require_memory

    folder = read_language_folder(request.models.language)
    if folder.reason is not None and request.models.encoder is None:
        raise ConfigError(
            f"The language model '{folder.id}' writes from what its encoder sees, and no encoder is given.",
            todo=f"Give as encoder the file of the model that holds the tensors {folder.reason.encoder_tensors}*.",
        )
    require_memory(estimate(folder, device), folder.id)


def write(
    request: ReportRequest,
    table: Sequence[FindingRow],
    measurements: Sequence[Measurement],
    facts: Facts,
    features: Features | None,
    context: Context,
    *,
    encoder_sha256: str = "",
    fractions: tuple[float, float] = (0.9, 1.0),
) -> WrittenReport:
    """Write the report.

    Parameters
    ----------
    request : ReportRequest
        Its engine, and the language model where that is asked for.
    table, measurements, facts
        See `CTReportLib.report.template_report`.
    features : Features or None
        What an encoder saw; a language model with a projector reads it.
    context : Context
    encoder_sha256 : str
        Of that encoder's weights.
    fractions : tuple of float
        Which part of the whole run this is.

    Raises
    ------
    MedAIError
        Of a language model that cannot be loaded, see `CTReportLib.language.engine.write_report`.
    Cancelled
    """
    template = template_report(table, measurements, facts)
    if request.engine != LANGUAGE_MODEL:
        return WrittenReport(guard_template(template, table).sections)
    from CTReportLib.language.engine import write_report

    if request.models.language is None:
        raise ConfigError("The engine llm needs a language model.", todo="Give its folder.")
    before = len(context.warnings)
    draft = write_report(
        request.models.language,
        table,
        measurements,
        facts,
        features,
        context,
        encoder_sha256=encoder_sha256,
        fractions=fractions,
    )
    for remark in _remarks_on_labels(draft.labels, table):
        context.warn(remark)
    guarded = guard_generated(draft.text, table, complete=draft.complete)
    struck = sum(not sentence.shown for sentence in guarded.sentences)
    technique, not_judged = ([one for one in template if one.title == title] for title in (TECHNIQUE, NOT_JUDGED))
    closing = ReportSection("Note", (Sentence(_note(struck, guarded.complete)), Sentence(RESEARCH_USE)))
    provenance = {
        "prompt": draft.prompt,
        "language_models": "; ".join(draft.models),
        "language_tokens": str(draft.tokens),
        "language_seconds": f"{draft.seconds:.1f}",
        "language_finished": "yes" if draft.complete else "no",
        "language_labels": ", ".join(draft.labels),
    }
    sections = (*technique, *guarded.sections, *not_judged, closing)
    return WrittenReport(sections, guarded.complete, tuple(context.warnings[before:]), provenance)


def _remarks_on_labels(labels: Sequence[str], table: Sequence[FindingRow]) -> Iterator[str]:
    """What a language model's own list of findings says against the table, which stays as it is."""
    from CTReportLib.language.answer import labelled_findings

    found = labelled_findings(labels)
    present = {row.finding for row in table if row.decision is Decision.PRESENT}
    surplus = [row.name for row in table if row.finding in found.findings and row.finding not in present]
    if surplus:
        yield f"The language model lists what nothing else here shows, and the report leaves out: {', '.join(surplus)}."
    if found.contradictory:
        yield "The language model's list of findings contradicts itself."


def _note(struck: int, complete: bool) -> str:
    counted = f"Sentences struck: {struck}."
    ending = "" if complete else " Its text broke off."
    return f"Written by a language model and held against the finding table.{ending} {counted}"
