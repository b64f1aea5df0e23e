"""Along which axis was drawn, and on which slices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import ball, ellipsoid, on_slices

from MedAILib.errors import InputError, NothingDrawn
from Mem3DPropagateLib.drawings import default_extent, filled_slices, guess_axis, take_drawing
from Mem3DPropagateLib.request import Axis

SHAPE = (30, 40, 50)
WHOLE = ellipsoid(SHAPE, (15, 20, 25), (13, 16, 20))


@pytest.mark.parametrize("axis", Axis)
def test_the_axis_across_drawn_slices_is_found(axis) -> None:
    middle = SHAPE[axis.array_axis] // 2
    for slices in ([middle], [middle - 8, middle + 8], [middle - 8, middle - 3, middle, middle + 1, middle + 9]):
        assert guess_axis([on_slices(WHOLE, slices, axis)]) is axis


@pytest.mark.parametrize("axis", Axis)
def test_one_drawn_slice_tells_the_axis_even_where_the_structure_is_in_two_parts(axis) -> None:
    kidneys = np.zeros(SHAPE, bool)
    planes = np.moveaxis(kidneys, axis.array_axis, 0)
    planes[10, 5:15, 5:12] = True
    planes[10, 5:15, 20:27] = True
    assert guess_axis([kidneys]) is axis


def test_several_segments_tell_the_axis_together() -> None:
    other = ball(SHAPE, (15, 20, 25), 10)
    assert guess_axis([on_slices(WHOLE, [5, 15], Axis.K), on_slices(other, [10, 20], Axis.K)]) is Axis.K


@pytest.mark.parametrize(
    "mask",
    [
        WHOLE,
        on_slices(WHOLE, [14, 15, 16]),
        ball(SHAPE, (15, 20, 10), 7) | ball(SHAPE, (15, 20, 40), 7),
    ],
    ids=["whole", "neighbouring slices", "whole, in two parts"],
)
def test_where_the_axis_cannot_be_told_the_error_says_what_to_do(mask) -> None:
    with pytest.raises(InputError, match="cannot be told along which axis") as error:
        guess_axis([mask])
    assert "Name the axis (i, j or k)" in error.value.todo


@pytest.mark.parametrize("masks", [[], [np.zeros(SHAPE, bool)]])
def test_without_a_drawing_the_error_says_that_nothing_is_drawn(masks) -> None:
    with pytest.raises(NothingDrawn) as error:
        guess_axis(masks)
    assert "three to five slices" in error.value.todo


def test_guessing_leaves_the_masks_as_they_are() -> None:
    first, second = on_slices(WHOLE, [5, 15]), on_slices(WHOLE, [10])
    kept = first.copy()
    guess_axis([first, second])
    np.testing.assert_array_equal(first, kept)


@given(axis=st.sampled_from(Axis), slices=st.lists(st.integers(0, 29), unique=True, min_size=1, max_size=5))
def test_a_drawing_holds_the_masks_of_its_slices(axis, slices) -> None:
    drawing = take_drawing("a", "A", WHOLE, axis, slices)
    assert drawing.slices == tuple(sorted(slices))
    np.testing.assert_array_equal(drawing.masks, np.moveaxis(WHOLE, axis.array_axis, 0)[sorted(slices)])


def test_without_named_references_every_slice_that_holds_a_voxel_is_one() -> None:
    drawing = take_drawing("a", "A", on_slices(WHOLE, [3, 17, 25]), Axis.K)
    assert drawing.slices == filled_slices(on_slices(WHOLE, [3, 17, 25]), Axis.K) == (3, 17, 25)
    assert default_extent([drawing]) == 0


def test_an_empty_segment_has_no_reference() -> None:
    assert take_drawing("a", "A", np.zeros(SHAPE, bool), Axis.J).slices == ()


def test_a_named_reference_counts_once() -> None:
    assert take_drawing("a", "A", WHOLE, Axis.K, [7, 3, 7]).slices == (3, 7)


@pytest.mark.parametrize("references", [[-1], [3, 50], [-2, 60]])
def test_references_outside_the_volume_are_refused_with_its_range(references) -> None:
    with pytest.raises(InputError) as error:
        take_drawing("a", "A", WHOLE, Axis.I, references)
    assert "0 to 49" in error.value.why and "i" in error.value.why
    assert all(str(n) in error.value.what for n in references if not 0 <= n < 50)


def test_a_single_drawn_slice_is_extended_until_it_has_closed() -> None:
    one = take_drawing("a", "A", WHOLE, Axis.K, [15])
    with_an_empty_one = take_drawing("a", "A", WHOLE, Axis.K, [0, 15])
    two = take_drawing("a", "A", WHOLE, Axis.K, [5, 15])
    assert default_extent([one]) is None and default_extent([with_an_empty_one]) is None
    assert default_extent([two]) == 0 and default_extent([two, one]) is None
