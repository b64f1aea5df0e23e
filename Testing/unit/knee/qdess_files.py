"""A qDESS series of a synthetic knee, written as DICOM: two echoes whose ratio is that of a known T2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from synthetic_knees import synthetic_volume

from KneeAnalysisLib.echoes import EchoKind, EchoSeries, Protocol
from KneeAnalysisLib.labels import NATIVE, to_canonical
from KneeAnalysisLib.qdess import QdessFormula, qdess_terms
from KneeAnalysisLib.t2 import TISSUE_T1_MS
from MedAILib.volume import LabelMap, Volume

PROTOCOL = Protocol(repetition_time_ms=20.36, flip_angle_deg=20.0, spoiler_area=3132.0, spoiler_time_us=1560.0)
ECHO_TIMES_MS = (6.43, 34.29)
_T1_ELSEWHERE_MS = 1200.0
_GREY = 20.0
"""Stored values of one grey value: their steps must not show in the ratio."""


def save_qdess_knee(folder: Path, t2_ms: float) -> LabelMap:
    """Write both echoes of a knee with one T2, slice by slice in one series; answers its native labels.

    The root of the sum of squares looks like the image of `synthetic_volume`.
    """
    volume, labels = synthetic_volume("LPS", seed=7)
    first = np.clip(volume.array, 1, None) * _GREY
    second = first * _ratio(labels, t2_ms)
    scale = first / np.hypot(first, second)
    folder.mkdir(parents=True)
    series_uid = generate_uid()
    for echo, array in enumerate((first * scale, second * scale), start=1):
        for k in range(len(array)):
            _slice(volume, k, array[k], echo, series_uid).save_as(folder / f"{echo}-{k}", enforce_file_format=True)
    return labels


def _ratio(labels: LabelMap, t2_ms: float) -> np.ndarray:
    """Second echo over first, from the T1 that every tissue is taken to have."""
    tissues = to_canonical(labels, NATIVE).layers[0]
    t1_ms = np.full(tissues.shape, _T1_ELSEWHERE_MS)
    for tissue, value in TISSUE_T1_MS.items():
        t1_ms[tissues == tissue] = value
    blank = Volume(np.ones((1, 1, 1)), np.eye(4))
    terms = qdess_terms(
        EchoSeries((blank, blank), ECHO_TIMES_MS, EchoKind.QDESS, PROTOCOL), t1_ms, QdessFormula.SPOILED
    )
    between_ms = 2.0 * (PROTOCOL.repetition_time_ms - ECHO_TIMES_MS[0])
    return terms.gain * np.exp(-between_ms / t2_ms - terms.diffusion)


def _slice(volume: Volume, k: int, values: np.ndarray, echo: int, series_uid: str) -> pydicom.Dataset:
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijk_to_ras
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    made = pydicom.Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = MRImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.SeriesInstanceUID, made.SeriesNumber, made.Modality = series_uid, 5, "MR"
    made.EchoTime, made.EchoNumbers, made.InstanceNumber = ECHO_TIMES_MS[echo - 1], echo, k + 1
    made.RepetitionTime, made.FlipAngle = PROTOCOL.repetition_time_ms, PROTOCOL.flip_angle_deg
    made.ImagePositionPatient = [f"{one:.8g}" for one in (matrix @ (0, 0, k, 1))[:3]]
    made.ImageOrientationPatient = [f"{one:.10g}" for one in (matrix[:3, :2] / spacing[:2]).T.ravel()]
    made.PixelSpacing, made.SliceThickness = [f"{one:.8g}" for one in spacing[1::-1]], f"{spacing[2]:.8g}"
    private = made.private_block(0x0019, "GEMS_ACQU_01", create=True)
    private.add_new(0xB6, "DS", f"{PROTOCOL.spoiler_area:g}")
    private.add_new(0xB7, "DS", f"{PROTOCOL.spoiler_time_us:g}")
    made.Rows, made.Columns = values.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 0
    made.PixelData = np.round(values).astype(np.uint16).tobytes()
    return made
