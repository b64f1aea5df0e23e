"""Makes the Python environment ``.venv`` that `make` uses; the second call finds it made and returns.

Standard library only: it runs before anything is installed. Usage: ``python environment.py demo|test``.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
VENV = REPOSITORY / ".venv"
PYTHON = VENV / "bin" / "python"
TRIED = REPOSITORY / "build" / "libraries-not-to-be-had"

TORCH = ("torch==2.13.0",)
"""First and alone: a later install that may choose takes a build with gigabytes of CUDA packages."""

INSTALLS: dict[str, tuple[tuple[str, ...], ...]] = {
    "demo": (TORCH, ("--editable", ".[mem3d]")),
    "test": (TORCH, ("--editable", ".[test,lint]")),
}
"""By environment, the arguments of one ``pip install`` after the other."""

ENGINES = ("--editable", ".[test,lint,test-engines]")
"""Likewise, what can be missing: tests that train nnU-Net or compare with TensorFlow are then skipped."""

UNUSED = ("torchvision", "timm")
"""What nnU-Net asks for and never imports; packages that do import it fail where it does not match torch."""

COVERED_BY = {"demo": ("demo", "test"), "test": ("test",)}
"""The environments that hold all that an environment needs."""

LIBRARIES = {
    "libegl1": "libEGL.so.1",
    "libgl1": "libGL.so.1",
    "libosmesa6": "libOSMesa.so.8",
    "libglib2.0-0": "libglib-2.0.so.0",
    "libxkbcommon0": "libxkbcommon.so.0",
    "libdbus-1-3": "libdbus-1.so.3",
    "libfontconfig1": "libfontconfig.so.1",
}
"""Debian package by package, a library of it that offscreen widgets (Qt) or pictures (VTK) load."""

DRIVERS = {"libgl1-mesa-dri": "dri/swrast_dri.so"}
"""Likewise, a file in a folder of libraries."""


def main(name: str) -> int:
    """Make the environment of that name where it is not made yet; returns the exit status."""
    if name == "test" and sys.platform == "linux":
        _ensure_libraries()
    if PYTHON.exists() and any(_was_made_for(covering) for covering in COVERED_BY[name]):
        return 0
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Setting up {VENV.name} for `make {name}` with Python {version}; this happens once.", flush=True)
    if not _is_usable():
        shutil.rmtree(VENV, ignore_errors=True)
        venv.create(VENV, symlinks=True, with_pip=True)
    pip = [PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--constraint", "constraints.txt"]
    for arguments in INSTALLS[name]:
        done = subprocess.run([*pip, *arguments], cwd=REPOSITORY, check=False)
        if done.returncode:
            print(f"pip could not install {' '.join(arguments)}: see its message above, then run `make {name}` again.")
            return done.returncode
    if name == "test" and not _install_engines(pip):
        return 0  # unstamped: the next call tries again
    _stamp(name).write_text(_digest(name))
    return 0


def _install_engines(pip: list[str | Path]) -> bool:
    """Install what the tests of networks need; False where it cannot be had."""
    if subprocess.run([*pip, *ENGINES], cwd=REPOSITORY, check=False).returncode:
        print(f"pip could not install {ENGINES[-1]}: tests of networks are skipped, and the next `make` tries again.")
        return False
    if subprocess.run([PYTHON, "-c", "import torchvision"], capture_output=True, check=False).returncode:
        subprocess.run([PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", *UNUSED], check=False)
    return True


def _is_usable() -> bool:
    """True where the environment runs, is of this Python's version and was made in this folder."""
    probe = "import pip, sys; print(sys.version_info[:2], sys.prefix)"
    try:
        answer = subprocess.run([PYTHON, "-c", probe], capture_output=True, text=True, check=True).stdout
        configuration = (VENV / "pyvenv.cfg").read_text()
    except (OSError, subprocess.CalledProcessError):
        return False
    return answer.strip() == f"{sys.version_info[:2]} {VENV}" and str(VENV) in configuration


def _stamp(name: str) -> Path:
    return VENV / f"made-for-{name}"


def _was_made_for(name: str) -> bool:
    stamp = _stamp(name)
    return stamp.exists() and stamp.read_text() == _digest(name)


def _digest(name: str) -> str:
    """What an environment was made from: it is made anew when any of it changes."""
    digest = hashlib.sha256(repr((INSTALLS[name], ENGINES, str(VENV), sys.version_info[:2])).encode())
    for file in ("pyproject.toml", "constraints.txt"):
        digest.update((REPOSITORY / file).read_bytes())
    return digest.hexdigest()


def _ensure_libraries() -> None:
    """Install the system's libraries that are missing where that is possible, otherwise name them."""
    missing = _missing_libraries()
    if missing and os.geteuid() == 0 and shutil.which("apt-get") and _last_tried() != missing:
        print(f"Installing system libraries: {' '.join(missing)}.", flush=True)
        _apt_get("update")
        if not _apt_get("install", "--no-install-recommends", *missing):
            for package in missing:
                _apt_get("install", "--no-install-recommends", package)
        missing = _missing_libraries()
        TRIED.parent.mkdir(exist_ok=True)
        TRIED.write_text(" ".join(missing))
    if missing:
        print(
            f"Not installed, so tests that need them are skipped: {' '.join(missing)}"
            f" (as root: apt-get install {' '.join(missing)})."
        )


def _last_tried() -> list[str]:
    """The packages that an earlier attempt could not install: not asked for again."""
    return TRIED.read_text().split() if TRIED.exists() else []


def _missing_libraries() -> list[str]:
    missing = [package for package, library in LIBRARIES.items() if not _loads(library)]
    folders = [Path("/usr/lib"), Path("/usr/lib64"), *Path("/usr/lib").glob("*-linux-gnu*")]
    return missing + [
        package for package, driver in DRIVERS.items() if not any((folder / driver).exists() for folder in folders)
    ]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _apt_get(*arguments: str) -> bool:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            ["apt-get", "-qq", "-y", *arguments],
            env=environment,
            check=False,
            timeout=300,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in INSTALLS:
        sys.exit(f"usage: {Path(sys.argv[0]).name} {'|'.join(INSTALLS)}")
    sys.exit(main(sys.argv[1]))
