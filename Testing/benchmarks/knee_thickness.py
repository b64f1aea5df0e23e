"""Cartilage thickness against the reference pipeline, on phantoms, and its cost.

python Testing/benchmarks/knee_thickness.py                 # everything, about four minutes of one core
python Testing/benchmarks/knee_thickness.py --only phantoms # or real, chain, orientations, missing

The reference is mskt 0.1.22 on the shared label map (`knee_reference`); its phantom errors are those it
was measured to have on the same bodies.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import permutations, product
from pathlib import Path
from time import process_time

os.environ.setdefault("OMP_NUM_THREADS", "1")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / part) for part in ("MedAIExtension", "KneeAnalysis", "Testing/unit/knee")]

import numpy as np  # noqa: E402
from knee_phantoms import FINE_KJI_MM, THICK_KJI_MM, shell  # noqa: E402

from KneeAnalysisLib.knee import Knee, knee_from  # noqa: E402
from KneeAnalysisLib.labels import BONES, CARTILAGES, MENISCI, Tissue  # noqa: E402
from KneeAnalysisLib.measures import ray_measures  # noqa: E402
from KneeAnalysisLib.statistics import RegionStatistics, region_statistics  # noqa: E402
from KneeAnalysisLib.thickness import BoneThickness, measure_thickness  # noqa: E402
from MedAILib.grids import reoriented  # noqa: E402
from MedAILib.imageio import read_label_map  # noqa: E402
from MedAILib.volume import LabelMap  # noqa: E402

DATA = Path(os.environ.get("MEDAI_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
REFERENCE_CPU_S = 140.8
OFFSETS = ((0.13, 0.07, 0.11), (0.0, 0.0, 0.0), (0.35, 0.18, 0.09))


def real_map() -> LabelMap:
    return read_label_map(DATA / "knee" / "SAG_3D_DESS_RIGHT_label.nrrd")


def real_knee(label_map: LabelMap | None = None) -> Knee:
    return knee_from(label_map or real_map(), str(DATA / "knee" / "dess_labels.json"))


def reference_regions() -> np.ndarray:
    labels = read_label_map(DATA / "knee_reference" / "subregions.nrrd").layers[0]
    return np.where(labels >= 11, labels, 0).astype(np.uint8)


def reference_means() -> dict[str, dict[str, float]]:
    text = (DATA / "knee_reference" / "ref_0.1.22.json").read_text(encoding="utf-8")
    return json.loads(text)["regions"]


def phantoms() -> None:
    print("\nPhantoms: core points of a 60 degree cap on R = 20 mm, three positions between the voxels")
    print("voxels     body      true |  layer: bias, RMSE, missing | two surfaces: bias, missing | reference: bias")
    theirs = json.loads((DATA / "knee_reference" / "phantom_ref.json").read_text(encoding="utf-8"))
    for spacing, shape, thickness in product((FINE_KJI_MM, THICK_KJI_MM), ("sphere", "cylinder"), (1.0, 1.5, 2.0, 3.0)):
        layer, two = [], []
        for offset in OFFSETS:
            phantom = shell(shape, thickness, spacing, offset_kji_mm=offset)
            (result,) = measure_thickness(phantom.knee)
            core = phantom.core(result.mesh.points_ras_mm)
            layer.append(result.thickness_mm[core] - thickness)
            two.append(result.two_surfaces_mm[core] - thickness)
        reference = _reference_phantom(theirs, shape, thickness, spacing)
        mean, rmse, missing = _errors(layer, thickness)
        two_mean, _, two_missing = _errors(two, thickness)
        beside = f"{reference['bias']:+.3f}  {100 * reference['missing_frac']:5.1f} %" if reference else "-"
        print(
            f"{spacing[1]}/{spacing[0]} {shape:9s} {thickness:.1f} |   {mean:+.3f}  {rmse:.3f}  {missing:5.2f} % |"
            f"        {two_mean:+.3f}  {two_missing:5.2f} % |     {beside}"
        )


def _reference_phantom(rows: list[dict], shape: str, thickness: float, spacing: tuple[float, ...]) -> dict | None:
    for row in rows:
        same_body = row["shape"] == shape and row["t"] == thickness and row["fix"] is None
        if same_body and abs(row["spacing"][2] - spacing[0]) < 1e-6:
            return row
    return None


def _errors(parts: list[np.ndarray], thickness: float) -> tuple[float, float, float]:
    errors = np.concatenate(parts)
    found = errors[errors > -thickness]
    return float(found.mean()), float(np.sqrt((found**2).mean())), float(100 * (1 - found.size / errors.size))


def real() -> None:
    knee, regions = real_knee(), reference_regions()
    results = measure_thickness(knee, regions)
    print("\nReal knee, region means in mm (the reference counts covered points only)")
    print(
        "region               reference | layer, covered   diff | two surfaces  diff | denuded as 0  area mm2  denuded"
    )
    theirs = reference_means()
    worst = {"layer": 0.0, "two": 0.0}
    for row in region_statistics(results, knee, regions):
        mean = theirs.get(row.key, {}).get("mean", float("nan"))
        layer, two = row.covered_mean_mm - mean, row.two_surfaces_mean_mm - mean
        if row.key in theirs:
            worst = {"layer": max(worst["layer"], abs(layer)), "two": max(worst["two"], abs(two))}
        ours = f"{row.covered_mean_mm:.3f}     {layer:+.3f} |    {row.two_surfaces_mean_mm:.3f}     {two:+.3f}"
        extent = f"{row.mean_mm:.3f}     {row.area_mm2:7.0f}   {row.denuded_percent:5.1f} %"
        print(f"{row.key:20s}   {mean:.3f}   |     {ours} |      {extent}")
    print(f"largest difference: layer {worst['layer']:.3f} mm, two surfaces {worst['two']:.3f} mm")
    _own_points(knee, results)


def _own_points(knee: Knee, results: tuple[BoneThickness, ...]) -> None:
    from scipy.spatial import cKDTree

    points = np.load(DATA / "knee_reference" / "femur_points.npy") * [-1, -1, 1]
    expected = np.load(DATA / "knee_reference" / "femur_thickness.npy")
    mesh = results[0].mesh
    distance, near = cKDTree(mesh.points_ras_mm).query(points, k=40)
    normals = (mesh.normals[near] * np.exp(-2 * distance**2)[..., None]).sum(axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    found = ray_measures(knee, Tissue.FEMUR, points, normals)
    covered = expected > 0
    print(
        f"\nAt the reference's {covered.sum()} covered femur points, |difference| in mm at percentiles 50, 90, 95, 99"
    )
    for name, thickness in (("two surfaces", found.two_surfaces_mm), ("layer", found.layer_mm)):
        for which, here in (("all", covered), ("above 1.5 mm", covered & (expected > 1.5))):
            values = np.percentile(np.abs(thickness - expected)[here], (50, 90, 95, 99))
            shown = "  ".join(f"{v:.4f}" for v in values)
            print(f"{name:13s} {which:13s} {shown}  missing {(thickness[here] == 0).sum()}")


def chain() -> None:
    """The whole chain in a process of its own, imports counted."""
    subprocess.run([sys.executable, __file__, "--only", "one-chain"], check=True)


def one_chain() -> None:
    start = process_time()
    seconds: dict[str, float] = {"imports of this file": start}

    def lap(name: str) -> None:
        nonlocal start
        seconds[name] = process_time() - start
        start = process_time()

    knee = real_knee()
    lap("read, canonical labels")
    regions, name = reference_regions(), "read the reference's regions"
    try:
        from KneeAnalysisLib.subregions import subregions

        regions, name = subregions(knee).labels, "sub-regions"
    except ImportError:
        pass
    lap(name)
    results = measure_thickness(knee, regions)
    lap("bone meshes, thickness")
    from KneeAnalysisLib.meshes import cartilage_mesh

    for cartilage in CARTILAGES:
        cartilage_mesh(knee, cartilage)
    lap("cartilage meshes")
    rows = region_statistics(results, knee, regions)
    lap("statistics")
    total = sum(seconds.values())
    print("\nCPU seconds, one thread: " + ", ".join(f"{key} {value:.2f}" for key, value in seconds.items()))
    print(f"total {total:.2f} s, the reference {REFERENCE_CPU_S} s: {REFERENCE_CPU_S / total:.0f} times fewer")
    theirs = reference_means()
    print("with our own sub-regions, difference to the reference in mm (layer, two surfaces):")
    for row in rows:
        if row.key in theirs:
            mean = theirs[row.key]["mean"]
            print(f"  {row.key:20s} {row.covered_mean_mm - mean:+.3f}  {row.two_surfaces_mean_mm - mean:+.3f}")


def orientations() -> None:
    label_map = real_map()
    base: dict[str, float] = {}
    worst = 0.0
    codes = ["".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]
    for code in codes:
        knee = real_knee(reoriented(label_map, code))
        found = {row.key: row.mean_mm for row in region_statistics(measure_thickness(knee), knee)}
        base = base or found
        worst = max(worst, *(abs(found[key] - base[key]) for key in base))
    print(f"\n{len(codes)} orientations of the real map: the table changes by at most {worst:.5f} mm")


def missing() -> None:
    print("\nMissing tissues")
    knee = real_knee()
    cases = {
        "no patella": _erased(knee, Tissue.PATELLA, Tissue.PATELLAR_CARTILAGE),
        "no menisci": _erased(knee, *MENISCI),
        "menisci only": _erased(knee, *BONES, *CARTILAGES, Tissue.FIBULA),
        "femur cut 12 mm above the joint": _cut(knee, 12.0),
    }
    for name, label_map in cases.items():
        case = knee_from(label_map)
        rows = region_statistics(measure_thickness(case), case)
        lacking = ", ".join(tissue.key for tissue in case.missing) or "nothing"
        print(f"{name}: {_short(rows)}; missing: {lacking}; {case.side.value if case.side else 'side unknown'}")


def _erased(knee: Knee, *tissues: Tissue) -> LabelMap:
    gone = np.isin(knee.labels, [int(tissue) for tissue in tissues])
    return knee.label_map(np.where(gone, np.uint8(0), knee.labels))


def _cut(knee: Knee, above_mm: float) -> LabelMap:
    joint = int(np.flatnonzero(knee.mask(Tissue.FEMUR).any(axis=(0, 2)))[-1])
    labels = knee.labels.copy()
    labels[:, : joint - round(above_mm / knee.geometry.spacing_kji_mm[1])] = 0
    return knee.label_map(labels)


def _short(rows: tuple[RegionStatistics, ...]) -> str:
    return ", ".join(f"{row.key} {row.mean_mm:.2f}" for row in rows) or "nothing to measure"


PARTS = {"phantoms": phantoms, "real": real, "chain": chain, "orientations": orientations, "missing": missing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*PARTS, "one-chain"])
    only = parser.parse_args().only
    if only == "one-chain":
        one_chain()
        return
    for name, part in PARTS.items():
        if only in (None, name):
            part()


if __name__ == "__main__":
    main()
