"""What the knee's tests share: a network that takes a quarter of a minute to train."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained_nnunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nnU-Nets trained on synthetic knees, in the layout of the published model."""
    pytest.importorskip("nnunetv2", reason="nnU-Net models need the package nnunetv2, which is not installed")
    from nnunet_folders import make_model

    return make_model(tmp_path_factory.mktemp("Modelle mit ü"))
