"""What each step of an analysis answers, and all of it together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from KneeAnalysisLib.labels import REGIONS, Region, Tissue
from KneeAnalysisLib.meshes import SurfaceMesh
from KneeAnalysisLib.segmentation import UsedFile
from KneeAnalysisLib.statistics import RegionStatistics
from KneeAnalysisLib.subregions import region_label_map
from KneeAnalysisLib.t2 import T2Map, T2Statistics
from KneeAnalysisLib.thickness import BoneThickness
from MedAILib.volume import LabelMap

RESEARCH_USE = "For research use only. Not a medical device."


@dataclass(frozen=True, eq=False)
class Segmented:
    """The tissues.

    Attributes
    ----------
    labels : LabelMap
        Canonical label values, one layer of uint8, on the grid of the input.
    side : str
        ``left``, ``right``, or empty where nothing tells.
    engine : str
        ``none`` for a label map that was there.
    weights : tuple of UsedFile
    device : str
    notes : tuple of str
    """

    labels: LabelMap
    side: str
    engine: str = "none"
    weights: tuple[UsedFile, ...] = ()
    device: str = "cpu"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class TissueSurface:
    """The surface of one tissue, RAS mm."""

    tissue: Tissue
    mesh: SurfaceMesh


@dataclass(frozen=True, eq=False)
class Surfaces:
    """The surfaces of a knee.

    Attributes
    ----------
    bones, cartilages : tuple of TissueSurface
    notes : tuple of str
        Tissues too thin for a surface.
    """

    bones: tuple[TissueSurface, ...]
    cartilages: tuple[TissueSurface, ...]
    notes: tuple[str, ...] = ()

    def of(self, tissue: Tissue) -> SurfaceMesh | None:
        """The surface of a tissue; None where it has none."""
        return next((s.mesh for s in (*self.bones, *self.cartilages) if s.tissue is tissue), None)


@dataclass(frozen=True, eq=False)
class Thickness:
    """Thickness on every measurable bone, without regions."""

    bones: tuple[BoneThickness, ...]


@dataclass(frozen=True, eq=False)
class Divided:
    """The sub-regions.

    Attributes
    ----------
    labels : ndarray or None, shape (k, j, i), uint8
        On the knee's canonical grid; None where they could not be made.
    finer : ndarray or None
        The same with finer regions, where asked for.
    tilt_deg : float or None
        How far the femur's own axes are turned from the scanner's.
    notes : tuple of str
    """

    labels: np.ndarray | None
    finer: np.ndarray | None = None
    tilt_deg: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class T2Found:
    """The T2 map and the halves of the cartilages.

    Attributes
    ----------
    map : T2Map or None
        None where no echoes were given.
    depth : ndarray or None, shape (k, j, i), uint8
        On the knee's canonical grid: 100 in the deep, 200 in the superficial half of cartilage, 0 elsewhere.
    notes : tuple of str
    """

    map: T2Map | None
    depth: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Statistics:
    """The numbers.

    Attributes
    ----------
    thickness : tuple of RegionStatistics
    finer : tuple of RegionStatistics
    t2 : tuple of T2Statistics
        Of regions and of their deep and superficial halves.
    point_labels : tuple of ndarray
        Region of every point of each bone of `Thickness.bones`: (N,), uint8.
    tissue_volumes_mm3 : mapping of str to float
        By tissue key.
    """

    thickness: tuple[RegionStatistics, ...]
    finer: tuple[RegionStatistics, ...] = ()
    t2: tuple[T2Statistics, ...] = ()
    point_labels: tuple[np.ndarray, ...] = ()
    tissue_volumes_mm3: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Report:
    """What the report step made.

    Attributes
    ----------
    titles : tuple of str
        Of the pictures.
    pictures : tuple of ndarray, shape (bytes,), uint8
        PNG files.
    no_pictures : str
        Why there are none; empty where there are.
    """

    titles: tuple[str, ...] = ()
    pictures: tuple[np.ndarray, ...] = ()
    no_pictures: str = ""


@dataclass(frozen=True)
class StepRecord:
    """One step of a run.

    Attributes
    ----------
    step : str
    seconds : float
        That it took when it was computed.
    reused : bool
        Taken from an earlier run.
    skipped : str
        Why it was left out; empty where it was not.
    """

    step: str
    seconds: float = 0.0
    reused: bool = False
    skipped: str = ""


@dataclass(frozen=True, eq=False)
class KneeResult:
    """All that an analysis found.

    Attributes
    ----------
    name : str
    segmented : Segmented
    regions : LabelMap or None
        Tissues with the femoral cartilage split, on the grid of the input.
    finer_regions : LabelMap or None
    depth : LabelMap or None
        Regions with 100 (deep) or 200 (superficial) added, on the grid of the input.
    surfaces : Surfaces or None
    bones : tuple of BoneThickness
        With regions.
    t2 : T2Map or None
    statistics : Statistics or None
    report : Report or None
    missing : tuple of Tissue
        Tissues of a complete knee that this one lacks.
    notes : tuple of str
    steps : tuple of StepRecord
    out : Path or None
    """

    name: str
    segmented: Segmented
    regions: LabelMap | None = None
    finer_regions: LabelMap | None = None
    depth: LabelMap | None = None
    surfaces: Surfaces | None = None
    bones: tuple[BoneThickness, ...] = ()
    t2: T2Map | None = None
    statistics: Statistics | None = None
    report: Report | None = None
    missing: tuple[Tissue, ...] = ()
    notes: tuple[str, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    out: Path | None = None

    @property
    def side(self) -> str:
        return self.segmented.side

    @property
    def missing_regions(self) -> tuple[Region, ...]:
        """Regions of the table that have no row."""
        found = {row.key for row in self.statistics.thickness} if self.statistics else set()
        return tuple(region for region in REGIONS if region.key not in found)


def named_regions(labels: np.ndarray, label_map: LabelMap) -> LabelMap:
    """A label array with the names of tissues and regions on the grid of a label map of the same shape."""
    return region_label_map(labels, label_map.geometry, name=label_map.name)
