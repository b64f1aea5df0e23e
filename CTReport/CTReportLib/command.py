"""The command ``medai ct report``. Everything heavy is imported when it runs."""

from __future__ import annotations

import argparse
import json
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CTReportLib.train.command import add_train_commands
from MedAILib.cli.groups import command_group
from MedAILib.errors import Cancelled, ConfigError, Incomplete, MedAIError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from CTReportLib.request import Models, ReportRequest, ReportResult
    from CTReportLib.source import Case
    from MedAILib.cli.console import Console
    from MedAILib.jobs.execute import Outcome
    from MedAILib.jobs.runner import Runner
    from MedAILib.volume import LabelMap

ENGINES = ("template", "llm")
EXPORTS = ("pdf", "docx", "sr", "seg", "nii", "txt", "json", "html")
DESCRIPTION = """\
Report a chest CT: findings with their evidence, where they are, and a structured report.

INPUT is a CT (NIfTI, NRRD, MetaImage), a DICOM folder, or a folder of such; of several each gets a folder in that of
--out, and --resume leaves out those that are done. What is not judged is listed as not judged. Findings are measured
by rule, without weights; segments of --mask that bear a finding's name count as evidence of it.

MODEL is the id of a model (see: medai models list) or a weight file. --classifier tells findings from what --encoder
sees, --localizer draws them; where a rule and a model disagree, nothing is decided. --llm lets a language model write;
each of its sentences is held against the finding table.

Exit status 0: done; 3: not complete, or some of several failed; other numbers: failed. Research use only."""


@dataclass(frozen=True, eq=False)
class _Options:
    """What was asked, with its models found and its segments read."""

    arguments: argparse.Namespace
    models: Models
    masks: LabelMap | None
    engine: str
    fingerprint: str


def add_commands(commands: Any) -> None:
    """Add ``ct`` and ``train ct`` to the sub-parsers of `argparse`."""
    add_train_commands(commands)
    group = command_group(commands, "ct", "findings and a report of a chest CT")
    parser = group.add_parser("report", help="measured findings, places and a report", description=DESCRIPTION)
    parser.add_argument("input", type=Path, metavar="INPUT", help="a CT, a DICOM folder, or a folder of them")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--engine", choices=ENGINES, help="what writes the report (default: llm with --llm)")
    parser.add_argument("--findings-only", action="store_true", help="the finding table without sentences")
    parser.add_argument("--mask", type=Path, metavar="LABELMAP", help="segments of INPUT that are known already")
    parser.add_argument(
        "--window", type=_window, metavar="LOW,HIGH", help="black and white of key images in HU, as --window=-160,240"
    )
    models = parser.add_argument_group("models, none of which is needed")
    models.add_argument("--encoder", metavar="MODEL", help="reads the CT for --classifier and --llm")
    models.add_argument("--classifier", metavar="MODEL", help="tells findings; trained on that encoder")
    models.add_argument("--localizer", metavar="MODEL", help="draws findings")
    models.add_argument("--llm", metavar="FOLDER", help="language model: its folder, or its id")
    models.add_argument("--device", metavar="NAME", help="cpu, cuda:0, mps (default: a GPU where there is one)")
    parser.add_argument(
        "--export", type=_kinds, default=(), metavar="KINDS", help=f"more files, as pdf,docx: {', '.join(EXPORTS)}"
    )
    parser.add_argument("--name", help="start of file names (default: that of INPUT)")
    parser.add_argument("--resume", action="store_true", help="leave out cases that are done, with the same input")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--worker", action="store_true", help="run in a worker process, as Slicer's window does")
    parser.set_defaults(run=report)
    made = group.add_parser("prompts", help="a classifier by prompts, for an encoder that knows texts")
    made.add_argument(
        "--encoder", required=True, metavar="MODEL", help="a model of images and texts, such as ct-colipri"
    )
    made.add_argument("--tokenizer", required=True, type=Path, metavar="FOLDER", help="of its text encoder")
    made.add_argument("--out", required=True, type=Path, metavar="FILE", help="the classifier, .safetensors")
    made.set_defaults(run=prompts)


def prompts(arguments: argparse.Namespace, console: Console) -> None:
    """``medai ct prompts``"""
    from CTReportLib.choices import Role, model_path
    from MedAILib.models.manager import Manager
    from MedAILib.models.torchmodel import import_torch

    import_torch()
    from CTReportLib.language.zeroshot import make_zero_shot

    encoder = model_path(Manager(), Role.ENCODER, arguments.encoder)
    config = make_zero_shot(encoder, arguments.tokenizer, arguments.out)
    console.result({"id": config.id, "out": str(arguments.out), "findings": list(config.heads[0].class_names)})
    console.print(f"Written: {arguments.out}. Its probabilities are not calibrated. Research use only.")


def report(arguments: argparse.Namespace, console: Console) -> int | None:
    """``medai ct report``"""
    from CTReportLib.source import find_cases

    cases = find_cases(arguments.input)
    several = len(cases) > 1
    if several and (arguments.mask is not None or arguments.name):
        raise ConfigError(
            "--mask and --name are for one CT.", why=f"INPUT holds {len(cases)}.", todo="Name one of them."
        )
    options = _options(arguments)
    with _runner(arguments, options) as runner:
        done = [_attempt(case, options, console, runner, several=several) for case in cases]
    if not several:
        console.result(done[0])
    else:
        failed = sum("error" in one for one in done)
        console.result({"cases": done, "failed": failed})
        console.print(f"{len(done)} CTs: {len(done) - failed} reported, {failed} failed. Written: {arguments.out}")
    console.print("Research use only.")
    return _status(done)


def _status(done: Sequence[dict[str, Any]]) -> int | None:
    """None where all is done and whole, 3 where part of it is not, else the status of the first failure."""
    failed = [one for one in done if "error" in one]
    if failed and len(failed) == len(done):
        return int(failed[0]["error"]["exit_status"])
    return None if not failed and all(one["complete"] for one in done) else Incomplete.exit_status


def _options(arguments: argparse.Namespace) -> _Options:
    from CTReportLib.answers import fingerprint_of
    from MedAILib.imageio import read_label_map

    models = _models(arguments)
    masks = None if arguments.mask is None else read_label_map(arguments.mask)
    engine = arguments.engine or ("template" if models.language is None else "llm")
    problems = list(models.problems())
    if engine == "llm" and models.language is None:
        problems.append("the engine 'llm' needs a language model: --llm")
    if problems:
        raise ConfigError("The report cannot be made: " + "; ".join(problems) + ".")
    return _Options(arguments, models, masks, engine, fingerprint_of(models) if arguments.resume else "")


def _models(arguments: argparse.Namespace) -> Models:
    """The models that are meant: paths as given, or where the installed model of an id lies."""
    from CTReportLib.choices import Role, chosen_models
    from CTReportLib.request import Models

    given = {
        Role.ENCODER: arguments.encoder,
        Role.CLASSIFIER: arguments.classifier,
        Role.LOCALIZER: arguments.localizer,
        Role.LANGUAGE: arguments.llm,
    }
    chosen = {role: name for role, name in given.items() if name}
    if not chosen:
        return Models()
    from MedAILib.models.manager import Manager

    models = chosen_models(Manager(), chosen)
    return Models(*(path and path.absolute() for path in astuple(models)))


def _attempt(case: Case, options: _Options, console: Console, runner: Runner, *, several: bool) -> dict[str, Any]:
    """Report one case; of several a failure is told and the next one goes on."""
    try:
        return _case(case, options, console, runner, several=several)
    except Cancelled:
        raise
    except MedAIError as error:
        if not several:
            raise
        console.warn(f"{case.name}: {error.text} [{error.code}]")
        told = {"code": error.code, "what": error.what, "why": error.why, "todo": error.todo}
        return {"name": case.name, "error": {**told, "exit_status": error.exit_status}}


def _case(case: Case, options: _Options, console: Console, runner: Runner, *, several: bool) -> dict[str, Any]:
    from CTReportLib.documents import export
    from CTReportLib.exports import RUN_REPORT_FILE, safe_name, summary, write_results
    from CTReportLib.source import fingerprint, is_dicom
    from CTReportLib.task import TASK

    arguments = options.arguments
    name = safe_name(arguments.name or case.name)
    out = arguments.out / name if several else arguments.out
    sha256 = fingerprint(case)
    if arguments.resume:
        earlier = _finished(name, out, sha256, options)
        if earlier is not None:
            console.remark(f"{case.name}: done already, left out.")
            return {**earlier, "out": str(out), "reused": True}
    source = case.path if is_dicom(case) else None
    _require_source(arguments.export, source)
    request = _request(case, name, sha256, options)
    outcome: Outcome[ReportResult] = runner.run(TASK, request, console.progress)
    write_results(outcome.result, out)
    exported = [export(outcome.result, kind, out, source=source).name for kind in arguments.export]
    outcome.report.write(out / RUN_REPORT_FILE)
    _print(console, outcome.result, out)
    told = {**summary(outcome.result), "run_id": outcome.report.run_id, "out": str(out)}
    return {**told, "exported": exported} if exported else told


def _require_source(kinds: Sequence[str], source: Path | None) -> None:
    """Say before the work which of the wanted files cannot be written."""
    from CTReportLib.documents import KINDS

    unable = [kind for kind in kinds if KINDS[kind].needs_source and source is None]
    if unable:
        raise ConfigError(
            f"{' and '.join(unable)} cannot be written for this image.",
            why="They refer to the patient and the slices of a DICOM series, and this is none.",
            todo="Give the DICOM folder as INPUT, or leave them out.",
        )


def _request(case: Case, name: str, sha256: str, options: _Options) -> ReportRequest:
    from CTReportLib.request import ReportRequest
    from CTReportLib.source import read_case

    volume, modality = read_case(case)
    request = ReportRequest(
        volume=volume,
        masks=options.masks,
        modality=modality,
        engine=options.engine,
        findings_only=options.arguments.findings_only,
        window_hu=options.arguments.window,
        name=name,
        input_sha256=sha256,
        models=options.models,
    )
    request.validate()
    return request


def _window(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no pair of numbers such as -160,240") from None
    return low, high


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [kind for kind in kinds if kind not in EXPORTS]
    if unknown or not kinds:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of {', '.join(EXPORTS)}")
    return kinds


def _finished(name: str, out: Path, sha256: str, options: _Options) -> dict[str, Any] | None:
    """The summary of an earlier run with the same input and options; None where there is none."""
    from CTReportLib.documents import KINDS
    from CTReportLib.exports import summary_path
    from MedAILib import __version__

    arguments = options.arguments
    try:
        summary = json.loads(summary_path(name, out).read_text(encoding="utf-8"))
        made = summary["provenance"]
        same = made["file_sha256"] == sha256 and made["engine"] == options.engine and made["medai"] == __version__
        same = same and made["models_given"] == options.fingerprint
        same = same and bool(summary["report"]) != arguments.findings_only and arguments.mask is None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    same = same and all((out / f"{name}{KINDS[kind].ending}").is_file() for kind in arguments.export)
    return dict(summary) if same and summary.get("complete") else None


def _runner(arguments: argparse.Namespace, options: _Options) -> Runner:
    device = arguments.device or ("cpu" if not options.models.any else None)
    if arguments.worker:
        from MedAILib.jobs.device import probe_devices
        from MedAILib.jobs.worker_runner import WorkerRunner

        return WorkerRunner(device or probe_devices()[0].id, threads=arguments.threads)
    from MedAILib.jobs.runner import InProcessRunner

    if options.models.any:
        from MedAILib.models.torchuse import chosen_device

        device = chosen_device(device)
    return InProcessRunner(device or "cpu", threads=arguments.threads)


def _print(console: Console, result: ReportResult, out: Path) -> None:
    from CTReportLib.exports import report_text
    from CTReportLib.request import Decision

    for warning in result.warnings:
        console.warn(warning)
    if result.sections:
        console.print(report_text(result))
    else:
        for row in result.table:
            chance = "" if row.probability is None else f"model probability {row.probability:.2f}"
            grounds = ", ".join(part for part in (row.place or row.side, chance) if part)
            told = row.evidence if row.decision is Decision.NOT_JUDGED else grounds
            console.print(f"{row.name:36}{row.decision.value:12}{told}".rstrip())
    console.print(f"Written: {out}")
