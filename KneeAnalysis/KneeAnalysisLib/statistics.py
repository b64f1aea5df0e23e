"""Cartilage thickness by region: weighted by area, denuded bone counted as zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from KneeAnalysisLib.coverage import region_block
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import REGIONS, Region
from KneeAnalysisLib.thickness import BoneThickness


@dataclass(frozen=True)
class RegionStatistics:
    """Thickness of one region, every point of the bone's surface weighted by its area.

    Attributes
    ----------
    region : Region
    mean_mm, sd_mm, median_mm, p5_mm, p95_mm : float
        Over the region, denuded bone as zero.
    covered_mean_mm : float
        Over the covered part alone.
    two_surfaces_mean_mm, two_surfaces_sd_mm, two_surfaces_median_mm : float
        By the reference pipeline's definition of thickness, over points where it finds any.
    area_mm2 : float
        Of the bone's surface in the region, covered or denuded.
    denuded_percent : float
        Share of that area.
    volume_mm3 : float
        Of the cartilage, by its voxels.
    points : int
        Points of the surface in the region.
    """

    region: Region
    mean_mm: float
    sd_mm: float
    median_mm: float
    p5_mm: float
    p95_mm: float
    covered_mean_mm: float
    two_surfaces_mean_mm: float
    two_surfaces_sd_mm: float
    two_surfaces_median_mm: float
    area_mm2: float
    denuded_percent: float
    volume_mm3: float
    points: int

    @property
    def key(self) -> str:
        return self.region.key


def region_statistics(
    measured: Sequence[BoneThickness],
    knee: Knee,
    regions: np.ndarray | None = None,
    wanted: Sequence[Region] = REGIONS,
) -> tuple[RegionStatistics, ...]:
    """One row for every wanted region that is there, in their order.

    Parameters
    ----------
    measured : sequence of BoneThickness
    knee : Knee
    regions : ndarray, shape of ``knee.labels``, optional
        The sub-regions given to `measure_thickness`, for the volumes.
    wanted : sequence of Region
    """
    of_bone = {result.bone: result for result in measured}
    voxel_mm3 = float(abs(np.linalg.det(knee.geometry.ijk_to_ras[:3, :3])))
    voxels = {bone: region_block(knee, bone, regions).counts for bone in of_bone}
    rows = []
    for region in wanted:
        if region.bone not in of_bone:
            continue
        volume = voxel_mm3 * sum(voxels[region.bone][member] for member in region.members)
        row = _row(region, of_bone[region.bone], float(volume))
        if row:
            rows.append(row)
    return tuple(rows)


def weighted_percentiles(values: np.ndarray, weights: np.ndarray, percents: Sequence[float]) -> np.ndarray:
    """Percentiles of values that count by their weights, linear between the middles of their shares."""
    order = np.lexsort((weights, values))
    values, weights = values[order], weights[order]
    middles = (np.cumsum(weights) - weights / 2) / weights.sum()
    return np.interp(np.asarray(percents) / 100, middles, values)


def _row(region: Region, result: BoneThickness, volume_mm3: float) -> RegionStatistics | None:
    here = np.isin(result.labels, region.members)
    areas = result.mesh.point_areas_mm2[here]
    if areas.sum() <= 0:
        return None
    thickness = result.thickness_mm[here].astype(np.float64)
    two = result.two_surfaces_mm[here].astype(np.float64)
    mean, sd = _mean_and_sd(thickness, areas)
    low, median, high = weighted_percentiles(thickness, areas, (5, 50, 95))
    bare, found = thickness == 0, two > 0
    two_mean, two_sd = _mean_and_sd(two[found], areas[found])
    return RegionStatistics(
        region=region,
        mean_mm=mean,
        sd_mm=sd,
        median_mm=float(median),
        p5_mm=float(low),
        p95_mm=float(high),
        covered_mean_mm=_mean_and_sd(thickness[~bare], areas[~bare])[0],
        two_surfaces_mean_mm=two_mean,
        two_surfaces_sd_mm=two_sd,
        two_surfaces_median_mm=float(weighted_percentiles(two[found], areas[found], (50,))[0]) if found.any() else 0.0,
        area_mm2=float(areas.sum()),
        denuded_percent=float(100 * areas[bare].sum() / areas.sum()),
        volume_mm3=volume_mm3,
        points=int(here.sum()),
    )


def _mean_and_sd(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    total = weights.sum()
    if total <= 0:
        return 0.0, 0.0
    mean = float((values * weights).sum() / total)
    return mean, float(np.sqrt((weights * (values - mean) ** 2).sum() / total))
