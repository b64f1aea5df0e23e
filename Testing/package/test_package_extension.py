"""The packed extension holds every file of every module, once, and nothing else."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest
from module_files import ModuleFiles, files_listed, files_on_disk, module_folders
from packing import PackedExtension

MODULES = module_folders()
by_module = pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)


@by_module
def test_the_cmake_file_lists_every_file_of_the_module(folder: Path) -> None:
    on_disk, listed = files_on_disk(folder), files_listed(folder)
    if listed != on_disk:
        pytest.fail(_advice(folder, on_disk, listed), pytrace=False)


def _advice(folder: Path, on_disk: ModuleFiles, listed: ModuleFiles) -> str:
    lines = [f"{folder.name}/CMakeLists.txt does not list what is in the folder."]
    for key in ("scripts", "resources"):
        there, named = getattr(on_disk, key), getattr(listed, key)
        lines += [f"add to {key}:     {name}" for name in there if name not in named]
        lines += [f"remove from {key}: {name}" for name in named if name not in there]
        lines += [f"listed twice in {key}: {name}" for name, count in Counter(named).items() if count > 1]
    return "\n".join([*lines, "`python Testing/package/module_files.py` does it."])


@by_module
def test_the_module_has_its_file_its_library_and_an_icon(folder: Path) -> None:
    files = files_on_disk(folder)
    assert f"{folder.name}.py" in files.scripts
    assert [name for name in files.scripts if "/" not in name] == [f"{folder.name}.py"], (
        "Slicer takes every Python file directly in a module folder for a module"
    )
    assert f"Resources/Icons/{folder.name}.png" in files.resources


def test_the_package_holds_every_listed_file_and_no_other(packed_extension: PackedExtension) -> None:
    expected = [name for folder in MODULES for part in vars(files_listed(folder)).values() for name in part]
    assert packed_extension.files() == sorted(expected)


def test_no_file_of_a_module_overwrites_one_of_another_when_all_share_one_folder() -> None:
    owners: dict[str, str] = {}
    for folder in MODULES:
        files = files_on_disk(folder)
        for name in files.scripts + files.resources:
            assert name not in owners, (
                f"{name} is in {folder.name} and in {owners[name]}: one would overwrite the other"
            )
            owners[name] = folder.name


def test_resources_in_the_common_folder_have_names_of_their_own() -> None:
    resources = [name for folder in MODULES for name in files_on_disk(folder).resources]
    names = Counter(PurePosixPath(name).name for name in resources if name.startswith("Resources/"))
    assert [name for name, count in names.items() if count > 1] == []


def test_top_level_names_say_whose_they_are(packed_extension: PackedExtension) -> None:
    allowed = {"Resources"}
    for folder in MODULES:
        library = "MedAILib" if folder.name == "MedAIExtension" else f"{folder.name}Lib"
        allowed |= {f"{folder.name}.py", library}
    assert {PurePosixPath(name).parts[0] for name in packed_extension.files()} == allowed


def test_no_test_is_shipped(packed_extension: PackedExtension) -> None:
    suspects = ("test_", "conftest", "Testing", "tests", "host")
    parts = {part for name in packed_extension.files() for part in PurePosixPath(name).parts}
    assert [part for part in sorted(parts) if part.startswith(suspects)] == []


def test_the_catalogue_entry_is_complete(packed_extension: PackedExtension, repository: Path) -> None:
    entry = packed_extension.catalogue
    assert entry["NAME"] == "MedAI"
    assert entry["CATEGORY"] == "Segmentation"
    raw = entry["HOMEPAGE"].replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
    for url in [entry["ICONURL"], *entry["SCREENSHOTURLS"].split()]:
        assert url.startswith(raw), f"{url} is not in this repository"
        assert (repository / url.removeprefix(raw)).is_file(), f"{url} names a file that is not here"
    assert _png_size(repository / entry["ICONURL"].removeprefix(raw)) == (128, 128)


def _png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n"), f"{path} is not a PNG"
    return struct.unpack(">II", head[16:24])


def test_every_module_registers_its_self_test(packed_extension: PackedExtension) -> None:
    assert set(packed_extension.tests) == {f"py_{folder.name}" for folder in MODULES}
