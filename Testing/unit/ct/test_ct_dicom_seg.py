"""Segments as a DICOM segmentation: read back they are the same, voxel for voxel, wherever the slices lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import a_slice, an_enhanced_file, save, save_series
from written_results import GIVEN, a_written_result, some_masks

from CTReportLib.documents import export
from CTReportLib.findings import finding
from CTReportLib.request import RESEARCH_USE, ReportResult
from MedAILib.errors import DicomError, FileMissing, GeometryMismatch, InputError, MissingPackage, UnreadableFile
from MedAILib.grids import Box, cropped, reoriented
from MedAILib.imageio import read_volume
from MedAILib.volume import Geometry, LabelMap, SegmentInfo, Volume

hd = pytest.importorskip("highdicom", reason="highdicom is not installed")

COMMON = {
    "StudyInstanceUID": "1.2.826.0.1.1",
    "FrameOfReferenceUID": "1.2.826.0.1.2",
    "PatientID": "p-1",
    "PatientName": "Test^Chest",
    "PatientBirthDate": "",
    "PatientSex": "O",
    "StudyDate": "20240102",
    "StudyTime": "101112",
    "StudyID": "7",
    "AccessionNumber": "",
}


def rotation(angle: float, axis: int) -> np.ndarray:
    turned = np.eye(3)
    a, b = [n for n in range(3) if n != axis]
    turned[[a, b], [a, b]] = np.cos(angle)
    turned[a, b], turned[b, a] = -np.sin(angle), np.sin(angle)
    return turned


AXIAL = np.diag([-0.7, -0.8, 2.5])
ORIENTATIONS = {
    "axial": AXIAL,
    "axial, feet first": AXIAL @ np.diag([-1, 1, -1]),
    "coronal": np.array([[-0.7, 0, 0], [0, 0, 2.5], [0, -0.8, 0]]),
    "sagittal": np.array([[0, 0, -2.5], [-0.7, 0, 0], [0, -0.8, 0]]),
    "oblique": rotation(0.4, 0) @ rotation(0.3, 2) @ AXIAL,
    "tilted gantry": AXIAL + np.array([[0, 0, 0], [0, 0, 0.7], [0, 0, 0]]),
}


def a_volume(directions: np.ndarray = AXIAL, shape: tuple[int, int, int] = (6, 10, 12)) -> Volume:
    matrix = np.eye(4)
    matrix[:3, :3] = directions
    matrix[:3, 3] = (31.5, -12.25, 100.75)
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), matrix)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder with an axial series of six slices."""
    folder = tmp_path / "Serie ö"
    save_series(folder, a_volume(), **COMMON)
    return folder


def exported(result: ReportResult, folder: Path, source: Path | None) -> hd.seg.Segmentation:
    path = export(result, "seg", folder, source=source)
    assert path.name.endswith("_localization_seg.dcm")
    return hd.seg.segread(path)


def descriptions(seg: hd.seg.Segmentation) -> list[hd.seg.SegmentDescription]:
    return [seg.get_segment_description(number) for number in seg.segment_numbers]


def written_masks(seg: hd.seg.Segmentation, source: Path, geometry: Geometry) -> dict[str, np.ndarray]:
    """Masks by segment label on the volume's grid; each frame's place is taken from the slice that it refers to."""
    headers = {h.SOPInstanceUID: h for h in (pydicom.dcmread(f, stop_before_pixels=True) for f in source.iterdir())}
    ras_to_ijk = np.linalg.inv(geometry.ijk_to_ras)
    found = {d.segment_label: np.zeros(geometry.shape_kji, bool) for d in descriptions(seg)}
    uids = [uid for _, _, uid in seg.get_source_image_uids()]
    pixels = seg.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    for uid, planes in zip(uids, pixels, strict=True):
        place = np.array([*map(float, headers[uid].ImagePositionPatient), 1.0]) * (-1, -1, 1, 1)
        ijk = ras_to_ijk @ place
        assert np.allclose(ijk[:3], np.rint(ijk[:3]), atol=1e-3) and np.allclose(ijk[:2], 0, atol=1e-3)
        for number, described in enumerate(descriptions(seg)):
            found[described.segment_label][int(np.rint(ijk[2]))] = planes[..., number]
    return found


def meant(masks: LabelMap) -> dict[str, np.ndarray]:
    return {info.name: masks.mask(info.id) for info in masks.segments if masks.mask(info.id).any()}


def assert_same(found: dict[str, np.ndarray], masks: LabelMap) -> None:
    expected = meant(masks)
    assert set(found) == set(expected)
    for name, mask in expected.items():
        assert np.array_equal(found[name], mask), name


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_segments_come_back_voxel_for_voxel_wherever_the_slices_lie(name: str, tmp_path: Path) -> None:
    save_series(tmp_path / "series", a_volume(ORIENTATIONS[name]), **COMMON)
    geometry = read_volume(tmp_path / "series").geometry
    result = a_written_result(geometry)
    seg = exported(result, tmp_path, tmp_path / "series")
    assert_same(written_masks(seg, tmp_path / "series", geometry), result.masks)


@pytest.mark.parametrize("axes", ["RAS", "LPI", "SAR", "PIL"])
def test_an_image_that_slicer_holds_the_other_way_round_is_found_on_its_slices(series, axes: str, tmp_path) -> None:
    geometry = read_volume(series).geometry
    masks = some_masks(geometry)
    seg = exported(a_written_result(masks=reoriented(masks, axes)), tmp_path, series)
    assert_same(written_masks(seg, series, geometry), masks)


def test_a_cropped_image_is_placed_where_it_was_cut_out(series, tmp_path) -> None:
    geometry = read_volume(series).geometry
    box = Box((1, 2, 3), (5, 9, 11))
    masks = some_masks(geometry)
    seg = exported(a_written_result(masks=cropped(masks, box)), tmp_path, series)
    found = written_masks(seg, series, geometry)
    for name, mask in meant(masks).items():
        expected = np.zeros_like(mask)
        expected[box.slices] = mask[box.slices]
        assert np.array_equal(found[name], expected)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 0, 5, 4, 1, 2]])
def test_a_multi_frame_file_is_referred_to_frame_by_frame(order: list[int], tmp_path: Path) -> None:
    volume = a_volume()
    dataset = an_enhanced_file(volume, order)
    for name, value in COMMON.items():
        setattr(dataset, name, value)
    save(dataset, tmp_path / "enhanced.dcm")
    result = a_written_result(read_volume(tmp_path / "enhanced.dcm").geometry)
    seg = exported(result, tmp_path, tmp_path / "enhanced.dcm")
    numbers = list(range(1, len(order) + 1))
    pixels = seg.get_pixels_by_source_frame(
        dataset.SOPInstanceUID, numbers, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    for number, described in enumerate(descriptions(seg)):
        mask = meant(result.masks)[described.segment_label]
        assert np.array_equal(pixels[..., number].astype(bool), mask[order])


def test_the_real_series_comes_back_voxel_for_voxel(shared_data, tmp_path: Path) -> None:
    source = shared_data("dicom/ct_pat1_rtstruct")
    geometry = read_volume(source).geometry
    masks = some_masks(geometry)
    only = tuple(layer * (np.arange(len(layer)) % 5 == 2)[:, None, None].astype(np.uint8) for layer in masks.layers)
    result = a_written_result(masks=LabelMap(only, geometry.ijk_to_ras, masks.segments))
    seg = exported(result, tmp_path, source)
    slices = {f for f in source.iterdir() if pydicom.dcmread(f, stop_before_pixels=True).get("Rows")}
    (tmp_path / "links").mkdir()
    for file in slices:
        (tmp_path / "links" / file.name).symlink_to(file)
    assert_same(written_masks(seg, tmp_path / "links", geometry), result.masks)
    first = pydicom.dcmread(next(iter(slices)), stop_before_pixels=True)
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert seg.get(name) == first.get(name)


def test_segments_say_what_they_are_where_and_who_drew_them(series, tmp_path) -> None:
    seg = exported(a_written_result(read_volume(series).geometry), tmp_path, series)
    described = {one.segment_label: one for one in descriptions(seg)}
    assert seg.SegmentsOverlap == "YES"
    lung, fluid, nodule = described["Left lung"], described["Fluid, left"], described["Nodule & candidate"]
    opacity, given = described["Opacity"], described["Consolidation, drawn by Dr. 漢 Ö"]
    assert (lung.segmented_property_type.value, _side(lung)) == ("39607008", "7771000")
    assert fluid.segmented_property_type.value == finding("pleural_effusion").code.value
    assert (fluid.segmented_property_type.scheme_designator, _side(fluid)) == ("SCT", "7771000")
    assert nodule.anatomic_regions[0].value == "39607008"
    assert _side(given) == "51440002"
    assert given.segmented_property_type.scheme_designator == "99MEDAI"
    assert given.segmented_property_type.meaning == "Consolidation"
    assert (lung.SegmentAlgorithmType, given.SegmentAlgorithmType) == ("AUTOMATIC", "MANUAL")
    assert opacity.algorithm_identification.family.meaning == "Artificial Intelligence"
    assert "a network 1.0" in opacity.algorithm_identification.name
    assert all(one.SegmentDescription.startswith(RESEARCH_USE) for one in descriptions(seg))
    assert "A rule of 20 ml. It may be more." in fluid.SegmentDescription
    assert seg.ContentQualification == "RESEARCH" and "research use" in seg.SeriesDescription.lower()
    assert "Low attenuation" not in described, "an empty segment is left out"
    assert GIVEN.startswith(given.segmented_property_type.meaning)


def test_what_somebody_drew_beside_the_report_is_not_called_computed(series, tmp_path) -> None:
    masks = some_masks(read_volume(series).geometry)
    drawn = SegmentInfo("Segment_1", "Pericardial effusion", 1, 1), SegmentInfo("Segment_2", "My thing", 1, 2)
    seg = exported(a_written_result(masks=replace(masks, segments=drawn)), tmp_path, series)
    effusion, thing = descriptions(seg)
    assert (effusion.SegmentAlgorithmType, thing.SegmentAlgorithmType) == ("MANUAL", "MANUAL")
    assert effusion.segmented_property_type.value == finding("pericardial_effusion").code.value
    assert (thing.segmented_property_type.meaning, thing.segmented_property_type.scheme_designator) == (
        "My thing",
        "99MEDAI",
    )
    assert "is not known here" in thing.SegmentDescription


@pytest.mark.parametrize("name", ["", "***", "a\\b\n c", "漢" * 90, "x" * 200])
def test_any_name_of_a_segment_can_be_written(name: str, series, tmp_path) -> None:
    masks = some_masks(read_volume(series).geometry)
    named = replace(masks, segments=(SegmentInfo("Segment_1", name, 1, 1),))
    (described,) = descriptions(exported(a_written_result(masks=named), tmp_path, series))
    assert 0 < len(described.segment_label) <= 64
    assert 0 < len(described.segmented_property_type.meaning) <= 64


def test_names_in_another_character_set_become_unicode(tmp_path) -> None:
    name = "Yamada^Tarou=山田^太郎"
    attributes = {**COMMON, "SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": name}
    save_series(tmp_path / "series", a_volume(), **attributes)
    result = a_written_result(read_volume(tmp_path / "series").geometry)
    for kind in ("seg", "sr"):
        back = pydicom.dcmread(export(result, kind, tmp_path, source=tmp_path / "series"))
        assert (str(back.PatientName), back.SpecificCharacterSet) == (name, "ISO_IR 192")


def test_an_anonymised_series_without_the_usual_attributes_is_enough(tmp_path) -> None:
    needed = {name: COMMON[name] for name in ("StudyInstanceUID", "FrameOfReferenceUID")}
    save_series(tmp_path / "series", a_volume(), **needed, SliceThickness=None)
    geometry = read_volume(tmp_path / "series").geometry
    result = a_written_result(geometry)
    seg = exported(result, tmp_path, tmp_path / "series")
    assert seg.PatientID == ""
    assert_same(written_masks(seg, tmp_path / "series", geometry), result.masks)
    assert export(result, "sr", tmp_path, source=tmp_path / "series").is_file()


# what cannot be done


@pytest.mark.parametrize("kind", ["seg", "sr"])
def test_without_a_dicom_series_the_error_says_what_to_do(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="refers to the patient") as raised:
        export(a_written_result(), kind, tmp_path)
    assert "Read the CT from its DICOM series" in raised.value.todo
    with pytest.raises(FileMissing):
        export(a_written_result(), kind, tmp_path, source=tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UnreadableFile):
        export(a_written_result(), kind, tmp_path / "x.dcm", source=tmp_path)
    assert not list(tmp_path.glob("*.dcm"))


@pytest.mark.parametrize("kind", ["seg", "sr"])
def test_another_series_a_moved_image_and_missing_slices_are_refused(kind: str, series: Path, tmp_path: Path) -> None:
    geometry = read_volume(series).geometry
    moved = geometry.ijk_to_ras.copy()
    moved[0, 3] += 0.3
    finer = geometry.ijk_to_ras @ np.diag([0.5, 1, 1, 1])
    for other in (Geometry(geometry.shape_kji, moved), Geometry(geometry.shape_kji, finer)):
        with pytest.raises(GeometryMismatch, match="does not lie on the slices"):
            export(a_written_result(other), kind, tmp_path, source=series)
    by_place = sorted(series.iterdir(), key=lambda file: float(pydicom.dcmread(file).ImagePositionPatient[2]))
    by_place[-1].unlink()
    with pytest.raises(GeometryMismatch, match="slices are missing"):
        export(a_written_result(geometry), kind, tmp_path, source=series)
    by_place[2].unlink()
    with pytest.raises(UnreadableFile, match="1 slice of this series is missing"):
        export(a_written_result(geometry), kind, tmp_path, source=series)


def test_of_two_series_on_the_same_slices_one_has_to_be_named(series: Path, tmp_path: Path) -> None:
    others = save_series(tmp_path / "other", a_volume(), **COMMON, SeriesNumber=5)
    for file in others:
        file.rename(series / f"second {file.name}")
    result = a_written_result(read_volume(series / "IM03é").geometry)
    with pytest.raises(InputError, match="holds 2 DICOM series"):
        export(result, "seg", tmp_path, source=series)
    seg = exported(result, tmp_path, series / "IM03é")
    assert {series_uid for _, series_uid, _ in seg.get_source_image_uids()} == {
        pydicom.dcmread(series / "IM03é").SeriesInstanceUID
    }


@pytest.mark.parametrize("attribute", ["PatientID", "FrameOfReferenceUID", "StudyInstanceUID"])
def test_slices_of_several_patients_studies_or_frames_are_refused(attribute: str, tmp_path: Path) -> None:
    volume = a_volume()
    for k in range(6):
        mixed = {**COMMON, "SeriesInstanceUID": "1.2.826.0.1.9", attribute: f"1.2.{k // 3}"}
        save(a_slice(volume, k, **mixed), tmp_path / f"{k}.dcm")
    with pytest.raises(DicomError, match=f"2 different values of {attribute}"):
        export(a_written_result(read_volume(tmp_path).geometry), "seg", tmp_path / "out.dcm", source=tmp_path)


def test_a_series_without_a_frame_of_reference_is_refused_by_name(tmp_path: Path) -> None:
    save_series(tmp_path / "series", a_volume(), **{**COMMON, "FrameOfReferenceUID": ""})
    with pytest.raises(DicomError, match="FrameOfReferenceUID"):
        export(a_written_result(read_volume(tmp_path / "series").geometry), "seg", tmp_path, source=tmp_path / "series")


def test_a_report_without_any_segment_makes_no_segmentation(series: Path, tmp_path: Path) -> None:
    geometry = read_volume(series).geometry
    empty = LabelMap((np.zeros(geometry.shape_kji, np.uint8),), geometry.ijk_to_ras, ())
    for masks in (None, empty):
        with pytest.raises(InputError, match="othing was localised"):
            export(a_written_result(masks=masks), "seg", tmp_path, source=series)


def test_without_highdicom_the_error_names_the_package_and_the_extra(series: Path, tmp_path, monkeypatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith(("CTReportLib.dicom_", "highdicom"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    for kind in ("seg", "sr"):
        with pytest.raises(MissingPackage, match=r"highdicom.*slicer-medai\[ct\]"):
            export(a_written_result(read_volume(series).geometry), kind, tmp_path, source=series)


def test_a_large_segmentation_is_one_bit_a_voxel_and_skips_empty_slices(tmp_path: Path) -> None:
    volume = a_volume(shape=(40, 64, 64))
    save_series(tmp_path / "series", replace(volume, array=np.zeros((40, 64, 64), np.int16)), **COMMON)
    geometry = read_volume(tmp_path / "series").geometry
    layer = np.zeros(geometry.shape_kji, np.uint8)
    layer[20, 5:9, 5:9] = 1
    masks = some_masks(geometry)
    result = a_written_result(masks=LabelMap((layer,), geometry.ijk_to_ras, (replace(masks.segments[0]),)))
    seg = exported(result, tmp_path, tmp_path / "series")
    assert seg.NumberOfFrames == 1
    assert len(seg.PixelData) == 64 * 64 // 8


def _side(described: hd.seg.SegmentDescription) -> str:
    return described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeValue
