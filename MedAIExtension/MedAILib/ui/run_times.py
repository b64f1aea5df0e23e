"""How long a run will take, learned from the last runs on this machine."""

from __future__ import annotations

import math
from statistics import median
from typing import Any, Protocol

from slicer.i18n import tr as _

KEPT_RUNS = 7


class Settings(Protocol):
    """What is used of QSettings."""

    def value(self, key: str) -> Any: ...

    def setValue(self, key: str, value: Any) -> None: ...


class RunTimes:
    """Seconds per amount of work, kept in the application's settings.

    Parameters
    ----------
    settings : QSettings
    feature : str
        Name of the feature; each has times of its own.
    """

    def __init__(self, settings: Settings, feature: str) -> None:
        self._settings = settings
        self._feature = feature

    def expected_s(self, way: str, amount: float = 1.0) -> float | None:
        """Median of the last runs in seconds, None before the first.

        Parameters
        ----------
        way : str
            What decides on the speed: method and device.
        amount : float
            Amount of work in any unit that is always the same for this feature, such as voxels.
        """
        rates = self._rates(way)
        return median(rates) * amount if rates else None

    def remember(self, way: str, seconds: float, amount: float = 1.0) -> None:
        """Note how long a run took."""
        rates = [*self._rates(way), seconds / max(amount, 1e-9)][-KEPT_RUNS:]
        self._settings.setValue(self._key(way), " ".join(f"{rate:.6g}" for rate in rates))

    def _key(self, way: str) -> str:
        return f"MedAI/RunTimes/{self._feature}/{way.replace('/', '_')}"

    def _rates(self, way: str) -> list[float]:
        """What is stored; entries that are no sensible numbers are left out."""
        rates = []
        for word in str(self._settings.value(self._key(way)) or "").split():
            try:
                rate = float(word)
            except ValueError:
                continue
            if math.isfinite(rate) and rate >= 0:
                rates.append(rate)
        return rates


def duration_text(seconds: float) -> str:
    """A duration as people say it: ``0.4 s``, ``12 s``, ``3 min``, ``2 h``."""
    if seconds < 9.5:
        return _("{count} s").format(count=f"{seconds:.1f}")
    if seconds < 90:
        return _("{count} s").format(count=round(seconds))
    if seconds < 90 * 60:
        return _("{count} min").format(count=round(seconds / 60))
    return _("{count} h").format(count=round(seconds / 3600))


def estimate_text(seconds: float) -> str:
    """A duration that is not known exactly: ``under 1 s``, ``about 12 s``."""
    if seconds < 1:
        return _("under 1 s")
    return _("about {time}").format(time=duration_text(seconds) if seconds >= 9.5 else f"{round(seconds)} s")
