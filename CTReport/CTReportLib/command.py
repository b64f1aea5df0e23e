"""The command ``medai ct report``. Everything heavy is imported when it runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.cli.groups import command_group
from MedAILib.errors import Cancelled, ConfigError, Incomplete, MedAIError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from CTReportLib.request import ReportRequest, ReportResult
    from CTReportLib.source import Case
    from MedAILib.cli.console import Console
    from MedAILib.jobs.execute import Outcome
    from MedAILib.jobs.runner import Runner

DESCRIPTION = """\
Report a chest CT: findings with their evidence, where they are, and a structured report.

INPUT is a CT (NIfTI, NRRD, MetaImage), a DICOM folder, or a folder of such; of several each gets a folder in that of
--out, and --resume leaves out those that are done. What is not judged is listed as not judged. Findings are measured
by rule, without weights; segments of --mask that bear a finding's name count as evidence of it.

Exit status 0: done; 3: not complete, or some of several failed; other numbers: failed. Research use only."""


def add_commands(commands: Any) -> None:
    """Add ``ct`` to the sub-parsers of `argparse`."""
    group = command_group(commands, "ct", "findings and a report of a chest CT")
    parser = group.add_parser("report", help="measured findings, places and a report", description=DESCRIPTION)
    parser.add_argument("input", type=Path, metavar="INPUT", help="a CT, a DICOM folder, or a folder of them")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--engine", choices=("template",), default="template", help="what writes the report")
    parser.add_argument("--findings-only", action="store_true", help="the finding table without sentences")
    parser.add_argument("--mask", type=Path, metavar="LABELMAP", help="segments of INPUT that are known already")
    parser.add_argument(
        "--window", type=_window, metavar="LOW,HIGH", help="black and white of key images in HU, as --window=-160,240"
    )
    parser.add_argument("--name", help="start of file names (default: that of INPUT)")
    parser.add_argument("--resume", action="store_true", help="leave out cases that are done, with the same input")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--worker", action="store_true", help="run in a worker process, as Slicer's window does")
    parser.set_defaults(run=report)


def report(arguments: argparse.Namespace, console: Console) -> int | None:
    """``medai ct report``"""
    from CTReportLib.source import find_cases

    cases = find_cases(arguments.input)
    several = len(cases) > 1
    if several and (arguments.mask is not None or arguments.name):
        raise ConfigError(
            "--mask and --name are for one CT.", why=f"INPUT holds {len(cases)}.", todo="Name one of them."
        )
    with _runner(arguments) as runner:
        done = [_attempt(case, arguments, console, runner, several=several) for case in cases]
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


def _attempt(
    case: Case, arguments: argparse.Namespace, console: Console, runner: Runner, *, several: bool
) -> dict[str, Any]:
    """Report one case; of several a failure is told and the next one goes on."""
    try:
        return _case(case, arguments, console, runner, several=several)
    except Cancelled:
        raise
    except MedAIError as error:
        if not several:
            raise
        console.warn(f"{case.name}: {error.text} [{error.code}]")
        told = {"code": error.code, "what": error.what, "why": error.why, "todo": error.todo}
        return {"name": case.name, "error": {**told, "exit_status": error.exit_status}}


def _case(
    case: Case, arguments: argparse.Namespace, console: Console, runner: Runner, *, several: bool
) -> dict[str, Any]:
    from CTReportLib.exports import RUN_REPORT_FILE, safe_name, summary, summary_path, write_results
    from CTReportLib.source import fingerprint
    from CTReportLib.task import TASK

    name = safe_name(arguments.name or case.name)
    out = arguments.out / name if several else arguments.out
    sha256 = fingerprint(case)
    if arguments.resume:
        earlier = _finished(summary_path(name, out), sha256, arguments)
        if earlier is not None:
            console.remark(f"{case.name}: done already, left out.")
            return {**earlier, "out": str(out), "reused": True}
    request = _request(case, name, sha256, arguments)
    outcome: Outcome[ReportResult] = runner.run(TASK, request, console.progress)
    write_results(outcome.result, out)
    outcome.report.write(out / RUN_REPORT_FILE)
    _print(console, outcome.result, out)
    return {**summary(outcome.result), "run_id": outcome.report.run_id, "out": str(out)}


def _request(case: Case, name: str, sha256: str, arguments: argparse.Namespace) -> ReportRequest:
    from CTReportLib.request import ReportRequest
    from CTReportLib.source import read_case
    from MedAILib.imageio import read_label_map

    volume, modality = read_case(case)
    request = ReportRequest(
        volume=volume,
        masks=None if arguments.mask is None else read_label_map(arguments.mask),
        modality=modality,
        engine=arguments.engine,
        findings_only=arguments.findings_only,
        window_hu=arguments.window,
        name=name,
        input_sha256=sha256,
    )
    request.validate()
    return request


def _window(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no pair of numbers such as -160,240") from None
    return low, high


def _finished(path: Path, sha256: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The summary of an earlier run with the same input and options; None where there is none."""
    from MedAILib import __version__

    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        made = summary["provenance"]
        same = made["file_sha256"] == sha256 and made["engine"] == arguments.engine and made["medai"] == __version__
        same = same and bool(summary["report"]) != arguments.findings_only and arguments.mask is None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(summary) if same and summary.get("complete") else None


def _runner(arguments: argparse.Namespace) -> Runner:
    if arguments.worker:
        from MedAILib.jobs.worker_runner import WorkerRunner

        return WorkerRunner(threads=arguments.threads)
    from MedAILib.jobs.runner import InProcessRunner

    return InProcessRunner(threads=arguments.threads)


def _print(console: Console, result: ReportResult, out: Path) -> None:
    from CTReportLib.exports import report_text
    from CTReportLib.request import Decision

    for warning in result.warnings:
        console.warn(warning)
    if result.sections:
        console.print(report_text(result))
    else:
        for row in result.table:
            grounds = row.evidence if row.decision is Decision.NOT_JUDGED else row.place or row.side
            console.print(f"{row.name:36}{row.decision.value:12}{grounds}")
    console.print(f"Written: {out}")
