"""``medai knee analyze`` as a user meets it: files in, files out, and a paragraph where that is impossible."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from knee_cases import a_label_map
from knee_phantoms import without

from KneeAnalysisLib import command
from KneeAnalysisLib.command import request_from, stem_of, timeouts_from
from KneeAnalysisLib.labels import Tissue
from KneeAnalysisLib.measures import ThicknessMethod
from KneeAnalysisLib.request import Step
from KneeAnalysisLib.segmentation import EngineName
from KneeAnalysisLib.t2 import DecayFit
from MedAILib.cli.main import main
from MedAILib.errors import ConfigError
from MedAILib.imageio import write_label_map, write_volume
from MedAILib.volume import LabelMap, SegmentInfo, Volume

STEPS = "segment,meshes,thickness,subregions,statistics"
"""All but the report, whose pictures take seconds."""
OWN = {tissue: 20 + int(tissue) for tissue in Tissue}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a label map in canonical labels, one in its own labels with their file, and an image."""
    folder = tmp_path / "Ordner mit ü 漢"
    folder.mkdir()
    knee = a_label_map()
    write_label_map(knee, folder / "knee.nii.gz")
    labels = np.where(knee.layers[0] > 0, knee.layers[0] + 20, 0).astype(np.uint8)
    infos = tuple(SegmentInfo(str(v), str(v), v) for v in OWN.values())
    write_label_map(LabelMap((labels,), knee.ijk_to_ras, infos), folder / "own.nrrd")
    (folder / "own.json").write_text(json.dumps({t.key: v for t, v in OWN.items()}), encoding="utf-8")
    write_volume(Volume(labels.astype(np.float32), knee.ijk_to_ras), folder / "image.nii.gz")
    return folder


@pytest.fixture
def medai(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs ``medai knee analyze`` in this process and answers status, output and errors."""

    def run(*options: str, source: str = "knee.nii.gz", out: str = "out"):
        capsys.readouterr()
        status = main(["knee", "analyze", str(folder / source), "--out", str(folder / out), *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_label_map_becomes_a_table_and_files(medai, folder: Path) -> None:
    status, out, _ = medai("--model", "none", "--labels", "canonical", "--steps", STEPS)
    assert status == 0, out
    assert "Medial tibial cartilage" in out and "Research use only." in out
    assert {"knee_results.json", "knee_all-labels.nrrd", "femur_mesh.vtk", "run_report.json", "results.json",
            "knee_results.zip"} <= {file.name for file in (folder / "out").iterdir()}  # fmt: skip


def test_json_is_one_document_with_everything(medai, folder: Path) -> None:
    status, out, _ = medai("--labels", "canonical", "--steps", STEPS, "--json", "--name", "A b")
    found = json.loads(out)
    assert status == 0 and found["name"] == "A_b" and found["side"] == "right"
    assert found["results"]["med_tib_cart_mm_mean"] == pytest.approx(1.5, abs=0.25)
    assert Path(found["archive"]).name == "A_b_results.zip" and len(found["run_id"]) == 32
    assert [step["step"] for step in found["steps"]] == STEPS.split(",")


def test_labels_of_one_s_own_come_from_a_file(medai, folder: Path) -> None:
    _, own, _ = medai("--labels", str(folder / "own.json"), "--steps", STEPS, "--json", source="own.nrrd", out="own")
    _, plain, _ = medai("--labels", "canonical", "--steps", STEPS, "--json", out="plain")
    assert json.loads(own)["results"] == pytest.approx(json.loads(plain)["results"], abs=1e-4)


def test_a_segmentation_beside_an_image_is_taken(medai, folder: Path) -> None:
    status, out, err = medai(
        "--segmentation", str(folder / "knee.nii.gz"), "--labels", "canonical", "--steps", STEPS, source="image.nii.gz"
    )
    assert status == 0, err
    assert "Patellar cartilage" in out and (folder / "out" / "image_results.json").is_file()


def test_resume_takes_finished_steps_and_says_so(medai) -> None:
    medai("--labels", "canonical", "--steps", "meshes")
    _, out, _ = medai("--labels", "canonical", "--steps", STEPS, "--resume", "--json")
    reused = {step["step"]: step["reused"] for step in json.loads(out)["steps"]}
    assert reused["meshes"] and not reused["thickness"]


def test_a_worker_gives_the_same_numbers(medai) -> None:
    _, here, _ = medai("--labels", "canonical", "--steps", STEPS, "--json", out="a")
    status, there, _ = medai("--labels", "canonical", "--steps", STEPS, "--json", "--worker", out="b")
    assert status == 0 and json.loads(here)["results"] == json.loads(there)["results"]


def test_a_timeout_keeps_what_is_done_and_resume_goes_on(medai, folder: Path) -> None:
    status, _, err = medai("--labels", "canonical", "--timeout", "thickness=0.000001", "--worker")
    assert status == 5 and "[TIMEOUT]" in err and "'thickness'" in err
    assert err.count("are kept in") == 1 and str(folder / "out") in err
    status, out, _ = medai("--labels", "canonical", "--steps", STEPS, "--resume", "--json")
    assert status == 0 and next(s for s in json.loads(out)["steps"] if s["step"] == "meshes")["reused"]


def test_nothing_to_measure_is_a_result_in_part(medai, folder: Path) -> None:
    rest = [t for t in Tissue if t not in (Tissue.MEDIAL_MENISCUS, Tissue.LATERAL_MENISCUS)]
    write_label_map(without(a_label_map(), *rest), folder / "menisci.nrrd")
    status, _, err = medai("--labels", "canonical", "--steps", STEPS, source="menisci.nrrd")
    assert status == 3 and "femoral cartilage" in err


def test_a_labels_file_that_names_no_bone_ends_without_a_table_and_says_why(medai, folder: Path) -> None:
    (folder / "few.json").write_text('{"femur": 99, "femoral_cartilage": 24}', encoding="utf-8")
    status, out, err = medai("--labels", str(folder / "few.json"), "--steps", STEPS, source="own.nrrd")
    assert status == 3, out
    assert "labels that this label map does not have: femur 99" in err
    assert "does not say which label is tibia or patella" in err and "Left out" in err


def test_two_echoes_of_qdess_are_segmented_together_and_give_t2(medai, folder: Path) -> None:
    pytest.importorskip("torch", reason="networks need PyTorch, which is not installed")
    pytest.importorskip("h5py", reason="Keras files need h5py, which is not installed")
    from dosma_files import save_classifiers
    from qdess_files import save_qdess_knee
    from synthetic_knees import dice

    from KneeAnalysisLib.labels import NATIVE, to_canonical
    from MedAILib.imageio import read_label_map

    truth = save_qdess_knee(folder / "qdess", t2_ms=38.0)
    weights = save_classifiers(folder / "weights")
    status, out, err = medai(
        "--model", "dosma-sagittal", "--weights", str(weights), "--steps", "segment,t2,statistics", "--json",
        "--name", "q", source="qdess",
    )  # fmt: skip
    assert status == 0, err
    found = json.loads(out)
    assert found["t2"]["method"] == "spoiled" and "T1" in found["t2"]["stated"]
    t2 = found["results"]
    assert t2["fem_cart_t2_ms_mean"] == pytest.approx(38.0, abs=0.5)
    assert t2["med_tib_cart_deep_t2_ms_mean"] == pytest.approx(t2["med_tib_cart_superficial_t2_ms_mean"], abs=0.5)
    assert found["results"]["med_tib_cart_mm_mean"] == pytest.approx(2.4, abs=0.3)
    labels = read_label_map(folder / "out" / "q_all-labels.nrrd")
    expected = to_canonical(truth, NATIVE)
    assert labels.geometry.same_grid_as(expected.geometry, tolerance_mm=1e-3)
    for tissue in (Tissue.FEMUR, Tissue.FEMORAL_CARTILAGE, Tissue.PATELLAR_CARTILAGE):
        assert dice(labels.layers[0] == tissue, expected.layers[0] == tissue) > 0.95


@pytest.mark.parametrize(
    ("options", "source", "status", "code"),
    [
        (("--labels", "canonical"), "no.nrrd", 2, "FILE_NOT_FOUND"),
        (("--labels", "canonical"), "own.json", 2, "INVALID_FORMAT"),
        ((), "knee.nii.gz", 2, "CONFIG_ERROR"),
        (("--model", "none"), "knee.nii.gz", 2, "CONFIG_ERROR"),
        (("--labels", "canonical", "--steps", "dream"), "knee.nii.gz", 2, "CONFIG_ERROR"),
        (("--labels", "no.json"), "knee.nii.gz", 2, "CONFIG_ERROR"),
        (("--labels", "canonical", "--timeout", "soon"), "knee.nii.gz", 2, "CONFIG_ERROR"),
        (("--labels", "canonical", "--cartilage-smoothing", "9"), "knee.nii.gz", 2, "CONFIG_ERROR"),
        (("--labels", "native"), "knee.nii.gz", 2, "INVALID_INPUT"),
        (("--model", "dosma-sagittal", "--weights", "no.h5"), "image.nii.gz", 2, "FILE_NOT_FOUND"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_has_a_code_and_a_status(
    medai, options: tuple[str, ...], source: str, status: int, code: str
) -> None:
    found, out, err = medai(*options, source=source)
    assert (found, out) == (status, ""), err
    assert f"[{code}]" in err


def test_a_damaged_dicom_folder_is_a_dicom_error(medai, folder: Path) -> None:
    (folder / "dicom").mkdir()
    (folder / "dicom" / "1.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"broken")
    status, _, err = medai("--model", "dosma-sagittal", "--weights", "w.h5", source="dicom")
    assert status == 2 and "[DICOM_ERROR]" in err
    status, _, err = medai("--labels", "canonical", "--t2", str(folder / "dicom"))
    assert status == 2 and "[DICOM_ERROR]" in err


def test_a_model_that_is_not_installed_is_named_with_its_command(
    medai, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEDAI_HOME", str(tmp_path / "empty"))
    status, _, err = medai("--model", "dosma-sagittal", source="image.nii.gz")
    assert status == 7 and "medai models get" in err


def test_a_segmentation_and_a_network_contradict_each_other(medai, folder: Path) -> None:
    status, _, err = medai("--model", "dosma-axial", "--segmentation", str(folder / "knee.nii.gz"))
    assert status == 2 and "[CONFIG_ERROR]" in err


def parsed(folder: Path, *options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_commands(parser.add_subparsers())
    return parser.parse_args(["knee", "analyze", str(folder / "knee.nii.gz"), "--out", str(folder / "o"), *options])


def test_every_option_reaches_the_request(folder: Path) -> None:
    request = request_from(
        parsed(
            folder, "--labels", "canonical", "--side", "left", "--finer", "--steps", "t2,report", "--timeout", "60",
            "--timeout", "t2=5", "--cartilage-smoothing", "1.5", "--thickness-method", "two-surfaces", "--t2-fit",
            "log_linear", "--skip-first-echo", "--tile-step", "0.75", "--mirroring", "--batch-size", "3",
            "--no-cpu-fallback", "--resume",
        )
    )  # fmt: skip
    assert (request.side, request.finer, request.resume, request.name) == ("left", True, True, "knee")
    assert request.steps == (Step.T2, Step.REPORT) and request.engine is EngineName.NONE
    assert (request.timeout_s(Step.T2), request.timeout_s(Step.MESHES)) == (5.0, 60.0)
    assert request.thickness.mesh.cartilage_variance_mm2 == 1.5
    assert request.thickness.method is ThicknessMethod.TWO_SURFACES
    assert request.t2.fit is DecayFit.LOG_LINEAR and request.t2.skip_first_echo
    options = request.engine_options
    assert (options.tile_step, options.mirroring, options.batch_size, options.cpu_fallback) == (0.75, True, 3, False)


def test_time_limits_are_read_and_wrong_ones_refused() -> None:
    assert set(timeouts_from(["9"])) == {step.value for step in Step}
    assert timeouts_from(["9", "t2=3"])["t2"] == 3
    with pytest.raises(ConfigError):
        timeouts_from(["t2="])


def test_names_come_from_files_without_their_endings() -> None:
    names = ["a.b.nii.gz", "c.seg.nrrd", "d.nrrd", "e"]
    assert [stem_of(Path(name)) for name in names] == ["a.b", "c", "d", "e"]


def test_the_engines_offered_are_those_that_there_are() -> None:
    assert set(command.ENGINES) == {engine.value for engine in EngineName}


def test_the_command_s_help_loads_nothing_heavy(repository: Path) -> None:
    program = (
        "import sys; from MedAILib.cli.main import main; main(['knee', 'analyze', '--help']);"
        "print(sorted({'numpy', 'vtk', 'torch', 'scipy', 'SimpleITK', 'pydicom'} & set(sys.modules)))"
    )
    paths = os.pathsep.join(str(repository / name) for name in ("MedAIExtension", "KneeAnalysis"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout[-300:] + done.stderr[-2000:]


def test_the_multi_echo_series_gives_t2_through_the_normal_way(medai, folder: Path, shared_data) -> None:
    series = shared_data("dicom/knee_mese_t2")
    label_map = shared_data("knee/SAG_3D_DESS_RIGHT_label.nrrd")
    scheme = shared_data("knee/dess_labels.json")
    status = main(
        ["knee", "analyze", str(label_map), "--labels", str(scheme), "--out", str(folder / "t2"), "--t2", str(series),
         "--t2-fit", "log_linear", "--steps", "segment,t2", "--name", "k"]
    )  # fmt: skip
    assert status == 0
    from MedAILib.imageio import read_volume

    found = read_volume(folder / "t2" / "k_t2map.nrrd").array
    assert float(np.median(found[found > 0])) == pytest.approx(36.62, abs=1.0)
