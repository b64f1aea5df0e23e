"""What Slicer's module factory and the extension catalogue's review ask of Python files, read without running them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from module_files import files_on_disk, library_folders, module_folders
from source_code import imported_at_file_scope, parse

MODULE_FILES = [folder / f"{folder.name}.py" for folder in module_folders()]
ALL_SCRIPTS = [folder / name for folder in library_folders() for name in files_on_disk(folder).scripts]
BUNDLED_WITH_SLICER = {"numpy", "scipy", "vtk", "SimpleITK", "slicer", "qt", "ctk"}
OWN = {"MedAILib"} | {f"{folder.name}Lib" for folder in library_folders()}
TOP_LEVEL = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Assign, ast.AnnAssign)

by_module_file = pytest.mark.parametrize("path", MODULE_FILES, ids=lambda path: path.name)


@by_module_file
def test_a_module_file_defines_the_class_of_its_own_name(path: Path) -> None:
    classes = {node.name for node in parse(path).body if isinstance(node, ast.ClassDef)}
    assert {path.stem, f"{path.stem}Widget", f"{path.stem}Logic", f"{path.stem}Test"} <= classes


@by_module_file
def test_a_module_file_runs_nothing_at_file_scope(path: Path) -> None:
    """Only docstrings, imports, definitions and plain constants."""
    for node in parse(path).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        assert isinstance(node, TOP_LEVEL), f"{path.name}:{node.lineno} runs at import: {ast.unparse(node)[:80]}"
        if isinstance(node, ast.Assign | ast.AnnAssign):
            calls = [
                n for n in ast.walk(node) if isinstance(n, ast.Call) and ast.unparse(n.func) != "logging.getLogger"
            ]
            assert not calls, f"{path.name}:{node.lineno} calls at import: {ast.unparse(node)[:80]}"


@by_module_file
def test_a_module_file_imports_no_third_party_package_at_file_scope(path: Path) -> None:
    foreign = imported_at_file_scope(parse(path)) - set(sys.stdlib_module_names) - BUNDLED_WITH_SLICER - OWN
    assert foreign == set()


@pytest.mark.parametrize("path", ALL_SCRIPTS, ids=lambda path: path.name)
def test_a_python_file_is_not_taken_for_a_command_line_module(path: Path) -> None:
    """Slicer takes a Python file that starts with ``#!`` for an executable of its own."""
    assert not path.read_bytes().startswith(b"#!")


def test_libraries_do_not_print() -> None:
    """They log; the command line alone has something to say on standard output."""
    guilty = [
        f"{path.name}:{node.lineno}"
        for path in ALL_SCRIPTS
        if "cli" not in path.parts
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert guilty == []


def test_torch_is_never_installed_with_pip() -> None:
    """In Slicer it comes from the PyTorch extension, which knows the right build for the machine."""
    guilty = [
        path.name for path in ALL_SCRIPTS if re.search(r"pip_(install|ensure)\(\W*torch", path.read_text("utf-8"))
    ]
    assert guilty == []
