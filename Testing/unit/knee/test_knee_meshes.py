import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from knee_phantoms import RADIUS_MM, knee_label_map, shell

from KneeAnalysisLib.fields import gaussian_kernel, smoothed
from KneeAnalysisLib.knee import Knee, knee_from
from KneeAnalysisLib.labels import CARTILAGES, Tissue
from KneeAnalysisLib.meshes import MeshOptions, bone_mesh, cartilage_mesh, cropped_bone, polydata
from MedAILib.errors import InputError
from MedAILib.volume import Geometry


@pytest.fixture(scope="module")
def ball():
    return shell("sphere", 2.0).knee


@pytest.fixture(scope="module")
def knee():
    return knee_from(knee_label_map())


def patella_of(mask, spacing_kji=(1.0, 1.0, 1.0)):
    labels = mask.astype(np.uint8) * np.uint8(Tissue.PATELLA)
    return Knee(labels, Geometry(labels.shape, np.diag([*spacing_kji[::-1], 1.0])), None)


@given(st.floats(0.01, 20.0))
def test_the_smoothing_kernel_has_sum_one_and_the_variance_asked_for(variance):
    kernel = gaussian_kernel(variance)
    offsets = np.arange(kernel.size) - kernel.size // 2
    assert kernel.sum() == pytest.approx(1) and np.array_equal(kernel, kernel[::-1])
    assert (kernel * offsets**2).sum() <= variance * 1.0001
    assert (kernel * offsets**2).sum() >= 0.75 * variance - 0.02


def test_smoothing_keeps_the_amount_and_zero_variance_changes_nothing():
    mask = np.zeros((15, 15, 15), dtype=bool)
    mask[6:9, 6:9, 6:9] = True
    assert smoothed(mask, (1, 1, 1), 1.0).sum() == pytest.approx(27, rel=1e-5)
    assert np.array_equal(smoothed(mask, (1, 1, 1), 0.0), mask)


def test_a_ball_has_the_area_and_volume_of_a_ball(ball):
    mesh = bone_mesh(ball, Tissue.PATELLA)
    assert mesh.area_mm2 == pytest.approx(4 * np.pi * RADIUS_MM**2, rel=0.01)
    assert mesh.volume_mm3 == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3, rel=0.01)
    assert mesh.point_areas_mm2.sum() == pytest.approx(mesh.area_mm2)


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_normals_point_outwards_in_left_and_right_handed_grids(ball, flip):
    matrix = np.diag([*flip, 1.0]) @ ball.geometry.ijk_to_ras
    mesh = bone_mesh(Knee(ball.labels, Geometry(ball.labels.shape, matrix), None), Tissue.PATELLA)
    outward = mesh.points_ras_mm / np.linalg.norm(mesh.points_ras_mm, axis=1, keepdims=True)
    assert mesh.volume_mm3 > 0 and ((mesh.normals * outward).sum(axis=1) > 0.9).all()


def test_the_shaft_is_cut_at_a_multiple_of_the_bones_width(knee):
    rows_mm = knee.geometry.spacing_kji_mm[1]
    for bone, option in ((Tissue.FEMUR, "femur_crop"), (Tissue.TIBIA, "tibia_crop")):
        whole = np.flatnonzero(knee.mask(bone).any(axis=(0, 2)))
        wide_mm = np.ptp(np.flatnonzero(knee.mask(bone).any(axis=(1, 2)))) * knee.geometry.spacing_kji_mm[0] + 0.7
        kept = np.flatnonzero(cropped_bone(knee, bone, MeshOptions(**{option: 0.5})).any(axis=(0, 2)))
        assert kept.size * rows_mm == pytest.approx(0.5 * wide_mm, abs=rows_mm)
        joint_end = -1 if bone is Tissue.FEMUR else 0
        assert kept[joint_end] == whole[joint_end]
        uncut = cropped_bone(knee, bone, MeshOptions(**{option: None}))
        assert np.array_equal(uncut, knee.mask(bone))


def test_smoothing_options_are_read(ball):
    rough = bone_mesh(ball, Tissue.PATELLA, MeshOptions(bone_variance_mm2=0.0))
    smooth = bone_mesh(ball, Tissue.PATELLA, MeshOptions(bone_variance_mm2=2.0))
    assert rough.area_mm2 > smooth.area_mm2 * 1.02
    thin = shell("sphere", 1.0).knee
    volumes = [
        cartilage_mesh(thin, Tissue.PATELLAR_CARTILAGE, MeshOptions(cartilage_variance_mm2=v)).volume_mm3
        for v in (0.0, 0.2, 0.3125)
    ]
    assert volumes[0] > volumes[1] > volumes[2]


def test_every_setting_out_of_range_is_named_at_once():
    with pytest.raises(InputError, match=r"bone smoothing.*cartilage smoothing.*femur length.*smallest part"):
        MeshOptions(-1, 3, 0, 0.8, 2).validate()


def test_a_bone_cut_by_the_images_border_is_closed():
    mask = np.ones((12, 20, 20), dtype=bool)
    mesh = bone_mesh(patella_of(mask), Tissue.PATELLA)
    assert mesh.volume_mm3 == pytest.approx(12 * 20 * 20, rel=0.03)
    edges = np.sort(mesh.edges, axis=1)
    _, times = np.unique(edges, axis=0, return_counts=True)
    assert (times == 2).all()


def test_crumbs_and_walls_of_inner_holes_are_dropped_and_large_parts_kept():
    mask = np.zeros((30, 30, 60), dtype=bool)
    mask[5:25, 5:25, 3:23] = True
    mask[11:19, 11:19, 9:17] = False
    mask[5:25, 5:25, 30:50] = True
    mask[14:17, 14:17, 55:58] = True
    mesh = bone_mesh(patella_of(mask), Tissue.PATELLA)
    assert mesh.parts().max() == 1
    assert mesh.volume_mm3 == pytest.approx(2 * 20**3, rel=0.02)
    assert bone_mesh(patella_of(mask), Tissue.PATELLA, MeshOptions(smallest_part=0.0)).parts().max() == 2


def test_a_tissue_that_is_not_there_has_no_surface(ball):
    with pytest.raises(InputError, match="no femur"):
        bone_mesh(ball, Tissue.FEMUR)
    speck = np.zeros((5, 5, 5), dtype=bool)
    speck[2, 2, 2] = True
    with pytest.raises(InputError, match="no patella"):
        bone_mesh(patella_of(speck, (0.3, 0.3, 0.3)), Tissue.PATELLA)


def test_every_cartilage_has_a_surface_of_its_volume(knee):
    voxel_mm3 = np.prod(knee.geometry.spacing_ijk_mm)
    for cartilage in CARTILAGES:
        mesh = cartilage_mesh(knee, cartilage)
        assert mesh.volume_mm3 == pytest.approx(knee.voxels[cartilage] * voxel_mm3, rel=0.15)


def test_vtk_gets_points_triangles_normals_and_arrays(ball):
    from vtk.util.numpy_support import vtk_to_numpy

    mesh = bone_mesh(ball, Tissue.PATELLA)
    values = np.arange(len(mesh), dtype=np.float32)
    data = polydata(mesh, {"thickness (mm)": values, "labels": values.astype(np.uint8)})
    assert data.GetNumberOfPolys() == len(mesh.triangles)
    assert np.array_equal(vtk_to_numpy(data.GetPoints().GetData()), mesh.points_ras_mm)
    assert data.GetPointData().GetScalars().GetName() == "thickness (mm)"
    assert np.array_equal(vtk_to_numpy(data.GetPointData().GetArray("thickness (mm)")), values)
    assert data.GetPointData().GetNormals() is not None
    assert np.array_equal(vtk_to_numpy(data.GetPolys().GetConnectivityArray()).reshape(-1, 3), mesh.triangles)


def test_options_are_values():
    assert dataclasses.replace(MeshOptions(), femur_crop=None) != MeshOptions() == MeshOptions()
