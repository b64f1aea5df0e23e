"""DICOM series as volumes: which slices belong together, where they lie, and what is wrong with them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_files import a_slice, an_enhanced_file, save, save_series
from hostile_system import ordinary_user
from hypothesis import given, settings
from image_strategies import places_by_value, rotation, volumes
from pydicom.uid import RLELossless

from MedAILib.errors import FileMissing, InputError, UnreadableFile
from MedAILib.formats.dicom import find_stacks
from MedAILib.imageio import read_volume
from MedAILib.itkimage import array_of, ijk_to_ras_of
from MedAILib.volume import Volume

HEADER_TOLERANCE_MM = 1e-6
"""DICOM decimals have at most 16 characters."""


@pytest.fixture
def head() -> Volume:
    """Five oblique slices, right-handed in LPS, as DICOM stacks them."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(np.array([1.0, 0.2, 0.1]), 0.3) @ np.diag([-1, -1, 1]) * (0.5, 0.75, 3.0)
    matrix[:3, 3] = (90, 100, -40.5)
    return Volume(np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7), matrix)


def assert_same(found: Volume, meant: Volume) -> None:
    assert np.array_equal(found.array, meant.array)
    assert found.geometry.same_grid_as(meant.geometry, HEADER_TOLERANCE_MM)


# reading


@settings(max_examples=25)
@given(volumes(types=[np.dtype("i2"), np.dtype("u2")]))
def test_every_voxel_of_a_series_lies_where_its_header_says(volume):
    with tempfile.TemporaryDirectory() as folder:
        save_series(Path(folder), volume)
        found = read_volume(folder)
    assert found.array.dtype == volume.array.dtype
    assert np.allclose(
        places_by_value(found.array, found.geometry),
        places_by_value(volume.array, volume.geometry),
        atol=HEADER_TOLERANCE_MM,
    )
    assert np.linalg.det(found.ijk_to_ras[:3, :3]) > 0


@pytest.mark.parametrize("preamble", [True, False])
def test_files_are_sorted_by_position_whatever_they_are_called(head, preamble, tmp_path):
    paths = save_series(tmp_path / "série 1", head, preamble=preamble)
    assert_same(read_volume(tmp_path / "série 1"), head)
    assert_same(read_volume(paths[3]), head)


def test_other_files_in_the_folder_are_passed_over(head, tmp_path):
    save_series(tmp_path, head)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").touch()
    save(a_slice(head, 0, ImagePositionPatient=None, SeriesInstanceUID="1.9"), tmp_path / "report")
    assert_same(read_volume(tmp_path), head)


def test_folders_within_are_searched_where_the_folder_itself_has_no_image(head, tmp_path):
    save_series(tmp_path / "PAT1" / "ST1" / "SE1", head)
    (tmp_path / "README").write_text("burnt today")
    assert_same(read_volume(tmp_path), head)


def test_a_single_slice_is_as_thick_as_its_header_says(head, tmp_path):
    save(a_slice(head, 2), tmp_path / "one")
    found = read_volume(tmp_path)
    assert found.array.shape == (1, 6, 7)
    assert found.geometry.spacing_kji_mm[0] == pytest.approx(3.0)


def test_a_tilted_gantry_gives_a_sheared_grid_and_not_a_straightened_one(head, tmp_path):
    matrix = head.ijk_to_ras.copy()
    matrix[:3, 2] += 0.4 * matrix[:3, 1]
    tilted = Volume(head.array, matrix)
    save_series(tmp_path, tilted)
    assert_same(read_volume(tmp_path), tilted)


@pytest.mark.parametrize("echoes", [(), (10.0, 20.0)])
def test_frames_of_an_enhanced_file_are_slices(head, echoes, tmp_path):
    save(an_enhanced_file(head, [3, 0, 4, 1, 2], echoes), tmp_path / "enhanced.dcm")
    if not echoes:
        assert_same(read_volume(tmp_path / "enhanced.dcm"), head)
        return
    assert [stack.key for stack in find_stacks(tmp_path)] == ["4 TE 10.0", "4 TE 20.0"]
    assert_same(read_volume(tmp_path, series="4 TE 20.0"), head)


# true values


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "dtype"),
    [
        (np.uint16, None, None, np.uint16),
        (np.int16, 1, 0, np.int16),
        (np.uint16, 1, -1024, np.int16),
        (np.int16, 400, 0, np.int32),
        (np.int16, 0.5, 3, np.float32),
    ],
)
def test_stored_values_are_scaled_into_the_smallest_type_that_holds_them(
    head, stored, slope, intercept, dtype, tmp_path
):
    array = head.array.astype(stored)
    scale = {} if slope is None else {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}
    save_series(tmp_path, Volume(array, head.ijk_to_ras), **scale)
    found = read_volume(tmp_path).array
    assert found.dtype == dtype
    assert np.array_equal(found, array * float(slope or 1) + float(intercept or 0))


def test_every_slice_is_scaled_by_its_own_header(head, tmp_path):
    for k in range(5):
        save(a_slice(head, k, RescaleSlope=f"{k + 1}.5", RescaleIntercept="0"), tmp_path / f"{k}")
    assert np.allclose(read_volume(tmp_path).array, head.array * (np.arange(5) + 1.5)[:, None, None])


def test_run_length_compressed_slices_are_read(head, tmp_path):
    for k in range(5):
        dataset = a_slice(head, k)
        dataset.compress(RLELossless)
        save(dataset, tmp_path / f"{k}")
    assert_same(read_volume(tmp_path), head)


@pytest.mark.parametrize("intercept", ["0", "-1024"])
def test_jpeg_2000_slices_are_read(head, intercept, tmp_path):
    """Compressed by GDCM through SimpleITK, an encoding pydicom alone does not read."""
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    packed.mkdir()
    wide = Volume(np.random.default_rng(0).integers(0, 4000, (3, 32, 32)).astype(np.uint16), head.ijk_to_ras)
    for path in save_series(plain, wide):
        writer = SimpleITK.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.KeepOriginalImageUIDOn()
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG2000")
        writer.SetFileName(str(packed / f"{path.name}.dcm"))
        writer.Execute(SimpleITK.ReadImage(str(path)))
    for path in packed.iterdir():
        dataset = pydicom.dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID.is_encapsulated
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", intercept
        dataset.save_as(path)
    found = read_volume(packed)
    assert np.array_equal(found.array, wide.array.astype(int) + int(intercept))
    assert found.geometry.same_grid_as(wide.geometry, 1e-3)


# which stack


def test_several_series_need_a_choice_by_key_uid_or_file(head, tmp_path):
    other = Volume(head.array[:3] + 100, head.ijk_to_ras)
    save_series(tmp_path, head, SeriesNumber=4, SeriesInstanceUID="1.4", SeriesDescription="thin")
    for k in range(3):
        save(a_slice(other, k, SeriesNumber=9, SeriesInstanceUID="1.9"), tmp_path / f"other{k}")
    with pytest.raises(InputError, match=r"2 DICOM image stacks.*'4' \(CT thin, 5 slices\).*'9' \(CT, 3 slices\)"):
        read_volume(tmp_path)
    assert_same(read_volume(tmp_path, series="4"), head)
    assert_same(read_volume(tmp_path, series="1.9"), other)
    assert_same(read_volume(tmp_path / "other2"), other)
    with pytest.raises(InputError, match="no DICOM series '5'"):
        read_volume(tmp_path, series="5")


def test_a_series_of_several_orientations_is_several_stacks(head, tmp_path):
    turned = head.ijk_to_ras[:, [1, 2, 0, 3]]
    save_series(tmp_path, head, SeriesInstanceUID="1.4")
    for k in range(3):
        save(a_slice(Volume(head.array, turned), k, SeriesInstanceUID="1.4"), tmp_path / f"turned{k}")
    assert [stack.key for stack in find_stacks(tmp_path)] == ["4 plane 1", "4 plane 2"]


@pytest.mark.parametrize(
    ("attribute", "values", "keys"),
    [
        ("TemporalPositionIdentifier", [1, 2, 10], ["4 time 1", "4 time 2", "4 time 10"]),
        ("ImageType", [["ORIGINAL", "PRIMARY", "W"], ["ORIGINAL", "PRIMARY", "F"]], None),
        ("AcquisitionNumber", [1, 2], ["4 acquisition 1", "4 acquisition 2"]),
    ],
)
def test_a_series_that_repeats_its_positions_is_split_by_what_tells_them_apart(head, attribute, values, keys, tmp_path):
    for index, value in enumerate(values):
        for k in range(5):
            part = Volume(head.array + 1000 * index, head.ijk_to_ras)
            save(a_slice(part, k, **{attribute: value}), tmp_path / f"{index} {k}")
    stacks = find_stacks(tmp_path)
    assert len(stacks) == len(values)
    if keys:
        assert [stack.key for stack in stacks] == keys
    assert_same(read_volume(tmp_path / "1 0"), Volume(head.array + 1000, head.ijk_to_ras))


def test_acquisition_numbers_that_count_slices_do_not_split_a_series(head, tmp_path):
    for k in range(5):
        save(a_slice(head, k, AcquisitionNumber=k), tmp_path / f"{k}")
    assert_same(read_volume(tmp_path), head)


# what is wrong


def test_missing_slices_are_counted_and_their_neighbours_named(head, tmp_path):
    long = Volume(np.zeros((12, 4, 4), np.int16), head.ijk_to_ras)
    for k in (0, 1, 2, 4, 5, 6, 7, 10, 11):
        save(a_slice(long, k), tmp_path / f"slice{k}")
    with pytest.raises(UnreadableFile, match="3 slices of this series are missing") as caught:
        read_volume(tmp_path)
    assert "1 missing between slice2 and slice4" in caught.value.why
    assert "2 missing between slice7 and slice10" in caught.value.why


def test_a_slice_that_is_there_twice_is_named(head, tmp_path):
    paths = save_series(tmp_path, head)
    (tmp_path / "copy").write_bytes(paths[2].read_bytes())
    with pytest.raises(UnreadableFile, match=f"1 slice.*twice.*({paths[2].name} and copy|copy and {paths[2].name})"):
        read_volume(tmp_path)


def test_uneven_steps_are_named(head, tmp_path):
    matrix = head.ijk_to_ras.copy()
    matrix[:3, 3] += 0.4 * matrix[:3, 2]
    for k in range(5):
        save(a_slice(Volume(head.array, matrix if k > 2 else head.ijk_to_ras), k), tmp_path / f"slice{k}")
    with pytest.raises(UnreadableFile, match=r"not evenly spaced.*3\.000 mm.*4\.200 mm between slice2 and slice3"):
        read_volume(tmp_path)


def test_a_slice_aside_of_the_others_is_named(head, tmp_path):
    matrix = head.ijk_to_ras.copy()
    matrix[:3, 3] += 5 * matrix[:3, 0]
    for k in range(5):
        save(a_slice(Volume(head.array, matrix if k == 2 else head.ijk_to_ras), k), tmp_path / f"slice{k}")
    with pytest.raises(UnreadableFile, match=r"straight line.*slice2 is 2\.50 mm aside"):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [({"PixelSpacing": [2, 2]}, r"different pixel spacings.*\(2\.0, 2\.0\): slice3"), ({"Rows": 3}, "different sizes")],
)
def test_mixed_spacings_and_sizes_name_the_files(head, attributes, words, tmp_path):
    for k in range(5):
        save(a_slice(head, k, **(attributes if k == 3 else {})), tmp_path / f"slice{k}")
    with pytest.raises(UnreadableFile, match=words):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"SamplesPerPixel": 3}, "colour"),
        ({"ImagePositionPatient": None}, "does not say where it lies"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"Rows": None}, "holds no image"),
    ],
)
def test_a_file_that_is_no_slice_of_a_volume_says_what_it_is(head, attributes, words, tmp_path):
    save(a_slice(head, 0, **attributes), tmp_path / "file.dcm")
    for place in (tmp_path, tmp_path / "file.dcm"):
        with pytest.raises(UnreadableFile, match=words):
            read_volume(place)


def test_truncated_pixels_are_an_error_that_names_the_file(head, tmp_path):
    paths = save_series(tmp_path, head)
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    with pytest.raises(UnreadableFile, match=f"pixels of .*{paths[1].name}"):
        read_volume(tmp_path)


def test_a_truncated_header_is_an_error_when_no_slice_is_left(head, tmp_path):
    save(a_slice(head, 0), tmp_path / "file.dcm")
    (tmp_path / "file.dcm").write_bytes((tmp_path / "file.dcm").read_bytes()[:300])
    with pytest.raises(UnreadableFile, match="no DICOM image"):
        read_volume(tmp_path / "file.dcm")


def test_an_empty_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(UnreadableFile, match="No DICOM image was found"):
        read_volume(tmp_path)
    with pytest.raises(FileMissing):
        read_volume(tmp_path / "nowhere")
    with pytest.raises(FileMissing):
        find_stacks(tmp_path / "nowhere")


def test_a_folder_one_may_not_look_into_is_said_to_be_so(head, tmp_path):
    save_series(tmp_path / "secret", head)
    (tmp_path / "secret").chmod(0)
    with ordinary_user(), pytest.raises(UnreadableFile, match="not allowed"):
        find_stacks(tmp_path / "secret")


# real series


def test_the_real_ct_is_read_as_itk_reads_it_beside_its_structure_set(shared_data):
    folder = shared_data("dicom/ct_pat1_rtstruct")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    volume = read_volume(folder)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, array_of(image))
    assert np.allclose(volume.ijk_to_ras, ijk_to_ras_of(image), atol=1e-3)


def test_the_real_knee_has_eight_echoes_in_big_endian_and_each_can_be_chosen(shared_data):
    folder = shared_data("dicom/knee_mese_t2")
    with pytest.raises(InputError, match=r"holds 8 DICOM image stacks.*'8 TE 6\.312' \(MR, 24 slices\)"):
        read_volume(folder)
    stacks = find_stacks(folder)
    echo_times_ms = [float(stack.key.removeprefix("8 TE ")) for stack in stacks]
    assert echo_times_ms == pytest.approx([6.312 * n for n in range(1, 9)])
    path = folder / "E3655S8I002.MR.dcm"
    dataset = pydicom.dcmread(path)
    stored = np.frombuffer(dataset.PixelData, ">i2").reshape(256, 256)
    volume = read_volume(path)
    assert volume.array.shape == (24, 256, 256)
    assert np.array_equal(read_volume(folder, series="8 TE 12.624").array, volume.array)
    first_ras = np.array(dataset.ImagePositionPatient, float) * (-1, -1, 1)
    ijk = np.linalg.solve(volume.ijk_to_ras, [*first_ras, 1])[:3]
    assert np.allclose(ijk, np.rint(ijk), atol=1e-2)
    assert np.array_equal(volume.array[int(np.rint(ijk[2]))], stored)
    means = [read_volume(folder, series=stack.key).array.mean() for stack in stacks[::3]]
    assert means == sorted(means, reverse=True), "the signal of a spin echo decays"


def test_the_real_hippocampus_series_is_read(shared_data):
    folder = shared_data("dicom/mr_hippocrop")
    volume = read_volume(folder)
    assert volume.array.shape[0] == len(list(folder.iterdir()))
    assert volume.array.dtype == np.int16
    assert volume.name == "HippoCrop"
