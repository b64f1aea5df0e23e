"""Sub-regions of the knee's cartilages, in the femur's own axes.

The femoral cartilage is cut by planes: at the front of the intercondylar notch into trochlea (anterior) and condyles,
at 60 % of the way from there to the posterior end into weight-bearing and posterior parts, and through the notch into
medial and lateral. The 60 % are those of the reference pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from KneeAnalysisLib.frame import Frame, femoral_frame, femur_template, patient_frame, voxel_points_ras_mm
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import REGIONS, Region, Tissue, label_counts
from MedAILib.grids import bounding_box
from MedAILib.volume import Geometry, LabelMap, SegmentInfo

ANTERIOR, MEDIAL_WEIGHT_BEARING, LATERAL_WEIGHT_BEARING, MEDIAL_POSTERIOR, LATERAL_POSTERIOR = 11, 12, 13, 14, 15

WEIGHT_BEARING_SHARE = 0.6
"""Of the way from notch to posterior end."""

_CELL_MM = 0.25
"""Side of the cells of the cartilage's axial projection."""
_COLUMN_WIDTH = 1.0
"""SD of a sagittal column, in longest voxel sides: no gap is left between slices."""
_EDGE_AREA_MM2 = 1.0
"""The posterior edge of a sagittal column is where so much cartilage lies behind: unlike the last voxel it does not
depend on how the voxels happen to lie."""
_FRONT_MM = 3.0
"""Width of the front of the notch over which its place is averaged."""
_END_SHARE = 0.0005
"""Share of the voxels that may lie behind the posterior end: strays."""
_MIDDLE = 0.25
"""The notch is within so much of the cartilage's width of its middle."""
_GAP_DEPTHS_MM = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
"""Behind the notch, where the gap between the condyles is measured for its middle."""
_BELIEVED_MM = 10.0
"""What is farther from where the template has it, at this femur's size, is not believed."""
_HIGH_SHARE = 0.33
"""A condyle's cartilage above its mean by so much of the way to its top is not weight-bearing."""


@dataclass(frozen=True)
class FemoralCuts:
    """Where the femoral cartilage is cut, in mm in the femur's frame.

    Attributes
    ----------
    notch_mm : float
        y of the front of the intercondylar notch.
    weight_bearing_end_mm : float
        y of the border to the posterior regions.
    posterior_end_mm : float
        y of the posterior end of the condyles' cartilage.
    middle_mm : float
        x of the border between medial and lateral.
    notes : tuple of str
        Where the template had to help out.
    """

    notch_mm: float
    weight_bearing_end_mm: float
    posterior_end_mm: float
    middle_mm: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SubRegions:
    """A knee with its femoral cartilage split.

    Attributes
    ----------
    labels : ndarray, shape (k, j, i), uint8
        On the knee's grid: tissues in canonical values, femoral cartilage as 11..15; read-only.
    geometry : Geometry
    frame : Frame or None
        The femur's axes; None where there is no femoral cartilage.
    cuts : FemoralCuts or None
    notes : tuple of str
    """

    labels: np.ndarray
    geometry: Geometry
    frame: Frame | None
    cuts: FemoralCuts | None
    notes: tuple[str, ...] = ()

    def label_map(self, name: str = "") -> LabelMap:
        """The sub-regions with their names and colours, in canonical orientation."""
        return region_label_map(self.labels, self.geometry, name=name)


def subregions(knee: Knee, frame: Frame | None = None) -> SubRegions:
    """Split the cartilages of a knee into the regions of `KneeAnalysisLib.labels.REGIONS`.

    Parameters
    ----------
    knee : Knee
        Tissues may be missing; the regions of those that are there are made.
    frame : Frame, optional
        The femur's axes; found where not given.

    Raises
    ------
    InputError
        There is femoral cartilage, and the side of the knee is not known.
    """
    labels = knee.labels.copy()
    notes = list(_mend_tibial_sides(knee, labels))
    cartilage = knee.mask(Tissue.FEMORAL_CARTILAGE)
    if not cartilage.any():
        labels.setflags(write=False)
        return SubRegions(labels, knee.geometry, None, None, tuple(notes))
    trusted = frame is not None or Tissue.FEMUR in knee.present
    if frame is None:
        frame = femoral_frame(knee) if trusted else patient_frame(knee)
    if not trusted:
        notes.append("There is no femur: its regions follow the patient axes, not the femur's own.")
    points_mm = frame.coordinates_mm(voxel_points_ras_mm(cartilage, knee.geometry))
    cuts = femoral_cuts(points_mm, frame.scale if trusted else None, knee.geometry.spacing_kji_mm)
    labels[cartilage] = femoral_region_values(points_mm, cuts)
    labels.setflags(write=False)
    return SubRegions(labels, knee.geometry, frame, cuts, (*notes, *frame.notes, *cuts.notes))


def femoral_cuts(points_mm: np.ndarray, scale: float | None, spacing_mm: Sequence[float]) -> FemoralCuts:
    """Find where to cut the femoral cartilage.

    Parameters
    ----------
    points_mm : ndarray, shape (n, 3)
        The cartilage's voxels in the femur's frame.
    scale : float or None
        The femur's size relative to the template, which has its notch at the origin. A notch or a posterior end far
        from there (a cut femur, large defects) is replaced by the template's. None: the template says nothing.
    spacing_mm : sequence of three floats
        Sides of the voxels, in any order.
    """
    posterior_mm = float(np.quantile(points_mm[:, 1], _END_SHARE) - np.median(spacing_mm) / 2.0)
    notch_mm, middle_mm = _notch(points_mm, scale, spacing_mm)
    notes = []
    if scale is not None:
        if abs(notch_mm) > _BELIEVED_MM * scale or abs(middle_mm) > _BELIEVED_MM * scale:
            notch_mm, middle_mm = 0.0, 0.0
            notes.append("The intercondylar notch is not visible in the femoral cartilage; the template's is used.")
        expected_mm = femur_template().posterior_mm * scale
        if abs(posterior_mm - expected_mm) > _BELIEVED_MM * scale:
            posterior_mm = expected_mm
            notes.append("The femoral cartilage ends elsewhere than expected; the template's posterior end is used.")
    end_mm = notch_mm + WEIGHT_BEARING_SHARE * (posterior_mm - notch_mm)
    return FemoralCuts(notch_mm, end_mm, posterior_mm, middle_mm, tuple(notes))


def femoral_region_values(points_mm: np.ndarray, cuts: FemoralCuts) -> np.ndarray:
    """The region 11..15 of points in the femur's frame: shape (n,), uint8."""
    x, y, z = points_mm.T
    lateral = x > cuts.middle_mm
    condyle = y < cuts.notch_mm
    posterior = condyle & (y < cuts.weight_bearing_end_mm)
    for side in (lateral, ~lateral):
        own = condyle & side
        if own.any():
            mean, top = z[own].mean(), z[own].max()
            posterior |= own & (z > mean + _HIGH_SHARE * (top - mean))
    values = np.where(lateral, LATERAL_WEIGHT_BEARING, MEDIAL_WEIGHT_BEARING)
    values = np.where(posterior, np.where(lateral, LATERAL_POSTERIOR, MEDIAL_POSTERIOR), values)
    return np.where(condyle, values, ANTERIOR).astype(np.uint8)


def region_label_map(
    labels: np.ndarray, geometry: Geometry, regions: tuple[Region, ...] = REGIONS, name: str = ""
) -> LabelMap:
    """A label map of tissues and regions with names and colours.

    Parameters
    ----------
    labels : ndarray, shape (k, j, i), uint8
    geometry : Geometry
    regions : tuple of Region
        Those whose value is no tissue's.
    name : str
    """
    values = set(np.flatnonzero(label_counts(labels)).tolist())
    tissues = {
        int(tissue): SegmentInfo(tissue.key, tissue.title, int(tissue), 0, tissue.color_rgb) for tissue in Tissue
    }
    own = {
        region.value: SegmentInfo(region.key, region.title, region.value, 0, _region_color(region.value))
        for region in regions
        if region.value not in tissues
    }
    known = tissues | own
    return LabelMap(
        (labels,), geometry.ijk_to_ras, tuple(known[value] for value in sorted(values) if value in known), name
    )


def _notch(points_mm: np.ndarray, scale: float | None, spacing_mm: Sequence[float]) -> tuple[float, float]:
    """y of the front of the notch and x of its middle, in the cartilage's projection along z.

    It is looked for about the template's notch, or about the cartilage's middle where there is no template.
    """
    centres, edge = _posterior_edge(points_mm[:, 0], points_mm[:, 1], spacing_mm)
    if scale is None:
        low, high = np.quantile(points_mm[:, 0], (0.005, 0.995))
        inner = np.abs(centres - (low + high) / 2.0) <= _MIDDLE * (high - low)
    else:
        inner = np.abs(centres) <= _BELIEVED_MM * scale
    margin = 2.0 * _COLUMN_WIDTH * max(spacing_mm)
    inner &= (centres > points_mm[:, 0].min() + margin) & (centres < points_mm[:, 0].max() - margin)
    if not inner.any():
        return np.inf, np.inf
    bottom = int(np.flatnonzero(inner)[edge[inner].argmax()])
    front = float(np.sort(edge[inner])[-round(_FRONT_MM / _CELL_MM) :].mean())
    gaps = [_gap(centres, edge, bottom, front - depth) for depth in _GAP_DEPTHS_MM]
    middles = [(left + right) / 2.0 for left, right in gaps if np.isfinite([left, right]).all()]
    return front, float(np.median(middles)) if middles else float(centres[bottom])


def _posterior_edge(x: np.ndarray, y: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Sagittal columns' x (m,), and the y (m,) of the posterior edge of the voxels in each."""
    from scipy import ndimage

    cells = [np.arange(axis.min() - 3.0, axis.max() + 3.0 + _CELL_MM, _CELL_MM) for axis in (x, y)]
    counts, _, _ = np.histogram2d(x, y, cells)
    area_mm2 = counts * (np.prod(spacing_mm) / _CELL_MM)
    area_mm2 = ndimage.gaussian_filter1d(area_mm2, _COLUMN_WIDTH * max(spacing_mm) / _CELL_MM, axis=0)
    behind_mm2 = np.cumsum(area_mm2, axis=1)
    held = np.flatnonzero(behind_mm2[:, -1] > _EDGE_AREA_MM2)
    cell = (behind_mm2[held] > _EDGE_AREA_MM2).argmax(axis=1)
    before = behind_mm2[held, cell - 1]
    share = (_EDGE_AREA_MM2 - before) / (behind_mm2[held, cell] - before)
    columns = np.arange(held[0], held[-1] + 1)
    edge = np.interp(columns, held, cells[1][cell] + share * _CELL_MM)
    return cells[0][columns] + _CELL_MM / 2.0, edge


def _gap(centres: np.ndarray, edge: np.ndarray, bottom: int, level: float) -> tuple[float, float]:
    """Where the edge falls below a level on both sides of the notch; infinite where it does not."""

    def reached(steps: range) -> float:
        for here, there in pairwise(steps):
            if edge[there] <= level < edge[here]:
                share = (edge[here] - level) / (edge[here] - edge[there])
                return float(centres[here] + share * (centres[there] - centres[here]))
        return np.inf

    return reached(range(bottom, -1, -1)), reached(range(bottom, edge.size))


def _mend_tibial_sides(knee: Knee, labels: np.ndarray) -> tuple[str, ...]:
    """Give islands of one tibial cartilage that lie in the other's compartment to that one, in place."""
    from scipy import ndimage

    pair = Tissue.MEDIAL_TIBIAL_CARTILAGE, Tissue.LATERAL_TIBIAL_CARTILAGE
    if not all(tissue in knee.present for tissue in pair):
        return ()
    box = bounding_box(knee.mask(pair[0]) | knee.mask(pair[1]))
    assert box is not None
    masks = {tissue: knee.labels[box.slices] == tissue for tissue in pair}
    medial_k, lateral_k = (float(np.median(np.nonzero(masks[tissue])[0])) for tissue in pair)
    middle_k = (medial_k + lateral_k) / 2.0
    block, moved = labels[box.slices], 0
    for tissue, other, own_k in ((pair[0], pair[1], medial_k), (pair[1], pair[0], lateral_k)):
        parts, count = ndimage.label(masks[tissue], np.ones((3, 3, 3)))
        if count < 2:
            continue
        places = np.array(ndimage.center_of_mass(parts > 0, parts, range(1, count + 1)))[:, 0]
        strays = np.flatnonzero((places - middle_k) * (own_k - middle_k) < 0) + 1
        there = np.isin(parts, strays)
        block[there] = other
        moved += int(there.sum())
    return (f"{moved} tibial cartilage voxels lay in the other compartment and were given to it.",) if moved else ()


def _region_color(value: int) -> tuple[float, float, float]:
    return _COLORS.get(value, _HUES[value % len(_HUES)])


_COLORS = {
    ANTERIOR: (0.20, 0.60, 0.86),
    MEDIAL_WEIGHT_BEARING: (0.93, 0.39, 0.33),
    LATERAL_WEIGHT_BEARING: (0.97, 0.75, 0.27),
    MEDIAL_POSTERIOR: (0.55, 0.35, 0.75),
    LATERAL_POSTERIOR: (0.30, 0.70, 0.62),
}
_HUES = (
    (0.55, 0.83, 0.78),
    (0.98, 0.71, 0.38),
    (0.75, 0.73, 0.85),
    (0.98, 0.50, 0.45),
    (0.50, 0.69, 0.83),
    (0.70, 0.87, 0.41),
    (0.99, 0.80, 0.90),
    (0.74, 0.50, 0.74),
    (0.80, 0.92, 0.77),
    (1.00, 0.93, 0.44),
)
