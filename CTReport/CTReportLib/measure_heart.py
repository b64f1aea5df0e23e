"""Cardiothoracic ratio, and calcium of the coronary arteries and the thoracic aorta by threshold."""

from __future__ import annotations

import numpy as np

from CTReportLib.anatomy import Anatomy
from CTReportLib.checks import contrast
from CTReportLib.measurement import Measurement
from CTReportLib.native import native_region
from MedAILib.volume import Volume

LARGEST_RATIO = 0.5
CALCIUM_HU = 130.0
"""Agatston's threshold (J Am Coll Cardiol 1990), for scans without contrast."""
_SMALLEST_SPOT_MM3 = 3.0
_FEWEST_VOXELS = 3
_LARGEST_SPOT_ML = 2.0
_FROM_BONE_MM = 6.0
_SPONGY_BONE_HU = 150.0
LEAST_CALCIUM_MM3 = 10.0


def cardiothoracic_ratio(anatomy: Anatomy) -> tuple[Measurement, ...]:
    """Largest width between the lungs at the heart, over the largest inner width of the chest."""
    rule = (
        "Largest gap between the lungs in the heart's slices (85th percentile over the slices) over the largest "
        f"width across both lungs; above {LARGEST_RATIO} counts as enlarged."
    )
    limits = (
        "Lying on the back and breathing out enlarge it, and so do fat, fluid, tumour or collapse beside the heart."
    )
    name = "Cardiothoracic ratio"
    slices, front = anatomy.heart_slices, anatomy.spine_front_j
    if slices is None or front is None or not anatomy.heart_region.any():
        why = "It could not be measured: it needs both lungs and the spine in the image. "
        return (Measurement("cardiomegaly", name, None, "", rule, limits=why + limits),)
    first, last = slices
    widths = anatomy.heart_region[first : last + 1].sum(axis=2).max(axis=1) * anatomy.grid.spacing_mm
    if not widths.any():
        return (Measurement("cardiomegaly", name, None, "", rule, limits="The heart's rows were not found. " + limits),)
    heart_mm = float(np.percentile(widths[widths > 0], 85))
    lungs: np.ndarray = np.any(anatomy.lungs.both[first : last + 1], axis=1)
    rows = [np.flatnonzero(lungs[k]) for k in range(len(lungs))]
    chest_mm = max(float(row[-1] - row[0] + 1) for row in rows if row.size) * anatomy.grid.spacing_mm
    ratio = heart_mm / chest_mm
    cut = sorted({"left", "right", "inferior"} & set(anatomy.cut_at))
    if cut:
        limits = f"The image cuts the lungs ({', '.join(cut)}), so the widths may not be the largest. " + limits
    return (
        Measurement(
            "cardiomegaly",
            name,
            round(ratio, 3),
            "",
            rule,
            place=f"{heart_mm:.0f} mm of {chest_mm:.0f} mm",
            decision=None if cut else ratio > LARGEST_RATIO,
            limits=limits,
            mask=anatomy.grid.volume_of(anatomy.heart_region, "Heart region (coarse)"),
            threshold=LARGEST_RATIO,
        ),
    )


def calcium(volume: Volume, anatomy: Anatomy) -> tuple[Measurement, ...]:
    """Volume of calcium in the heart's and in the aorta's coarse region, in mm³."""
    if anatomy.heart_slices is None or anatomy.spine_front_j is None:
        return ()
    enhanced = contrast(anatomy).code != "contrast-not-seen"
    asked = (
        ("coronary_artery_wall_calcification", "Calcium in the heart's region", anatomy.heart_region, "heart region"),
        ("arterial_wall_calcification", "Calcium near the thoracic aorta", anatomy.aorta_region, "aorta region"),
    )
    return tuple(_calcium(volume, anatomy, *one, enhanced=enhanced) for one in asked)


def _calcium(
    volume: Volume, anatomy: Anatomy, finding_id: str, name: str, region_kji: np.ndarray, place: str, *, enhanced: bool
) -> Measurement:
    from scipy import ndimage

    rule = (
        f"Spots above {CALCIUM_HU:.0f} HU of {_FEWEST_VOXELS} voxels and {_SMALLEST_SPOT_MM3:.0f} mm³ to "
        f"{_LARGEST_SPOT_ML:.0f} ml in the coarse {place}, {_FROM_BONE_MM:.0f} mm away from bone and airways; "
        f"{LEAST_CALCIUM_MM3:.0f} mm³ or more counts."
    )
    limits = (
        "Valves, stents, clips and calcified nodes count too; not an Agatston score (no gating, any slice thickness)."
    )
    if enhanced:
        why = "It could not be measured: blood looks enhanced, or whether it is could not be told. "
        return Measurement(finding_id, name, None, "mm³", rule, place=place, limits=why + limits)
    steps = max(1, round(_FROM_BONE_MM / anatomy.grid.spacing_mm))
    never = ndimage.binary_dilation(_skeleton(anatomy) | anatomy.lungs.airways, iterations=steps)
    region = native_region(volume, anatomy.grid, region_kji & ~never)
    if region is None:
        return Measurement(finding_id, name, None, "mm³", rule, place=place, limits="The region is empty. " + limits)
    labels, _ = ndimage.label(region.mask & (region.volume.array > CALCIUM_HU))
    voxels = np.bincount(labels.ravel())
    voxels[0] = 0
    sizes_mm3 = voxels * region.voxel_ml * 1000.0
    spots = (voxels >= _FEWEST_VOXELS) & (sizes_mm3 >= _SMALLEST_SPOT_MM3) & (sizes_mm3 <= _LARGEST_SPOT_ML * 1000)
    found = spots[labels]
    value = float(sizes_mm3[spots].sum())
    enough = value >= LEAST_CALCIUM_MM3
    return Measurement(
        finding_id,
        name,
        round(value, 1),
        "mm³",
        rule,
        place=place,
        decision=True if enough else (None if anatomy.cut_at else False),
        limits=limits,
        mask=region.as_volume(found, name) if value else None,
        threshold=LEAST_CALCIUM_MM3,
    )


def _skeleton(anatomy: Anatomy) -> np.ndarray:
    """Bone too large for a calcification: spine, ribs, sternum."""
    from scipy import ndimage

    labels, _ = ndimage.label((anatomy.grid.hu > _SPONGY_BONE_HU) & anatomy.lungs.body)
    sizes = np.bincount(labels.ravel()) * anatomy.grid.voxel_ml
    sizes[0] = 0
    skeleton: np.ndarray = (sizes > _LARGEST_SPOT_ML)[labels]
    return skeleton
