"""How much memory loaded models may take; what this process holds says `MedAILib.jobs.memory`."""

from __future__ import annotations

from MedAILib.jobs.device import machine_memory_mb
from MedAILib.jobs.memory import give_back_free_memory, resident_bytes

__all__ = ["LARGEST_DEFAULT_BUDGET", "SHARE_OF_MACHINE", "default_budget", "give_back_free_memory", "resident_bytes"]

LARGEST_DEFAULT_BUDGET = 1 << 30
SHARE_OF_MACHINE = 0.1


def default_budget() -> int:
    """Bytes for loaded models: a tenth of the machine's memory, 1 GB at most."""
    total_mb = machine_memory_mb()
    share = int((total_mb << 20) * SHARE_OF_MACHINE) if total_mb else LARGEST_DEFAULT_BUDGET
    return min(share, LARGEST_DEFAULT_BUDGET)
