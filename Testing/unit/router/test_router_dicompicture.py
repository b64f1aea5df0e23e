"""DICOM files as single pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from picture_writers import a_ramp, save_picture, save_radiograph
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from MedAILib.errors import DicomError, InputError
from MedMNISTRouterLib.inputs import Reading, read_pictures
from MedMNISTRouterLib.picture import Picture

DEEP = a_ramp().astype(np.uint16) * 16


def only(path: Path, reading: Reading | None = None) -> Picture:
    (picture,) = read_pictures(path, reading)
    return picture


def test_a_radiograph_has_its_window_and_its_modality(tmp_path: Path) -> None:
    path = save_radiograph(tmp_path / "x", DEEP, WindowCenter=2048, WindowWidth=4096)
    image = only(path).image
    assert (image.modality, image.value_range) == ("DX", (0.0, 4095.0))
    np.testing.assert_array_equal(image.pixels, DEEP)


def test_values_are_rescaled_and_of_several_windows_the_first_counts(tmp_path: Path) -> None:
    path = save_radiograph(
        tmp_path / "ct",
        DEEP,
        Modality="CT",
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=[40, 500],
        WindowWidth=[400, 2000],
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
    )
    image = only(path).image
    assert (image.value_range, image.plane) == ((-160.0, 239.0), "coronal")
    np.testing.assert_array_equal(image.pixels, DEEP * 2.0 - 1000)


def test_monochrome1_is_turned_into_light_on_dark(tmp_path: Path) -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    light = only(save_radiograph(tmp_path / "2", DEEP, **window)).image
    dark = only(save_radiograph(tmp_path / "1", DEEP, PhotometricInterpretation="MONOCHROME1", **window)).image
    assert dark.value_range == light.value_range
    np.testing.assert_array_equal(dark.pixels, 4095.0 - light.pixels)
    plain = only(save_radiograph(tmp_path / "8 bit", a_ramp(), PhotometricInterpretation="MONOCHROME1")).image
    np.testing.assert_array_equal(plain.pixels, 255 - a_ramp())


def test_without_a_window_padding_does_not_count_and_that_is_said(tmp_path: Path) -> None:
    padded = DEEP.astype(np.int16) + 100
    padded[:2] = -2000
    path = save_radiograph(tmp_path / "x", padded, PixelPaddingValue=-2000)
    picture = only(path)
    assert picture.image.value_range == (float(padded[2:].min()), float(padded.max()))
    assert "states no window" in picture.notes[0]


def test_a_table_of_grey_levels_is_applied(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = np.arange(255, -1, -1, dtype=np.uint16).tobytes()
    path = save_radiograph(tmp_path / "x", a_ramp(), VOILUTSequence=[table])
    np.testing.assert_array_equal(only(path).image.pixels, 255 - a_ramp())


def test_of_several_frames_the_first_is_taken_and_that_is_said(tmp_path: Path) -> None:
    frames = np.stack([a_ramp() // share for share in (1, 2, 3)])
    path = save_radiograph(tmp_path / "cine", frames, Modality="US")
    picture = only(path)
    assert picture.notes == ("It has 3 frames; number 1 was taken.",)
    np.testing.assert_array_equal(picture.image.pixels, frames[0])
    np.testing.assert_array_equal(only(path, Reading(frame=3)).image.pixels, frames[2])
    assert len(read_pictures(path, Reading(frame=0))) == 3
    with pytest.raises(InputError, match="no frame 4"):
        read_pictures(path, Reading(frame=4))


def test_colours_stay_and_a_grey_colour_picture_is_grey(tmp_path: Path) -> None:
    colours = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = save_radiograph(tmp_path / "derm", colours, PhotometricInterpretation="RGB", Modality="XC")
    np.testing.assert_array_equal(only(path).image.pixels, colours)
    grey = save_radiograph(tmp_path / "us", np.dstack([a_ramp()] * 3), PhotometricInterpretation="RGB")
    np.testing.assert_array_equal(only(grey).image.pixels, a_ramp())


def test_a_compressed_radiograph_is_read(tmp_path: Path) -> None:
    jpeg = save_picture(tmp_path / "x.jpg", a_ramp(), quality=95).read_bytes()
    dataset = pydicom.dcmread(save_radiograph(tmp_path / "x", a_ramp()))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([jpeg])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(tmp_path / "compressed", enforce_file_format=True)
    pixels = only(tmp_path / "compressed").image.pixels
    assert np.abs(pixels.astype(int) - a_ramp()).max() < 8


def test_damaged_and_imageless_files_are_refused(tmp_path: Path) -> None:
    path = save_radiograph(tmp_path / "x", DEEP)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DicomError, match="could not be read"):
        read_pictures(path)
    report = pydicom.dcmread(save_radiograph(tmp_path / "report", DEEP))
    del report.PixelData
    report.save_as(tmp_path / "report", enforce_file_format=True)
    with pytest.raises(DicomError, match="holds no image"):
        read_pictures(tmp_path / "report")


def test_a_real_slice_of_a_ct_is_read_as_stored(shared_data) -> None:
    path = next(one for one in sorted(shared_data("dicom/ct_pat1_rtstruct").rglob("*")) if one.is_file())
    image = only(path).image
    assert (image.modality, image.plane) == ("CT", "axial")
    assert image.pixels.shape == (201, 204)
