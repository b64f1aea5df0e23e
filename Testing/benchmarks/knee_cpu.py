"""CPU seconds of ``medai knee analyze`` on a real label map, by stage, against the reference pipeline's.

python Testing/benchmarks/knee_cpu.py            # half a minute of one core

Every run is a fresh process, as at the command line, one thread, all files and the archive written. The reference's
seconds are those stored with its results (`ref_0.1.22.json`, measured on the same kind of machine): surfaces, their
repair, thickness, regions of points and sub-regions. Its start (11 s), reading, writing, tables and pictures are not
among them; ours are in the whole, and left out of the like for like.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import process_time

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MEDAI_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
FOLDERS = ("MedAIExtension", "KneeAnalysis", "Mem3DPropagate", "MedMNISTRouter")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
REPORT_FREE = "segment,meshes,thickness,subregions,statistics"
GEOMETRY = ("Surfaces", "Thickness", "Sub-regions", "Statistics")
"""Stages that do what the reference's stored seconds cover."""


def reference_cpu_s() -> float:
    """CPU seconds of the reference's steps: sub-regions and, of each bone, all but saving."""
    text = (DATA / "knee_reference" / "ref_0.1.22.json").read_text(encoding="utf-8")
    times = json.loads(text)["times_wall_cpu_s"]
    return sum(cpu for name, (_, cpu) in times.items() if not name.endswith((".total", ".save")))


def options(out: Path, steps: str) -> list[str]:
    """The arguments of the command."""
    knee = DATA / "knee"
    given = [str(knee / "SAG_3D_DESS_RIGHT_label.nrrd"), "--labels", str(knee / "dess_labels.json")]
    return ["knee", "analyze", *given, "--model", "none", "--out", str(out), *(["--steps", steps] if steps else [])]


def command_cpu_s(steps: str) -> float:
    """User and system seconds of the command as a process, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "MedAILib.cli", *options(Path(folder), steps)]
        subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment() -> dict[str, str]:
    path = os.pathsep.join(str(REPOSITORY / folder) for folder in FOLDERS)
    return {**os.environ, "PYTHONPATH": path, **dict.fromkeys(THREADS, "1")}


def stages(steps: str) -> None:
    """Run the command's parts in this process and print the CPU seconds of each stage as JSON."""
    from KneeAnalysisLib.command import TASK, add_commands, request_from
    from KneeAnalysisLib.exports import finish_output
    from MedAILib.jobs.runner import InProcessRunner

    laps: list[tuple[str, float]] = []

    def listen(progress) -> None:
        if not laps or laps[-1][0] != progress.stage:
            laps.append((progress.stage, process_time()))

    with tempfile.TemporaryDirectory() as folder:
        parser = argparse.ArgumentParser()
        add_commands(parser.add_subparsers())
        arguments = parser.parse_args(options(Path(folder), steps))
        outcome = InProcessRunner("cpu", 1).run(TASK, request_from(arguments), listen)
        laps.append(("Archive", process_time()))
        finish_output(outcome, arguments.out)
        laps.append(("", process_time()))
    starts = [("Start and reading", 0.0), *laps]
    found: dict[str, float] = {}
    for (name, begin), (_, end) in pairwise(starts):
        found[name] = found.get(name, 0.0) + end - begin
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--stages", metavar="STEPS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stages is not None:
        stages(arguments.stages)
        return
    theirs = reference_cpu_s()
    print(f"the reference's steps: {theirs:.1f} CPU s")
    for title, steps in (("everything, with report and pictures", ""), ("without report", REPORT_FREE)):
        whole = median(command_cpu_s(steps) for _ in range(arguments.runs))
        print(f"{title}: {whole:.2f} CPU s, {theirs / whole:.1f} times fewer")
    command = [sys.executable, __file__, "--stages", ""]
    answers = [
        json.loads(subprocess.run(command, env=environment(), check=True, capture_output=True, text=True).stdout)
        for _ in range(arguments.runs)
    ]
    seconds = {name: median(answer[name] for answer in answers) for name in answers[0]}
    for name, value in seconds.items():
        print(f"  {name:20s} {value:6.2f}")
    alike = sum(seconds[name] for name in GEOMETRY)
    print(f"like for like ({', '.join(GEOMETRY).lower()}): {alike:.2f} CPU s, {theirs / alike:.0f} times fewer")


if __name__ == "__main__":
    main()
