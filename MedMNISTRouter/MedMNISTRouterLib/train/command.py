"""The commands ``medai train router``, ``train expert`` and ``train gate``. They import what is heavy when they run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedMNISTRouterLib.datasets import FLAGS

if TYPE_CHECKING:
    from MedAILib.cli.console import Console
    from MedAILib.jobs.execute import Outcome
    from MedMNISTRouterLib.train.request import TrainResult

EXPERT_DESCRIPTION = """\
Train an expert for one of the twelve MedMNIST data sets from its official .npz file, 28 to 224 pixels, on a processor
or a GPU.

The folder then holds model.onnx, model_config.json, gate.npz, MODEL_CARD.md, log.csv, and the same network as a Keras
file where Keras is installed. Probabilities are calibrated on the validation images, the gate is fitted on the
training images. A run that was ended goes on with --resume. Research use only: not validated, no diagnosis."""

ROUTER_DESCRIPTION = """\
Train a router: from MedMNIST's .npz files (or a folder of them), one class per data set, or from a plan in JSON that
says which images its classes are made of and which experts answer them.

The folder is filled as by 'medai train expert'. Research use only."""

GATE_DESCRIPTION = """\
Fit the gate of a model: the statistics of the features of images it knows, by which it tells others. For models that
came without one, such as your own Keras files after their conversion; the description beside the model is renewed.

An expert takes the .npz of its data set, a router the .npz files of its data sets or a plan. Research use only."""


def add_train_commands(members: Any) -> None:
    """Add ``router``, ``expert`` and ``gate`` to the sub-parsers of ``medai train``."""
    router = members.add_parser("router", help="which kind of 2D image is this", description=ROUTER_DESCRIPTION)
    router.add_argument(
        "--data", required=True, nargs="+", type=Path, metavar="FILE", help=".npz files, a folder of them, or a plan"
    )
    router.add_argument(
        "--most-per-class", type=int, default=3000, metavar="N", help="training images of a class (default: 3000)"
    )
    _add_common(router)
    router.set_defaults(run=train, kind="router", flag="")
    expert = members.add_parser("expert", help="an expert for a MedMNIST data set", description=EXPERT_DESCRIPTION)
    expert.add_argument("--data", required=True, nargs=1, type=Path, metavar="FILE", help="the data set's .npz file")
    expert.add_argument(
        "--flag", choices=FLAGS, default="", metavar="NAME", help=f"default: as the file is called; {', '.join(FLAGS)}"
    )
    _add_common(expert)
    expert.set_defaults(run=train, kind="expert", most_per_class=None)
    gate = members.add_parser("gate", help="fit a model's gate", description=GATE_DESCRIPTION)
    gate.add_argument("--model", required=True, type=Path, metavar="DIR", help="folder with model_config.json")
    gate.add_argument("--data", required=True, nargs="+", type=Path, metavar="FILE", help="as it was trained on")
    gate.add_argument("--acceptance", type=float, default=0.95, metavar="SHARE", help="default: 0.95")
    gate.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all that may be used)")
    gate.set_defaults(run=fit_gate)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the model and its state")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="28 to 224 (default: that of the images)")
    parser.add_argument("--epochs", type=int, metavar="N", help="default: about 750 steps; 100 of the published recipe")
    parser.add_argument("--network", choices=("small", "resnet18"), default="small", help="default: small")
    parser.add_argument("--recipe", choices=("short", "published"), default="short", help="default: short")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: 128, fewer where there are few images")
    parser.add_argument(
        "--acceptance", type=float, default=0.95, metavar="SHARE", help="of images the gate lets pass (default: 0.95)"
    )
    parser.add_argument("--no-keras", action="store_true", help="write no Keras file")
    parser.add_argument("--origin", default="", metavar="TEXT", help="where the images come from, for the model card")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--resume", action="store_true", help="go on with the training in the folder")
    parser.add_argument("--device", help="cpu, cuda:0, mps (default: a GPU where there is one)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="processor threads (default: 1 for a small network, else all)"
    )


def train(arguments: argparse.Namespace, console: Console) -> None:
    """``medai train router`` and ``medai train expert``"""
    from MedAILib.jobs.device import recommended_threads
    from MedAILib.jobs.runner import InProcessRunner
    from MedAILib.models.torchuse import chosen_device
    from MedMNISTRouterLib.train.card import summary_lines
    from MedMNISTRouterLib.train.request import TASK, Kind, NetworkSize, Recipe, TrainRequest

    request = TrainRequest(
        kind=Kind(arguments.kind),
        data=tuple(arguments.data),
        out=arguments.out,
        flag=arguments.flag,
        size=arguments.size,
        network=NetworkSize(arguments.network),
        recipe=Recipe(arguments.recipe),
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        most_per_class=arguments.most_per_class,
        acceptance=arguments.acceptance,
        keras=not arguments.no_keras,
        origin=arguments.origin,
        seed=arguments.seed,
        resume=arguments.resume,
    )
    # the small network's layers are too small to be shared out: on a busy machine threads would wait for each other
    threads = arguments.threads or (1 if request.network is NetworkSize.SMALL else recommended_threads())
    with InProcessRunner(chosen_device(arguments.device), threads) as runner:
        outcome: Outcome[TrainResult] = runner.run(TASK, request, console.progress)
    console.result({**json.loads(outcome.report.to_json()), "result": _facts(outcome.result)})
    for text in outcome.result.warnings:
        console.warn(text)
    for line in summary_lines(outcome.result):
        console.print(line)
    console.print("Research use only: not validated, no diagnosis.")


def fit_gate(arguments: argparse.Namespace, console: Console) -> None:
    """``medai train gate``"""
    from MedAILib.jobs.device import recommended_threads
    from MedAILib.jobs.runner import InProcessRunner
    from MedMNISTRouterLib.train.gatefit import TASK, GateRequest, GateResult

    request = GateRequest(arguments.model, tuple(arguments.data), arguments.acceptance)
    with InProcessRunner("cpu", arguments.threads or recommended_threads()) as runner:
        outcome: Outcome[GateResult] = runner.run(TASK, request, console.progress)
    result = outcome.result
    console.result({**json.loads(outcome.report.to_json()), "result": _facts(result)})
    for text in result.warnings:
        console.warn(text)
    console.print(
        f"Fitted to {result.train_images} images; {result.val_images} others set the threshold "
        f"{result.threshold:.3f}, within which {100 * result.acceptance:.0f} % of them lie."
    )
    console.print(f"Written: {result.folder}")


def _facts(result: Any) -> dict[str, Any]:
    """A result as plain JSON values."""
    from dataclasses import asdict

    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(result).items()}
