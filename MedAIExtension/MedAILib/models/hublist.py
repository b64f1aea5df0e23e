"""Which files a hub repository has at a revision: asked for models whose list is not in the catalogue."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any
from urllib.parse import quote

from MedAILib.errors import DownloadFailed, InputError, MedAIError
from MedAILib.models.exchange import Exchange, NetworkFailed
from MedAILib.models.hub import find_token, hub_explainer, is_offline, offline_error
from MedAILib.models.network import Network, clean_token, same_host
from MedAILib.models.sources import HubSource
from MedAILib.models.trouble import Trouble, network_trouble, status_trouble

_LONGEST_LIST = 32 << 20


@dataclass(frozen=True)
class HubFile:
    """A file of a repository; ``sha256`` is empty for small files, of which the hub states none."""

    path: str
    size: int | None = None
    sha256: str = ""


@dataclass(frozen=True)
class HubListing:
    """The files of a repository at a commit (40 hexadecimal digits)."""

    commit: str
    files: tuple[HubFile, ...]

    def matching(self, patterns: tuple[str, ...]) -> tuple[HubFile, ...]:
        """The files whose name or path fits one of the patterns; all where there are none."""
        fits = (lambda path: any(fnmatch(path, p) for p in patterns)) if patterns else (lambda path: True)
        return tuple(file for file in self.files if fits(file.path))


def list_hub_files(
    repo: str,
    revision: str = "main",
    *,
    network: Network | None = None,
    token: str | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> HubListing:
    """Ask the hub for a repository's files.

    Raises
    ------
    DownloadFailed
        Offline, gated, missing, or the hub does not answer.
    Cancelled
    """
    network = network or Network()
    source = HubSource(repo, "README.md", revision)
    if is_offline():
        raise offline_error(source)
    secret = clean_token(token) or clean_token(find_token())
    url = f"{network.hub}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true"
    try:
        with Exchange(url, network, token=secret, follows=same_host, is_cancelled=is_cancelled) as exchange:
            answer, text = exchange.answer, exchange.text(_LONGEST_LIST)
    except NetworkFailed as failure:
        raise network_trouble(failure, url, network).error from failure
    if answer.status != 200:
        raise _refusal(status_trouble(answer, text, hub_explainer(source, network.hub, bool(secret)), 0.0))
    try:
        return _listing(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise DownloadFailed(
            f"The hub's list of the files of {repo} cannot be understood.",
            why=f"{type(error).__name__}: {error}.",
            todo="Try again later; if HF_ENDPOINT names a mirror, try without it.",
        ) from error


def _refusal(trouble: Trouble) -> MedAIError:
    return trouble.error


def _listing(data: Any) -> HubListing:
    files = []
    for item in data["siblings"]:
        stored = item.get("lfs") or {}
        file = HubFile(item["rfilename"], stored.get("size", item.get("size")), stored.get("sha256", ""))
        HubSource("check/name", file.path)  # refuses paths that lead out of the repository
        files.append(file)
    return HubListing(str(data["sha"]), tuple(sorted(files, key=lambda file: file.path)))
