"""Files that appear whole or not at all: written beside their place, then moved onto it."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from MedAILib.errors import OutputError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that readers see the old one or the new one, never half of it.

    The block writes to the path it is given; that path has the final name, in a hidden folder beside
    the target. Files it writes next to it (the voxels of a ``.nhdr`` or ``.mhd``) move along, before it.
    When the block raises, nothing is left behind and an existing target stays as it was.

    Parameters
    ----------
    path : path
        Where the file shall be; a symbolic link is followed.

    Yields
    ------
    Path
        Where to write now.

    Raises
    ------
    OutputError
        Folder missing, no permission, disk full, or any other refusal of the file system.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}.", suffix=".part", dir=target.parent))
    except OSError as error:
        raise output_error(target, error) from error
    try:
        yield folder / target.name
        _move_in(folder, target)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a small file at once; raises `OutputError` as `replacing` does."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8, newlines as given) at once; raises `OutputError` as `replacing` does."""
    write_bytes(path, text.encode("utf-8"))


def output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """The error hierarchy's words for what the file system refused."""
    target = Path(path)
    what = f"'{target}' could not be written."
    if error.errno in _DISK_FULL:
        return OutputError(
            what,
            why="The disk is full, or a size limit was reached.",
            todo="Free some space or choose another folder; nothing half-written was left behind.",
        )
    if error.errno in _FORBIDDEN:
        return OutputError(
            what, why=f"Writing into '{target.parent}' is not allowed.", todo="Choose a folder you may write to."
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and not target.parent.is_dir():
        return OutputError(
            what, why=f"The folder '{target.parent}' does not exist.", todo="Create it, or choose another one."
        )
    if error.errno == errno.EISDIR:
        return OutputError(what, why="A folder of that name exists.", todo="Choose another file name.")
    return OutputError(what, why=f"The file system answered: {error.strerror or error}.", todo="Choose another place.")


def _move_in(folder: Path, target: Path) -> None:
    """Flush what was written to the disk, then move it in, the target last."""
    written = sorted(folder.iterdir(), key=lambda file: file.name == target.name)
    if not written or written[-1].name != target.name:
        raise FileNotFoundError(errno.ENOENT, f"nothing was written as '{target.name}'", str(target))
    for file in written:
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
    for file in written:
        file.replace(target.parent / file.name)
