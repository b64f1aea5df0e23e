"""This process's memory: how much it holds, and giving back what is free."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import Any

from MedAILib.jobs.device import machine_memory_mb

LARGEST_DEFAULT_BUDGET = 1 << 30
SHARE_OF_MACHINE = 0.1


def give_back_free_memory() -> None:
    """Return freed memory to the operating system; glibc keeps it otherwise. Elsewhere this does nothing."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


def default_budget() -> int:
    """Bytes for loaded models: a tenth of the machine's memory, 1 GB at most."""
    total_mb = machine_memory_mb()
    share = int((total_mb << 20) * SHARE_OF_MACHINE) if total_mb else LARGEST_DEFAULT_BUDGET
    return min(share, LARGEST_DEFAULT_BUDGET)


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
