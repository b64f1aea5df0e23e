"""`make test` tells the truth: what fails, crashes or is empty is never counted as passed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import suite
from suite import STAGES, Counts, Stage, count, run


def _stage(folder: Path, code: str) -> Stage:
    (folder / "test_of_the_suite.py").write_text(code, encoding="utf-8")
    report = folder / "report.xml"
    return Stage(
        "trial", (sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", str(folder), f"--junitxml={report}"), report
    )


@pytest.mark.parametrize(
    ("code", "succeeds", "expected"),
    [
        ("def test_a(): pass\n", True, Counts(passed=1)),
        (
            "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no data')\n",
            True,
            Counts(passed=1, skipped=1),
        ),
        ("def test_a(): pass\ndef test_b(): assert False\n", False, Counts(passed=1, failed=1)),
        ("import not_there\n", False, Counts(failed=1)),
        ("import os\ndef test_a(): os._exit(3)\n", False, Counts(failed=1)),
        ("import os\ndef test_a(): os.kill(os.getpid(), 9)\n", False, Counts(failed=1)),
        ("", False, Counts(failed=1)),
    ],
    ids=["passed", "skipped", "failed", "not importable", "ended early", "killed", "empty"],
)
def test_a_run_is_counted_as_what_it_was(tmp_path: Path, code: str, succeeds: bool, expected: Counts) -> None:
    stage = _stage(tmp_path, code)
    assert run(stage) is succeeds
    assert count(stage, succeeds) == expected


def test_a_stage_beside_the_others_is_told_at_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "REPORTS", tmp_path)
    slow = Stage("slow", (sys.executable, "-c", "print('said beside')"), beside=True)
    bad = Stage("bad", (sys.executable, "-c", "import sys; print('said too'); sys.exit(1)"), beside=True)
    monkeypatch.setattr(suite, "STAGES", (Stage("first", (sys.executable, "-c", "")), slow, bad))
    assert suite.main([]) == 1
    said = capsys.readouterr().out
    assert said.index("=== first: ok") < said.index("=== slow\nsaid beside") < said.index("=== slow: ok")
    assert "=== bad\nsaid too" in said and "failed stages: bad" in said


def test_a_report_of_an_earlier_run_is_not_counted_again(tmp_path: Path) -> None:
    passing = _stage(tmp_path, "def test_a(): pass\n")
    assert run(passing)
    crashing = _stage(tmp_path, "import os\nos._exit(3)\n")
    assert count(crashing, run(crashing)) == Counts(failed=1)


def test_the_closing_line_is_in_the_plain_form() -> None:
    assert str(Counts(7, 0, 2) + Counts(1, 1, 0)) == "8 passed, 1 failed, 2 skipped"


def test_every_folder_of_tests_is_a_stage(repository: Path) -> None:
    folders = {path.parent for path in (repository / "Testing").rglob("test_*.py")}
    names = {"-".join(folder.relative_to(repository / "Testing").parts) for folder in folders}
    assert names == {stage.name for stage in STAGES if stage.report}
