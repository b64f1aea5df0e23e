"""Result files: upstream's names and keys, our summary, meshes, the archive."""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from knee_cases import a_label_map, a_request, some_echoes
from knee_phantoms import without

from KneeAnalysisLib.chain import KneeChain
from KneeAnalysisLib.exports import finish_output, safe_name, summary, write_mesh, write_results
from KneeAnalysisLib.labels import CARTILAGES, Tissue
from KneeAnalysisLib.results import KneeResult
from KneeAnalysisLib.table import HEADINGS, heading, rows, unit_of, upstream_values
from KneeAnalysisLib.task import KneeTask
from KneeAnalysisLib.terminology import terminology_entry, with_terminology
from MedAILib.errors import OutputError
from MedAILib.imageio import read_label_map, read_volume
from MedAILib.jobs.runner import InProcessRunner


@pytest.fixture(scope="module")
def result() -> KneeResult:
    label_map = a_label_map()
    return KneeChain(a_request(label_map=label_map, echoes=some_echoes(label_map), name="Knie_ü", finer=True)).run()


@pytest.fixture(scope="module")
def out(result: KneeResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Ordner") / "neu ü"
    write_results(result, folder)
    return folder


def test_the_files_have_upstream_s_names(out: Path) -> None:
    assert {file.name for file in out.iterdir()} == {
        "Knie_ü_all-labels.nrrd", "Knie_ü_subregions-labels.nrrd", "Knie_ü_finer-subregions-labels.nrrd",
        "Knie_ü_depth_seg.nrrd", "Knie_ü_t2map.nrrd", "Knie_ü_t2r2.nrrd", "Knie_ü_results.json", "Knie_ü_results.csv",
        "Knie_ü_regions.csv", "results.json", "femur_mesh.vtk", "tibia_mesh.vtk", "patella_mesh.vtk",
        "femur_cart_0_mesh.vtk", "tibia_cart_0_mesh.vtk", "tibia_cart_1_mesh.vtk", "patella_cart_0_mesh.vtk",
    }  # fmt: skip


def test_the_results_file_has_upstream_s_keys_and_definition(out: Path, result: KneeResult) -> None:
    values = json.loads((out / "Knie_ü_results.json").read_text(encoding="utf-8"))
    regions = ("pat_cart", "fem_cart", "med_tib_cart", "lat_tib_cart", "ant_fem_cart", "med_wb_fem_cart")
    for region in regions:
        for what in ("mean", "std", "median"):
            assert f"{region}_mm_{what}" in values and f"{region}_t2_ms_{what}" in values
            assert f"{region}_deep_t2_ms_{what}" in values and f"{region}_superficial_t2_ms_{what}" in values
    row = next(one for one in result.statistics.thickness if one.key == "pat_cart")
    assert values["pat_cart_mm_mean"] == row.two_surfaces_mean_mm
    with (out / "Knie_ü_results.csv").open(encoding="utf-8", newline="") as stream:
        header, line = csv.reader(stream)
    assert header == list(values) and float(line[0]) == next(iter(values.values()))


def test_the_summary_says_all_and_is_strict_json(out: Path, result: KneeResult) -> None:
    found = json.loads((out / "results.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert found["side"] == "right" and found["missing_tissues"] == []
    assert {row["key"] for row in found["regions"]} >= {"pat_cart", "cent_lat_tib_cart"}
    assert all(row["t2_mean_ms"] is None for row in found["regions"] if row["key"] == "cent_lat_tib_cart")
    assert found["t2"]["method"] == "non_linear" and "research use" in found["research_use"]
    assert [step["step"] for step in found["steps"]] == [step.step for step in result.steps]
    assert found["segmentation"]["volumes_mm3"]["femur"] > 10000


def test_the_table_has_a_line_per_region_and_units_in_its_heading(out: Path, result: KneeResult) -> None:
    with (out / "Knie_ü_regions.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.reader(stream))
    assert len(lines) == 1 + len(rows(result)) and "Thickness mean (mm)" in lines[0] and "Denuded (%)" in lines[0]
    assert unit_of("area_mm2") == "mm2" and heading("key") == "Key" and len(HEADINGS) == len(lines[0])


def test_label_maps_come_back_with_names_on_the_grid_of_the_input(out: Path, result: KneeResult) -> None:
    for name, there in (("all-labels", result.segmented.labels), ("subregions-labels", result.regions)):
        again = read_label_map(out / f"Knie_ü_{name}.nrrd")
        np.testing.assert_array_equal(again.layers[0], there.layers[0])
        assert again.geometry.same_grid_as(a_label_map().geometry)
    t2 = read_volume(out / "Knie_ü_t2map.nrrd")
    assert float(np.median(t2.array[t2.array > 0])) == pytest.approx(40.0, abs=0.2)


def test_meshes_are_in_lps_with_thickness_and_labels(out: Path, result: KneeResult) -> None:
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    assert b"SPACE=LPS" in (out / "femur_mesh.vtk").read_bytes()[:200]
    reader = vtk.vtkPolyDataReader()
    reader.SetFileName(str(out / "femur_mesh.vtk"))
    reader.ReadAllScalarsOn()
    reader.Update()
    mesh, bone = reader.GetOutput(), result.bones[0]
    arrays = {mesh.GetPointData().GetArrayName(i) for i in range(mesh.GetPointData().GetNumberOfArrays())}
    assert {"thickness (mm)", "labels"} <= arrays
    np.testing.assert_allclose(
        vtk_to_numpy(mesh.GetPoints().GetData()), bone.mesh.points_ras_mm * [-1, -1, 1], atol=1e-5
    )
    thickness = vtk_to_numpy(mesh.GetPointData().GetArray("thickness (mm)"))
    np.testing.assert_array_equal(thickness, bone.thickness_mm)
    normals = vtk_to_numpy(mesh.GetPointData().GetNormals())
    np.testing.assert_allclose(normals, bone.mesh.normals * [-1, -1, 1], atol=1e-3)


def test_the_archive_holds_the_files_and_the_run_report_but_no_steps(tmp_path: Path) -> None:
    outcome = InProcessRunner().run(KneeTask, a_request(tmp_path, name="k"))
    for _ in range(2):  # an archive never packs the one before it
        archive = finish_output(outcome, tmp_path)
    assert archive.name == "k_results.zip"
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        report = json.loads(packed.read("run_report.json"))
    assert "k_results.json" in names and not [one for one in names if "steps" in one or one.endswith(".zip")]
    assert report["run_id"] == outcome.report.run_id and report["stages"]["Thickness"] > 0


def test_nothing_measured_still_makes_files(tmp_path: Path) -> None:
    rest = [t for t in Tissue if t not in (Tissue.MEDIAL_MENISCUS, Tissue.LATERAL_MENISCUS)]
    result = KneeChain(a_request(label_map=without(a_label_map(), *rest))).run()
    write_results(result, tmp_path)
    assert json.loads((tmp_path / "knee_results.json").read_text(encoding="utf-8")) == {}
    assert len(summary(result)["missing_regions"]) == 9 and upstream_values(result) == {}


def test_values_that_are_no_numbers_are_null_and_empty(result: KneeResult, tmp_path: Path) -> None:
    label_map = a_label_map()
    fast = some_echoes(label_map, t2_ms=400.0)  # beyond what counts as T2
    other = KneeChain(a_request(label_map=label_map, echoes=fast)).run()
    assert upstream_values(other)["pat_cart_t2_ms_mean"] is None
    write_results(other, tmp_path)
    assert json.loads((tmp_path / "knee_results.json").read_text(encoding="utf-8"))["pat_cart_t2_ms_mean"] is None


def test_a_folder_that_cannot_be_made_is_said(result: KneeResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    with pytest.raises(OutputError):
        write_results(result, tmp_path / "file")
    with pytest.raises(OutputError):
        write_mesh(tmp_path / "no" / "m.vtk", result.bones[0].mesh)


def test_tissues_have_the_codes_of_dicom_and_their_side() -> None:
    from pydicom.sr.codedict import codes

    names = {Tissue.MEDIAL_MENISCUS: "Meniscus", Tissue.LATERAL_MENISCUS: "Meniscus"}
    names |= dict.fromkeys(CARTILAGES, "Cartilage")
    for tissue in Tissue:
        for side in ("right", "left"):
            parts = terminology_entry(tissue, side).split("~")
            code, modifier = (getattr(codes.SCT, name) for name in (names.get(tissue, tissue.title), side.title()))
            assert parts[2].split("^") == ["SCT", code.value, code.meaning]
            assert parts[3].split("^") == ["SCT", modifier.value, modifier.meaning]
            assert len(parts) == 7
    assert terminology_entry(Tissue.FEMORAL_CARTILAGE).split("~")[1] == f"SCT^{codes.SCT.Tissue.value}^Tissue"
    tagged: Any = with_terminology(a_label_map(), "left")
    assert all(len(info.tags["TerminologyEntry"].split("~")) == 7 for info in tagged.segments)


def test_names_of_files_keep_letters_and_lose_what_paths_cannot_have() -> None:
    assert safe_name("Knie ü/1: a") == "Knie_ü_1_a" and safe_name("...") == "knee"
    assert replace(a_request(), name=safe_name("漢 字")).name == "漢_字"
