"""The command ``medai route``; everything heavy is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.cli.groups import command_group
from MedAILib.errors import Incomplete, MedAIError, error_types
from MedMNISTRouterLib.datasets import FLAGS
from MedMNISTRouterLib.planes import AXES
from MedMNISTRouterLib.train.command import add_train_commands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from MedAILib.cli.console import Console
    from MedAILib.jobs.execute import Outcome
    from MedMNISTRouterLib.files_task import FilesRequest
    from MedMNISTRouterLib.request import Answer, ModelChoice, RouteResult

DESCRIPTION = """\
Route 2D images to the MedMNIST experts that know their kind, and let these answer.

FILE is a picture (PNG, JPEG, TIFF, BMP, GIF, WebP), a DICOM file, a volume (NIfTI, NRRD, MetaImage: one slice of it, or
all of them), a folder of pictures, or a pattern such as 'scans/*.png'. An image of a kind that the models do not know
is not recognised and gets no label. A model that is not installed is named, with the way to get it; the others answer.
Frames are counted from 1, as in DICOM, slices from 0, as in Slicer.

Exit status 0: every image got its answer ('not recognised' and 'no expert' are answers); 3: some images failed, the
others have their answers; other numbers: all failed, for the reason of the first. Research use only: no diagnosis."""


def add_commands(commands: Any) -> None:
    """Add ``route``, and what the router adds to ``train``, to the sub-parsers of `argparse`."""
    add_train_commands(command_group(commands, "train", "train a network on your own data"))
    parser = commands.add_parser(
        "route", help="which MedMNIST expert knows this image, and its answer", description=DESCRIPTION
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="pictures, DICOM files, volumes, folders, patterns")
    parser.add_argument("--batch", type=Path, metavar="CSV", help="also write one row per image to this file")
    parser.add_argument(
        "--expert", default="", choices=FLAGS, metavar="NAME", help=f"skip the router: one of {', '.join(FLAGS)}"
    )
    parser.add_argument(
        "--without-gate",
        action="store_true",
        help="answer also where no statistics tell whether the models know such images",
    )
    parser.add_argument("--top", type=_count, default=3, metavar="N", help="routes to list per image (default: 3)")
    what = parser.add_argument_group("which image of a file with several")
    what.add_argument(
        "--axis", choices=AXES, default="auto", help="across a volume's slices (default: auto, the coarsest)"
    )
    what.add_argument("--slice", type=_slice, metavar="N|all", help="of a volume (default: the middle one)")
    what.add_argument("--frame", type=_frame, metavar="N|all", help="of a DICOM, TIFF or GIF file (default: the first)")
    what.add_argument(
        "--window", type=_window, metavar="LOW,HIGH", help="a volume's values of black and white, as --window=-160,240"
    )
    how = parser.add_argument_group("settings")
    how.add_argument(
        "--models", type=Path, metavar="DIR", help="folder with stage1_final.keras and its fellows, or another store"
    )
    how.add_argument(
        "--model",
        type=_model,
        action="append",
        default=[],
        metavar="SLOT=PATH",
        help="this model for 'router' or for an expert (may be repeated)",
    )
    how.add_argument(
        "--memory-mb", type=_count, metavar="N", help="for loaded models (default: a tenth of the memory, 1000 at most)"
    )
    how.add_argument("--threads", type=_count, default=1, metavar="N", help="default: 1")
    how.add_argument("--worker", action="store_true", help="run in a worker process, as Slicer's window does")
    parser.set_defaults(run=route)


def route(arguments: argparse.Namespace, console: Console) -> int | None:
    """``medai route``"""
    outcome = _run(arguments, console)
    answers = outcome.result.answers
    if arguments.batch is not None:
        _write_csv(arguments.batch, answers)
    _report(console, outcome)
    if arguments.batch is not None:
        console.print(f"Written: {arguments.batch}")
    return exit_status(answers)


def exit_status(answers: Sequence[Answer]) -> int | None:
    """None where no image failed, 3 where some did, else the status of the first one's error."""
    from MedMNISTRouterLib.summary import State, state_of

    failed = [answer for answer in answers if state_of(answer) is State.FAILED]
    if not failed:
        return None
    if len(failed) < len(answers):
        return Incomplete.exit_status
    return error_types().get(failed[0].error_code, MedAIError).exit_status


def request_from(arguments: argparse.Namespace) -> FilesRequest:
    """The request that the arguments describe; no file is read yet."""
    from MedMNISTRouterLib.files_task import FilesRequest
    from MedMNISTRouterLib.inputs import Reading
    from MedMNISTRouterLib.request import RouteRequest

    budget_mb = arguments.memory_mb
    return FilesRequest(
        paths=tuple(Path(file).expanduser().absolute() for file in arguments.files),
        reading=Reading(arguments.axis, arguments.slice, arguments.frame, arguments.window),
        how=RouteRequest(
            images=(),
            expert=arguments.expert,
            top=arguments.top,
            models_folder=arguments.models.absolute() if arguments.models is not None else None,
            models=tuple(arguments.model),
            without_gate=arguments.without_gate,
            memory_budget_bytes=None if budget_mb is None else budget_mb * 1_000_000,
        ),
    )


def _run(arguments: argparse.Namespace, console: Console) -> Outcome[RouteResult]:
    from MedAILib.jobs.runner import InProcessRunner
    from MedMNISTRouterLib.files_task import TASK

    request = request_from(arguments)
    if arguments.worker:
        from MedAILib.jobs.worker_runner import WorkerRunner

        with WorkerRunner(threads=arguments.threads) as worker:
            return worker.run(TASK, request, console.progress)
    return InProcessRunner(threads=arguments.threads).run(TASK, request, console.progress)


def _write_csv(path: Path, answers: Sequence[Answer]) -> None:
    from MedAILib.atomic import write_bytes
    from MedMNISTRouterLib.table import csv_bytes

    write_bytes(path, csv_bytes(answers))


def _report(console: Console, outcome: Outcome[RouteResult]) -> None:
    from MedMNISTRouterLib.summary import RESEARCH_USE, answer_json, answer_lines, cache_json, counts_text

    answers, warnings = outcome.result.answers, outcome.result.warnings
    console.result(
        {
            "answers": [answer_json(answer) for answer in answers],
            "warnings": list(warnings),
            "cache": cache_json(outcome.result.cache),
            "run_id": outcome.report.run_id,
            "note": RESEARCH_USE,
        }
    )
    for warning in warnings:
        console.remark(warning)
    for answer in answers:
        for line in answer_lines(answer):
            console.print(line)
    if console.json_output:
        for text in failures(answers):
            console.warn(text)
    if len(answers) > 1:
        console.print(f"{len(answers)} images: {counts_text(answers)}.")
    console.print(RESEARCH_USE)


def failures(answers: Sequence[Answer]) -> list[str]:
    """What went wrong, each kind of failure once, with the first image and how many others it befell."""
    from MedMNISTRouterLib.summary import State, state_of

    images: dict[str, list[str]] = {}
    for answer in answers:
        if state_of(answer) is State.FAILED:
            images.setdefault(answer.error, []).append(answer.image)
    others = {error: f" and {len(names) - 1} more" if len(names) > 1 else "" for error, names in images.items()}
    return [f"{names[0]}{others[error]}: {error}" for error, names in images.items()]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1")
    return int(text)


def _slice(text: str) -> int:
    if text == "all":
        return -1
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is neither a slice from 0 nor 'all'")
    return int(text)


def _frame(text: str) -> int:
    return 0 if text == "all" else _count(text)


def _window(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no pair of numbers such as -160,240") from None
    if not low < high:
        raise argparse.ArgumentTypeError(f"in '{text}' the first number must be the lower one")
    return low, high


def _model(text: str) -> ModelChoice:
    from MedMNISTRouterLib.request import ROUTER, ModelChoice

    slot, is_pair, path = text.partition("=")
    if not is_pair or not path or slot not in (ROUTER, *FLAGS):
        raise argparse.ArgumentTypeError(f"'{text}' is not SLOT=PATH; the slots are {ROUTER}, {', '.join(FLAGS)}")
    return ModelChoice(slot, Path(path).absolute())
