import json

import numpy as np
import pytest
from knee_phantoms import knee_label_map

from KneeAnalysisLib.labels import (
    CANONICAL,
    FEMORAL_REGIONS,
    NATIVE,
    REGIONS,
    LabelScheme,
    Tissue,
    label_scheme,
    other_labels,
    scheme_from_keys,
    scheme_notes,
    to_canonical,
)
from MedAILib.errors import FileMissing, InputError, UnreadableFile
from MedAILib.volume import LabelMap, SegmentInfo


def label_map_of(*layers, segments):
    return LabelMap(tuple(np.array(layer, dtype=np.uint8).reshape(1, 1, -1) for layer in layers), np.eye(4), segments)


def plain(*values):
    segments = tuple(SegmentInfo(f"Segment_{v}", f"Segment_{v}", v) for v in sorted(set(values) - {0}))
    return label_map_of(values, segments=segments)


def test_native_labels_become_canonical_ones():
    result = to_canonical(plain(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), NATIVE)
    assert result.layers[0].ravel().tolist() == [0, 7, 4, 5, 6, 8, 9, 1, 2, 3]
    assert result.segment("femur").label_value == 1


def test_canonical_labels_stay_as_they_are():
    result = to_canonical(plain(0, 1, 5, 9, 10), CANONICAL)
    assert result.layers[0].ravel().tolist() == [0, 1, 5, 9, 10]


@pytest.mark.parametrize(("scheme", "cartilage"), [(CANONICAL, 4), (NATIVE, 2)])
def test_sub_regions_of_an_earlier_run_are_femoral_cartilage(scheme, cartilage):
    assert to_canonical(plain(cartilage, 11, 12, 13, 14, 15), scheme).layers[0].ravel().tolist() == [4] * 6


def test_labels_far_above_the_schemes_are_left_out():
    layer = np.array([1, 2**31, 65535, 0], dtype=np.uint32).reshape(1, 1, -1)
    segments = (SegmentInfo("femur", "Femur", 1), SegmentInfo("odd", "Odd", 2**31))
    result = to_canonical(LabelMap((layer,), np.eye(4), segments), CANONICAL)
    assert result.layers[0].ravel().tolist() == [1, 0, 0, 0]


def test_a_labels_file_names_values_lists_of_values_and_segments(tmp_path):
    path = tmp_path / "Etiketten für Knie.json"
    path.write_text(json.dumps({"femur": 5, "tibia": [6, 8], "patella": "Kneecap"}), encoding="utf-8")
    segments = (
        SegmentInfo("a", "Femur", 5), SegmentInfo("b", "Tibia", 6), SegmentInfo("c", "Chip", 8),
        SegmentInfo("d", "Kneecap", 9),
    )  # fmt: skip
    result = to_canonical(label_map_of([5, 6, 8, 9, 0], segments=segments), label_scheme(path))
    assert result.layers[0].ravel().tolist() == [1, 2, 2, 3, 0]


def test_labels_that_the_scheme_does_not_name_are_left_out_and_listed():
    label_map = plain(1, 77)
    assert to_canonical(label_map, CANONICAL).layers[0].ravel().tolist() == [1, 0]
    assert [info.label_value for info in other_labels(label_map, CANONICAL)] == [77]


def test_labels_that_are_not_there_and_bones_without_a_label_are_said():
    label_map = plain(1, 5, 6)
    notes = scheme_notes(label_map, scheme_from_keys({"femur": 55, "tibia": [6, "Chip"], "femoral_cartilage": 1}))
    assert len(notes) == 2
    assert "femur 55, tibia Chip" in notes[0]
    assert "is patella:" in notes[1] and "no thickness" in notes[1]
    whole = scheme_from_keys({"femur": 1, "tibia": 5, "patella": 6}, "mine")
    assert scheme_notes(label_map, whole) == scheme_notes(label_map, CANONICAL) == scheme_notes(label_map, NATIVE) == ()


def test_where_segments_overlap_cartilage_is_kept_before_meniscus_and_bone():
    segments = (
        SegmentInfo("bone", "bone", 1, 0), SegmentInfo("cartilage", "cartilage", 1, 1),
        SegmentInfo("meniscus", "meniscus", 1, 2),
    )  # fmt: skip
    label_map = label_map_of([1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1], segments=segments)
    scheme = scheme_from_keys({"femur": "bone", "femoral_cartilage": "cartilage", "medial_meniscus": "meniscus"})
    assert to_canonical(label_map, scheme).layers[0].ravel().tolist() == [4, 4, 8, 8]


def test_a_value_that_means_segments_of_several_layers_is_refused():
    segments = (SegmentInfo("a", "a", 1, 0), SegmentInfo("b", "b", 1, 1))
    with pytest.raises(InputError, match="means 2 segments"):
        to_canonical(label_map_of([1], [1], segments=segments), CANONICAL)


def test_a_label_map_without_any_of_the_labels_says_what_it_holds():
    with pytest.raises(InputError, match=r"33 \(Segment_33\)"):
        to_canonical(plain(0, 33), CANONICAL)


def test_one_label_cannot_be_two_tissues():
    with pytest.raises(InputError, match="label 5 to both femur and tibia"):
        LabelScheme("mine", {Tissue.FEMUR: (5,), Tissue.TIBIA: (5,)})


@pytest.mark.parametrize(
    "content", [{}, [], {"thigh": 1}, {"femur": []}, {"femur": 0}, {"femur": True}, {"femur": 1.5}, {"femur": ""}]
)
def test_a_scheme_of_no_use_is_refused(content):
    with pytest.raises(InputError):
        scheme_from_keys(content)


def test_a_missing_or_damaged_labels_file_is_named(tmp_path):
    with pytest.raises(FileMissing):
        label_scheme(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(UnreadableFile):
        label_scheme(broken)


def test_the_result_regions_carry_the_reference_pipelines_names_and_values():
    assert {region.key: region.value for region in REGIONS} == {
        "pat_cart": 7, "fem_cart": 4, "med_tib_cart": 5, "lat_tib_cart": 6, "ant_fem_cart": 11,
        "med_wb_fem_cart": 12, "lat_wb_fem_cart": 13, "med_post_fem_cart": 14, "lat_post_fem_cart": 15,
    }  # fmt: skip
    whole = next(region for region in REGIONS if region.key == "fem_cart")
    assert set(whole.members) == {4} | {region.value for region in FEMORAL_REGIONS}


def test_the_shared_labels_file_is_read_as_it_is(shared_data):
    scheme = label_scheme(shared_data("knee/dess_labels.json"))
    assert scheme.labels[Tissue.LATERAL_MENISCUS] == (9,) and scheme.labels[Tissue.FIBULA] == (8,)


def test_names_are_kept_on_the_canonical_map():
    assert to_canonical(knee_label_map(), CANONICAL).name == "phantom knee"
