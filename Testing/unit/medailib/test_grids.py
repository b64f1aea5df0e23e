"""Reorient, crop, paste, place, resample, window: every voxel stays where it is in space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from image_strategies import ALL_AXES, axes_matrix, geometries, label_maps, places_by_value, volumes

from MedAILib.errors import GeometryMismatch, InputError
from MedAILib.grids import (
    Box,
    Interpolation,
    Resampler,
    axis_code,
    bounding_box,
    cropped,
    middle_voxel_kji,
    pasted,
    placed,
    reoriented,
    resampled,
    windowed,
)
from MedAILib.volume import Geometry, LabelMap, SegmentInfo, Volume

UNIQUE = [np.dtype("i2"), np.dtype("f4")]
TOLERANCE_MM = 1e-9


@st.composite
def boxes_in(draw, shape_kji):
    corners = [sorted(draw(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)))) for n in shape_kji]
    return Box(tuple(low for low, _ in corners), tuple(high + 1 for _, high in corners))


def matrix_of(axes, spacing=(1.0, 1.0, 1.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = axes_matrix(axes) * spacing
    return matrix


# axis codes and reorientation


def test_there_are_48_axis_codes_and_each_names_its_own_matrix():
    assert len(set(ALL_AXES)) == 48
    assert [axis_code(Geometry((1, 1, 1), matrix_of(axes, (0.5, 2, 3)))) for axes in ALL_AXES] == ALL_AXES


@given(geometries(sheared=True))
def test_the_code_of_an_oblique_grid_names_the_closest_axes(geometry):
    directions = geometry.ijk_to_ras[:3, :3] / np.linalg.norm(geometry.ijk_to_ras[:3, :3], axis=0)
    closeness = {axes: float((axes_matrix(axes) * directions).sum()) for axes in ALL_AXES}
    assert closeness[axis_code(geometry)] == pytest.approx(max(closeness.values()))


@given(volumes(sheared=True, types=UNIQUE), st.sampled_from(ALL_AXES))
def test_reorienting_moves_no_voxel_in_space_and_back_again_is_the_same_image(volume, axes):
    turned = reoriented(volume, axes)
    assert axis_code(turned.geometry) == axes
    assert np.allclose(
        places_by_value(turned.array, turned.geometry),
        places_by_value(volume.array, volume.geometry),
        atol=TOLERANCE_MM,
    )
    back = reoriented(turned, axis_code(volume.geometry))
    assert np.array_equal(back.array, volume.array)
    assert np.allclose(back.ijk_to_ras, volume.ijk_to_ras, atol=TOLERANCE_MM)


@given(label_maps(sheared=True), st.sampled_from(ALL_AXES))
def test_all_layers_of_a_label_map_are_reoriented_and_its_segments_kept(label_map, axes):
    turned = reoriented(label_map, axes)
    assert turned.segments == label_map.segments
    for layer, was in zip(turned.layers, label_map.layers, strict=True):
        expected = reoriented(Volume(was, label_map.ijk_to_ras), axes)
        assert np.array_equal(layer, expected.array)
        assert turned.geometry.same_grid_as(expected.geometry)


def test_reorienting_copies_nothing():
    volume = Volume(np.zeros((3, 4, 5)), matrix_of("LPI"))
    assert np.shares_memory(reoriented(volume, "SRA").array, volume.array)


@pytest.mark.parametrize("axes", ["", "RA", "RAR", "XYZ", "RASS", "RRR"])
def test_what_is_no_axis_code_is_refused(axes):
    with pytest.raises(InputError, match="not an axis code"):
        reoriented(Volume(np.zeros((1, 1, 1)), np.eye(4)), axes)


# boxes, crop and paste


@given(st.data(), volumes(sheared=True, types=UNIQUE))
def test_a_crop_lies_where_its_voxels_were_and_pasting_it_back_changes_nothing(data, volume):
    box = data.draw(boxes_in(volume.array.shape))
    block = cropped(volume, box)
    assert block.array.shape == box.shape_kji
    assert np.shares_memory(block.array, volume.array)
    before = dict(zip(volume.array.ravel().argsort(), places_by_value(volume.array, volume.geometry), strict=True))
    order = np.sort(block.array, axis=None).astype(int)
    assert np.allclose([before[n] for n in order], places_by_value(block.array, block.geometry), atol=TOLERANCE_MM)
    again = pasted(block, volume, box)
    assert np.array_equal(again.array, volume.array)
    assert np.array_equal(again.ijk_to_ras, volume.ijk_to_ras)


@given(st.data(), label_maps())
def test_pasting_changes_the_box_and_nothing_else(data, label_map):
    box = data.draw(boxes_in(label_map.geometry.shape_kji))
    block = cropped(label_map, box)
    filled = LabelMap(tuple(np.full_like(a, 9) for a in block.layers), block.ijk_to_ras, block.segments)
    result = pasted(filled, label_map, box)
    inside = np.zeros(label_map.geometry.shape_kji, bool)
    inside[box.slices] = True
    for layer, was in zip(result.layers, label_map.layers, strict=True):
        assert (layer[inside] == 9).all()
        assert np.array_equal(layer[~inside], was[~inside])
        assert layer.dtype == was.dtype


def test_a_box_without_voxels_or_beyond_the_image_is_refused():
    volume = Volume(np.zeros((2, 2, 2)), np.eye(4))
    for start, stop in [((0, 0, 0), (0, 1, 1)), ((-1, 0, 0), (1, 1, 1)), ((2, 0, 0), (1, 1, 1)), ((0, 0), (1, 1))]:
        with pytest.raises(InputError, match="holds no voxel"):
            Box(start, stop)
    with pytest.raises(InputError, match="beyond the image"):
        cropped(volume, Box((0, 0, 0), (1, 1, 3)))


def test_a_block_that_lies_elsewhere_is_not_pasted():
    volume = Volume(np.zeros((3, 3, 3)), np.eye(4))
    block = cropped(volume, Box((0, 0, 0), (2, 2, 2)))
    with pytest.raises(GeometryMismatch):
        pasted(block, volume, Box((1, 1, 1), (3, 3, 3)))
    with pytest.raises(GeometryMismatch):
        pasted(block, volume, Box((0, 0, 0), (2, 2, 3)))


@pytest.mark.parametrize(("value", "fits"), [(200, True), (256, False), (-1, False), (0.5, False), (np.nan, False)])
def test_values_that_do_not_fit_the_voxel_type_are_not_pasted(value, fits):
    into = Volume(np.zeros((1, 1, 2), np.uint8), np.eye(4))
    block = Volume(np.full((1, 1, 1), value, float), np.eye(4))
    box = Box((0, 0, 0), (1, 1, 1))
    if fits:
        assert pasted(block, into, box).array.tolist() == [[[200, 0]]]
    else:
        with pytest.raises(InputError, match="do not fit"):
            pasted(block, into, box)


# placing on an aligned grid


@given(st.data(), label_maps(sheared=True))
def test_a_cut_label_map_returns_to_the_grid_it_was_cut_from(data, label_map):
    box = data.draw(boxes_in(label_map.geometry.shape_kji))
    back = placed(cropped(label_map, box), label_map.geometry)
    assert back.geometry.same_grid_as(label_map.geometry)
    for layer, was in zip(back.layers, label_map.layers, strict=True):
        expected = np.zeros_like(was)
        expected[box.slices] = was[box.slices]
        assert np.array_equal(layer, expected)


def test_placing_on_a_smaller_or_a_distant_grid_cuts_off():
    volume = Volume(np.arange(8).reshape(2, 2, 2), np.eye(4))
    shifted = np.eye(4)
    shifted[:3, 3] = (1, 0, -1)
    assert placed(volume, Geometry((2, 2, 2), shifted), fill=-1).array.tolist() == [
        [[-1, -1], [-1, -1]],
        [[1, -1], [3, -1]],
    ]
    shifted[0, 3] = 50
    assert (placed(volume, Geometry((2, 2, 2), shifted), fill=-1).array == -1).all()


@pytest.mark.parametrize("change", ["half a voxel", "spacing", "tilt"])
def test_a_grid_that_does_not_share_voxels_is_refused(change):
    matrix = np.eye(4)
    if change == "half a voxel":
        matrix[0, 3] = 0.5
    elif change == "spacing":
        matrix[0, 0] = 1.01
    else:
        matrix[0, 1] = 0.01
    with pytest.raises(GeometryMismatch, match="do not share"):
        placed(Volume(np.zeros((9, 9, 9)), np.eye(4)), Geometry((9, 9, 9), matrix))


# resampling


@given(volumes(sheared=True), st.sampled_from(["nearest", "linear"]))
def test_resampling_to_the_own_grid_changes_nothing(volume, interpolation):
    same = resampled(volume, volume.geometry, interpolation, fill=77)
    assert np.allclose(same.array, volume.array, rtol=0, atol=0 if volume.array.dtype.kind in "iu" else 1e-4)
    assert same.array.dtype == volume.array.dtype
    assert np.array_equal(same.ijk_to_ras, volume.ijk_to_ras)


@given(volumes(types=UNIQUE), st.sampled_from(ALL_AXES), st.sampled_from(["nearest", "linear"]))
def test_resampling_to_a_reoriented_grid_is_reorienting(volume, axes, interpolation):
    turned = reoriented(volume, axes)
    assert np.allclose(resampled(volume, turned.geometry, interpolation).array, turned.array, atol=1e-3)


@given(geometries(most=9), geometries(most=9), st.tuples(*[st.integers(-20, 20).map(lambda n: n / 8)] * 3))
def test_linear_resampling_reproduces_a_linear_ramp_between_any_two_grids(source, target, slope):
    from image_strategies import voxel_centres_ras

    assume(min(source.shape_kji) > 1)
    centre = voxel_centres_ras(source).reshape(-1, 3).mean(axis=0)
    matrix = target.ijk_to_ras.copy()
    matrix[:3, 3] += centre - voxel_centres_ras(target).reshape(-1, 3).mean(axis=0)
    target = Geometry(target.shape_kji, matrix)
    ramp = Volume(voxel_centres_ras(source) @ slope, source.ijk_to_ras)
    found = resampled(ramp, target, fill=1e6).array
    points = voxel_centres_ras(target)
    ijk = (points - source.ijk_to_ras[:3, 3]) @ np.linalg.inv(source.ijk_to_ras[:3, :3]).T
    last = np.array(source.shape_kji[::-1]) - 1
    inside = ((ijk >= 1e-6) & (ijk <= last - 1e-6)).all(axis=-1)
    outside = ((ijk < -0.501) | (ijk > last + 0.501)).any(axis=-1)
    assert np.allclose(found[inside], (points @ slope)[inside], atol=1e-6)
    assert (found[outside] == 1e6).all()


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float64])
def test_the_voxel_type_is_kept(dtype):
    volume = Volume(np.ones((2, 2, 2), dtype), np.eye(4))
    assert resampled(volume, Geometry((1, 1, 1), np.eye(4)), Interpolation.NEAREST).array.dtype == dtype


def test_big_endian_and_strided_voxels_are_read_as_they_are():
    array = np.arange(64, dtype=">i4").reshape(4, 4, 4)[::-2, :, ::-1]
    volume = Volume(array, np.eye(4))
    assert np.array_equal(resampled(volume, volume.geometry).array, array)


def test_labels_are_read_at_the_nearest_voxel_and_never_interpolated():
    labels = LabelMap(
        (np.array([[[1, 3]]], np.uint8),), np.eye(4), (SegmentInfo("a", "A", 1), SegmentInfo("b", "B", 3))
    )
    finer = Geometry((1, 1, 6), np.diag([0.25, 1, 1, 1]))
    assert set(np.unique(resampled(labels, finer).layers[0])) == {1, 3}
    with pytest.raises(InputError, match="cannot be interpolated"):
        resampled(labels, finer, "linear")


def test_a_voxel_type_without_a_counterpart_is_refused():
    with pytest.raises(InputError, match="complex128"):
        resampled(Volume(np.zeros((1, 1, 1), complex), np.eye(4)), Geometry((1, 1, 1), np.eye(4)))


@pytest.mark.parametrize("interpolation", list(Interpolation))
def test_a_volume_handed_over_once_is_read_on_every_grid_as_by_itself(interpolation):
    values = np.random.default_rng(3).integers(-900, 900, (7, 8, 9)).astype(np.int16)
    volume = Volume(values, np.diag([1.0, 2.0, 3.0, 1.0]), "ct")
    resampler = Resampler(volume)
    for spacing in (0.7, 1.6):
        grid = Geometry((9, 9, 9), np.diag([spacing] * 3 + [1.0]))
        found, alone = resampler.at(grid, interpolation, fill=-5), resampled(volume, grid, interpolation, fill=-5)
        assert found.array.dtype == np.int16 and found.name == "ct"
        assert np.array_equal(found.array, alone.array) and found.geometry.same_grid_as(grid)


def test_a_resampled_array_outlives_everything_it_came_from():
    found = resampled(Volume(np.full((20, 20, 20), 7.0), np.eye(4)), Geometry((20, 20, 20), np.eye(4))).array
    import gc

    gc.collect()
    noise = [np.random.default_rng(n).random((20, 20, 20)) for n in range(50)]
    assert (found == 7.0).all()
    assert noise


# windows and bounding boxes


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_a_window_maps_its_bounds_to_0_and_1_and_clips(dtype):
    volume = Volume(np.array([[[0, 10, 15, 20, 100]]], dtype), np.eye(4))
    found = windowed(volume, 10, 20).array
    assert found.dtype == np.float32
    assert found.tolist() == [[[0.0, 0.0, 0.5, 1.0, 1.0]]]


def test_a_window_of_values_that_are_no_numbers_stays_within_0_and_1():
    volume = Volume(np.array([[[np.nan, np.inf, -np.inf]]]), np.eye(4))
    assert windowed(volume, -1, 1).array.tolist() == [[[0.0, 1.0, 0.0]]]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (np.nan, 1)])
def test_a_window_without_width_is_refused(low, high):
    with pytest.raises(InputError, match="window"):
        windowed(Volume(np.zeros((1, 1, 1)), np.eye(4)), low, high)


@given(st.data())
def test_a_bounding_box_holds_the_whole_mask_and_every_side_touches_it(data):
    shape = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
    bits = data.draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    mask = np.array(bits).reshape(shape)
    box = bounding_box(mask)
    if not mask.any():
        assert box is None
        return
    assert mask[box.slices].sum() == mask.sum()
    inside = mask[box.slices]
    for axis in range(3):
        assert np.take(inside, 0, axis).any()
        assert np.take(inside, -1, axis).any()


@given(st.data())
def test_the_middle_voxel_is_in_the_mask_and_of_a_block_in_its_middle(data):
    shape = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
    bits = data.draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    mask = np.array(bits).reshape(shape)
    middle = middle_voxel_kji(mask)
    assert (middle is None) == (not mask.any())
    assert middle is None or mask[middle]
    block = np.zeros((9, 9, 9), bool)
    block[1:4, 3:8, 2:5] = True
    assert middle_voxel_kji(block) == (2, 5, 3)


def test_a_margin_in_millimetres_is_rounded_up_to_voxels_and_kept_within_the_image():
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[5, 5, 5] = 3
    box = bounding_box(mask, margin_mm=3.0, spacing_kji_mm=(3.0, 2.0, 0.5))
    assert box == Box((4, 3, 0), (7, 8, 10))
