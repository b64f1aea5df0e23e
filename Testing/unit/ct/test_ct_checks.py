"""What is not a chest CT is refused with a reason; what is missing is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chest_phantoms import ChestSpec, make_chest

from CTReportLib.anatomy import find_anatomy
from CTReportLib.checks import check_anatomy, check_volume
from MedAILib.errors import InputError
from MedAILib.grids import Box, cropped
from MedAILib.imageio import read_volume
from MedAILib.volume import Volume


def _volume(array: np.ndarray, spacing: float = 4.0) -> Volume:
    return Volume(array, np.diag([spacing] * 3 + [1.0]))


def _codes(volume: Volume) -> set[str]:
    return {notice.code for notice in (*check_volume(volume), *check_anatomy(find_anatomy(volume)))}


def test_a_whole_chest_passes_and_nothing_is_said_but_what_is_so() -> None:
    assert _codes(make_chest(ChestSpec(spacing_mm=2.5)).volume) == {"contrast-not-seen"}


def test_contrast_is_seen() -> None:
    assert "contrast" in _codes(make_chest(ChestSpec(blood_hu=250.0)).volume)


def test_cut_lungs_are_said_with_their_edges() -> None:
    chest = make_chest()
    crop = cropped(chest.volume, Box((0, 0, 0), (60, 64, 88)))
    notices = (*check_volume(crop), *check_anatomy(find_anatomy(crop)))
    assert "superior" in next(n.text for n in notices if n.code == "lungs-cut")


def test_a_clipped_ct_is_said_to_be_clipped() -> None:
    chest = make_chest()
    assert "hu-clipped" in _codes(_clipped(chest.volume, -1000, 240))


def _clipped(volume: Volume, low: int, high: int) -> Volume:
    return Volume(np.clip(volume.array, low, high), volume.ijk_to_ras)


def test_another_modality_is_refused_by_its_name() -> None:
    with pytest.raises(InputError, match="not a CT: its modality is MR"):
        check_volume(make_chest().volume, "MR")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 512, 512), np.int16), "2D image"),
        (np.zeros((40, 40, 40), np.int16), "empty"),
        (np.full((40, 40, 40), np.nan, np.float32), "No voxel is a number"),
        (np.zeros((8, 90, 90), np.int16), "too few slices"),
        (np.random.default_rng(0).integers(0, 256, (40, 40, 40)).astype(np.uint8), "not Hounsfield units"),
        (np.random.default_rng(0).integers(-1000, 1000, (40, 40, 15)).astype(np.int16), "too few slices"),
    ],
)
def test_what_cannot_be_a_chest_ct_is_refused_with_a_reason(array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        check_volume(_volume(array))
    assert raised.value.todo


def test_slices_too_far_apart_and_too_small_a_piece_are_refused() -> None:
    array = make_chest().volume.array
    with pytest.raises(InputError, match="too far apart"):
        check_volume(_volume(array[:, ::2], 8.0))
    with pytest.raises(InputError, match="covers only"):
        check_volume(_volume(array, 1.0))


def test_a_head_is_not_a_chest() -> None:
    head = _head()
    check_volume(head)
    with pytest.raises(InputError, match="No lungs were found") as raised:
        check_anatomy(find_anatomy(head))
    assert "head" in raised.value.why


def _head() -> Volume:
    """A skull with a brain and air-filled sinuses."""
    k, j, i = np.ogrid[-40:40, -40:40, -40:40]
    distance = np.sqrt((k / 30.0) ** 2 + (j / 26.0) ** 2 + (i / 20.0) ** 2)
    hu = np.full(distance.shape, -1000, np.int16)
    hu[distance < 1.0] = 40
    hu[(distance < 0.95) & (distance > 0.88)] = 900
    hu[(k + 12) ** 2 + (j - 14) ** 2 + i**2 < 20] = -950
    return _volume(hu)


def test_a_crop_beside_the_middle_names_no_side() -> None:
    anatomy = find_anatomy(cropped(make_chest().volume, Box((0, 0, 52), (84, 64, 88))))
    assert anatomy.is_chest
    with pytest.raises(InputError, match="Left and right cannot be told"):
        check_anatomy(anatomy)


@pytest.mark.parametrize(("box", "side"), [(Box((0, 0, 38), (45, 64, 88)), 1), (Box((0, 0, 0), (45, 64, 50)), 0)])
def test_the_spine_tells_the_side_where_the_trachea_is_not_in_the_image(box: Box, side: int) -> None:
    anatomy = find_anatomy(cropped(make_chest().volume, box))
    assert not anatomy.lungs.airways.any()
    assert anatomy.lungs.sides_known
    assert anatomy.lung_ml[side] > 900
    assert anatomy.lung_ml[1 - side] < 50


def test_a_real_mr_is_refused_and_says_why(shared_data: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="may be an MR"):
        check_volume(read_volume(shared_data("vol3d/brain_t1_head/image.nii.gz")))


def test_a_real_abdomen_is_not_a_chest(shared_data: Callable[[str], Path]) -> None:
    volume = read_volume(shared_data("vol3d/ts_ct_full/image.nii.gz"))
    check_volume(volume)
    with pytest.raises(InputError, match="No lungs were found"):
        check_anatomy(find_anatomy(volume))


def test_the_real_chests_pass(shared_data: Callable[[str], Path]) -> None:
    codes = _codes(read_volume(shared_data("vol3d/chestct_lidc0314/image.nii.gz")))
    assert codes == {"contrast-not-seen"}
    crop = _codes(read_volume(shared_data("dicom/ct_pat1_rtstruct")))
    assert {"lungs-cut", "lung-missing", "thick-slices"} <= crop


def test_an_enhanced_chest_is_said_to_be_enhanced(shared_data: Callable[[str], Path]) -> None:
    codes = _codes(read_volume(shared_data("vol3d/ts_aorta/image.nii.gz")))
    assert {"contrast", "lungs-cut"} <= codes
