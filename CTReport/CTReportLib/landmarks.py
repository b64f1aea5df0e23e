"""Where something is, in words: side, and the third of the lung, from the found anatomy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CTReportLib.anatomy import Anatomy
from MedAILib.errors import InputError
from MedAILib.volume import Volume

THIRDS = ("lower", "middle", "upper")
_LEAST_SHARE = 0.15
"""A third (or side) with less of the whole than this is not named."""


@dataclass(frozen=True)
class Place:
    """Where something lies.

    Attributes
    ----------
    side : str
        ``"left"``, ``"right"`` or ``"both"``, of the patient.
    thirds : tuple of str
        Of ``"lower"``, ``"middle"``, ``"upper"``: equal heights of the lung of that side; empty where the lungs
        are cut above or below, and thirds would be wrong.
    """

    side: str
    thirds: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For example ``"upper and middle thirds, left"``; the side alone where there are no thirds."""
        side = "both sides" if self.side == "both" else self.side
        if not self.thirds:
            return side
        names = [third for third in reversed(THIRDS) if third in self.thirds]
        if len(names) == 3:
            return f"all thirds, {side}"
        return " and ".join(names) + (" third, " if len(names) == 1 else " thirds, ") + side


def locate(anatomy: Anatomy, mask: Volume) -> Place:
    """Side and thirds of what a mask shows.

    Parameters
    ----------
    anatomy : Anatomy
    mask : Volume
        Not zero where it is; on any grid, in the CT's space.

    Raises
    ------
    InputError
        Where the mask is empty.
    """
    indices = np.argwhere(mask.array)
    if len(indices) == 0:
        raise InputError("An empty mask has no place.")
    points = indices[:, ::-1] @ mask.ijk_to_ras[:3, :3].T + mask.ijk_to_ras[:3, 3]
    return locate_points(anatomy, points)


def locate_points(anatomy: Anatomy, points_ras_mm: np.ndarray) -> Place:
    """Side and thirds of points (n, 3), RAS millimetres: of the lung they lie in, or of the half of the chest."""
    to_grid = np.linalg.inv(anatomy.grid.geometry.ijk_to_ras)
    kji = (points_ras_mm @ to_grid[:3, :3].T + to_grid[:3, 3])[:, ::-1]
    on_right = _is_right(anatomy, kji)
    share_right = float(on_right.mean())
    side = "both" if _LEAST_SHARE < share_right < 1 - _LEAST_SHARE else ("right" if share_right >= 0.5 else "left")
    if {"superior", "inferior"} & set(anatomy.cut_at):
        return Place(side)
    counts = np.zeros(3)
    for lung, chosen in ((anatomy.lungs.left, ~on_right), (anatomy.lungs.right, on_right)):
        rows = np.flatnonzero(lung.any(axis=(1, 2)))
        if rows.size == 0 and chosen.any():
            rows = np.flatnonzero(anatomy.lungs.both.any(axis=(1, 2)))
        if rows.size == 0 or not chosen.any():
            continue
        height = (kji[chosen, 0] - rows[0] + 0.5) / (rows[-1] - rows[0] + 1)
        counts += np.bincount(np.clip((height * 3).astype(int), 0, 2), minlength=3)
    if counts.sum() == 0:
        return Place(side)
    return Place(side, tuple(third for third, n in zip(THIRDS, counts, strict=True) if n / counts.sum() > _LEAST_SHARE))


def _is_right(anatomy: Anatomy, kji: np.ndarray) -> np.ndarray:
    """For each point whether it is the patient's right: by the lung it lies in, else by the middle."""
    nearest = np.clip(np.rint(kji).astype(int), 0, np.array(anatomy.grid.hu.shape) - 1)
    where = tuple(nearest.T)
    right, left = anatomy.lungs.right[where], anatomy.lungs.left[where]
    return np.where(right | left, right, kji[:, 2] > anatomy.middle_i)
