"""Finer schemes: trochlea in three, weight-bearing femur in three each, tibial plateaus in five each.

The tibial and the weight-bearing parts follow W. Wirth, F. Eckstein, "A technique for regional analysis of
femorotibial cartilage thickness based on quantitative magnetic resonance imaging", IEEE Trans Med Imaging 27 (2008)
737-744: a central ellipse with 20 % of the plateau's cartilage area, around it anterior, posterior, interior (towards
the eminence) and exterior; the weight-bearing condyle in thirds of its width. There area is that of the bone, here
that of the cartilage seen along the plateau's normal. The trochlea is cut in thirds of its width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from KneeAnalysisLib.frame import Frame, tibial_frame, voxel_points_ras_mm
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import REGIONS, Region, Tissue
from KneeAnalysisLib.subregions import (
    ANTERIOR,
    LATERAL_WEIGHT_BEARING,
    MEDIAL_WEIGHT_BEARING,
    SubRegions,
    region_label_map,
)
from MedAILib.errors import InputError
from MedAILib.volume import LabelMap

CENTRAL_SHARE = 0.2
"""Of the plateau's area within the central ellipse."""

_EDGE = 0.005
"""Share of the voxels beyond either end of a width: strays do not widen it."""
_CELL_MM = 0.7
"""Side of the cells in which area is counted."""

TROCHLEA_REGIONS: tuple[Region, ...] = (
    Region("med_trochlea_cart", 21, "Medial trochlear cartilage", Tissue.FEMUR),
    Region("cent_trochlea_cart", 22, "Central trochlear cartilage", Tissue.FEMUR),
    Region("lat_trochlea_cart", 23, "Lateral trochlear cartilage", Tissue.FEMUR),
)
WEIGHT_BEARING_REGIONS: tuple[Region, ...] = (
    Region("ext_med_wb_fem_cart", 24, "Exterior medial weight-bearing femoral cartilage", Tissue.FEMUR),
    Region("cent_med_wb_fem_cart", 25, "Central medial weight-bearing femoral cartilage", Tissue.FEMUR),
    Region("int_med_wb_fem_cart", 26, "Interior medial weight-bearing femoral cartilage", Tissue.FEMUR),
    Region("int_lat_wb_fem_cart", 27, "Interior lateral weight-bearing femoral cartilage", Tissue.FEMUR),
    Region("cent_lat_wb_fem_cart", 28, "Central lateral weight-bearing femoral cartilage", Tissue.FEMUR),
    Region("ext_lat_wb_fem_cart", 29, "Exterior lateral weight-bearing femoral cartilage", Tissue.FEMUR),
)
TIBIAL_REGIONS: tuple[Region, ...] = (
    Region("cent_med_tib_cart", 31, "Central medial tibial cartilage", Tissue.TIBIA),
    Region("ant_med_tib_cart", 32, "Anterior medial tibial cartilage", Tissue.TIBIA),
    Region("post_med_tib_cart", 33, "Posterior medial tibial cartilage", Tissue.TIBIA),
    Region("int_med_tib_cart", 34, "Interior medial tibial cartilage", Tissue.TIBIA),
    Region("ext_med_tib_cart", 35, "Exterior medial tibial cartilage", Tissue.TIBIA),
    Region("cent_lat_tib_cart", 41, "Central lateral tibial cartilage", Tissue.TIBIA),
    Region("ant_lat_tib_cart", 42, "Anterior lateral tibial cartilage", Tissue.TIBIA),
    Region("post_lat_tib_cart", 43, "Posterior lateral tibial cartilage", Tissue.TIBIA),
    Region("int_lat_tib_cart", 44, "Interior lateral tibial cartilage", Tissue.TIBIA),
    Region("ext_lat_tib_cart", 45, "Exterior lateral tibial cartilage", Tissue.TIBIA),
)
FINER_REGIONS: tuple[Region, ...] = (*TROCHLEA_REGIONS, *WEIGHT_BEARING_REGIONS, *TIBIAL_REGIONS)


@dataclass(frozen=True, eq=False)
class FinerSubRegions:
    """Finer regions of a knee.

    Attributes
    ----------
    labels : ndarray, shape (k, j, i), uint8
        Values of `FINER_REGIONS` where there is one, elsewhere those of the sub-regions; read-only.
    notes : tuple of str
    """

    labels: np.ndarray
    notes: tuple[str, ...] = ()

    def label_map(self, base: SubRegions, name: str = "") -> LabelMap:
        """The regions with their names and colours, in canonical orientation."""
        return region_label_map(self.labels, base.geometry, (*REGIONS, *FINER_REGIONS), name)


def finer_subregions(knee: Knee, base: SubRegions) -> FinerSubRegions:
    """Split the trochlea, the weight-bearing condyles and the tibial plateaus further.

    Parameters
    ----------
    knee : Knee
    base : SubRegions
        Of this knee; regions it lacks have no finer ones.
    """
    labels = base.labels.copy()
    notes: tuple[str, ...] = ()
    if base.frame is not None:
        for value, first in ((ANTERIOR, 21), (MEDIAL_WEIGHT_BEARING, 24), (LATERAL_WEIGHT_BEARING, 27)):
            _split_in_thirds(knee, base.frame, labels, value, first)
    try:
        frame = tibial_frame(knee)
    except InputError as problem:
        notes = (f"{problem.what} The plateaus are not split.",)
    else:
        for tissue, first in ((Tissue.MEDIAL_TIBIAL_CARTILAGE, 31), (Tissue.LATERAL_TIBIAL_CARTILAGE, 41)):
            _split_plateau(knee, frame, labels, tissue, first)
    labels.setflags(write=False)
    return FinerSubRegions(labels, notes)


def plateau_parts(across_mm: np.ndarray, along_mm: np.ndarray) -> np.ndarray:
    """Part of a plateau: shape (n,), 0 central, 1 anterior, 2 posterior, 3 interior, 4 exterior.

    Parameters
    ----------
    across_mm, along_mm : ndarray, shape (n,)
        Towards exterior, and towards anterior, of the voxels seen along the plateau's normal.
    """
    cells = np.unique(np.stack([across_mm, along_mm], axis=1) // _CELL_MM, axis=0) * _CELL_MM + _CELL_MM / 2.0
    centre, spread = cells.mean(axis=0), cells.std(axis=0)
    reach = np.quantile(np.hypot(*((cells - centre) / spread).T), CENTRAL_SHARE)
    u, v = (across_mm - centre[0]) / spread[0], (along_mm - centre[1]) / spread[1]
    sideways = np.abs(u) > np.abs(v)
    around = np.where(sideways, np.where(u > 0, 4, 3), np.where(v > 0, 1, 2))
    return np.where(np.hypot(u, v) <= reach, 0, around)


def _split_in_thirds(knee: Knee, frame: Frame, labels: np.ndarray, value: int, first: int) -> None:
    """Replace a region by thirds of its width, numbered from medial to lateral."""
    mask = labels == value
    if not mask.any():
        return
    x = frame.coordinates_mm(voxel_points_ras_mm(mask, knee.geometry))[:, 0]
    low, high = np.quantile(x, (_EDGE, 1.0 - _EDGE))
    third = np.clip(np.floor(3.0 * (x - low) / max(high - low, 1e-6)), 0, 2)
    labels[mask] = first + third.astype(np.uint8)


def _split_plateau(knee: Knee, frame: Frame, labels: np.ndarray, tissue: Tissue, first: int) -> None:
    mask = labels == tissue
    x, y, _ = frame.coordinates_mm(voxel_points_ras_mm(mask, knee.geometry)).T
    outward = x if tissue is Tissue.LATERAL_TIBIAL_CARTILAGE else -x
    labels[mask] = first + plateau_parts(outward, y).astype(np.uint8)
