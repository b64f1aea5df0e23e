"""The command ``medai propagate``. Everything heavy is imported when it runs."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.errors import GeometryMismatch, InputError
from Mem3DPropagateLib.train.command import add_train_command

if TYPE_CHECKING:
    import numpy as np

    from MedAILib.cli.console import Console
    from MedAILib.jobs.execute import Outcome
    from MedAILib.volume import LabelMap, SegmentInfo, Volume
    from Mem3DPropagateLib.evaluate import Evaluation
    from Mem3DPropagateLib.request import PropagatedSegment, PropagateRequest, PropagateResult

UNTIL_CLOSED = "auto"

DESCRIPTION = """\
Propagate structures drawn on a few slices through a volume.

The drawing is a Slicer segmentation (.seg.nrrd) or a label map on the volume's grid. Slices are counted
from 0 along the axis (k is the third voxel index, for most scans from inferior to superior). Drawn slices
come back exactly as they were drawn. Research use only."""


def add_commands(commands: Any) -> None:
    """Add ``propagate`` and ``train propagate`` to the sub-parsers of `argparse`."""
    parser = commands.add_parser(
        "propagate", help="propagate a structure drawn on a few slices through a volume", description=DESCRIPTION
    )
    parser.add_argument("--volume", required=True, type=Path, help="the image: NIfTI, NRRD, MetaImage, DICOM folder")
    parser.add_argument("--segmentation", required=True, type=Path, help="the drawing: .seg.nrrd or a label map")
    parser.add_argument("--out", required=True, type=Path, help="the result: .seg.nrrd (names, colours) or a label map")
    parser.add_argument(
        "--axis", choices=("auto", "i", "j", "k"), default="auto", help="axis across the drawn slices (default: auto)"
    )
    parser.add_argument(
        "--references",
        type=_slice_list,
        metavar="10,20,30",
        help="take only these slices of the drawing, and take a segment without voxels there to be absent there; "
        "default: every slice drawn",
    )
    parser.add_argument("--segment", action="append", metavar="NAME", help="only this segment (may be repeated)")
    parser.add_argument(
        "--extend",
        type=_extent,
        metavar="N|auto",
        help="slices to go on beyond the outermost drawn ones; auto: until the structure has ended "
        "(default: 0, or auto where a single slice is drawn)",
    )
    parser.add_argument(
        "--method",
        choices=("auto", "geometry", "network", "stm"),
        default="auto",
        help="auto: our network where it was measured to be better and PyTorch is installed, else geometry; "
        "stm: a space-time memory network with your own --weights (default: auto)",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights for the method stm (STM, VMN) or network")
    parser.add_argument("--device", metavar="cpu|cuda:0|mps", default="cpu", help="for networks (default: cpu)")
    parser.add_argument("--worker", action="store_true", help="run in a worker process, as Slicer's window does")
    parser.add_argument(
        "--reference-segmentation", type=Path, metavar="TRUTH", help="true segments to compare with, by name or label"
    )
    parser.add_argument("--picture", type=Path, metavar="PNG", help="montage with contours and confidence")
    parser.add_argument("--report", type=Path, metavar="JSON", help="run report with the confidence of every slice")
    parser.set_defaults(run=propagate)
    add_train_command(commands)


def propagate(arguments: argparse.Namespace, console: Console) -> None:
    """``medai propagate``"""
    from MedAILib.atomic import write_bytes
    from MedAILib.imageio import read_label_map, read_volume, write_label_map

    volume = read_volume(arguments.volume)
    drawing = _on_grid_of(volume, read_label_map(arguments.segmentation), arguments.segmentation)
    chosen = _chosen_segments(drawing, arguments.segment)
    truth = None
    if arguments.reference_segmentation is not None:
        truth = _on_grid_of(volume, read_label_map(arguments.reference_segmentation), arguments.reference_segmentation)
        truths = [_truth_of(info, truth) for info in chosen]
    request = _request(arguments, volume, drawing, chosen)
    outcome = _run(arguments, request, console)
    result: PropagateResult = outcome.result

    evaluations = []
    if truth is not None:
        from Mem3DPropagateLib.evaluate import evaluate

        evaluations = [evaluate(s, t, result.axis) for s, t in zip(result.segments, truths, strict=True)]
    report = _report(outcome, evaluations)
    picture = b""
    if arguments.picture is not None:
        from Mem3DPropagateLib.picture import draw_picture
        from Mem3DPropagateLib.strip import png_bytes

        colors = [info.color_rgb for info in chosen]
        picture = png_bytes(draw_picture(volume, result, colors, truths if truth else ()))
    write_label_map(_label_map_with(drawing, result), arguments.out)
    if arguments.picture is not None:
        write_bytes(arguments.picture, picture)
    if arguments.report is not None:
        write_bytes(arguments.report, json.dumps(report, indent=2, ensure_ascii=False).encode("utf-8"))
    console.result(report)
    _print(console, result, evaluations, arguments.out)


def _slice_list(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of slice indices such as 10,20,30") from None


def _extent(text: str) -> int | str:
    if text == UNTIL_CLOSED:
        return UNTIL_CLOSED
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number of slices nor 'auto'")
    return int(text)


def _on_grid_of(volume: Volume, label_map: LabelMap, path: Path) -> LabelMap:
    """The label map on the volume's grid; one saved without its empty border is put back in place."""
    from MedAILib.grids import placed

    try:
        return placed(label_map, volume.geometry)
    except GeometryMismatch as error:
        raise GeometryMismatch(
            f"'{path}' does not lie on the voxel grid of the volume.",
            why=f"{error.why} It was probably drawn on another image.",
            todo="Give the image it was drawn on, or resample it to this one first.",
        ) from error


def _chosen_segments(drawing: LabelMap, names: list[str] | None) -> list[SegmentInfo]:
    if names is None:
        filled = [info for info in drawing.segments if drawing.mask(info.id).any()]
        return filled or list(drawing.segments)
    return [drawing.segment(name) for name in dict.fromkeys(names)]


def _truth_of(info: SegmentInfo, truth: LabelMap) -> np.ndarray:
    """The true segment of the same id or name, or else of the same label."""
    for other in truth.segments:
        if other.id == info.id or other.name == info.name:
            return truth.mask(other.id)
    same_label = [other for other in truth.segments if other.label_value == info.label_value]
    if len(same_label) != 1:
        raise InputError(
            f"The reference segmentation has no counterpart of segment '{info.name}'.",
            why="Neither a name nor a label value of it fits.",
            todo="Choose the segments to propagate with --segment, or name the segments alike.",
        )
    return truth.mask(same_label[0].id)


def _request(
    arguments: argparse.Namespace, volume: Volume, drawing: LabelMap, chosen: list[SegmentInfo]
) -> PropagateRequest:
    from Mem3DPropagateLib.drawings import default_extent, guess_axis, take_drawing
    from Mem3DPropagateLib.request import Axis, Method, PropagateRequest

    masks = [drawing.mask(info.id) for info in chosen]
    axis = guess_axis(masks) if arguments.axis == "auto" else Axis(arguments.axis)
    drawings = tuple(
        take_drawing(info.id, info.name, mask, axis, arguments.references)
        for info, mask in zip(chosen, masks, strict=True)
    )
    extend = {None: default_extent(drawings), UNTIL_CLOSED: None}.get(arguments.extend, arguments.extend)
    weights = str(arguments.weights.resolve()) if arguments.weights is not None else ""
    return PropagateRequest(volume, axis, drawings, extend=extend, method=Method(arguments.method), weights=weights)


def _run(arguments: argparse.Namespace, request: PropagateRequest, console: Console) -> Outcome[PropagateResult]:
    from MedAILib.jobs.device import recommended_threads
    from Mem3DPropagateLib.request import TASK

    if arguments.worker:
        from MedAILib.jobs.worker_runner import WorkerRunner

        with WorkerRunner(arguments.device) as worker:
            return worker.run(TASK, request, console.progress)
    from MedAILib.jobs.runner import InProcessRunner

    return InProcessRunner(arguments.device, recommended_threads()).run(TASK, request, console.progress)


def _label_map_with(drawing: LabelMap, result: PropagateResult) -> LabelMap:
    """The drawing with its segments replaced by what was propagated; segments that were not are left alone.

    A propagated segment keeps out of those, but for the ones it was drawn over.
    """
    from Mem3DPropagateLib.evaluate import placed as placed_segment

    propagated = {segment.segment_id for segment in result.segments}
    untouched = [drawing.mask(info.id) for info in drawing.segments if info.id not in propagated]
    layers = [layer.copy() for layer in drawing.layers]
    for segment in result.segments:
        layers[drawing.segment(segment.segment_id).layer][drawing.mask(segment.segment_id)] = 0
    for segment in result.segments:
        info, drawn = drawing.segment(segment.segment_id), drawing.mask(segment.segment_id)
        mask = placed_segment(segment, drawn.shape)
        for other in untouched:
            if not (drawn & other).any():
                mask &= ~other
        layers[info.layer][mask] = info.label_value
    return replace(drawing, layers=tuple(layers))


def _report(outcome: Outcome[PropagateResult], evaluations: list[Evaluation]) -> dict[str, Any]:
    from Mem3DPropagateLib.summary import result_summary

    report: dict[str, Any] = {**json.loads(outcome.report.to_json()), "result": result_summary(outcome.result)}
    for segment, evaluation in zip(report["result"]["segments"], evaluations, strict=False):
        segment["volume_dice"] = evaluation.volume_dice
        segment["slice_dice"] = evaluation.slice_dice
    return report


def _how(segment: PropagatedSegment) -> str:
    return f"{segment.method.value}, {segment.model}" if segment.model else segment.method.value


def _print(console: Console, result: PropagateResult, evaluations: list[Evaluation], out: Path) -> None:
    for number, segment in enumerate(result.segments):
        references = [q.index for q in segment.slices if q.is_reference]
        console.print(
            f"{segment.name}: {len(segment.slices) - len(references)} slices along {result.axis.value} from "
            f"{len(references)} drawn ones ({_how(segment)}); expected Dice {segment.confidence:.2f}, "
            f"lowest on a slice {segment.quality_score:.2f}."
        )
        if evaluations:
            console.print(f"  Dice with the reference segmentation: {evaluations[number].volume_dice:.3f}")
        console.print(f"  Next: {segment.advice.reason}")
    for text in result.warnings:
        console.warn(text)
    console.print(f"Written: {out}")
    console.print("Research use only.")
