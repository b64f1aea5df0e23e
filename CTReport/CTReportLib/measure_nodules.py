"""Nodule candidates: compact solid spots in the lung that thin vessels do not explain. Candidates, not nodules."""

from __future__ import annotations

import numpy as np

from CTReportLib.anatomy import Anatomy
from CTReportLib.landmarks import locate
from CTReportLib.measurement import Measurement

SOLID_HU = -450.0
SMALLEST_MM, LARGEST_MM = 8.0, 30.0
MOST_CANDIDATES = 10
_LONGEST_RATIO = 2.0
_MOST_BORDER = 0.3


def nodule_candidates(anatomy: Anatomy) -> tuple[Measurement, ...]:
    """Up to ten candidates, largest first, each with its equivalent diameter in mm; none where nothing was found."""
    rule = (
        f"Bodies above {SOLID_HU:.0f} HU within the closed lung, {SMALLEST_MM:.0f} to {LARGEST_MM:.0f} mm of "
        f"equivalent diameter after thin vessels were cut off, less than {_LONGEST_RATIO:.0f} times as long as wide, "
        f"with at most {100 * _MOST_BORDER:.0f} % of their surface at the lung's border."
    )
    limits = (
        "A candidate, not a nodule: branching vessels, scars and mucus pass the rule, and ground-glass nodules, "
        "nodules at the pleura and small ones fail it."
    )
    found: list[Measurement] = []
    for diameter, mask in _candidates(anatomy)[:MOST_CANDIDATES]:
        shown = anatomy.grid.volume_of(mask, "Nodule candidate")
        place = locate(anatomy, shown)
        found.append(
            Measurement(
                "lung_nodule",
                f"Nodule candidate {len(found) + 1}",
                round(diameter, 1),
                "mm",
                rule,
                side=place.side,
                place=place.text,
                decision=None,
                limits=limits,
                mask=shown,
            )
        )
    return tuple(found)


def _candidates(anatomy: Anatomy) -> list[tuple[float, np.ndarray]]:
    """Diameter (mm) and mask of each candidate, largest first."""
    from scipy import ndimage

    spacing = anatomy.grid.spacing_mm
    lungs = anatomy.lungs.both
    solid = lungs & (anatomy.grid.hu > SOLID_HU)
    core = ndimage.binary_opening(solid, structure=_ball(max(2.0, spacing) / spacing))
    labels, _ = ndimage.label(core)
    border = lungs & ~ndimage.binary_erosion(lungs)
    found = []
    for n, box in enumerate(ndimage.find_objects(labels), start=1):
        part = labels[box] == n
        diameter = (6.0 * part.sum() * spacing**3 / np.pi) ** (1 / 3)
        if not SMALLEST_MM <= diameter <= LARGEST_MM or part.sum() < 7:
            continue
        surface = part & ~ndimage.binary_erosion(part)
        if (surface & border[box]).sum() > _MOST_BORDER * surface.sum() or _elongation(part) > _LONGEST_RATIO:
            continue
        mask = np.zeros_like(lungs)
        mask[box] = part
        found.append((float(diameter), mask))
    return sorted(found, key=lambda pair: -pair[0])


def _elongation(part: np.ndarray) -> float:
    """Longest over shortest axis of the ellipsoid of the same moments."""
    points = np.argwhere(part).astype(float)
    values = np.linalg.eigvalsh(np.cov(points.T) + np.eye(3) / 12.0)
    return float(np.sqrt(values[-1] / values[0]))


def _ball(radius: float) -> np.ndarray:
    n = int(np.ceil(radius))
    k, j, i = np.ogrid[-n : n + 1, -n : n + 1, -n : n + 1]
    ball: np.ndarray = k**2 + j**2 + i**2 <= radius**2 + 0.01
    return ball
