"""Segments that show findings: those that were given become measurements, those that were found a label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from CTReportLib.findings import GROUND_GLASS, Finding, find
from CTReportLib.landmarks import locate
from CTReportLib.measurement import Measurement
from CTReportLib.request import FINDING_TAG, GIVEN_SEGMENT, MEASUREMENT_TAG
from MedAILib.grids import resampled
from MedAILib.palette import default_color
from MedAILib.volume import Geometry, LabelMap, SegmentInfo, Volume

if TYPE_CHECKING:
    from CTReportLib.anatomy import Anatomy

DRAWN = ", drawn by a model"
"""End of the names of measurements of what a model drew."""
MODEL_TAG = "MedAI.Model"
"""Tag of segments that a model drew: its id."""
LEAST_DRAWN_ML = 0.03
"""Less is a stray voxel or two: a ball of 4 mm."""
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
    for info in given.segments:
        finding = find(info.name) or find(info.id)
        if finding is None:
            unknown.append(info.name)
            continue
        mask = Volume(given.mask(info.id).astype(np.uint8), given.ijk_to_ras, info.name)
        if not mask.array.any():
            continue
        found.append(
            _shown(
                finding,
                mask,
                anatomy,
                name=f"{finding.name}{GIVEN_SEGMENT}",
                rule="Volume of the segment that was given with the image.",
                limits="Who drew the segment, and how well, is not known here.",
            )
        )
    return tuple(found), tuple(unknown)


def measured_drawing(
    name: str, mask: Volume, anatomy: Anatomy, *, model: str, threshold: float, least_ml: float = LEAST_DRAWN_ML
) -> Measurement | None:
    """What a model drew of a finding, as evidence of it.

    Parameters
    ----------
    name : str
        Id, name or alias of the finding.
    mask : Volume
        Not zero where it was drawn, in the CT's space.
    anatomy : Anatomy
    model : str
        Its id.
    threshold : float
        Probability from which a voxel was drawn.
    least_ml : float
        Less is noise of this model.

    Returns
    -------
    Measurement or None
        None where it drew less than that or than `LEAST_DRAWN_ML`, or the name is of no finding known here.
    """
    finding = find(name)
    if finding is None or int(np.count_nonzero(mask.array)) * _voxel_ml(mask) < max(least_ml, LEAST_DRAWN_ML):
        return None
    return _shown(
        finding,
        replace(mask, name=finding.name),
        anatomy,
        name=f"{finding.name}{DRAWN}",
        rule=f"Volume of what the model {model} drew, voxels of a probability of at least {threshold:.2f}.",
        limits="Drawn by a model and corrected by nobody; that it draws nothing elsewhere excludes nothing.",
        model=model,
    )


def _shown(
    finding: Finding, mask: Volume, anatomy: Anatomy, *, name: str, rule: str, limits: str, model: str = ""
) -> Measurement:
    place = locate(anatomy, mask)
    return Measurement(
        finding_id=_WIDER.get(finding.id, finding.id),
        name=name,
        value=int(np.count_nonzero(mask.array)) * _voxel_ml(mask),
        unit="ml",
        rule=rule,
        side=place.side,
        place=place.text,
        decision=True,
        limits=limits,
        mask=mask,
        model=model,
    )


def _voxel_ml(volume: Volume) -> float:
    return abs(float(np.linalg.det(volume.ijk_to_ras[:3, :3]))) / 1000


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
        tags = {FINDING_TAG: one.finding_id, MEASUREMENT_TAG: one.name}
        if one.model:
            tags[MODEL_TAG] = one.model
        color = default_color(len(chest.segments) + number)
        segments.append(
            SegmentInfo(f"{one.finding_id}_{number + 1}", one.mask.name or one.name, 1, len(layers), color, tags)
        )
        layers.append(layer)
    return LabelMap(tuple(layers), geometry.ijk_to_ras, tuple(segments), "Localisation")
