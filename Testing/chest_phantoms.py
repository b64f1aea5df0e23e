"""Synthetic chests of known truth: body, ribs, spine, lungs, trachea, heart, aorta, and what may be wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from MedAILib.grids import reoriented
from MedAILib.volume import Volume

HALF_MM = {"x": 176.0, "y": 128.0, "z": 168.0}
APEX_MM, BASE_MM = 130.0, -110.0
LUNG_HU, TISSUE_HU, FLUID_HU, BONE_HU, AIR_HU = -860.0, 45.0, 8.0, 500.0, -1000.0
LEFT_X_MM, RIGHT_X_MM = -78.0, 78.0
NO_PLACES: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class ChestSpec:
    """What a chest shall have; RAS millimetres from the middle of the chest.

    Attributes
    ----------
    effusion : str
        ``"left"``, ``"right"`` or empty: fluid behind and below that lung.
    nodules_mm : tuple of (x, y, z, diameter)
    emphysema : float
        Share of lung voxels at -985 HU, scattered.
    heart_scale : float
        1 is a cardiothoracic ratio of about 0.42.
    coronary, aortic : bool
        Calcium of 600 HU on the heart's front, and in the descending aorta's wall.
    blood_hu : float
        45 without contrast.
    spacing_mm : float
    noise_hu : float
    seed : int
    """

    effusion: str = ""
    nodules_mm: tuple[tuple[float, float, float, float], ...] = ()
    emphysema: float = 0.0
    heart_scale: float = 1.0
    coronary: bool = False
    aortic: bool = False
    blood_hu: float = TISSUE_HU
    spacing_mm: float = 4.0
    noise_hu: float = 15.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Chest:
    """A phantom and its truth; masks are bool, shape (k, j, i), on the grid of `volume` before reorienting (RAS)."""

    volume: Volume
    left: np.ndarray
    right: np.ndarray
    truth: dict[str, np.ndarray] = field(default_factory=dict)

    def turned(self, axes: str) -> Volume:
        """The volume with its voxels stored in another orientation."""
        turned = reoriented(self.volume, axes)
        return Volume(np.ascontiguousarray(turned.array), turned.ijk_to_ras, turned.name)


def make_chest(spec: ChestSpec = ChestSpec()) -> Chest:
    """A chest of known truth, RAS, int16."""
    random = np.random.default_rng(spec.seed)
    x, y, z = _axes(spec.spacing_mm)
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    hu = np.full(shape, AIR_HU, dtype=np.float32)
    body = _ellipse(x, y, 165.0, 115.0) & np.ones_like(z, dtype=bool)
    hu[body] = -90.0
    hu[_ellipse(x, y, 155.0, 105.0) & np.ones_like(z, dtype=bool)] = TISSUE_HU
    cage = _ellipse(x, y, 148.0, 98.0) & ~_ellipse(x, y, 141.0, 91.0) & (np.mod(z, 24.0) < 12.0) & (z > BASE_MM - 30)
    hu[cage] = BONE_HU
    hu[_ellipse(x, y + 72.0, 20.0, 18.0) & np.ones_like(z, dtype=bool)] = 320.0
    heart = _ellipsoid(x + 18.0, y - 22.0, z + 45.0, 52.0, 42.0, 55.0, spec.heart_scale)
    left, right = (
        _ellipsoid(x - centre, y - 2.0, z - BASE_MM, 60.0, 82.0, APEX_MM - BASE_MM, 1.0) & (z > BASE_MM) & ~heart
        for centre in (LEFT_X_MM, RIGHT_X_MM)
    )
    lungs = left | right
    hu[lungs] = LUNG_HU
    for number in range(14):
        side = LEFT_X_MM if number % 2 else RIGHT_X_MM
        a, b = side + random.uniform(-40, 40), random.uniform(-45, 50)
        hu[_ellipse(x - a - 0.12 * z, y - b, 2.6, 2.6) & lungs & (z < 60)] = 20.0
    hu[heart] = spec.blood_hu
    aorta = _ellipse(x + 22.0, y + 34.0, 12.0, 12.0) & (z < 60.0) & ~lungs
    hu[aorta] = spec.blood_hu
    hu[_ellipse(x, y + 10.0, 9.0, 9.0) & (z > 40.0)] = AIR_HU
    truth = _wrong(spec, hu, lungs, left, right, (x, y, z), random)
    hu += random.normal(0.0, spec.noise_hu, shape).astype(np.float32)
    matrix = np.diag([spec.spacing_mm] * 3 + [1.0])
    matrix[:3, 3] = x.flat[0], y.flat[0], z.flat[0]
    array = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return Chest(Volume(array, matrix, "phantom"), left, right, {**truth, "heart": heart})


def _wrong(
    spec: ChestSpec,
    hu: np.ndarray,
    lungs: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    axes: tuple[np.ndarray, np.ndarray, np.ndarray],
    random: np.random.Generator,
) -> dict[str, np.ndarray]:
    x, y, z = axes
    truth = {}
    if spec.emphysema:
        truth["emphysema"] = lungs & (random.random(hu.shape) < spec.emphysema)
        hu[truth["emphysema"]] = -985.0
    if spec.effusion:
        side = left if spec.effusion == "left" else right
        truth["effusion"] = side & (y < -22.0 - 0.35 * (z - BASE_MM)) & (z < 10.0)
        hu[truth["effusion"]] = FLUID_HU
    if spec.nodules_mm:
        truth["nodules"] = np.zeros(hu.shape, dtype=bool)
        for a, b, c, diameter in spec.nodules_mm:
            truth["nodules"] |= (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < (diameter / 2) ** 2
        hu[truth["nodules"]] = 40.0
    if spec.coronary:
        truth["coronary"] = (abs(x + 15) < 5) & (abs(y - 45) < 4) & (abs(z + 40) < 9)
        hu[truth["coronary"]] = 600.0
    if spec.aortic:
        truth["aortic"] = (abs(x + 30) < 4) & (abs(y + 34) < 4) & (abs(z + 10) < 13)
        hu[truth["aortic"]] = 600.0
    return truth


def _axes(spacing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R, A and S millimetres of the voxel centres, each shaped to broadcast over k, j, i."""
    lines = []
    for half in HALF_MM.values():
        count = round(2 * half / spacing)
        lines.append((np.arange(count) - (count - 1) / 2) * spacing)
    return lines[0][None, None, :], lines[1][None, :, None], lines[2][:, None, None]


def _ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    return (x / a) ** 2 + (y / b) ** 2 < 1.0


def _ellipsoid(x: np.ndarray, y: np.ndarray, z: np.ndarray, a: float, b: float, c: float, scale: float) -> np.ndarray:
    return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < scale**2
