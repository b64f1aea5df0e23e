"""Files of a model hub: which bytes a repository, path and revision mean, and why the hub may refuse them.

The hub answers a request for ``{hub}/{repo}/resolve/{revision}/{path}`` with the commit (``X-Repo-Commit``), the
file's size and hash (``X-Linked-Size``, ``X-Linked-Etag``, the sha256 of files in large-file storage) and a redirect
to a storage on another host. ``huggingface_hub`` asks for these where it is installed and our settings leave it free
to; otherwise one request of our own does. The bytes always come through `MedAILib.models.download`, because
``huggingface_hub`` (2.4) begins again from zero after every interruption and checks the size only.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote

from MedAILib.errors import DownloadFailed, MedAIError
from MedAILib.models.exchange import Answer, Exchange, IsCancelled, ensure_allowed, interruptible
from MedAILib.models.located import Located
from MedAILib.models.network import Network, clean_token, same_host
from MedAILib.models.sources import HubSource
from MedAILib.models.trouble import Explain, Trouble, status_trouble

logger = logging.getLogger(__name__)

_TRUE = {"1", "on", "yes", "true"}
_SHA256 = re.compile("[0-9a-f]{64}")
_LIBRARY = "huggingface_hub"


def locate_on_hub(
    source: HubSource,
    network: Network,
    token: str = "",
    is_cancelled: IsCancelled = lambda: False,
    use_library: bool | None = None,
) -> Located:
    """Ask the hub what a source means right now.

    Parameters
    ----------
    source : HubSource
    network : Network
    token : str
        Default: `find_token`.
    is_cancelled : callable
    use_library : bool, optional
        Whether ``huggingface_hub`` asks. Default: where it is installed, and ``network`` names no proxies or
        certificates of its own, of which it would not know.

    Raises
    ------
    Trouble
        Offline mode, a gated or missing repository, or another refusal.
    NetworkFailed, Cancelled
    """
    if is_offline():
        raise Trouble(offline_error(source))
    token = clean_token(token) or clean_token(find_token())
    if use_library is None:
        use_library = has_library() and network.proxies is None and network.ca_file is None
    url = file_url(network.hub, source, source.revision)
    explain = hub_explainer(source, network.hub, has_token=bool(token))
    answer = _asked_by_library(url, network, token, is_cancelled) if use_library else None
    if answer is None:
        answer = _asked_by_us(url, network, token, is_cancelled)
    if answer.status >= 400:
        raise status_trouble(answer, "", explain, network.longest_wait_s)
    return _located(source, network.hub, answer, token, explain)


def file_url(hub: str, source: HubSource, revision: str) -> str:
    """The address that a hub resolves."""
    return f"{hub}/{source.repo}/resolve/{quote(revision, safe='')}/{quote(source.path)}"


def model_page(hub: str, source: HubSource) -> str:
    """The repository's page for people, where its licence is read and accepted."""
    return f"{hub}/{source.repo}"


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` (or ``TRANSFORMERS_OFFLINE``) forbids asking the hub."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.lower() in _TRUE


def has_library() -> bool:
    """Whether ``huggingface_hub`` is installed; it is not imported for that."""
    return importlib.util.find_spec(_LIBRARY) is not None


def find_token() -> str:
    """The hub token of this user: ``HF_TOKEN``, else what ``hf auth login`` stored; empty where there is none."""
    if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").lower() in _TRUE:
        return ""
    from_environment = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    return from_environment.strip() or _stored_token()


def hub_explainer(source: HubSource, hub: str, has_token: bool) -> Explain:
    """A function that understands the hub's refusals of a source (``X-Error-Code``), for `status_trouble`."""
    page = model_page(hub, source)
    missing = {
        "RevisionNotFound": f"The hub repository {source.repo} has no revision '{source.revision}'.",
        "EntryNotFound": f"The hub repository {source.repo} has no file '{source.path}' at revision "
        f"'{source.revision}'.",
    }

    def explain(answer: Answer, _body: str) -> Trouble | None:
        code = answer.header("X-Error-Code")
        if code == "GatedRepo":
            return Trouble(_gated(source, page, has_token))
        if code in missing:
            return Trouble(DownloadFailed(missing[code], todo=f"Look at {page} and correct the catalogue entry."))
        if answer.status == 401 and has_token and "credentials" in answer.header("X-Error-Message").lower():
            return Trouble(_bad_token())
        if code == "RepoNotFound" or answer.status == 401:
            return Trouble(_no_repository(source, page, has_token))
        return None

    return explain


def offline_error(source: HubSource) -> DownloadFailed:
    """What is said where the hub would have to be asked in offline mode."""
    return DownloadFailed(
        f"'{source}' was not fetched.",
        why="Offline mode is on: HF_HUB_OFFLINE is set.",
        todo="Unset it, or take the file in with 'medai models import'.",
    )


def _stored_token() -> str:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    path = Path(os.environ.get("HF_TOKEN_PATH") or Path(home) / "token").expanduser()
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _asked_by_us(url: str, network: Network, token: str, is_cancelled: IsCancelled) -> Answer:
    """The hub's first answer; it is not followed to the storage, which knows neither commit nor sha256."""
    with Exchange(url, network, method="HEAD", token=token, follows=same_host, is_cancelled=is_cancelled) as exchange:
        return exchange.answer


def _asked_by_library(url: str, network: Network, token: str, is_cancelled: IsCancelled) -> Answer | None:
    """The same through ``huggingface_hub``; None where it could not, and our own request shall say why."""
    ensure_allowed(url, network)
    try:
        from huggingface_hub import get_hf_file_metadata
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        logger.info("%s cannot be imported", _LIBRARY, exc_info=True)
        return None

    def ask() -> Any:
        return get_hf_file_metadata(
            url, token=token or False, timeout=network.timeout_s, endpoint=network.hub, library_name="slicer-medai"
        )

    try:
        known = interruptible(ask, is_cancelled)
    except HfHubHTTPError as error:
        response = getattr(error, "response", None)
        return None if response is None else Answer(response.status_code, _message(response.headers), url)
    except MedAIError:
        raise
    except Exception:  # foreign code, and not needed: our own request finds the words for what is wrong
        logger.info("%s failed; asking the hub without it", _LIBRARY, exc_info=True)
        return None
    found = {"X-Repo-Commit": known.commit_hash, "X-Linked-Etag": known.etag, "X-Linked-Size": known.size}
    return Answer(200, _message({name: str(value) for name, value in found.items() if value is not None}), url)


def _message(headers: Any) -> Message:
    message = Message()
    for name, value in headers.items():
        message[name] = value
    return message


def _located(source: HubSource, hub: str, answer: Answer, token: str, explain: Explain) -> Located:
    commit = answer.header("X-Repo-Commit")
    if source.is_pinned and commit and commit != source.revision:
        raise Trouble(
            DownloadFailed(
                f"The hub does not give the asked revision of {source.repo}.",
                why=f"It answered with commit {commit[:12]} instead of {source.revision[:12]}.",
                todo="If HF_ENDPOINT names a mirror, use another one or the hub itself.",
            )
        )
    etag = (answer.header("X-Linked-Etag") or answer.header("ETag")).removeprefix("W/").strip('"')
    size = answer.header("X-Linked-Size")
    length = answer.length if answer.status == 200 else None
    return Located(
        url=file_url(hub, source, commit or source.revision),
        size=int(size) if size.isdecimal() else length,
        sha256=etag if _SHA256.fullmatch(etag) else "",
        revision=commit,
        token=token,
        explain=explain,
    )


def _gated(source: HubSource, page: str, has_token: bool) -> DownloadFailed:
    what = f"The model {source.repo} is given only to people who accepted its licence."
    if has_token:
        return DownloadFailed(
            what,
            why="The account of your access token was not granted access (yet).",
            todo=f"Signed in with that account, accept the licence at {page}; "
            "a fine-grained token also needs the right to read gated repositories.",
        )
    return DownloadFailed(
        what,
        why="No access token was given, so the hub cannot know who asks.",
        todo=f"Accept the licence at {page}, create a token in your account's settings there, "
        "and set HF_TOKEN or run 'hf auth login'.",
    )


def _bad_token() -> DownloadFailed:
    return DownloadFailed(
        "The hub does not accept the access token.",
        why="It has expired, was revoked, or was copied incompletely.",
        todo="Create a new one in your account's settings and set HF_TOKEN or run 'hf auth login'.",
    )


def _no_repository(source: HubSource, page: str, has_token: bool) -> DownloadFailed:
    return DownloadFailed(
        f"The hub shows no repository {source.repo}.",
        why="It does not exist" + ("" if has_token else ", or it is private and no access token was given") + ".",
        todo=f"Look at {page}; if it is there, sign in: set HF_TOKEN or run 'hf auth login'.",
    )
