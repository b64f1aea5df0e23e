"""Slices at another size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from KneeAnalysisLib.resize import resized_labels, resized_slices


@pytest.mark.parametrize("shape", [(40, 52), (20, 52), (13, 17), (30, 20), (24, 30)])
def test_slices_are_resized_as_scikit_image_does(shape: tuple[int, int]) -> None:
    transform = pytest.importorskip("skimage.transform", reason="the comparison needs scikit-image")
    slices = np.random.default_rng(0).normal(size=(5, 24, 30)).astype(np.float32)
    expected = transform.resize(slices, (5, *shape), order=3, preserve_range=True)
    assert np.abs(resized_slices(slices, shape) - expected).max() < 1e-5


def test_slices_of_the_right_size_are_copied() -> None:
    slices = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    found = resized_slices(slices, (3, 4))
    assert np.array_equal(found, slices)
    assert not np.shares_memory(found, slices)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_a_constant_slice_stays_constant_at_any_size(rows: int, columns: int, to_rows: int, to_columns: int) -> None:
    found = resized_slices(np.full((1, rows, columns), 7, np.int16), (to_rows, to_columns))
    assert (found.shape, found.dtype) == ((1, to_rows, to_columns), np.float32)
    assert np.allclose(found, 7)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_labels_enlarged_by_a_whole_factor_come_back_exactly(rows: int, columns: int, factor: int) -> None:
    labels = np.random.default_rng(rows * columns).integers(0, 10, (2, rows, columns)).astype(np.uint8)
    large = resized_labels(labels, (rows * factor, columns * factor))
    assert np.array_equal(large, labels.repeat(factor, axis=1).repeat(factor, axis=2))
    assert np.array_equal(resized_labels(large, (rows, columns)), labels)
