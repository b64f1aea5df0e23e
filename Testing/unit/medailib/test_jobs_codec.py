"""Values to files and back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum, Flag, IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from MedAILib.errors import JobError, OutputError
from MedAILib.jobs import codec
from MedAILib.volume import LabelMap, SegmentInfo, Volume

HERE = frozenset({__name__.partition(".")[0], "MedAILib"})


class Colour(Enum):
    RED = "r"
    BLUE = ("b", 1)


class Level(IntEnum):
    LOW = 1


class Bits(Flag):
    A = 1
    B = 2


@dataclass(frozen=True, eq=False)
class Anything:
    value: Any
    other: Any = None


class NotADataclass:
    pass


def _assert_same(a: Any, b: Any) -> None:
    """Equal to the last bit, types included; arrays by dtype, shape and bytes."""
    if isinstance(a, np.ndarray):
        assert isinstance(b, np.ndarray)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()
    elif is_dataclass(a):
        assert type(a) is type(b)
        for field in fields(a):
            _assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, (list, tuple)):
        assert type(a) is type(b)
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            _assert_same(x, y)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            _assert_same(a[key], b[key])
    elif isinstance(a, float) and math.isnan(a):
        assert math.isnan(b)
    else:
        assert type(a) is type(b)
        assert a == b
        assert str(a) == str(b)  # tells -0.0 from 0.0


def _round_trip(value: Any, folder: Path, *, memory_map: bool = True) -> Any:
    codec.save(value, folder)
    return codec.load(folder, HERE, memory_map=memory_map)


_arrays = hnp.arrays(
    dtype=st.sampled_from(["?", "i1", "u1", "<i2", ">i2", "u4", "i8", "f2", "<f4", ">f8", "c8"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map(Path),
    st.sampled_from([*Colour, *Level]),
    _arrays,
)
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(), inner, max_size=3),
        st.builds(Anything, inner, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(value=_values, memory_map=st.booleans())
def test_every_plain_value_comes_back_the_same(
    value: Any, memory_map: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("värde 漢")
    _assert_same(value, _round_trip(value, folder, memory_map=memory_map))


def test_volumes_and_label_maps_come_back_the_same(tmp_path: Path) -> None:
    matrix = np.array([[0, 0.5, 0, -3], [-0.7, 0, 0, 2], [0, 0, 3, 1], [0, 0, 0, 1]])
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    info = SegmentInfo("s1", "Leber", 3, tags={"TerminologyEntry": "~SCT^1^x~"})
    value = (Volume(labels.astype(np.int16), matrix, "CT"), LabelMap((labels, labels[::-1]), matrix, (info,), "L"))
    _assert_same(value, _round_trip(value, tmp_path))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(60).reshape(3, 4, 5)[::2, ::-1, 1:],
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.broadcast_to(np.float32(2), (3, 2)),
        np.zeros((0, 5), dtype=bool),
        np.array(7, dtype=np.int16),
    ],
    ids=["slices", "Fortran order", "broadcast", "no elements", "no dimensions"],
)
def test_arrays_of_any_layout_keep_their_bits(array: np.ndarray, tmp_path: Path) -> None:
    _assert_same(array, _round_trip(array, tmp_path))


def test_large_arrays_are_memory_mapped_and_read_only(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(100, 1000))
    found = _round_trip(array, tmp_path)
    assert isinstance(found.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1
    _assert_same(array, found)


def test_arrays_read_into_memory_outlive_their_folder(tmp_path: Path) -> None:
    array = np.arange(100_000)
    found = _round_trip(array, tmp_path, memory_map=False)
    for file in tmp_path.iterdir():
        file.unlink()
    assert not isinstance(found.base, np.memmap)
    _assert_same(array, found)


def test_arrays_are_not_in_the_json(tmp_path: Path) -> None:
    codec.save(Anything(np.zeros(50_000)), tmp_path)
    assert (tmp_path / codec.VALUE_FILE).stat().st_size < 200


def test_numpy_scalars_become_python_numbers(tmp_path: Path) -> None:
    found = _round_trip([np.int16(3), np.float64(0.1), np.bool_(True)], tmp_path)
    _assert_same(found, [3, 0.1, True])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Anything((1, {"a": {2}})), r"value\.value\[1\]\['a'\] is a builtins.set"),
        (Anything(NotADataclass()), "NotADataclass"),
        (Anything(print), "builtin"),
        (Anything(int), "builtins.type"),
        (Anything(Anything), "builtins.type"),
        ({1: 2}, "key 1"),
        (np.array([object()]), "array of object"),
        (np.array(["text"]), "array of <U4"),
        (Bits.A | Bits.B, "combination of flags"),
    ],
)
def test_what_is_not_a_plain_value_is_refused_with_its_place(value: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=why):
        codec.save(value, tmp_path)


def test_a_class_that_no_other_process_can_import_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Local:
        value: int

    with pytest.raises(JobError, match="no other process can import"):
        codec.save(Local(1), tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        {"$class": "subprocess:Popen", "fields": {"args": "true"}},
        {"$class": "pathlib:Path", "fields": {}},
        {"$class": "MedAILib.volume:np.ndarray", "fields": {}},
        {"$class": "MedAILib.jobs.codec:importlib.import_module", "fields": {"name": "antigravity"}},
        {"$class": "MedAILib.errors:MedAIError", "fields": {"what": "x"}},
        {"$class": "MedAILib.jobs.process:WorkerProcess", "fields": {}},
        {"$class": "MedAILib.volume:Volume", "fields": {"surprise": 1}},
        {"$class": "MedAILib.volume:NotThere", "fields": {}},
        {"$enum": "MedAILib.volume:Volume", "name": "array"},
        {"$enum": "MedAILib.jobs.runner:JobState", "name": "mro"},
        {"$array": "../secret.npy"},
        {"$array": "/etc/passwd"},
        {"$array": "missing.npy"},
        {"$array": 3},
        {"$call": "os:system"},
        {"$enum": "MedAILib.jobs.runner:JobState"},
        {"$class": "MedAILib.volume:Volume", "fields": {}},
        {"$class": "MedAILib.volume:Volume"},
        {"$tuple": 1},
        {},
    ],
)
def test_nothing_but_trusted_dataclasses_and_enums_is_built(data: Any, tmp_path: Path) -> None:
    (tmp_path / codec.VALUE_FILE).write_text(json.dumps(data), encoding="ascii")
    with pytest.raises(JobError, match="could not be read"):
        codec.load(tmp_path, HERE)


def test_pickled_arrays_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / codec.VALUE_FILE).write_text('{"$array": "0.npy"}', encoding="ascii")
    with pytest.raises(JobError, match="could not be read"):
        codec.load(tmp_path, HERE)


def test_a_folder_without_values_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="could not be read"):
        codec.load(tmp_path / "nowhere", HERE)


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    with pytest.raises(OutputError, match="could not be written"):
        codec.save(1, tmp_path / "file" / "folder")


def test_a_task_trusts_its_own_package_and_the_shared_library() -> None:
    assert codec.trusted_packages("SomeLib.part.task:Task") == {"SomeLib", "MedAILib"}
