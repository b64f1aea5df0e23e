"""What panels say of a model: short words for its state, size, licence and speed."""

from __future__ import annotations

import re
from html import escape

from slicer.i18n import tr as _

from MedAILib.models.card import megabytes
from MedAILib.models.entries import ModelEntry
from MedAILib.models.manage_task import Action, ManageResult
from MedAILib.models.manager import DiskUse
from MedAILib.models.states import State, Status

LONGEST_LICENCE = 12
_SHOWN_UNKNOWN = 3
_COMMAND = re.compile(r"medai models (get|verify) \S+")
_BUTTONS = {"get": lambda: _("Get"), "verify": lambda: _("Verify")}


def state_text(state: State) -> str:
    return {
        State.NOT_INSTALLED: _("not installed"),
        State.PARTIAL: _("partial"),
        State.INSTALLED: _("installed"),
        State.INVALID: _("invalid"),
        State.EMBEDDED: _("built in"),
    }[state]


def size_text(entry: ModelEntry, status: Status) -> str:
    """Bytes that are here of a usable model, else those that are expected; a dash where nobody knows."""
    count = status.bytes_here if status.is_usable else entry.expected_bytes
    return megabytes(count) if count else "–"


def licence_word(entry: ModelEntry) -> str:
    """Short name of the licence; a star where it must be accepted."""
    name = entry.licence.spdx or entry.licence.name or _("not stated")
    name = _("not stated") if name.startswith("not stated") else name
    short = name if len(name) <= LONGEST_LICENCE else f"{name[: LONGEST_LICENCE - 1].rstrip()}…"
    return f"{short}*" if entry.licence.must_be_accepted else short


def seconds_text(entry: ModelEntry) -> str:
    """Measured seconds on processor and graphics card, ``12 / 0.5 s``; empty where neither was measured."""
    times = (entry.resources.seconds_cpu, entry.resources.seconds_gpu)
    return " / ".join(f"{one:g}" if one else "–" for one in times) + " s" if any(times) else ""


def badge_text(entry: ModelEntry, status: Status) -> str:
    """One line: title, state, licence, size."""
    return " · ".join((entry.title, state_text(status.state), licence_word(entry), size_text(entry, status)))


def can_be_downloaded(entry: ModelEntry) -> bool:
    """Whether anybody offers it at an address."""
    return entry.repository is not None or any(file.sources for file in entry.files)


def get_obstacle(entry: ModelEntry, status: Status) -> str:
    """Why Get is of no use; empty where it is."""
    if status.is_usable:
        return _("This model is here already.")
    if not can_be_downloaded(entry):
        return _("Nobody offers this model at an address: get its file from its authors, then use Import.")
    return ""


def summary_html(entry: ModelEntry, status: Status, needs_acceptance: bool) -> str:
    """The card in a few lines."""
    lines = [f"<b>{escape(entry.title)}</b>", escape(entry.summary)]
    state = f"{state_text(status.state).capitalize()}."
    lines.append(f"<b>{escape(state)}</b> {escape(_without_commands(status.why))}".strip())
    lines.append(escape(_licence_line(entry, needs_acceptance)))
    times = seconds_text(entry)
    if times:
        lines.append(escape(_("Time on CPU / GPU: {times}.").format(times=times)))
    if entry.gated and not status.is_usable:
        lines.append(escape(gated_text(entry)))
    return "<br>".join(line for line in lines if line)


def gated_text(entry: ModelEntry) -> str:
    return _(
        "Gated: its publisher grants access. Sign in and ask at {address}, make a token there, and let this machine "
        "know it: 'hf auth login', or the variable HF_TOKEN. Then press Get."
    ).format(address=entry.homepage or _("its page"))


def licence_question(text: str) -> str:
    return _("{licence}\n\nThe licence's own text counts. Have you read it, and do you accept it?").format(licence=text)


def delete_question(titles: list[str], size: int) -> str:
    names = "\n".join(titles)
    return _("Delete from this machine ({size})?\n\n{names}").format(size=megabytes(size), names=names)


def disk_text(use: DiskUse) -> str:
    return _("{size} used (models: {count}), {free} free").format(
        size=megabytes(use.total), count=len(use.models), free=megabytes(use.free)
    )


def result_text(result: ManageResult) -> str:
    """What an action has done, a sentence a line."""
    names = ", ".join(result.model_ids)
    lines = []
    if result.action is Action.EXPORT:
        lines.append(_("{names} packed into '{path}'.").format(names=names, path=result.path))
    elif result.action is Action.VERIFY:
        lines.append(_("{names}: every file has the right SHA-256.").format(names=names))
    elif result.action is Action.REMOVE:
        lines.append(_("{names} deleted, {size} freed.").format(names=names, size=megabytes(result.freed_bytes)))
    elif names:
        lines.append(_("{names} installed; the SHA-256 of every file was checked.").format(names=names))
    lines += [_("Recorded at first use, expected from now on: {file}").format(file=file) for file in result.first_uses]
    for model_id, missing in result.incomplete.items():
        lacks = ", ".join(missing) or _("all files")
        lines.append(_("Only part of {name} was found; missing: {files}.").format(name=model_id, files=lacks))
    lines += [_("Not taken: {file}.").format(file=text) for text in result.unknown[:_SHOWN_UNKNOWN]]
    if len(result.unknown) > _SHOWN_UNKNOWN:
        lines.append(_("{count} more files were not taken.").format(count=len(result.unknown) - _SHOWN_UNKNOWN))
    if result.question is not None:
        lines.append(_("The licence of {name} must be accepted first.").format(name=result.question.model_id))
    return "\n".join(lines)


def _licence_line(entry: ModelEntry, needs_acceptance: bool) -> str:
    name = entry.licence.name or entry.licence.spdx or _("not stated")
    text = _("Licence: {name}").format(name=name)
    if entry.licence.non_commercial:
        text = _("{licence}, not for commercial use").format(licence=text)
    if needs_acceptance:
        return _("{licence} (to be accepted before it is fetched).").format(licence=text)
    return _("{licence} (accepted).").format(licence=text) if entry.licence.must_be_accepted else f"{text}."


def _without_commands(why: str) -> str:
    """Commands are for the terminal; here it is a button's name."""
    return _COMMAND.sub(lambda found: f"“{_BUTTONS[found[1]]()}”.", why)
