"""How a model comes into a store: each file fetched or copied, checked, and recorded last of all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

from MedAILib.atomic import output_error
from MedAILib.errors import Cancelled, DownloadFailed, InvalidWeights, OutputError
from MedAILib.models.config import CONFIG_FILE, FileEntry, FileRole, FileType, ModelConfig, Source
from MedAILib.models.download import Downloaded, Network, download
from MedAILib.models.entries import ModelEntry, ModelFile, Place
from MedAILib.models.firstuse import FirstUse, FirstUses
from MedAILib.models.hublist import list_hub_files
from MedAILib.models.inspection import inspect
from MedAILib.models.journal import make_folder, now
from MedAILib.models.licences import Licences
from MedAILib.models.locks import locked
from MedAILib.models.sources import HubSource
from MedAILib.models.sources import Source as DownloadSource
from MedAILib.models.store import InstalledFile, InstallRecord, OnProgress, Store, hash_file, wrong_hash

_BLOCK = 1 << 20
_FILE_TYPES = {
    ".safetensors": FileType.SAFETENSORS,
    ".pth": FileType.TORCH,
    ".pt": FileType.TORCH,
    ".bin": FileType.TORCH,
    ".ckpt": FileType.TORCH,
    ".h5": FileType.HDF5,
    ".keras": FileType.KERAS,
    ".onnx": FileType.ONNX,
}


@dataclass(frozen=True)
class Watch:
    """Whom to tell about progress, and whom to ask whether to stop."""

    on_progress: OnProgress = lambda stage, done, total: None
    is_cancelled: Callable[[], bool] = lambda: False

    def check_cancelled(self) -> None:
        if self.is_cancelled():
            raise Cancelled("Installing was cancelled.", todo="What has arrived is kept for the next try.")


QUIET = Watch()
"""Nobody is told, and nobody asks to stop."""


@dataclass(frozen=True)
class _Wanted:
    """A file to be fetched; ``sha256`` is empty where nothing is known to compare with."""

    file: ModelFile
    sources: tuple[DownloadSource, ...]
    sha256: str
    was_known: bool


class Installer:
    """Brings models into a store.

    Parameters
    ----------
    store : Store
    network : Network, optional
    """

    def __init__(self, store: Store, network: Network | None = None) -> None:
        self.store = store
        self.first_uses = FirstUses(store.home)
        self.licences = Licences(store.home)
        self._network = network

    @contextmanager
    def alone(self, entry: ModelEntry, watch: Watch) -> Iterator[None]:
        """Hold the model's lock: one process at a time changes it, the others wait."""
        folder = self.store.folder(entry.id)
        make_folder(folder.parent)
        stage = f"waiting for another program that installs {entry.id}"
        with locked(
            folder.with_name(f".{entry.id}.lock"),
            is_cancelled=watch.is_cancelled,
            on_wait=lambda: watch.on_progress(stage, 0, None),
        ):
            yield

    def download(self, entry: ModelEntry, *, token: str | None = None, watch: Watch = QUIET) -> InstallRecord:
        """Fetch what is missing. The model's lock is held by the caller.

        Raises
        ------
        LicenceNotAccepted, DownloadFailed, InvalidWeights, OutputError, Cancelled
        """
        self.licences.require(entry)
        wanted, revision = self._wanted(entry, token, watch)
        if not wanted:
            raise _nothing_to_fetch(entry)
        self.store.forget(entry.id)
        sizes = [item.file.expected_bytes for item in wanted]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        installed: list[InstalledFile] = []
        done = 0
        for item in wanted:
            got = self._fetch(entry, item, token, _shifted(watch, f"downloading {entry.id}", done, total))
            done += got.size
            revision = revision or got.revision
            first_use = not item.was_known or item.file.path in self.first_uses.of(entry.id)
            installed.append(InstalledFile(item.file.path, got.size, got.sha256, 0, str(got.source or ""), first_use))
        return self.finish(entry, installed, revision)

    def _wanted(self, entry: ModelEntry, token: str | None, watch: Watch) -> tuple[list[_Wanted], str]:
        first = self.first_uses.of(entry.id)
        if entry.repository is None:
            return [_wanted_file(file, first.get(file.path)) for file in entry.files if file.sources], ""
        repo = entry.repository
        revision = repo.revision or next((use.revision for use in first.values() if use.revision), "") or "main"
        watch.on_progress(f"asking the hub for the files of {repo.hub}", 0, None)
        listing = list_hub_files(
            repo.hub, revision, network=self._network, token=token, is_cancelled=watch.is_cancelled
        )
        wanted = []
        for found in listing.matching(repo.include):
            file = ModelFile(found.path, role=_role(found.path), size=found.size)
            known = first.get(found.path)
            source = HubSource(repo.hub, found.path, listing.commit)
            wanted.append(_Wanted(file, (source,), known.sha256 if known else found.sha256, known is not None))
        return wanted, listing.commit

    def _fetch(self, entry: ModelEntry, item: _Wanted, token: str | None, watch: Watch) -> Downloaded:
        target = self.store.file(entry.id, item.file.path)
        got = download(
            item.sources,
            target,
            size=item.file.size,
            sha256=item.sha256 or None,
            on_progress=lambda done, total: watch.on_progress("", done, total),
            is_cancelled=watch.is_cancelled,
            token=token,
            network=self._network,
        )
        try:
            if not item.file.agrees_with(got.sha256):
                raise wrong_hash(target, got.sha256, item.file.sha256 or item.file.sha256_starts, entry.id)
            inspect(target)
        except InvalidWeights:
            target.unlink(missing_ok=True)
            raise
        if not item.file.sha256:
            source = str(got.source or "")
            self.first_uses.add(entry.id, item.file.path, got.sha256, got.size, source, got.revision)
        return got

    def take(
        self,
        entry: ModelEntry,
        file: ModelFile,
        opened: Callable[[], IO[bytes]],
        *,
        size: int,
        origin: str,
        sha256: str = "",
        watch: Watch = QUIET,
    ) -> InstalledFile:
        """Copy a file in from a stream and check it on the way: hash against what is known, then what it is.

        Raises
        ------
        InvalidWeights
            Nothing is left behind.
        OutputError, Cancelled
        """
        target = self.store.file(entry.id, file.path)
        make_folder(target.parent)
        known = self.first_uses.of(entry.id).get(file.path)
        expected = sha256 or file.sha256 or (known.sha256 if known else "")
        part = target.with_name(f"{target.name}.taken")
        try:
            _check_space(target.parent, size)
            with opened() as stream:
                found = _copy(stream, part, size, watch)
            if (expected and found != expected) or not file.agrees_with(found):
                raise wrong_hash(target, found, expected or file.sha256_starts, entry.id)
            inspect(part, name=target.name)
            part.replace(target)
        except OSError as error:
            raise output_error(target, error) from error
        finally:
            part.unlink(missing_ok=True)
        if not file.sha256:
            self.first_uses.add(entry.id, file.path, found, size, origin)
        return InstalledFile(file.path, size, found, 0, origin, first_use=not file.sha256)

    def finish(self, entry: ModelEntry, files: list[InstalledFile], revision: str = "") -> InstallRecord:
        """Write the description beside the files, then the record that makes the model count as installed."""
        if all(file.path != CONFIG_FILE for file in files):
            describe(entry, files, revision).save(self.store.folder(entry.id) / CONFIG_FILE)
        accepted = self.licences.accepted(entry)
        licence = accepted.licence if accepted else ""
        return self.store.write_record(InstallRecord(entry.id, now(), tuple(files), licence, revision))

    def known_record(self, entry: ModelEntry, watch: Watch) -> InstallRecord | None:
        """A record for files that lie there without one, if every hash is known beforehand and right."""
        first = self.first_uses.of(entry.id)
        files = []
        for file in entry.files:
            known = file.sha256 or (first[file.path].sha256 if file.path in first else "")
            path = self.store.file(entry.id, file.path)
            if not known or not path.is_file() or hash_file(path, is_cancelled=watch.is_cancelled) != known:
                return None
            inspect(path)
            files.append(InstalledFile(file.path, path.stat().st_size, known, 0, "found in place", not file.sha256))
        return self.finish(entry, files) if files else None


def describe(entry: ModelEntry, files: list[InstalledFile], revision: str = "") -> ModelConfig:
    """The description of an installed model, bound to its files by their hashes."""
    roles = {file.path: file.role for file in entry.files}
    bound = tuple(
        FileEntry(file.path, roles.get(file.path, _role(file.path)), _file_type(file.path), file.size, file.sha256)
        for file in files
    )
    repository = entry.repository.hub if entry.repository else next((p.hub for p in _places(entry) if p.hub), "")
    return ModelConfig(
        id=entry.id,
        family=entry.family or entry.architecture.name,
        architecture=entry.architecture,
        title=entry.title,
        version=entry.version,
        description=entry.summary,
        intended_use=entry.intended_use,
        inputs=entry.inputs,
        heads=entry.heads,
        files=bound,
        source=Source(repository=repository, revision=revision, url=entry.homepage, paper=entry.citation),
        licence=entry.licence,
        provenance=entry.provenance,
        requirements=entry.requirements,
        resources=entry.resources,
    )


def _places(entry: ModelEntry) -> Iterator[Place]:
    for file in entry.files:
        yield from file.sources


def _file_type(path: str) -> FileType:
    return _FILE_TYPES.get(PurePosixPath(path).suffix.lower(), FileType.OTHER)


def _role(path: str) -> FileRole:
    return FileRole.OTHER if _file_type(path) is FileType.OTHER else FileRole.WEIGHTS


def _wanted_file(file: ModelFile, first: FirstUse | None) -> _Wanted:
    """A file of the catalogue; what came at the first use fills what the catalogue leaves open."""
    places = [place for place in file.sources if not place.embedded]
    if first is not None and first.revision:
        places = [replace(p, revision=p.revision or first.revision) if p.hub else p for p in places]
    sources = tuple(place.source(file.path) for place in places)
    known = file.sha256 or (first.sha256 if first else "")
    return _Wanted(file, sources, known, bool(known))


def _shifted(watch: Watch, stage: str, done_before: int, total: int | None) -> Watch:
    """The same watch for one file of several."""

    def on_progress(_stage: str, done: int, file_total: int | None) -> None:
        whole = done_before + done
        known = total if total is not None else (None if file_total is None else done_before + file_total)
        watch.on_progress(stage, whole, None if known is None else max(known, whole))

    return replace(watch, on_progress=on_progress)


def _copy(stream: IO[bytes], part: Path, size: int, watch: Watch) -> str:
    """Write a stream to a file and onto the disk; its SHA-256."""
    digest, done = hashlib.sha256(), 0
    with part.open("wb") as out:
        while block := stream.read(_BLOCK):
            watch.check_cancelled()
            digest.update(block)
            out.write(block)
            done += len(block)
            watch.on_progress("copying", done, size)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"'{folder}' has not enough space.",
            why=f"{size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free.",
            todo="Free some space, or choose another folder with MEDAI_HOME.",
        )


def _nothing_to_fetch(entry: ModelEntry) -> DownloadFailed:
    return DownloadFailed(
        f"'{entry.id}' cannot be downloaded: nobody offers it at an address.",
        why=" ".join(entry.notes),
        todo=f"Get the file from its authors ({entry.homepage or 'see its card'}), then: medai models import FILE "
        f"--as {entry.id}",
    )
