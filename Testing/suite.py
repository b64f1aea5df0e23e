"""Runs every check of the repository, one process each, and closes with one line that sums up the tests.

Usage: ``python suite.py [stage ...]``; without arguments all stages, in the order of `STAGES`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parents[1]
REPORTS = REPOSITORY / "build" / "test-reports"
STAGE_LIMIT_S = 1800


@dataclass(frozen=True)
class Stage:
    """One check.

    Attributes
    ----------
    name : str
    command : tuple of str
        Fails with a non-zero exit status.
    report : Path or None
        Where it is a run of pytest: the JUnit XML file that it writes.
    beside : bool
        Long, and of one thread: runs beside the others from the start; what it printed comes at its turn.
    """

    name: str
    command: tuple[str, ...]
    report: Path | None = None
    beside: bool = False


@dataclass(frozen=True)
class Counts:
    """Tests by outcome; an error in a fixture or at collection is a failure."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def tests_in(folder: Path, *, beside: bool = False) -> Stage:
    """The stage that runs pytest on a folder, named after its place: ``unit-knee``."""
    name = "-".join(folder.parts[1:])
    report = REPORTS / f"{name}.xml"
    return Stage(name, (sys.executable, "-m", "pytest", str(folder), f"--junitxml={report}"), report, beside)


STAGES = (
    Stage("ruff", (sys.executable, "-m", "ruff", "check", ".")),
    Stage("format", (sys.executable, "-m", "ruff", "format", "--check", ".")),
    Stage("mypy", (sys.executable, "-m", "mypy")),
    Stage("imports", (str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache")),
    *(tests_in(Path("Testing/unit") / library) for library in ("medailib", "mem3d", "knee", "router", "ct")),
    tests_in(Path("Testing/mrml")),
    tests_in(Path("Testing/widgets")),
    tests_in(Path("Testing/package")),
    tests_in(Path("Testing/training"), beside=True),
)


def main(names: list[str]) -> int:
    """Run the stages of those names, or all; returns 1 where any failed."""
    unknown = set(names) - {stage.name for stage in STAGES}
    if unknown:
        print(f"No such stage: {', '.join(sorted(unknown))}. The stages are: {', '.join(s.name for s in STAGES)}.")
        return 2
    total, failed = Counts(), []
    stages = [stage for stage in STAGES if not names or stage.name in names]
    with ThreadPoolExecutor() as pool:
        beside = {stage.name: pool.submit(beside_others, stage) for stage in stages if stage.beside and len(stages) > 1}
        for stage in stages:
            print(f"\n=== {stage.name}", flush=True)
            succeeded, seconds = result(stage, beside.get(stage.name))
            counts = count(stage, succeeded)
            total += counts
            if not succeeded or counts.failed:
                failed.append(stage.name)
            print(f"=== {stage.name}: {'ok' if succeeded else 'FAILED'} in {seconds:.0f} s", flush=True)
    print(f"\nfailed stages: {', '.join(failed)}" if failed else "\nall stages succeeded")
    print(total, flush=True)
    return 1 if failed else 0


def result(stage: Stage, begun: Future[tuple[bool, float]] | None) -> tuple[bool, float]:
    """Whether a stage succeeded, and its seconds; of one that was begun beside others, with what it printed."""
    if begun is None:
        return timed(stage)
    found = begun.result()
    print(printed(stage).read_text(encoding="utf-8", errors="replace"), flush=True)
    return found


def beside_others(stage: Stage) -> tuple[bool, float]:
    """As `timed`; prints into a file."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    with printed(stage).open("wb") as out:
        return timed(stage, out)


def timed(stage: Stage, out: IO[bytes] | None = None) -> tuple[bool, float]:
    """Run one stage; whether it succeeded, and its seconds."""
    started = time.monotonic()
    return run(stage, out), time.monotonic() - started


def printed(stage: Stage) -> Path:
    """Where a stage that runs beside others prints to."""
    return REPORTS / f"{stage.name}.txt"


def run(stage: Stage, out: IO[bytes] | None = None) -> bool:
    """Run one stage to its end; False where it failed or took longer than a stage may."""
    if stage.report:
        stage.report.parent.mkdir(parents=True, exist_ok=True)
        stage.report.unlink(missing_ok=True)
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    error = None if out is None else subprocess.STDOUT
    try:
        done = subprocess.run(
            stage.command,
            cwd=REPOSITORY,
            env=environment,
            check=False,
            timeout=STAGE_LIMIT_S,
            stdout=out,
            stderr=error,
        )
    except subprocess.TimeoutExpired:
        print(f"{stage.name} was ended: it took more than {STAGE_LIMIT_S} s.")
        return False
    if done.returncode < 0:
        print(f"{stage.name} was ended by signal {-done.returncode}.")
    return done.returncode == 0


def count(stage: Stage, succeeded: bool) -> Counts:
    """What pytest reported; a run that failed without naming a failed test (a crash, no test found) counts as one."""
    if stage.report is None:
        return Counts()
    found = Counts()
    if stage.report.exists():
        for suite in ElementTree.parse(stage.report).getroot().iter("testsuite"):
            tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            found += Counts(tests - failed - skipped, failed, skipped)
    return found if succeeded or found.failed else found + Counts(failed=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
