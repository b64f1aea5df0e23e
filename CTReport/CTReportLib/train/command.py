"""The commands ``medai train ct`` and ``medai ct evaluate``. Everything heavy is imported when they run."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.cli.groups import command_group

if TYPE_CHECKING:
    from CTReportLib.train.request import TrainRequest
    from MedAILib.cli.console import Console
    from MedAILib.jobs.runner import Runner

TRAIN = """\
Train an encoder with a classifier of findings, and a network that draws them, on chest CTs.

DATA is laid out as CT-RATE is: volumes (.nii.gz, Hounsfield units), a table NAME_predicted_labels.csv with VolumeName
and a column for each finding (1, 0, empty: not known), and where there are some, masks/VOLUME.seg.nrrd with segments
named by finding, or masks/VOLUME/FINDING.nii.gz. With --encoder that encoder stays as it is, and a classifier is
trained on its features. Patients of a split 'valid', else a share of all, are kept apart for calibration. A training
that was interrupted goes on with --resume. Research use only."""
EVALUATE = """\
Measure models on chest CTs of which labels, masks or reports are known; DATA as for 'medai train ct'.

Writes evaluation.json, findings.csv and drawings.csv: AUROC with 95 % intervals over patients, average precision, F1,
sensitivity, specificity and calibration error of each finding, Dice and volume error of each drawn one; where there
are reports, how well the findings of generated ones agree with theirs. Research use only."""


def add_train_commands(commands: Any) -> None:
    """Add ``train ct`` and ``ct evaluate`` to the sub-parsers of `argparse`."""
    parser = command_group(commands, "train", "Train a network").add_parser(
        "ct", help="train on chest CTs", description=TRAIN
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the data set")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for networks, log, card and state")
    parser.add_argument("--encoder", type=Path, metavar="FILE", help="an encoder that stays as it is")
    parser.add_argument("--text-encoder", type=Path, metavar="DIR", help="BERT folder for the findings' prompts")
    parser.add_argument("--head", choices=("linear", "attention", "prompt"), default="linear", help="default: linear")
    parser.add_argument("--loss", choices=("bce", "focal"), default="bce", help="of the classifier (default: bce)")
    for name in ("encoder", "classifier", "localizer"):
        parser.add_argument(f"--{name}-steps", type=int, metavar="N", help=f"of the {name}; 0: left out")
        parser.add_argument(f"--{name}-rate", type=float, metavar="RATE", help="the highest learning rate")
        parser.add_argument(f"--{name}-batch", type=int, metavar="N", help="volumes, or crops, per step")
    parser.add_argument("--held", type=float, default=0.25, metavar="SHARE", help="of the patients (default: 0.25)")
    parser.add_argument("--split", default="", help="learn from this one only (default: all but valid and test)")
    parser.add_argument("--sensitivity", type=float, help="that thresholds must reach (default: the best F1)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--half-precision", action="store_true", help="compute in bfloat16 on CUDA")
    _add_machine(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the training in DIR")
    parser.set_defaults(run=train)
    _add_evaluate(commands)


def _add_evaluate(commands: Any) -> None:
    group = command_group(commands, "ct", "findings and a report of a chest CT")
    parser = group.add_parser("evaluate", help="measure models on labelled CTs", description=EVALUATE)
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the data set")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--encoder", type=Path, metavar="FILE", help="weights of an encoder")
    parser.add_argument("--classifier", type=Path, metavar="FILE", help="weights of a classifier on that encoder")
    parser.add_argument("--localizer", type=Path, metavar="FILE", help="weights of a network that draws findings")
    parser.add_argument("--reports", action="store_true", help="also write a report of each and read it back (slow)")
    parser.add_argument("--split", default="", help="only this one (default: all)")
    _add_machine(parser)
    parser.set_defaults(run=evaluate)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="cpu|cuda:0|mps", help="default: the first GPU, else the processor")
    parser.add_argument("--threads", type=int, help="default: what this machine recommends")


def train(arguments: argparse.Namespace, console: Console) -> None:
    """``medai train ct``"""
    from CTReportLib.train.request import TASK, TrainResult

    outcome = _runner(arguments).run(TASK, request_of(arguments), console.progress)
    result: TrainResult = outcome.result
    networks = {"encoder": result.encoder, "classifier": result.classifier, "localizer": result.localizer}
    written = {name: str(path) for name, path in networks.items() if path is not None}
    console.result({**written, "findings": result.findings, "drawn": result.drawn, "held": result.metrics})
    for text in result.warnings:
        console.warn(text)
    console.print(f"{len(result.learned_from)} patients learned from, {len(result.held)} kept apart.")
    for name, score in result.metrics.items():
        auroc = "-" if score["auroc"] is None else f"{score['auroc']:.3f}"
        console.print(f"{name:38}AUROC {auroc} on {score['positives']} with it and {score['negatives']} without")
    for name, path in written.items():
        console.print(f"{name}: {path}")
    console.print("Research use only.")


def request_of(arguments: argparse.Namespace) -> TrainRequest:
    """The request that the options make."""
    from CTReportLib.train.request import TrainRequest

    request = TrainRequest(
        data=arguments.data,
        out=arguments.out,
        encoder=arguments.encoder,
        text_encoder=arguments.text_encoder,
        head=arguments.head,
        loss=arguments.loss,
        split=arguments.split,
        held_share=arguments.held,
        sensitivity=arguments.sensitivity,
        seed=arguments.seed,
        half_precision=arguments.half_precision,
        resume=arguments.resume,
    )
    for option, name in (("encoder", "encoding"), ("classifier", "probing"), ("localizer", "drawing")):
        given = {
            "steps": getattr(arguments, f"{option}_steps"),
            "learning_rate": getattr(arguments, f"{option}_rate"),
            "batch_size": getattr(arguments, f"{option}_batch"),
        }
        stage = replace(getattr(request, name), **{key: value for key, value in given.items() if value is not None})
        request = replace(request, **{name: stage})
    return request


def evaluate(arguments: argparse.Namespace, console: Console) -> None:
    """``medai ct evaluate``"""
    from CTReportLib.request import Models
    from CTReportLib.train.evaluation import TASK, EvaluateRequest, EvaluateResult
    from CTReportLib.train.scorefiles import table_lines, write_scores

    models = Models(arguments.encoder, arguments.classifier, arguments.localizer)
    request = EvaluateRequest(arguments.data, models, split=arguments.split, reports=arguments.reports)
    outcome = _runner(arguments).run(TASK, request, console.progress)
    result: EvaluateResult = outcome.result
    written = write_scores(result, arguments.out)
    console.result({**result.plain(), "out": str(arguments.out)})
    for line in table_lines(result):
        console.print(line)
    console.print(f"Written: {', '.join(path.name for path in written)} in {arguments.out}")
    console.print("Research use only.")


def _runner(arguments: argparse.Namespace) -> Runner:
    from MedAILib.jobs.device import recommended_threads
    from MedAILib.jobs.runner import InProcessRunner
    from MedAILib.models.torchuse import chosen_device

    return InProcessRunner(chosen_device(arguments.device), arguments.threads or recommended_threads())
