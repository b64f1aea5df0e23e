"""Models in one file, for a machine without a network: a zip of the files and what is known about them.

``medai_bundle.json`` names every model with its catalogue entry and the hashes of its files; these lie
below ``models/<id>/``, stored and not compressed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from MedAILib import __version__
from MedAILib.atomic import replacing
from MedAILib.errors import InvalidWeights, OutputError
from MedAILib.models.archives import open_zip
from MedAILib.models.catalogue import SCHEMA, USER_FOLDER, Catalogue, parse_catalogue
from MedAILib.models.entries import ModelEntry, ModelFile
from MedAILib.models.install import QUIET, Installer, Watch
from MedAILib.models.journal import now, write_json
from MedAILib.models.records import Problems, read_record, record_to_json
from MedAILib.models.store import InstallRecord, wrong_hash

MANIFEST = "medai_bundle.json"
BUNDLE_SCHEMA = 1
_BLOCK = 1 << 20
_LONGEST_MANIFEST = 64 << 20
_ZIP_OVERHEAD = 1 << 20


@dataclass(frozen=True)
class Packed:
    """A model to be packed: its entry, its record, and where each of its files lies."""

    entry: ModelEntry
    record: InstallRecord
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Bundle:
    """What a bundle says it holds."""

    models: tuple[tuple[ModelEntry, InstallRecord], ...]
    made_at: str = ""


def is_bundle(path: Path) -> bool:
    """Whether a file is a zip with a bundle's manifest."""
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def write_bundle(path: Path, models: Sequence[Packed], watch: Watch = QUIET) -> None:
    """Pack models; every byte is hashed on its way, so that nothing damaged is passed on.

    Raises
    ------
    InvalidWeights
        A file is no longer what was installed; nothing is written.
    OutputError, Cancelled
    """
    total = sum(file.size for model in models for file in model.record.files)
    _check_space(path, total)
    done = 0
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(MANIFEST, json.dumps(_manifest(models), indent=2, ensure_ascii=False))
        for model in models:
            for file in model.record.files:
                source = model.files[file.path]
                name = _member(model.entry.id, file.path)
                with source.open("rb") as stream, archive.open(name, "w", force_zip64=True) as out:
                    found = _pipe(stream, out, watch, done, total)
                if found != file.sha256:
                    raise wrong_hash(source, found, file.sha256, model.entry.id)
                done += file.size


def read_bundle(archive: zipfile.ZipFile, path: Path) -> Bundle:
    """The manifest of a bundle, checked; raises `InvalidWeights` with every problem."""
    if archive.getinfo(MANIFEST).file_size > _LONGEST_MANIFEST:
        raise InvalidWeights(f"'{path}' is no bundle of models.", why="Its manifest is absurdly long.")
    try:
        data = json.loads(archive.read(MANIFEST))
        schema, items = data["bundle"], list(data["models"])
    except (ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        raise InvalidWeights(f"'{path}' has a broken manifest.", why=f"{error}.", todo="Export it again.") from error
    if schema != BUNDLE_SCHEMA:
        raise InvalidWeights(
            f"'{path}' is a bundle of another version ({schema}).",
            todo="Import it with the version of MedAI that made it.",
        )
    models = tuple(_read_model(item, path) for item in items)
    for entry, record in models:
        for file in record.files:
            if _member(entry.id, file.path) not in archive.NameToInfo:
                raise InvalidWeights(f"'{path}' lacks '{file.path}' of '{entry.id}'.", todo="Export it again.")
    return Bundle(models, str(data.get("made_at", "")))


def install_bundle(
    path: Path,
    installer: Installer,
    catalogue: Catalogue,
    *,
    model_ids: Sequence[str] = (),
    watch: Watch = QUIET,
) -> tuple[InstallRecord, ...]:
    """Install the models of a bundle (or some of them); models that no catalogue knows are added to the user's own.

    Raises
    ------
    InvalidWeights
        Damaged, hostile, or in contradiction to the catalogue.
    LicenceNotAccepted
        Before anything is installed.
    OutputError, Cancelled
    """
    with open_zip(path) as archive:
        bundle = read_bundle(archive, path)
        chosen = [(entry, record) for entry, record in bundle.models if not model_ids or entry.id in model_ids]
        resolved = [_resolve(entry, record, catalogue, path) for entry, record in chosen]
        for entry, _ in resolved:
            installer.licences.require(entry)
        installed = []
        for entry, record in resolved:
            installed.append(_install(archive, entry, record, installer, path, watch))
            if entry.id not in catalogue:
                _add_to_catalogue(installer, entry)
    return tuple(installed)


def _install(
    archive: zipfile.ZipFile,
    entry: ModelEntry,
    record: InstallRecord,
    installer: Installer,
    path: Path,
    watch: Watch,
) -> InstallRecord:
    wanted = {file.path: file for file in entry.files}
    with installer.alone(entry, watch):
        installer.store.forget(entry.id)
        files = []
        for file in record.files:
            name = _member(entry.id, file.path)
            try:
                taken = installer.take(
                    entry,
                    wanted[file.path],
                    lambda name=name: archive.open(name),  # type: ignore[misc]
                    size=file.size,
                    origin=f"bundle {path.name}; {file.source}" if file.source else f"bundle {path.name}",
                    sha256=file.sha256,
                    watch=watch,
                )
            except (zipfile.BadZipFile, EOFError) as error:
                raise InvalidWeights(f"'{path}' is damaged.", why=f"{error}.", todo="Copy it again.") from error
            files.append(taken)
        return installer.finish(entry, files, record.revision)


def _resolve(
    entry: ModelEntry, record: InstallRecord, catalogue: Catalogue, path: Path
) -> tuple[ModelEntry, InstallRecord]:
    """The catalogue's word on a model counts, not the bundle's; its files are those of the bundle's record."""
    known = catalogue.entry(entry.id) if entry.id in catalogue else entry
    if known.repository is not None:
        files = {file.path: file for file in entry.files}
        wanted = tuple(files[file.path] for file in record.files if file.path in files)
        return replace(known, files=wanted, repository=None), _only(record, wanted)
    for file in known.files:
        packed = record.file(file.path)
        if packed is None or not file.agrees_with(packed.sha256):
            raise InvalidWeights(
                f"'{path}' holds another version of '{entry.id}' than the catalogue names.",
                why=f"The file is '{file.path}'.",
                todo="Export it again where the same version of MedAI is installed.",
            )
    return known, _only(record, known.files)


def _only(record: InstallRecord, files: Sequence[ModelFile]) -> InstallRecord:
    """The record of these files; what a manifest adds to its own list is nothing."""
    paths = {file.path for file in files}
    return replace(record, files=tuple(file for file in record.files if file.path in paths))


def _add_to_catalogue(installer: Installer, entry: ModelEntry) -> None:
    document = {"schema": SCHEMA, "models": [record_to_json(entry)]}
    write_json(installer.store.home / USER_FOLDER / f"{entry.id}.json", document)


def _manifest(models: Sequence[Packed]) -> dict[str, Any]:
    return {
        "bundle": BUNDLE_SCHEMA,
        "made_at": now(),
        "made_by": f"medai {__version__}",
        "models": [
            {"entry": record_to_json(_pinned(model)), "record": record_to_json(model.record)} for model in models
        ],
    }


def _pinned(model: Packed) -> ModelEntry:
    """The entry with the sizes and hashes of what is packed, and without places of its origin machine."""
    known = {file.path: file for file in model.entry.files}
    files = tuple(
        replace(
            known.get(file.path, ModelFile(file.path)),
            sources=tuple(p for p in known[file.path].sources if not p.embedded) if file.path in known else (),
            size=file.size,
            sha256=file.sha256,
            sha256_starts="",
            sha256_ends="",
        )
        for file in model.record.files
    )
    return replace(model.entry, files=files, repository=None)


def _read_model(item: Any, path: Path) -> tuple[ModelEntry, InstallRecord]:
    problems = Problems()
    record = read_record(InstallRecord, item.get("record") if isinstance(item, dict) else None, problems, "$.record")
    if record is None:
        raise InvalidWeights(f"'{path}' has a broken manifest: {' '.join(problems)}", todo="Export it again.")
    (entry,) = parse_catalogue({"schema": SCHEMA, "models": [item.get("entry")]}, f"The manifest of '{path}'")
    if entry.is_embedded or entry.repository is not None:
        raise InvalidWeights(f"'{path}' does not list the files of '{entry.id}'.", todo="Export it again.")
    return entry, record


def _member(model_id: str, path: str) -> str:
    return f"models/{model_id}/{path}"


def _pipe(stream: IO[bytes], out: IO[bytes], watch: Watch, done: int, total: int) -> str:
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        watch.check_cancelled()
        digest.update(block)
        out.write(block)
        done += len(block)
        watch.on_progress("packing", done, total)
    return digest.hexdigest()


def _check_space(path: Path, total: int) -> None:
    if path.parent.is_dir() and total + _ZIP_OVERHEAD > shutil.disk_usage(path.parent).free:
        raise OutputError(
            f"'{path}' could not be written.",
            why=f"{total / 1e9:.1f} GB are needed there.",
            todo="Free some space or choose another folder.",
        )
