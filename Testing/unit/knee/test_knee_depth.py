"""Relative depth on shells of known thickness and on the real knee."""

from __future__ import annotations

import json

import numpy as np
import pytest

from KneeAnalysisLib.depth import depth_regions, depth_split
from KneeAnalysisLib.knee import Knee, knee_from
from KneeAnalysisLib.labels import REGIONS, Tissue
from KneeAnalysisLib.side import Side
from MedAILib.imageio import read_label_map
from MedAILib.volume import Geometry

RADIUS_MM = 20.0


def a_shell(thickness_mm: float, spacing_ijk: tuple[float, float, float]) -> tuple[Knee, np.ndarray]:
    """A cap of cartilage on a ball of bone, and the true relative depth of every voxel."""
    matrix = np.diag([*spacing_ijk, 1.0])
    shape = tuple(int(54.0 / s) for s in spacing_ijk[::-1])
    k, j, i = np.indices(shape)
    away = [axis * s - 27.0 for axis, s in zip((i, j, k), spacing_ijk, strict=True)]
    radius = np.sqrt(sum(a * a for a in away))
    labels = np.zeros(shape, np.uint8)
    labels[radius < RADIUS_MM] = Tissue.FEMUR
    cap = (radius >= RADIUS_MM) & (radius < RADIUS_MM + thickness_mm) & (away[1] < -0.5 * radius)
    labels[cap] = Tissue.FEMORAL_CARTILAGE
    return Knee(labels, Geometry(shape, matrix), Side.RIGHT), (radius - RADIUS_MM) / thickness_mm


@pytest.mark.parametrize("spacing", [(0.3646, 0.3646, 0.7), (0.3125, 0.3125, 1.6)])
@pytest.mark.parametrize("thickness_mm", [1.5, 2.0, 3.0])
def test_depth_is_that_of_the_shell(spacing, thickness_mm):
    knee, true = a_shell(thickness_mm, spacing)
    cartilage = knee.mask(Tissue.FEMORAL_CARTILAGE)
    split = depth_split(knee)
    error = split.relative_depth[cartilage] - true[cartilage]
    assert abs(error.mean()) < 0.05
    assert np.sqrt((error**2).mean()) < 0.15
    right_half = (split.relative_depth[cartilage] < 0.5) == (true[cartilage] < 0.5)
    assert right_half.mean() > 0.88
    assert np.isnan(split.relative_depth[~cartilage]).all()


def test_the_halves_of_the_real_knee_are_those_of_the_reference(shared_data):
    expected = json.loads(shared_data("knee_reference/depth_ref.json").read_text(encoding="utf-8"))
    knee = knee_from(
        read_label_map(shared_data("knee/SAG_3D_DESS_RIGHT_label.nrrd")), str(shared_data("knee/dess_labels.json"))
    )
    split = depth_split(knee)
    assert split.missing == ()
    for key, tissue in (
        ("femur_1", Tissue.FEMORAL_CARTILAGE),
        ("tibia_2", Tissue.MEDIAL_TIBIAL_CARTILAGE),
        ("tibia_3", Tissue.LATERAL_TIBIAL_CARTILAGE),
        ("patella_4", Tissue.PATELLAR_CARTILAGE),
    ):
        depth = split.relative_depth[knee.mask(tissue)]
        assert np.count_nonzero(depth < 0.5) == pytest.approx(expected[key]["deep"], rel=0.03)
        assert depth.mean() == pytest.approx(expected[key]["mean_rel_depth"], abs=0.01)


def test_halves_get_labels_of_their_own_and_region_names():
    knee, _ = a_shell(2.0, (0.5, 0.5, 0.8))
    regions = np.where(knee.mask(Tissue.FEMORAL_CARTILAGE), 12, 0).astype(np.uint8)
    labels = depth_split(knee).labels(regions)
    assert set(np.unique(labels)) == {0, 112, 212}
    named = {region.key: region for region in depth_regions(REGIONS)}
    assert named["med_wb_fem_cart_deep"].value == 112
    assert 212 in named["fem_cart_superficial"].members


def test_cartilage_without_its_bone_has_no_depth():
    knee, _ = a_shell(2.0, (0.5, 0.5, 0.8))
    labels = np.where(knee.labels == Tissue.FEMUR, 0, knee.labels)
    split = depth_split(Knee(labels, knee.geometry, knee.side))
    assert split.missing == (Tissue.FEMORAL_CARTILAGE,)
    assert np.isnan(split.relative_depth).all()
