"""The benchmarks are at hand here: the test runs what the benchmark prints. And it may take longer than other tests."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))


@pytest.fixture(scope="module", autouse=True)
def no_limit_for_hanging_tests() -> None:
    """Training takes minutes on a busy machine; the suite's own limit for the stage stays."""
    faulthandler.cancel_dump_traceback_later()
