"""Whatever happens to a file's bytes, reading it gives an image or an error of ours, nothing else."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from dicom_files import a_slice, an_enhanced_file, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from MedAILib.errors import InputError
from MedAILib.imageio import read_label_map, read_volume, write_label_map, write_volume
from MedAILib.volume import LabelMap, SegmentInfo, Volume

HEADER_BYTES = 700
NAMES = ["i.nii", "i.nii.gz", "i.nrrd", "i.nhdr", "i.mha", "i.mhd", "s.seg.nrrd", "slice.dcm", "frames.dcm"]
VOLUME = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([-1.0, -1.0, 2.0, 1.0]))


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    layers = ((VOLUME.array % 3).astype(np.uint8), (VOLUME.array % 2).astype(np.uint8))
    segments = (SegmentInfo("a", "A", 1), SegmentInfo("b", "B", 1, 1))
    for name in NAMES:
        if name.endswith(".seg.nrrd"):
            write_label_map(LabelMap(layers, VOLUME.ijk_to_ras, segments), folder / name)
        elif not name.endswith(".dcm"):
            write_volume(VOLUME, folder / name)
    save(a_slice(VOLUME, 0), folder / "slice.dcm")
    save(an_enhanced_file(VOLUME, [0, 1, 2]), folder / "frames.dcm")
    return folder


@pytest.fixture
def quiet(caplog):
    """Warnings about the damage are as many as the examples."""
    caplog.set_level(logging.CRITICAL)


@pytest.mark.usefixtures("quiet")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    changes=st.lists(st.tuples(st.integers(0, HEADER_BYTES), st.integers(0, 255)), min_size=1, max_size=5),
    length=st.one_of(st.none(), st.integers(0, HEADER_BYTES)),
)
def test_changed_and_missing_bytes_are_an_error_of_ours_or_no_harm(name, sound_files, tmp_path, changes, length):
    raw = bytearray((sound_files / name).read_bytes())
    for at, byte in changes:
        raw[at % len(raw)] = byte
    (tmp_path / name).write_bytes(raw[:length])
    for companion in sound_files.glob("i.raw*"):
        (tmp_path / companion.name).write_bytes(companion.read_bytes())
    for read in (read_volume, read_label_map):
        try:
            image = read(tmp_path / name)
        except InputError as error:
            assert error.what
        else:
            assert len(image.geometry.shape_kji) == 3
