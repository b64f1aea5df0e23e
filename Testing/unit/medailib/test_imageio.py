"""Files give back each voxel at its place, and what cannot be read or written is named."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hostile_system import full_disk, ordinary_user
from hypothesis import given
from hypothesis import strategies as st
from image_strategies import NUMBER_TYPES, label_maps, rotation, volumes

from MedAILib.errors import FileMissing, InputError, OutputError, UnreadableFile
from MedAILib.imageio import read_label_map, read_volume, write_label_map, write_volume
from MedAILib.itkimage import array_of, ijk_to_ras_of, to_sitk
from MedAILib.volume import LabelMap, SegmentInfo, Volume

EXACT = [".nrrd", ".nhdr", ".mha", ".mhd"]
NIFTI = [".nii", ".nii.gz"]
NIFTI_TOLERANCE_MM = 1e-4
"""NIfTI keeps its matrix in float32; our test grids lie within 200 mm of the origin."""


@pytest.fixture(scope="module")
def tilted() -> Volume:
    """A left-handed, oblique, anisotropic volume of values that do not compress."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(np.array([1.0, 2.0, 3.0]), 0.4) * (0.7, 0.8, -2.5)
    matrix[:3, 3] = (12.5, -80.25, 33.3)
    return Volume(np.random.default_rng(1).integers(-1000, 3000, (12, 13, 14)).astype(np.int16), matrix)


@pytest.fixture
def two_segments() -> LabelMap:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 1:3, 2:5], labels[2, 4, 5] = 1, 7
    return LabelMap((labels,), np.diag([0.5, 0.5, 2, 1]), (SegmentInfo("a", "Liver", 1), SegmentInfo("b", "Spleen", 7)))


def round_trip(volume: Volume, suffix: str) -> Volume:
    with tempfile.TemporaryDirectory(prefix="médai test ") as folder:
        path = Path(folder) / f"image ü{suffix}"
        write_volume(volume, path)
        return read_volume(path)


# round trips


@given(volumes(sheared=True), st.sampled_from(EXACT))
def test_exact_formats_give_back_every_voxel_its_type_and_its_place(volume, suffix):
    again = round_trip(volume, suffix)
    assert again.array.dtype == volume.array.dtype
    assert np.array_equal(again.array, volume.array)
    assert again.geometry.same_grid_as(volume.geometry, 1e-9)


@given(volumes(sheared=True), st.sampled_from(NIFTI))
def test_nifti_gives_back_every_voxel_and_its_place_to_a_ten_thousandth_of_a_millimetre(volume, suffix):
    again = round_trip(volume, suffix)
    assert again.array.dtype == volume.array.dtype
    assert np.array_equal(again.array, volume.array)
    assert again.geometry.same_grid_as(volume.geometry, NIFTI_TOLERANCE_MM)


@given(label_maps(), st.sampled_from([".seg.nrrd", ".nrrd", ".nii.gz", ".mha"]))
def test_labels_survive_every_format_and_segments_their_own(label_map, suffix):
    if suffix != ".seg.nrrd":
        first = tuple(info for info in label_map.segments if info.layer == 0)
        label_map = LabelMap(label_map.layers[:1], label_map.ijk_to_ras, first)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"labels{suffix}"
        write_label_map(label_map, path)
        again = read_label_map(path)
    assert again.geometry.same_grid_as(label_map.geometry, NIFTI_TOLERANCE_MM)
    assert all(np.array_equal(a, b) for a, b in zip(again.layers, label_map.layers, strict=True))
    if suffix == ".seg.nrrd":
        assert again.segments == label_map.segments
    else:
        assert [s.label_value for s in again.segments] == [n for n in np.unique(label_map.layers[0]) if n]


@pytest.mark.parametrize("suffix", EXACT + NIFTI)
def test_itk_reads_what_we_write(tilted, suffix, tmp_path):
    path = tmp_path / f"image{suffix}"
    write_volume(tilted, path)
    image = SimpleITK.ReadImage(str(path))
    assert np.array_equal(array_of(image), tilted.array)
    assert np.allclose(ijk_to_ras_of(image), tilted.ijk_to_ras, atol=NIFTI_TOLERANCE_MM)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("suffix", EXACT + NIFTI)
def test_we_read_what_itk_writes(tilted, suffix, compressed, tmp_path):
    path = tmp_path / f"image{suffix}"
    SimpleITK.WriteImage(to_sitk(tilted.array, tilted.ijk_to_ras), str(path), compressed)
    volume = read_volume(path)
    assert np.array_equal(volume.array, tilted.array)
    assert np.allclose(volume.ijk_to_ras, tilted.ijk_to_ras, atol=NIFTI_TOLERANCE_MM)


def test_strided_bool_and_big_endian_voxels_are_written_right(tmp_path):
    array = np.arange(210, dtype=">i4").reshape(5, 6, 7)[::-1, ::2, ::3]
    for suffix in EXACT + NIFTI:
        write_volume(Volume(array, np.eye(4)), tmp_path / f"a{suffix}")
        assert np.array_equal(read_volume(tmp_path / f"a{suffix}").array, array)
        write_volume(Volume(array % 2 == 0, np.eye(4)), tmp_path / f"b{suffix}")
        assert np.array_equal(read_volume(tmp_path / f"b{suffix}").array, array % 2 == 0)


def test_a_read_volume_is_named_after_its_file(tilted, tmp_path):
    write_volume(tilted, tmp_path / "CT thorax.v2.nii.gz")
    assert read_volume(tmp_path / "CT thorax.v2.nii.gz").name == "CT thorax.v2"


def test_the_name_of_a_file_does_not_matter_only_what_it_holds(tilted, tmp_path):
    write_volume(tilted, tmp_path / "image.nii.gz")
    (tmp_path / "image.nii.gz").rename(tmp_path / "download")
    assert np.array_equal(read_volume(tmp_path / "download").array, tilted.array)


def test_writing_twice_gives_the_same_bytes(tilted, two_segments, tmp_path):
    for name in ("a", "b"):
        write_volume(tilted, tmp_path / f"{name}.nii.gz")
        write_label_map(two_segments, tmp_path / f"{name}.seg.nrrd")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "a.seg.nrrd").read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()


def test_real_images_are_read_as_itk_reads_them(shared_data):
    cases = sorted(shared_data("vol3d").glob("*/*.nii.gz"))
    assert cases
    for path in cases[::25]:
        image, volume = SimpleITK.ReadImage(str(path)), read_volume(path)
        assert np.array_equal(array_of(image), volume.array), path
        assert np.allclose(ijk_to_ras_of(image), volume.ijk_to_ras, atol=1e-3), path


# label maps


def test_a_plain_label_map_gets_a_segment_per_label_in_colours_of_their_own(two_segments, tmp_path):
    write_label_map(two_segments, tmp_path / "labels.nii.gz")
    segments = read_label_map(tmp_path / "labels.nii.gz").segments
    assert [(s.id, s.name, s.label_value, s.layer) for s in segments] == [
        ("Segment_1", "Segment_1", 1, 0),
        ("Segment_7", "Segment_7", 7, 0),
    ]
    assert len({s.color_rgb for s in segments}) == 2


@pytest.mark.parametrize("dtype", NUMBER_TYPES)
def test_labels_of_any_number_type_are_accepted_and_become_unsigned(two_segments, dtype, tmp_path):
    write_volume(Volume(two_segments.layers[0].astype(dtype), two_segments.ijk_to_ras), tmp_path / "labels.nii")
    labels = read_label_map(tmp_path / "labels.nii").layers[0]
    assert labels.dtype == (dtype if dtype.kind == "u" else np.uint8)
    assert np.array_equal(labels, two_segments.layers[0])


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf])
def test_values_that_are_no_labels_are_refused(value, tmp_path):
    write_volume(Volume(np.array([[[0, 1, value]]], np.float32), np.eye(4)), tmp_path / "probabilities.nii")
    with pytest.raises(UnreadableFile, match="not a label map"):
        read_label_map(tmp_path / "probabilities.nii")


def test_an_image_given_in_place_of_a_label_map_is_noticed(tmp_path):
    write_volume(Volume(np.arange(2000, dtype=np.uint16).reshape(2, 20, 50), np.eye(4)), tmp_path / "mr.nii")
    with pytest.raises(UnreadableFile, match="more than 1024 different values"):
        read_label_map(tmp_path / "mr.nii")


def test_an_empty_label_map_has_no_segments(tmp_path):
    write_volume(Volume(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "empty.nii")
    assert read_label_map(tmp_path / "empty.nii").segments == ()


def test_a_dicom_series_or_a_structure_set_is_told_from_a_label_map(shared_data):
    with pytest.raises(UnreadableFile, match="not a label map"):
        read_label_map(shared_data("dicom/ct_pat1_rtstruct"))
    with pytest.raises(UnreadableFile, match="RT Structure Set"):
        read_label_map(shared_data("dicom/ct_pat1_rtstruct/DCM_RS_00060.dcm"))


# what is not an image

NOT_IMAGES = {
    "empty file": b"",
    "HTML page": b"<!DOCTYPE html>\n<html><body>Sign in</body></html>",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
    "text file": "Grüße, das ist kein Bild\n".encode(),
    "ZIP archive": b"PK\x03\x04" + bytes(100),
    "2D picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "gzip file of something else": gzip.compress(bytes(5000)),
    "of no format we know": bytes(range(256)) * 4,
    "NumPy array": b"\x93NUMPY\x01\x00" + bytes(100),
    "HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "Analyze 7.5": (348).to_bytes(4, "little") + bytes(344),
}


@pytest.mark.parametrize("kind", NOT_IMAGES)
@pytest.mark.parametrize("read", [read_volume, read_label_map])
def test_a_file_is_named_for_what_it_really_is(kind, read, tmp_path):
    (tmp_path / "image.nii.gz").write_bytes(NOT_IMAGES[kind])
    with pytest.raises(UnreadableFile, match=kind) as caught:
        read(tmp_path / "image.nii.gz")
    assert caught.value.todo


@pytest.mark.parametrize("read", [read_volume, read_label_map])
def test_a_missing_file_is_named(read, tmp_path):
    with pytest.raises(FileMissing, match="nowhere"):
        read(tmp_path / "nowhere.nii")
    with pytest.raises(FileMissing):
        read(tmp_path / "no folder" / "nowhere.nii")


def test_a_file_one_may_not_read_is_said_to_be_so(tilted, tmp_path):
    write_volume(tilted, tmp_path / "secret.nii")
    (tmp_path / "secret.nii").chmod(0)
    with ordinary_user(), pytest.raises(UnreadableFile, match="not allowed to read"):
        read_volume(tmp_path / "secret.nii")


@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_truncated_file_is_an_error_and_never_half_an_image(tilted, suffix, part, tmp_path):
    path = tmp_path / f"image{suffix}"
    write_volume(tilted, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(UnreadableFile):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_changed_byte_in_compressed_voxels_is_an_error(tilted, suffix, tmp_path):
    path = tmp_path / f"image{suffix}"
    SimpleITK.WriteImage(to_sitk(tilted.array, tilted.ijk_to_ras), str(path), True)
    damaged = bytearray(path.read_bytes())
    damaged[-1000] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(UnreadableFile, match="damaged"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
def test_a_header_without_its_voxel_file_is_an_error(tilted, suffix, tmp_path):
    write_volume(tilted, tmp_path / f"image{suffix}")
    next(path for path in tmp_path.iterdir() if path.suffix in (".gz", ".raw")).unlink()
    with pytest.raises(UnreadableFile):
        read_volume(tmp_path / f"image{suffix}")


def sitk_image(kind: str) -> SimpleITK.Image:
    if kind == "2D":
        return SimpleITK.Image(4, 4, SimpleITK.sitkInt16)
    if kind == "time series":
        return SimpleITK.Image([4, 4, 4, 3], SimpleITK.sitkInt16)
    if kind == "colour":
        return SimpleITK.Image([4, 4, 4], SimpleITK.sitkVectorUInt8, 3)
    return SimpleITK.Image([4, 4, 4], SimpleITK.sitkComplexFloat32)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("2D", "2D image"),
        ("time series", "3 volumes|numbers per voxel"),
        ("colour", "colour|several channels"),
        ("complex", "complex|numbers per voxel"),
    ],
)
def test_what_is_not_one_scalar_volume_is_named(kind, words, suffix, tmp_path):
    path = tmp_path / f"image{suffix}"
    SimpleITK.WriteImage(sitk_image(kind), str(path))
    with pytest.raises(UnreadableFile, match=words):
        read_volume(path)


def test_a_fourth_dimension_of_one_and_a_single_slice_are_a_volume(tmp_path):
    image = SimpleITK.Image([4, 3, 1, 1], SimpleITK.sitkInt16)
    for suffix in (".nii", ".nrrd", ".mha"):
        SimpleITK.WriteImage(image, str(tmp_path / f"image{suffix}"))
        assert read_volume(tmp_path / f"image{suffix}").array.shape == (1, 3, 4)


def test_nothing_heavy_is_loaded_before_a_file_needs_it():
    code = "import sys, MedAILib.imageio, MedAILib.grids, MedAILib.formats.dicom; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert not {"SimpleITK", "pydicom", "scipy", "vtk", "slicer", "torch"} & set(loaded.stdout.split())


# writing


@pytest.mark.parametrize("suffix", [*EXACT, *NIFTI, ".seg.nrrd"])
@pytest.mark.parametrize("after_bytes", [0, 1000, 3000])
def test_a_full_disk_is_an_error_and_leaves_nothing_behind(tilted, suffix, after_bytes, tmp_path):
    noise = LabelMap((tilted.array.view(np.uint16),), tilted.ijk_to_ras, (SegmentInfo("a", "A", 1),))
    with full_disk(after_bytes), pytest.raises(OutputError, match="disk is full"):
        if suffix == ".seg.nrrd":
            write_label_map(noise, tmp_path / f"image{suffix}")
        else:
            write_volume(tilted, tmp_path / f"image{suffix}")
    assert os.listdir(tmp_path) == []  # noqa: PTH208  hidden files count


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".seg.nrrd"])
def test_a_missing_or_forbidden_folder_is_named(two_segments, suffix, tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        write_label_map(two_segments, tmp_path / "nowhere" / f"image{suffix}")
    tmp_path.chmod(0o555)
    with ordinary_user(), pytest.raises(OutputError, match="not allowed"):
        write_label_map(two_segments, tmp_path / f"image{suffix}")


@pytest.mark.parametrize("name", ["image", "image.png", "image.dcm", ".nii.gz", "nii"])
def test_a_suffix_we_do_not_write_is_refused(tilted, two_segments, name, tmp_path):
    with pytest.raises(InputError, match="names no format"):
        write_volume(tilted, tmp_path / name)
    with pytest.raises(InputError, match="names no format"):
        write_label_map(two_segments, tmp_path / name)


def test_an_image_is_not_written_as_a_segmentation(tilted, tmp_path):
    with pytest.raises(InputError, match="taken for a segmentation"):
        write_volume(tilted, tmp_path / "image.seg.nrrd")


def test_overlapping_segments_need_a_format_with_layers(two_segments, tmp_path):
    both = LabelMap(two_segments.layers * 2, two_segments.ijk_to_ras, two_segments.segments)
    with pytest.raises(InputError, match="overlap"):
        write_label_map(both, tmp_path / "labels.nii.gz")


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_a_voxel_type_the_format_lacks_is_refused_and_nothing_is_left(suffix, tmp_path):
    with pytest.raises(InputError, match="float16"):
        write_volume(Volume(np.zeros((1, 1, 1), np.float16), np.eye(4)), tmp_path / f"image{suffix}")
    assert not any(tmp_path.iterdir())
