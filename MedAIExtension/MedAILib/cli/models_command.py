"""The command ``medai models``: list, get, check and carry models."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.errors import MedAIError

if TYPE_CHECKING:
    from MedAILib.cli.console import Console
    from MedAILib.models.entries import ModelEntry
    from MedAILib.models.intake import Imported
    from MedAILib.models.manager import Manager
    from MedAILib.models.states import Status
    from MedAILib.models.store import InstallRecord, OnProgress

_HELP = "list, get and check models, and carry them to machines without a network"
_ETA_AFTER_S = 1.0


def add_models_command(commands: Any) -> None:
    """Add ``models`` and its sub-commands to the sub-parsers of `argparse`."""
    models = commands.add_parser("models", help=_HELP, description=f"{_HELP.capitalize()}.")
    actions = models.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    _add(actions, "list", _list, "all models of the catalogues and their state here").add_argument(
        "words", nargs="*", metavar="WORD", help="only models whose texts hold every word"
    )
    actions.choices["list"].add_argument("--feature", default="", help="only models of this feature: mem3d, knee, ct")
    actions.choices["list"].add_argument("--installed", action="store_true", help="only models that can be used")
    _add(actions, "show", _show, "the card of a model").add_argument("id")
    _add_get(actions)
    _add_import(actions)
    export = _add(actions, "export", _export, "pack installed models into one file for a machine without a network")
    export.add_argument("ids", nargs="+", metavar="ID")
    export.add_argument("--out", type=Path, required=True, help="the bundle to write, a .zip")
    verify = _add(actions, "verify", _verify, "hash the files of models and compare")
    verify.add_argument("ids", nargs="*", metavar="ID", help="default: every model that is here")
    describe = _add(actions, "describe", _describe, "look inside weight files and say what they are")
    describe.add_argument("path", type=Path, help="a weight file, or a folder with some")
    describe.add_argument("--write", action="store_true", help="write model_config.json beside them")
    remove = _add(actions, "remove", _remove, "delete models from your store")
    remove.add_argument("ids", nargs="+", metavar="ID")
    remove.add_argument("--forget-first-use", action="store_true", help="trust whatever the next download brings")
    _add(actions, "where", _where, "where models lie, and how much space they take").add_argument(
        "id", nargs="?", default="", help="the folder of this model"
    )
    prune = _add(actions, "prune", _prune, "delete rests of downloads that are older than a week")
    prune.add_argument("--unknown", action="store_true", help="also models that no catalogue knows")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be deleted")


def _add(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--home", type=Path, default=None, help="your store; default: MEDAI_HOME or a user folder")
    parser.set_defaults(run=run)
    return parser


def _add_get(actions: Any) -> None:
    parser = _add(actions, "get", _get, "download models; a broken download goes on where it stopped")
    parser.add_argument("ids", nargs="+", metavar="ID")
    _add_accept(parser)


def _add_import(actions: Any) -> None:
    parser = _add(actions, "import", _import, "install from a file, folder, archive or bundle, recognised by hash")
    parser.add_argument("path", type=Path)
    parser.add_argument("--as", dest="as_model", default="", metavar="ID", help="take it for this model")
    _add_accept(parser)


def _add_accept(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accept-licence",
        "--accept-license",
        dest="accepted",
        action="append",
        default=[],
        metavar="ID",
        help="you have read the licence of this model ('medai models show ID') and accept it",
    )


def _manager(arguments: argparse.Namespace, console: Console) -> Manager:
    from MedAILib.models.manager import Manager

    manager = Manager(arguments.home)
    for problem in manager.catalogue.problems:
        console.warn(problem.text)
    return manager


def _list(arguments: argparse.Namespace, console: Console) -> None:
    from MedAILib.models.card import megabytes

    found = _manager(arguments, console).models(" ".join(arguments.words), feature=arguments.feature)
    chosen = [(entry, status) for entry, status in found if status.is_usable or not arguments.installed]
    console.result({"models": [_summary(entry, status) for entry, status in chosen]})
    rows = [
        (entry.id, status.state.value, megabytes(entry.expected_bytes), _licence_word(entry), entry.title)
        for entry, status in chosen
    ]
    for line in _table(("model", "state", "size", "licence", ""), rows):
        console.print(line)
    if not rows:
        console.print("No model fits.")
    elif any(entry.licence.must_be_accepted for entry, _ in chosen):
        console.remark("* The licence must be accepted: see 'medai models show MODEL'.")


def _show(arguments: argparse.Namespace, console: Console) -> None:
    from MedAILib.models.records import record_to_json

    manager = _manager(arguments, console)
    entry, status = manager.catalogue.entry(arguments.id), manager.state(arguments.id)
    record = manager.record(arguments.id)
    console.result(
        {
            **_summary(entry, status),
            "entry": record_to_json(entry),
            "installed": record_to_json(record) if record else None,
            "licence_text": manager.licence(arguments.id),
            "needs_acceptance": manager.needs_acceptance(arguments.id),
        }
    )
    console.print(manager.card(arguments.id).rstrip())


def _get(arguments: argparse.Namespace, console: Console) -> None:
    manager = _manager(arguments, console)
    _check_ids(manager, [*arguments.ids, *arguments.accepted])
    got = []
    for model_id in arguments.ids:
        was_here = manager.state(model_id).is_usable
        if not was_here:
            _settle_licence(manager, model_id, model_id in arguments.accepted, console)
        folder = manager.get(model_id, accept_licence=model_id in arguments.accepted, on_progress=_progress_to(console))
        got.append({"id": model_id, "path": str(folder), "was_here": was_here})
        console.print(f"{model_id} {'is' if not was_here else 'was already'} installed in '{folder}'.")
        record = manager.record(model_id)
        if record is not None and not was_here:
            _tell_first_use(record, console)
    console.result({"models": got})


def _settle_licence(manager: Manager, model_id: str, accepted: bool, console: Console) -> None:
    """Show a licence that must be accepted; ask whoever sits at a terminal."""
    if not manager.needs_acceptance(model_id):
        return
    console.remark(manager.licence(model_id))
    if accepted or console.json_output or not sys.stdin.isatty():
        return  # recorded by `get`, or refused there with the option to use
    if input("Do you accept? Type 'yes': ").strip().lower() == "yes":
        manager.accept_licence(model_id)


def _tell_first_use(record: InstallRecord, console: Console) -> None:
    for file in record.files:
        if file.first_use:
            console.remark(
                f"Its SHA-256 was not known beforehand; from now on this one is expected (trust on first use): "
                f"{file.path} {file.sha256}"
            )


def _import(arguments: argparse.Namespace, console: Console) -> None:
    manager = _manager(arguments, console)
    if arguments.as_model and arguments.as_model in manager.catalogue:
        _settle_licence(manager, arguments.as_model, arguments.as_model in arguments.accepted, console)
    found = manager.import_(
        arguments.path,
        as_model=arguments.as_model,
        accept_licences=arguments.accepted,
        on_progress=_progress_to(console),
    )
    console.result(_imported(found))
    for record in found.installed:
        console.print(f"{record.id} is installed in '{manager.path(record.id)}'.")
        _tell_first_use(record, console)
    for model_id, missing in found.incomplete.items():
        console.warn(f"Only part of '{model_id}' was found; missing: {', '.join(missing) or 'all files'}.")
    for unknown in found.unknown:
        console.remark(f"Not taken: '{unknown.path}': {unknown.why}.")


def _export(arguments: argparse.Namespace, console: Console) -> None:
    manager = _manager(arguments, console)
    _check_ids(manager, arguments.ids)
    path = manager.export(arguments.ids, arguments.out, on_progress=_progress_to(console))
    console.result({"path": str(path), "size": path.stat().st_size, "models": arguments.ids})
    console.print(f"'{path}' holds {', '.join(arguments.ids)}. On the other machine: medai models import '{path.name}'")


def _verify(arguments: argparse.Namespace, console: Console) -> int:
    manager = _manager(arguments, console)
    ids = arguments.ids or [entry.id for entry, status in manager.models() if status.folder is not None]
    results, worst = [], 0
    for model_id in ids:
        try:
            status = manager.verify(model_id, on_progress=_progress_to(console))
            results.append({"id": model_id, "state": status.state.value, "why": status.why})
            console.print(f"{model_id}: {status.state.value}, every file has the right SHA-256.")
        except MedAIError as error:
            if len(ids) == 1:
                raise
            worst = worst or error.exit_status
            results.append({"id": model_id, "state": "invalid", "why": error.text})
            console.print(f"{model_id}: {error.text}")
    console.result({"models": results})
    if not ids:
        console.print("No model is here.")
    return worst


def _describe(arguments: argparse.Namespace, console: Console) -> None:
    from MedAILib.models.describe import describe_all, write_description

    results = []
    for found in describe_all(arguments.path):
        written = write_description(found) if arguments.write else None
        result = {**found.to_dict(), "written": written is not None}
        result["backup"] = str(written.backup) if written and written.backup else None
        results.append(result)
        console.print(f"{found.weights.path}: {found.config.architecture.name} {dict(found.config.get_model_params())}")
        for finding in found.findings:
            console.print(f"  {finding}")
        if written is not None:
            console.print(f"  written: {written.path}{f', before: {written.backup}' if written.backup else ''}")
    console.result({"files": results})


def _remove(arguments: argparse.Namespace, console: Console) -> None:
    manager = _manager(arguments, console)
    freed = {}
    for model_id in arguments.ids:
        freed[model_id] = manager.remove(model_id, forget_first_use=arguments.forget_first_use)
        text = f"removed, {freed[model_id] / 1e6:.1f} MB freed" if freed[model_id] else "was not installed"
        console.print(f"{model_id}: {text}.")
    console.result({"freed_bytes": freed})


def _where(arguments: argparse.Namespace, console: Console) -> None:
    from MedAILib.models.home import shared_homes

    manager = _manager(arguments, console)
    if arguments.id:
        folder = manager.path(arguments.id)
        console.result({"id": arguments.id, "path": str(folder)})
        console.print(str(folder))
        return
    use = manager.disk_use()
    console.result({"home": str(manager.home), "shared": [str(path) for path in shared_homes()], **asdict(use)})
    console.print(f"{manager.home}  {use.total / 1e6:.1f} MB used, {use.free / 1e9:.1f} GB free")
    for model_id, size in use.models.items():
        console.print(f"  {model_id:<36} {size / 1e6:>10.1f} MB")
    for shared in shared_homes():
        console.print(f"{shared}  shared, only read")


def _prune(arguments: argparse.Namespace, console: Console) -> None:
    manager = _manager(arguments, console)
    found = manager.leftovers() if arguments.dry_run else manager.prune(unknown=arguments.unknown)
    items = [{"path": str(item.path), "size": item.size, "why": item.why} for item in found]
    console.result({"deleted": not arguments.dry_run, "items": items})
    for item in found:
        verb = "would delete" if arguments.dry_run else "deleted"
        console.print(f"{verb} {item.path} ({item.size / 1e6:.1f} MB): {item.why}")
    if not found:
        console.print("Nothing to delete.")


def _check_ids(manager: Manager, ids: Sequence[str]) -> None:
    """Every id must be known before anything is done."""
    for model_id in ids:
        manager.catalogue.entry(model_id)


def _summary(entry: ModelEntry, status: Status) -> dict[str, Any]:
    return {
        "id": entry.id,
        "title": entry.title,
        "feature": entry.feature,
        "task": entry.task,
        "state": status.state.value,
        "why": status.why,
        "path": str(status.folder) if status.folder else None,
        "size": entry.expected_bytes,
        "bytes_here": status.bytes_here,
        "licence": entry.licence.name or entry.licence.spdx,
        "must_be_accepted": entry.licence.must_be_accepted,
        "gated": entry.gated,
        "hash": entry.knowledge.value,
    }


def _licence_word(entry: ModelEntry) -> str:
    name = entry.licence.spdx or entry.licence.name
    name = "not stated" if name.startswith("not stated") else name
    return f"{name[:24]}{'*' if entry.licence.must_be_accepted else ''}"


def _imported(found: Imported) -> dict[str, Any]:
    return {
        "installed": [record.id for record in found.installed],
        "incomplete": {model_id: list(missing) for model_id, missing in found.incomplete.items()},
        "unknown": [{"path": str(item.path), "sha256": item.sha256, "why": item.why} for item in found.unknown],
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]


def _progress_to(console: Console) -> OnProgress:
    """Bytes as the console's progress line, with the time left."""
    from MedAILib.jobs.task import Progress
    from MedAILib.models.card import megabytes

    began: dict[str, tuple[float, int]] = {}

    def on_progress(stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        started, first = began.setdefault(stage, (now, done))
        elapsed, moved = now - started, done - first
        eta_s = (total - done) * elapsed / moved if total and moved > 0 and elapsed > _ETA_AFTER_S else None
        amount = f" {megabytes(done)} of {megabytes(total)}" if done else ""
        console.progress(Progress(f"{stage}{amount}", done / total if total else 0.0, eta_s))

    return on_progress
