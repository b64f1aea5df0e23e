"""T2 maps from qDESS and multi-echo series, the real series, statistics by region."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from benchmarks.knee_t2 import ECHO_TIMES_MS, decays, magnitudes
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from KneeAnalysisLib.decay import NoiseFloor
from KneeAnalysisLib.echoes import EchoKind, EchoSeries, Protocol, read_echoes, root_sum_of_squares
from KneeAnalysisLib.labels import REGIONS, Tissue, tissue_segments
from KneeAnalysisLib.qdess import QdessFormula, qdess_t2_ms, qdess_terms
from KneeAnalysisLib.t2 import (
    TISSUE_T1_MS,
    UNIFORM_T1_MS,
    DecayFit,
    T2Options,
    background_noise_sd,
    t2_by_region,
    t2_map,
)
from MedAILib.errors import GeometryMismatch, InputError, UnreadableFile
from MedAILib.volume import LabelMap, Volume

QDESS = Protocol(20.36, 20.0, 3132.0, 1560.0)
TE_MS = 6.43


def a_qdess(t2_ms: np.ndarray, t1_ms: float, formula: QdessFormula, protocol: Protocol = QDESS) -> EchoSeries:
    """Echoes whose ratio is that of the formula."""
    first = np.full(t2_ms.shape, 500.0)
    blank = EchoSeries(
        (Volume(first, np.eye(4)), Volume(first, np.eye(4))), (TE_MS, 34.0), EchoKind.QDESS, protocol, "knee"
    )
    terms = qdess_terms(blank, t1_ms, formula)
    second = first * terms.gain * np.exp(-2.0 * (protocol.repetition_time_ms - TE_MS) / t2_ms - terms.diffusion)
    return EchoSeries(
        (Volume(first, np.eye(4)), Volume(second, np.eye(4))), (TE_MS, 34.0), EchoKind.QDESS, protocol, "knee"
    )


def a_spin_echo(t2_ms: float, snr: float, shape: tuple[int, int, int] = (4, 40, 40)) -> EchoSeries:
    """A square of tissue in air, with noise."""
    true = np.zeros((len(ECHO_TIMES_MS), *shape))
    true[:, :, 10:30, 10:30] = decays(t2_ms, 1)[:, :, None, None]
    echoes = tuple(Volume(echo.astype(np.float32), np.eye(4)) for echo in magnitudes(true, snr))
    return EchoSeries(echoes, ECHO_TIMES_MS, EchoKind.SPIN_ECHO, Protocol(2450.0, 90.0), "mese")


@pytest.fixture(scope="module")
def real_series(shared_data) -> EchoSeries:
    return read_echoes(shared_data("dicom/knee_mese_t2"))


def test_the_big_endian_series_loads_through_the_normal_dicom_path(real_series):
    assert real_series.kind is EchoKind.SPIN_ECHO
    assert real_series.echo_times_ms == pytest.approx(ECHO_TIMES_MS)
    assert real_series.geometry.shape_kji == (24, 256, 256)
    assert real_series.protocol == Protocol(2450.0, 90.0)


def test_the_real_series_has_the_known_median(real_series):
    known_ms = 36.62
    line = t2_map(real_series, T2Options(fit=DecayFit.LOG_LINEAR)).t2_ms.array
    assert np.median(line[line > 0]) == pytest.approx(known_ms, abs=0.01)
    assert np.count_nonzero(line) == 486_086
    fitted = t2_map(real_series)
    assert np.median(fitted.t2_ms.array[fitted.t2_ms.array > 0]) == pytest.approx(known_ms, abs=1.0)
    assert fitted.r2 is not None and np.median(fitted.r2.array[fitted.t2_ms.array > 0]) > 0.97


@pytest.mark.parametrize("formula", QdessFormula)
def test_qdess_gives_back_the_t2_its_echoes_were_made_of(formula):
    t2_ms = np.linspace(10.0, 80.0, 24).reshape(2, 3, 4)
    assert qdess_t2_ms(a_qdess(t2_ms, 1200.0, formula), 1200.0, formula) == pytest.approx(t2_ms, rel=1e-5)


def test_qdess_constants_are_those_of_the_published_example():
    series = a_qdess(np.full((1, 1, 1), 30.0), 1200.0, QdessFormula.SPOILED)
    assert qdess_terms(series, 1200.0, QdessFormula.SPOILED).gain == pytest.approx(0.7683, abs=5e-5)
    assert qdess_terms(series, 1200.0, QdessFormula.LOW_SPOILING).gain == pytest.approx(0.7856, abs=5e-5)


@pytest.mark.parametrize(
    ("t2_ms", "low_percent", "t1_percent"), [(10.0, -0.86, 1.5), (60.0, -4.93, 9.8), (80.0, -6.46, 13.4)]
)
def test_what_formula_and_t1_cost_is_as_stated(t2_ms, low_percent, t1_percent):
    series = a_qdess(np.full((1, 1, 1), t2_ms), 1200.0, QdessFormula.SPOILED)
    low = qdess_t2_ms(series, 1200.0, QdessFormula.LOW_SPOILING)[0, 0, 0]
    other_t1 = qdess_t2_ms(series, 1000.0, QdessFormula.SPOILED)[0, 0, 0]
    assert 100.0 * (low / t2_ms - 1.0) == pytest.approx(low_percent, abs=0.02)
    assert 100.0 * (other_t1 / t2_ms - 1.0) == pytest.approx(t1_percent, abs=0.3)


def test_qdess_uses_the_t1_of_each_tissue_and_says_so():
    labels = np.zeros((1, 1, 3), np.uint8)
    labels[0, 0] = 0, Tissue.FEMORAL_CARTILAGE, Tissue.PATELLAR_CARTILAGE
    tissues = LabelMap((labels,), np.eye(4), tissue_segments(labels))
    series = a_qdess(np.full((1, 1, 3), 40.0), 1200.0, QdessFormula.SPOILED)
    found = t2_map(series, None, tissues)
    assert found.method == "spoiled" and found.r2 is None
    assert found.t2_ms.array[0, 0, :2] == pytest.approx(40.0, rel=1e-5)
    assert found.t2_ms.array[0, 0, 2] > 42.0
    assert "patellar cartilage 1000" in found.stated and "elsewhere 1200" in found.stated
    uniform = t2_map(series, T2Options(t1_ms=UNIFORM_T1_MS), tissues)
    assert uniform.t2_ms.array == pytest.approx(40.0, rel=1e-5)
    assert set(TISSUE_T1_MS) <= set(Tissue)


def test_qdess_without_its_private_elements_falls_back_and_says_so():
    series = a_qdess(np.full((1, 1, 1), 40.0), 1200.0, QdessFormula.LOW_SPOILING, Protocol(20.36, 20.0))
    found = t2_map(series)
    assert found.method == "low_spoiling"
    assert found.t2_ms.array[0, 0, 0] == pytest.approx(40.0, rel=1e-5)
    with pytest.raises(InputError, match="0019,10B6"):
        t2_map(series, T2Options(formula=QdessFormula.SPOILED))


def test_qdess_voxels_without_a_decay_between_the_echoes_have_no_value():
    echoes = Volume(np.array([[[100.0, 0.0, 100.0]]]), np.eye(4)), Volume(np.array([[[200.0, 50.0, 0.0]]]), np.eye(4))
    series = EchoSeries(echoes, (TE_MS, 34.0), EchoKind.QDESS, QDESS)
    assert not t2_map(series).t2_ms.array.any()


def test_noise_is_measured_in_the_air_and_used():
    series = a_spin_echo(12.0, 25.0)
    assert background_noise_sd(series) == pytest.approx(1000.0 / 25.0, rel=0.1)
    tissue = (slice(None), slice(10, 30), slice(10, 30))
    aware, ignorant = (
        t2_map(series, T2Options(floor=floor)).t2_ms.array[tissue].mean()
        for floor in (NoiseFloor.RICIAN, NoiseFloor.NONE)
    )
    assert abs(aware - 12.0) < 0.3 < ignorant - 12.0


def test_tissue_up_to_the_border_is_not_taken_for_noise():
    volumes = magnitudes(decays(30.0, 4 * 20 * 20).reshape(-1, 4, 20, 20), 50.0)
    series = EchoSeries(tuple(Volume(echo, np.eye(4)) for echo in volumes), ECHO_TIMES_MS, EchoKind.SPIN_ECHO)
    assert background_noise_sd(series) == 0.0


def test_blanked_air_means_no_noise_floor():
    series = a_spin_echo(30.0, 1e9)
    blanked = tuple(Volume(np.where(echo.array > 1, echo.array, 0), np.eye(4)) for echo in series.echoes)
    clean = EchoSeries(blanked, series.echo_times_ms, series.kind)
    assert background_noise_sd(clean) == 0.0
    assert "noise floor: none" in t2_map(clean).stated


def test_skipping_the_first_echo_undoes_a_first_echo_that_is_too_low():
    true = decays(40.0, 8).reshape(len(ECHO_TIMES_MS), 2, 2, 2)
    true[0] *= 0.9
    series = EchoSeries(tuple(Volume(e, np.eye(4)) for e in true), ECHO_TIMES_MS, EchoKind.SPIN_ECHO)
    assert t2_map(series).t2_ms.array.mean() > 41.0
    assert t2_map(series, T2Options(skip_first_echo=True)).t2_ms.array == pytest.approx(40.0, rel=1e-3)


def test_too_few_echoes_for_an_offset_are_refused():
    echoes = tuple(Volume(np.ones((1, 1, 1)), np.eye(4)) for _ in range(3))
    series = EchoSeries(echoes, (10.0, 20.0, 30.0), EchoKind.SPIN_ECHO)
    with pytest.raises(InputError, match="needs 4 echoes"):
        t2_map(series, T2Options(floor=NoiseFloor.OFFSET))


def test_statistics_leave_out_values_beyond_the_range_and_read_labels_of_another_grid():
    t2_ms = np.zeros((1, 1, 4))
    t2_ms[0, 0] = 30.0, 40.0, 90.0, 35.0  # the third is over the statistics' limit, not the map's
    series = EchoSeries(
        tuple(Volume(500.0 * np.exp(-te / t2_ms), np.eye(4)) for te in (10.0, 20.0)), (10.0, 20.0), EchoKind.SPIN_ECHO
    )
    labels = np.zeros((1, 1, 4), np.uint8)
    labels[0, 0] = 12, 12, 12, 7
    finer = np.repeat(labels, 2, axis=2)
    half = np.diag([0.5, 1.0, 1.0, 1.0])
    half[0, 3] = -0.25
    for array, matrix in ((labels, np.eye(4)), (finer, half)):
        found = {s.key: s for s in t2_by_region(t2_map(series), LabelMap((array,), matrix, ()), REGIONS)}
        assert set(found) == {"pat_cart", "fem_cart", "med_wb_fem_cart"}
        whole = found["med_wb_fem_cart"]
        assert (whole.voxels, whole.used) == (3, 2)
        assert whole.mean_ms == pytest.approx(35.0, abs=0.01)
        assert whole.std_ms == pytest.approx(5.0, abs=0.01)
        assert found["fem_cart"].mean_ms == whole.mean_ms


def test_echoes_must_share_their_grid_and_rise_in_time():
    volume = Volume(np.ones((2, 2, 2)), np.eye(4))
    with pytest.raises(GeometryMismatch):
        EchoSeries((volume, Volume(np.ones((2, 2, 3)), np.eye(4))), (10.0, 20.0), EchoKind.SPIN_ECHO)
    with pytest.raises(InputError, match="order"):
        EchoSeries((volume, volume), (20.0, 10.0), EchoKind.SPIN_ECHO)
    with pytest.raises(InputError, match="two echoes"):
        EchoSeries((volume,) * 3, (10.0, 20.0, 30.0), EchoKind.QDESS)
    with pytest.raises(InputError, match="at least two"):
        EchoSeries((volume,), (10.0,), EchoKind.SPIN_ECHO)


@pytest.mark.parametrize("second_te_ms", [34.29, TE_MS])
def test_a_qdess_series_is_read_with_its_private_elements(tmp_path, second_te_ms):
    write_qdess(tmp_path / "série 1", (TE_MS, second_te_ms))
    series = read_echoes(tmp_path / "série 1")
    assert series.kind is EchoKind.QDESS
    assert series.protocol == QDESS
    assert series.echo_times_ms == (TE_MS, second_te_ms)
    assert [int(echo.array.max()) for echo in series.echoes] == [300, 400]
    assert root_sum_of_squares(series).array == pytest.approx(500.0)


def test_private_elements_of_another_maker_are_not_taken_for_the_spoiler(tmp_path):
    write_qdess(tmp_path, (TE_MS, 34.29), creator="SOMEONE ELSE")
    assert not read_echoes(tmp_path).spoiler_known


def test_a_folder_without_several_echoes_is_refused(tmp_path, shared_data):
    with pytest.raises(UnreadableFile):
        read_echoes(tmp_path)
    with pytest.raises(InputError, match="no series of several echoes"):
        read_echoes(shared_data("dicom/mr_hippocrop"))


def test_two_series_of_echoes_need_a_choice(tmp_path):
    write_qdess(tmp_path, (TE_MS, 34.29), number=3)
    write_qdess(tmp_path, (TE_MS, 34.29), number=4)
    with pytest.raises(InputError, match=r"'3'.*'4'"):
        read_echoes(tmp_path)
    assert read_echoes(tmp_path, series="4").kind is EchoKind.QDESS


def write_qdess(folder, echo_times_ms, *, creator: str = "GEMS_ACQU_01", number: int = 5) -> None:
    """Two echoes of three slices, values 300 and 400."""
    folder.mkdir(exist_ok=True)
    series_uid = generate_uid()
    for echo, (te_ms, value) in enumerate(zip(echo_times_ms, (300, 400), strict=True), start=1):
        for k in range(3):
            dataset = pydicom.Dataset()
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.Modality = series_uid, number, "MR"
            dataset.EchoTime, dataset.EchoNumbers = te_ms, echo
            dataset.RepetitionTime, dataset.FlipAngle = 20.36, 20
            dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 1.5 * k], [1, 0, 0, 0, 1, 0]
            dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.5], 1.5
            private = dataset.private_block(0x0019, creator, create=True)
            private.add_new(0xB6, "DS", "3132")
            private.add_new(0xB7, "DS", "1560")
            dataset.Rows = dataset.Columns = 4
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.BitsAllocated = dataset.BitsStored = 16
            dataset.HighBit, dataset.PixelRepresentation = 15, 0
            dataset.PixelData = np.full((4, 4), value, np.uint16).tobytes()
            dataset.save_as(folder / f"{number}-{echo}-{k}.dcm", enforce_file_format=True)
