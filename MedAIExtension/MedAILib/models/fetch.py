"""One source of a download: asked until it has given the file, or is hopeless."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from MedAILib.errors import DownloadFailed, OutputError
from MedAILib.models.exchange import Answer, Exchange, IsCancelled, NetworkFailed, cancelled, wait
from MedAILib.models.located import Located
from MedAILib.models.network import Network
from MedAILib.models.partial import PartFile, PartRecord, expected_bytes, partial_bytes
from MedAILib.models.placeholders import placeholder_in
from MedAILib.models.sources import DriveSource, HubSource, Source, public_url
from MedAILib.models.trouble import (
    Trouble,
    compressed,
    cut_short,
    network_trouble,
    not_the_file,
    status_trouble,
    unprovable,
    wrong_hash,
    wrong_size,
)

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int | None], None]

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_HEAD_BYTES = 4096
_REAL_PROGRESS_BYTES = 64 * 1024
_REPORT_EVERY_S = 0.1
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Downloaded:
    """A file that is complete and checked.

    Attributes
    ----------
    path : Path
    sha256 : str
        Hexadecimal, lower case.
    size : int
        Bytes.
    source : HttpsSource, HubSource, DriveSource or None
        Where it came from; None where it was there already.
    trusted_on_first_use : bool
        True where the caller knew no hash: `sha256` is then what came today, and should be recorded and asked for
        next time. A hash that a hub itself stated was checked in any case.
    etag : str
        The server's word for the version.
    revision : str
        The hub commit it belongs to.
    received_bytes : int
        How many bytes came over the network in this call.
    """

    path: Path
    sha256: str
    size: int
    source: Source | None
    trusted_on_first_use: bool
    etag: str = ""
    revision: str = ""
    received_bytes: int = 0


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    sources: tuple[Source, ...]
    target: Path
    size: int | None
    sha256: str
    token: str
    free_space_factor: float
    network: Network
    is_cancelled: IsCancelled
    report: Report

    def check_cancelled(self) -> None:
        if self.is_cancelled():
            raise cancelled()

    def report_waiting(self) -> None:
        self.report(partial_bytes(self.target), self.size or expected_bytes(self.target))


class Report:
    """Progress for whoever looks, not more often than one can see."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._next_at = 0.0

    def __call__(self, done: int, total: int | None, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is not None and (at_once or now >= self._next_at):
            self._next_at = now + _REPORT_EVERY_S
            self._on_progress(done, total)


class OneSource:
    """One source of an order.

    Attributes
    ----------
    part : PartFile
        To be closed by whoever made this.
    """

    def __init__(self, order: Order, source: Source) -> None:
        self.part = PartFile(order.target)
        self._order = order
        self._source = source
        self._located: Located | None = None
        self._sha256 = order.sha256
        self._size = order.size
        self._received = 0
        self._began_again = False

    def run(self) -> Downloaded:
        """Raises `Trouble` once it is hopeless."""
        furthest = failed = 0
        while True:
            try:
                return self._attempt()
            except Trouble as trouble:
                if self.part.length >= furthest + _REAL_PROGRESS_BYTES:
                    furthest, failed = self.part.length, 0
                failed += 1
                if not trouble.is_temporary or failed >= self._order.network.attempts:
                    raise
                logger.info("%s: %s Trying again.", self._source, trouble.error.what)
                pause_s = min(self._order.network.first_wait_s * 2 ** (failed - 1), _LONGEST_PAUSE_S)
                wait(max(pause_s, trouble.wait_s), self._order.is_cancelled)

    def _attempt(self) -> Downloaded:
        url = str(self._source)
        try:
            if self._located is None:
                self._located = self._locate()
            url = self._located.url
            if not self._is_complete():
                self._fetch(self._located)
        except NetworkFailed as failure:
            raise network_trouble(failure, url, self._order.network) from failure
        return self._finish(self._located)

    def _locate(self) -> Located:
        """Ask the site what the source means, and take up what is left of an earlier run."""
        order = self._order
        located = _locate(self._source, order)
        if order.sha256 and located.sha256 not in ("", order.sha256):
            raise wrong_hash(located.url, located.sha256, order.sha256)
        if order.size is not None and located.size is not None and located.size != order.size:
            raise wrong_size(located.url, located.size, order.size)
        self._sha256 = order.sha256 or located.sha256
        self._size = located.size if order.size is None else order.size
        self.part.open(self._source.key, self._sha256, self._size, order.check_cancelled)
        return located

    def _is_complete(self) -> bool:
        """Whether an earlier run was stopped after the last byte; only a known hash can tell that."""
        return bool(self._sha256) and self._size is not None and self.part.length == self._size

    def _fetch(self, located: Located) -> None:
        with Exchange(
            located.url,
            self._order.network,
            headers=self._range_headers(),
            token=located.token,
            cookies=located.cookies,
            is_cancelled=self._order.is_cancelled,
        ) as exchange:
            total = self._begin(exchange, located)
            self._receive(exchange, total)

    def _range_headers(self) -> dict[str, str]:
        """Ask for what is missing only, if a server can know which version the part belongs to."""
        part, record = self.part, self.part.record
        validator = record.validator if record.source == self._source.key else ""
        if part.length and not validator and not self._sha256:
            part.start_over()
        if part.length and part.length == (self._size or record.size):
            part.give_back_last_byte()
        if not part.length:
            return {}
        headers = {"Range": f"bytes={part.length}-"}
        return {**headers, "If-Range": validator} if validator else headers

    def _begin(self, exchange: Exchange, located: Located) -> int | None:
        """Understand the answer and prepare the part for its body; the file's total size, where known."""
        answer, part = exchange.answer, self.part
        if answer.status == 416 and part.length:
            part.start_over()
            raise Trouble(_range_refused(located.url), is_temporary=True)
        if answer.status not in (200, 206):
            raise status_trouble(answer, exchange.text(), located.explain, self._order.network.longest_wait_s)
        if answer.is_html and self._order.target.suffix.lower() not in (".html", ".htm"):
            raise _page_trouble(answer, exchange.text(), located)
        if answer.header("Content-Encoding").lower() not in ("", "identity"):
            raise compressed(answer)
        total = self._total_of_range(answer, located) if answer.status == 206 else answer.length
        if None not in (total, self._size) and total != self._size:
            raise wrong_size(located.url, total or 0, self._size or 0)
        total = self._size if total is None else total
        if total is None and not answer.is_chunked and not self._sha256:
            raise unprovable(located.url)
        self._note_version(answer, total)
        _check_space(self._order, total, part.length)
        return total

    def _total_of_range(self, answer: Answer, located: Located) -> int | None:
        """The whole size that a partial answer names, once it is sure that it continues our part."""
        part = self.part
        match = _CONTENT_RANGE.fullmatch(answer.header("Content-Range"))
        etag = answer.header("ETag")
        is_same_source = part.record.source == self._source.key
        is_other_version = is_same_source and bool(etag) and bool(part.record.etag) and etag != part.record.etag
        if match is None or int(match[1]) != part.length or is_other_version:
            part.start_over()
            raise Trouble(_range_refused(located.url), is_temporary=True)
        return None if match[3] == "*" else int(match[3])

    def _note_version(self, answer: Answer, total: int | None) -> None:
        record = PartRecord(
            source=self._source.key,
            etag=answer.header("ETag"),
            last_modified=answer.header("Last-Modified"),
            size=total,
            sha256=self._sha256,
        )
        if answer.status == 206 and self.part.length:
            self.part.continue_as(record)
        else:
            self.part.start_over(record)

    def _receive(self, exchange: Exchange, total: int | None) -> None:
        order, part = self._order, self.part
        url = exchange.answer.url
        head = b"" if part.length == 0 else None
        order.report(part.length, total, at_once=True)
        for chunk in exchange.chunks():
            self._received += len(chunk)
            if head is not None:  # nothing is written before it is clear that it is no placeholder
                head += chunk
                if len(head) < _HEAD_BYTES:
                    continue
                chunk, head = self._checked_head(head, url), None
            self._write(chunk, total, url)
        if head:
            self._write(self._checked_head(head, url), total, url)
        order.report(part.length, total, at_once=True)
        if total is not None and part.length < total:
            raise cut_short(url, part.length, total)

    def _write(self, chunk: bytes, total: int | None, url: str) -> None:
        if total is not None and self.part.length + len(chunk) > total:
            self.part.start_over()
            raise wrong_size(url, self.part.length + len(chunk), total)
        self.part.write(chunk)
        self._order.report(self.part.length, total)

    def _checked_head(self, head: bytes, url: str) -> bytes:
        """The first bytes, unless they are those of a web page, a pointer or an error message."""
        placeholder = placeholder_in(head) if head.lstrip()[:1] in (b"<", b"{", b"v") else None
        if placeholder is not None:
            raise not_the_file(url, placeholder.what, placeholder.todo)
        return head

    def _finish(self, located: Located) -> Downloaded:
        part = self.part
        found, expected = part.sha256, self._sha256
        if expected and found != expected:
            is_worth_another_try = not part.is_from_one_answer and not self._began_again
            self._began_again = True
            part.start_over()
            trouble = wrong_hash(located.url, found, expected)
            trouble.is_temporary = is_worth_another_try
            raise trouble
        part.finish()
        logger.info("%s: %d bytes, sha256 %s", self._source, part.length, found)
        return Downloaded(
            path=self._order.target,
            sha256=found,
            size=part.length,
            source=self._source,
            trusted_on_first_use=not self._order.sha256,
            etag=part.record.etag,
            revision=located.revision,
            received_bytes=self._received,
        )


def _locate(source: Source, order: Order) -> Located:
    from MedAILib.models.drive import locate_on_drive
    from MedAILib.models.hub import locate_on_hub

    if isinstance(source, HubSource):
        return locate_on_hub(source, order.network, order.token, order.is_cancelled)
    if isinstance(source, DriveSource):
        return locate_on_drive(source, order.network, order.is_cancelled)
    return Located(source.url, token=order.token if source.with_token else "")


def _check_space(order: Order, total: int | None, there: int) -> None:
    """Say before the start that the disk is too small; raises `OutputError`."""
    if total is None:
        return
    needed = int(total * order.free_space_factor) - there
    free = shutil.disk_usage(order.target.parent).free
    if needed > free:
        raise OutputError(
            f"'{order.target.name}' does not fit on the disk: {_megabytes(needed)} are needed, "
            f"{_megabytes(free)} are free in '{order.target.parent}'.",
            todo="Free some space, or choose a folder on another disk with MEDAI_HOME.",
        )


def _page_trouble(answer: Answer, page: str, located: Located) -> Trouble:
    known = located.explain(answer, page) if located.explain is not None else None
    if known is not None:
        return known
    placeholder = placeholder_in(page.encode())
    what = placeholder.what if placeholder is not None else "a web page"
    todo = placeholder.todo if placeholder is not None else ""
    return not_the_file(answer.url, what, todo or "Open the address in a browser to see what the site wants.")


def _range_refused(url: str) -> DownloadFailed:
    return DownloadFailed(
        f"'{public_url(url)}' does not continue an interrupted transfer.",
        why="The file on the server changed meanwhile, or the server cannot send parts.",
        todo="Start it again.",
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
