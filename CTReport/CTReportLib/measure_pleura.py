"""Pleural fluid: what has the density of fluid, lies within the ribs against the lung, and is thick enough."""

from __future__ import annotations

import numpy as np

from CTReportLib.anatomy import Anatomy
from CTReportLib.landmarks import locate
from CTReportLib.measurement import Measurement

FLUID_HU = (-15.0, 28.0)
SMOOTHING_MM = 3.0
THINNEST_MM = 8.0
SMALLEST_ML = 20.0
_RIB_GAP_MM = 14.0
_RIB_WIDTH_MM = 8.0
_NEAR_LUNG_MM = 45.0
_HULL_SIDES = 24
_LEAST_POSTERIOR = 0.6
_AGAINST_MM, _LEAST_AGAINST = 6.0, 0.5
"""A layer beside the lung, and the area of it that fluid fills, over the area of a face of a cube of that volume."""
_BESIDE_MM, _LEAST_BESIDE = 12.0, 1.0
"""Likewise for what only may be fluid."""


def pleural_fluid(anatomy: Anatomy) -> tuple[Measurement, ...]:
    """Volume of fluid beside each lung, in ml; 0 where none was found.

    Mostly in the dependent (posterior) half of the chest, since free fluid lies there in a supine patient; a liver
    full of fat has the density of fluid and reaches further forward.
    """
    rule = (
        f"{FLUID_HU[0]:.0f} to {FLUID_HU[1]:.0f} HU after {SMOOTHING_MM:.0f} mm smoothing, within the ribs, most of "
        f"it in the posterior half, against the lung, at least {THINNEST_MM:.0f} mm thick; "
        f"{SMALLEST_ML:.0f} ml or more counts."
    )
    limits = (
        "Blood, pus, fluid in the stomach, fatty liver, fluid-like tumour and collapsed lung cannot be told apart from "
        "it or may be missed; loculated fluid in front is not looked for."
    )
    if not anatomy.bone.any():
        return ()
    fluid, doubtful = _fluid(anatomy)
    right_half = np.arange(fluid.shape[2]) > anatomy.middle_i
    found = []
    lungs = {"left": anatomy.lungs.left, "right": anatomy.lungs.right}
    for side, half in (("left", ~right_half), ("right", right_half)):
        name = f"Fluid-like volume beside the {side} lung"
        if not lungs[side].any():
            why = "It could not be measured: no aerated lung was found on this side. "
            found.append(Measurement("pleural_effusion", name, None, "ml", rule, side=side, limits=why + limits))
            continue
        mask = fluid & half
        value = float(mask.sum()) * anatomy.grid.voxel_ml
        unclear_ml = float((doubtful & half).sum()) * anatomy.grid.voxel_ml
        if value < SMALLEST_ML <= unclear_ml:
            why = f"{unclear_ml:.0f} ml with the density of fluid lie near the lung, but not clearly against it. "
            found.append(Measurement("pleural_effusion", name, None, "ml", rule, side=side, limits=why + limits))
            continue
        if value < SMALLEST_ML:
            value, mask = 0.0, np.zeros_like(mask)
        shown = anatomy.grid.volume_of(mask, f"Pleural fluid, {side}") if value else None
        decision = None if anatomy.cut_at else bool(value)
        found.append(
            Measurement(
                "pleural_effusion",
                name,
                round(value, 1),
                "ml",
                rule,
                side=side,
                place=locate(anatomy, shown).text if shown else "",
                decision=decision,
                limits=limits,
                mask=shown,
                threshold=SMALLEST_ML,
            )
        )
    return tuple(found)


def _fluid(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Fluid against the lungs, and what may be fluid but only lies near them; bool (k, j, i) each.

    Where slices are thick or the patient moved, a layer of mixed voxels lies between fluid and lung, as ribs and muscle
    do between lung and the fat streaks of the back: there the two cannot be told apart.
    """
    from scipy import ndimage

    spacing = anatomy.grid.spacing_mm
    lungs = anatomy.lungs.both
    cavity = within_ribs(anatomy) & ~lungs & ~anatomy.lungs.airways & ~anatomy.between
    # smoothing must not mix fluid with the air beside it: what is lung or air takes no part
    solid = anatomy.grid.hu > -200.0
    weight = ndimage.gaussian_filter(solid.astype(np.float32), SMOOTHING_MM / spacing)
    values = np.where(solid, np.clip(anatomy.grid.hu, -200, 300), 0).astype(np.float32)
    smooth = ndimage.gaussian_filter(values, SMOOTHING_MM / spacing) / np.maximum(weight, 1e-3)
    fluid = cavity & solid & (smooth > FLUID_HU[0]) & (smooth < FLUID_HU[1])
    fluid = ndimage.binary_opening(fluid, iterations=max(1, round(THINNEST_MM / 2 / spacing)))
    rows = np.flatnonzero(lungs.any(axis=(0, 2)))
    slices = np.flatnonzero(lungs.any(axis=(1, 2)))
    if rows.size == 0:
        return np.zeros_like(lungs), np.zeros_like(lungs)
    middle = (rows[0] + rows[-1]) // 2
    labels, count = ndimage.label(fluid)
    against, beside = (
        ndimage.binary_dilation(lungs, iterations=max(1, round(mm / spacing))) for mm in (_AGAINST_MM, _BESIDE_MM)
    )
    kind = np.zeros(count + 1, dtype=np.uint8)
    for n, box in enumerate(ndimage.find_objects(labels), start=1):
        part = labels[box] == n
        size_mm3 = part.sum() * spacing**3
        posterior = part[:, : max(middle - box[1].start, 0)].sum() / part.sum()
        in_range = box[0].stop > slices[0] and box[0].start <= slices[-1] and posterior >= _LEAST_POSTERIOR
        if not in_range or size_mm3 <= SMALLEST_ML * 500:
            continue
        face_mm2 = size_mm3 ** (2 / 3)
        if (part & against[box]).sum() * spacing**3 / _AGAINST_MM > _LEAST_AGAINST * face_mm2:
            kind[n] = 1
        elif (part & beside[box]).sum() * spacing**3 / _BESIDE_MM > _LEAST_BESIDE * face_mm2:
            kind[n] = 2
    kinds = kind[labels]
    return kinds == 1, kinds == 2


def within_ribs(anatomy: Anatomy) -> np.ndarray:
    """The inside of the rib cage, coarsely: in each axial slice the hull of the bones near the lungs, less their width.

    Ribs slant, so that the bones within 14 mm above and below a slice count as its own.
    """
    from scipy import ndimage

    spacing = anatomy.grid.spacing_mm
    near = ndimage.binary_dilation(anatomy.lungs.both, iterations=round(_NEAR_LUNG_MM / spacing))
    reach = 2 * round(_RIB_GAP_MM / spacing) + 1
    ring = ndimage.maximum_filter1d((anatomy.bone & near).view(np.uint8), reach, axis=0) > 0
    inside = np.zeros_like(ring)
    j, i = np.mgrid[: ring.shape[1], : ring.shape[2]].astype(np.float32)
    slices = [k for k in np.flatnonzero(near.any(axis=(1, 2))) if ring[k].any()]
    angles = np.linspace(0.0, 2.0 * np.pi, _HULL_SIDES, endpoint=False)
    inside[slices] = True
    for angle in angles:
        along = np.float32(np.cos(angle)) * i + np.float32(np.sin(angle)) * j
        for k in slices:
            inside[k] &= along < along[ring[k]].max() - _RIB_WIDTH_MM / spacing
    return inside & ~anatomy.bone
