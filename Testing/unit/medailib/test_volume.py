"""The values themselves: validated where they are made, and immutable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from image_strategies import geometries

from MedAILib.errors import InputError
from MedAILib.volume import Geometry, LabelMap, SegmentInfo, Volume


@pytest.fixture
def two_segments() -> LabelMap:
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 1, 2], labels[1, 2, 3] = 1, 2
    return LabelMap((labels,), np.eye(4), (SegmentInfo("a", "Liver", 1), SegmentInfo("b", "Spleen", 2)))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5), (0, 3, 4), ()])
def test_a_geometry_has_three_dimensions_of_at_least_one_voxel(shape):
    with pytest.raises(InputError, match="three dimensions"):
        Geometry(shape, np.eye(4))


@pytest.mark.parametrize("matrix", [np.eye(3), np.diag([1, 0, 1, 1]), np.full((4, 4), np.nan), np.ones((4, 4))])
def test_a_matrix_that_cannot_be_inverted_is_refused(matrix):
    with pytest.raises(InputError, match="cannot be inverted"):
        Geometry((1, 1, 1), matrix)


def test_spacing_is_given_in_both_orders():
    geometry = Geometry((1, 1, 1), np.diag([-0.5, 2.0, 3.0, 1.0]))
    assert geometry.spacing_ijk_mm == (0.5, 2.0, 3.0)
    assert geometry.spacing_kji_mm == (3.0, 2.0, 0.5)


def test_arrays_and_matrices_cannot_be_written_to(two_segments):
    volume = Volume(np.zeros((2, 2, 2)), np.eye(4))
    for array in (volume.array, volume.ijk_to_ras, two_segments.layers[0], two_segments.ijk_to_ras):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


def test_a_volume_shares_the_memory_it_was_given_and_leaves_it_writable():
    given = np.zeros((2, 2, 2))
    volume = Volume(given, np.eye(4))
    assert np.shares_memory(volume.array, given)
    assert given.flags.writeable


def test_a_segment_is_found_by_id_and_by_name(two_segments):
    assert two_segments.segment("b") is two_segments.segment("Spleen")
    assert two_segments.mask("Liver").sum() == 1
    assert two_segments.mask("Liver")[0, 1, 2]


def test_a_segment_that_is_not_there_is_named_with_those_that_are(two_segments):
    with pytest.raises(InputError, match=r"no segment 'Kidney'.*a \(Liver\), b \(Spleen\)"):
        two_segments.mask("Kidney")


def test_a_label_map_refuses_segments_without_a_layer_and_doubled_ids():
    layer = np.zeros((1, 1, 1), np.uint8)
    with pytest.raises(InputError, match="layer"):
        LabelMap((layer,), np.eye(4), (SegmentInfo("a", "A", 1, layer=1),))
    with pytest.raises(InputError, match="different ids"):
        LabelMap((layer,), np.eye(4), (SegmentInfo("a", "A", 1), SegmentInfo("a", "B", 2)))


def test_a_label_map_refuses_layers_of_different_shapes_and_none_at_all():
    with pytest.raises(InputError, match="one shape"):
        LabelMap((np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 2), np.uint8)), np.eye(4), ())
    with pytest.raises(InputError, match="one shape"):
        LabelMap((), np.eye(4), ())


@given(geometries())
def test_a_grid_is_the_same_as_itself_and_not_as_a_shifted_one(geometry):
    shifted = geometry.ijk_to_ras.copy()
    shifted[0, 3] += 0.01
    assert geometry.same_grid_as(Geometry(geometry.shape_kji, geometry.ijk_to_ras))
    assert not geometry.same_grid_as(Geometry(geometry.shape_kji, shifted))
    assert not geometry.same_grid_as(Geometry((*geometry.shape_kji[:2], 9), geometry.ijk_to_ras))
