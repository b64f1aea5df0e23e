"""This process's memory: how much it holds, and giving back what is free."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import Any


def give_back_free_memory() -> None:
    """Return freed memory to the operating system; glibc keeps it otherwise. Elsewhere this does nothing."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


def resident_bytes() -> int | None:
    """Memory of this process that is in the machine's; None where the system does not tell (other than Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * _page_bytes()


@cache
def _malloc_trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _page_bytes() -> int:
    import resource

    return resource.getpagesize()
