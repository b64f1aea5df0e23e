"""Slicer's segmentation files: what their header says of the segments."""

from __future__ import annotations

import gzip
import logging
from dataclasses import replace

import numpy as np
import pytest

from MedAILib.errors import UnreadableFile
from MedAILib.formats.nrrd import read_keys, write_nrrd
from MedAILib.grids import Box, cropped, placed
from MedAILib.imageio import read_label_map, read_volume, write_label_map
from MedAILib.palette import default_color
from MedAILib.volume import Geometry, LabelMap, SegmentInfo

TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^123037004^Anatomical Structure"
    "~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
)


def overlapping() -> LabelMap:
    layers = np.zeros((2, 3, 4, 5), np.uint8)
    layers[0, 1, 1:3, 2:4] = 1
    layers[1, 1, 2:4, 3:5] = 1
    layers[0, 0, 0, 0] = 5
    segments = (
        SegmentInfo("liver", "Leber ü", 1, 0, (1.0, 0.5, 0.25), {"TerminologyEntry": TERMINOLOGY, "a:time": "12:30"}),
        SegmentInfo("tumour", "two\nlines \\n", 1, 1, (0.0, 0.25, 1.0), {"MedAI.Note": "a\\b\nc"}),
        SegmentInfo("dot", "dot", 5, 0),
        SegmentInfo("none", "none", 9, 1),
    )
    return LabelMap(tuple(layers), np.diag([-0.5, -0.5, 2.0, 1.0]), segments)


def test_names_colours_tags_and_overlapping_voxels_come_back_verbatim(tmp_path):
    label_map = overlapping()
    expected = list(label_map.segments)
    expected[0] = replace(expected[0], tags={"TerminologyEntry": TERMINOLOGY, "a/time": "12:30"})
    write_label_map(label_map, tmp_path / "out.seg.nrrd")
    again = read_label_map(tmp_path / "out.seg.nrrd")
    assert list(again.segments) == expected
    assert np.array_equal(again.layers, label_map.layers)
    assert again.geometry.same_grid_as(label_map.geometry)


def test_the_header_has_the_keys_that_slicer_reads(tmp_path):
    write_label_map(overlapping(), tmp_path / "out.seg.nrrd")
    keys = read_keys(tmp_path / "out.seg.nrrd")
    assert keys["Segment0_Extent"] == "2 3 1 2 1 1"
    assert keys["Segment3_Extent"] == "0 -1 0 -1 0 -1"
    assert keys["Segment1_Layer"] == "1"
    assert keys["Segment2_LabelValue"] == "5"
    assert keys["Segmentation_ContainedRepresentationNames"] == "Binary labelmap|"
    assert keys["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert keys["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"


def test_a_sign_the_format_reserves_is_replaced_and_said_so(tmp_path, caplog):
    layer = np.ones((1, 1, 1), np.uint8)
    label_map = LabelMap((layer,), np.eye(4), (SegmentInfo("a", "A", 1, tags={"list": "1|2"}),))
    with caplog.at_level(logging.WARNING):
        write_label_map(label_map, tmp_path / "out.seg.nrrd")
    assert read_label_map(tmp_path / "out.seg.nrrd").segments[0].tags == {"list": "1/2"}
    assert "1|2" in caplog.text


def test_a_cut_file_lies_in_its_place_and_returns_to_the_grid_of_its_volume(tmp_path):
    label_map = overlapping()
    cut = cropped(label_map, Box((0, 1, 2), (2, 4, 5)))
    keys = {
        "Segment0_ID": "liver",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segmentation_ReferenceImageExtentOffset": "2 1 0",
    }
    write_nrrd(tmp_path / "cut.seg.nrrd", cut.layers, cut.ijk_to_ras, keys)
    whole = placed(read_label_map(tmp_path / "cut.seg.nrrd"), label_map.geometry)
    assert np.array_equal(whole.mask("liver"), label_map.mask("liver"))


def test_a_file_with_few_keys_gets_defaults(tmp_path):
    write_nrrd(tmp_path / "few.nrrd", [np.array([[[0, 1, 2]]], np.uint8)], np.eye(4), {"Segment1_Name": "Two"})
    assert read_label_map(tmp_path / "few.nrrd").segments == (SegmentInfo("Segment_2", "Two", 2, 0, default_color(1)),)


def test_a_header_in_latin_1_and_with_windows_line_ends_is_read(tmp_path):
    header = "NRRD0004\r\ntype: uchar\r\ndimension: 3\r\nsizes: 2 1 1\r\nencoding: gzip\r\nSegment0_Name:=Fémur\r\n\r\n"
    (tmp_path / "old.seg.nrrd").write_bytes(header.encode("latin-1") + gzip.compress(b"\0\1"))
    assert read_keys(tmp_path / "old.seg.nrrd") == {"Segment0_Name": "Fémur"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"Segment0_ID": "a", "Segment0_Layer": "3"}, "layer 3"),
        ({"Segment0_ID": "a", "Segment0_LabelValue": "one"}, "'one'"),
        ({"Segment0_ID": "a", "Segmentation_ReferenceImageExtentOffset": "1 2"}, "'1 2'"),
    ],
)
def test_a_header_that_contradicts_itself_is_an_error(keys, words, tmp_path):
    write_nrrd(tmp_path / "bad.seg.nrrd", [np.zeros((1, 1, 1), np.uint8)], np.eye(4), keys)
    with pytest.raises(UnreadableFile, match=words):
        read_label_map(tmp_path / "bad.seg.nrrd")


def test_overlapping_segments_are_not_an_image(tmp_path):
    write_label_map(overlapping(), tmp_path / "out.seg.nrrd")
    with pytest.raises(UnreadableFile, match="segmentation with overlapping segments"):
        read_volume(tmp_path / "out.seg.nrrd")


def test_layers_of_different_types_are_written_in_one_that_holds_both(tmp_path):
    layers = (np.full((1, 1, 2), 200, np.uint8), np.full((1, 1, 2), 60000, np.uint16))
    write_label_map(LabelMap(layers, np.eye(4), ()), tmp_path / "out.seg.nrrd")
    again = read_label_map(tmp_path / "out.seg.nrrd")
    assert [int(layer.max()) for layer in again.layers] == [200, 60000]


def test_the_first_thirty_default_colours_can_be_told_apart():
    colours = np.array([default_color(index) for index in range(30)])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + np.eye(30)
    assert apart.min() > 0.08
    assert ((colours >= 0) & (colours <= 1)).all()


def test_a_geometry_is_written_with_all_its_digits(tmp_path):
    matrix = np.diag([1 / 3, 0.1, 0.7, 1.0])
    matrix[:3, 3] = (1e-7, 1e3 / 7, -1 / 9)
    write_label_map(LabelMap((np.zeros((1, 1, 1), np.uint8),), matrix, ()), tmp_path / "out.seg.nrrd")
    assert read_label_map(tmp_path / "out.seg.nrrd").geometry.same_grid_as(Geometry((1, 1, 1), matrix), 1e-12)
