"""The command ``medai train propagate``. Everything heavy is imported when it runs."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.cli.groups import command_group

if TYPE_CHECKING:
    from MedAILib.cli.console import Console

DESCRIPTION = """\
Train the propagation network on volumes with masks, label maps, and synthetic shapes.

The data are a JSON list of cases: {"kind": "vol3d", "case": NAME, "files": [IMAGE, MASK], "split": "train",
"redistribution": "ok"}, or "labelmap" with label maps alone; files are relative to the list. Cases of another
split or licence are left out. A training that was interrupted goes on with --resume."""


def add_train_command(commands: Any) -> None:
    """Add ``train propagate`` to the sub-parsers of `argparse`."""
    group = command_group(commands, "train", "Train a network")
    parser = group.add_parser("propagate", help="train the propagation network", description=DESCRIPTION)
    parser.add_argument("--data", required=True, type=Path, metavar="MANIFEST", help="JSON list of cases")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for the weights, the log and the state")
    parser.add_argument("--steps", type=int, default=5000, help="default: 5000")
    parser.add_argument("--episodes", type=int, default=5, help="structures per step (default: 5)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="the highest (default: 0.002)")
    parser.add_argument(
        "--width", type=int, default=24, help="channels at half resolution, a multiple of 8 (default: 24)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--no-regions", action="store_true", help="do not learn from regions of the real images")
    parser.add_argument(
        "--half-precision", action="store_true", help="compute in bfloat16: pays on GPUs and on recent processors"
    )
    parser.add_argument("--loaders", type=int, default=1, help="processes that prepare the data (default: 1)")
    parser.add_argument("--device", metavar="cpu|cuda:0|mps", help="default: the first GPU, else the processor")
    parser.add_argument("--threads", type=int, help="default: what this machine recommends")
    parser.add_argument("--resume", action="store_true", help="go on with the training in DIR")
    parser.set_defaults(run=train)


def train(arguments: argparse.Namespace, console: Console) -> None:
    """``medai train propagate``"""
    from MedAILib.jobs.device import recommended_threads
    from MedAILib.jobs.runner import InProcessRunner
    from MedAILib.models.torchuse import chosen_device
    from Mem3DPropagateLib.train.request import TASK, TrainRequest, TrainResult

    request = TrainRequest(
        data=arguments.data,
        out=arguments.out,
        steps=arguments.steps,
        episodes=arguments.episodes,
        learning_rate=arguments.learning_rate,
        network={"width": arguments.width, "keys": 32},
        regions=not arguments.no_regions,
        half_precision=arguments.half_precision,
        seed=arguments.seed,
        loaders=arguments.loaders,
        resume=arguments.resume,
    )
    runner = InProcessRunner(chosen_device(arguments.device), arguments.threads or recommended_threads())
    outcome = runner.run(TASK, request, console.progress)
    result: TrainResult = outcome.result
    last = result.log[-1]
    console.result({"weights": str(result.weights), "log": [asdict(row) for row in result.log]})
    console.print(f"{len(result.train_subjects)} volumes learnt from, {len(result.validation_subjects)} kept apart.")
    if last.dice is not None and last.prior_dice is not None:
        console.print(f"Validation Dice between drawn slices: {last.dice:.3f} (geometry {last.prior_dice:.3f}).")
    console.print(f"Written: {result.weights}")
    console.print("Research use only.")
