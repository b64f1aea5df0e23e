"""The extension packed once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from packing import PackedExtension, pack


@pytest.fixture(scope="session")
def packed_extension(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> PackedExtension:
    """The extension after configure, pack and unpack, in a folder with spaces and non-ASCII letters."""
    return pack(repository, tmp_path_factory.mktemp("Slicer Erweiterung für Ärzte"))
