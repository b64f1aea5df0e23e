"""What is no whole chest CT, as files meet the command: each a clear error with its own words, and no result files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chest_phantoms import ChestSpec, make_chest
from PIL import Image

from MedAILib.cli.main import main
from MedAILib.imageio import write_volume
from MedAILib.volume import Volume

Refused = Callable[..., dict]
Shared = Callable[[str], Path]
SERIES = "dicom/ct_pat1_rtstruct"


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """A function that runs ``medai ct report`` on a file and answers the error; nothing was written."""

    def run(source: Path, status: int = 2) -> dict:
        capsys.readouterr()
        out = tmp_path / "results"
        assert main(["--json", "ct", "report", str(source), "--out", str(out)]) == status
        assert not out.exists()
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["todo"], error
        return error

    return run


def written(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (4.0, 4.0, 4.0)) -> Path:
    write_volume(Volume(array, np.diag([*spacing, 1.0])), path)
    return path


def a_head() -> np.ndarray:
    """A skull with a brain and air-filled sinuses, 4 mm."""
    k, j, i = np.ogrid[-40:40, -40:40, -40:40]
    distance = np.sqrt((k / 30.0) ** 2 + (j / 26.0) ** 2 + (i / 20.0) ** 2)
    hu = np.full(distance.shape, -1000, np.int16)
    hu[distance < 1.0] = 40
    hu[(distance < 0.95) & (distance > 0.88)] = 900
    hu[(k + 12) ** 2 + (j - 14) ** 2 + i**2 < 20] = -950
    return hu


def test_a_head_ct(refused: Refused, tmp_path: Path) -> None:
    error = refused(written(tmp_path / "head.nii.gz", a_head()))
    assert "No lungs were found" in error["what"] and "head" in error["why"]


def test_a_real_abdomen(refused: Refused, shared_data: Shared) -> None:
    assert "No lungs were found" in refused(shared_data("vol3d/ts_ct_full/image.nii.gz"))["what"]


def test_a_real_mr_in_a_file_that_names_no_modality(refused: Refused, shared_data: Shared) -> None:
    error = refused(shared_data("vol3d/brain_t1_head/image.nii.gz"))
    assert "not Hounsfield units" in error["what"] and "MR" in error["why"]


def test_a_real_mr_from_dicom_is_refused_by_its_modality(refused: Refused, shared_data: Shared) -> None:
    assert "its modality is MR" in refused(shared_data("dicom/mr_hippocrop"))["what"]


@pytest.mark.parametrize("value", [0, -1000, 40])
def test_an_empty_volume(refused: Refused, tmp_path: Path, value: int) -> None:
    error = refused(written(tmp_path / "empty.nii.gz", np.full((60, 60, 60), value, np.int16)))
    assert "empty" in error["what"]


def test_a_volume_without_voxels_that_are_numbers(refused: Refused, tmp_path: Path) -> None:
    error = refused(written(tmp_path / "nan.nii.gz", np.full((60, 60, 60), np.nan, np.float32)))
    assert "No voxel is a number" in error["what"]


def test_a_single_slice_and_a_picture(refused: Refused, tmp_path: Path) -> None:
    slice_ = make_chest(ChestSpec()).volume.array[40:41]
    assert "2D image" in refused(written(tmp_path / "slice.nii.gz", slice_))["what"]
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "radiograph.png")
    assert "radiograph.png" in refused(tmp_path / "radiograph.png")["what"]


def test_a_file_that_broke_off(refused: Refused, tmp_path: Path) -> None:
    path = written(tmp_path / "whole.nii.gz", make_chest(ChestSpec()).volume.array)
    short = tmp_path / "short.nii.gz"
    short.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "short.nii.gz" in refused(short)["what"]


@pytest.fixture
def series(shared_data: Shared, tmp_path: Path) -> tuple[Path, list[Path]]:
    """A copy of a real CT series and its slices from below upwards."""
    pydicom = pytest.importorskip("pydicom", reason="DICOM needs pydicom")
    folder = tmp_path / "Serie ü"
    shutil.copytree(shared_data(SERIES), folder)
    heads = {file: pydicom.dcmread(file, stop_before_pixels=True) for file in folder.glob("*.dcm")}
    slices = [file for file, head in heads.items() if head.Modality == "CT"]
    return folder, sorted(slices, key=lambda file: float(heads[file].ImagePositionPatient[2]))


def test_a_series_without_one_of_its_slices(refused: Refused, series: tuple[Path, list[Path]]) -> None:
    folder, slices = series
    slices[30].unlink()
    error = refused(folder)
    assert "slice of this series is missing" in error["what"]
    assert slices[29].name in error["why"] and slices[31].name in error["why"]


@pytest.mark.parametrize("kept", [0, 300])
def test_a_series_with_a_file_that_lost_its_header_lacks_a_slice(
    refused: Refused, series: tuple[Path, list[Path]], kept: int
) -> None:
    folder, slices = series
    slices[30].write_bytes(slices[30].read_bytes()[:kept])
    assert "slice of this series is missing" in refused(folder)["what"]


def test_a_series_with_a_file_that_breaks_off_in_its_pixels(refused: Refused, series: tuple[Path, list[Path]]) -> None:
    folder, slices = series
    slices[30].write_bytes(slices[30].read_bytes()[: slices[30].stat().st_size // 2])
    error = refused(folder)
    assert slices[30].name in error["what"] and "truncated" in error["why"]


def test_a_series_of_which_little_is_left(refused: Refused, series: tuple[Path, list[Path]]) -> None:
    folder, slices = series
    for file in slices[12:]:
        file.unlink()
    assert "too few slices" in refused(folder)["what"]
