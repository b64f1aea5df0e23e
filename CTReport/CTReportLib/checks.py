"""Is this a chest CT? Said before anything is measured: what is wrong is an error, what is missing a notice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CTReportLib.anatomy import SMALLEST_LUNGS_ML, Anatomy
from MedAILib.errors import InputError
from MedAILib.grids import axis_code
from MedAILib.volume import Volume

FEWEST_SLICES = 20
WIDEST_SPACING_MM = 5.0
_SHORTEST_SIDE_MM = 80.0
_TISSUE_HU = (-150.0, 150.0)
_CONTRAST_HU = 100.0
"""Median of the heart's region above which blood was made brighter; without contrast it is 30 to 60."""


@dataclass(frozen=True)
class Notice:
    """Something the reader of a result must know.

    Attributes
    ----------
    code : str
        Stable, for scripts: ``"lungs-cut"``, ``"contrast"``, ``"thick-slices"``, ``"oblique"``, ``"hu-clipped"``.
    text : str
    """

    code: str
    text: str


def check_volume(volume: Volume, modality: str = "") -> tuple[Notice, ...]:
    """Whether a volume can be a CT of a chest, by its grid and its values.

    Parameters
    ----------
    volume : Volume
        Hounsfield units.
    modality : str
        DICOM's word for it where known (``"CT"``); empty where unknown.

    Returns
    -------
    tuple of Notice

    Raises
    ------
    InputError
        Another modality, an empty or flat image, a 2D image, too few or too distant slices, values that are
        not Hounsfield units.
    """
    if modality and modality.upper() != "CT":
        raise InputError(
            f"This is not a CT: its modality is {modality}.",
            why="Hounsfield units, on which every rule here rests, exist only in CT.",
            todo="Choose a chest CT.",
        )
    return _check_grid(volume) + _check_values(volume)


def check_anatomy(anatomy: Anatomy) -> tuple[Notice, ...]:
    """Whether a chest was found, whether the lungs are whole, and whether contrast was given.

    Raises
    ------
    InputError
        Where there is not enough aerated lung for a chest, or its sides cannot be told.
    """
    if not anatomy.is_chest:
        found = sum(anatomy.lung_ml)
        raise InputError(
            f"No lungs were found in this CT ({found:.0f} ml of aerated lung; a chest has at least "
            f"{SMALLEST_LUNGS_ML:.0f}).",
            why=_why_no_lungs(anatomy),
            todo="Choose a CT that shows the chest.",
        )
    if not anatomy.lungs.sides_known:
        raise InputError(
            "Left and right cannot be told in this image.",
            why="It holds neither the trachea nor the spine nor the whole width of the body.",
            todo="Choose a CT that shows the middle of the chest.",
        )
    return tuple(notice for notice in (_coverage(anatomy), _missing_lung(anatomy), contrast(anatomy)) if notice)


def contrast(anatomy: Anatomy) -> Notice:
    """Whether blood looks enhanced, told from the heart's region; "unknown" where that cannot be told."""
    hu = heart_hu(anatomy)
    if hu is None:
        text = "Whether contrast was given cannot be told: the heart's region was not found."
        return Notice("contrast-unknown", text)
    if hu > _CONTRAST_HU:
        text = f"Blood looks enhanced (median {hu:.0f} HU in the heart's region): calcium cannot be told by threshold."
        return Notice("contrast", text)
    text = f"No sign of contrast in the heart's region (median {hu:.0f} HU); the early or late phase is not excluded."
    return Notice("contrast-not-seen", text)


def heart_hu(anatomy: Anatomy) -> float | None:
    """Median of soft tissue (0 to 500 HU) in the heart's region; None where it holds less than 20 ml."""
    values = anatomy.grid.hu[anatomy.heart_region]
    values = values[(values > 0) & (values < 500)]
    return float(np.median(values)) if values.size * anatomy.grid.voxel_ml >= 20 else None


def _check_grid(volume: Volume) -> tuple[Notice, ...]:
    shape, spacing = volume.geometry.shape_kji, volume.geometry.spacing_kji_mm
    if min(shape) == 1:
        raise InputError(
            f"This is a 2D image ({' x '.join(str(n) for n in reversed(shape))} voxels).",
            why="A single slice or a radiograph holds no volume.",
            todo="Choose the whole CT series.",
        )
    sides = [n * s for n, s in zip(shape, spacing, strict=True)]
    if min(shape) < FEWEST_SLICES:
        raise InputError(
            f"This volume has too few slices ({min(shape)}; {FEWEST_SLICES} are needed).",
            why="The series may be incomplete, or it is a localiser.",
            todo="Choose the complete chest series.",
        )
    if max(spacing) > WIDEST_SPACING_MM + 0.01:
        raise InputError(
            f"The slices lie too far apart ({max(spacing):.1f} mm; at most {WIDEST_SPACING_MM:.0f} mm can be used).",
            todo="Choose a thinner reconstruction of the same scan.",
        )
    if min(sides) < _SHORTEST_SIDE_MM:
        raise InputError(
            f"This volume covers only {min(sides):.0f} mm in one direction.",
            why=f"Lungs do not fit into less than {_SHORTEST_SIDE_MM:.0f} mm; it is a part of a scan.",
            todo="Choose the complete chest series.",
        )
    notices = []
    if max(spacing) > 2.5:
        text = (
            f"Slices of {max(spacing):.1f} mm: nodules below {2 * max(spacing):.0f} mm and thin calcium are not seen."
        )
        notices.append(Notice("thick-slices", text))
    directions = np.abs(volume.ijk_to_ras[:3, :3] / np.array(volume.geometry.spacing_ijk_mm))
    if directions.max(axis=0).min() < np.cos(np.radians(2.0)):
        text = f"The image is oblique (closest axes {axis_code(volume.geometry)}); sides are the patient's."
        notices.append(Notice("oblique", text))
    return tuple(notices)


def _check_values(volume: Volume) -> tuple[Notice, ...]:
    step = tuple(slice(None, None, max(1, n // 128)) for n in volume.array.shape)
    values = np.asarray(volume.array[step], dtype=np.float32)
    values = values[np.isfinite(values)]
    if values.size == 0 or values.min() == values.max():
        raise InputError(
            "This volume is empty: all its voxels have one value." if values.size else "No voxel is a number.",
            todo="Choose the CT itself, not a mask or a volume that was never filled.",
        )
    low, high = float(values.min()), float(values.max())
    tissue = float(((values > _TISSUE_HU[0]) & (values < _TISSUE_HU[1])).mean())
    air = float((values < -600).mean())
    if low > -500 or high < 100 or tissue < 0.02 or air < 0.005 or low < -10000:
        raise InputError(
            f"The values are not Hounsfield units of a chest ({low:.0f} to {high:.0f}; {100 * air:.1f} % air, "
            f"{100 * tissue:.1f} % soft tissue).",
            why=_why_no_hu(low, high),
            todo="Choose a CT in Hounsfield units (air -1000, water 0).",
        )
    if low > -930 or high < 250:
        text = f"Values end at {low:.0f} and {high:.0f} HU: the image was clipped; emphysema and calcium may be lost."
        return (Notice("hu-clipped", text),)
    return ()


def _why_no_hu(low: float, high: float) -> str:
    if low >= 0 and high <= 255:
        return "It may be an MR, or a CT that was windowed to 8 bits."
    if low >= 0:
        return "It may be an MR, or a CT stored without its rescale intercept (often 1024 too high)."
    if low > -500:
        return "There is no air in it: it may be an MR or PET, or a crop inside the body."
    return "It may be another modality, a mask, or a CT without soft tissue."


def _why_no_lungs(anatomy: Anatomy) -> str:
    size = [n * anatomy.grid.spacing_mm for n in anatomy.lungs.body.shape]
    box = np.flatnonzero(anatomy.lungs.body.any(axis=(0, 1)))
    width = (box[-1] - box[0] + 1) * anatomy.grid.spacing_mm if box.size else 0.0
    if 0 < width < 230 and size[0] < 350:
        return f"What it shows is {width:.0f} mm wide, as a head or a limb is."
    return "It may show the abdomen, the head or a limb, or a crop beside the lungs."


def _coverage(anatomy: Anatomy) -> Notice | None:
    if not anatomy.cut_at:
        return None
    edges = ", ".join(anatomy.cut_at)
    text = f"The image does not hold whole lungs: it cuts them at its {edges} edge{'s' * (len(anatomy.cut_at) > 1)}."
    return Notice("lungs-cut", text)


def _missing_lung(anatomy: Anatomy) -> Notice | None:
    left, right = anatomy.lung_ml
    if min(left, right) >= 100:
        return None
    side = "left" if left < right else "right"
    found = f"Hardly any aerated {side} lung ({min(left, right):.0f} ml)"
    text = f"{found}: it may be absent, collapsed, or outside the image."
    return Notice("lung-missing", text)
