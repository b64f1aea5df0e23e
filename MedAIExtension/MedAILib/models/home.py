"""Where models lie on this machine: the user's own store, and shared ones that are only read."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

HOME_VARIABLE = "MEDAI_HOME"
SHARED_VARIABLE = "MEDAI_SHARED_HOME"


def default_home(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """``MEDAI_HOME``, else the folder that the operating system keeps for a user's data.

    Linux ``$XDG_DATA_HOME/medai`` (``~/.local/share/medai``), Windows ``%LOCALAPPDATA%\\MedAI``, macOS
    ``~/Library/Application Support/MedAI``.
    """
    if environment.get(HOME_VARIABLE):
        return Path(environment[HOME_VARIABLE]).expanduser().absolute()
    if platform == "win32":
        local = environment.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "MedAI"
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "MedAI"
    data = environment.get("XDG_DATA_HOME", "")
    return (Path(data) if data.startswith("/") else Path.home() / ".local" / "share") / "medai"


def shared_homes(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """The stores in ``MEDAI_SHARED_HOME``, separated as in ``PATH``; they are searched first and never written."""
    texts = environment.get(SHARED_VARIABLE, "").split(os.pathsep)
    return tuple(Path(text).expanduser().absolute() for text in texts if text.strip())
