"""The command ``medai knee analyze``. Everything heavy is imported when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.cli.groups import command_group
from MedAILib.errors import ConfigError, Incomplete, MedAIError

if TYPE_CHECKING:
    from KneeAnalysisLib.request import KneeRequest
    from KneeAnalysisLib.results import KneeResult
    from KneeAnalysisLib.segmentation import EngineName, EngineOptions
    from MedAILib.cli.console import Console
    from MedAILib.jobs.execute import Outcome

TASK = "KneeAnalysisLib.task:KneeTask"
ENGINES = (
    "nnunet-fullres",
    "nnunet-cascade",
    "dosma-sagittal",
    "dosma-coronal",
    "dosma-axial",
    "dosma-staple",
    "none",
)
DESCRIPTION = """\
Measure a knee: cartilage thickness by region, T2, surfaces, a table and a report.

INPUT is an MRI (NIfTI, NRRD, MetaImage, a DICOM folder; of a folder with several echoes T2 is found as well),
or with --model none and without --segmentation a label map. What its values mean must be said with --labels:
'native' (the networks' ids), 'canonical' (ours), or a JSON file that maps tissue names to ids or segment names,
such as {"femur": 5, "tibia": 6, "femoral_cartilage": 1}.

Finished steps are kept in the folder of --out; --resume takes up a run that was ended there. Research use only."""


def add_commands(commands: Any) -> None:
    """Add ``knee`` to the sub-parsers of `argparse`."""
    knee = command_group(commands, "knee", "measure the cartilage of a knee")
    parser = knee.add_parser("analyze", help="thickness, T2, surfaces, table and report", description=DESCRIPTION)
    parser.add_argument("input", type=Path, metavar="INPUT", help="an MRI, a DICOM folder, or a label map")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--segmentation", type=Path, metavar="MAP", help="a label map or .seg.nrrd of INPUT")
    parser.add_argument("--model", choices=ENGINES, help="what segments (default: none with a label map)")
    parser.add_argument(
        "--weights", type=Path, action="append", default=[], metavar="PATH",
        help="weight file or folder (may be repeated); default: the installed model",
    )  # fmt: skip
    parser.add_argument("--labels", default="", metavar="native|canonical|FILE.json", help="what label values mean")
    parser.add_argument("--t2", type=Path, metavar="DICOM", help="folder of a series with several echoes")
    parser.add_argument(
        "--steps", default="all", help="comma-separated: segment, meshes, thickness, subregions, t2, statistics, report"
    )
    parser.add_argument("--side", choices=("auto", "left", "right"), default="auto", help="default: auto")
    parser.add_argument("--finer", action="store_true", help="also split trochlea, condyles and tibial plateaus")
    parser.add_argument("--name", help="start of file names (default: that of INPUT)")
    parser.add_argument("--resume", action="store_true", help="take finished steps from the folder of --out")
    parser.add_argument(
        "--timeout", action="append", default=[], metavar="[STEP=]SECONDS",
        help="limit of every step, or of one; 0: none (default: 600, segmentation 1800)",
    )  # fmt: skip
    _add_settings(parser)
    parser.set_defaults(run=analyze)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("settings")
    how.add_argument("--cartilage-smoothing", type=float, metavar="MM2", help="variance, 0 to 2 (default: 0.3125)")
    how.add_argument("--thickness-method", choices=("layer", "two-surfaces"), default="layer", help="default: layer")
    how.add_argument("--t2-fit", choices=("non_linear", "log_linear"), default="non_linear", help="default: non_linear")
    how.add_argument("--skip-first-echo", action="store_true", help="of a multi-echo series")
    how.add_argument("--tile-step", type=float, default=0.5, metavar="SHARE", help="of nnU-Net (default: 0.5)")
    how.add_argument("--mirroring", action="store_true", help="of nnU-Net: average over mirrorings (8 times as slow)")
    how.add_argument("--batch-size", type=int, default=0, metavar="N", help="of a network (default: its own)")
    how.add_argument("--no-cpu-fallback", action="store_true", help="fail where the GPU's memory does not suffice")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda:0 or mps (default: auto)")
    how.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    how.add_argument("--worker", action="store_true", help="run in a worker process, as Slicer's window does")


def analyze(arguments: argparse.Namespace, console: Console) -> int | None:
    """``medai knee analyze``"""
    from KneeAnalysisLib.exports import finish_output, summary
    from KneeAnalysisLib.table import upstream_values

    request = request_from(arguments)
    outcome = _run(arguments, request, console)
    result: KneeResult = outcome.result
    archive = finish_output(outcome, arguments.out)
    console.result({**summary(result), "results": upstream_values(result), "run_id": outcome.report.run_id,
                    "out": str(arguments.out), "archive": str(archive)})  # fmt: skip
    _print(console, result, arguments.out)
    measured = result.statistics is None or bool(result.statistics.thickness)
    return None if measured else Incomplete.exit_status


def request_from(arguments: argparse.Namespace) -> KneeRequest:
    """The request that the arguments describe, with its files read.

    Raises
    ------
    ConfigError
        Arguments that contradict each other.
    MedAIError
        A file that is missing or cannot be read.
    """
    from KneeAnalysisLib.exports import safe_name
    from KneeAnalysisLib.request import KneeRequest, steps_named
    from KneeAnalysisLib.segmentation import EngineName
    from KneeAnalysisLib.source import read_knee

    engine = EngineName(_engine(arguments))
    steps, timeouts = steps_named(arguments.steps), timeouts_from(arguments.timeout)
    is_label_map = engine is EngineName.NONE and arguments.segmentation is None
    files = read_knee(arguments.input, segmentation=arguments.segmentation, t2=arguments.t2, is_label_map=is_label_map)
    labels = arguments.labels
    request = KneeRequest(
        image=files.image if engine is not EngineName.NONE else None,
        label_map=files.label_map,
        labels=labels if labels in ("", "native", "canonical") else str(Path(labels).absolute()),
        engine=engine,
        weights=_weights(engine, arguments.weights),
        engine_options=_engine_options(arguments),
        echoes=files.echoes,
        side=arguments.side,
        steps=steps,
        thickness=_thickness_options(arguments),
        t2=_t2_settings(arguments),
        finer=arguments.finer,
        name=safe_name(arguments.name or stem_of(arguments.input)),
        out=arguments.out.absolute(),
        resume=arguments.resume,
        timeouts_s=timeouts,
    )
    request.validate()
    return request


def timeouts_from(texts: Sequence[str]) -> Mapping[str, float]:
    """Seconds by step from texts such as ``120`` (every step) and ``t2=30``.

    Raises
    ------
    ConfigError
        A text that is neither.
    """
    from KneeAnalysisLib.request import Step

    found: dict[str, float] = {}
    for text in texts:
        step, _, seconds = text.rpartition("=")
        try:
            value = float(seconds)
        except ValueError:
            raise ConfigError(f"'{text}' is no time limit.", todo="Write 120, or t2=30.") from None
        found.update(dict.fromkeys([step] if step else [one.value for one in Step], value))
    return found


def stem_of(path: Path) -> str:
    """A file's name without its endings, ``.nii.gz`` and ``.seg.nrrd`` included."""
    name = path.absolute().name
    for ending in (".nii.gz", ".seg.nrrd", ".seg.nhdr"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name if path.is_dir() else path.stem


def _engine(arguments: argparse.Namespace) -> str:
    if arguments.model is None and not (arguments.segmentation or arguments.labels):
        raise ConfigError(
            "It is not said what segments the image.",
            todo="Give --model, or a label map with --model none and --labels.",
        )
    engine = str(arguments.model or "none")
    if engine != "none" and arguments.segmentation is not None:
        raise ConfigError(
            f"There is a segmentation, and the model '{engine}' would make another.",
            todo="Leave --segmentation out, or choose --model none.",
        )
    return engine


def _weights(engine: EngineName, given: Sequence[Path]) -> tuple[Path, ...]:
    """Those given, else those of the installed models."""
    from KneeAnalysisLib.installed import installed_weights

    return tuple(path.absolute() for path in given) or installed_weights(engine)


def _engine_options(arguments: argparse.Namespace) -> EngineOptions:
    from KneeAnalysisLib.segmentation import EngineOptions

    return EngineOptions(
        tile_step=arguments.tile_step,
        mirroring=arguments.mirroring,
        batch_size=arguments.batch_size,
        cpu_fallback=not arguments.no_cpu_fallback,
    )


def _thickness_options(arguments: argparse.Namespace) -> Any:
    from KneeAnalysisLib.measures import ThicknessMethod, ThicknessOptions
    from KneeAnalysisLib.meshes import MeshOptions

    smoothing = arguments.cartilage_smoothing
    mesh = MeshOptions() if smoothing is None else MeshOptions(cartilage_variance_mm2=smoothing)
    return ThicknessOptions(mesh, ThicknessMethod(arguments.thickness_method))


def _t2_settings(arguments: argparse.Namespace) -> Any:
    from KneeAnalysisLib.request import T2Settings
    from KneeAnalysisLib.t2 import DecayFit

    return T2Settings(DecayFit(arguments.t2_fit), arguments.skip_first_echo)


def _run(arguments: argparse.Namespace, request: KneeRequest, console: Console) -> Outcome[KneeResult]:
    from MedAILib.jobs.runner import InProcessRunner

    device = _device(arguments.device, request)
    try:
        if arguments.worker:
            from MedAILib.jobs.worker_runner import WorkerRunner

            with WorkerRunner(device=device, threads=arguments.threads) as worker:
                return worker.run(TASK, request, console.progress)
        return InProcessRunner(device, arguments.threads).run(TASK, request, console.progress)
    except MedAIError as error:
        from KneeAnalysisLib.chain import with_resume_advice

        raise with_resume_advice(error, arguments.out.absolute()) from None


def _device(wanted: str, request: KneeRequest) -> str:
    """The device: the first one found where it is left open and a network runs."""
    from KneeAnalysisLib.segmentation import EngineName

    if wanted != "auto":
        return wanted
    if request.engine is EngineName.NONE:
        return "cpu"
    from MedAILib.jobs.device import probe_devices

    return probe_devices()[0].id


def _print(console: Console, result: KneeResult, out: Path) -> None:
    from KneeAnalysisLib.report import cell_text
    from KneeAnalysisLib.table import rows

    found = rows(result)
    if found:
        console.print(f"{'':52}{'mean':>8}{'SD':>8}{'denuded':>10}{'volume':>12}" + ("      T2" if result.t2 else ""))
    for row in found:
        line = f"{row.region:52}{row.mean_mm:8.2f}{row.sd_mm:8.2f}{row.denuded_percent:9.1f}%{row.volume_mm3:8.0f} mm3"
        console.print(line + (f"{cell_text('t2_mean_ms', row.t2_mean_ms):>8}" if result.t2 else ""))
    for note in result.notes:
        console.warn(note)
    for step in result.steps:
        if step.skipped:
            console.remark(f"Step '{step.step}' left out: {step.skipped}.")
    if result.report is not None and result.report.no_pictures:
        console.warn(f"The report has no pictures. {result.report.no_pictures}")
    console.print(f"Written: {out}")
    console.print("Research use only.")
