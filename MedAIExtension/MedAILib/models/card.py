"""A model told in a page: what it does, what it takes and answers, where it comes from, under which terms."""

from __future__ import annotations

from collections.abc import Iterable

from MedAILib.models.entries import HashKnowledge, ModelEntry
from MedAILib.models.heads import Head, Input
from MedAILib.models.states import Status

_KNOWLEDGE = {
    HashKnowledge.FULL: "The SHA-256 of every file is known; a download is checked against it.",
    HashKnowledge.PART: "Only some digits of the SHA-256 are known; the first download is checked against these, "
    "then its full hash is recorded and expected from then on.",
    HashKnowledge.NONE: "What is not known of the SHA-256 of its files is recorded at the first download and expected "
    "from then on (trust on first use).",
}


def model_card(entry: ModelEntry, status: Status | None = None) -> str:
    """A model card in Markdown.

    Parameters
    ----------
    entry : ModelEntry
    status : Status, optional
        Adds the state on this machine.
    """
    parts = [f"# {entry.title}", entry.summary]
    if status is not None:
        parts.append(f"**{status.state.value.capitalize()}.** {status.why}".strip())
    parts += [_facts(entry), _section("Takes", map(_input_line, entry.inputs))]
    parts.append(_section("Answers", map(_head_line, entry.heads)))
    parts.append(_section("To know", entry.notes))
    parts.append(_section("Licence", _licence_lines(entry)))
    parts.append(_section("Origin", _origin_lines(entry)))
    if entry.citation:
        parts.append(f"## Cite\n\n{entry.citation}")
    parts.append(entry.intended_use)
    return "\n\n".join(filter(None, parts)) + "\n"


def megabytes(count: int | None) -> str:
    """Bytes for people: ``156 MB``, ``16.1 GB``, ``? MB``."""
    if count is None:
        return "? MB"
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _facts(entry: ModelEntry) -> str:
    resources = entry.resources
    rows = [
        ("Id", f"`{entry.id}`"),
        ("Task", entry.task),
        ("Used by", entry.feature),
        ("Size", f"about {megabytes(entry.expected_bytes)}" if entry.expected_bytes else "not known"),
        ("Memory", f"{resources.memory_mb:.0f} MB" if resources.memory_mb else ""),
        ("GPU memory", f"{resources.gpu_memory_mb:.0f} MB" if resources.gpu_memory_mb else ""),
        ("Time on CPU", f"{resources.seconds_cpu:g} s" if resources.seconds_cpu else "not measured"),
        ("Time on GPU", f"{resources.seconds_gpu:g} s" if resources.seconds_gpu else "not measured"),
        ("Measured on", resources.measured_on),
        ("Needs", ", ".join(f"{name}{version}" for name, version in entry.requirements.items())),
    ]
    return "\n".join(f"- {name}: {value}" for name, value in rows if value)


def _section(title: str, lines: Iterable[str]) -> str:
    text = "\n".join(f"- {line}" for line in lines if line)
    return f"## {title}\n\n{text}" if text else ""


def _input_line(item: Input) -> str:
    facts = [item.modality, ", ".join(item.channels), item.orientation]
    if item.size:
        facts.append(" x ".join(map(str, item.size)) + " voxels")
    if item.spacing_mm:
        facts.append(" x ".join(f"{step:g}" for step in item.spacing_mm) + " mm")
    if item.normalisation is not None:
        facts.append(f"normalisation {item.normalisation.kind.value}")
    return f"{item.name}: {'; '.join(filter(None, facts))}"


def _head_line(head: Head) -> str:
    classes = sorted(head.classes, key=lambda item: item.index)
    names = [
        f"{item.name} ({item.terminology.scheme} {item.terminology.value})" if item.terminology else item.name
        for item in classes
    ]
    return f"{head.name} ({head.task.value}): {', '.join(names) or head.unit}"


def _licence_lines(entry: ModelEntry) -> list[str]:
    licence = entry.licence
    return [
        f"{licence.name or licence.spdx}{': ' + licence.url if licence.url else ''}",
        entry.terms,
        "Not for commercial use." if licence.non_commercial else "",
        f"Must be accepted: medai models get {entry.id} --accept-licence {entry.id}"
        if licence.must_be_accepted
        else "",
        f"Access is granted by its publisher: {entry.homepage}" if entry.gated else "",
    ]


def _origin_lines(entry: ModelEntry) -> list[str]:
    trained = entry.provenance.trained_on
    lines = [entry.homepage, f"Trained on: {trained}" if trained else ""]
    lines += [f"{name}: {value}" for name, value in entry.provenance.metrics.items()]
    for file in entry.files:
        known = file.sha256 or (f"{file.sha256_starts}...{file.sha256_ends}" if file.sha256_starts else "not known")
        lines.append(f"`{file.path}`: {megabytes(file.expected_bytes)}, SHA-256 {known}")
    return lines if entry.is_embedded else [*lines, _KNOWLEDGE[entry.knowledge]]
