import json
from dataclasses import replace

import numpy as np
import pytest
from knee_phantoms import FINE_KJI_MM, THICK_KJI_MM, knee_label_map, shell, without

from KneeAnalysisLib.knee import Knee, knee_from
from KneeAnalysisLib.labels import BONES, CARTILAGES, CARTILAGES_OF, MENISCI, Tissue
from KneeAnalysisLib.measures import ThicknessMethod, ThicknessOptions, ray_measures
from KneeAnalysisLib.side import Side
from KneeAnalysisLib.statistics import region_statistics
from KneeAnalysisLib.thickness import measure_thickness, with_regions
from MedAILib.errors import GeometryMismatch, InputError
from MedAILib.grids import reoriented
from MedAILib.volume import Geometry, LabelMap

TWO_SURFACES = ThicknessOptions(method=ThicknessMethod.TWO_SURFACES)


def errors_and_missing(phantom, result):
    core = phantom.core(result.mesh.points_ras_mm)
    assert core.sum() > 1000
    found = result.thickness_mm[core]
    return found[found > 0] - phantom.thickness_mm, float((found == 0).mean())


@pytest.mark.parametrize("spacing", [FINE_KJI_MM, THICK_KJI_MM], ids=["0.7mm", "1.6mm"])
@pytest.mark.parametrize("shape", ["sphere", "cylinder"])
@pytest.mark.parametrize("thickness_mm", [1.0, 1.5, 2.0, 3.0])
def test_known_thickness_is_measured_without_bias_and_without_missing_points(shape, thickness_mm, spacing):
    phantom = shell(shape, thickness_mm, spacing)
    (result,) = measure_thickness(phantom.knee)
    errors, missing = errors_and_missing(phantom, result)
    assert abs(errors.mean()) <= (0.06 if thickness_mm < 1.5 else 0.03)
    assert missing < 0.01
    assert np.sqrt((errors**2).mean()) < 0.1


@pytest.mark.parametrize("thickness_mm", [1.0, 2.0])
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (0.35, 0.18, 0.0), (0.5, 0.1, 0.3)])
def test_where_the_body_lies_between_voxels_makes_no_difference(thickness_mm, offset):
    phantom = shell("sphere", thickness_mm, THICK_KJI_MM, offset_kji_mm=offset)
    (result,) = measure_thickness(phantom.knee)
    errors, missing = errors_and_missing(phantom, result)
    assert abs(errors.mean()) <= 0.03 and missing < 0.01


def test_the_reference_definition_under_reads_thin_cartilage_as_the_reference_does():
    phantom = shell("sphere", 1.0)
    (result,) = measure_thickness(phantom.knee, options=TWO_SURFACES)
    errors, _ = errors_and_missing(phantom, result)
    assert -0.20 < errors.mean() < -0.10
    (both,) = measure_thickness(phantom.knee)
    assert np.array_equal(both.two_surfaces_mm, result.thickness_mm)


@pytest.mark.parametrize("thickness_mm", [1.0, 2.0])
def test_the_covered_area_is_the_layers_area(thickness_mm):
    phantom = shell("sphere", thickness_mm)
    (result,) = measure_thickness(phantom.knee)
    assert result.mesh.point_areas_mm2[result.covered].sum() == pytest.approx(phantom.true_area_mm2, rel=0.05)
    assert not result.denuded.any()


def test_an_unlabelled_gap_is_not_cartilage():
    phantom = shell("sphere", 2.0, gap_mm=0.5)
    (result,) = measure_thickness(phantom.knee)
    errors, missing = errors_and_missing(phantom, result)
    assert abs(errors.mean()) < 0.1 and missing < 0.01
    (unbridged,) = measure_thickness(phantom.knee, options=ThicknessOptions(bridged_gap_mm=0.0))
    assert errors_and_missing(phantom, unbridged)[0].mean() > 0.3


def test_cartilage_that_floats_over_the_bone_is_measured_by_its_own_surfaces():
    phantom = shell("sphere", 2.0, gap_mm=1.5)
    (result,) = measure_thickness(phantom.knee)
    errors, missing = errors_and_missing(phantom, result)
    assert abs(errors.mean()) < 0.1 and missing < 0.01


def test_a_hole_in_the_cartilage_is_denuded_bone_of_that_area():
    phantom = shell("sphere", 2.0, hole_mm=5.0)
    (result,) = measure_thickness(phantom.knee)
    area = result.mesh.point_areas_mm2[result.denuded].sum()
    assert area == pytest.approx(np.pi * 5**2, rel=0.15)
    assert (result.labels[result.denuded] == Tissue.PATELLAR_CARTILAGE).all()
    assert (result.thickness_mm[result.denuded] == 0).all()
    (small,) = measure_thickness(phantom.knee, options=ThicknessOptions(largest_hole_mm2=20.0))
    assert not small.denuded.any()


@pytest.mark.parametrize("side", list(Side))
def test_every_cartilage_of_a_knee_is_measured_on_its_bone(side):
    knee = knee_from(knee_label_map(side))
    results = measure_thickness(knee)
    assert [result.bone for result in results] == list(BONES)
    rows = {row.key: row for row in region_statistics(results, knee)}
    thin, thick = ("med_tib_cart", "lat_tib_cart")
    assert rows["fem_cart"].median_mm == pytest.approx(2.0, abs=0.1)
    assert rows["pat_cart"].median_mm == pytest.approx(2.0, abs=0.1)
    assert rows[thin].median_mm == pytest.approx(1.5, abs=0.1)
    assert rows[thick].median_mm == pytest.approx(2.5, abs=0.1)
    for result in results:
        assert result.missing == () and set(result.arrays) >= {"thickness (mm)", "labels"}
        assert result.thickness_mm.dtype == np.float32 and (result.labels[result.covered] > 0).all()


@pytest.mark.parametrize("axes", ["RAS", "LPS", "ASL", "SRA", "PLI", "ILP"])
def test_the_orientation_of_the_image_does_not_change_the_table(axes):
    label_map = knee_label_map(spacing_kji_mm=(1.0, 0.6, 0.6))
    tables = []
    for image in (label_map, reoriented(label_map, axes)):
        knee = knee_from(image)
        tables.append([row.mean_mm for row in region_statistics(measure_thickness(knee), knee)])
    assert len(tables[0]) == 4 and np.allclose(*tables, atol=1e-4)


@pytest.mark.parametrize(
    ("erased", "bones"),
    [
        ((Tissue.PATELLA,), (Tissue.FEMUR, Tissue.TIBIA)),
        ((Tissue.PATELLAR_CARTILAGE, *MENISCI), (Tissue.FEMUR, Tissue.TIBIA)),
        ((Tissue.MEDIAL_TIBIAL_CARTILAGE,), BONES),
        ((*BONES, *CARTILAGES), ()),
        (CARTILAGES, ()),
    ],
    ids=["no patella", "no patellar cartilage", "no medial cartilage", "menisci only", "no cartilage"],
)
def test_a_knee_with_missing_tissues_gives_the_bones_it_can(erased, bones):
    knee = knee_from(without(knee_label_map(spacing_kji_mm=(1.0, 0.6, 0.6)), *erased))
    results = measure_thickness(knee)
    assert tuple(result.bone for result in results) == tuple(bones)
    assert set(knee.missing) == set(erased)
    for result in results:
        assert set(result.missing) == set(erased) & set(CARTILAGES_OF[result.bone])
    rows = region_statistics(results, knee)
    assert all(row.mean_mm > 1 for row in rows)


@pytest.mark.parametrize("cut", [np.s_[:, 45:, :], np.s_[:, :, 60:], np.s_[10:40], np.s_[22:]], ids=str)
def test_a_femur_cut_by_the_image_is_measured_where_it_is(cut):
    label_map = knee_label_map()
    origin = [part.start or 0 for part in cut] if isinstance(cut, tuple) else [cut.start, 0, 0]
    matrix = label_map.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, :3] @ origin[::-1]
    knee = knee_from(LabelMap((label_map.layers[0][cut],), matrix, label_map.segments))
    result = measure_thickness(knee)[0]
    assert result.bone is Tissue.FEMUR and result.covered.any()
    assert np.median(result.thickness_mm[result.covered]) == pytest.approx(2.0, abs=0.15)


def test_the_face_of_a_cut_through_cartilage_is_not_denuded_bone():
    phantom = shell("sphere", 2.0)
    rows = phantom.knee.labels.shape[2] // 8
    labels = phantom.knee.labels[:, :, rows:]
    matrix = phantom.knee.geometry.ijk_to_ras.copy()
    matrix[:3, 3] += rows * matrix[:3, 0]
    assert (labels[:, :, 0] == Tissue.PATELLA).any() and (labels[:, :, 0] == Tissue.PATELLAR_CARTILAGE).any()
    (result,) = measure_thickness(Knee(labels, Geometry(labels.shape, matrix), None))
    assert result.covered.any() and not result.denuded.any()


def test_sub_regions_divide_the_surface_and_can_be_changed_without_measuring_again():
    knee = knee_from(knee_label_map())
    half = np.zeros_like(knee.labels)
    middle = knee.labels.shape[0] // 2
    half[:middle], half[middle:] = 12, 13
    plain = measure_thickness(knee)
    divided = measure_thickness(knee, half)
    assert set(np.unique(divided[0].labels)) == {0, 12, 13}
    assert np.array_equal(plain[0].thickness_mm, divided[0].thickness_mm)
    again = with_regions(plain[0], knee, half)
    assert np.array_equal(again.labels, divided[0].labels)
    at = np.sign(divided[0].mesh.points_ras_mm[:, 0] - (knee.geometry.ijk_to_ras @ [0, 0, middle - 0.5, 1])[0])
    covered = divided[0].covered
    assert ((divided[0].labels == 13) == (at > 0))[covered].mean() > 0.97


def test_regions_on_another_grid_are_refused():
    knee = knee_from(knee_label_map(spacing_kji_mm=(1.0, 0.6, 0.6)))
    with pytest.raises(GeometryMismatch):
        measure_thickness(knee, np.zeros((2, 2, 2), dtype=np.uint8))


def test_settings_out_of_range_are_refused():
    knee = knee_from(knee_label_map(spacing_kji_mm=(1.0, 0.6, 0.6)))
    for wrong in (ThicknessOptions(outward_mm=0), ThicknessOptions(rim_mm=-1), ThicknessOptions(inward_mm=99)):
        with pytest.raises(InputError):
            measure_thickness(knee, options=wrong)


def test_progress_is_told_by_bone_and_may_cancel():
    knee = knee_from(knee_label_map(spacing_kji_mm=(1.0, 0.6, 0.6)))
    told = []
    measure_thickness(knee, progress=lambda bone, fraction: told.append((bone, fraction)))
    assert told == [(bone, pytest.approx(index / 3)) for index, bone in enumerate(BONES)]

    def stop(bone, fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_thickness(knee, progress=stop)


def test_a_ray_that_meets_no_cartilage_measures_nothing():
    knee = shell("sphere", 2.0).knee
    points, normals = np.array([[0.0, -20.0, 0.0]]), np.array([[0.0, -1.0, 0.0]])
    measures = ray_measures(knee, Tissue.PATELLA, points, normals)
    assert measures.layer_mm.tolist() == [0.0] and measures.two_surfaces_mm.tolist() == [0.0]


@pytest.fixture(scope="module")
def real_knee(shared_data):
    from MedAILib.imageio import read_label_map

    label_map = read_label_map(shared_data("knee/SAG_3D_DESS_RIGHT_label.nrrd"))
    knee = knee_from(label_map, str(shared_data("knee/dess_labels.json")))
    regions = read_label_map(shared_data("knee_reference/subregions.nrrd")).layers[0]
    regions = np.where(regions >= 11, regions, 0).astype(np.uint8)
    return knee, regions, measure_thickness(knee, regions)


def test_a_real_knee_agrees_with_the_reference_in_every_region(real_knee, shared_data):
    knee, regions, results = real_knee
    reference = json.loads(shared_data("knee_reference/ref_0.1.22.json").read_text(encoding="utf-8"))["regions"]
    rows = [row for row in region_statistics(results, knee, regions) if row.key in reference]
    assert len(rows) == 8
    for row in rows:
        expected = reference[row.key]["mean"]
        tolerance = max(0.05, 0.02 * expected)
        assert row.covered_mean_mm == pytest.approx(expected, abs=tolerance), row.key
        assert row.two_surfaces_mean_mm == pytest.approx(expected, abs=0.03), row.key


def test_the_reference_definition_gives_the_references_thickness_at_its_own_points(real_knee, shared_data):
    from scipy.spatial import cKDTree

    knee, _, results = real_knee
    points = np.load(shared_data("knee_reference/femur_points.npy")) * [-1, -1, 1]
    expected = np.load(shared_data("knee_reference/femur_thickness.npy"))
    mesh = results[0].mesh
    distance, near = cKDTree(mesh.points_ras_mm).query(points, k=40)
    normals = (mesh.normals[near] * np.exp(-2 * distance**2)[..., None]).sum(axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    found = ray_measures(knee, Tissue.FEMUR, points, normals).two_surfaces_mm
    covered = expected > 0
    assert np.percentile(np.abs(found - expected)[covered], 95) < 0.05
    assert (found[covered] == 0).sum() < 30 and (found[~covered] > 0).sum() < 30


def test_a_mirrored_knee_has_the_same_thickness():
    knee = knee_from(knee_label_map(spacing_kji_mm=(1.0, 0.6, 0.6)))
    mirror = np.diag([-1.0, 1, 1, 1]) @ knee.geometry.ijk_to_ras
    turned = knee_from(LabelMap((knee.labels,), mirror, knee.label_map().segments))
    assert turned.side is Side.LEFT
    tables = [[row.mean_mm for row in region_statistics(measure_thickness(k), k)] for k in (knee, turned)]
    assert np.allclose(*tables, atol=1e-3)


def test_an_unsmoothed_cartilage_is_measured_too():
    phantom = shell("sphere", 1.5)
    options = ThicknessOptions(mesh=replace(ThicknessOptions().mesh, cartilage_variance_mm2=0.0))
    (result,) = measure_thickness(phantom.knee, options=options)
    errors, missing = errors_and_missing(phantom, result)
    assert abs(errors.mean()) < 0.1 and missing < 0.01


def test_a_knee_of_one_voxel_cartilage_does_not_fail():
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[5:15, 5:15, 5:15] = Tissue.PATELLA
    labels[10, 10, 15] = Tissue.PATELLAR_CARTILAGE
    knee = Knee(labels, Geometry(labels.shape, np.eye(4)), None)
    (result,) = measure_thickness(knee)
    assert result.thickness_mm.max() < 1.5 and np.isfinite(result.thickness_mm).all()
