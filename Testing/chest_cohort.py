"""Cohorts of synthetic chests: each differs by chance, labels are known; written as CT-RATE is laid out.

Seeds decide everything: chests of other seeds are new patients.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from chest_phantoms import APEX_MM, BASE_MM, LEFT_X_MM, RIGHT_X_MM, Chest, ChestSpec, Patch, in_lung, make_chest

from CTReportLib.findings import FINDINGS, LOCALISED, find
from MedAILib.imageio import write_label_map, write_volume
from MedAILib.volume import LabelMap, SegmentInfo

PREVALENCE = 0.35
NOISE_HU = 30.0
TRUTH_OF = {
    "pericardial_effusion": "pericardial",
    "pleural_effusion": "effusion",
    "consolidation": "consolidation",
    "ground_glass_opacity": "ground_glass",
    "lung_nodule": "nodules",
}
"""Localised findings, and what their masks are called in a phantom's truth."""
LARGE_HEART = 1.25
"""A heart of this size and above is enlarged; none is made from 1.12 to 1.3."""


@dataclass(frozen=True, eq=False)
class Patient:
    """A made-up patient.

    Attributes
    ----------
    seed : int
    spec : ChestSpec
    chest : Chest
    """

    seed: int
    spec: ChestSpec
    chest: Chest

    @property
    def volume_name(self) -> str:
        """As CT-RATE names files: split, patient, scan, reconstruction."""
        return f"train_{self.seed}_a_1.nii.gz"

    @property
    def labels(self) -> dict[str, int]:
        """1 or 0 for every finding that these phantoms may show; the others of the eighteen are not known."""
        return labels_of(self.spec)

    def mask(self, finding: str) -> np.ndarray:
        """Of a localised finding: bool, shape (k, j, i); empty where it is not there."""
        found = self.chest.truth.get(TRUTH_OF[finding])
        return np.zeros(self.chest.left.shape, dtype=bool) if found is None else found

    @property
    def masks(self) -> LabelMap:
        """A segment for each localised finding, empty ones too."""
        layers = tuple(self.mask(one.id).astype(np.uint8) for one in LOCALISED)
        segments = tuple(SegmentInfo(one.id, one.name, 1, layer) for layer, one in enumerate(LOCALISED))
        return LabelMap(layers, self.chest.volume.ijk_to_ras, segments, "Findings")


def patient(seed: int) -> Patient:
    """The patient of that seed."""
    spec = random_spec(seed)
    return Patient(seed, spec, make_chest(spec))


def labels_of(spec: ChestSpec) -> dict[str, int]:
    """What a chest of that description shows, by ids of findings."""
    found = {
        "arterial_wall_calcification": spec.aortic,
        "cardiomegaly": spec.heart_scale >= LARGE_HEART,
        "pericardial_effusion": spec.pericardial_mm > 0,
        "coronary_artery_wall_calcification": spec.coronary,
        "emphysema": spec.emphysema > 0,
        "lung_nodule": bool(spec.nodules_mm),
        "lung_opacity": bool(spec.consolidations or spec.ground_glass),
        "pleural_effusion": bool(spec.effusion),
        "consolidation": bool(spec.consolidations),
    }
    return {name: int(shown) for name, shown in found.items()}


def random_spec(seed: int) -> ChestSpec:
    """A chest as chance has it: who it is, what is wrong with it, and what only looks wrong."""
    random = np.random.default_rng([seed, 7])
    build = _build(random, seed)
    there = dict(zip(("effusion", "nodules", "emphysema", "dense", "hazy", "heart", "sac", "coronary", "aortic"),
                     random.random(9) < PREVALENCE, strict=True))  # fmt: skip
    large = random.uniform(1.3, 1.5) if there["heart"] else random.uniform(0.85, 1.12)
    sac = random.uniform(9.0, 20.0) if there["sac"] else 0.0
    if there["heart"] and there["sac"]:
        large = random.uniform(1.27, 1.35)
    spec = ChestSpec(**{**build, "heart_scale": large, "pericardial_mm": sac})
    wet = {}
    if there["effusion"]:
        side = str(random.choice(["left", "right", "both"], p=[0.4, 0.4, 0.2]))
        wet = {"effusion": side, "effusion_rise_mm": random.uniform(-30.0, 35.0)}
    patches = {name: _patches(random, spec) if shown else ()
               for name, shown in (("consolidations", there["dense"]), ("ground_glass", there["hazy"]))}  # fmt: skip
    nodules = _spots(random, spec, int(random.integers(1, 4)), (7.0, 26.0)) if there["nodules"] else ()
    ill = {"emphysema": random.uniform(0.08, 0.4), "bulla_mm": random.uniform(0.0, 5.0)} if there["emphysema"] else {}
    calcium = {"coronary": bool(there["coronary"]), "aortic": bool(there["aortic"])}
    return ChestSpec(**{**vars(spec), **wet, **patches, **ill, **calcium, "nodules_mm": nodules})


def write_ct_rate(
    folder: Path,
    seeds: Iterable[int],
    *,
    masks: bool = True,
    split: str = "train",
    columns: Iterable[str] | None = None,
) -> list[Patient]:
    """Write patients as CT-RATE lies: volumes, a table of labels, and masks beside; what was written.

    Parameters
    ----------
    folder : Path
    seeds : iterable of int
    masks : bool
        Also write ``masks``.
    split : str
        Start of the tables' names.
    columns : iterable of str, optional
        Names of the findings in the table; default all eighteen, those that phantoms do not have empty.
    """
    for name in ("volumes", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    written = []
    for seed in seeds:
        one = patient(seed)
        write_volume(one.chest.volume, folder / "volumes" / one.volume_name)
        if masks:
            write_label_map(one.masks, folder / "masks" / one.volume_name.replace(".nii.gz", ".seg.nrrd"))
        written.append(one)
    names = list(columns) if columns is not None else [one.name for one in FINDINGS]
    with (folder / f"{split}_predicted_labels.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["VolumeName", *names])
        for one in written:
            known = one.labels
            cells = [known.get(found.id, "") if (found := find(name)) else "" for name in names]
            rows.writerow([one.volume_name, *cells])
    return written


def _build(random: np.random.Generator, seed: int) -> dict:
    """Who is in the scanner, and what is seen in healthy people too."""
    size = random.uniform(0.88, 1.12)
    scale = tuple(float(size * random.uniform(0.95, 1.05)) for _ in range(3))
    base = ChestSpec()
    near = [(random.choice([-1, 1]) * random.uniform(34, 42), random.uniform(-25, 15), random.uniform(10, 40),
             random.uniform(5, 9)) for _ in range(int(random.integers(0, 4)))]  # fmt: skip
    return {
        "blood_hu": float(random.choice([random.uniform(30, 55), random.uniform(130, 240)], p=[0.7, 0.3])),
        "lung_hu": random.uniform(-885.0, -825.0),
        "vessels": int(random.integers(14, 40)),
        "vessel_mm": random.uniform(2.5, 4.2),
        "fissures": bool(random.random() < 0.5),
        "granulomas_mm": _spots(random, base, int(random.integers(0, 3)), (3.5, 6.0)),
        "hilar_nodes_mm": tuple(tuple(float(part) for part in one) for one in near),
        "raised_mm": tuple(float(mm) for mm in np.maximum(random.uniform(-30.0, 30.0, 2), 0.0)),
        "scale_xyz": scale,
        "turn_deg": random.uniform(-6.0, 6.0),
        "spacing_mm": float(random.choice([2.5, 3.0, 3.5])),
        "slice_mm": float(random.choice([2.5, 3.0, 4.0])),
        "blur_mm": random.uniform(0.5, 1.5),
        "motion_mm": float(random.choice([0.0, random.uniform(1.0, 3.0)], p=[0.8, 0.2])),
        "noise_hu": NOISE_HU,
        "seed": seed,
    }


def _patches(random: np.random.Generator, spec: ChestSpec) -> tuple[Patch, ...]:
    found = []
    for x, y, z, _ in _spots(random, spec, int(random.integers(1, 3)), (1.0, 2.0)):
        radii = tuple(float(mm) for mm in random.uniform(14.0, 34.0, 3))
        found.append(Patch((x, y, z), (radii[0], radii[1], radii[2]), float(random.uniform(0, 6))))
    return tuple(found)


def _spots(
    random: np.random.Generator, spec: ChestSpec, count: int, diameters_mm: tuple[float, float]
) -> tuple[tuple[float, float, float, float], ...]:
    """Places in the lungs, each with a diameter."""
    found: list[tuple[float, float, float, float]] = []
    while len(found) < count:
        centre = float(random.choice([LEFT_X_MM, RIGHT_X_MM]))
        x, y, z = centre + random.uniform(-48, 48), random.uniform(-66, 68), random.uniform(BASE_MM, 0.7 * APEX_MM)
        if in_lung(spec, (x, y, z)):
            found.append((float(x), float(y), float(z), float(random.uniform(*diameters_mm))))
    return tuple(found)
