"""Archives opened without trust: no way out of the folder, no links, no bombs, no half-unpacked leftovers."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from MedAILib.atomic import output_error
from MedAILib.errors import Cancelled, InvalidWeights

_CHUNK = 1 << 20
_LINK_MODE = 0o120000
_AGAIN = "Copy or download it again, or ask whoever made it for a new one."
_DO_NOT = "Do not use it; get the archive from its publisher."


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes
    ----------
    members : int
        Files and folders in it.
    total_bytes : int
        Bytes of all files together.
    ratio : float
        Unpacked bytes per byte of the archive, once they are more than ``free_bytes``. Weights do not
        compress well; deflate's theoretical best is 1032.
    free_bytes : int
        Unpacked bytes below which no ratio is asked for.
    """

    members: int = 100_000
    total_bytes: int = 512 << 30
    ratio: float = 100.0
    free_bytes: int = 64 << 20

    def allowed_bytes(self, archive_bytes: int) -> int:
        """The most an archive of a size may unpack to."""
        return min(self.total_bytes, max(self.free_bytes, int(self.ratio * archive_bytes)))


LIMITS = Limits()


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a (compressed) tar that can be unpacked here."""
    if zipfile.is_zipfile(path):
        return True
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):
        return False


def open_zip(path: Path, limits: Limits = LIMITS) -> zipfile.ZipFile:
    """Open a zip whose table of contents has been checked: names, links, passwords, sizes.

    Raises
    ------
    InvalidWeights
        Named for what it is: cut short, a way out of the folder, a link, a bomb, locked.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InvalidWeights(
            f"'{path}' is a damaged zip file.",
            why="It is cut short: its table of contents, which comes last, is missing or broken.",
            todo=_AGAIN,
        ) from error
    try:
        _check_zip(path, archive, limits)
    except InvalidWeights:
        archive.close()
        raise
    return archive


def _check_zip(path: Path, archive: zipfile.ZipFile, limits: Limits) -> None:
    members = archive.infolist()
    check_names(path, [member.filename for member in members], limits)
    for member in members:
        if (member.external_attr >> 16) & 0o170000 == _LINK_MODE:
            raise _link(path, member.filename)
        if member.flag_bits & 1:
            raise InvalidWeights(
                f"'{path}' is locked with a password.", todo="Unpack it yourself and import the folder."
            )
    total, size = sum(member.file_size for member in members), path.stat().st_size
    if total > limits.allowed_bytes(size):
        raise bomb(path, total, size)


def check_names(path: Path, names: Iterable[str], limits: Limits = LIMITS) -> None:
    """Refuse names that lead out of the folder, repeat each other, or are too many."""
    seen: set[str] = set()
    for count, name in enumerate(names, start=1):
        safe_path(path, name)
        folded = name.casefold()
        if folded in seen:
            raise InvalidWeights(f"'{path}' holds '{name}' twice.", why="One would hide the other.", todo=_DO_NOT)
        seen.add(folded)
        if count > limits.members:
            raise InvalidWeights(f"'{path}' holds more than {limits.members:,} files.", todo=_DO_NOT)


def safe_path(archive: Path, name: str) -> PurePosixPath:
    """A member's name as a relative path; raises `InvalidWeights` where it would leave the folder."""
    parts = PurePosixPath(name).parts
    outside = not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name
    if outside or any(ord(letter) < 32 for letter in name):
        raise InvalidWeights(
            f"'{archive}' would write outside the folder it is unpacked to.",
            why=f"It holds a file called '{name}'.",
            todo=_DO_NOT,
        )
    return PurePosixPath(*parts)


def bomb(path: Path, total: int, size: int) -> InvalidWeights:
    """The error for an archive that unpacks to more than anyone would pack."""
    return InvalidWeights(
        f"'{path}' is an archive bomb.",
        why=f"Its {size:,} bytes would unpack to at least {total:,}, far more than weights do.",
        todo=_DO_NOT,
    )


def extract(
    path: Path,
    folder: Path,
    *,
    limits: Limits = LIMITS,
    on_bytes: Callable[[int], None] = lambda count: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Unpack a zip or tar (also gzip, bzip2, xz) into an existing folder.

    Parameters
    ----------
    path : Path
    folder : Path
        Where to; nothing outside it is touched.
    limits : Limits
    on_bytes : callable
        Told the bytes written since the last call.
    is_cancelled : callable

    Returns
    -------
    list of Path
        The files written, in the archive's order.

    Raises
    ------
    InvalidWeights
        The archive is damaged or hostile.
    OutputError
        The disk is full or the folder may not be written to.
    Cancelled
    """
    writer = _Writer(path, folder, limits, on_bytes, is_cancelled)
    try:
        if zipfile.is_zipfile(path):
            with open_zip(path, limits) as archive:
                _extract_zip(archive, writer)
        else:
            with tarfile.open(path, "r|*") as archive:
                _extract_tar(path, archive, writer)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InvalidWeights(f"'{path}' is a damaged archive.", why=f"{error}.", todo=_AGAIN) from error
    except OSError as error:
        if error.errno is None:  # gzip's and lzma's way of saying that the data is wrong
            raise InvalidWeights(f"'{path}' is a damaged archive.", why=f"{error}.", todo=_AGAIN) from error
        raise output_error(folder, error) from error
    return writer.files


def _extract_zip(archive: zipfile.ZipFile, writer: _Writer) -> None:
    for member in archive.infolist():
        if not member.is_dir():
            with archive.open(member) as stream:
                writer.write(member.filename, stream)


def _extract_tar(path: Path, archive: tarfile.TarFile, writer: _Writer) -> None:
    names: set[str] = set()
    for member in archive:
        if member.isdir():
            safe_path(path, member.name)
            continue
        if member.issym() or member.islnk():
            raise _link(path, member.name)
        stream = archive.extractfile(member) if member.isreg() and not member.issparse() else None
        if stream is None:
            raise InvalidWeights(
                f"'{path}' holds '{member.name}', which is neither a plain file nor a folder.", todo=_DO_NOT
            )
        names.add(member.name.casefold())
        if len(names) != len(writer.files) + 1:
            raise InvalidWeights(f"'{path}' holds '{member.name}' twice.", todo=_DO_NOT)
        writer.write(member.name, stream)


class _Writer:
    """Writes members below a folder and counts what arrives, whatever the archive claims."""

    def __init__(
        self,
        archive: Path,
        folder: Path,
        limits: Limits,
        on_bytes: Callable[[int], None],
        is_cancelled: Callable[[], bool],
    ) -> None:
        self.files: list[Path] = []
        self._archive, self._folder, self._limits = archive, folder, limits
        self._on_bytes, self._is_cancelled = on_bytes, is_cancelled
        self._size = archive.stat().st_size
        self._written = 0

    def write(self, name: str, stream: IO[bytes]) -> None:
        target = self._folder / safe_path(self._archive, name)
        if len(self.files) >= self._limits.members:
            raise InvalidWeights(f"'{self._archive}' holds more than {self._limits.members:,} files.", todo=_DO_NOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            while chunk := stream.read(_CHUNK):
                self._written += len(chunk)
                if self._written > self._limits.allowed_bytes(self._size):
                    raise bomb(self._archive, self._written, self._size)
                if self._is_cancelled():
                    raise Cancelled("Unpacking was cancelled.", todo="Nothing was installed.")
                out.write(chunk)
                self._on_bytes(len(chunk))
        self.files.append(target)


def _link(path: Path, name: str) -> InvalidWeights:
    return InvalidWeights(
        f"'{path}' holds a link called '{name}'.",
        why="A link in an archive can point anywhere on this machine.",
        todo=_DO_NOT,
    )
