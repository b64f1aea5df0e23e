"""The probe of devices and threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from MedAILib.jobs.device import Device, DeviceKind, parse_nvidia_smi, probe_devices, recommended_threads


def test_the_processor_is_always_there_and_last() -> None:
    device = probe_devices()[-1]
    assert (device.id, device.kind) == ("cpu", DeviceKind.CPU)
    assert device.name
    assert device.cores == recommended_threads()
    if device.memory_total_mb is not None and device.memory_free_mb is not None:
        assert 0 < device.memory_free_mb <= device.memory_total_mb


def test_threads_are_within_what_this_process_may_use() -> None:
    assert 1 <= recommended_threads() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no processor affinity")
def test_threads_follow_the_affinity_of_the_process() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from MedAILib.jobs.device import recommended_threads; print(recommended_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, env=_env())
    assert done.stdout.strip() == "1"


def test_graphics_cards_are_read_from_the_words_of_nvidia_smi() -> None:
    text = "0, NVIDIA H200, 143771, 143165\n1, NVIDIA GeForce RTX 4090, 24564, [N/A]\n\nNo devices were found\n"
    assert parse_nvidia_smi(text) == (
        Device("cuda:0", DeviceKind.CUDA, "NVIDIA H200", 143771, 143165),
        Device("cuda:1", DeviceKind.CUDA, "NVIDIA GeForce RTX 4090", 24564, None),
    )


@pytest.mark.skipif(os.name != "posix", reason="the stand-in program is a shell script")
@pytest.mark.parametrize(
    ("script", "found"),
    [("echo '0, Test GPU, 1000, 900'", ["cuda:0"]), ("echo broken driver; exit 9", []), ("sleep 60", [])],
    ids=["works", "fails", "hangs"],
)
def test_a_graphics_driver_is_asked_and_may_fail(
    script: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("MedAILib.jobs.device.NVIDIA_SMI_TIMEOUT_S", 0.5)
    assert [device.id for device in probe_devices() if device.kind is DeviceKind.CUDA] == found


def test_the_probe_loads_no_framework() -> None:
    code = (
        "import sys; from MedAILib.jobs.device import probe_devices; probe_devices();"
        "print([name for name in ('torch', 'numpy', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, env=_env())
    assert done.stdout.strip() == "[]"


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
