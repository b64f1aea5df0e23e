"""Picture and DICOM files written for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1.1"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * b"0" + b"\nsize 1234\n"


def a_ramp(rows: int = 20, columns: int = 30) -> np.ndarray:
    """Grey values 0..255 that grow downwards and to the right; no two corners are the same."""
    row, column = np.mgrid[:rows, :columns]
    return ((row * 180) // (rows - 1) + (column * 75) // (columns - 1)).astype(np.uint8)


def save_picture(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def save_radiograph(path: Path, pixels: np.ndarray, **attributes: Any) -> Path:
    """A digital radiograph, or with three or four dimensions several frames or colours, as a DICOM file."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = RADIOGRAPH
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "DX"
    is_colour = attributes.get("PhotometricInterpretation") == "RGB"
    dataset.SamplesPerPixel = 3 if is_colour else 1
    if is_colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    frames, (dataset.Rows, dataset.Columns) = (
        pixels.shape[: -3 if is_colour else -2],
        pixels.shape[-3:-1] if is_colour else pixels.shape[-2:],
    )
    if frames:
        dataset.NumberOfFrames = frames[0]
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
