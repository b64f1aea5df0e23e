"""One request and its answer, read by a thread of its own, so that whoever asked can walk away at any moment.

Name look-up, connecting, the TLS handshake and a silent server can each block for many seconds, and none of
them can be interrupted. The thread may hang there; the caller only looks into a queue.
"""

from __future__ import annotations

import http.client
import logging
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.cookiejar import CookieJar
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

from MedAILib.errors import Cancelled, MedAIError
from MedAILib.models.network import Follows, Network, any_host, check_allowed, check_proxy, opener, request
from MedAILib.models.sources import public_url

logger = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024
_WAITING_CHUNKS = 16
_LOOK_AGAIN_S = 0.1
_SAFE_IN_URL = "!#$%&'()*+,/:;=?@[]~"

IsCancelled = Callable[[], bool]
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Answer:
    """What a server answers before the body.

    Attributes
    ----------
    status : int
    headers : Message
        Looked up without regard to case.
    url : str
        The address that answered, after redirects.
    """

    status: int
    headers: Message
    url: str

    def header(self, name: str) -> str:
        """A header's text; empty where it is missing."""
        return str(self.headers.get(name, "")).strip()

    @property
    def is_html(self) -> bool:
        return self.header("Content-Type").lower().startswith(("text/html", "application/xhtml"))

    @property
    def length(self) -> int | None:
        """Bytes of the body, where the server says so."""
        text = self.header("Content-Length")
        return int(text) if text.isdecimal() and not self.is_chunked else None

    @property
    def is_chunked(self) -> bool:
        return "chunked" in self.header("Transfer-Encoding").lower()


class NetworkFailed(Exception):
    """The network failed below the level of answers.

    Attributes
    ----------
    reason : Exception
        Of urllib, http.client, ssl or the operating system; or a refusal of our own.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Exchange:
    """One request on its way. Use it as a context; leaving it abandons whatever has not been read.

    Parameters
    ----------
    url : str
        https; see `MedAILib.models.network.check_allowed`. May hold letters outside ASCII.
    network : Network
    method : str
    headers : mapping of str to str, optional
    token : str
        For the host of ``url`` only.
    follows : callable
        Which redirects to follow.
    cookies : CookieJar, optional
    is_cancelled : callable

    Raises
    ------
    NetworkFailed
        The address or the proxy is of a kind that is refused.
    """

    def __init__(
        self,
        url: str,
        network: Network,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        token: str = "",
        follows: Follows = any_host,
        cookies: CookieJar | None = None,
        is_cancelled: IsCancelled = lambda: False,
    ) -> None:
        url = quote(url, safe=_SAFE_IN_URL)
        ensure_allowed(url, network)
        self._is_cancelled = is_cancelled
        self._items: queue.Queue[Answer | bytes | BaseException | None] = queue.Queue(_WAITING_CHUNKS)
        self._abandoned = threading.Event()
        self._request = request(url, method, {"Accept-Encoding": "identity", **(headers or {})}, token)
        self._opener = opener(network, token, follows, cookies)
        self._timeout_s = network.timeout_s
        logger.debug("%s %s", method, public_url(url))
        threading.Thread(target=self._run, name="medai-download", daemon=True).start()
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """The answer's status and headers; waits for them.

        Raises
        ------
        NetworkFailed, Cancelled
        """
        if self._answer is None:
            item = self._next()
            assert isinstance(item, Answer)
            self._answer = item
        return self._answer

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces as they arrive; errors as in `answer`."""
        assert self.answer is not None
        while (item := self._next()) is not None:
            assert isinstance(item, bytes)
            yield item

    def text(self, limit: int = 256 * 1024) -> str:
        """The start of the body as text."""
        collected = bytearray()
        for chunk in self.chunks():
            collected += chunk
            if len(collected) >= limit:
                break
        return bytes(collected[:limit]).decode("utf-8", "replace")

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned.set()

    def _next(self) -> Answer | bytes | None:
        while True:
            if self._is_cancelled():
                raise cancelled()
            try:
                item = self._items.get(timeout=_LOOK_AGAIN_S)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            return item

    def _run(self) -> None:
        """The thread: open, read, hand over; any failure is handed over too."""
        try:
            response = self._open()
            with response:
                self._put(Answer(response.status, response.headers, response.url or self._request.full_url))
                while not self._abandoned.is_set() and (chunk := response.read1(CHUNK_BYTES)):
                    self._put(chunk)
            self._put(None)
        except (OSError, http.client.HTTPException, ValueError, MedAIError) as error:
            self._put(NetworkFailed(error))
        except BaseException as error:  # the asker must never wait for a dead thread
            self._put(error)

    def _open(self) -> Any:
        try:
            return self._opener.open(self._request, timeout=self._timeout_s)
        except urllib.error.HTTPError as answer:  # an answer as good as any: it has a status, headers and a body
            return answer

    def _put(self, item: Answer | bytes | BaseException | None) -> None:
        while not self._abandoned.is_set():
            try:
                self._items.put(item, timeout=_LOOK_AGAIN_S)
            except queue.Full:
                continue
            return


def ensure_allowed(url: str, network: Network) -> None:
    """Raises `NetworkFailed` where the address, or the proxy that leads to it, is of a kind that is refused."""
    try:
        check_allowed(url, network)
        check_proxy(url, network)
    except MedAIError as error:
        raise NetworkFailed(error) from error


def interruptible(call: Callable[[], ResultT], is_cancelled: IsCancelled) -> ResultT:
    """The result of a call that cannot be interrupted itself: a thread hangs in it, and cancelling leaves it there."""
    outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except BaseException as error:  # handed over, raised below
            outcome.put((None, error))

    threading.Thread(target=run, name="medai-download", daemon=True).start()
    while True:
        if is_cancelled():
            raise cancelled()
        with suppress(queue.Empty):
            result, error = outcome.get(timeout=_LOOK_AGAIN_S)
            if error is not None:
                raise error
            found: ResultT = result
            return found


def wait(seconds: float, is_cancelled: IsCancelled) -> None:
    """Wait, and stop waiting when cancelled; raises `Cancelled`."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if is_cancelled():
            raise cancelled()
        time.sleep(min(left, _LOOK_AGAIN_S))


def cancelled() -> Cancelled:
    """What a stopped download says."""
    return Cancelled(
        "The download was cancelled.", todo="What has arrived is kept: start it again and it goes on from there."
    )
