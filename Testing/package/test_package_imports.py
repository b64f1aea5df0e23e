"""The packed extension works on its own: a fresh process imports it from the unpacked folder alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from module_files import files_on_disk, module_folders
from packing import PackedExtension
from source_code import FRAMEWORKS, imported_at_file_scope, parse

HEAVY = ("torch", "tensorflow", "keras", "transformers", "SimpleITK", "scipy", "pydicom", "vtk", "slicer", "numpy")
"""Packages that opening a window or asking for help must not wait for."""

REPORT = """
import json, sys
starts = ("MedAI", "Mem3D", "KneeAnalysis", "MedMNIST", "CTReport")
own = {name: module.__file__ for name, module in sys.modules.items()
       if name.startswith(starts) and getattr(module, "__file__", None)}
print(json.dumps({"own": own, "loaded": sorted({name.split(".")[0] for name in sys.modules})}))
"""

CANNOT_RUN = 77

START_HOST = f"""
import atexit
from host.qt_host import HostUnavailable, start_host
try:
    host = start_host()
except HostUnavailable as error:
    print(error)
    sys.exit({CANNOT_RUN})
atexit.register(lambda: print(*host.errors, sep="\\n", file=sys.stderr))
"""
"""Code that makes `slicer`, `qt` and `ctk` importable as they are in Slicer."""


def _in_fresh_process(code: str, *folders: Path) -> dict[str, set[str]]:
    """Run code with the folders first on the path; returns which own files and which packages it loaded."""
    start = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", start + code + REPORT],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    if done.returncode == CANNOT_RUN:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    answer = json.loads(done.stdout.splitlines()[-1])
    assert all(Path(file).is_relative_to(folders[0]) for file in answer["own"].values()), answer["own"]
    return {"own": set(answer["own"]), "loaded": set(answer["loaded"])}


def _library_modules() -> list[str]:
    """Dotted names of every Python file of every library, networks of a framework and start files left out."""
    names = []
    for folder in module_folders():
        for name in files_on_disk(folder).scripts:
            own = "/" in name and not name.endswith("/__main__.py")
            if own and not imported_at_file_scope(parse(folder / name)) & FRAMEWORKS:
                names.append(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    return names


def test_importing_the_shared_library_loads_nothing_heavy(packed_extension: PackedExtension) -> None:
    answer = _in_fresh_process("import MedAILib", packed_extension.modules)
    assert "MedAILib" in answer["own"]
    assert answer["loaded"].isdisjoint(HEAVY)


def test_asking_for_help_loads_nothing_heavy(packed_extension: PackedExtension) -> None:
    code = """
import contextlib, io
from MedAILib.cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
    sys.argv = ["medai", "--help"]
    main()
assert "propagate" in said.getvalue(), said.getvalue()
"""
    answer = _in_fresh_process(code, packed_extension.modules)
    assert answer["loaded"].isdisjoint(HEAVY)


def test_every_library_file_is_importable_from_the_package(packed_extension: PackedExtension, repository: Path) -> None:
    wanted = _library_modules()
    code = START_HOST + f"import importlib\nfor name in {wanted!r}: importlib.import_module(name)\n"
    answer = _in_fresh_process(code, packed_extension.modules, repository / "Testing")
    assert set(wanted) <= answer["own"]
    assert answer["loaded"].isdisjoint(FRAMEWORKS)


@pytest.mark.parametrize("name", [folder.name for folder in module_folders()])
def test_a_module_opens_its_panel_from_the_package(
    name: str, packed_extension: PackedExtension, repository: Path
) -> None:
    code = (
        START_HOST
        + f"""
widget = host.open_module({str(packed_extension.modules / name)!r} + ".py")
assert host.errors == [], "\\n".join(host.errors)
host.close_module(widget)
assert host.errors == [], "\\n".join(host.errors)
"""
    )
    answer = _in_fresh_process(code, packed_extension.modules, repository / "Testing")
    assert name in answer["own"]
    assert answer["loaded"].isdisjoint(FRAMEWORKS | {"SimpleITK", "pydicom", "onnxruntime"})
