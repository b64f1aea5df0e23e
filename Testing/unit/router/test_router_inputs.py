"""Pictures from files: what is read, what is said about it, and what is refused by name."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from picture_writers import LFS_POINTER, a_ramp, save_picture, save_radiograph
from PIL import Image

from MedAILib.errors import FileMissing, InputError, UnreadableFile
from MedAILib.imageio import write_volume
from MedAILib.volume import Volume
from MedMNISTRouterLib.inputs import ALL_SLICES, Batch, Reading, find_picture, found_files, read_batches, read_pictures
from MedMNISTRouterLib.picture import Picture, grey_where_grey
from MedMNISTRouterLib.prepare import eight_bit
from MedMNISTRouterLib.request import Answer

COLOURS = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def only(path: Path, reading: Reading | None = None) -> Picture:
    (picture,) = read_pictures(path, reading)
    return picture


@pytest.mark.parametrize("name", ["grey ä.png", "grey.bmp", "grey.tif", "grey.webp"])
def test_a_grey_picture_comes_back_to_the_bit(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    picture = only(save_picture(tmp_path / "bösé folder" / name, a_ramp(), **options))
    assert picture.image.name == name and picture.notes == ()
    assert not picture.image.is_colour
    np.testing.assert_array_equal(picture.image.pixels, a_ramp())


def test_a_colour_picture_keeps_its_channels(tmp_path: Path) -> None:
    picture = only(save_picture(tmp_path / "cells.png", COLOURS))
    assert picture.image.is_colour
    np.testing.assert_array_equal(picture.image.pixels, COLOURS)


def test_a_grey_radiograph_stored_as_a_colour_jpeg_is_grey(tmp_path: Path) -> None:
    picture = only(save_picture(tmp_path / "x.jpg", np.dstack([a_ramp()] * 3), quality=85))
    assert picture.image.pixels.shape == (20, 30)
    assert np.abs(picture.image.pixels.astype(int) - a_ramp()).max() < 8


@pytest.mark.parametrize(("orientation", "turns", "flips"), [(1, 0, False), (3, 2, False), (6, 3, False), (2, 0, True)])
def test_a_photograph_is_turned_upright_as_its_exif_says(
    tmp_path: Path, orientation: int, turns: int, flips: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = only(save_picture(tmp_path / "phone.png", COLOURS, exif=exif))
    upright = np.rot90(COLOURS, turns)
    np.testing.assert_array_equal(picture.image.pixels, upright[:, ::-1] if flips else upright)


def test_sixteen_bits_are_kept_and_not_clipped(tmp_path: Path) -> None:
    values = (a_ramp().astype(np.uint16) * 200) + 7
    for name in ("deep.png", "deep.tif"):
        picture = only(save_picture(tmp_path / name, values))
        assert picture.image.pixels.dtype == np.uint16
        np.testing.assert_array_equal(picture.image.pixels, values)


def test_a_tiff_that_stores_white_as_zero_is_turned_round(tmp_path: Path) -> None:
    values = a_ramp().astype(np.uint16) * 200
    path = save_picture(tmp_path / "negative.tif", values, tiffinfo={262: 0})
    with Image.open(path) as stored:
        assert dict(stored.tag_v2)[262] == 0
    np.testing.assert_array_equal(only(path).image.pixels, np.iinfo(np.uint16).max - values)


def test_of_sixteen_bits_per_colour_the_upper_eight_are_kept(tmp_path: Path) -> None:
    import SimpleITK

    values = COLOURS.astype(np.uint16) * 256 + 17
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values, isVector=True), str(tmp_path / "deep.tif"))
    np.testing.assert_array_equal(only(tmp_path / "deep.tif").image.pixels, COLOURS)


def test_floating_point_pictures_stay_floating_point(tmp_path: Path) -> None:
    values = a_ramp().astype(np.float32) / 255 - 0.5
    np.testing.assert_array_equal(only(save_picture(tmp_path / "f.tif", values)).image.pixels, values)


def test_a_palette_is_resolved(tmp_path: Path) -> None:
    picture = Image.fromarray(COLOURS).quantize(16)
    picture.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(only(tmp_path / "palette.png").image.pixels, np.asarray(picture.convert("RGB")))


def test_transparent_parts_are_black_and_that_is_said(tmp_path: Path) -> None:
    solid = np.dstack([COLOURS, np.full((20, 30), 255, np.uint8)])
    assert only(save_picture(tmp_path / "solid.png", solid)).notes == ()
    holed = solid.copy()
    holed[:10, :, 3] = 0
    picture = only(save_picture(tmp_path / "holed.png", holed))
    assert picture.notes == ("Its transparent parts were taken as black.",)
    assert picture.image.pixels[:10].max() == 0
    np.testing.assert_array_equal(picture.image.pixels[10:], COLOURS[10:])


def test_four_printing_colours_become_three_and_one_bit_becomes_grey(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert only(tmp_path / "print.jpg").image.pixels.shape == (20, 30, 3)
    Image.fromarray(a_ramp() > 100).save(tmp_path / "bit.png")
    assert set(np.unique(only(tmp_path / "bit.png").image.pixels)) == {0, 255}


def test_of_several_pages_the_first_is_taken_and_that_is_said(tmp_path: Path) -> None:
    pages = [Image.fromarray(a_ramp() // share) for share in (1, 2, 3)]
    path = tmp_path / "pages.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    first = only(path)
    assert first.notes == ("It has 3 pages; number 1 was taken.",)
    second = only(path, Reading(frame=2))
    assert (second.image.name, second.notes) == ("pages.tif [2]", ())
    np.testing.assert_array_equal(second.image.pixels, a_ramp() // 2)
    assert [picture.image.name[-3:] for picture in read_pictures(path, Reading(frame=0))] == ["[1]", "[2]", "[3]"]
    with pytest.raises(InputError, match="no page 4"):
        read_pictures(path, Reading(frame=4))


def test_channels_that_differ_a_little_are_grey_and_a_faint_stain_is_not() -> None:
    grey = np.dstack([a_ramp(), np.maximum(a_ramp(), 3), a_ramp()])
    assert grey_where_grey(grey).ndim == 2
    stained = np.dstack([a_ramp()] * 3)
    stained[:3, :3, 0] = 40
    assert grey_where_grey(stained).ndim == 3


# What is refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (LFS_POINTER, "Git LFS pointer"),
        (b"<!DOCTYPE html><html>sign in</html>", "an HTML page"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"just some words\n", "a text file"),
        (bytes(range(1, 200)), "no format we know"),
    ],
)
def test_what_is_no_picture_is_named_for_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match="not an image") as caught:
        read_pictures(path)
    assert said in caught.value.text
    assert caught.value.todo


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_picture_is_refused_and_never_half_read(tmp_path: Path, ending: str, share: float) -> None:
    path = save_picture(tmp_path / f"whole.{ending}", np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableFile, match="could not be read as a picture"):
        read_pictures(path)


def test_a_file_that_is_not_there_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        read_pictures(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        read_pictures(tmp_path)


# Volumes


@pytest.fixture
def a_volume_file(tmp_path: Path) -> Path:
    values = np.arange(6 * 20 * 30, dtype=np.int16).reshape(6, 20, 30)
    write_volume(Volume(values, np.diag([-1.0, -1.0, 3.0, 1.0])), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def test_of_a_volume_the_middle_slice_is_taken_and_that_is_said(a_volume_file: Path) -> None:
    picture = only(a_volume_file)
    assert picture.image.name == "ct.nii.gz [k 3]"
    assert picture.image.plane == "axial"
    assert "Of 6 slices along k the middle one, 3, was taken." in picture.notes
    assert any("No window was given" in note for note in picture.notes)


def test_a_whole_stack_has_one_window_and_its_slices_are_those_taken_one_by_one(a_volume_file: Path) -> None:
    stack = read_pictures(a_volume_file, Reading(slice=ALL_SLICES))
    assert len(stack) == 6
    for index in (0, 5):
        alone = only(a_volume_file, Reading(slice=index))
        np.testing.assert_array_equal(stack[index].image.pixels, alone.image.pixels)
    with pytest.raises(InputError, match="no slice 6"):
        read_pictures(a_volume_file, Reading(slice=6))


def test_a_damaged_volume_is_refused(a_volume_file: Path) -> None:
    a_volume_file.write_bytes(gzip.compress(b"not a volume"))
    with pytest.raises(UnreadableFile):
        read_pictures(a_volume_file)


# Several files


def test_a_folder_gives_its_pictures_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("im 10.png", "im 9.png", "Im 1.png"):
        save_picture(tmp_path / name, a_ramp())
    save_radiograph(tmp_path / "zz without ending", a_ramp())
    (tmp_path / "notes.txt").write_text("none of them")
    (tmp_path / "pointer.png").write_bytes(LFS_POINTER)  # it calls itself a picture: its answer will say what it is
    files, remarks = found_files([tmp_path])
    assert [path.name for path in files] == ["Im 1.png", "im 9.png", "im 10.png", "pointer.png", "zz without ending"]
    assert remarks == (f"'{tmp_path}': files that are no pictures were passed over: 1.",)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileMissing, match="no picture in the folder"):
        found_files([tmp_path / "empty"])


def test_a_pattern_gives_what_matches_and_a_file_named_twice_comes_once(tmp_path: Path) -> None:
    first, second = (save_picture(tmp_path / "a ü" / f"{name}.png", a_ramp()) for name in "ab")
    files, _ = found_files([second, str(tmp_path / "*" / "*.png")])
    assert files == (second, first)
    with pytest.raises(FileMissing, match="No file matches"):
        found_files([str(tmp_path / "*.jpg")])
    odd = save_picture(tmp_path / "odd [1].png", a_ramp())
    assert found_files([odd])[0] == (odd,)


def a_batch(paths: list[Path], reading: Reading | None = None) -> Batch:
    ((batch, count),) = read_batches(paths, reading)
    assert count == len(paths)
    return batch


def test_a_batch_keeps_the_place_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    good = save_picture(tmp_path / "good.png", a_ramp())
    (tmp_path / "bad.png").write_bytes(LFS_POINTER)
    batch = a_batch([good, tmp_path / "bad.png", tmp_path / "none.png"])
    assert [image.name for image in batch.images] == ["good.png"]
    answers = batch.merged([Answer("good.png", warnings=("as it came",))])
    assert [answer.image for answer in answers] == ["good.png", "bad.png", "none.png"]
    assert [answer.error_code for answer in answers] == ["", "INVALID_FORMAT", "FILE_NOT_FOUND"]
    assert answers[0].warnings == ("as it came",)


def test_files_of_the_same_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / folder / "scan.png", a_ramp()) for folder in ("one", "two")]
    batch = a_batch([*paths, save_picture(tmp_path / "other.png", a_ramp())])
    assert [image.name for image in batch.images] == [*map(str, paths), "other.png"]


def test_a_batch_holds_what_a_model_sees_of_a_picture(tmp_path: Path) -> None:
    path = save_radiograph(tmp_path / "x", a_ramp().astype(np.uint16) * 16, WindowCenter=2048, WindowWidth=4096)
    (image,) = a_batch([path]).images
    assert (image.pixels.dtype, image.value_range, image.modality) == (np.uint8, None, "DX")
    np.testing.assert_array_equal(image.pixels, eight_bit(only(path).image).pixels)


def test_values_that_are_no_numbers_are_not_hidden_by_the_way_to_eight_bits(tmp_path: Path) -> None:
    values = a_ramp().astype(np.float32)
    values[3, 3] = np.nan
    (image,) = a_batch([save_picture(tmp_path / "f.tif", values)]).images
    assert np.isnan(image.pixels).any()


def test_large_pictures_come_a_few_at_a_time(tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / f"{n}.png", np.zeros((6000, 6000), np.uint8)) for n in range(3)]
    assert [(len(batch.images), count) for batch, count in read_batches(paths)] == [(2, 2), (1, 1)]


def test_the_picture_of_an_answer_is_found_again(tmp_path: Path) -> None:
    frames = np.stack([a_ramp() // share for share in (1, 2)])
    paths = [save_radiograph(tmp_path / "cine", frames), save_picture(tmp_path / "cine [2].png", a_ramp())]
    reading = Reading(frame=0)
    for image in a_batch(paths, reading).images:
        found = find_picture(paths, reading, image.name)
        assert found is not None
        np.testing.assert_array_equal(found.pixels, image.pixels)
    assert find_picture(paths, reading, "other") is None
    paths[1].unlink()
    assert find_picture(paths, reading, "cine [2].png") is None
