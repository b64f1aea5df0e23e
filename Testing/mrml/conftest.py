"""A real MRML scene for the tests of everything that touches nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed: no MRML scene to test with")

from phantoms import on_slices
from propagating import DRAWN, GRID, ORGAN
from slanted import oblique_matrix

from host.scene import clear_scene, start_scene
from MedAILib.mrml.label_maps import segmentation_from_label_map
from MedAILib.mrml.volumes import write_volume
from MedAILib.volume import Geometry, LabelMap, SegmentInfo, Volume


@pytest.fixture
def scene() -> Iterator[Any]:
    """The scene, emptied after the test."""
    yield start_scene()
    clear_scene()


@pytest.fixture
def an_oblique_grid() -> Geometry:
    """12 x 10 x 8 voxels (k, j, i), anisotropic, turned about two axes, left-handed."""
    return Geometry((12, 10, 8), oblique_matrix((0.7, 1.5, 2.0), (0.3, -0.5), (12.5, -40.0, 7.25), left_handed=True))


@pytest.fixture
def a_segmentation(scene: Any) -> Callable[..., Any]:
    """A function from named masks (k, j, i) to a node holding them; masks in one layer unless ``layers`` says so."""

    def make(geometry: Geometry, masks: dict[str, np.ndarray], layers: dict[str, int] | None = None) -> Any:
        place = layers or dict.fromkeys(masks, 0)
        arrays = [np.zeros(geometry.shape_kji, np.uint8) for _ in range(max(place.values()) + 1)]
        infos = []
        for label, (name, mask) in enumerate(masks.items(), start=1):
            arrays[place[name]][mask] = label
            infos.append(SegmentInfo(name, name.title(), label, place[name], (0.1 * label, 0.5, 0.25)))
        label_map = LabelMap(tuple(arrays), geometry.ijk_to_ras, tuple(infos), "A segmentation")
        return segmentation_from_label_map(scene, label_map)

    return make


@pytest.fixture
def a_volume(scene: Any) -> Callable[..., Any]:
    """A function that puts a volume on a grid into the scene."""
    return lambda grid=GRID: write_volume(scene, Volume(np.zeros(grid.shape_kji, np.int16), grid.ijk_to_ras, "MR"))


@pytest.fixture
def drawn(a_volume, a_segmentation) -> tuple[Any, Any]:
    """A segmentation node with one segment, ``organ``, drawn on five slices; and its volume node."""
    return a_segmentation(GRID, {"organ": on_slices(ORGAN, DRAWN)}), a_volume()
