from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from knee_phantoms import knee_label_map, without

from KneeAnalysisLib.knee import AXES, knee_from
from KneeAnalysisLib.labels import BONES, CARTILAGES, MENISCI, Tissue
from KneeAnalysisLib.side import Side
from MedAILib.errors import GeometryMismatch, InputError
from MedAILib.grids import Box, cropped, reoriented
from MedAILib.volume import LabelMap, Volume

ORIENTATIONS = ["".join(a) for order in permutations(("RL", "AP", "SI")) for a in product(*order)]


@pytest.fixture(scope="module")
def label_map():
    return knee_label_map()


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_every_orientation_gives_the_same_knee_and_goes_back_exactly(label_map, axes):
    turned = reoriented(label_map, axes)
    knee, expected = knee_from(turned), knee_from(label_map)
    assert len(ORIENTATIONS) == 48
    assert np.array_equal(knee.labels, expected.labels) and knee.geometry.same_grid_as(expected.geometry)
    assert knee.side is Side.RIGHT
    back = knee.undone(knee.label_map())
    assert np.array_equal(back.layers[0], turned.layers[0]) and back.geometry.same_grid_as(turned.geometry, 1e-9)


@given(st.lists(st.floats(-0.6, 0.6), min_size=3, max_size=3))
def test_an_oblique_grid_is_turned_to_the_closest_axes_and_keeps_its_place(angles):
    from scipy.spatial.transform import Rotation

    straight = knee_label_map(spacing_kji_mm=(1.5, 1.5, 1.5))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(angles).as_matrix()
    tilted = LabelMap(straight.layers, matrix @ straight.ijk_to_ras, straight.segments)
    knee = knee_from(tilted)
    assert knee.voxels == knee_from(straight).voxels
    femur = np.argwhere(tilted.layers[0] == Tissue.FEMUR).mean(axis=0)[::-1]
    found = np.argwhere(knee.mask(Tissue.FEMUR)).mean(axis=0)[::-1]
    place = tilted.ijk_to_ras @ [*femur, 1]
    assert np.allclose(knee.geometry.ijk_to_ras @ [*found, 1], place, atol=1e-6)


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(
    "erased", [(), CARTILAGES, (Tissue.MEDIAL_TIBIAL_CARTILAGE,), (*BONES, *CARTILAGES)], ids=str
)  # fmt: skip
def test_the_side_is_found_from_cartilages_or_else_menisci(side, erased):
    assert knee_from(without(knee_label_map(side), *erased)).side is side


def test_the_fibula_tells_the_side_where_nothing_else_does(label_map):
    labels = without(label_map, *CARTILAGES, *MENISCI).layers[0].copy()
    labels[-3:, -10:, 10:20] = Tissue.FIBULA
    from MedAILib.volume import SegmentInfo

    segments = (*label_map.segments, SegmentInfo("fibula", "Fibula", 10))
    assert knee_from(LabelMap((labels,), label_map.ijk_to_ras, segments)).side is Side.RIGHT


def test_an_unknown_side_is_said_and_a_given_one_taken(label_map):
    bones = without(label_map, *CARTILAGES, *MENISCI)
    unknown = knee_from(bones)
    assert unknown.side is None and any("left or a right" in note for note in unknown.notes)
    assert knee_from(bones, side="left").side is Side.LEFT


def test_a_given_side_that_contradicts_the_labels_is_taken_and_noted(label_map):
    knee = knee_from(label_map, side=Side.LEFT)
    assert knee.side is Side.LEFT and "by its labels this is a right knee" in knee.notes[0]


def test_labels_read_with_the_wrong_scheme_are_refused(label_map):
    with pytest.raises(InputError, match="not those of the scheme 'native'"):
        knee_from(label_map, "native")


def test_the_real_map_is_refused_in_both_standard_schemes_and_read_with_its_file(shared_data):
    from MedAILib.imageio import read_label_map

    label_map = read_label_map(shared_data("knee/SAG_3D_DESS_RIGHT_label.nrrd"))
    for scheme in ("native", "canonical"):
        with pytest.raises(InputError, match="not those of the scheme"):
            knee_from(label_map, scheme)
    knee = knee_from(label_map, str(shared_data("knee/dess_labels.json")))
    assert knee.side is Side.RIGHT and knee.missing == () and knee.notes == ()


def test_an_upside_down_knee_is_refused(label_map):
    matrix = np.diag([1.0, 1, -1, 1]) @ label_map.ijk_to_ras
    with pytest.raises(InputError, match="tibia would lie above"):
        knee_from(LabelMap(label_map.layers, matrix, label_map.segments))


def test_missing_tissues_are_listed(label_map):
    knee = knee_from(without(label_map, Tissue.PATELLA, *MENISCI))
    assert knee.missing == (Tissue.PATELLA, *MENISCI)
    assert knee.measurable_bones == (Tissue.FEMUR, Tissue.TIBIA)


def test_an_image_of_the_same_grid_follows_and_another_is_refused(label_map):
    axes = "LSA"
    turned = reoriented(label_map, axes)
    image = reoriented(Volume(label_map.layers[0].astype(np.float32), label_map.ijk_to_ras), axes)
    knee = knee_from(turned)
    assert np.array_equal(knee.aligned(image).array, knee.labels)
    smaller = cropped(image, Box((0, 0, 0), (5, 5, 5)))
    with pytest.raises(GeometryMismatch):
        knee.aligned(smaller)


def test_a_knee_is_read_only_and_crosses_a_process_border(label_map, tmp_path):
    from MedAILib.jobs.codec import load, save

    knee = knee_from(label_map)
    with pytest.raises(ValueError, match="read-only"):
        knee.labels[0, 0, 0] = 1
    save(knee, tmp_path)
    other = load(tmp_path, ("KneeAnalysisLib", "MedAILib"))
    assert other.side is knee.side and np.array_equal(other.labels, knee.labels) and knee.source_axes == AXES
