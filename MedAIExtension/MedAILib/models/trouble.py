"""Why a download does not go on: told to the user, and told to the loop that decides whether to try again."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from urllib.error import URLError
from urllib.parse import urlsplit

from MedAILib.errors import DownloadFailed, MedAIError
from MedAILib.models.exchange import Answer, NetworkFailed
from MedAILib.models.network import Network
from MedAILib.models.sources import public_url

_OFFLINE_TODO = "On a computer without internet, use 'medai models import' with a file or bundle from another one."
_LATER = "Try again later; what has arrived is kept."


class Trouble(Exception):
    """One attempt failed.

    Attributes
    ----------
    error : MedAIError
        For the user.
    is_temporary : bool
        Whether the same place may well answer better in a moment.
    wait_s : float
        The pause the server asked for.
    """

    def __init__(self, error: MedAIError, *, is_temporary: bool = False, wait_s: float = 0.0) -> None:
        super().__init__(error.text)
        self.error = error
        self.is_temporary = is_temporary
        self.wait_s = wait_s


Explain = Callable[[Answer, str], Trouble | None]
"""What a site's own answer means, from its headers and the start of its body; None where it knows nothing."""


def network_trouble(failure: NetworkFailed, url: str, network: Network) -> Trouble:
    """What a failure of the network means."""
    reason = failure.reason.reason if isinstance(failure.reason, URLError) else failure.reason
    host = urlsplit(url).hostname or url
    if isinstance(reason, MedAIError):
        return Trouble(reason)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Trouble(_untrusted(host, reason))
    proxy = network.proxy_for(url)
    if isinstance(reason, OSError) and "Tunnel connection failed" in str(reason):
        return Trouble(_proxy_refused(host, proxy, str(reason)))
    if isinstance(reason, socket.gaierror):
        return Trouble(_unknown_host(host, proxy), is_temporary=reason.errno == socket.EAI_AGAIN)
    return Trouble(_no_connection(host, proxy, reason), is_temporary=True)


def status_trouble(answer: Answer, body: str, explain: Explain | None, longest_wait_s: float) -> Trouble:
    """What an answer means whose status says that it is not the file."""
    known = explain(answer, body) if explain is not None else None
    if known is not None:
        return known
    shown, status = public_url(answer.url), answer.status
    if status in (401, 403, 407):
        return Trouble(_refused(shown, status))
    if status in (404, 410):
        return Trouble(
            DownloadFailed(
                f"There is no file at '{shown}' (answer {status}).",
                why="It was moved or removed, or the address is wrong.",
                todo="Update the extension's catalogue, or get the file elsewhere and use 'medai models import'.",
            )
        )
    if status in (408, 429) or status >= 500:
        return _busy(answer, longest_wait_s)
    if 300 <= status < 400:
        why = "It redirects in a circle, or without saying where to."
        return Trouble(DownloadFailed(f"'{shown}' leads nowhere (answer {status}).", why=why, todo=_LATER))
    return Trouble(
        DownloadFailed(f"The server refused '{shown}' with answer {status}.", todo="Check the address of the source.")
    )


def cut_short(url: str, received: int, expected: int | None) -> Trouble:
    """The connection ended before the file did."""
    of = f" of {expected:,}" if expected is not None else ""
    error = DownloadFailed(
        f"The connection to {urlsplit(url).hostname} broke after {received:,}{of} bytes.",
        why="The network or the server interrupted the transfer.",
        todo="Start it again: it goes on where it stopped.",
    )
    return Trouble(error, is_temporary=True)


def wrong_size(url: str, found: int, expected: int) -> Trouble:
    return Trouble(
        DownloadFailed(
            f"'{public_url(url)}' is not the expected file.",
            why=f"It has {found:,} bytes instead of {expected:,}: the site has another version of it.",
            todo="Update the extension's catalogue, or get the expected file elsewhere and use 'medai models import'.",
        )
    )


def wrong_hash(url: str, found: str, expected: str) -> Trouble:
    return Trouble(
        DownloadFailed(
            f"'{public_url(url)}' is not the expected file; what arrived was deleted.",
            why=f"Its sha256 is {found} instead of {expected}: the site has another version, or it was tampered with.",
            todo="Update the extension's catalogue, or get the expected file elsewhere and use 'medai models import'.",
        )
    )


def unprovable(url: str) -> Trouble:
    return Trouble(
        DownloadFailed(
            f"Whether the file from '{public_url(url)}' is complete cannot be known.",
            why="The server does not tell its size, and the catalogue knows neither size nor sha256.",
            todo="Enter the sha256 into the catalogue, or get the file elsewhere and use 'medai models import'.",
        )
    )


def not_the_file(url: str, what: str, todo: str) -> Trouble:
    return Trouble(DownloadFailed(f"'{public_url(url)}' did not give the file.", why=f"It is {what}.", todo=todo))


def compressed(answer: Answer) -> Trouble:
    encoding = answer.header("Content-Encoding")
    return Trouble(
        DownloadFailed(
            f"'{public_url(answer.url)}' cannot be used.",
            why=f"The server compresses the transfer ({encoding}) although it was asked not to; "
            "size and hash would mean something else.",
            todo="A proxy may do this: ask your IT department, or use another source.",
        )
    )


def _untrusted(host: str, reason: ssl.SSLCertVerificationError) -> DownloadFailed:
    return DownloadFailed(
        f"The identity of {host} could not be confirmed.",
        why=f"Its certificate was not accepted: {reason.verify_message}. "
        "Networks that inspect traffic sign with a certificate of their own.",
        todo="Check this computer's date; in such a network ask the IT department for its certificate file (PEM) "
        "and set SSL_CERT_FILE to it.",
    )


def _proxy_refused(host: str, proxy: str, said: str) -> DownloadFailed:
    wants_password = " 407" in said
    return DownloadFailed(
        f"The proxy {_without_password(proxy)} does not connect to {host}.",
        why="It wants a name and password." if wants_password else f"It answered: {said.partition(': ')[2] or said}.",
        todo="Write them into HTTPS_PROXY (http://name:password@proxy:port)."
        if wants_password
        else "Ask your IT department to allow that host. " + _OFFLINE_TODO,
    )


def _unknown_host(host: str, proxy: str) -> DownloadFailed:
    if proxy:
        return DownloadFailed(
            f"The proxy {_without_password(proxy)} could not be found.",
            why="The name look-up failed: its name is wrong, or there is no network.",
            todo="Correct HTTPS_PROXY. " + _OFFLINE_TODO,
        )
    return DownloadFailed(
        f"The host {host} could not be found.",
        why="The name look-up failed: there is no internet, or it is reached through a proxy only.",
        todo="Check the connection; behind a proxy set HTTPS_PROXY. " + _OFFLINE_TODO,
    )


def _no_connection(host: str, proxy: str, reason: object) -> DownloadFailed:
    through = f" through the proxy {_without_password(proxy)}" if proxy else ""
    if isinstance(reason, TimeoutError):
        why = "It did not answer in time."
    elif isinstance(reason, ConnectionRefusedError):
        why = "The connection was refused: nothing listens there, or a firewall is in between."
    elif isinstance(reason, http.client.HTTPException | ConnectionError):
        why = "The connection broke."
    else:
        why = f"The system says: {reason}."
    return DownloadFailed(
        f"The connection to {host}{through} failed.",
        why=why,
        todo="Check the network and start it again: it goes on where it stopped. " + _OFFLINE_TODO,
    )


def _refused(shown: str, status: int) -> DownloadFailed:
    return DownloadFailed(
        f"Access to '{shown}' was refused (answer {status}).",
        why="The file is for signed-in people only, or the link has expired.",
        todo="Open its page in a browser to see what is needed; a file downloaded there can be "
        "taken in with 'medai models import'.",
    )


def _busy(answer: Answer, longest_wait_s: float) -> Trouble:
    wait_s = retry_after_s(answer.header("Retry-After"))
    host = urlsplit(answer.url).hostname
    too_many = answer.status == 429
    error = DownloadFailed(
        f"{host} does not serve the file right now (answer {answer.status}).",
        why="It received too many requests from this network." if too_many else "The server has a problem of its own.",
        todo=f"Try again in {_duration(wait_s)}; what has arrived is kept." if wait_s else _LATER,
    )
    return Trouble(error, is_temporary=wait_s <= longest_wait_s, wait_s=wait_s)


def retry_after_s(text: str) -> float:
    """Seconds that a ``Retry-After`` header asks for, given as seconds or as a date; 0 where it says nothing."""
    if text.isdecimal():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return 0.0


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"


def _without_password(proxy: str) -> str:
    parts = urlsplit(proxy if "://" in proxy else f"//{proxy}")
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
