"""The numbers of a knee as tables: for people, and under the keys that the reference pipeline uses."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from KneeAnalysisLib.results import KneeResult
from KneeAnalysisLib.statistics import RegionStatistics
from KneeAnalysisLib.t2 import T2Statistics


@dataclass(frozen=True)
class Row:
    """A region with all that is known of it; not a number where a quantity was not measured.

    Attributes
    ----------
    key, region : str
    value : int
        Label value in sub-region maps; the region can be shown by it.
    mean_mm, sd_mm, median_mm, p5_mm, p95_mm : float
        Thickness, by area, denuded bone as zero.
    covered_mean_mm : float
        Where there is cartilage.
    two_surfaces_mean_mm : float
        By the reference pipeline's definition.
    area_mm2, denuded_percent, volume_mm3 : float
    t2_mean_ms, t2_sd_ms, t2_median_ms, t2_deep_ms, t2_superficial_ms : float
    """

    key: str
    region: str
    value: int
    mean_mm: float
    sd_mm: float
    median_mm: float
    p5_mm: float
    p95_mm: float
    covered_mean_mm: float
    two_surfaces_mean_mm: float
    area_mm2: float
    denuded_percent: float
    volume_mm3: float
    t2_mean_ms: float = math.nan
    t2_sd_ms: float = math.nan
    t2_median_ms: float = math.nan
    t2_deep_ms: float = math.nan
    t2_superficial_ms: float = math.nan


UNITS: Mapping[str, str] = {"mm": "mm", "mm2": "mm2", "mm3": "mm3", "ms": "ms", "percent": "%"}
"""By the last part of a field's name."""

HEADINGS: Mapping[str, str] = {
    "key": "Key",
    "region": "Region",
    "value": "Label",
    "mean_mm": "Thickness mean",
    "sd_mm": "SD",
    "median_mm": "Median",
    "p5_mm": "5th percentile",
    "p95_mm": "95th percentile",
    "covered_mean_mm": "Mean where covered",
    "two_surfaces_mean_mm": "Mean, two surfaces",
    "area_mm2": "Area",
    "denuded_percent": "Denuded",
    "volume_mm3": "Volume",
    "t2_mean_ms": "T2 mean",
    "t2_sd_ms": "T2 SD",
    "t2_median_ms": "T2 median",
    "t2_deep_ms": "T2 deep",
    "t2_superficial_ms": "T2 superficial",
}


def unit_of(field: str) -> str:
    """The unit of a field of `Row`; empty for none."""
    return UNITS.get(field.rpartition("_")[2], "")


def heading(field: str) -> str:
    """The title of a column, with its unit."""
    unit = unit_of(field)
    return f"{HEADINGS[field]} ({unit})" if unit else HEADINGS[field]


def rows(result: KneeResult) -> tuple[Row, ...]:
    """A row for every region that was measured, whole regions first, then finer ones."""
    if result.statistics is None:
        return ()
    t2 = {one.key: one for one in result.statistics.t2}
    return tuple(_row(one, t2) for one in (*result.statistics.thickness, *result.statistics.finer))


def upstream_values(result: KneeResult) -> dict[str, float | None]:
    """Values under the reference pipeline's keys, by its definition of thickness; None for not a number.

    ``{region}_mm_mean``, ``_std``, ``_median`` and ``{region}_t2_ms_mean``, ``_std``, ``_median``, the latter also
    with ``_deep`` and ``_superficial`` after the region.
    """
    found: dict[str, float | None] = {}
    if result.statistics is None:
        return found
    for one in result.statistics.thickness:
        found[f"{one.key}_mm_mean"] = _number(one.two_surfaces_mean_mm)
        found[f"{one.key}_mm_std"] = _number(one.two_surfaces_sd_mm)
        found[f"{one.key}_mm_median"] = _number(one.two_surfaces_median_mm)
    for two in result.statistics.t2:
        found[f"{two.key}_t2_ms_mean"] = _number(two.mean_ms)
        found[f"{two.key}_t2_ms_std"] = _number(two.std_ms)
        found[f"{two.key}_t2_ms_median"] = _number(two.median_ms)
    return found


def csv_text(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table as CSV; numbers with full precision, nothing where there is no number."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if _number(cell) is None else cell for cell in line] for line in lines])
    return text.getvalue()


def _row(one: RegionStatistics, t2: Mapping[str, T2Statistics]) -> Row:
    whole = t2.get(one.key)
    deep, superficial = (t2.get(f"{one.key}_{half}") for half in ("deep", "superficial"))
    return Row(
        key=one.key,
        region=one.region.title,
        value=int(one.region.value),
        mean_mm=one.mean_mm,
        sd_mm=one.sd_mm,
        median_mm=one.median_mm,
        p5_mm=one.p5_mm,
        p95_mm=one.p95_mm,
        covered_mean_mm=one.covered_mean_mm,
        two_surfaces_mean_mm=one.two_surfaces_mean_mm,
        area_mm2=one.area_mm2,
        denuded_percent=one.denuded_percent,
        volume_mm3=one.volume_mm3,
        t2_mean_ms=math.nan if whole is None else whole.mean_ms,
        t2_sd_ms=math.nan if whole is None else whole.std_ms,
        t2_median_ms=math.nan if whole is None else whole.median_ms,
        t2_deep_ms=math.nan if deep is None else deep.mean_ms,
        t2_superficial_ms=math.nan if superficial is None else superficial.mean_ms,
    )


def _number(value: Any) -> Any:
    """The value, None for a float that is not a finite number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
