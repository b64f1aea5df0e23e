"""Measured findings: on chests of known truth, in several orientations, and on real CTs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from chest_cohort import patient
from chest_phantoms import Chest, ChestSpec, make_chest

from CTReportLib.anatomy import find_anatomy
from CTReportLib.findings import finding
from CTReportLib.measure_pleura import pleural_fluid
from CTReportLib.measurement import Measurement
from CTReportLib.measures import measure
from MedAILib.errors import InputError
from MedAILib.grids import Box, cropped, resampled
from MedAILib.imageio import read_volume
from MedAILib.volume import Volume

NODULES = ((70.0, 30.0, 30.0, 16.0), (-80.0, 10.0, -60.0, 12.0))


def _measured(volume: Volume) -> Mapping[str, Measurement]:
    return {m.name: m for m in measure(volume, find_anatomy(volume))}


def _candidates(found: Mapping[str, Measurement]) -> list[Measurement]:
    return [m for m in found.values() if m.finding_id == "lung_nodule"]


def _value(measurement: Measurement) -> float:
    assert measurement.value is not None
    return measurement.value


@pytest.fixture(scope="module")
def healthy() -> Mapping[str, Measurement]:
    return _measured(make_chest(ChestSpec(spacing_mm=3.0)).volume)


@pytest.fixture(scope="module")
def an_ill_chest() -> Chest:
    return make_chest(ChestSpec(spacing_mm=2.5, effusion="left", nodules_mm=(NODULES[0],), emphysema=0.12))


def test_a_healthy_chest_has_no_finding(healthy: Mapping[str, Measurement]) -> None:
    assert {m.decision for m in healthy.values()} == {False, None}
    assert _candidates(healthy) == []
    assert healthy["Emphysema index LAA-950, both lungs"].value == pytest.approx(0.0, abs=0.01)
    assert healthy["Cardiothoracic ratio"].value == pytest.approx(0.38, abs=0.03)


def test_every_measurement_says_its_rule_and_belongs_to_a_finding_or_to_none(
    healthy: Mapping[str, Measurement],
) -> None:
    assert len(healthy) >= 11
    for m in healthy.values():
        assert m.rule
        assert m.unit or m.name == "Cardiothoracic ratio"
        if m.finding_id:
            assert finding(m.finding_id).measured_by
            assert m.limits


def test_lung_volumes_are_true_on_each_side(an_ill_chest: Chest) -> None:
    found = _measured(an_ill_chest.volume)
    left = an_ill_chest.left & ~an_ill_chest.truth["effusion"]
    voxel_ml = 2.5**3 / 1000
    assert found["Volume of the left lung"].value == pytest.approx(left.sum() * voxel_ml, rel=0.03)
    assert found["Volume of the right lung"].value == pytest.approx(an_ill_chest.right.sum() * voxel_ml, rel=0.03)


@pytest.mark.parametrize("share", [0.02, 0.12, 0.4])
def test_the_emphysema_index_is_the_share_that_was_put_in(share: float) -> None:
    found = _measured(make_chest(ChestSpec(emphysema=share)).volume)
    for where in ("both lungs", "left lung", "right lung"):
        index = found[f"Emphysema index LAA-950, {where}"]
        assert index.value == pytest.approx(100 * share, rel=0.08)
        assert index.decision == (share > 0.05)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LIA", "SPR", "ASL", "PIR"])
def test_fluid_and_nodule_are_on_their_side_and_at_their_place(an_ill_chest: Chest, axes: str) -> None:
    found = _measured(an_ill_chest.turned(axes))
    true_ml = an_ill_chest.truth["effusion"].sum() * 2.5**3 / 1000
    left, right = (found[f"Fluid-like volume beside the {side} lung"] for side in ("left", "right"))
    assert 0.65 * true_ml < _value(left) < 1.1 * true_ml
    assert left.decision is True
    assert left.place.startswith("lower third") and left.place.endswith("left")
    assert (right.value, right.decision) == (0.0, False)
    (candidate,) = _candidates(found)
    assert (candidate.side, candidate.place) == ("right", "middle third, right")
    assert candidate.decision is None
    assert candidate.value == pytest.approx(16.0, abs=2.0)


def test_the_fluids_mask_lies_on_the_fluid(an_ill_chest: Chest) -> None:
    mask = _measured(an_ill_chest.volume)["Fluid-like volume beside the left lung"].mask
    assert mask is not None
    there = resampled(mask, an_ill_chest.volume.geometry, "nearest").array > 0
    true = an_ill_chest.truth["effusion"]
    assert 2 * (there & true).sum() / (there.sum() + true.sum()) > 0.8


def test_nodules_are_candidates_and_vessels_are_not() -> None:
    found = _candidates(_measured(make_chest(ChestSpec(spacing_mm=2.0, nodules_mm=NODULES)).volume))
    assert [m.place for m in found] == ["middle third, right", "lower third, left"]
    assert [m.value for m in found] == pytest.approx([16.0, 12.0], abs=1.5)


def test_a_large_heart_passes_the_threshold() -> None:
    ratio = _measured(make_chest(ChestSpec(heart_scale=1.5)).volume)["Cardiothoracic ratio"]
    assert ratio.decision is True
    assert ratio.value == pytest.approx(156 / 276, abs=0.03)


def test_calcium_is_found_in_its_own_region_and_not_in_the_other() -> None:
    for spec, here, elsewhere in (
        (ChestSpec(spacing_mm=2.5, coronary=True), "Calcium in the heart's region", "Calcium near the thoracic aorta"),
        (ChestSpec(spacing_mm=2.5, aortic=True), "Calcium near the thoracic aorta", "Calcium in the heart's region"),
    ):
        chest = make_chest(spec)
        found = _measured(chest.volume)
        (true,) = (mask for name, mask in chest.truth.items() if name in ("coronary", "aortic"))
        assert found[here].value == pytest.approx(true.sum() * 2.5**3, rel=0.15)
        assert found[here].decision is True
        assert (found[elsewhere].value, found[elsewhere].decision) == (0.0, False)


def test_calcium_is_not_judged_in_enhanced_blood() -> None:
    found = _measured(make_chest(ChestSpec(coronary=True, blood_hu=260.0)).volume)["Calcium in the heart's region"]
    assert (found.value, found.decision) == (None, None)
    assert "enhanced" in found.limits


def test_a_cut_chest_is_measured_but_not_judged() -> None:
    chest = make_chest(ChestSpec(emphysema=0.2, heart_scale=1.5))
    found = _measured(cropped(chest.volume, Box((0, 0, 28), (84, 64, 88))))
    assert found["Emphysema index LAA-950, right lung"].value == pytest.approx(20.0, rel=0.08)
    assert {m.decision for m in found.values()} == {None}
    assert "cuts it (left)" in found["Volume of the left lung"].limits


def test_a_side_without_lung_is_not_measured() -> None:
    chest = make_chest()
    found = _measured(cropped(chest.volume, Box((0, 0, 38), (84, 64, 88))))
    assert found["Fluid-like volume beside the left lung"].value is None
    assert found["Cardiothoracic ratio"].value is None
    assert [m.side for m in found.values() if m.finding_id == "emphysema"] == ["right"]
    assert found["Mean lung density"].side == "right"


def test_a_side_that_is_no_side_is_refused() -> None:
    with pytest.raises(InputError, match="not a side"):
        Measurement("", "Something", 1.0, "mm", "A rule.", side="up")


def test_the_same_volume_gives_the_same_numbers() -> None:
    chest = make_chest(ChestSpec(effusion="right", nodules_mm=NODULES))
    first, second = (measure(chest.volume, find_anatomy(chest.volume)) for _ in range(2))
    assert [(m.name, m.value, m.place) for m in first] == [(m.name, m.value, m.place) for m in second]


def test_a_real_chest_with_a_tumour_is_measured(shared_data: Callable[[str], Path]) -> None:
    found = _measured(read_volume(shared_data("vol3d/chestct_lung1_001/image.nii.gz")))
    assert 2100 < _value(found["Volume of the left lung"]) < 2350
    assert 0.4 < _value(found["Cardiothoracic ratio"]) < 0.55
    assert 2 < _value(found["Emphysema index LAA-950, both lungs"]) < 8
    assert found["Calcium in the heart's region"].decision is True
    assert len(_candidates(found)) <= 3


def test_a_real_crop_is_measured_without_judging(shared_data: Callable[[str], Path]) -> None:
    found = _measured(read_volume(shared_data("dicom/ct_pat1_rtstruct")))
    assert {m.decision for m in found.values()} == {None}
    assert np.isfinite([m.value for m in found.values() if m.value is not None]).all()


@pytest.mark.parametrize("seed", [100_002, 100_007])
def test_fluid_behind_a_blurred_layer_is_not_called_absent(seed: int) -> None:
    one = patient(seed)
    found = {m.side: m for m in pleural_fluid(find_anatomy(one.chest.volume))}
    sides = ("left", "right") if one.spec.effusion == "both" else (one.spec.effusion,)
    assert sides
    for side in sides:
        assert found[side].decision is None and found[side].value is None
        assert "not clearly against it" in found[side].limits
