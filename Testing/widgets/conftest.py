"""Widget tests run on a host in place of Slicer; see ``Testing/host/qt_host.py``. Run this folder by itself.

The host changes PySide6 for the whole process, so these tests do not mix with others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from host.host_errors import HostUnavailable
from host.qt_host import Host, start_host


@pytest.fixture(scope="session")
def running_host() -> Host:
    try:
        return start_host()
    except HostUnavailable as unavailable:
        pytest.skip(str(unavailable))


@pytest.fixture
def host(running_host: Host) -> Iterator[Host]:
    """The host with an empty scene; no slot or observer may have raised an error unseen by its end."""
    import qt
    import slicer

    running_host.messages.clear()
    running_host.errors.clear()
    qt.QSettings().clear()
    slicer.mrmlScene.Clear(False)
    yield running_host
    for widget in list(running_host.opened):
        running_host.close_module(widget)
    slicer.mrmlScene.Clear(False)
    running_host.process_events()
    errors = list(running_host.errors)
    running_host.errors.clear()
    assert errors == [], "\n".join(errors)


@pytest.fixture
def open_module(host: Host, repository: Path) -> Callable[[str], Any]:
    """A function that opens one of this repository's modules by its name and answers its widget.

    All modules are loaded first, in alphabetical order, as when Slicer starts.
    """
    for folder in sorted(repository.iterdir()):
        if (folder / f"{folder.name}.py").is_file():
            host.load_module(folder / f"{folder.name}.py")
    return lambda name: host.open_module(repository / name / f"{name}.py")
