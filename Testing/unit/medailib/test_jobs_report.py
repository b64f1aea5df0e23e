"""The report of a run, and what it is made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import numpy as np
import pytest

from MedAILib import __version__
from MedAILib.errors import OutputError
from MedAILib.jobs.report import RunReport, input_facts, loaded_versions, now_utc


class Side(Enum):
    LEFT = "l"


@dataclass(frozen=True, eq=False)
class Inner:
    array: np.ndarray
    path: Path


@dataclass(frozen=True, eq=False)
class Outer:
    inner: tuple[Inner, ...]
    side: Side
    number: float
    many: tuple[int, ...] = ()
    table: dict[str, float] | None = None


def _report(**changes: object) -> RunReport:
    values: dict[str, object] = {
        "run_id": "abc",
        "task": "x:Y",
        "started_utc": now_utc(),
        "seconds": 1.5,
        "stages": {"Lesen ü漢": 1.0},
        "peak_memory_mb": 100,
        "device": "cpu",
        "threads": 1,
        "versions": loaded_versions(),
        **changes,
    }
    return RunReport(**values)  # type: ignore[arg-type]


def test_a_report_is_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "mit Raum ü漢" / "run_report.json"
    path.parent.mkdir()
    path.write_text("old", encoding="ascii")
    _report(warnings=("Vorsicht",)).write(path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["stages"] == {"Lesen ü漢": 1.0}
    assert found["warnings"] == ["Vorsicht"]
    assert found["weights"] == []
    assert found["versions"]["medai"] == __version__
    assert [file.name for file in path.parent.iterdir()] == ["run_report.json"]


def test_a_file_name_that_is_no_unicode_does_not_spoil_the_report(tmp_path: Path) -> None:
    path = tmp_path / "run_report.json"
    _report(inputs={"file": "caf\udce9.nii"}).write(path)
    assert json.loads(path.read_text(encoding="utf-8"))["inputs"]["file"] == "caf\udce9.nii"


def test_a_report_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        _report().write(tmp_path / "nowhere" / "run_report.json")


def test_input_facts_have_shapes_in_place_of_large_arrays() -> None:
    inner = Inner(np.zeros((20, 30), dtype=np.int16), Path("a b"))
    facts = input_facts(Outer((inner,), Side.LEFT, float("nan"), tuple(range(25)), {"x": 1.0}))
    assert facts == {
        "inner": [{"array": "int16 20 x 30", "path": "a b"}],
        "side": "LEFT",
        "number": "nan",
        "many": [*range(20), "... 5 more"],
        "table": {"x": 1.0},
    }
    json.dumps(facts, allow_nan=False)


def test_input_facts_write_small_arrays_out() -> None:
    assert input_facts(np.diag([1.0, np.inf])) == [[1.0, 0.0], [0.0, "inf"]]
    assert input_facts(np.array(3)) == 3
    assert input_facts(np.zeros((0, 4))) == []


def test_versions_name_only_what_is_loaded() -> None:
    versions = loaded_versions()
    assert versions["numpy"] == np.__version__
    assert "tensorflow" not in versions


def test_the_time_is_utc() -> None:
    assert abs((datetime.now(UTC) - datetime.fromisoformat(now_utc())).total_seconds()) < 5
