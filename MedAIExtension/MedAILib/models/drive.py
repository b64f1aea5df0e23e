"""Files on Google Drive: past the page that warns of large files, and what its other pages mean.

Drive answers a request for a large file with a page instead: a form (``download-form``) whose hidden fields, among
them ``confirm`` and ``uuid``, lead to the file. Quota, missing permission and missing files are pages too, often
with status 200.

Why not ``gdown`` (read and tried with 6.5.1): it takes only Google's own hosts for Drive, so that it cannot be
tested without Google (pointed at a local Drive it stores the warning page as the file); a later run continues a part
with the version of that day, not with the one the part came from, so that a file exchanged in between is stitched
together unless its hash is known; parts are found by a pattern, without a lock against a second process. The page takes
the few lines below, and the bytes come through `MedAILib.models.download` like all others.
"""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from MedAILib.errors import DownloadFailed
from MedAILib.models.exchange import Answer, Exchange, IsCancelled
from MedAILib.models.located import Located
from MedAILib.models.network import Network
from MedAILib.models.sources import DriveSource, public_url
from MedAILib.models.trouble import Explain, Trouble, status_trouble

_FORM = "download-form"
_QUOTA = ("quota exceeded", "too many users have viewed or downloaded")
_SIGN_IN = ("accounts.google.com/", "you need access", "request access")
_MISSING = ("file you have requested does not exist", "page not found", "404. that")


def locate_on_drive(source: DriveSource, network: Network, is_cancelled: IsCancelled = lambda: False) -> Located:
    """Ask Drive for a file and press "Download anyway" where it asks back.

    Raises
    ------
    Trouble
        Quota exceeded, not shared with everybody, missing, or a page we do not know.
    NetworkFailed, Cancelled
    """
    cookies = CookieJar()
    explain = _explainer(source)
    url = f"{network.drive_endpoint.rstrip('/')}/uc?" + urlencode({"export": "download", "id": source.file_id})
    with Exchange(url, network, cookies=cookies, is_cancelled=is_cancelled) as exchange:
        answer = exchange.answer
        is_page = answer.is_html or answer.status >= 400
        if not is_page:
            return Located(answer.url, size=answer.length, cookies=cookies, explain=explain)
        page = exchange.text()
    confirmed = confirmed_url(page, answer.url) if answer.status < 400 else ""
    if not confirmed:
        raise status_trouble(answer, page, explain, network.longest_wait_s)
    _check_stays_at_google(confirmed, network)
    return Located(confirmed, cookies=cookies, explain=explain)


def confirmed_url(page: str, page_url: str) -> str:
    """The address behind "Download anyway" of the virus-scan page; empty where the page has no such form."""
    form = _DownloadForm()
    form.feed(page)
    if not form.action:
        return ""
    parts = urlsplit(urljoin(page_url, form.action))
    fields = {**dict(parse_qsl(parts.query)), **form.fields}
    return urlunsplit(parts._replace(query=urlencode(fields), fragment=""))


def _check_stays_at_google(url: str, network: Network) -> None:
    host = urlsplit(url).hostname or ""
    if host == urlsplit(network.drive_endpoint).hostname or host.endswith((".google.com", ".googleusercontent.com")):
        return
    raise Trouble(
        DownloadFailed(
            "Google Drive's page leads away from Google.",
            why=f"Its download button goes to '{public_url(url)}': the page is not Google's.",
            todo="Ask your IT department whether a proxy exchanges pages.",
        )
    )


def _explainer(source: DriveSource) -> Explain:
    """What Drive's pages mean that come in place of this file."""
    share_page = f"https://drive.google.com/file/d/{source.file_id}/view"
    by_hand = f"Open {share_page} in a browser; a file downloaded there can be taken in with 'medai models import'."

    def explain(answer: Answer, page: str) -> Trouble | None:
        if not answer.is_html and answer.status < 400:
            return None
        text = unescape(page).lower()
        if any(sign in text for sign in _QUOTA):
            what = f"Google Drive does not give the file {source.file_id} today: its download quota is used up."
            why = "Too many people downloaded it lately."
            return Trouble(DownloadFailed(what, why=why, todo=f"Try again after a day. {by_hand}"))
        if urlsplit(answer.url).hostname == "accounts.google.com" or any(sign in text for sign in _SIGN_IN):
            what = f"Google Drive wants a sign-in for the file {source.file_id}."
            why = "It is not shared with everybody who has the link."
            return Trouble(DownloadFailed(what, why=why, todo=f"Ask its owner for access. {by_hand}"))
        if answer.status in (404, 410) or any(sign in text for sign in _MISSING):
            what = f"Google Drive has no file {source.file_id}."
            why = "It was removed, or the id is wrong."
            return Trouble(DownloadFailed(what, why=why, todo="Correct the catalogue entry."))
        if answer.status in (408, 429) or answer.status >= 500:
            return None
        title = re.search(r"<title[^>]*>([^<]{1,120})", page, re.IGNORECASE)
        said = f"'{unescape(title[1]).strip()}'" if title else "without a title"
        what = f"Google Drive answered with a page instead of the file {source.file_id}."
        return Trouble(DownloadFailed(what, why=f"A page {said}, which this program does not know.", todo=by_hand))

    return explain


class _DownloadForm(HTMLParser):
    """Finds the form of the virus-scan page, its address and its hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and values.get("id") == _FORM:
            self._is_inside = True
            self.action = values.get("action", "")
        elif tag == "input" and self._is_inside and values.get("type") == "hidden" and values.get("name"):
            self.fields[values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._is_inside = False
