"""The commands of the shared library itself: devices, worker-check, models, multitask, train."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from MedAILib.cli.groups import command_group
from MedAILib.cli.models_command import add_models_command
from MedAILib.multitask.command import add_predict_command, add_train_command

if TYPE_CHECKING:
    from MedAILib.cli.console import Console
    from MedAILib.jobs.device import Device


def add_own_commands(commands: Any) -> None:
    """Add the commands to the sub-parsers of `argparse`."""
    devices = commands.add_parser("devices", help="list what this machine can compute on")
    devices.set_defaults(run=list_devices)
    check = commands.add_parser("worker-check", help="start a worker process, run a trivial job, say how long it took")
    check.set_defaults(run=check_worker)
    add_models_command(commands)
    add_predict_command(command_group(commands, "multitask", "predict with a multi-task network"))
    add_train_command(command_group(commands, "train", "train a network on your own data"))


def list_devices(arguments: argparse.Namespace, console: Console) -> None:
    """``medai devices``"""
    from MedAILib.jobs.device import probe_devices

    devices = probe_devices()
    console.result({"devices": [{**asdict(device), "kind": device.kind.value} for device in devices]})
    for device in devices:
        console.print(_device_line(device))


def check_worker(arguments: argparse.Namespace, console: Console) -> None:
    """``medai worker-check``"""
    from MedAILib.jobs.selfcheck import check_runner
    from MedAILib.jobs.worker_runner import WorkerRunner

    with WorkerRunner() as runner:
        check = check_runner(runner)
    console.result(asdict(check))
    console.print(
        f"The worker works: first job {check.first_s:.2f} s, next job {1000 * check.second_s:.0f} ms, "
        f"Python {check.python} ({check.executable})."
    )


def _device_line(device: Device) -> str:
    facts = [f"{device.cores} cores" if device.cores else ""]
    if device.memory_total_mb is not None:
        free = "" if device.memory_free_mb is None else f", {device.memory_free_mb / 1024:.1f} free"
        facts.append(f"{device.memory_total_mb / 1024:.1f} GiB{free}")
    facts.append(" ".join(device.features))
    return f"{device.id:<8} {device.name} ({'; '.join(filter(None, facts))})"
