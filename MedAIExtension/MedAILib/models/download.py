"""Fetch a file so that its final name means: complete, checked, on the disk.

Bytes arrive in ``<target>.part`` and go on where they stopped, after a broken connection, a cancel, a killed process
or a power failure. One process at a time works on a target; others wait and then find the file.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from MedAILib.atomic import output_error
from MedAILib.errors import DownloadFailed, InputError, InUse, MedAIError, OutputError
from MedAILib.models.exchange import IsCancelled
from MedAILib.models.fetch import Downloaded, OneSource, OnProgress, Order, Report
from MedAILib.models.locks import locked
from MedAILib.models.network import Network, clean_token
from MedAILib.models.partial import discard, lock_path, part_path, record_path
from MedAILib.models.sources import DriveSource, HttpsSource, HubSource, Source
from MedAILib.models.trouble import Trouble

__all__ = ["Downloaded", "DriveSource", "HttpsSource", "HubSource", "Network", "Source", "download"]

logger = logging.getLogger(__name__)

_SHA256 = re.compile("[0-9a-f]{64}")


def download(
    sources: Source | Sequence[Source],
    target: str | os.PathLike[str],
    *,
    size: int | None = None,
    sha256: str | None = None,
    on_progress: OnProgress | None = None,
    is_cancelled: IsCancelled | None = None,
    token: str | None = None,
    free_space_factor: float = 1.0,
    network: Network | None = None,
) -> Downloaded:
    """Fetch a file from the first of its sources that gives it.

    Parameters
    ----------
    sources : source or sequence of sources
        Tried in order.
    target : path
        The final name; its folder is made when it is missing. A file of that name is replaced at the very end.
        Beside it, for a while: ``.part``, ``.part.json`` and ``.lock``.
    size : int, optional
        Bytes, where known.
    sha256 : str, optional
        Of the file, hexadecimal. Where known, a file that is there already and has it is left alone.
    on_progress : callable, optional
        Called with bytes done and bytes in total (None while unknown), about ten times a second.
    is_cancelled : callable, optional
        Asked ten times a second.
    token : str, optional
        For the hub (default there: that of this user), and for an `HttpsSource` that says ``with_token``. It is
        sent to no other host, also not by a redirect, and is never logged or stored.
    free_space_factor : float
        How many times its size the file needs on the disk, unpacking included.
    network : Network, optional

    Raises
    ------
    DownloadFailed
        No source gave the file; says why for each.
    OutputError
        The disk is full or refuses.
    Cancelled
        What has arrived is kept.
    InputError
        No source, or a hash that is none.
    """
    order = Order(
        sources=_listed(sources),
        target=Path(target),
        size=size,
        sha256=_checked_sha256(sha256),
        token=clean_token(token),
        free_space_factor=free_space_factor,
        network=network or Network(),
        is_cancelled=is_cancelled or (lambda: False),
        report=Report(on_progress),
    )
    before = _identity(order.target)
    there = _already_there(order) if order.sha256 else None
    if there is not None:
        _tidy_up(order.target)
        return there
    _prepare_folder(order.target)
    with locked(lock_path(order.target), is_cancelled=order.is_cancelled, on_wait=order.report_waiting):
        if _identity(order.target) != before:  # another process has just finished it
            there = _already_there(order)
        return there or _from_first_willing(order)


def _from_first_willing(order: Order) -> Downloaded:
    failures: list[MedAIError] = []
    for source in order.sources:
        attempt = OneSource(order, source)
        try:
            return attempt.run()
        except Trouble as trouble:
            logger.info("%s: %s", source, trouble.error.text)
            failures.append(trouble.error)
        finally:
            attempt.part.close()
    raise _all_failed(order, failures)


def _already_there(order: Order) -> Downloaded | None:
    """The target itself, where it is complete already: it has the hash, or none is known to compare with."""
    target = order.target
    try:
        size = target.stat().st_size
        if not target.is_file() or (order.size is not None and size != order.size):
            return None
        with target.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                order.check_cancelled()
                digest.update(block)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise output_error(target, error) from error
    found = digest.hexdigest()
    if order.sha256 and found != order.sha256:
        return None
    order.report(size, size, at_once=True)
    return Downloaded(target, found, size, None, trusted_on_first_use=not order.sha256)


def _identity(target: Path) -> tuple[int, int, int] | None:
    """Tells whether a file was exchanged meanwhile; None where there is none."""
    try:
        found = target.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _prepare_folder(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    except OSError as error:
        raise output_error(target, error) from error


def _tidy_up(target: Path) -> None:
    """Remove what a run left that was killed just after the file was complete."""
    if any(path.exists() for path in (part_path(target), record_path(target), lock_path(target))):
        with suppress(InUse, OutputError), locked(lock_path(target), timeout_s=0):
            discard(target)


def _all_failed(order: Order, failures: Sequence[MedAIError]) -> MedAIError:
    if len(failures) == 1:
        return failures[0]
    reasons = " ".join(
        f"({number}) {error.what} {error.why}".rstrip() for number, error in enumerate(failures, start=1)
    )
    return DownloadFailed(
        f"None of the {len(failures)} sources gave '{order.target.name}'.", why=reasons, todo=failures[0].todo
    )


def _listed(sources: Source | Sequence[Source]) -> tuple[Source, ...]:
    listed = (sources,) if isinstance(sources, HttpsSource | HubSource | DriveSource) else tuple(sources)
    if not listed:
        raise InputError("No source was given to download from.", todo="Name one in the catalogue entry.")
    return listed


def _checked_sha256(text: str | None) -> str:
    lower = (text or "").strip().lower()
    if lower and not _SHA256.fullmatch(lower):
        raise InputError(f"'{text}' is not a sha256.", why="One has 64 hexadecimal digits.")
    return lower
