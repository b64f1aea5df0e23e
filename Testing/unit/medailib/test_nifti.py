"""What a NIfTI header may say: matrices, scales, byte orders, versions."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK
from image_strategies import rotation

from MedAILib.errors import InputError, UnreadableFile
from MedAILib.formats import nifti
from MedAILib.formats.nifti import read_nifti, write_nifti
from MedAILib.itkimage import array_of, ijk_to_ras_of

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
MATRIX = np.eye(4)
MATRIX[:3, :3] = rotation(np.array([3.0, 1.0, 2.0]), 2.0) * (0.5, 0.75, -2.0)
MATRIX[:3, 3] = (10, -20, 30)


@pytest.fixture
def path(tmp_path):
    write_nifti(tmp_path / "image.nii", ARRAY, MATRIX)
    return tmp_path / "image.nii"


def edit(path, **fields):
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(raw, nifti._HEADER_1, count=1)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(raw)


def test_the_headers_have_the_size_of_the_standard():
    assert nifti._HEADER_1.itemsize == 348
    assert nifti._HEADER_2.itemsize == 540


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sform_code": 0},
        {"qform_code": 0},
        {"qform_code": 0, "sform_code": 0},
        {"sform_code": 1, "qoffset": [9, 9, 9]},
        {"sform_code": 2, "qoffset": [9, 9, 9]},
        {"sform_code": 4, "qform_code": 0},
        {"scl_slope": 2.5, "scl_inter": -3},
        {"xyzt_units": 3},
        {"dim": [4, 4, 3, 2, 1, 1, 1, 1]},
    ],
)
def test_a_header_is_understood_as_itk_and_so_slicer_understand_it(path, fields):
    edit(path, **fields)
    array, matrix = read_nifti(path)
    image = SimpleITK.ReadImage(str(path))
    assert array.dtype == array_of(image).dtype
    assert np.array_equal(array, array_of(image))
    assert np.allclose(matrix, ijk_to_ras_of(image), atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1.0, np.pi / 2, 3.0, np.pi])
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -2, 3)])
@pytest.mark.parametrize("hand", [1, -1])
def test_the_quaternion_says_the_same_as_the_matrix(tmp_path, angle, axis, hand):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(np.array(axis, float), angle) * (0.5, 2.0, 3.0 * hand)
    write_nifti(tmp_path / "image.nii", ARRAY, matrix)
    edit(tmp_path / "image.nii", sform_code=0)
    assert np.allclose(read_nifti(tmp_path / "image.nii")[1], matrix, atol=1e-5)


def test_a_sheared_grid_is_kept_by_the_sform_alone(tmp_path):
    sheared = MATRIX.copy()
    sheared[0, 1] += 0.4
    write_nifti(tmp_path / "image.nii", ARRAY, sheared)
    assert np.allclose(read_nifti(tmp_path / "image.nii")[1], sheared, atol=1e-5)


def test_a_scale_gives_floats_wide_enough_for_the_stored_type(path):
    edit(path, scl_slope=0.5)
    assert read_nifti(path)[0].dtype == np.float32
    write_nifti(path, ARRAY.astype(np.int32) + 2**30, MATRIX)
    edit(path, scl_slope=0.5)
    array = read_nifti(path)[0]
    assert array.dtype == np.float64
    assert np.array_equal(array, (ARRAY + 2.0**30) / 2)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_big_endian_files_are_read(tmp_path, dtype):
    write_nifti(tmp_path / "image.nii", ARRAY.astype(dtype), MATRIX)
    raw = (tmp_path / "image.nii").read_bytes()
    header = np.frombuffer(raw, nifti._HEADER_1, count=1).astype(nifti._HEADER_1.newbyteorder(">"))
    voxels = ARRAY.astype(np.dtype(dtype).newbyteorder(">")).tobytes()
    (tmp_path / "big.nii").write_bytes(header.tobytes() + bytes(4) + voxels)
    array, matrix = read_nifti(tmp_path / "big.nii")
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert np.array_equal(array, ARRAY)
    assert np.allclose(matrix, MATRIX, atol=1e-5)


@pytest.mark.parametrize("fields", [{"scl_slope": 0, "scl_inter": 7}, {"scl_slope": np.nan}, {"scl_inter": np.inf}])
def test_a_scale_that_says_nothing_changes_nothing(path, fields):
    edit(path, **fields)
    array = read_nifti(path)[0]
    assert array.dtype == ARRAY.dtype
    assert np.array_equal(array, ARRAY)


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("zipped", [True, False])
def test_nifti_2_is_read(tmp_path, endian, zipped):
    header = np.zeros(1, nifti._HEADER_2.newbyteorder(endian))
    header["sizeof_hdr"], header["magic"] = 540, b"n+2\0\r\n\x1a\n"
    header["dim"], header["datatype"], header["vox_offset"] = (3, 4, 3, 2, 1, 1, 1, 1), 4, 544
    header["sform_code"], header["srow"], header["xyzt_units"] = 1, MATRIX[:3], 2
    raw = header.tobytes() + bytes(4) + ARRAY.astype(endian + "i2").tobytes()
    (tmp_path / "two.nii").write_bytes(gzip.compress(raw) if zipped else raw)
    array, matrix = read_nifti(tmp_path / "two.nii")
    assert np.array_equal(array, ARRAY)
    assert np.array_equal(matrix, MATRIX)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"datatype": 128}, "colours"),
        ({"datatype": 32}, "complex"),
        ({"datatype": 1536}, "type 1536"),
        ({"dim": [2, 4, 6, 1, 1, 1, 1, 1]}, "2D image"),
        ({"dim": [4, 2, 3, 2, 2, 1, 1, 1]}, "2 volumes"),
        ({"dim": [5, 2, 3, 2, 1, 2, 1, 1]}, "2 volumes"),
    ],
)
def test_what_is_not_one_scalar_volume_is_refused(path, fields, words):
    edit(path, **fields)
    with pytest.raises(UnreadableFile, match=words):
        read_nifti(path)


def test_a_grid_too_large_for_nifti_1_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot hold"):
        write_nifti(tmp_path / "long.nii", np.zeros((1, 1, 40000), np.uint8), np.eye(4))
