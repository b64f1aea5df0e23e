"""Times learned from runs, and how they are said."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def times(host: Any) -> Any:
    import slicer

    from MedAILib.ui.run_times import RunTimes

    return RunTimes(slicer.app.settings(), "Feature")


def test_nothing_is_expected_before_the_first_run(times: Any) -> None:
    assert times.expected_s("geometry, CPU") is None


def test_the_median_of_the_last_runs_is_expected_for_the_amount_of_work(times: Any) -> None:
    for seconds in (2.0, 4.0, 60.0):
        times.remember("geometry, CPU", seconds, amount=2.0)
    assert times.expected_s("geometry, CPU", amount=10.0) == pytest.approx(20.0)
    assert times.expected_s("network, CPU") is None


def test_old_runs_are_forgotten(times: Any) -> None:
    for seconds in [100.0] * 10 + [1.0] * 7:
        times.remember("way", seconds)
    assert times.expected_s("way") == pytest.approx(1.0)


def test_a_setting_that_somebody_spoilt_is_ignored(times: Any) -> None:
    import slicer

    times.remember("way", 3.0)
    key = slicer.app.settings().allKeys()[0]
    slicer.app.settings().setValue(key, "nan -1 nonsense 5")
    assert times.expected_s("way") == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("seconds", "exact", "estimate"),
    [
        (0.4, "0.4 s", "under 1 s"),
        (3.2, "3.2 s", "about 3 s"),
        (12.4, "12 s", "about 12 s"),
        (200.0, "3 min", "about 3 min"),
        (7200.0, "2 h", "about 2 h"),
    ],
)
def test_durations_are_said_as_people_say_them(host: Any, seconds: float, exact: str, estimate: str) -> None:
    from MedAILib.ui.run_times import duration_text, estimate_text

    assert (duration_text(seconds), estimate_text(seconds)) == (exact, estimate)
