"""Synthetic chests of known truth: body, ribs, spine, lungs, trachea, heart, aorta, and what may be wrong with them.

Cohorts of chests that differ by chance, with labels and masks as data sets have them, makes `chest_cohort`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from MedAILib.grids import reoriented
from MedAILib.volume import Volume

HALF_MM = {"x": 176.0, "y": 128.0, "z": 168.0}
APEX_MM, BASE_MM = 130.0, -110.0
LUNG_HU, TISSUE_HU, FLUID_HU, BONE_HU, AIR_HU = -860.0, 45.0, 8.0, 500.0, -1000.0
LEFT_X_MM, RIGHT_X_MM = -78.0, 78.0
HEART_MM, HEART_RADII_MM = (-18.0, 22.0, -45.0), (52.0, 42.0, 55.0)
Axes = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Patch:
    """An irregular part of a lung, RAS millimetres of the unscaled chest.

    Attributes
    ----------
    centre_mm, radii_mm : tuple of float
        Along R, A, S.
    phase : float
        Which irregular shape.
    """

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    phase: float = 0.0


@dataclass(frozen=True)
class ChestSpec:
    """What a chest shall have; RAS millimetres from the middle of the chest, before `scale_xyz`.

    Attributes
    ----------
    effusion : str
        ``"left"``, ``"right"``, ``"both"`` or empty: fluid behind and below that lung.
    effusion_rise_mm : float
        Height and depth of the fluid: 0 is some 400 ml a side.
    nodules_mm : tuple of (x, y, z, diameter)
        Diameters are not scaled.
    emphysema : float
        Share of lung voxels at -985 HU.
    bulla_mm : float
        How coarse their clusters are; 0: scattered voxels.
    consolidations, ground_glass : tuple of Patch
        Airless lung with open bronchi in it; hazy lung.
    heart_scale : float
        1 is a cardiothoracic ratio of about 0.38.
    pericardial_mm : float
        Thickness of fluid around the heart.
    coronary, aortic : bool
        Calcium of 600 HU on the heart's front, and in the descending aorta's wall.
    blood_hu : float
        45 without contrast.
    lung_hu : float
    vessels : int
        In both lungs.
    vessel_mm : float
        Radius of the widest; the others are down to half as wide. 0: all of 2.6 mm.
    fissures : bool
        Thin planes across both lungs.
    granulomas_mm : tuple of (x, y, z, diameter)
        Small, calcified: no nodules to be told.
    hilar_nodes_mm : tuple of (x, y, z, diameter)
        Soft tissue beside the mediastinum.
    raised_mm : tuple of float
        How much higher the left and the right lung end.
    scale_xyz : tuple of float
        Size of the whole chest along R, A, S.
    turn_deg : float
        About the long axis.
    spacing_mm : float
        In the axial plane; also between slices where `slice_mm` is 0.
    slice_mm : float
    blur_mm : float
        Of the scanner, before noise.
    motion_mm : float
        Blur along the patient's front and back.
    noise_hu : float
    seed : int
    """

    effusion: str = ""
    effusion_rise_mm: float = 0.0
    nodules_mm: tuple[tuple[float, float, float, float], ...] = ()
    emphysema: float = 0.0
    bulla_mm: float = 0.0
    consolidations: tuple[Patch, ...] = ()
    ground_glass: tuple[Patch, ...] = ()
    heart_scale: float = 1.0
    pericardial_mm: float = 0.0
    coronary: bool = False
    aortic: bool = False
    blood_hu: float = TISSUE_HU
    lung_hu: float = LUNG_HU
    vessels: int = 14
    vessel_mm: float = 0.0
    fissures: bool = False
    granulomas_mm: tuple[tuple[float, float, float, float], ...] = ()
    hilar_nodes_mm: tuple[tuple[float, float, float, float], ...] = ()
    raised_mm: tuple[float, float] = (0.0, 0.0)
    scale_xyz: tuple[float, float, float] = (1.0, 1.0, 1.0)
    turn_deg: float = 0.0
    spacing_mm: float = 4.0
    slice_mm: float = 0.0
    blur_mm: float = 0.0
    motion_mm: float = 0.0
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
    axes, matrix, spacing_kji = _axes(spec)
    x, y, z = axes
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    hu = np.full(shape, AIR_HU, dtype=np.float32)
    _wall(hu, axes)
    heart = _heart(axes, spec.heart_scale)
    sac = _sac(axes, spec)
    left, right = (
        _ellipsoid(x - centre, y - 2.0, z - BASE_MM, 60.0, 82.0, APEX_MM - BASE_MM, 1.0) & (z > BASE_MM + raised) & ~sac
        for centre, raised in zip((LEFT_X_MM, RIGHT_X_MM), spec.raised_mm, strict=True)
    )
    lungs = left | right
    hu[lungs] = spec.lung_hu
    _lung_texture(hu, lungs, axes, spec, random)
    hu[sac] = FLUID_HU
    hu[heart] = spec.blood_hu
    aorta = _ellipse(x + 22.0, y + 34.0, 12.0, 12.0) & (z < 60.0) & ~lungs
    hu[aorta] = spec.blood_hu
    hu[_ellipse(x, y + 10.0, 9.0, 9.0) & (z > 40.0)] = AIR_HU
    truth = _wrong(spec, hu, (left, right), axes, random)
    if spec.pericardial_mm:
        truth["pericardial"] = sac & ~heart
    hu = _scanned(hu, spec, spacing_kji)
    hu += random.normal(0.0, spec.noise_hu, shape).astype(np.float32)
    array = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return Chest(Volume(array, matrix, "phantom"), left, right, {**truth, "heart": heart})


def in_lung(spec: ChestSpec, point_mm: tuple[float, float, float], share: float = 0.8) -> bool:
    """Whether a point lies in a lung, in its inner part of that share, and off the heart."""
    x, y, z = (np.array(value) for value in point_mm)
    side = 0 if point_mm[0] < 0 else 1
    centre, raised = (LEFT_X_MM, RIGHT_X_MM)[side], spec.raised_mm[side]
    inside = _ellipsoid(x - centre, y - 2.0, z - BASE_MM, 60.0, 82.0, APEX_MM - BASE_MM, share)
    widened = spec.heart_scale + (spec.pericardial_mm + 6.0) / min(HEART_RADII_MM)
    return bool(inside and z > BASE_MM + raised + 8.0 and not _heart((x, y, z), widened))


def _wall(hu: np.ndarray, axes: Axes) -> None:
    """Fat, soft tissue, ribs and spine."""
    x, y, z = axes
    along = np.ones_like(z, dtype=bool)
    hu[_ellipse(x, y, 165.0, 115.0) & along] = -90.0
    hu[_ellipse(x, y, 155.0, 105.0) & along] = TISSUE_HU
    cage = _ellipse(x, y, 148.0, 98.0) & ~_ellipse(x, y, 141.0, 91.0) & (np.mod(z, 24.0) < 12.0) & (z > BASE_MM - 30)
    hu[cage] = BONE_HU
    hu[_ellipse(x, y + 72.0, 20.0, 18.0) & along] = 320.0


def _heart(axes: Axes, scale: float) -> np.ndarray:
    return _ellipsoid(*(a - c for a, c in zip(axes, HEART_MM, strict=True)), *HEART_RADII_MM, scale)


def _sac(axes: Axes, spec: ChestSpec) -> np.ndarray:
    """The heart with the fluid around it."""
    if not spec.pericardial_mm:
        return _heart(axes, spec.heart_scale)
    radii = (radius * spec.heart_scale + spec.pericardial_mm for radius in HEART_RADII_MM)
    return _ellipsoid(*(a - c for a, c in zip(axes, HEART_MM, strict=True)), *radii, 1.0)


def _lung_texture(hu: np.ndarray, lungs: np.ndarray, axes: Axes, spec: ChestSpec, random: np.random.Generator) -> None:
    """Vessels, fissures and what else looks like a finding and is none."""
    where = np.flatnonzero(lungs)
    x, y, z = (np.broadcast_to(line, lungs.shape).ravel()[where] for line in axes)
    for number in range(spec.vessels):
        side = LEFT_X_MM if number % 2 else RIGHT_X_MM
        a, b = side + random.uniform(-40, 40), random.uniform(-45, 50)
        radius, lean, top = 2.6, 0.12, 60.0
        if spec.vessel_mm:
            radius, lean = spec.vessel_mm * random.uniform(0.5, 1.0), random.uniform(-0.5, 0.5)
            top = random.uniform(-40.0, 90.0)
        hu.flat[where[_ellipse(x - a - lean * z, y - b, radius, radius) & (z < top)]] = 20.0
    if spec.fissures:
        hu.flat[where[abs(y + 0.6 * z + 10.0 + 0.1 * x) < 2.2]] = -640.0
    for spots, value in ((spec.granulomas_mm, 600.0), (spec.hilar_nodes_mm, 40.0)):
        for a, b, c, diameter in spots:
            hu[_ball(axes, spec, (a, b, c), diameter)] = value


def _wrong(
    spec: ChestSpec, hu: np.ndarray, sides: tuple[np.ndarray, np.ndarray], axes: Axes, random: np.random.Generator
) -> dict[str, np.ndarray]:
    x, y, z = axes
    lungs = sides[0] | sides[1]
    truth = {}
    if spec.emphysema:
        truth["emphysema"] = lungs & _destroyed(spec, lungs, random)
        hu[truth["emphysema"]] = -985.0
    for name, patches in (("ground_glass", spec.ground_glass), ("consolidation", spec.consolidations)):
        if patches:
            truth[name] = lungs & np.any([_irregular(axes, patch) for patch in patches], axis=0)
            _filled(hu, name, truth[name], axes)
    if spec.effusion:
        wet = (y < -22.0 + 0.5 * spec.effusion_rise_mm - 0.35 * (z - BASE_MM)) & (z < 10.0 + spec.effusion_rise_mm)
        side = lungs if spec.effusion == "both" else sides[("left", "right").index(spec.effusion)]
        truth["effusion"] = side & wet
        hu[truth["effusion"]] = FLUID_HU
        for name in {"emphysema", "ground_glass", "consolidation"} & truth.keys():
            truth[name] = truth[name] & ~truth["effusion"]
    if spec.nodules_mm:
        balls = (_ball(axes, spec, (a, b, c), diameter) for a, b, c, diameter in spec.nodules_mm)
        truth["nodules"] = np.any(list(balls), axis=0)
        hu[truth["nodules"]] = 40.0
    if spec.coronary:
        truth["coronary"] = (abs(x + 15) < 5) & (abs(y - 45) < 4) & (abs(z + 40) < 9)
        hu[truth["coronary"]] = 600.0
    if spec.aortic:
        truth["aortic"] = (abs(x + 30) < 4) & (abs(y + 34) < 4) & (abs(z + 10) < 13)
        hu[truth["aortic"]] = 600.0
    return truth


def _destroyed(spec: ChestSpec, lungs: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """That share of the lungs, in clusters."""
    if not spec.bulla_mm:
        return random.random(lungs.shape) < spec.emphysema
    field_ = ndimage.gaussian_filter(random.standard_normal(lungs.shape, np.float32), spec.bulla_mm / spec.spacing_mm)
    found: np.ndarray = field_ > np.quantile(field_[lungs], 1.0 - spec.emphysema)
    return found


def _filled(hu: np.ndarray, name: str, where: np.ndarray, axes: Axes) -> None:
    if name == "ground_glass":
        hu[where] = np.maximum(hu[where], -580.0)
        return
    hu[where] = 30.0
    x, y, z = axes
    bronchi = (np.hypot(np.mod(x + 0.3 * z, 26.0) - 13.0, np.mod(y - 0.2 * z, 26.0) - 13.0) < 2.4) & where
    hu[bronchi] = -850.0


def _scanned(hu: np.ndarray, spec: ChestSpec, spacing_kji: tuple[float, ...]) -> np.ndarray:
    if not spec.blur_mm and not spec.motion_mm:
        return hu
    sigma = [spec.blur_mm / mm for mm in spacing_kji]
    sigma[1] = np.hypot(sigma[1], spec.motion_mm / spacing_kji[1])
    return ndimage.gaussian_filter(hu, sigma, mode="nearest", truncate=3.0)


def _irregular(axes: Axes, patch: Patch) -> np.ndarray:
    x, y, z = (a - c for a, c in zip(axes, patch.centre_mm, strict=True))
    a, b, c = patch.radii_mm
    waves = (
        np.sin(x / a * 2.7 + patch.phase) + np.sin(y / b * 3.1 + 2 * patch.phase) + np.sin(z / c * 2.3 - patch.phase)
    )
    found: np.ndarray = (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1.0 + 0.22 * waves
    return found


def _ball(axes: Axes, spec: ChestSpec, centre_mm: tuple[float, float, float], diameter_mm: float) -> np.ndarray:
    """A sphere of the scaled chest: its centre moves with the chest, its size does not change."""
    parts = (((a - c) * s) ** 2 for a, c, s in zip(axes, centre_mm, spec.scale_xyz, strict=True))
    found: np.ndarray = sum(parts) < (diameter_mm / 2) ** 2
    return found


def _axes(spec: ChestSpec) -> tuple[Axes, np.ndarray, tuple[float, ...]]:
    """R, A and S millimetres of the unscaled chest at the voxel centres, to broadcast over k, j, i; IJK to RAS."""
    steps = (spec.spacing_mm, spec.spacing_mm, spec.slice_mm or spec.spacing_mm)
    lines = []
    for half, scale, step in zip(HALF_MM.values(), spec.scale_xyz, steps, strict=True):
        count = round(2 * half * scale / step)
        lines.append((np.arange(count) - (count - 1) / 2) * step)
    matrix = np.diag([*steps, 1.0])
    matrix[:3, 3] = [line[0] for line in lines]
    x, y, z = lines[0][None, None, :], lines[1][None, :, None], lines[2][:, None, None]
    if spec.turn_deg:
        turn = np.deg2rad(spec.turn_deg)
        x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    sx, sy, sz = spec.scale_xyz
    return (x / sx, y / sy, z / sz), matrix, tuple(reversed(steps))


def _ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    return (x / a) ** 2 + (y / b) ** 2 < 1.0


def _ellipsoid(x: np.ndarray, y: np.ndarray, z: np.ndarray, a: float, b: float, c: float, scale: float) -> np.ndarray:
    return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < scale**2
