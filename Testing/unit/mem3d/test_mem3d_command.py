"""``medai propagate`` as a user meets it: files in, files out, and a paragraph where that is impossible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import save_series
from hostile_system import full_disk
from phantoms import ball, ellipsoid, on_slices

from MedAILib.cli.main import main
from MedAILib.imageio import read_label_map, read_volume, write_label_map, write_volume
from MedAILib.volume import LabelMap, SegmentInfo, Volume
from Mem3DPropagateLib.shapes import dice

SHAPE = (24, 30, 34)
MATRIX = np.array([[-0.9, 0.1, 0.0, 40], [0.1, 0.8, 0.2, -12], [0.0, -0.3, 2.0, 5], [0, 0, 0, 1.0]])
ORGAN = ellipsoid(SHAPE, (12, 14, 12), (10, 10, 9))
CYST = ball(SHAPE, (12, 14, 27), 5)
ORGAN_SLICES, CYST_SLICES = (2, 7, 12, 17, 22), (8, 12, 16)
ORGAN_INFO = SegmentInfo("organ", "Örgan", 1, 0, (0.9, 0.2, 0.1), {"TerminologyEntry": "a~b~c"})
CYST_INFO = SegmentInfo("cyst", "Cyst two", 2, 0, (0.1, 0.4, 0.9))


def a_label_map(organ: np.ndarray = ORGAN, cyst: np.ndarray = CYST, matrix: np.ndarray = MATRIX) -> LabelMap:
    labels = np.zeros(organ.shape, np.uint8)
    labels[organ] = 1
    labels[cyst] = 2
    return LabelMap((labels,), matrix, (ORGAN_INFO, CYST_INFO))


DRAWING = a_label_map(on_slices(ORGAN, ORGAN_SLICES), on_slices(CYST, CYST_SLICES))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a volume, a drawing on it, and the truth; its name has a space and other letters."""
    folder = tmp_path / "Ordner mit ü 漢"
    folder.mkdir()
    image = np.random.default_rng(0).normal(100, 15, SHAPE).astype(np.float32) + 80 * ORGAN - 60 * CYST
    write_volume(Volume(image, MATRIX), folder / "volume.nii.gz")
    write_label_map(DRAWING, folder / "drawing.seg.nrrd")
    write_label_map(a_label_map(), folder / "truth.seg.nrrd")
    return folder


@pytest.fixture
def medai(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs ``medai propagate`` in this process and answers status, output and errors."""

    def run(*options: str, volume: str = "volume.nii.gz", drawing: str = "drawing.seg.nrrd", out: str = "out.seg.nrrd"):
        paths = ["--volume", str(folder / volume), "--segmentation", str(folder / drawing), "--out", str(folder / out)]
        capsys.readouterr()
        status = main(["propagate", *paths, *options])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


# What comes out


def test_the_result_keeps_names_colours_tags_geometry_and_drawn_slices(medai, folder) -> None:
    status, said, errors = medai()
    assert (status, errors) == (0, "")
    found = read_label_map(folder / "out.seg.nrrd")
    assert [(s.id, s.name, s.color_rgb) for s in found.segments] == [
        (s.id, s.name, pytest.approx(s.color_rgb, abs=1e-5)) for s in DRAWING.segments
    ]
    assert found.segment("organ").tags["TerminologyEntry"] == "a~b~c"
    assert found.geometry.same_grid_as(DRAWING.geometry)
    for segment, slices, truth in (("organ", ORGAN_SLICES, ORGAN), ("cyst", CYST_SLICES, CYST)):
        np.testing.assert_array_equal(found.mask(segment)[list(slices)], truth[list(slices)])
        assert dice(found.mask(segment), truth) > 0.9
    for words in (
        "Örgan: 16 slices along k from 5 drawn ones (mem3d_memory, medai-propagate-s)",
        "Cyst two: 6 slices",
        "Research use",
    ):
        assert words in said


def test_with_a_true_segmentation_the_report_has_dice_per_segment_and_per_slice(medai, folder) -> None:
    options = ("--reference-segmentation", str(folder / "truth.seg.nrrd"), "--report", str(folder / "r.json"))
    status, said, _ = medai(*options)
    assert status == 0 and said.count("Dice with the reference segmentation: ") == 2
    report = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    organ = report["result"]["segments"][0]
    assert organ["name"] == "Örgan" and organ["volume_dice"] > 0.9
    assert set(organ["slice_dice"]) & {str(n) for n in ORGAN_SLICES} == set()
    assert {"run_id", "seconds", "peak_memory_mb", "versions", "stages"} <= set(report)


def test_json_is_one_document_with_the_confidence_of_every_slice(medai, folder) -> None:
    status, said, errors = medai("--json", "--reference-segmentation", str(folder / "truth.seg.nrrd"))
    assert (status, errors) == (0, "")
    result = json.loads(said)["result"]
    assert result["axis"] == "k"
    organ = result["segments"][0]
    assert [s["index"] for s in organ["slices"]] == list(range(2, 23))
    assert all(0 <= s["confidence"] <= 1 for s in organ["slices"])
    assert organ["advice"]["reason"] and 0 < organ["quality_score"] <= organ["confidence"] < 1


def test_a_picture_is_written(medai, folder) -> None:
    assert medai("--picture", str(folder / "Bild ü.png"))[0] == 0
    from PIL import Image

    assert Image.open(folder / "Bild ü.png").size[0] > 800


@pytest.mark.parametrize("out", ["out.nii.gz", "out.nrrd", "out.mha"])
def test_other_formats_hold_the_labels(medai, folder, out) -> None:
    assert medai(out=out)[0] == 0
    found = read_label_map(folder / out)
    assert dice(found.layers[0] == 1, ORGAN) > 0.9 and dice(found.layers[0] == 2, CYST) > 0.9
    assert found.geometry.same_grid_as(DRAWING.geometry, 1e-2)


def test_a_plain_label_map_is_a_drawing_too(medai, folder) -> None:
    write_label_map(DRAWING, folder / "labels.nii.gz")
    status, said, _ = medai(drawing="labels.nii.gz")
    assert status == 0 and "Segment_1" in said and "Segment_2" in said


def test_a_drawing_saved_without_its_empty_border_is_put_in_place(medai, folder) -> None:
    box = (slice(2, 23), slice(3, 26), slice(2, 33))
    moved = MATRIX.copy()
    moved[:3, 3] += MATRIX[:3, :3] @ (2, 3, 2)
    cropped = LabelMap((DRAWING.layers[0][box],), moved, DRAWING.segments)
    write_label_map(cropped, folder / "cropped.seg.nrrd")
    assert medai(drawing="cropped.seg.nrrd", out="from cropped.seg.nrrd")[0] == medai()[0] == 0
    one, other = read_label_map(folder / "from cropped.seg.nrrd"), read_label_map(folder / "out.seg.nrrd")
    np.testing.assert_array_equal(one.layers[0], other.layers[0])


def test_a_dicom_folder_is_a_volume(medai, folder) -> None:
    image = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    straight = np.diag([-0.9, -0.8, 2.0, 1.0])
    save_series(folder / "dicom ü", Volume(image, straight))
    there = read_volume(folder / "dicom ü")
    drawing = a_label_map(on_slices(ORGAN, ORGAN_SLICES), on_slices(CYST, CYST_SLICES), there.ijk_to_ras)
    write_label_map(drawing, folder / "on dicom.seg.nrrd")
    assert medai(volume="dicom ü", drawing="on dicom.seg.nrrd")[0] == 0
    assert dice(read_label_map(folder / "out.seg.nrrd").mask("organ"), ORGAN) > 0.9


def test_a_worker_gives_the_same_file(medai, folder) -> None:
    assert medai()[0] == medai("--worker", out="worker.seg.nrrd")[0] == 0
    one, other = read_label_map(folder / "out.seg.nrrd"), read_label_map(folder / "worker.seg.nrrd")
    np.testing.assert_array_equal(one.layers[0], other.layers[0])


# Options


def test_only_the_named_segment_is_propagated_and_the_other_stays(medai, folder) -> None:
    status, said, _ = medai("--segment", "Cyst two")
    assert status == 0 and "Örgan" not in said
    found = read_label_map(folder / "out.seg.nrrd")
    np.testing.assert_array_equal(found.mask("organ"), on_slices(ORGAN, ORGAN_SLICES))
    assert dice(found.mask("cyst"), CYST) > 0.9


def test_a_segment_that_is_not_propagated_never_loses_a_voxel(medai, folder) -> None:
    wall = np.zeros(SHAPE, bool)
    wall[:, 14, :] = True
    drawn = on_slices(ORGAN, ORGAN_SLICES) & ~wall
    write_label_map(a_label_map(drawn, wall), folder / "walled.seg.nrrd")
    assert medai("--segment", "organ", "--axis", "k", drawing="walled.seg.nrrd")[0] == 0
    found = read_label_map(folder / "out.seg.nrrd")
    np.testing.assert_array_equal(found.mask("cyst"), wall)
    np.testing.assert_array_equal(found.mask("organ")[list(ORGAN_SLICES)], drawn[list(ORGAN_SLICES)])


def test_a_segment_drawn_over_one_that_is_not_propagated_keeps_its_drawing(medai, folder) -> None:
    layers = tuple(np.where(mask, 1, 0).astype(np.uint8) for mask in (on_slices(ORGAN, ORGAN_SLICES), ORGAN))
    infos = (ORGAN_INFO, SegmentInfo("whole", "Whole", 1, 1))
    write_label_map(LabelMap(layers, MATRIX, infos), folder / "layers.seg.nrrd")
    assert medai("--segment", "organ", drawing="layers.seg.nrrd")[0] == 0
    found = read_label_map(folder / "out.seg.nrrd")
    np.testing.assert_array_equal(found.mask("whole"), ORGAN)
    np.testing.assert_array_equal(found.mask("organ")[list(ORGAN_SLICES)], ORGAN[list(ORGAN_SLICES)])
    assert dice(found.mask("organ"), ORGAN) > 0.9


def test_named_references_alone_are_used(medai, folder) -> None:
    status, said, _ = medai("--references", "2,12,22", "--axis", "k", "--segment", "organ", drawing="truth.seg.nrrd")
    assert status == 0 and "18 slices along k from 3 drawn ones" in said


def test_a_named_reference_without_voxels_says_that_the_structure_is_not_there(medai, folder) -> None:
    status, _, _ = medai("--references", "2,7,12,20", "--segment", "organ", "--extend", "auto")
    found = read_label_map(folder / "out.seg.nrrd").mask("organ")
    assert status == 0 and np.flatnonzero(found.any(axis=(1, 2)))[-1] == 15


@pytest.mark.parametrize(("extend", "last"), [("0", 22), ("1", 23), ("50", 23)])
def test_so_many_slices_beyond_are_filled_within_the_volume(medai, folder, extend, last) -> None:
    assert medai("--extend", extend, "--segment", "organ", "--method", "geometry")[0] == 0
    found = read_label_map(folder / "out.seg.nrrd").mask("organ")
    assert np.flatnonzero(found.any(axis=(1, 2)))[-1] == last


@pytest.mark.parametrize("axis", ["i", "j"])
def test_other_axes_can_be_named(medai, folder, axis) -> None:
    index = {"i": 12, "j": 14}[axis]
    references = f"{index - 6},{index},{index + 6}"
    status, said, _ = medai("--axis", axis, "--references", references, "--segment", "organ", drawing="truth.seg.nrrd")
    assert status == 0 and f"10 slices along {axis} from 3 drawn ones" in said


# What cannot be


def assert_refused(found: tuple[int, str, str], status: int, *words: str) -> None:
    """One paragraph on standard error with these words, the status, and no traceback."""
    code, said, errors = found
    assert code == status, errors
    assert said == ""
    assert errors.startswith("medai: ") and len(errors.splitlines()) == 1 and "Traceback" not in errors, errors
    for word in words:
        assert word in errors


def test_a_drawing_without_a_drawn_slice_is_refused(medai, folder) -> None:
    nothing = np.zeros(SHAPE, bool)
    write_label_map(a_label_map(nothing, nothing), folder / "empty.seg.nrrd")
    for options in ((), ("--axis", "k"), ("--axis", "k", "--segment", "organ"), ("--references", "3", "--axis", "k")):
        assert_refused(medai(*options, drawing="empty.seg.nrrd"), 2, "draw", "three to five slices", "[NOTHING_DRAWN]")
    write_label_map(LabelMap((np.zeros(SHAPE, np.uint8),), MATRIX, ()), folder / "no segment.seg.nrrd")
    for options in ((), ("--axis", "k")):
        assert_refused(medai(*options, drawing="no segment.seg.nrrd"), 2)
    write_label_map(LabelMap((np.zeros(SHAPE, np.uint8),), MATRIX, ()), folder / "zeros.nii.gz")
    assert_refused(medai(drawing="zeros.nii.gz"), 2)
    assert "out.seg.nrrd" not in names(folder)


def test_a_drawing_on_another_grid_is_refused_with_both_files_named(medai, folder) -> None:
    other = MATRIX.copy()
    other[:3, 3] += 0.4
    write_label_map(LabelMap(DRAWING.layers, other, DRAWING.segments), folder / "shifted.seg.nrrd")
    coarse = MATRIX @ np.diag([2.0, 2.0, 1.0, 1.0])
    write_label_map(LabelMap((DRAWING.layers[0][:, ::2, ::2],), coarse, DRAWING.segments), folder / "coarse.seg.nrrd")
    for name in ("shifted", "coarse"):
        assert_refused(medai(drawing=f"{name}.seg.nrrd"), 2, f"{name}.seg.nrrd", "[GEOMETRY_MISMATCH]")
        options = ("--reference-segmentation", str(folder / f"{name}.seg.nrrd"))
        assert_refused(medai(*options), 2, f"{name}.seg.nrrd", "[GEOMETRY_MISMATCH]")
    assert "out.seg.nrrd" not in names(folder)


def test_images_that_are_not_three_dimensional_are_refused(medai, folder) -> None:
    import SimpleITK

    flat = SimpleITK.GetImageFromArray(np.ones((20, 30), np.int16))
    series = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(np.ones((5, 20, 30), np.int16))] * 3)
    for name, image in (("flat", flat), ("series", series)):
        for suffix in (".nrrd", ".nii.gz"):
            SimpleITK.WriteImage(image, folder / f"{name}{suffix}")
            assert_refused(medai(volume=f"{name}{suffix}"), 2, f"{name}{suffix}", "[INVALID_FORMAT]")
            assert_refused(medai(drawing=f"{name}{suffix}"), 2, f"{name}{suffix}", "[INVALID_FORMAT]")


def test_unreadable_and_missing_files_are_named(medai, folder) -> None:
    (folder / "text.nii.gz").write_text("not an image", encoding="ascii")
    whole = (folder / "volume.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "nothing.nrrd").write_bytes(b"")
    for name in ("text.nii.gz", "cut.nii.gz", "nothing.nrrd"):
        assert_refused(medai(volume=name), 2, name, "[INVALID_FORMAT]")
        assert_refused(medai(drawing=name), 2, name, "[INVALID_FORMAT]")
    assert_refused(medai(volume="gone.nii.gz"), 2, "gone.nii.gz", "[FILE_NOT_FOUND]")
    assert_refused(medai(drawing="gone.seg.nrrd"), 2, "gone.seg.nrrd", "[FILE_NOT_FOUND]")
    assert_refused(medai("--reference-segmentation", str(folder / "gone.nrrd")), 2, "gone.nrrd", "[FILE_NOT_FOUND]")
    assert_refused(medai(drawing="volume.nii.gz"), 2, "volume.nii.gz", "not a label map")


@pytest.mark.parametrize("references", ["2,24", "-1,2", "500"])
def test_references_outside_the_volume_are_refused_with_its_range(medai, folder, references) -> None:
    assert_refused(medai(f"--references={references}"), 2, "0 to 23", "[INVALID_INPUT]")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--references", "2;3"), "2;3"),
        (("--references", ""), "10,20,30"),
        (("--extend", "far"), "far"),
        (("--extend", "-3"), "-3"),
        (("--extend=1.5",), "1.5"),
        (("--axis", "z"), "z"),
        (("--method", "magic"), "magic"),
        (("--segment", "Liver"), "Liver"),
    ],
)
def test_options_that_cannot_be_used_are_named(medai, folder, options, word) -> None:
    assert_refused(medai(*options), 2, word)
    assert "out.seg.nrrd" not in names(folder)


def test_an_unknown_segment_is_refused_with_those_there_are(medai) -> None:
    assert_refused(medai("--segment", "Liver"), 2, "Örgan", "Cyst two")


def test_a_whole_structure_without_named_references_asks_for_the_axis(medai) -> None:
    assert_refused(medai(drawing="truth.seg.nrrd"), 2, "Name the axis (i, j or k)")


def test_a_true_segmentation_without_a_counterpart_is_refused_before_the_run(medai, folder) -> None:
    labels = np.where(ORGAN, 7, 0).astype(np.uint8)
    write_label_map(LabelMap((labels,), MATRIX, (SegmentInfo("x", "X", 7),)), folder / "other.seg.nrrd")
    options = ("--reference-segmentation", str(folder / "other.seg.nrrd"))
    assert_refused(medai(*options), 2, "counterpart", "Örgan")
    assert "out.seg.nrrd" not in names(folder)


def test_an_output_that_cannot_be_is_refused_and_nothing_is_left_behind(medai, folder) -> None:
    before = names(folder)
    assert_refused(medai(out="nowhere/out.seg.nrrd"), 4, "does not exist", "[OUTPUT_NOT_WRITTEN]")
    assert_refused(medai(out="out.xyz"), 2, "out.xyz", ".seg.nrrd")
    assert_refused(medai(out="out"), 2, ".seg.nrrd")
    assert_refused(medai("--picture", str(folder / "nowhere" / "p.png")), 4, "does not exist")
    assert names(folder) <= {*before, "out.seg.nrrd"}


def test_a_full_disk_leaves_no_half_written_output_and_the_old_one_as_it_was(medai, folder) -> None:
    assert medai()[0] == 0
    old, before = (folder / "out.seg.nrrd").read_bytes(), names(folder)
    with full_disk(after_bytes=300):
        found = medai()
    assert_refused(found, 4, "disk is full", "[OUTPUT_NOT_WRITTEN]")
    assert (folder / "out.seg.nrrd").read_bytes() == old and names(folder) == before


def test_overlapping_segments_need_a_format_with_layers(medai, folder) -> None:
    layers = tuple(np.where(mask, 1, 0).astype(np.uint8) for mask in (on_slices(ORGAN, ORGAN_SLICES),) * 2)
    infos = (SegmentInfo("a", "A", 1, 0), SegmentInfo("b", "B", 1, 1))
    write_label_map(LabelMap(layers, MATRIX, infos), folder / "layers.seg.nrrd")
    assert_refused(medai(drawing="layers.seg.nrrd", out="out.nii.gz"), 2, "overlap", ".seg.nrrd")
    assert medai(drawing="layers.seg.nrrd")[0] == 0
    found = read_label_map(folder / "out.seg.nrrd")
    np.testing.assert_array_equal(found.mask("a"), found.mask("b"))


def test_in_json_mode_an_error_is_one_json_document(medai) -> None:
    status, said, errors = medai("--json", volume="gone.nii.gz")
    assert status == 2 and json.loads(said)["error"]["code"] == "FILE_NOT_FOUND"
    assert "Traceback" not in errors


# As a program


def run_program(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(repository / name) for name in ("MedAIExtension", "Mem3DPropagate"))
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def test_help_explains_every_option_and_loads_nothing_heavy(repository) -> None:
    program = (
        "import sys; from MedAILib.cli.main import main; status = main(['propagate', '--help']);"
        "heavy = {'numpy', 'scipy', 'SimpleITK', 'torch', 'vtk', 'slicer', 'pydicom', 'PIL'} & set(sys.modules);"
        "print('found:', status, sorted(heavy))"
    )
    done = run_program(repository, "-c", program)
    assert done.stdout.splitlines()[-1] == "found: 0 []", done.stderr
    for option in ("--volume", "--segmentation", "--axis", "--references", "--segment", "--extend", "--method"):
        assert option in done.stdout
    for option in ("--out", "--reference-segmentation", "--picture", "--report", "--json", "--worker"):
        assert option in done.stdout


def test_the_sample_is_propagated_from_the_command_line(repository, tmp_path) -> None:
    sample = repository / "Mem3DPropagate" / "Resources" / "SampleData"
    done = run_program(
        repository,
        *("-m", "MedAILib.cli", "propagate"),
        *("--volume", str(sample / "Mem3DPropagateHippocampus.nii.gz")),
        *("--segmentation", str(sample / "Mem3DPropagateHippocampusDrawing.seg.nrrd")),
        *("--reference-segmentation", str(repository / "Testing" / "data" / "hippocampus" / "expert.seg.nrrd")),
        *("--out", str(tmp_path / "out.seg.nrrd"), "--json"),
    )
    assert done.returncode == 0 and done.stderr == ""
    (segment,) = json.loads(done.stdout)["result"]["segments"]
    assert segment["volume_dice"] > 0.85 and len(segment["slices"]) == 39
