"""The grids encoders read, and the way back."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from chest_phantoms import Chest, ChestSpec, make_chest

from CTReportLib.preprocess import (
    BONE_WINDOW,
    LUNG_WINDOW,
    MEDIASTINAL_WINDOW,
    PRIMUS_LAYOUT,
    RECT_LAYOUT,
    Layout,
    Window,
    content_key,
    layout_grid,
    prepare,
)
from MedAILib.errors import GeometryMismatch, OutputError
from MedAILib.grids import axis_code
from MedAILib.volume import Volume

SMALL = Layout("small", (96, 96, 96), 4.0, PRIMUS_LAYOUT.windows)
ORIENTATIONS = ("RAS", "LPS", "LIA", "SPR", "ASL", "PIR", "IRP", "RSA")


@pytest.fixture(scope="module")
def a_chest() -> Chest:
    return make_chest(ChestSpec(nodules_mm=((70, 30, 40, 24),)))


def test_the_encoders_grid_is_two_millimetres_around_the_lungs(a_chest: Chest) -> None:
    prepared = prepare(a_chest.volume)
    assert prepared.channels.shape == (1, 192, 192, 192)
    assert prepared.channels.dtype == np.float32
    assert prepared.geometry.spacing_kji_mm == pytest.approx((2.0, 2.0, 2.0))
    assert axis_code(prepared.geometry) == "LPS"
    lungs = np.argwhere(a_chest.left | a_chest.right)[:, ::-1]
    centre = (lungs.min(axis=0) + lungs.max(axis=0)) / 2
    true_mm = a_chest.volume.ijk_to_ras[:3, :3] @ centre + a_chest.volume.ijk_to_ras[:3, 3]
    middle = prepared.geometry.ijk_to_ras @ [95.5, 95.5, 95.5, 1.0]
    assert middle[:3] == pytest.approx(true_mm, abs=6.0)
    assert -1.0 <= prepared.channels.min() < -0.98
    assert prepared.channels.max() <= 1.0


def test_the_slices_of_the_other_layout_hold_the_whole_lungs_in_three_windows(a_chest: Chest) -> None:
    prepared = prepare(a_chest.volume, RECT_LAYOUT)
    lung, mediastinum, bone = prepared.channels
    assert lung.shape == (64, 512, 512)
    lungs = prepared.forward(Volume((a_chest.left | a_chest.right).astype(np.uint8), a_chest.volume.ijk_to_ras)) > 0
    whole_ml = (a_chest.left | a_chest.right).sum() * 0.064
    voxel_ml = np.prod(prepared.geometry.spacing_kji_mm) / 1000
    assert lungs.sum() * voxel_ml == pytest.approx(whole_ml, rel=0.01)
    assert 0.25 < np.median(lung[lungs]) < 0.4
    assert np.median(mediastinum[lungs]) == 0.0
    assert bone.max() > 0.5
    assert axis_code(prepared.geometry) == "LPS"


def test_every_orientation_gives_the_same_voxels(a_chest: Chest) -> None:
    first = prepare(a_chest.volume, SMALL)
    well_inside = np.zeros(a_chest.volume.array.shape, dtype=np.uint8)
    well_inside[1:-1, 1:-1, 1:-1] = 1
    compared = first.forward(Volume(well_inside, a_chest.volume.ijk_to_ras)) > 0
    for axes in ORIENTATIONS:
        turned = prepare(a_chest.turned(axes), SMALL)
        assert np.abs(turned.hu.astype(int) - first.hu)[compared].max() <= 1
        assert np.allclose(turned.geometry.ijk_to_ras, first.geometry.ijk_to_ras)


def test_values_between_voxels_are_linear() -> None:
    k, j, i = np.ogrid[:60, :50, :55]
    ramp = Volume((10 * k - 7 * j + 5 * i).astype(np.int16), np.diag([4.0, 4.0, 4.0, 1.0]))
    prepared = prepare(ramp, Layout("ramp", (40, 40, 40), 2.0, (Window(-1000, 1000),)))
    indices = np.indices(prepared.hu.shape).reshape(3, -1)[::-1]
    there = np.linalg.inv(ramp.ijk_to_ras) @ prepared.geometry.ijk_to_ras
    i, j, k = there[:3, :3] @ indices + there[:3, 3:]
    assert np.abs(prepared.hu.ravel() - (10 * k - 7 * j + 5 * i)).max() <= 0.51


@pytest.mark.parametrize("spacing_mm", [0.7, 1.0, 3.0])
def test_voxels_lie_where_reorienting_to_lps_and_resampling_from_the_first_voxel_puts_them(spacing_mm: float) -> None:
    matrix = np.diag([-spacing_mm, -spacing_mm, 1.25, 1.0])
    matrix[:3, 3] = 31.0, -17.0, 5.5
    grid = layout_grid(Volume(np.full((50, 60, 70), 30, np.int16), matrix), PRIMUS_LAYOUT)
    from_the_first_voxel = (grid.ijk_to_ras[:3, 3] - matrix[:3, 3]) / 2.0
    assert from_the_first_voxel == pytest.approx(np.rint(from_the_first_voxel), abs=1e-9)


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_a_mask_comes_back_where_it_was(a_chest: Chest, axes: str) -> None:
    turned = a_chest.turned(axes)
    prepared = prepare(turned)
    nodule = Volume((turned.array > -200).astype(np.uint8), turned.ijk_to_ras)
    back = prepared.back(prepared.forward(nodule))
    assert back.geometry.same_grid_as(turned.geometry)
    assert back.array.dtype == np.uint8
    inside = prepared.back(np.ones(prepared.geometry.shape_kji)).array > 0
    assert np.array_equal(back.array[inside], nodule.array[inside])


def test_a_mask_of_another_shape_is_refused(a_chest: Chest) -> None:
    with pytest.raises(GeometryMismatch):
        prepare(a_chest.volume, SMALL).back(np.zeros((3, 4, 5)))


def test_a_volume_without_lungs_is_centred_on_its_middle() -> None:
    volume = Volume(np.full((50, 40, 60), 30, np.int16), np.diag([4.0, 4.0, 4.0, 1.0]))
    grid = layout_grid(volume, SMALL)
    assert (grid.ijk_to_ras @ [47.5, 47.5, 47.5, 1.0])[:3] == pytest.approx([118.0, 78.0, 98.0], abs=0.1)


def test_the_windows_are_what_radiologists_call_them() -> None:
    hu = np.array([-1350, -600, -160, 40, 150, 240, 1300])
    assert LUNG_WINDOW.applied(hu)[[0, 1, 4]] == pytest.approx([0.0, 0.5, 1.0])
    assert MEDIASTINAL_WINDOW.applied(hu)[[2, 3, 5]] == pytest.approx([0.0, 0.5, 1.0])
    assert BONE_WINDOW.applied(hu)[[6]] == pytest.approx([1.0])


def test_a_kept_result_is_found_again_by_content_and_a_damaged_one_is_made_again(
    a_chest: Chest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "Zwischen ablage ü"
    folder.mkdir()
    first = prepare(a_chest.volume, SMALL, cache=folder)
    (kept,) = folder.iterdir()
    assert kept.name == f"{first.key}.npz"
    before = kept.stat().st_mtime_ns
    again = prepare(a_chest.volume, SMALL, cache=folder)
    assert np.array_equal(again.hu, first.hu)
    assert np.array_equal(again.geometry.ijk_to_ras, first.geometry.ijk_to_ras)
    assert kept.stat().st_mtime_ns == before
    for damage in (b"", b"PK\x03\x04 torn", kept.read_bytes()[:5000]):
        kept.write_bytes(damage)
        with caplog.at_level(logging.WARNING):
            assert np.array_equal(prepare(a_chest.volume, SMALL, cache=folder).hu, first.hu)
        assert "made again" in caplog.text
        caplog.clear()


def test_the_key_changes_with_a_voxel_with_the_place_and_with_the_layout(a_chest: Chest) -> None:
    volume = a_chest.volume
    key = content_key(volume, SMALL)
    other = volume.array.copy()
    other[5, 5, 5] += 1
    moved = volume.ijk_to_ras.copy()
    moved[0, 3] += 1
    assert key == content_key(Volume(volume.array, volume.ijk_to_ras, "another name"), SMALL)
    others = (
        content_key(Volume(other, volume.ijk_to_ras), SMALL),
        content_key(Volume(volume.array, moved), SMALL),
        content_key(volume, PRIMUS_LAYOUT),
    )
    assert len({key, *others}) == 4


def test_a_cache_that_cannot_be_written_is_said(a_chest: Chest, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        prepare(a_chest.volume, SMALL, cache=tmp_path / "missing")


def test_voxels_that_are_no_numbers_become_air() -> None:
    array = np.full((50, 40, 60), 30, np.float32)
    array[25] = np.nan
    prepared = prepare(Volume(array, np.diag([4.0, 4.0, 4.0, 1.0])), SMALL)
    assert prepared.hu.min() == -1000
    assert np.isfinite(prepared.channels).all()
