"""What a run was and what it cost: the ``run_report.json`` beside every result."""

from __future__ import annotations

import ctypes
import json
import math
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from MedAILib import __version__
from MedAILib.atomic import write_bytes

REPORTED_PACKAGES = ("numpy", "scipy", "SimpleITK", "pydicom", "vtk", "torch", "tensorflow", "keras", "transformers")
LARGEST_WRITTEN_ARRAY = 16
"""Arrays up to this number of elements, such as orientation matrices, are written out."""
LONGEST_LIST = 20
"""Longer lists of input facts are cut: the report is read by people."""


@dataclass(frozen=True)
class RunReport:
    """What a run was and what it cost.

    Attributes
    ----------
    run_id : str
        Also stored in the attributes of the nodes that the run made.
    task : str
        ``package.module:ClassName``.
    started_utc : str
        ISO 8601.
    seconds : float
        Of the task itself, without the way to a worker and back.
    stages : mapping of str to float
        Seconds per stage, in order.
    peak_memory_mb : int or None
        Highest resident memory (MiB) of the process that ran it: since the run began on Linux, since
        the process began elsewhere.
    device : str
    threads : int
    versions : mapping of str to str
        Of MedAI, Python, the system, and the scientific packages the process had loaded.
    weights : tuple of str
        Models used, as `MedAILib.jobs.task.weights_text` writes them; empty for tasks without.
    warnings : tuple of str
    inputs : mapping of str to Any
        Facts of the request: see `input_facts`.
    """

    run_id: str
    task: str
    started_utc: str
    seconds: float
    stages: Mapping[str, float]
    peak_memory_mb: int | None
    device: str
    threads: int
    versions: Mapping[str, str]
    weights: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The report as an indented JSON object."""
        return json.dumps({f.name: getattr(self, f.name) for f in fields(self)}, indent=2, ensure_ascii=False)

    def write(self, path: Path) -> None:
        """Write the report as JSON; a report that was there before is replaced at once or not at all.

        Raises
        ------
        OutputError
        """
        write_bytes(path, (self.to_json() + "\n").encode("utf-8", "backslashreplace"))


def now_utc() -> str:
    """This moment as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def loaded_versions() -> dict[str, str]:
    """Versions of MedAI, Python, the system, and those of `REPORTED_PACKAGES` that are loaded."""
    versions = {"medai": __version__, "python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in REPORTED_PACKAGES:
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            versions[name] = str(version)
    return versions


def input_facts(request: Any) -> Any:
    """A request in short: its plain values and small arrays, dtype and shape in place of larger arrays."""
    if is_dataclass(request) and not isinstance(request, type):
        return {f.name: input_facts(getattr(request, f.name)) for f in fields(request)}
    if isinstance(request, Enum):
        return request.name
    if hasattr(request, "dtype") and hasattr(request, "shape"):
        if request.size <= LARGEST_WRITTEN_ARRAY:
            return input_facts(request.tolist())
        return f"{request.dtype} {' x '.join(map(str, request.shape))}"
    if isinstance(request, Mapping):
        return {str(key): input_facts(value) for key, value in request.items()}
    if isinstance(request, (list, tuple)):
        cut = [f"... {len(request) - LONGEST_LIST} more"] if len(request) > LONGEST_LIST else []
        return [*(input_facts(item) for item in request[:LONGEST_LIST]), *cut]
    if isinstance(request, float) and not math.isfinite(request):
        return str(request)
    return request if isinstance(request, (bool, int, float, str, type(None))) else str(request)


def restart_peak_memory() -> None:
    """Let `peak_memory_mb` count from now on, where the system can (Linux)."""
    if sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return


def peak_memory_mb() -> int | None:
    """Highest resident memory of this process in MiB, None where the system does not say.

    On Linux read from ``VmHWM``, not from ``getrusage``, whose figure a process inherits from the one
    that started it: a worker would report the memory of Slicer.
    """
    if sys.platform == "linux":
        return _linux_peak_mb()
    if sys.platform == "win32":
        return _windows_peak_mb()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20


def _linux_peak_mb() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM:")), None)


def _windows_peak_mb() -> int | None:
    class MemoryCounters(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_uint32),
            ("page_faults", ctypes.c_uint32),
            ("peak_working_set", ctypes.c_size_t),
            *((f"other_{index}", ctypes.c_size_t) for index in range(7)),
        )

    counters = MemoryCounters(size=ctypes.sizeof(MemoryCounters))
    kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel32.GetCurrentProcess.restype = ctypes.c_void_p
    get_info = kernel32.K32GetProcessMemoryInfo
    get_info.argtypes = (ctypes.c_void_p, ctypes.POINTER(MemoryCounters), ctypes.c_uint32)
    done = get_info(kernel32.GetCurrentProcess(), ctypes.byref(counters), counters.size)
    return counters.peak_working_set >> 20 if done else None
