"""How this machine reaches the network: proxies, certificates, patience; and one opener made of them."""

from __future__ import annotations

import http.client
import ipaddress
import os
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPMessage
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from MedAILib import __version__
from MedAILib.errors import DownloadFailed, InputError
from MedAILib.models.sources import public_url

USER_AGENT = f"slicer-medai/{__version__}"
HUB = "https://huggingface.co"
DRIVE = "https://drive.google.com"
_CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXY_KINDS = ("http", "https")


@dataclass(frozen=True)
class Network:
    """Settings of every request. The defaults follow the operating system and the usual environment variables.

    Attributes
    ----------
    proxies : mapping of str to str, optional
        ``{"https": "http://proxy.hospital:3128"}``. Default: ``HTTPS_PROXY``, ``NO_PROXY`` and, on Windows and
        macOS, the system's settings. An empty mapping: no proxy at all.
    ca_file : path, optional
        More trusted certificates (PEM), besides those of the system, ``SSL_CERT_FILE`` and ``REQUESTS_CA_BUNDLE``.
    timeout_s : float
        How long a server may stay silent.
    attempts : int
        How often to try again at the same place without getting further.
    first_wait_s, longest_wait_s : float
        Pause before the second attempt, doubled before each next one; the longest that a server may ask for.
    hub_endpoint : str
        Default: ``HF_ENDPOINT``, else ``https://huggingface.co``.
    drive_endpoint : str
    allow_http_on_loopback : bool
        Plain http to this very machine, for tests. To any other machine it is always refused.
    """

    proxies: Mapping[str, str] | None = None
    ca_file: str | os.PathLike[str] | None = None
    timeout_s: float = 30.0
    attempts: int = 5
    first_wait_s: float = 0.5
    longest_wait_s: float = 120.0
    hub_endpoint: str = ""
    drive_endpoint: str = DRIVE
    allow_http_on_loopback: bool = False

    @property
    def hub(self) -> str:
        """The hub's address, without a slash at its end."""
        return (self.hub_endpoint or os.environ.get("HF_ENDPOINT", "") or HUB).rstrip("/")

    def proxy_for(self, url: str) -> str:
        """The proxy that a request to this address goes through; empty for none."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not host or urllib.request.proxy_bypass(host):
            return ""
        proxies = urllib.request.getproxies() if self.proxies is None else self.proxies
        return proxies.get(parts.scheme, "")


Follows = Callable[[str, str], bool]


def any_host(old_url: str, new_url: str) -> bool:
    """Follow every redirect that is allowed at all."""
    return True


def same_host(old_url: str, new_url: str) -> bool:
    """Follow a redirect within the host only."""
    return origin(old_url) == origin(new_url)


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what must stay the same for a token to stay valid."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def opener(network: Network, token: str, follows: Follows, cookies: CookieJar | None) -> urllib.request.OpenerDirector:
    """What opens a request as `network` says. It knows http and https and nothing else: no files, no ftp.

    Parameters
    ----------
    network : Network
    token : str
        Sent as ``Authorization`` to the host of the first address, never to another one.
    follows : callable
        Whether to follow a redirect, from the old and the new address; see `any_host`.
    cookies : CookieJar, optional
    """
    director = urllib.request.OpenerDirector()
    proxies = {kind: proxy for kind, proxy in _proxies(network).items() if kind in _PROXY_KINDS and proxy}
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        _Https(network),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _CarefulRedirect(network, token, follows),
    ]
    if cookies is not None:
        handlers.append(urllib.request.HTTPCookieProcessor(cookies))
    for handler in handlers:
        director.add_handler(handler)
    return director


def request(url: str, method: str, headers: Mapping[str, str], token: str) -> urllib.request.Request:
    """A request whose token stays behind when a redirect copies the other headers."""
    made = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, **headers}, method=method)
    if token:
        made.add_unredirected_header("Authorization", f"Bearer {token}")
    return made


def check_allowed(url: str, network: Network) -> None:
    """Refuse every address that is not https; with `Network.allow_http_on_loopback`, http to this machine is allowed.

    Raises
    ------
    DownloadFailed
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and network.allow_http_on_loopback and is_loopback(parts.hostname or ""):
        return
    raise DownloadFailed(
        f"'{public_url(url)}' is refused.",
        why="Only https is safe: over any other connection somebody on the way could exchange the file.",
        todo="Use an https address.",
    )


def check_proxy(url: str, network: Network) -> None:
    """Refuse kinds of proxy that cannot be used, by name, instead of failing strangely.

    Raises
    ------
    DownloadFailed
    """
    kind, found, _ = network.proxy_for(url).partition("://")
    if found and kind not in _PROXY_KINDS:
        raise DownloadFailed(
            f"The proxy of kind '{kind}' cannot be used.",
            why="Only http proxies are supported.",
            todo="Set HTTPS_PROXY to the address of an http proxy, or ask your IT department for one.",
        )


def clean_token(token: str | None) -> str:
    """The token without the blanks that come from copying it.

    Raises
    ------
    InputError
        It cannot be one; the message does not show it.
    """
    cleaned = (token or "").strip()
    if not all("!" <= letter <= "~" for letter in cleaned):
        raise InputError(
            "The access token cannot be used.",
            why="It has blanks, line ends or letters that no token has.",
            todo="Copy it again from the site that issued it.",
        )
    return cleaned


def tls_context(ca_file: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
    """Certificates are always checked, against the system's store and what the usual variables and ``ca_file`` name.

    Raises
    ------
    InputError
        ``ca_file`` holds no certificates.
    """
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=os.fspath(ca_file))
        except OSError as error:
            raise InputError(
                f"'{ca_file}' cannot be used as a file of certificates.",
                why=f"{error.strerror or error}.",
                todo="Name a PEM file ('-----BEGIN CERTIFICATE-----').",
            ) from error
    for variable in _CERTIFICATE_VARIABLES:
        bundle = os.environ.get(variable, "")
        if bundle and Path(bundle).is_file():
            context.load_verify_locations(cafile=bundle)
    if not _has_certificates(context):
        _use_certifi(context)
    return context


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _proxies(network: Network) -> Mapping[str, str]:
    return urllib.request.getproxies() if network.proxies is None else network.proxies


def _has_certificates(context: ssl.SSLContext) -> bool:
    """A bundled Python, such as Slicer's, may look for the system's certificates where there are none."""
    if context.cert_store_stats()["x509_ca"]:
        return True
    folder = ssl.get_default_verify_paths().capath
    return bool(folder) and any(Path(folder).iterdir())


def _use_certifi(context: ssl.SSLContext) -> None:
    try:
        import certifi
    except ImportError:
        return
    context.load_verify_locations(cafile=certifi.where())


class _Https(urllib.request.AbstractHTTPHandler):
    """https with our certificates, which are loaded only where a connection needs them."""

    https_request = urllib.request.AbstractHTTPHandler.do_request_

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._ca_file = network.ca_file

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(http.client.HTTPSConnection, req, context=tls_context(self._ca_file))


class _CarefulRedirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects to allowed addresses; the token goes along only within its own host."""

    def __init__(self, network: Network, token: str, follows: Follows) -> None:
        self._network = network
        self._token = token
        self._follows = follows
        self._home: tuple[str, str, int | None] | None = None

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if self._home is None:
            self._home = origin(req.full_url)
        if not self._follows(req.full_url, newurl):
            return None
        check_allowed(newurl, self._network)
        kept = {name: value for name, value in req.headers.items() if name.lower() not in ("authorization", "cookie")}
        token = self._token if origin(newurl) == self._home else ""
        return request(newurl, req.get_method(), kept, token)
