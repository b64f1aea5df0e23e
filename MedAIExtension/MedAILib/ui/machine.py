"""What the hub says of this machine, in words: devices, versions, the worker."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from slicer.i18n import tr as _

from MedAILib import __version__
from MedAILib.jobs.device import Device
from MedAILib.jobs.runner import JobState
from MedAILib.jobs.worker_runner import WorkerRunner

PACKAGES = ("numpy", "scipy", "SimpleITK", "pydicom", "torch")


def device_text(device: Device) -> str:
    """Name, cores and memory of a device, in one line."""
    parts = [device.name]
    if device.cores is not None:
        parts.append((_("{count} core") if device.cores == 1 else _("{count} cores")).format(count=device.cores))
    if device.memory_total_mb is not None and device.memory_free_mb is not None:
        parts.append(
            _("{free} of {total} GB free").format(free=_gb(device.memory_free_mb), total=_gb(device.memory_total_mb))
        )
    elif device.memory_total_mb is not None:
        parts.append(_("{total} GB").format(total=_gb(device.memory_total_mb)))
    return ", ".join(parts)


def worker_text(runner: WorkerRunner) -> str:
    """Whether the worker process is there, what it holds and whether it works."""
    process_id = runner.process_id
    if process_id is None:
        return _("not started")
    busy = runner.job is not None and runner.job.state is JobState.RUNNING
    text = (_("working, process {id}") if busy else _("idle, process {id}")).format(id=process_id)
    memory_mb = resident_memory_mb(process_id)
    return text if memory_mb is None else _("{worker}, {memory} MB").format(worker=text, memory=memory_mb)


def version_lines(slicer_version: str) -> list[str]:
    """Versions of everything that matters in a report of a problem; loads none of the packages."""
    lines = [f"MedAI {__version__}", f"Slicer {slicer_version}", f"Python {platform.python_version()}"]
    lines += [f"{name} {_installed_version(name)}" for name in PACKAGES]
    return [*lines, platform.platform(terse=True)]


def machine_text(devices: Sequence[Device], slicer_version: str) -> str:
    """Versions and devices as a text to copy."""
    return "\n".join([*version_lines(slicer_version), *(f"{d.id}: {device_text(d)}" for d in devices)])


def resident_memory_mb(process_id: int) -> int | None:
    """Resident memory of another process in MiB; None where the system does not say."""
    if sys.platform == "linux":
        try:
            status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        return next((int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmRSS:")), None)
    if sys.platform == "darwin":
        command = ["ps", "-o", "rss=", "-p", str(process_id)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2).stdout.strip()
        return int(answer) >> 10 if answer.isdigit() else None
    return None


def _installed_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return _("not installed")


def _gb(megabytes: int) -> str:
    gigabytes = megabytes / 1024
    return f"{gigabytes:.0f}" if gigabytes >= 10 else f"{gigabytes:.1f}"
