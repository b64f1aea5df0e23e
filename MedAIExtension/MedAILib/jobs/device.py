"""What this machine can compute on, found without loading a deep-learning framework."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

logger = logging.getLogger(__name__)

NVIDIA_SMI_TIMEOUT_S = 5.0
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "neon", "asimd")
"""Instruction sets that decide how fast a network runs on a processor, as Linux spells them."""


class DeviceKind(Enum):
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


@dataclass(frozen=True)
class Device:
    """Something a task can run on.

    Attributes
    ----------
    id : str
        ``cpu``, ``cuda:0`` or ``mps``: what a runner takes as ``device``.
    kind : DeviceKind
    name : str
        As the maker calls it.
    memory_total_mb, memory_free_mb : int or None
        MiB; None where unknown. Within a container the limit of the container.
    cores : int or None
        Processor cores this process may use; None for a GPU.
    features : tuple of str
        Of `CPU_FEATURES`, those the processor has.
    """

    id: str
    kind: DeviceKind
    name: str
    memory_total_mb: int | None = None
    memory_free_mb: int | None = None
    cores: int | None = None
    features: tuple[str, ...] = ()


def probe_devices() -> tuple[Device, ...]:
    """The devices of this machine, fastest kind first; the last one is always the processor.

    Loads no framework: NVIDIA GPUs are asked for through ``nvidia-smi``, which is given
    `NVIDIA_SMI_TIMEOUT_S` to answer.
    """
    return (*_nvidia_devices(), *_apple_devices(), _processor())


def recommended_threads() -> int:
    """Threads a task should use here: cores this process may run on, within the container's quota."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _cgroup_cores()
    return max(1, min(usable, math.ceil(quota)) if quota else usable)


def machine_memory_mb() -> int | None:
    """Main memory of this machine, or its container's limit, in MiB; None where unknown."""
    return _memory_mb()[0]


def free_memory_bytes(device: str) -> int | None:
    """Free memory of a device, of the processor's also within its container's limit; None where it is not known.

    Parameters
    ----------
    device : str
        ``cpu``, ``mps``, ``cuda:0``; ``cuda``: of all GPUs together.
    """
    found: int | None
    if device.startswith("cuda"):
        free = [one.memory_free_mb for one in _nvidia_devices() if device in (one.id, one.kind.value)]
        found = sum(mb for mb in free if mb is not None) if any(free) else None
    else:
        found = _memory_mb()[1]
    return None if found is None else found << 20


def parse_nvidia_smi(text: str) -> tuple[Device, ...]:
    """Devices from ``nvidia-smi --query-gpu=index,name,memory.total,memory.free --format=csv,noheader,nounits``."""
    devices = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and parts[0].isdigit():
            index, name, total, free = parts
            devices.append(Device(f"cuda:{index}", DeviceKind.CUDA, name, _megabytes(total), _megabytes(free)))
    return tuple(devices)


def _nvidia_devices() -> tuple[Device, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=index,name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    return parse_nvidia_smi(_output_of(query))


def _apple_devices() -> tuple[Device, ...]:
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return ()
    total_mb, free_mb = _memory_mb()
    return (Device("mps", DeviceKind.MPS, f"{_processor_name()} GPU", total_mb, free_mb),)


def _processor() -> Device:
    total_mb, free_mb = _memory_mb()
    cpuinfo = _cpuinfo()
    flags = f"{cpuinfo.get('flags', '')} {cpuinfo.get('Features', '')}".split()
    return Device(
        id="cpu",
        kind=DeviceKind.CPU,
        name=cpuinfo.get("model name") or _processor_name(),
        memory_total_mb=total_mb,
        memory_free_mb=free_mb,
        cores=recommended_threads(),
        features=tuple(feature for feature in CPU_FEATURES if feature in flags),
    )


def _processor_name() -> str:
    name = _output_of(["sysctl", "-n", "machdep.cpu.brand_string"]).strip() if sys.platform == "darwin" else ""
    return name or platform.processor() or platform.machine() or "processor"


def _cpuinfo() -> dict[str, str]:
    """What Linux' ``/proc/cpuinfo`` says of the first core; empty elsewhere."""
    first_core = _read_text("/proc/cpuinfo").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first_core.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory_mb() -> tuple[int | None, int | None]:
    """Total and available main memory in MiB."""
    if sys.platform == "win32":
        return _windows_memory_mb()
    if sys.platform == "darwin":
        total = _output_of(["sysctl", "-n", "hw.memsize"]).strip()
        return (int(total) >> 20 if total.isdigit() else None), None
    table = dict(line.split(":", 1) for line in _read_text("/proc/meminfo").splitlines() if ":" in line)
    total_mb, free_mb = (_kib_to_mb(table.get(key, "")) for key in ("MemTotal", "MemAvailable"))
    limit, used = _cgroup_memory_bytes()
    if limit is not None and total_mb is not None and limit >> 20 < total_mb:
        total_mb = limit >> 20
        free_mb = min(free_mb if free_mb is not None else total_mb, max(limit - used, 0) >> 20)
    return total_mb, free_mb


def _kib_to_mb(text: str) -> int | None:
    number = text.strip().partition(" ")[0]
    return int(number) >> 10 if number.isdigit() else None


def _windows_memory_mb() -> tuple[int | None, int | None]:
    class MemoryStatus(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *((name, ctypes.c_uint64) for name in ("total", "free", "a", "b", "c", "d", "e")),
        )

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined]
        return None, None
    return status.total >> 20, status.free >> 20


def _cgroup_folders(controller: str) -> Iterable[Path]:
    """Folders of this process' control group for a controller, the own group first; version 2 and 1."""
    for line in _read_text("/proc/self/cgroup").splitlines():
        _, names, group = [*line.split(":", 2), "", ""][:3]
        if not names or controller in names.split(","):
            root = Path("/sys/fs/cgroup") / (controller if names else "")
            own = root / group.lstrip("/")
            yield from (own, *(parent for parent in own.parents if parent.is_relative_to(root)))


def _cgroup_cores() -> float | None:
    """Processor time this container may use, in cores; None where it is not limited.

    Source: Linux kernel, ``cgroup-v2`` (``cpu.max``) and CFS bandwidth control (``cpu.cfs_quota_us``).
    """
    quotas = []
    for folder in _cgroup_folders("cpu"):
        quota, _, period = _read_text(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota = _read_text(folder / "cpu.cfs_quota_us").strip()
            period = _read_text(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period) > 0 and int(quota) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroup_memory_bytes() -> tuple[int | None, int]:
    """The tightest memory limit of this container and what is used of it; (None, 0) without a limit."""
    found: list[tuple[int, int]] = []
    for folder in _cgroup_folders("memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _read_text(folder / limit_name).strip()
            used = _read_text(folder / used_name).strip()
            if limit.isdigit():
                found.append((int(limit), int(used) if used.isdigit() else 0))
    return min(found, default=(None, 0))


def _megabytes(text: str) -> int | None:
    return int(float(text)) if text.replace(".", "", 1).isdigit() else None


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _output_of(command: list[str]) -> str:
    flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=NVIDIA_SMI_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            creationflags=flags,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("%s did not answer: %s", command[0], error)
        return ""
    return done.stdout if done.returncode == 0 else ""
