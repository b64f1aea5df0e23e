from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from knee_phantoms import knee_label_map, shell

from KneeAnalysisLib.knee import knee_from
from KneeAnalysisLib.labels import FEMORAL_REGIONS, Tissue
from KneeAnalysisLib.statistics import region_statistics, weighted_percentiles
from KneeAnalysisLib.thickness import measure_thickness


@pytest.fixture(scope="module")
def knee():
    return knee_from(knee_label_map())


@pytest.fixture(scope="module")
def regions(knee):
    bands = np.zeros_like(knee.labels)
    for index, columns in enumerate(np.array_split(np.arange(bands.shape[2]), 5)):
        bands[:, :, columns] = FEMORAL_REGIONS[index].value
    return np.where(knee.mask(Tissue.FEMORAL_CARTILAGE), bands, 0).astype(np.uint8)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 5)), min_size=1, max_size=30))
def test_weighted_percentiles_are_ordered_within_the_values_and_see_no_order(pairs):
    values, weights = np.array(pairs).T
    found = weighted_percentiles(values, weights, (5, 50, 95))
    assert values.min() <= found[0] <= found[1] <= found[2] <= values.max()
    assert np.allclose(weighted_percentiles(values[::-1], weights[::-1], (5, 50, 95)), found)
    assert np.allclose(weighted_percentiles(values, 3 * weights, (5, 50, 95)), found)


def test_equal_weights_give_the_ordinary_median():
    values = np.array([5.0, 1, 2, 9, 3])
    assert weighted_percentiles(values, np.ones(5), (50,))[0] == 3.0


def test_points_count_by_their_area():
    assert weighted_percentiles(np.array([1.0, 2.0]), np.array([1.0, 99.0]), (50,))[0] == pytest.approx(1.99, abs=0.02)


def test_a_row_is_the_area_weighted_mean_of_its_points(knee):
    results = measure_thickness(knee)
    row = next(r for r in region_statistics(results, knee) if r.key == "med_tib_cart")
    tibia = results[1]
    here = tibia.labels == Tissue.MEDIAL_TIBIAL_CARTILAGE
    areas = tibia.mesh.point_areas_mm2[here]
    assert row.mean_mm == pytest.approx(np.average(tibia.thickness_mm[here], weights=areas), rel=1e-6)
    assert row.area_mm2 == pytest.approx(areas.sum())
    assert row.points == here.sum()
    assert row.p5_mm <= row.median_mm <= row.p95_mm
    assert row.volume_mm3 == pytest.approx(knee.voxels[Tissue.MEDIAL_TIBIAL_CARTILAGE] * 0.7 * 0.5 * 0.5)


def test_the_whole_femoral_cartilage_is_its_parts_together(knee, regions):
    rows = {row.key: row for row in region_statistics(measure_thickness(knee, regions), knee, regions)}
    parts = [rows[region.key] for region in FEMORAL_REGIONS if region.key in rows]
    assert len(parts) >= 4
    whole = rows["fem_cart"]
    assert whole.area_mm2 == pytest.approx(sum(p.area_mm2 for p in parts))
    assert whole.volume_mm3 == pytest.approx(sum(p.volume_mm3 for p in parts))
    assert whole.mean_mm == pytest.approx(sum(p.mean_mm * p.area_mm2 for p in parts) / whole.area_mm2)


def test_denuded_bone_counts_as_zero_and_is_reported():
    phantom = shell("sphere", 2.0, hole_mm=5.0)
    (row,) = region_statistics(measure_thickness(phantom.knee), phantom.knee)
    assert row.denuded_percent == pytest.approx(100 * np.pi * 25 / phantom.true_area_mm2, rel=0.2)
    assert row.covered_mean_mm == pytest.approx(2.0, abs=0.05)
    assert row.mean_mm == pytest.approx(row.covered_mean_mm * (1 - row.denuded_percent / 100), rel=1e-6)
    assert row.p5_mm == 0.0


def test_a_region_that_is_wholly_denuded_has_a_row_of_zeros():
    phantom = shell("sphere", 2.0)
    (result,) = measure_thickness(phantom.knee)
    bare = replace(result, thickness_mm=np.zeros_like(result.thickness_mm))
    (row,) = region_statistics((bare,), phantom.knee)
    assert (row.mean_mm, row.covered_mean_mm, row.denuded_percent) == (0.0, 0.0, 100.0)


def test_regions_that_are_not_there_have_no_row(knee):
    results = measure_thickness(knee)
    assert [row.key for row in region_statistics(results[:1], knee)] == ["fem_cart"]
    assert region_statistics((), knee) == ()
