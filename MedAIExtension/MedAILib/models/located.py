"""What a source turned out to be, once its site was asked: the address of the bytes and what the site says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from http.cookiejar import CookieJar

from MedAILib.models.trouble import Explain


@dataclass(frozen=True)
class Located:
    """Where the bytes are right now.

    Attributes
    ----------
    url : str
        To be asked for them. Sites redirect from there to an address that is valid for minutes only.
    size : int or None
        Bytes, as the site says.
    sha256 : str
        As the site says; empty where it does not.
    revision : str
        The commit that a hub's revision means; empty elsewhere.
    token : str
        For the host of ``url``.
    cookies : CookieJar or None
    explain : callable or None
        Understands what the site answers instead of the file.
    """

    url: str
    size: int | None = None
    sha256: str = ""
    revision: str = ""
    token: str = field(default="", repr=False)
    cookies: CookieJar | None = None
    explain: Explain | None = None
