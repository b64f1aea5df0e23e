"""The femur's frame and the sub-regions: against the reference, after rotations, on knees cut short."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmarks.knee_moves import MIRROR, Move, dice_by_region, moved_knee, rotations, stability
from benchmarks.knee_others import read_femur, voxel_knee
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from KneeAnalysisLib.alignment import Similarity, aligned, from_landmarks, turned
from KneeAnalysisLib.finer import FINER_REGIONS, finer_subregions, plateau_parts
from KneeAnalysisLib.frame import femoral_frame, femur_template, tibial_frame, voxel_points_ras_mm
from KneeAnalysisLib.knee import Knee, knee_from
from KneeAnalysisLib.labels import CARTILAGES, FEMORAL_REGIONS, Tissue
from KneeAnalysisLib.side import Side
from KneeAnalysisLib.subregions import SubRegions, femoral_cuts, subregions
from KneeAnalysisLib.surface import SurfacePoints, surface_points
from MedAILib.errors import InputError
from MedAILib.grids import reoriented
from MedAILib.imageio import read_label_map
from MedAILib.volume import Geometry

LEAST_DICE = 0.97


@pytest.fixture(scope="module")
def knee(shared_data) -> Knee:
    """The real right knee."""
    return knee_from(
        read_label_map(shared_data("knee/SAG_3D_DESS_RIGHT_label.nrrd")), str(shared_data("knee/dess_labels.json"))
    )


@pytest.fixture(scope="module")
def base(knee) -> SubRegions:
    return subregions(knee)


@pytest.fixture(scope="module")
def other_knee(shared_data) -> Knee:
    """A femur that is not the template's."""
    return voxel_knee(read_femur(shared_data("knee/1_RIGHT_femur_Nov_02_2021.vtk")))


def without(knee: Knee, *tissues: Tissue) -> Knee:
    labels = np.where(knee.mask(*tissues), 0, knee.labels)
    return Knee(labels, knee.geometry, knee.side)


def test_regions_agree_with_the_reference_map(base, shared_data):
    theirs = reoriented(read_label_map(shared_data("knee_reference/subregions.nrrd")), "PIR").layers[0]
    scores = dice_by_region(base.labels, theirs)
    assert min(scores.values()) > 0.99, scores
    assert base.notes == ()


def test_thickness_means_stay_in_our_regions(knee, base, shared_data):
    expected = json.loads(shared_data("knee_reference/ref_0.1.22.json").read_text(encoding="utf-8"))["regions"]
    points = np.load(shared_data("knee_reference/femur_points.npy")) * (-1, -1, 1)
    thickness_mm = np.load(shared_data("knee_reference/femur_thickness.npy"))
    cartilage = knee.mask(Tissue.FEMORAL_CARTILAGE)
    _, nearest = cKDTree(voxel_points_ras_mm(cartilage, knee.geometry)).query(points)
    values = base.labels[cartilage][nearest]
    for region in FEMORAL_REGIONS:
        mean = thickness_mm[(values == region.value) & (thickness_mm > 0)].mean()
        assert mean == pytest.approx(expected[region.key]["mean"], abs=0.02), region.key


@pytest.mark.parametrize("move", [*rotations((-10.0, 10.0)), Move("mirrored", MIRROR)], ids=lambda move: move.name)
def test_every_region_survives_a_rotation_and_a_mirror(knee, base, move):
    found = stability(knee, base, move)
    assert min(found.there_and_back.values()) >= LEAST_DICE, found
    assert min(found.assigned.values()) >= 0.985, found
    assert found.turn_error_deg < 0.3
    assert found.seconds < 3.0


@pytest.mark.parametrize("move", [Move("left-right", turned(0, 10)), Move("mirrored", MIRROR)], ids=lambda m: m.name)
def test_a_femur_that_is_not_the_templates_is_as_stable(other_knee, move):
    found = stability(other_knee, subregions(other_knee), move)
    assert min(found.there_and_back.values()) >= LEAST_DICE, found


def test_regions_of_another_femur_agree_with_those_stored_for_it(other_knee, shared_data):
    femur = read_femur(shared_data("knee/1_RIGHT_femur_Nov_02_2021.vtk"))
    base = subregions(other_knee)
    cartilage = other_knee.mask(Tissue.FEMORAL_CARTILAGE)
    covered = femur.regions > 10
    places = voxel_points_ras_mm(cartilage, other_knee.geometry)
    _, nearest = cKDTree(places).query(femur.points_ras_mm[covered])
    scores = dice_by_region(base.labels[cartilage][nearest], femur.regions[covered])
    assert min(scores.values()) > 0.93, scores


def test_the_large_turn_of_a_knee_is_found_without_its_cartilages(knee):
    move = Move("large", turned(0, 20) @ turned(1, -12) @ turned(2, 15))
    bare = moved_knee(without(knee, *CARTILAGES), move)
    axes = femoral_frame(knee).axes_ras @ move.matrix.T
    assert np.abs(femoral_frame(bare).axes_ras - axes).max() < np.deg2rad(0.5)


def test_missing_tissues_leave_the_other_regions_as_they_are(knee, base):
    rest = subregions(
        without(
            knee, Tissue.PATELLA, Tissue.PATELLAR_CARTILAGE, Tissue.MEDIAL_MENISCUS, Tissue.LATERAL_TIBIAL_CARTILAGE
        )
    )
    assert min(dice_by_region(base.labels, rest.labels).values()) > 0.995
    assert not np.isin(rest.labels, [Tissue.PATELLAR_CARTILAGE, Tissue.LATERAL_TIBIAL_CARTILAGE]).any()


def test_a_femur_cut_above_the_joint_keeps_its_regions(knee, base):
    assert base.frame is not None
    top = base.frame.points_ras_mm(np.array([[0.0, 0.0, 28.0]]))
    row = int((np.linalg.inv(knee.geometry.ijk_to_ras) @ np.append(top, 1.0))[1])
    matrix = knee.geometry.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 1] * row
    kept = knee.labels[:, row:]
    found = subregions(Knee(kept, Geometry(kept.shape, matrix), knee.side))
    there = base.labels[:, row:]
    assert min(dice_by_region(there, found.labels).values()) >= LEAST_DICE


def test_a_femur_without_its_lateral_part_keeps_the_borders_of_the_medial_one(knee, base):
    kept = knee.labels[:96]
    found = subregions(Knee(kept, Geometry(kept.shape, knee.geometry.ijk_to_ras), Side.RIGHT))
    scores = dice_by_region(base.labels[:96], found.labels)
    assert min(scores[value] for value in (11, 12, 14)) > 0.99, scores


def test_without_a_femur_the_regions_follow_the_patient_axes_and_say_so(knee, base):
    found = subregions(without(knee, Tissue.FEMUR))
    assert any("no femur" in note for note in found.notes)
    assert min(dice_by_region(base.labels, found.labels).values()) > 0.85  # the knee lies 5 degrees askew


def test_a_knee_without_femoral_cartilage_has_no_femoral_regions(knee):
    found = subregions(without(knee, Tissue.FEMORAL_CARTILAGE))
    assert found.frame is None and found.cuts is None
    assert not (found.labels > 10).any()


def test_an_unknown_side_is_refused(knee):
    with pytest.raises(InputError, match="side of this knee"):
        subregions(Knee(knee.labels, knee.geometry, None))


def test_an_island_of_one_tibial_cartilage_in_the_other_compartment_is_given_to_it(knee, base):
    labels = knee.labels.copy()
    lateral = np.argwhere(labels == Tissue.LATERAL_TIBIAL_CARTILAGE)
    far = lateral[lateral[:, 0] > np.quantile(lateral[:, 0], 0.97)]
    labels[tuple(far.T)] = Tissue.MEDIAL_TIBIAL_CARTILAGE
    found = subregions(Knee(labels, knee.geometry, knee.side))
    assert np.array_equal(found.labels, base.labels)
    assert any("other compartment" in note for note in found.notes)


def test_region_labels_have_names_and_colours(base):
    found = {info.label_value: info for info in base.label_map("knee").segments}
    assert found[12].id == "med_wb_fem_cart"
    assert found[Tissue.PATELLAR_CARTILAGE].id == "patellar_cartilage"
    assert Tissue.FEMORAL_CARTILAGE not in found


def test_finer_regions_part_their_whole(knee, base):
    finer = finer_subregions(knee, base)
    assert finer.notes == ()
    wholes = {11: range(21, 24), 12: range(24, 27), 13: range(27, 30), 5: range(31, 36), 6: range(41, 46)}
    for whole, parts in wholes.items():
        assert np.array_equal(base.labels == whole, np.isin(finer.labels, parts))
    values = {region.value for region in FINER_REGIONS}
    assert values <= set(np.unique(finer.labels).tolist())
    assert {info.label_value for info in finer.label_map(base).segments} >= values


def test_finer_regions_lie_where_their_names_say(knee, base):
    finer = finer_subregions(knee, base)
    frame = tibial_frame(knee)
    places = {
        region.key: frame.coordinates_mm(voxel_points_ras_mm(finer.labels == region.value, knee.geometry)).mean(axis=0)
        for region in FINER_REGIONS
    }
    for side in ("med", "lat"):
        anterior, posterior = places[f"ant_{side}_tib_cart"], places[f"post_{side}_tib_cart"]
        interior, exterior = places[f"int_{side}_tib_cart"], places[f"ext_{side}_tib_cart"]
        assert anterior[1] > places[f"cent_{side}_tib_cart"][1] > posterior[1]
        assert abs(interior[0]) < abs(places[f"cent_{side}_tib_cart"][0]) < abs(exterior[0])
        assert abs(places[f"int_{side}_wb_fem_cart"][0]) < abs(places[f"ext_{side}_wb_fem_cart"][0])
    assert places["med_trochlea_cart"][0] < places["cent_trochlea_cart"][0] < places["lat_trochlea_cart"][0]


def test_finer_regions_without_one_plateau_say_what_is_missing(knee, base):
    cut = without(knee, Tissue.MEDIAL_TIBIAL_CARTILAGE)
    finer = finer_subregions(cut, subregions(cut))
    assert "plateaus are not split" in finer.notes[0]


def test_the_central_plateau_is_a_fifth_of_its_area():
    x, y = np.meshgrid(np.arange(-14.0, 14.0, 0.35), np.arange(-20.0, 20.0, 0.35))
    inside = (x / 14.0) ** 2 + (y / 20.0) ** 2 < 1.0
    parts = plateau_parts(x[inside], y[inside])
    shares = np.bincount(parts, minlength=5) / parts.size
    assert shares[0] == pytest.approx(0.2, abs=0.01)
    assert shares[1:] == pytest.approx(0.2, abs=0.01)


@settings(max_examples=12)
@given(
    turn=st.tuples(*[st.floats(-15.0, 15.0)] * 3),
    shift=st.tuples(*[st.floats(-5.0, 5.0)] * 3),
    scale=st.floats(0.85, 1.2),
    mirrored=st.booleans(),
)
def test_the_template_is_found_again_where_it_is_laid(turn, shift, scale, mirrored):
    template = femur_template().points_mm[::3]
    rotation = turned(0, turn[0]) @ turned(1, turn[1]) @ turned(2, turn[2])
    mirror = np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0])
    true = Similarity(rotation @ mirror, np.array(shift), scale)
    start = Similarity(mirror, np.zeros(3))
    normals = _rough_normals(template) @ true.rotation.T
    found = aligned(template, SurfacePoints(true.applied(template), normals), [start]).similarity
    assert np.abs(found.applied(template) - true.applied(template)).max() < 0.5
    assert found.inverted(found.applied(template)) == pytest.approx(template)


@given(turn=st.tuples(*[st.floats(-180.0, 180.0)] * 3), mirrored=st.booleans())
def test_landmarks_give_any_rotation(turn, mirrored):
    points = femur_template().centres_mm
    rotation = turned(0, turn[0]) @ turned(1, turn[1]) @ turned(2, turn[2]) @ np.diag([-1.0 if mirrored else 1.0, 1, 1])
    found = from_landmarks(points, points @ rotation.T + 7.0, mirrored)
    assert found.rotation == pytest.approx(rotation, abs=1e-6)


def test_surface_points_of_a_ball_lie_on_it_and_its_cut_face_has_none():
    spacing = np.diag([0.4, 0.5, 0.9, 1.0])
    geometry = Geometry((30, 60, 70), spacing)
    k, j, i = np.indices(geometry.shape_kji)
    radius = np.sqrt((0.4 * (i - 35)) ** 2 + (0.5 * (j - 30)) ** 2 + (0.9 * k) ** 2)
    found = surface_points(radius < 10.0, geometry, 0.7)
    centre = np.array([14.0, 15.0, 0.0])
    away = found.points_ras_mm - centre
    distance = np.linalg.norm(away, axis=1)
    assert abs(distance.mean() - 10.0) < 0.1 and distance.min() > 9.6
    assert (np.einsum("nc,nc->n", away, found.normals_ras) / distance).min() > 0.88


def test_defects_at_the_notch_and_at_the_end_do_not_move_the_cuts_far(knee, base):
    assert base.frame is not None and base.cuts is not None
    points = base.frame.coordinates_mm(voxel_points_ras_mm(knee.mask(Tissue.FEMORAL_CARTILAGE), knee.geometry))
    gone = points[:, 1] < base.cuts.posterior_end_mm + 15.0
    cuts = femoral_cuts(points[~gone], base.frame.scale, knee.geometry.spacing_kji_mm)
    assert cuts.posterior_end_mm == pytest.approx(base.cuts.posterior_end_mm, abs=1.0)
    assert any("posterior end" in note for note in cuts.notes)


def _rough_normals(points: np.ndarray) -> np.ndarray:
    """Direction of least spread among the neighbours."""
    _, neighbours = cKDTree(points).query(points, k=9)
    local = points[neighbours] - points[neighbours].mean(axis=1, keepdims=True)
    return np.linalg.eigh(np.einsum("nkc,nkd->ncd", local, local))[1][:, :, 0]
