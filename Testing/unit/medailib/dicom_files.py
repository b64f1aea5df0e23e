"""DICOM series written for tests, slice by slice, with pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from MedAILib.volume import Volume

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def a_slice(volume: Volume, k: int, **attributes: Any) -> pydicom.Dataset:
    """Slice k of a volume as a data set; attributes by keyword replace what it would have, None removes."""
    dataset = _base(CT, volume, volume.array[k])
    matrix = RAS_TO_LPS @ volume.ijk_to_ras
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    dataset.ImagePositionPatient = _decimals((matrix @ (0, 0, k, 1))[:3])
    dataset.ImageOrientationPatient = _decimals((matrix[:3, :2] / spacing[:2]).T.ravel())
    dataset.PixelSpacing = _decimals((spacing[1], spacing[0]))
    dataset.SliceThickness = _decimals([spacing[2]])[0]
    dataset.InstanceNumber = k + 1
    for name, value in attributes.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    return dataset


def an_enhanced_file(volume: Volume, order: list[int], echo_times: tuple[float, ...] = ()) -> pydicom.Dataset:
    """All slices of a volume as the frames of one file, in that order; once for every echo time."""
    frames = [(k, echo) for echo in echo_times or (None,) for k in order]
    dataset = _base(ENHANCED_MR, volume, np.stack([volume.array[k] for k, _ in frames]))
    dataset.NumberOfFrames = len(frames)
    matrix = RAS_TO_LPS @ volume.ijk_to_ras
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    shared = pydicom.Dataset()
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=_decimals((matrix[:3, :2] / spacing[:2]).T.ravel()))
    shared.PixelMeasuresSequence = _item(PixelSpacing=_decimals((spacing[1], spacing[0])), SliceThickness=spacing[2])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for k, echo in frames:
        group = pydicom.Dataset()
        group.PlanePositionSequence = _item(ImagePositionPatient=_decimals((matrix @ (0, 0, k, 1))[:3]))
        if echo is not None:
            group.MREchoSequence = _item(EffectiveEchoTime=echo)
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return dataset


def save(dataset: pydicom.Dataset, path: Path, *, preamble: bool = True) -> None:
    """Write a data set; without preamble as some old archives do."""
    if preamble:
        dataset.save_as(path, enforce_file_format=True)
    else:
        del dataset.file_meta
        dataset.save_as(path, implicit_vr=True, little_endian=True)


def save_series(folder: Path, volume: Volume, *, preamble: bool = True, **attributes: Any) -> list[Path]:
    """A file for each slice, named without extension and not in their order."""
    attributes.setdefault("SeriesInstanceUID", generate_uid())
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(volume.array.shape[0]):
        path = folder / f"IM{(k * 7 + 3) % 100:02d}é"
        save(a_slice(volume, k, **attributes), path, preamble=preamble)
        paths.append(path)
    return paths


def _base(sop_class: str, volume: Volume, pixels: np.ndarray) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if pixels.ndim == 3 else ImplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.Modality = "1.2.3", 4, "CT"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    return dataset


def _item(**attributes: Any) -> Sequence:
    dataset = pydicom.Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return Sequence([dataset])


def _decimals(numbers: Any) -> list[str]:
    """As DICOM writes decimals: at most 16 characters."""
    return [pydicom.valuerep.format_number_as_ds(float(number)) for number in numbers]
