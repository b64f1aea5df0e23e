"""Segments that show findings: those that were given become measurements, those that were found a label map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from CTReportLib.findings import GROUND_GLASS, find
from CTReportLib.landmarks import locate
from CTReportLib.measurement import Measurement
from CTReportLib.request import GIVEN_SEGMENT
from MedAILib.grids import resampled
from MedAILib.palette import default_color
from MedAILib.volume import Geometry, LabelMap, SegmentInfo, Volume

if TYPE_CHECKING:
    from CTReportLib.anatomy import Anatomy

_WIDER = {GROUND_GLASS.id: "lung_opacity"}
"""Findings outside the eighteen, and that of the eighteen which includes them."""


def measured_segments(given: LabelMap, anatomy: Anatomy) -> tuple[tuple[Measurement, ...], tuple[str, ...]]:
    """What given segments show.

    Returns
    -------
    tuple of Measurement
        One for each segment whose name or id is that of a finding, and that is not empty.
    tuple of str
        Names of the other segments.
    """
    found, unknown = [], []
    voxel_ml = abs(float(np.linalg.det(given.ijk_to_ras[:3, :3]))) / 1000
    for info in given.segments:
        finding = find(info.name) or find(info.id)
        if finding is None:
            unknown.append(info.name)
            continue
        mask = Volume(given.mask(info.id).astype(np.uint8), given.ijk_to_ras, info.name)
        if not mask.array.any():
            continue
        place = locate(anatomy, mask)
        found.append(
            Measurement(
                finding_id=_WIDER.get(finding.id, finding.id),
                name=f"{finding.name}{GIVEN_SEGMENT}",
                value=float(mask.array.sum()) * voxel_ml,
                unit="ml",
                rule="Volume of the segment that was given with the image.",
                side=place.side,
                place=place.text,
                decision=True,
                limits="Who drew the segment, and how well, is not known here.",
                mask=mask,
            )
        )
    return tuple(found), tuple(unknown)


def localisation(geometry: Geometry, anatomy: Anatomy, measurements: Sequence[Measurement]) -> LabelMap:
    """Lungs and airways, and in a layer each what findings were measured on, on the grid of the CT."""
    chest = resampled(anatomy.label_map(), geometry)
    layers, segments = list(chest.layers), list(chest.segments)
    shown = [one for one in measurements if one.finding_id and one.decision is not False]
    for number, one in enumerate(shown):
        if one.mask is None:
            continue
        layer = resampled(one.mask, geometry, "nearest").array.astype(bool).astype(np.uint8)
        if not layer.any():
            continue
        tags = {"MedAI.Finding": one.finding_id, "MedAI.Measurement": one.name}
        color = default_color(len(chest.segments) + number)
        segments.append(
            SegmentInfo(f"{one.finding_id}_{number + 1}", one.mask.name or one.name, 1, len(layers), color, tags)
        )
        layers.append(layer)
    return LabelMap(tuple(layers), geometry.ijk_to_ras, tuple(segments), "Localisation")
