"""What takes long with models, as a task: get, import, export, verify, remove; with bytes and cancel.

    request = ManageRequest(Action.GET, ("knee-nnunet-fullres",), accepted=("knee-nnunet-fullres",))
    outcome = runner.run(TASK, request)

A face that sits in another process than the work uses it; whoever may wait uses `Manager` itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from MedAILib.errors import InputError, LicenceNotAccepted
from MedAILib.jobs.task import Context
from MedAILib.models.card import megabytes
from MedAILib.models.catalogue import Catalogue, user_catalogues
from MedAILib.models.home import default_home, shared_homes
from MedAILib.models.intake import Imported
from MedAILib.models.manager import Manager
from MedAILib.models.network import Network
from MedAILib.models.store import InstallRecord

TASK = "MedAILib.models.manage_task:ManageTask"
_TELL_AGAIN_S = 0.1
_ETA_AFTER_S = 0.5


class Action(Enum):
    """The value is the verb."""

    GET = "get"
    IMPORT = "import"
    EXPORT = "export"
    VERIFY = "verify"
    REMOVE = "remove"


@dataclass(frozen=True)
class ManageRequest:
    """One action on the models of a store. A token never travels in it: ``HF_TOKEN`` or ``hf auth login`` has it.

    Attributes
    ----------
    action : Action
    model_ids : tuple of str
        For an import: none, or the one model to take the file for.
    path : Path or None
        What to import, or the bundle to write.
    accepted : tuple of str
        Ids of models whose licences the user has read and accepts.
    home : Path or None
        The user's store; None: `default_home` of the process that runs the task.
    catalogues : tuple of Path
        Catalogue files that the asking process knows, users' own not among them; empty: those the running
        process finds.
    network : Network or None
        None: as the system says.
    """

    action: Action
    model_ids: tuple[str, ...] = ()
    path: Path | None = None
    accepted: tuple[str, ...] = ()
    home: Path | None = None
    catalogues: tuple[Path, ...] = ()
    network: Network | None = None


@dataclass(frozen=True)
class LicenceQuestion:
    """A licence to be accepted before the action can go on.

    Attributes
    ----------
    model_id : str
    text : str
        To be shown.
    """

    model_id: str
    text: str


@dataclass(frozen=True)
class ManageResult:
    """What was done.

    Attributes
    ----------
    action : Action
    model_ids : tuple of str
        Models that were got, imported, exported, found right, or removed.
    path : Path or None
        The bundle that was written.
    freed_bytes : int
    first_uses : tuple of str
        ``path sha256`` of files whose hash was not known before and is expected from now on.
    incomplete : mapping of str to tuple of str
        Models of which an import found only a part, and what it lacks.
    unknown : tuple of str
        Files of an import that no catalogue knows, each with what it is.
    question : LicenceQuestion or None
        Where it is there, the action has stopped before it: ask, and send the request again with the model
        among ``accepted``.
    """

    action: Action
    model_ids: tuple[str, ...] = ()
    path: Path | None = None
    freed_bytes: int = 0
    first_uses: tuple[str, ...] = ()
    incomplete: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    question: LicenceQuestion | None = None


class ManageTask:
    """Runs a `ManageRequest`. Errors are those of `Manager`'s methods, `LicenceNotAccepted` excepted."""

    def run(self, request: ManageRequest, context: Context) -> ManageResult:
        manager = _manager(request)
        for model_id in request.model_ids:
            manager.catalogue.entry(model_id)  # every id must be known before anything is done
        try:
            return _ACTIONS[request.action](manager, request, context)
        except LicenceNotAccepted as refusal:
            question = LicenceQuestion(refusal.model_id, refusal.licence_text)
            return ManageResult(request.action, question=question)


def _manager(request: ManageRequest) -> Manager:
    home = request.home or default_home()
    catalogue = None
    if request.catalogues:
        users = [path for place in (*shared_homes(), home) for path in user_catalogues(place)]
        catalogue = Catalogue([*request.catalogues, *users])
    return Manager(home, catalogue=catalogue, network=request.network)


def _get(manager: Manager, request: ManageRequest, context: Context) -> ManageResult:
    first_uses: list[str] = []
    for watch, model_id in _each(request.model_ids, context):
        was_here = manager.state(model_id).is_usable
        manager.get(
            model_id,
            accept_licence=model_id in request.accepted,
            on_progress=watch,
            is_cancelled=context.is_cancelled,
        )
        record = manager.record(model_id)
        if record is not None and not was_here:
            first_uses += _first_uses([record])
    return ManageResult(request.action, request.model_ids, first_uses=tuple(first_uses))


def _import(manager: Manager, request: ManageRequest, context: Context) -> ManageResult:
    if len(request.model_ids) > 1:
        raise InputError("An import is taken for one model.", todo="Name one model, or none.")
    found: Imported = manager.import_(
        _path(request),
        as_model="".join(request.model_ids),
        accept_licences=request.accepted,
        on_progress=_ByteProgress(context),
        is_cancelled=context.is_cancelled,
    )
    return ManageResult(
        request.action,
        tuple(record.id for record in found.installed),
        first_uses=_first_uses(found.installed),
        incomplete=found.incomplete,
        unknown=tuple(f"{item.path.name}: {item.why}" for item in found.unknown),
    )


def _export(manager: Manager, request: ManageRequest, context: Context) -> ManageResult:
    path = manager.export(
        request.model_ids, _path(request), on_progress=_ByteProgress(context), is_cancelled=context.is_cancelled
    )
    return ManageResult(request.action, request.model_ids, path)


def _verify(manager: Manager, request: ManageRequest, context: Context) -> ManageResult:
    for watch, model_id in _each(request.model_ids, context):
        manager.verify(model_id, on_progress=watch, is_cancelled=context.is_cancelled)
    return ManageResult(request.action, request.model_ids)


def _remove(manager: Manager, request: ManageRequest, context: Context) -> ManageResult:
    freed = 0
    for watch, model_id in _each(request.model_ids, context):
        watch(f"deleting {model_id}", 0, None)
        freed += manager.remove(model_id)
    return ManageResult(request.action, request.model_ids, freed_bytes=freed)


_ACTIONS = {
    Action.GET: _get,
    Action.IMPORT: _import,
    Action.EXPORT: _export,
    Action.VERIFY: _verify,
    Action.REMOVE: _remove,
}


def _path(request: ManageRequest) -> Path:
    if request.path is None:
        raise InputError(f"It is not said which file to {request.action.value}.")
    return request.path


def _first_uses(records: Sequence[InstallRecord]) -> tuple[str, ...]:
    return tuple(f"{file.path} {file.sha256}" for record in records for file in record.files if file.first_use)


def _each(model_ids: Sequence[str], context: Context) -> Iterator[tuple[_ByteProgress, str]]:
    """The models in turn, each with its share of the progress."""
    for index, model_id in enumerate(model_ids):
        yield _ByteProgress(context, index, len(model_ids)), model_id


class _ByteProgress:
    """A manager's progress in bytes, told as that of a task, a few times a second.

    The time left counts from what this run has moved: a download that goes on at 60 % is not 60 % done in no time.
    """

    def __init__(self, context: Context, index: int = 0, count: int = 1) -> None:
        self._context = context
        self._index = index
        self._count = count
        self._stage = ""
        self._started = self._told = 0.0
        self._first = 0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        self._context.check()
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._started, self._first, self._told = stage, now, done, 0.0
        if now - self._told < _TELL_AGAIN_S and done != total:
            return
        self._told = now
        elapsed_s, moved = now - self._started, done - self._first
        knows = self._count == 1 and total is not None and moved > 0 and elapsed_s > _ETA_AFTER_S
        eta_s = ((total or 0) - done) * elapsed_s / moved if knows else None
        fraction = (self._index + (done / total if total else 0.0)) / self._count
        text = f"{stage[:1].upper()}{stage[1:]}"
        self._context.progress(text, fraction, _bytes_text(done, total), eta_s)


def _bytes_text(done: int, total: int | None) -> str:
    if not done:
        return ""
    return megabytes(done) if total is None else f"{megabytes(done)} of {megabytes(total)}"
