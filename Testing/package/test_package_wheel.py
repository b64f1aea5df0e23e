"""The wheel that `pip install slicer-medai` would bring."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from module_files import files_on_disk, library_folders


@dataclass(frozen=True)
class UnpackedWheel:
    folder: Path
    files: tuple[str, ...]
    metadata: Path


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> UnpackedWheel:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("slicer_medai-*.whl")
    with zipfile.ZipFile(built) as package:
        names = tuple(sorted(package.namelist()))
        package.extractall(folder / "unpacked")
    (metadata,) = (folder / "unpacked").glob("*.dist-info")
    return UnpackedWheel(folder / "unpacked", names, metadata)


def test_the_wheel_holds_every_library_file_and_no_other(wheel: UnpackedWheel) -> None:
    expected = []
    for folder in library_folders():
        files = files_on_disk(folder)
        expected += [n for n in files.scripts + files.resources if PurePosixPath(n).parts[0].endswith("Lib")]
    assert [name for name in wheel.files if ".dist-info/" not in name] == sorted(expected)


def test_the_wheel_carries_licence_command_and_features(wheel: UnpackedWheel) -> None:
    assert (wheel.metadata / "licenses" / "LICENSE").is_file()
    entries = ConfigParser()
    entries.read(wheel.metadata / "entry_points.txt")
    assert dict(entries["console_scripts"]) == {"medai": "MedAILib.cli.main:main"}
    assert dict(entries["medai.features"]) == {
        "ct": "CTReportLib.feature:FEATURE",
        "knee": "KneeAnalysisLib.feature:FEATURE",
        "mem3d": "Mem3DPropagateLib.feature:FEATURE",
        "router": "MedMNISTRouterLib.feature:FEATURE",
    }


def test_the_wheel_asks_for_nothing_that_only_some_features_need(wheel: UnpackedWheel) -> None:
    lines = (wheel.metadata / "METADATA").read_text(encoding="utf-8").splitlines()
    always = [line for line in lines if line.startswith("Requires-Dist:") and "extra ==" not in line]
    names = {line.split()[1].split(">")[0].lower() for line in always}
    assert names == {"numpy", "scipy", "simpleitk", "pydicom", "pillow"}


def test_the_command_answers_from_the_wheel_and_loads_neither_numpy_nor_torch(wheel: UnpackedWheel) -> None:
    code = f"""
import atexit, sys
sys.path.insert(0, {str(wheel.folder)!r})
from MedAILib.cli.main import main
import MedAILib
assert MedAILib.__file__.startswith({str(wheel.folder)!r}), MedAILib.__file__
heavy = ("numpy", "torch", "SimpleITK", "scipy")
atexit.register(lambda: print("loaded:", *[name for name in heavy if name in sys.modules]))
sys.argv = ["medai", "--help"]
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    assert "propagate" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
