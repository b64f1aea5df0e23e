"""Models from files that are here already: recognised by their hashes, whatever they are called."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from MedAILib.errors import FileMissing, InputError, InvalidWeights
from MedAILib.models.archives import extract, is_archive
from MedAILib.models.catalogue import Catalogue
from MedAILib.models.config import CONFIG_FILE
from MedAILib.models.entries import ModelEntry, ModelFile
from MedAILib.models.inspection import FileFormat, inspect
from MedAILib.models.install import QUIET, Installer, Watch
from MedAILib.models.journal import make_folder
from MedAILib.models.store import RECORD_FILE, SCRATCH_PREFIX, InstallRecord, hash_file

_ARCHIVES = {FileFormat.ZIP, FileFormat.TAR, FileFormat.GZIP, FileFormat.OTHER}


@dataclass(frozen=True)
class Unknown:
    """A file that no catalogue knows; ``sha256`` is its hash, ``why`` says what it is."""

    path: Path
    sha256: str
    why: str


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes
    ----------
    installed : tuple of InstallRecord
    incomplete : dict of str to tuple of str
        Models of which some files were found, with the paths of those that are missing.
    unknown : tuple of Unknown
    """

    installed: tuple[InstallRecord, ...] = ()
    incomplete: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: tuple[Unknown, ...] = ()


class Intake:
    """Takes models over from a file, a folder or an archive.

    Parameters
    ----------
    installer : Installer
    catalogue : Catalogue
    """

    def __init__(self, installer: Installer, catalogue: Catalogue) -> None:
        self._installer = installer
        self._catalogue = catalogue

    def take(self, path: Path, *, as_model: str = "", watch: Watch = QUIET) -> Imported:
        """Import whatever is recognised.

        Parameters
        ----------
        path : Path
            A file, a folder (with all below it), or a zip or tar archive of either.
        as_model : str
            This is the model of that id: what its catalogue entry does not know by hash is then taken by name
            and trusted on first use.

        Raises
        ------
        FileMissing, InvalidWeights, LicenceNotAccepted, OutputError, Cancelled
        """
        entry = self._catalogue.entry(as_model) if as_model else None
        if path.is_dir():
            return self._take_files(path, _files_below(path), entry, watch)
        if not path.is_file():
            raise FileMissing(f"There is no file or folder '{path}'.", todo="Check the path.")
        if inspect(path).format in _ARCHIVES and is_archive(path) and not self._is_known(path, watch):
            with self._unpacked(path, watch) as folder:
                return self._take_files(folder, _files_below(folder), entry, watch)
        return self._take_files(path.parent, [path], entry, watch)

    def _is_known(self, path: Path, watch: Watch) -> bool:
        return bool(self._catalogue.with_hash(hash_file(path, is_cancelled=watch.is_cancelled)))

    @contextmanager
    def _unpacked(self, path: Path, watch: Watch) -> Iterator[Path]:
        home = self._installer.store.home
        make_folder(home)
        folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=home))
        done = 0

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            watch.on_progress(f"unpacking {path.name}", done, None)

        try:
            extract(path, folder, on_bytes=on_bytes, is_cancelled=watch.is_cancelled)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _take_files(self, root: Path, files: list[Path], entry: ModelEntry | None, watch: Watch) -> Imported:
        hashes = self._hashes(files, watch)
        chosen = [entry] if entry else self._recognised(hashes)
        installed: list[InstallRecord] = []
        incomplete: dict[str, tuple[str, ...]] = {}
        used: set[Path] = set()
        for candidate in chosen:
            candidate = _with_repository_files(candidate, root, files)
            found = self._assign(candidate, root, hashes, by_name=entry is not None)
            used |= set(found.values())
            missing = tuple(file.path for file in candidate.files if file.path not in found)
            if missing or not found:
                incomplete[candidate.id] = missing
            else:
                installed.append(self._install(candidate, found, hashes, watch))
        unknown = tuple(_unknown(path, sha256) for path, sha256 in hashes.items() if path not in used)
        return Imported(tuple(installed), incomplete, unknown)

    def _hashes(self, files: list[Path], watch: Watch) -> dict[Path, str]:
        total, done = sum(path.stat().st_size for path in files), 0
        hashes = {}
        for path in files:
            start = done

            def on_bytes(count: int, start: int = start) -> None:
                watch.on_progress("recognising", start + count, total)

            hashes[path] = hash_file(path, on_bytes=on_bytes, is_cancelled=watch.is_cancelled)
            done += path.stat().st_size
        return hashes

    def _recognised(self, hashes: dict[Path, str]) -> list[ModelEntry]:
        """Models that one of the hashes belongs to, by the catalogue or by an earlier first use."""
        found = {entry.id: entry for sha256 in hashes.values() for entry, _ in self._catalogue.with_hash(sha256)}
        known = set(hashes.values())
        for entry in self._catalogue:
            uses = self._installer.first_uses.of(entry.id)
            if any(use.sha256 in known for use in uses.values()):
                found[entry.id] = entry
        return list(found.values())

    def _assign(self, entry: ModelEntry, root: Path, hashes: dict[Path, str], *, by_name: bool) -> dict[str, Path]:
        """Which file is which: by hash; one whose hash is not known, by its place beside the others."""
        uses = self._installer.first_uses.of(entry.id)
        found: dict[str, Path] = {}
        for file in entry.files:
            use = uses.get(file.path)
            for path, sha256 in hashes.items():
                if file.is_identified_by(sha256) or (use is not None and use.sha256 == sha256):
                    found[file.path] = path
        for file in entry.files:
            if file.path not in found and not file.sha256 and file.path not in uses and (found or by_name):
                place = _by_place(file, root, hashes) or _the_only_one(entry, file, hashes if by_name else {})
                if place is not None and place not in found.values():
                    found[file.path] = place
        return found

    def _install(
        self, entry: ModelEntry, found: dict[str, Path], hashes: dict[Path, str], watch: Watch
    ) -> InstallRecord:
        self._installer.licences.require(entry)
        with self._installer.alone(entry, watch):
            self._installer.store.forget(entry.id)
            files = []
            for file in entry.files:
                path = found[file.path]
                files.append(
                    self._installer.take(
                        entry,
                        file,
                        lambda path=path: path.open("rb"),  # type: ignore[misc]
                        size=path.stat().st_size,
                        origin=f"imported from {path.name}",
                        sha256=hashes[path],
                        watch=watch,
                    )
                )
            return self._installer.finish(entry, files)


def _with_repository_files(entry: ModelEntry, root: Path, files: list[Path]) -> ModelEntry:
    """An entry that names a whole repository, with the files that a folder has of it."""
    if entry.repository is None:
        return entry
    paths = sorted(path.relative_to(root).as_posix() for path in files)
    patterns = entry.repository.include or ("*",)
    wanted = [path for path in paths if any(fnmatch(PurePosixPath(path).name, pattern) for pattern in patterns)]
    return replace(entry, files=tuple(ModelFile(path) for path in wanted if path != CONFIG_FILE), repository=None)


def _by_place(file: ModelFile, root: Path, hashes: dict[Path, str]) -> Path | None:
    """The file whose path ends as the wanted one does, by as many folders as possible; None where two do."""
    parts = PurePosixPath(file.path).parts
    names = {path: path.relative_to(root).parts for path in hashes}
    for count in range(len(parts), 0, -1):
        fits = [path for path, found in names.items() if found[-count:] == parts[-count:]]
        if fits:
            return fits[0] if len(fits) == 1 else None
    return None


def _the_only_one(entry: ModelEntry, file: ModelFile, hashes: dict[Path, str]) -> Path | None:
    """One file for a model of one file needs no name."""
    return next(iter(hashes)) if len(hashes) == 1 and entry.files == (file,) else None


def _files_below(folder: Path) -> list[Path]:
    ours = {RECORD_FILE, CONFIG_FILE}
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return [path for path in files if not path.name.startswith(".") and path.name not in ours]


def _unknown(path: Path, sha256: str) -> Unknown:
    try:
        what = f"it is {inspect(path).format.value}, and no catalogue knows its hash"
    except (InvalidWeights, InputError) as error:
        what = error.why or error.what
    return Unknown(path, sha256, what)
