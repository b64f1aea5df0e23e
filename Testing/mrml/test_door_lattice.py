"""Index arithmetic between grids of one lattice."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slanted import oblique_matrix

from MedAILib.mrml.lattice import lattice_map

MATRIX = oblique_matrix((0.7, 1.5, 2.0), (0.3, -0.5), (12.5, -40.0, 7.25))
ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def turned(matrix: np.ndarray, axes: tuple[int, ...], signs: tuple[int, ...], shift: tuple[int, ...]) -> np.ndarray:
    """The same lattice with its index axes exchanged, reversed and shifted."""
    turn = np.eye(4)
    turn[:3, :3] = np.eye(3)[:, list(axes)] * np.array(signs)
    turn[:3, 3] = shift
    return matrix @ turn


@given(st.sampled_from(ORIENTATIONS), st.tuples(*[st.integers(-9, 9)] * 3), st.tuples(*[st.integers(-5, 5)] * 3))
def test_every_voxel_keeps_its_place_in_space_when_a_block_moves_to_another_grid(orientation, shift, start):
    target_matrix = turned(MATRIX, *orientation, shift)
    index = lattice_map(MATRIX, target_matrix, (4, 5, 6))
    assert index is not None
    block = np.arange(24).reshape(2, 3, 4)
    start_target, view = index.to_target(start, block)
    for position in np.ndindex(view.shape):
        (source_position,) = np.argwhere(block == view[position])
        here = target_matrix @ [*np.add(start_target, position)[::-1], 1]
        there = MATRIX @ [*np.add(start, source_position)[::-1], 1]
        np.testing.assert_allclose(here, there, atol=1e-9)


@given(st.sampled_from(ORIENTATIONS), st.tuples(*[st.integers(-9, 9)] * 3))
def test_the_inverse_map_brings_a_block_back(orientation, shift):
    index = lattice_map(MATRIX, turned(MATRIX, *orientation, shift), (4, 5, 6))
    assert index is not None
    block = np.arange(24).reshape(2, 3, 4)
    start, view = index.inverse().to_target(*index.to_target((3, -1, 7), block))
    assert start == (3, -1, 7)
    np.testing.assert_array_equal(view, block)


@pytest.mark.parametrize(
    "other",
    [
        MATRIX @ np.diag([1.1, 1, 1, 1]),
        turned(MATRIX, (0, 1, 2), (1, 1, 1), (0.5, 0, 0)),
        oblique_matrix((0.7, 1.5, 2.0), (0.31, -0.5), (12.5, -40.0, 7.25)),
        oblique_matrix((0.7, 1.5, 2.0), (0.3, -0.5), (12.6, -40.0, 7.25)),
    ],
    ids=["other spacing", "half a voxel off", "slightly turned", "slightly moved"],
)
def test_grids_between_each_others_voxels_share_no_lattice(other):
    assert lattice_map(MATRIX, other, (40, 50, 60)) is None


def test_a_small_turn_counts_by_what_it_does_at_the_far_corner():
    other = oblique_matrix((0.7, 1.5, 2.0), (0.3001, -0.5), (12.5, -40.0, 7.25))
    assert lattice_map(MATRIX, other, (4, 5, 6)) is not None
    assert lattice_map(MATRIX, other, (400, 500, 600)) is None


def test_rounding_to_single_precision_keeps_the_lattice():
    assert lattice_map(MATRIX, MATRIX.astype(np.float32), (300, 512, 512)) is not None
