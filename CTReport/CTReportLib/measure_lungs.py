"""Lung volumes and the emphysema index."""

from __future__ import annotations

import numpy as np

from CTReportLib.anatomy import Anatomy
from CTReportLib.measurement import Measurement
from CTReportLib.native import native_region
from MedAILib.volume import Volume

EMPHYSEMA_HU = -950.0
EMPHYSEMA_PERCENT = 5.0
"""An index above this is called emphysema in COPDGene (Regan et al., COPD 2010; 5 % at full inspiration)."""
_SIDES = ("left", "right")


def lung_volumes(anatomy: Anatomy) -> tuple[Measurement, ...]:
    """Aerated volume of each lung, in ml."""
    limits = "Aerated lung only: fluid, collapse and large masses are not in it. It depends on how deep the breath was."
    if anatomy.cut_at:
        limits = f"Not a whole lung: the image cuts it ({', '.join(anatomy.cut_at)}). " + limits
    return tuple(
        Measurement(
            "",
            f"Volume of the {side} lung",
            round(value, 1),
            "ml",
            "Voxels below -400 HU within the body less the airways, closed by 8 mm, times their size.",
            side=side,
            limits=limits,
            mask=anatomy.grid.volume_of(mask, f"{side.capitalize()} lung") if mask.any() else None,
        )
        for side, value, mask in zip(_SIDES, anatomy.lung_ml, (anatomy.lungs.left, anatomy.lungs.right), strict=True)
    )


def emphysema(volume: Volume, anatomy: Anatomy) -> tuple[Measurement, ...]:
    """LAA-950: the share of lung voxels below -950 HU, in the CT's own voxels; of both lungs and of each side.

    The first of them carries the mask.
    """
    rule = (
        f"Share of the lung's voxels below {EMPHYSEMA_HU:.0f} HU (LAA-950), airways excluded; "
        f"above {EMPHYSEMA_PERCENT:.0f} % counts as present."
    )
    thickest = max(volume.geometry.spacing_ijk_mm)
    limits = (
        "Valid at full inspiration with a smooth kernel and slices of about 1 mm; noise, sharp kernels and "
        f"thick slices shift it (slices here: {thickest:.1f} mm). Overinflation and cysts count too."
    )
    if anatomy.cut_at:
        limits = "Only the part of the lungs in the image. " + limits
    found: list[Measurement] = []
    for side, mask in _present(anatomy):
        region = native_region(volume, anatomy.grid, mask)
        if region is None or region.mask.sum() * region.voxel_ml < 50:
            continue
        low = region.mask & (region.volume.array < EMPHYSEMA_HU)
        percent = 100.0 * float(low.sum()) / float(region.mask.sum())
        found.append(
            Measurement(
                "emphysema",
                "Emphysema index LAA-950" + (", both lungs" if side == "both" else f", {side} lung"),
                round(percent, 2),
                "%",
                rule,
                side=side,
                place="both lungs" if side == "both" else f"{side} lung",
                decision=None if anatomy.cut_at else percent > EMPHYSEMA_PERCENT,
                limits=limits,
                mask=None if found else region.as_volume(low, "Low attenuation"),
                threshold=EMPHYSEMA_PERCENT,
            )
        )
    return tuple(found)


def mean_density(volume: Volume, anatomy: Anatomy) -> tuple[Measurement, ...]:
    """Mean lung density, in HU."""
    present = _present(anatomy)
    region = native_region(volume, anatomy.grid, present[0][1]) if present else None
    if region is None:
        return ()
    side = present[0][0]
    value = float(np.mean(region.volume.array[region.mask], dtype=np.float64))
    rule = "Mean of the lungs' voxels, vessels included."
    place = "both lungs" if side == "both" else f"{side} lung"
    return (Measurement("", "Mean lung density", round(value, 1), "HU", rule, side=side, place=place),)


def _present(anatomy: Anatomy) -> list[tuple[str, np.ndarray]]:
    """Both lungs together and each for itself, or the one lung that there is."""
    sides = [(side, mask) for side, mask in zip(_SIDES, (anatomy.lungs.left, anatomy.lungs.right), strict=True)]
    there = [(side, mask) for side, mask in sides if mask.any()]
    return [("both", anatomy.lungs.both), *there] if len(there) == 2 else there
