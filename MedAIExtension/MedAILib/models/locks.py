"""A lock that two processes respect: whoever holds the lock file's lock works, the others wait.

The operating system releases the lock when its holder ends, however it ends, so nothing is ever left locked.
The lock also keeps two threads of one process apart.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from MedAILib.atomic import output_error
from MedAILib.errors import Cancelled, InUse, OutputError

_LOOK_AGAIN_S = 0.05
_HELD = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def locked(
    path: str | os.PathLike[str],
    *,
    timeout_s: float | None = None,
    is_cancelled: Callable[[], bool] | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[bool]:
    """Hold the lock of a lock file; wait while another process or thread holds it.

    Parameters
    ----------
    path : path
        The lock file, made when it is missing and removed afterwards. Its folder must exist.
    timeout_s : float, optional
        How long to wait; 0 means not at all, None means until it is free.
    is_cancelled : callable, optional
        Asked about 20 times a second while waiting.
    on_wait : callable, optional
        Called as often while waiting, for showing progress.

    Yields
    ------
    bool
        Whether another one had to be waited for.

    Raises
    ------
    InUse
        Another one still holds the lock after the time.
    Cancelled
        The user asked to stop while waiting.
    OutputError
        The lock file cannot be made, or the file system has no locks.
    """
    lock_file = Path(path)
    started = time.monotonic()
    waited = False
    while (descriptor := _try_to_lock(lock_file)) is None:
        if timeout_s is not None and time.monotonic() - started >= timeout_s:
            raise _in_use(lock_file)
        waited = True
        if is_cancelled is not None and is_cancelled():
            raise Cancelled("Waiting was cancelled.", why=_holder(lock_file), todo="Nothing was changed.")
        if on_wait is not None:
            on_wait()
        time.sleep(_LOOK_AGAIN_S)
    try:
        yield waited
    finally:
        _release(lock_file, descriptor)


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Whether somebody holds the lock of a lock file right now."""
    lock_file = Path(path)
    if not lock_file.exists():
        return False
    descriptor = _try_to_lock(lock_file)
    if descriptor is None:
        return True
    _release(lock_file, descriptor)
    return False


def _try_to_lock(lock_file: Path) -> int | None:
    """A descriptor that holds the lock; None where another one holds it."""
    try:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    except PermissionError as error:
        if sys.platform == "win32" and lock_file.exists():  # its last holder is just removing it
            return None
        raise output_error(lock_file, error) from error
    except OSError as error:
        raise output_error(lock_file, error) from error
    try:
        _take(descriptor)
        if not _is_still_there(lock_file, descriptor):  # its last holder removed it after we had opened it
            os.close(descriptor)
            return None
        _sign(descriptor)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _HELD:
            return None
        raise _no_lock(lock_file, error) from error
    return descriptor


def _is_still_there(lock_file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), lock_file.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Leave our process id in the lock file, for whoever wants to know whom they wait for."""
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())


def _release(lock_file: Path, descriptor: int) -> None:
    """Remove the lock file and let the lock go: in this order, unless the system removes no open file."""
    if sys.platform == "win32":
        os.close(descriptor)
        with suppress(OSError):  # the next one has it open already
            lock_file.unlink()
        return
    with suppress(OSError):
        lock_file.unlink()
    os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    _FAR_BEYOND_THE_TEXT = 1 << 30

    def _take(descriptor: int) -> None:
        os.lseek(descriptor, _FAR_BEYOND_THE_TEXT, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(lock_file: Path) -> str:
    try:
        process_id = lock_file.read_text().strip()
    except OSError:
        process_id = ""
    return f"Process {process_id} is working there." if process_id else "Another process is working there."


def _in_use(lock_file: Path) -> InUse:
    return InUse(
        f"'{lock_file.with_suffix('')}' is in use.",
        why=_holder(lock_file),
        todo="Wait until it is done, or end that process.",
    )


def _no_lock(lock_file: Path, error: OSError) -> OutputError:
    if error.errno not in _NO_LOCKS_HERE:
        return output_error(lock_file, error)
    return OutputError(
        f"'{lock_file.parent}' cannot be used by two programs safely.",
        why="Its file system knows no locks, as some network drives.",
        todo="Choose a folder on a disk of this computer, for instance with MEDAI_HOME.",
    )
