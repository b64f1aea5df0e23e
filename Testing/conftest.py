"""What all tests share: where the shared data is, and how much hypothesis tries."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]

settings.register_profile(
    "medai",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("medai")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """A function from a path below the shared data to the file or folder; it skips the test where that is absent."""
    root = Path(os.environ.get("MEDAI_TEST_DATA") or REPOSITORY.parent / "shared" / "data")

    def find(relative: str) -> Path:
        path = root / relative
        if not path.exists():
            pytest.skip(f"the shared data has no {relative} (set MEDAI_TEST_DATA to its folder)")
        return path

    return find


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return REPOSITORY
