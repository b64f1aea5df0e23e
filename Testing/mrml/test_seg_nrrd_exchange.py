"""Segmentation files exchanged with Slicer's own reader and writer, voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
vtk = pytest.importorskip("vtk", reason="vtk is not installed")

from vtk.util import numpy_support  # noqa: E402

from MedAILib.grids import axis_code, placed, reoriented  # noqa: E402
from MedAILib.imageio import read_label_map, read_volume, write_label_map, write_volume  # noqa: E402
from MedAILib.volume import Geometry, LabelMap, SegmentInfo, Volume  # noqa: E402

TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^123037004^Anatomical Structure"
    "~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
)
SLICERS_OWN_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue"
    "~SCT^85756007^Tissue~^^~Anatomic codes - DICOM master list~^^~^^"
)
"""What a new segment has in Slicer before anyone chose a terminology."""
SHAPE_KJI = (6, 7, 8)


def oblique_matrix(hand: int = 1) -> np.ndarray:
    cos, sin = np.cos(0.3), np.sin(0.3)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[-cos, sin, 0], [-sin, -cos, 0], [0, 0, hand]]) * (0.7, 0.8, 2.5)
    matrix[:3, 3] = (10.5, -20.25, 30.125)
    return matrix


@pytest.fixture
def a_scene():
    scene = slicer.vtkMRMLScene()
    yield scene
    scene.Clear(True)


@pytest.fixture(params=[1, -1], ids=["right-handed", "left-handed"])
def overlapping(request) -> LabelMap:
    """Two layers: liver and dot in one, a tumour within the liver in the other, and an empty segment."""
    layers = np.zeros((2, *SHAPE_KJI), np.uint8)
    layers[0, 1:5, 2:6, 2:6] = 1
    layers[1, 2:4, 3:6, 4:7] = 1
    layers[0, 5, 6, 7] = 2
    segments = (
        SegmentInfo("liver", "Leber ü", 1, 0, (1.0, 0.5, 0.25), {"TerminologyEntry": TERMINOLOGY, "MedAI.At": "12:30"}),
        SegmentInfo("tumour", "two\nlines \\n", 1, 1, (0.0, 0.25, 1.0)),
        SegmentInfo("dot", "dot", 2, 0, (0.125, 0.5, 0.75)),
        SegmentInfo("none", "none", 3, 0, (0.5, 0.5, 0.5)),
    )
    return LabelMap(tuple(layers), oblique_matrix(request.param), segments)


def read_in_slicer(scene, path):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    return node


def write_in_slicer(scene, node, path, *, crop):
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    storage.SetCropToMinimumExtent(crop)
    assert storage.WriteData(node) == 1


def vtk_matrix(matrix):
    found = vtk.vtkMatrix4x4()
    found.DeepCopy(np.asarray(matrix).ravel())
    return found


def oriented_image(array, matrix):
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*reversed(array.shape))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = array.ravel()
    image.SetImageToWorldMatrix(vtk_matrix(matrix))
    return image


def slicer_mask(node, segment_id, geometry):
    """A segment's voxels in Slicer, set into the full grid."""
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segment_id, image)
    whole = np.zeros(geometry.shape_kji, bool)
    if image.IsEmpty():
        return whole
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ijk_to_ras = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    offset = np.eye(4)
    offset[:3, 3] = (i0, j0, k0)
    array = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    return placed(Volume(array, ijk_to_ras @ offset), geometry).array > 0


def slicer_segmentation(scene, label_map):
    """The label map as a segmentation node, made from nothing but Slicer's own classes."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation = node.GetSegmentation()
    segmentation.SetSourceRepresentationName("Binary labelmap")
    for info in label_map.segments:
        segment = slicer.vtkSegment()
        segment.SetName(info.name)
        segment.SetColor(*info.color_rgb)
        for name, value in info.tags.items():
            segment.SetTag(name, value)
        mask = label_map.mask(info.id).astype(np.uint8)
        segment.AddRepresentation("Binary labelmap", oriented_image(mask, label_map.ijk_to_ras))
        segmentation.AddSegment(segment, info.id)
    segmentation.CollapseBinaryLabelmaps(False)
    return node


def test_slicer_reads_our_file_as_it_was_meant(a_scene, overlapping, tmp_path):
    path = tmp_path / "von uns ü.seg.nrrd"
    write_label_map(overlapping, path)
    node = read_in_slicer(a_scene, path)
    segmentation = node.GetSegmentation()
    assert [segmentation.GetNthSegmentID(n) for n in range(4)] == [info.id for info in overlapping.segments]
    assert segmentation.GetNumberOfLayers() == 2
    for info in overlapping.segments:
        segment = segmentation.GetSegment(info.id)
        assert segment.GetName() == info.name
        assert segment.GetColor() == pytest.approx(info.color_rgb)
        for name, value in info.tags.items():
            found = vtk.reference("")
            assert segment.GetTag(name, found)
            assert str(found) == value
        assert np.array_equal(slicer_mask(node, info.id, overlapping.geometry), overlapping.mask(info.id)), info.id


def test_slicer_takes_the_grid_of_our_file_for_the_reference_geometry(a_scene, overlapping, tmp_path):
    write_label_map(overlapping, tmp_path / "ours.seg.nrrd")
    node = read_in_slicer(a_scene, tmp_path / "ours.seg.nrrd")
    text = node.GetSegmentation().GetConversionParameter("Reference image geometry")
    image = slicer.vtkOrientedImageData()
    assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, image, False)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    found = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    assert np.allclose(found, overlapping.ijk_to_ras)
    assert image.GetDimensions() == tuple(reversed(overlapping.geometry.shape_kji))


@pytest.mark.parametrize("crop", [True, False], ids=["cropped", "whole"])
def test_we_read_slicers_file_as_it_was_meant(a_scene, overlapping, crop, tmp_path):
    path = tmp_path / "von Slicer ü.seg.nrrd"
    write_in_slicer(a_scene, slicer_segmentation(a_scene, overlapping), path, crop=crop)
    found = placed(read_label_map(path), overlapping.geometry)
    assert len(found.layers) == 2
    assert [info.id for info in found.segments] == [info.id for info in overlapping.segments]
    for info, meant in zip(found.segments, overlapping.segments, strict=True):
        assert info.name == meant.name
        assert info.tags == {"TerminologyEntry": SLICERS_OWN_TERMINOLOGY, **meant.tags}
        assert info.color_rgb == pytest.approx(meant.color_rgb)
        assert np.array_equal(found.mask(info.id), overlapping.mask(info.id)), info.id


def test_a_segment_drawn_on_part_of_a_volume_is_read_at_its_place(a_scene, tmp_path):
    """Slicer keeps only the drawn block of a larger volume and writes where it starts."""
    whole = np.zeros(SHAPE_KJI, np.uint8)
    whole[2:4, 3:5, 4:7] = 1
    whole[3, 4, 6] = 0
    geometry = Geometry(SHAPE_KJI, oblique_matrix())
    block = slicer.vtkOrientedImageData()
    block.SetExtent(4, 6, 3, 4, 2, 3)
    block.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    numpy_support.vtk_to_numpy(block.GetPointData().GetScalars())[:] = whole[2:4, 3:5, 4:7].ravel()
    block.SetImageToWorldMatrix(vtk_matrix(geometry.ijk_to_ras))
    node = a_scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segment = slicer.vtkSegment()
    segment.SetName("part")
    segment.AddRepresentation("Binary labelmap", block)
    node.GetSegmentation().SetSourceRepresentationName("Binary labelmap")
    node.GetSegmentation().AddSegment(segment, "part")
    write_in_slicer(a_scene, node, tmp_path / "part.seg.nrrd", crop=True)
    found = read_label_map(tmp_path / "part.seg.nrrd")
    assert found.geometry.shape_kji == (2, 2, 3)
    assert np.array_equal(placed(found, geometry).mask("part"), whole > 0)


def test_a_file_goes_through_slicer_and_comes_back_the_same(a_scene, overlapping, tmp_path):
    write_label_map(overlapping, tmp_path / "there.seg.nrrd")
    node = read_in_slicer(a_scene, tmp_path / "there.seg.nrrd")
    write_in_slicer(a_scene, node, tmp_path / "back.seg.nrrd", crop=False)
    back = placed(read_label_map(tmp_path / "back.seg.nrrd"), overlapping.geometry)
    for info, meant in zip(back.segments, overlapping.segments, strict=True):
        assert (info.id, info.name) == (meant.id, meant.name)
        assert info.tags == {"TerminologyEntry": SLICERS_OWN_TERMINOLOGY, **meant.tags}
        assert np.array_equal(back.mask(info.id), overlapping.mask(info.id))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha"])
@pytest.mark.parametrize("hand", [1, -1])
def test_volumes_are_exchanged_with_slicer(a_scene, suffix, hand, tmp_path):
    volume = Volume(np.arange(336, dtype=np.int16).reshape(SHAPE_KJI), oblique_matrix(hand))
    path = tmp_path / f"ours ü{suffix}"
    write_volume(volume, path)
    node = a_scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    storage = a_scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    found = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    array = numpy_support.vtk_to_numpy(node.GetImageData().GetPointData().GetScalars()).reshape(SHAPE_KJI)
    in_slicer = reoriented(Volume(array, found), axis_code(volume.geometry))  # Slicer flips left-handed volumes
    assert np.array_equal(in_slicer.array, volume.array)
    assert np.allclose(in_slicer.ijk_to_ras, volume.ijk_to_ras, atol=1e-4)
    storage.SetFileName(str(tmp_path / f"back ü{suffix}"))
    assert storage.WriteData(node) == 1
    again = reoriented(read_volume(tmp_path / f"back ü{suffix}"), axis_code(volume.geometry))
    assert np.array_equal(again.array, volume.array)
    assert again.geometry.same_grid_as(volume.geometry, 1e-3)
