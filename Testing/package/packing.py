"""Packs the extension as Slicer's build does, with a stand-in for Slicer, and unpacks it again."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

STAND_IN = Path(__file__).with_name("standin")
FORCED_COMPILERS = [
    f"-DCMAKE_{language}_COMPILER{setting}" for language in ("C", "CXX") for setting in ("=/bin/true", "_FORCED=1")
]
"""Nothing is compiled, so none needs to be installed."""


@dataclass(frozen=True)
class PackedExtension:
    """An unpacked package.

    Attributes
    ----------
    modules : Path
        Its one folder of scripted modules, where Slicer looks for them.
    catalogue : dict of str to str
        What the extension catalogue shows, by key in capitals.
    tests : tuple of str
        Names of the tests registered for Slicer's ctest.
    """

    modules: Path
    catalogue: dict[str, str]
    tests: tuple[str, ...]

    def files(self) -> list[str]:
        """Every file of the package, relative to `modules`, sorted."""
        return sorted(p.relative_to(self.modules).as_posix() for p in self.modules.rglob("*") if p.is_file())


def pack(repository: Path, build: Path) -> PackedExtension:
    """Configure, pack and unpack the extension in the folder `build`; skips the test where there is no cmake."""
    tools = _tools()
    source = ["-S", repository, "-B", build, "-G", "Unix Makefiles"]
    _run(tools["cmake"], *source, f"-DSlicer_DIR={STAND_IN}", *FORCED_COMPILERS)
    _run(tools["cpack"], "--config", build / "CPackConfig.cmake", cwd=build)
    with tarfile.open(build / "MedAI.tar.gz") as package:
        package.extractall(build / "unpacked", filter="data")
    folders = list((build / "unpacked").glob("lib/Slicer-*/qt-scripted-modules"))
    assert len(folders) == 1, f"expected one folder of modules in the package, found {folders}"
    lines = (build / "catalogue-entry.txt").read_text(encoding="utf-8").splitlines()
    listed = _run(tools["ctest"], "-N", cwd=build).splitlines()
    tests = tuple(line.split(": ")[1] for line in listed if line.strip().startswith("Test #"))
    return PackedExtension(folders[0], dict(line.split("=", 1) for line in lines), tests)


def _tools() -> dict[str, str]:
    """Paths of cmake, cpack and ctest: those of the Python package, else the system's."""
    if shutil.which("make") is None:
        pytest.skip("no make on this machine, which cpack calls")
    package = importlib.util.find_spec("cmake")
    folder = str(Path(sys.executable).parent) if package else None
    tools = {name: shutil.which(name, path=folder) for name in ("cmake", "cpack", "ctest")}
    if None in tools.values():
        pytest.skip("no cmake >= 3.28 (pip install cmake)")
    return {name: str(path) for name, path in tools.items()}


def _run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout
