"""Sub-regions of the knee against the reference and after rotations, and T2 on phantoms and on a real series.

python Testing/benchmarks/knee_regions.py                    # the tables
python Testing/benchmarks/knee_regions.py --write-template   # make the femur template from the shared label map
"""

from __future__ import annotations

import argparse
import json
from io import BytesIO
from time import process_time

import numpy as np
from cases import DATA
from knee_moves import MIRROR, Move, dice_by_region, rotations, stability
from knee_others import read_femur, voxel_knee
from knee_t2 import ECHO_TIMES_MS, T2_MS, decays, magnitudes

from KneeAnalysisLib.alignment import turned
from KneeAnalysisLib.decay import Decay, NoiseFloor, log_linear, non_linear
from KneeAnalysisLib.depth import depth_split
from KneeAnalysisLib.echoes import read_echoes
from KneeAnalysisLib.frame import LANDMARK_TISSUES, TEMPLATE_FILE, Frame, voxel_points_ras_mm
from KneeAnalysisLib.knee import Knee, knee_from
from KneeAnalysisLib.labels import CARTILAGES, FEMORAL_REGIONS, Tissue
from KneeAnalysisLib.subregions import SubRegions, femoral_cuts, subregions
from KneeAnalysisLib.surface import surface_points
from KneeAnalysisLib.t2 import DecayFit, T2Options, t2_map
from MedAILib.atomic import write_bytes
from MedAILib.grids import reoriented
from MedAILib.imageio import read_label_map

TEMPLATE_POINTS = 3000
TEMPLATE_HEIGHT = 0.62
"""Of the femur's width."""
NOISE_SNR = 50.0
DEGREES = (-10.0, -6.0, 6.0, 10.0)


def real_knee() -> Knee:
    return knee_from(
        read_label_map(DATA / "knee" / "SAG_3D_DESS_RIGHT_label.nrrd"), str(DATA / "knee" / "dess_labels.json")
    )


def rotation_table(knee: Knee, base: SubRegions, degrees: tuple[float, ...] = DEGREES) -> None:
    moves = [*rotations(degrees), Move("mirrored (left)", MIRROR)]
    moves.append(Move("+7 deg all axes", turned(0, 7) @ turned(1, 7) @ turned(2, 7)))
    print("Sub-regions after a move, Dice of 11..15: there and back | nearest-neighbour ceiling | borders alone")
    for move in moves:
        found = stability(knee, base, move)
        columns = [_row(values) for values in (found.there_and_back, found.ceiling, found.assigned)]
        cost = f"axes off {found.turn_error_deg:.2f} deg, {found.seconds:.1f} CPU s"
        print(f"{move.name:28s} {' | '.join(columns)}   {cost}")


def reference_table(knee: Knee, base: SubRegions) -> None:
    folder = DATA / "knee_reference"
    theirs = reoriented(read_label_map(folder / "subregions.nrrd"), "PIR").layers[0]
    scores = dice_by_region(base.labels, theirs)
    expected = json.loads((folder / "ref_0.1.22.json").read_text(encoding="utf-8"))["regions"]
    values = region_of_points(knee, base, np.load(folder / "femur_points.npy") * (-1, -1, 1))
    thickness_mm = np.load(folder / "femur_thickness.npy")
    print("\nAgainst the reference: Dice, mean thickness (mm) of its own vertices in our regions and in its own")
    for region in FEMORAL_REGIONS:
        own = thickness_mm[(values == region.value) & (thickness_mm > 0)].mean()
        print(f"{region.key:22s} {scores[region.value]:.4f}  {own:.3f}  {expected[region.key]['mean']:.3f}")


def region_of_points(knee: Knee, base: SubRegions, points_ras_mm: np.ndarray) -> np.ndarray:
    """Region of the cartilage voxel nearest to each point."""
    from scipy.spatial import cKDTree

    cartilage = knee.mask(Tissue.FEMORAL_CARTILAGE)
    _, nearest = cKDTree(voxel_points_ras_mm(cartilage, knee.geometry)).query(points_ras_mm)
    return base.labels[cartilage][nearest]


def other_knees_table() -> None:
    """Femurs of two other people with regions stored per vertex by an older version of the reference."""
    print("\nTwo other femurs, Dice of vertices with cartilage, mean thickness (mm) in our and in the stored regions")
    for number in (1, 2):
        femur = read_femur(DATA / "knee" / f"{number}_RIGHT_femur_Nov_02_2021.vtk")
        knee = voxel_knee(femur)
        base = subregions(knee)
        covered = femur.regions > 10
        stored, thickness_mm = femur.regions[covered], femur.thickness_mm[covered]
        ours = region_of_points(knee, base, femur.points_ras_mm[covered])
        means = [
            f"{thickness_mm[ours == r.value].mean():.2f}/{thickness_mm[stored == r.value].mean():.2f}"
            for r in FEMORAL_REGIONS
        ]
        assert base.frame is not None
        fit = f"template {base.frame.residual_mm:.2f} mm off, tilted {base.frame.tilt_deg:.0f} deg"
        print(f"femur {number}: {_row(dice_by_region(ours, stored))}   {'  '.join(means)}   {fit}")
        rotation_table(knee, base, (-10.0, 10.0))


def depth_table(knee: Knee) -> None:
    start = process_time()
    split = depth_split(knee)
    print(f"\nRelative depth, {process_time() - start:.1f} CPU s: deep and superficial voxels, mean")
    for tissue in CARTILAGES:
        depth = split.relative_depth[knee.mask(tissue)]
        print(f"{tissue.key:26s} {int((depth < 0.5).sum()):6d} {int((depth >= 0.5).sum()):6d}  {depth.mean():.3f}")


def t2_phantom_table() -> None:
    print(f"\nT2 phantoms, SNR {NOISE_SNR:g}, 20 000 voxels: bias of the mean (SD) in ms")
    times = np.array(ECHO_TIMES_MS)
    for t2_ms in T2_MS:
        signals = magnitudes(decays(t2_ms, 20_000), NOISE_SNR)
        fits: dict[str, Decay] = {
            "log-linear": log_linear(signals, times),
            "no floor": non_linear(signals, times),
            "Rician": non_linear(signals, times, floor=NoiseFloor.RICIAN, noise_sd=1000.0 / NOISE_SNR),
            "offset": non_linear(signals, times, floor=NoiseFloor.OFFSET),
        }
        columns = [f"{name} {np.nanmean(d.t2_ms) - t2_ms:+.2f} ({np.nanstd(d.t2_ms):.2f})" for name, d in fits.items()]
        print(f"{t2_ms:4g}  {'  '.join(columns)}")


def t2_real_table() -> None:
    start = process_time()
    series = read_echoes(DATA / "dicom" / "knee_mese_t2")
    print(f"\nReal multi-echo series ({len(series.echoes)} echoes), read in {process_time() - start:.1f} CPU s")
    for options in (T2Options(fit=DecayFit.LOG_LINEAR), T2Options(), T2Options(skip_first_echo=True)):
        start = process_time()
        found = t2_map(series, options)
        values = found.t2_ms.array[found.t2_ms.array > 0]
        seconds = process_time() - start
        print(f"median {np.median(values):.2f} ms of {values.size} voxels, {seconds:.1f} CPU s. {found.stated}")


def write_template(knee: Knee) -> None:
    """Points of the femur in the axes of its image, the origin at the front of its notch."""
    directions = knee.geometry.ijk_to_ras[:3, :3] / np.linalg.norm(knee.geometry.ijk_to_ras[:3, :3], axis=0)
    frame = Frame(np.zeros(3), np.stack([directions[:, 2], -directions[:, 0], -directions[:, 1]]))
    places = {t: frame.coordinates_mm(voxel_points_ras_mm(knee.mask(t), knee.geometry)) for t in LANDMARK_TISSUES}
    cartilage = places[Tissue.FEMORAL_CARTILAGE]
    cuts = femoral_cuts(cartilage, None, knee.geometry.spacing_kji_mm)
    at_notch = np.abs(cartilage[:, :2] - (cuts.middle_mm, cuts.notch_mm)).max(axis=1) < 2.0
    origin = np.array([cuts.middle_mm, cuts.notch_mm, cartilage[at_notch, 2].mean()])
    points = frame.coordinates_mm(surface_points(knee.mask(Tissue.FEMUR), knee.geometry).points_ras_mm) - origin
    points = points[points[:, 2] < points[:, 2].min() + TEMPLATE_HEIGHT * np.ptp(points[:, 0])]
    chosen = np.random.default_rng(7).choice(len(points), TEMPLATE_POINTS, replace=False)
    content = BytesIO()
    np.savez_compressed(
        content,
        points_hundredths_mm=np.rint(points[chosen] * 100.0).astype(np.int16),
        centres_mm=np.array([places[t].mean(axis=0) - origin for t in LANDMARK_TISSUES], np.float32),
        posterior_mm=np.float32(cuts.posterior_end_mm - cuts.notch_mm),
    )
    write_bytes(TEMPLATE_FILE, content.getvalue())


def _row(scores: dict[int, float]) -> str:
    return " ".join(f"{scores[region.value]:.3f}" for region in FEMORAL_REGIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-template", action="store_true", help="make the femur template anew and stop")
    arguments = parser.parse_args()
    knee = real_knee()
    if arguments.write_template:
        write_template(knee)
        return
    base = subregions(knee)
    reference_table(knee, base)
    rotation_table(knee, base)
    other_knees_table()
    depth_table(knee)
    t2_phantom_table()
    t2_real_table()


if __name__ == "__main__":
    main()
