"""Servers on this machine that speak as the real ones do: a file server with bad days, a model hub, Google Drive."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from MedAILib.models.network import Network

PIECE_BYTES = 16 * 1024
LONGEST_ANSWER_S = 20.0


def loopback(**settings: object) -> Network:
    """Settings for these servers: no proxy, short pauses, plain http to this machine."""
    values: dict[str, object] = {"proxies": {}, "allow_http_on_loopback": True, "first_wait_s": 0.01, "timeout_s": 5.0}
    return Network(**{**values, **settings})  # type: ignore[arg-type]


def some_bytes(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Seen:
    """A request that came in, and how many bytes of the body went out."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    sent: int = 0


@dataclass
class Reply:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Served:
    """A file and how it is served.

    `breaks_after` gives for the number of bytes in an answer after how many the connection breaks, or None.
    """

    content: bytes
    etag: str = '"v1"'
    last_modified: str = "Wed, 01 Jul 2026 10:00:00 GMT"
    honours_range: bool = True
    honours_if_range: bool = True
    chunked: bool = False
    tells_length: bool = True
    pause_s: float = 0.0
    breaks_after: Callable[[int], int | None] = lambda count: None
    headers: dict[str, str] = field(default_factory=dict)


class LocalServer:
    """A server on 127.0.0.1, within a ``with`` block. What it was asked is in `seen`."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"
        self._server.handle_error = lambda *about: None  # type: ignore[method-assign]
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def answer(self, asked: Seen) -> Reply | Served:
        raise NotImplementedError

    @property
    def address(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"{self.address}/{quote(path)}"

    @property
    def sent(self) -> int:
        return sum(seen.sent for seen in list(self.seen))

    def bodies(self) -> list[Seen]:
        """The requests that were answered with bytes of a file."""
        return [seen for seen in self.seen if seen.method == "GET" and seen.sent]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner._serve(self)

            def do_HEAD(self) -> None:
                owner._serve(self)

            def log_message(self, *about: object) -> None:
                pass

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        parts = urlsplit(handler.path)
        seen = Seen(
            handler.command,
            unquote(parts.path),
            {name: values[0] for name, values in parse_qs(parts.query).items()},
            {name.lower(): value for name, value in handler.headers.items()},
        )
        self.seen.append(seen)
        answer = self.answer(seen)
        if isinstance(answer, Served):
            self._send_file(handler, seen, answer)
        else:
            body = b"" if seen.method == "HEAD" else answer.body
            self._start(handler, answer.status, {"Content-Length": str(len(answer.body)), **answer.headers})
            handler.wfile.write(body)

    def _send_file(self, handler: BaseHTTPRequestHandler, seen: Seen, file: Served) -> None:
        size = len(file.content)
        start = _range_start(seen, file)
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **file.headers}
        if file.etag:
            headers["ETag"] = file.etag
        if file.last_modified:
            headers["Last-Modified"] = file.last_modified
        if start is not None and start >= size:
            self._start(handler, 416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        body = file.content[start or 0 :]
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        if file.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif file.tells_length:
            headers["Content-Length"] = str(len(body))
        self._start(handler, 200 if start is None else 206, headers)
        if seen.method == "GET":
            with suppress(OSError):
                self._send_body(handler, seen, file, body)

    def _send_body(self, handler: BaseHTTPRequestHandler, seen: Seen, file: Served, body: bytes) -> None:
        breaks_after = file.breaks_after(len(body))
        until = len(body) if breaks_after is None else min(breaks_after, len(body))
        started = time.monotonic()
        for at in range(0, until, PIECE_BYTES):
            piece = body[at : min(at + PIECE_BYTES, until)]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if file.chunked else piece)
            seen.sent += len(piece)
            if self.closing.wait(file.pause_s) or time.monotonic() - started > LONGEST_ANSWER_S:
                return
        if file.chunked and until == len(body):
            handler.wfile.write(b"0\r\n\r\n")
        if breaks_after is not None and until < len(body) and until % 2:  # break hard, with a reset
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()

    @staticmethod
    def _start(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            handler.send_header(name, value)
        handler.end_headers()


def _range_start(seen: Seen, file: Served) -> int | None:
    """Where the answer starts; None where the whole file is to be sent."""
    match = re.fullmatch(r"bytes=(\d+)-", seen.headers.get("range", ""))
    if match is None or not file.honours_range:
        return None
    condition = seen.headers.get("if-range")
    if condition is not None and file.honours_if_range and condition not in (file.etag, file.last_modified):
        return None
    return int(match[1])


class WeightServer(LocalServer):
    """Serves `files` by path; what is not there is 404. A function in place of a file makes its own answer."""

    def __init__(self, certificate: Path | None = None, **files: bytes) -> None:
        super().__init__(certificate)
        self.files: dict[str, Served | Callable[[Seen], Reply | Served]] = {}
        for name, content in files.items():
            self.files[name] = Served(content)

    def add(self, path: str, content: bytes, **how: object) -> str:
        """Serve a file; returns its address."""
        self.files[path] = Served(content, **how)  # type: ignore[arg-type]
        return self.url(path)

    def add_reply(self, path: str, *replies: Reply | Served) -> str:
        """Answer with these in turn, the last one for ever; returns the address."""
        waiting = list(replies)
        self.files[path] = lambda seen: waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return self.url(path)

    def answer(self, asked: Seen) -> Reply | Served:
        found = self.files.get(asked.path.lstrip("/"))
        if found is None:
            return Reply(404, {"Content-Type": "text/html"}, b"<!DOCTYPE html><html><title>404</title></html>")
        return found if isinstance(found, Served) else found(asked)


COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_TOKEN = "hf_aTokenForTests"


class HubServer(LocalServer):
    """A model hub: ``resolve`` with commit, hash and size, large files behind a redirect to a storage elsewhere."""

    def __init__(self, storage: WeightServer) -> None:
        super().__init__()
        self.storage = storage
        self.repos: dict[str, dict[str, bytes]] = {}
        self.small_files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.granted_tokens = {HUB_TOKEN}
        self.moved: dict[str, str] = {}
        self.commit = COMMIT

    def add(self, repo: str, path: str, content: bytes, **how: object) -> None:
        """A file in large-file storage."""
        self.repos.setdefault(repo, {})[path] = content
        self.storage.add(sha256_of(content), content, **how)

    def answer(self, asked: Seen) -> Reply | Served:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", asked.path)
        if match is None:
            return Reply(404)
        repo, revision, path = match.groups()
        if repo in self.moved:
            new = asked.path.replace(repo, self.moved[repo], 1)
            return Reply(307, {"Location": quote(new)})
        return self._refusal(asked, repo, revision, path) or self._file(repo, path)

    def _refusal(self, asked: Seen, repo: str, revision: str, path: str) -> Reply | None:
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if token == "hf_expired":
            said = "Invalid credentials in Authorization header"
            return Reply(401, {"X-Error-Message": said}, b'{"error":"Invalid credentials"}')
        if repo in self.gated and token not in self.granted_tokens:
            said = f"Access to model {repo} is restricted."
            return _hub_error(403 if token else 401, "GatedRepo", said)
        files = {**self.repos.get(repo, {}), **self.small_files.get(repo, {})}
        if not files:
            return _hub_error(404 if token else 401, "RepoNotFound", "Repository not found")
        if revision not in ("main", self.commit):
            return _hub_error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None if path in files else _hub_error(404, "EntryNotFound", "Entry not found")

    def _file(self, repo: str, path: str) -> Reply | Served:
        about = {"X-Repo-Commit": self.commit}
        if path in self.small_files.get(repo, {}):
            content = self.small_files[repo][path]
            return Served(content, etag=f'"{hashlib.sha1(content).hexdigest()}"', headers=about)
        content = self.repos[repo][path]
        digest = sha256_of(content)
        headers = {
            **about,
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{digest}"',
            "Location": self.storage.url(digest) + "?Signature=secret-signature",
        }
        return Reply(302, headers, b"Found. Redirecting")


def _hub_error(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"X-Error-Code": code, "X-Error-Message": message}, b"{}")


DRIVE_ID = "1nzhFYOJx3rzvnO8o6g-D1MMA6iQ4VYpw"
CONFIRM_UUID = "5e0c1a2b-3c4d-4e5f-8a9b-0c1d2e3f4a5b"
_WARNING_PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title><meta
http-equiv="content-type" content="text/html; charset=utf-8"/></head><body><div class="uc-main"><div
id="uc-text"><p class="uc-warning-caption">Google Drive can't scan this file for viruses.</p><p
class="uc-warning-subcaption"><span class="uc-name-size"><a href="/open?id={id}">weights.pth</a> (149M)</span> is
too large for Google to scan for viruses. Would you still like to download this file?</p><form id="download-form"
action="{action}" method="get"><input type="submit" id="uc-download-link" class="goog-inline-block jfk-button"
value="Download anyway"/><input type="hidden" name="id" value="{id}"><input type="hidden" name="export"
value="download"><input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid"
value="{uuid}"></form></div></div></body></html>"""
_QUOTA_PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body><div
class="uc-main"><div id="uc-text"><p class="uc-error-caption">Sorry, you can&#39;t view or download this file at
this time.</p><p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try
accessing the file again later.</p></div></div></body></html>"""
_MISSING_PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Page Not Found</title></head><body><p>Sorry, the
file you have requested does not exist.</p></body></html>"""
_SIGN_IN_PAGE = """<!doctype html><html><head><base href="https://accounts.google.com/v3/signin/"><title>Google Drive:
Sign-in</title></head><body>Sign in to continue to Google Drive</body></html>"""
_HTML = {"Content-Type": "text/html; charset=utf-8"}


class DriveServer(LocalServer):
    """Google Drive: ``/uc`` sends on to ``/download``, which gives small files at once and asks back for large ones."""

    def __init__(self, content: bytes, large: bool = True, **how: object) -> None:
        super().__init__()
        self.file = Served(content, etag="", **how)  # type: ignore[arg-type]
        self.is_large = large
        self.page = ""
        self.form_action = ""
        self.needs_cookie = False

    def answer(self, asked: Seen) -> Reply | Served:
        if asked.path == "/uc" and asked.query.get("export") == "download":
            target = f"{self.address}/download?id={asked.query['id']}&export=download"
            return Reply(303, {"Location": target, "Set-Cookie": "NID=for-this-visit; Path=/"})
        if asked.path != "/download":
            return Reply(404)
        if self.page == "quota":
            return Reply(200, _HTML, _QUOTA_PAGE.encode())
        if self.page == "sign-in":
            return Reply(200, _HTML, _SIGN_IN_PAGE.encode())
        if self.page == "new":
            return Reply(200, _HTML, b"<!DOCTYPE html><html><title>Google Drive &amp; you</title></html>")
        if self.page == "missing" or asked.query.get("id") != DRIVE_ID:
            return Reply(404, _HTML, _MISSING_PAGE.encode())
        confirmed = asked.query.get("confirm") == "t" and asked.query.get("uuid") == CONFIRM_UUID
        if self.needs_cookie and "NID=for-this-visit" not in asked.headers.get("cookie", ""):
            confirmed = False
        if not self.is_large or confirmed:
            return self.file
        action = self.form_action or f"{self.address}/download"
        return Reply(200, _HTML, _WARNING_PAGE.format(id=DRIVE_ID, action=action, uuid=CONFIRM_UUID).encode())


class TunnelProxy:
    """An http proxy that only tunnels, with or without a password, within a ``with`` block."""

    def __init__(self, refuses_with: str = "") -> None:
        self.asked: list[str] = []
        self.authorizations: list[str] = []
        self._refuses_with = refuses_with
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def __enter__(self) -> TunnelProxy:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as stream, suppress(OSError):
            client.settimeout(LONGEST_ANSWER_S)
            _, target, _ = stream.readline().decode().split()
            self.asked.append(target)
            for line in iter(stream.readline, b"\r\n"):
                if line.lower().startswith(b"proxy-authorization:"):
                    self.authorizations.append(line.decode().partition(":")[2].strip())
            if self._refuses_with:
                client.sendall(f"HTTP/1.1 {self._refuses_with}\r\nContent-Length: 0\r\n\r\n".encode())
                return
            host, _, port = target.partition(":")
            with socket.create_connection((host, int(port)), timeout=5) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join(5)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def make_certificate(folder: Path) -> Path | None:
    """A key and a certificate for 127.0.0.1 in one PEM file, made by openssl; None where there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return None
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    command = (
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=MedAI-test"
    )
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True, timeout=20)
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both
