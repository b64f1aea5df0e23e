"""The files of each module: those on disk and those that its ``CMakeLists.txt`` lists.

Run as a script it writes the lists anew from what is on disk.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LISTS = {"scripts": "MODULE_PYTHON_SCRIPTS", "resources": "MODULE_PYTHON_RESOURCES"}


@dataclass(frozen=True)
class ModuleFiles:
    """Paths relative to the module's folder, with forward slashes, sorted.

    Attributes
    ----------
    scripts : tuple of str
        Python files: the module file and its library.
    resources : tuple of str
        Everything else that ships: user interface files, pictures, tables.
    """

    scripts: tuple[str, ...]
    resources: tuple[str, ...]


def module_folders() -> list[Path]:
    """The folders that the extension adds, in its order."""
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    return [REPOSITORY / name for name in re.findall(r"^add_subdirectory\((\w+)\)", text, re.MULTILINE)]


def library_folders() -> list[Path]:
    """The folders that the wheel takes libraries from: the modules', and those whose module is still to come."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return [REPOSITORY / name for name in settings["tool"]["hatch"]["build"]["dev-mode-dirs"]]


def files_on_disk(folder: Path) -> ModuleFiles:
    """What is in a module's folder, caches and hidden files left out."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(_is_by_product(part) for part in path.relative_to(folder).parts)
    )
    if "CMakeLists.txt" in names:
        names.remove("CMakeLists.txt")
    return ModuleFiles(
        tuple(name for name in names if name.endswith(".py")),
        tuple(name for name in names if not name.endswith(".py")),
    )


def _is_by_product(name: str) -> bool:
    return name.startswith(".") or name in ("__pycache__", "build", "dist")


def files_listed(folder: Path) -> ModuleFiles:
    """What the module's ``CMakeLists.txt`` lists."""
    text = (folder / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", folder.name)
    found = {key: _pattern(variable).search(text) for key, variable in LISTS.items()}
    return ModuleFiles(**{key: tuple(sorted(match.group(2).split())) if match else () for key, match in found.items()})


def write_lists(folder: Path) -> None:
    """Write both lists of a module's ``CMakeLists.txt`` from what is on disk."""
    path = folder / "CMakeLists.txt"
    text = path.read_text(encoding="utf-8")
    on_disk = files_on_disk(folder)
    for key, variable in LISTS.items():
        lines = "".join(f"  {name}\n" for name in getattr(on_disk, key))
        text = _pattern(variable).sub(lambda match, lines=lines: f"{match.group(1)}\n{lines}  )", text)
    path.write_text(text, encoding="utf-8")


def _pattern(variable: str) -> re.Pattern[str]:
    return re.compile(rf"(set\({variable})\s([^)]*)\)")


if __name__ == "__main__":
    for module_folder in module_folders():
        write_lists(module_folder)
