"""The commands ``medai multitask predict`` and ``medai train multitask``. They import what is heavy when they run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.errors import InputError

if TYPE_CHECKING:
    from MedAILib.cli.console import Console
    from MedAILib.jobs.execute import Outcome
    from MedAILib.jobs.runner import Runner
    from MedAILib.models.heads import Normalisation
    from MedAILib.multitask.train.request import LogRow, TrainResult
    from MedAILib.multitask.volume_task import VolumeResult

PREDICT_DESCRIPTION = """\
Run a multi-task network on all slices of a volume: tumour probability of every slice, a mask, areas and volume.

There are no clinical weights for this network; none are shipped. Research use only."""

TRAIN_DESCRIPTION = """\
Train a multi-task network: segmentation and classification of 2D slices.

The data is a folder of cases (patient/.../image.nii.gz and mask.nii.gz), or a manifest: a JSON list of
objects with patient, image, mask (or "healthy": true) and, where not all labels are tumour, labels. Patients,
never slices, are kept apart for validation. A run that was ended goes on with --resume.

The folder of the model then holds model.safetensors, model_config.json, log.csv. Research use only."""


def add_predict_command(commands: Any) -> None:
    """Add ``predict`` to the sub-parsers of ``medai multitask``."""
    parser = commands.add_parser("predict", help="predict on all slices of a volume", description=PREDICT_DESCRIPTION)
    parser.add_argument("--volume", required=True, type=Path, help="the image: NIfTI, NRRD, MetaImage, DICOM folder")
    parser.add_argument("--model", required=True, help="weights, folder of one model, or id of an installed one")
    parser.add_argument("--out", required=True, type=Path, help="the mask: .seg.nrrd (names, colours) or a label map")
    parser.add_argument(
        "--report", type=Path, metavar="JSON", help="run report with every slice's probability and area"
    )
    parser.add_argument(
        "--segment-all", action="store_true", help="segment every slice, not only those that reach the threshold"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="tumour probability from which a slice counts; default: the model's",
    )
    parser.add_argument(
        "--segmentation-threshold", type=float, metavar="P", help="likewise of a pixel (default: the model's)"
    )
    parser.add_argument(
        "--smallest-mm3", type=float, default=0.0, metavar="MM3", help="remove connected parts smaller than this"
    )
    parser.add_argument(
        "--most-suspicious", type=int, default=5, metavar="N", help="how many slices to name (default: 5)"
    )
    parser.add_argument("--worker", action="store_true", help="run in a worker process, as Slicer's window does")
    _add_machine(parser)
    parser.set_defaults(run=predict)


def add_train_command(commands: Any) -> None:
    """Add ``multitask`` to the sub-parsers of ``medai train``."""
    parser = commands.add_parser(
        "multitask", help="segmentation and classification of 2D slices", description=TRAIN_DESCRIPTION
    )
    parser.add_argument("--data", required=True, type=Path, help="folder of cases, or manifest (JSON)")
    parser.add_argument("--out", required=True, type=Path, help="folder for the model, its log and its state")
    parser.add_argument(
        "--phases", metavar="KIND:STEPS[:RATE],...", help="seg, cls and joint (default: seg:1500,cls:500,joint:1500)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the training in the folder")
    network = parser.add_argument_group("network")
    network.add_argument("--base-filters", type=int, default=32, metavar="N", help="default: 32")
    network.add_argument("--depth", type=int, default=4, metavar="N", help="default: 4")
    network.add_argument("--cls-hidden-dim", type=int, default=64, metavar="N", help="default: 64")
    network.add_argument("--transposed", action="store_true", help="enlarge by transposed convolution")
    network.add_argument("--dropout", type=float, default=0.0, metavar="P", help="of feature maps (default: 0)")
    images = parser.add_argument_group("images")
    images.add_argument("--size", type=int, default=256, metavar="PIXELS", help="of the network's input (default: 256)")
    images.add_argument("--keep-aspect", action="store_true", help="keep the slices' proportions, pad the rest")
    images.add_argument("--orientation", default="axial", metavar="PLANE", help="axial, coronal or sagittal")
    images.add_argument("--modality", default="MR", help="for the model's description (default: MR)")
    images.add_argument(
        "--normalisation",
        default="z-score",
        metavar="KIND",
        help="z-score, min-max, percentiles:LOW:HIGH, window:LOW:HIGH or none (default: z-score)",
    )
    images.add_argument("--no-augmentation", action="store_true", help="learn from the slices as they are")
    learning = parser.add_argument_group("learning")
    learning.add_argument("--batch-size", type=int, default=8, metavar="N", help="default: 8")
    learning.add_argument(
        "--validation", type=float, default=0.2, metavar="SHARE", help="of the patients (default: 0.2)"
    )
    learning.add_argument("--validate-every", type=int, default=50, metavar="STEPS", help="default: 50")
    learning.add_argument("--save-every", type=int, default=50, metavar="STEPS", help="default: 50")
    learning.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    _add_machine(parser)
    parser.set_defaults(run=train)


def predict(arguments: argparse.Namespace, console: Console) -> None:
    """``medai multitask predict``"""
    from MedAILib.atomic import write_text
    from MedAILib.imageio import read_volume, write_label_map
    from MedAILib.multitask.volume_task import TASK, VolumeRequest

    request = VolumeRequest(
        volume=read_volume(arguments.volume),
        checkpoint=_weights(arguments.model),
        conditional=not arguments.segment_all,
        classification_threshold=arguments.threshold,
        segmentation_threshold=arguments.segmentation_threshold,
        smallest_object_mm3=arguments.smallest_mm3,
        most_suspicious=arguments.most_suspicious,
    )
    with _runner(arguments) as runner:
        outcome: Outcome[VolumeResult] = runner.run(TASK, request, console.progress)
    facts = outcome.result.to_dict()
    report = {**json.loads(outcome.report.to_json()), "result": facts}
    write_label_map(outcome.result.mask, arguments.out)
    if arguments.report is not None:
        write_text(arguments.report, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    console.result(report)
    _say_prediction(console, outcome.result, arguments.out)


def train(arguments: argparse.Namespace, console: Console) -> None:
    """``medai train multitask``"""
    from MedAILib.multitask.train.request import TASK, USUAL_PHASES, TrainRequest, phases_from_text

    request = TrainRequest(
        data=arguments.data,
        out=arguments.out,
        phases=phases_from_text(arguments.phases) if arguments.phases else USUAL_PHASES,
        network={
            "base_filters": arguments.base_filters,
            "depth": arguments.depth,
            "cls_hidden_dim": arguments.cls_hidden_dim,
            "bilinear": not arguments.transposed,
            "dropout": arguments.dropout,
        },
        size=arguments.size,
        keep_aspect=arguments.keep_aspect,
        normalisation=_normalisation(arguments.normalisation),
        orientation=arguments.orientation,
        modality=arguments.modality,
        batch_size=arguments.batch_size,
        augment=not arguments.no_augmentation,
        validation_fraction=arguments.validation,
        validate_every=arguments.validate_every,
        save_every=arguments.save_every,
        seed=arguments.seed,
        resume=arguments.resume,
    )
    with _runner(arguments) as runner:
        outcome: Outcome[TrainResult] = runner.run(TASK, request, console.progress)
    console.result({**json.loads(outcome.report.to_json()), "result": _training_facts(outcome.result)})
    _say_training(console, outcome.result)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda:0, mps (default: a GPU where there is one)")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all that may be used)")


def _weights(model: str) -> Path:
    """The path that is meant: as given, or where the installed model of that id lies."""
    from MedAILib.models.manager import Manager

    if not Path(model).exists():
        manager = Manager()
        if model in manager.catalogue:
            return manager.weights(model)
    return Path(model)


def _runner(arguments: argparse.Namespace) -> Runner:
    from MedAILib.jobs.device import probe_devices, recommended_threads
    from MedAILib.jobs.runner import InProcessRunner

    threads = arguments.threads or recommended_threads()
    if getattr(arguments, "worker", False):
        from MedAILib.jobs.worker_runner import WorkerRunner

        return WorkerRunner(arguments.device or probe_devices()[0].id, threads)
    from MedAILib.models.torchuse import chosen_device

    return InProcessRunner(chosen_device(arguments.device), threads)


def _normalisation(text: str) -> Normalisation:
    from MedAILib.models.heads import Normalisation, NormalisationKind

    name, *bounds = text.split(":")
    try:
        kind = NormalisationKind(name)
        if kind is NormalisationKind.FIXED:
            raise ValueError("a fixed normalisation cannot be given here")
        if kind in (NormalisationKind.PERCENTILES, NormalisationKind.WINDOW):
            lower, upper = (float(bound) for bound in bounds)
            if not lower < upper:
                raise ValueError("the first bound must be below the second")
            return Normalisation(kind, lower, upper)
        if bounds:
            raise ValueError(f"{name} has no bounds")
    except ValueError as error:
        raise InputError(
            f"'{text}' is not a normalisation.",
            why=f"{str(error)[:1].upper()}{str(error)[1:]}.",
            todo="Write z-score, min-max, none, percentiles:1:99 or window:-100:300.",
        ) from error
    return Normalisation(kind)


def _say_prediction(console: Console, result: VolumeResult, out: Path) -> None:
    suspicious = [finding for finding in result.slices if finding.suspicious]
    threshold = "" if result.classification_threshold is None else f" (threshold {result.classification_threshold:.2f})"
    console.print(f"{len(suspicious)} of {len(result.slices)} slices along {result.axis} are suspicious{threshold}.")
    by_index = {finding.index: finding for finding in result.slices}
    for index in result.most_suspicious:
        finding = by_index[index]
        console.print(f"  slice {index}: probability {finding.tumor_probability:.2f}, area {finding.area_mm2:.0f} mm²")
    for name, volume_mm3 in result.volume_mm3.items():
        console.print(f"{name}: {volume_mm3 / 1000:.2f} ml")
    if not result.calibrated:
        console.warn("thresholds or classes of this model are assumed, not calibrated")
    for text in result.warnings:
        console.warn(text)
    console.print(f"Written: {out}")
    console.print("Research use only; no diagnosis.")


def _say_training(console: Console, result: TrainResult) -> None:
    console.print(
        f"Learned from {result.train_slices} slices of {len(result.train_patients)} patients, "
        f"{result.train_tumor_slices} of them with a tumour."
    )
    if result.log:
        console.print(f"Loss: {_loss(result.log[0])}, at the end {_loss(result.log[-1])}.")
    if result.metrics:
        names = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items())
        console.print(f"On {len(result.validation_patients)} patients that were kept apart: {names}.")
    for text in result.warnings:
        console.warn(text)
    console.print(f"Written: {result.checkpoint}")
    console.print("Research use only: not validated, no diagnosis.")


def _loss(row: LogRow) -> str:
    return f"{row.loss:.3f} ({row.phase}, step {row.step})"


def _training_facts(result: TrainResult) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(result), "checkpoint": str(result.checkpoint)}
