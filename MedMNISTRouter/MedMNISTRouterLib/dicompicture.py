"""DICOM files as single pictures: radiographs, ultrasound, photographs, or one slice as it was stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedAILib.errors import DicomError
from MedAILib.formats.dicomslice import damage
from MedMNISTRouterLib.picture import Picture, grey_where_grey
from MedMNISTRouterLib.picturefile import chosen_frames
from MedMNISTRouterLib.request import PlainImage

if TYPE_CHECKING:
    import pydicom

_PLANES = ("sagittal", "coronal", "axial")
_NO_WINDOW = "It states no window: its darkest and its brightest pixel are black and white."


def read_dicom_picture(path: Path, frame: int | None = None) -> tuple[Picture, ...]:
    """Read a DICOM file as pictures.

    Parameters
    ----------
    path : Path
    frame : int, optional
        From 1; 0: all of them. Default: the first, and a note says so.

    Returns
    -------
    tuple of Picture
        Grey ones in the units of the modality (rescaled, MONOCHROME1 turned into light on dark) with the window
        that the file states; colour ones as RGB.

    Raises
    ------
    DicomError
        It holds no image, is damaged, or its compression is not known here.
    InputError
        There is no such frame.
    """
    import pydicom

    try:
        dataset = pydicom.dcmread(path, force=True)
        if "Rows" not in dataset or "PixelData" not in dataset:
            kind = getattr(dataset.get("SOPClassUID"), "name", "DICOM object")
            raise DicomError(f"'{path}' holds no image.", why=f"It is a {kind}.")
        count = int(dataset.get("NumberOfFrames") or 1)
        chosen, notes = chosen_frames(path, count, frame)
        return tuple(_picture(dataset, path, index, count, notes) for index in chosen)
    except damage() as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise DicomError(
            f"The pixels of '{path}' could not be read.",
            why=f"The file is damaged, truncated or of an unknown encoding ({reason}).",
            todo="Export the image again, uncompressed if you can.",
        ) from error


def _picture(dataset: pydicom.Dataset, path: Path, index: int, count: int, notes: tuple[str, ...]) -> Picture:
    name = path.name if count == 1 else f"{path.name} [{index + 1}]"
    stored = _stored(dataset, path, index)
    modality, plane = str(dataset.get("Modality", "")), _plane(dataset)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR" and stored.ndim == 2:
        from pydicom.pixels import apply_color_lut

        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return Picture(PlainImage(name, grey_where_grey(_eight_bit(stored)), None, modality, plane), notes)
    pixels, value_range, said = _grey(dataset, stored)
    return Picture(PlainImage(name, pixels, value_range, modality, plane), (*notes, *said))


def _stored(dataset: pydicom.Dataset, path: Path, index: int) -> np.ndarray:
    """Stored values of a frame, colours as RGB."""
    from pydicom.pixels import pixel_array
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:  # a file without a preamble
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    try:
        return np.asarray(pixel_array(dataset, index=index))
    except (RuntimeError, NotImplementedError):  # pydicom has no codec for it
        if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            raise
    return _through_gdcm(dataset, path, index)


def _through_gdcm(dataset: pydicom.Dataset, path: Path, index: int) -> np.ndarray:
    """A frame decoded by GDCM, its rescaling taken back."""
    import SimpleITK

    frames = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    values = np.asarray(frames[index])
    slope, intercept = float(dataset.get("RescaleSlope", 1.0)), float(dataset.get("RescaleIntercept", 0.0))
    if values.ndim == 3 or (slope, intercept) == (1.0, 0.0):
        return values
    return np.rint((values.astype(np.float64) - intercept) / slope).astype(np.int32)


def _grey(
    dataset: pydicom.Dataset, stored: np.ndarray
) -> tuple[np.ndarray, tuple[float, float] | None, tuple[str, ...]]:
    """Values light on dark, the values of black and white, and what to say about them."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    values = np.asarray(apply_modality_lut(stored, dataset))
    notes: tuple[str, ...] = ()
    if _has_curve(dataset):
        values = np.asarray(apply_voi_lut(values, dataset))
        low, high = float(values.min()), float(values.max())
    elif (window := _window(dataset)) is not None:
        low, high = window
    elif values.dtype == np.uint8:
        low, high = 0.0, 255.0
    else:
        low, high = _extremes(values, _without_padding(dataset, stored))
        notes = (_NO_WINDOW,)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        values = low + high - values.astype(np.float32)
    if values.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return values, None, notes
    return values.astype(np.float32), (low, high) if high > low else (low, low + 1.0), notes


def _has_curve(dataset: pydicom.Dataset) -> bool:
    """Whether grey levels are stated as a table or a curve rather than as a straight window."""
    straight = dataset.get("VOILUTFunction") in (None, "", "LINEAR", "LINEAR_EXACT")
    return bool(dataset.get("VOILUTSequence")) or not straight


def _window(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Black and white of the first window, DICOM PS3.3 C.11.2.1.2; None where none is stated."""
    centre, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if centre is None or width is None:
        return None
    if dataset.get("VOILUTFunction") == "LINEAR_EXACT":
        return (centre - width / 2, centre + width / 2) if width > 0 else None
    if width < 1:
        return None
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + max(width - 1, 1) / 2


def _first(value: object) -> float | None:
    if value in (None, ""):
        return None
    several = not isinstance(value, str) and hasattr(value, "__getitem__")
    return float(value[0] if several else value)  # type: ignore[index, arg-type]


def _without_padding(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    """True where a pixel is image; everywhere where that would leave nothing."""
    padding = dataset.get("PixelPaddingValue")
    kept = np.ones(stored.shape, bool) if padding is None else stored != int(padding)
    return kept if kept.any() else np.ones(stored.shape, bool)


def _extremes(values: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    return float(values[chosen].min()), float(values[chosen].max())


def _eight_bit(colours: np.ndarray) -> np.ndarray:
    """Colours as uint8; those of a palette may have 16 bit."""
    return colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)


def _plane(dataset: pydicom.Dataset) -> str:
    """The anatomical plane closest to the image's; empty where the file does not say."""
    orientation = dataset.get("ImageOrientationPatient")
    if orientation is None or len(orientation) != 6:
        return ""
    row, column = np.reshape([float(part) for part in orientation], (2, 3))
    return _PLANES[int(np.argmax(np.abs(np.cross(row, column))))]
