"""What a DICOM header says of one slice: its place, its size, its scale and what tells it from others."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from MedAILib.errors import UnreadableFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pydicom

TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
    "EchoTime",
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "TriggerTime",
    "InversionTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ContentTime",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""All that is read of a header; by name, so that nothing else is parsed."""

_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """One slice: a file, or one frame of an enhanced file.

    Attributes
    ----------
    path : Path
    frame : int
        Index of the frame in the file, 0 where it has one.
    series_uid, series_number, description, modality : str
    shape : tuple of int
        Rows, columns.
    spacing_mm : tuple of float
        Between rows, between columns, as in DICOM.
    thickness_mm : float
        Distance to the next slice as the header has it; used where there is only one slice.
    position_lps_mm : tuple of float
        Centre of the first pixel.
    row_direction, column_direction : tuple of float
        LPS unit vectors in which the column index and the row index increase.
    slope, intercept : float
    marks : mapping of str to str
        The attributes of `SPLITTERS`, as text.
    """

    SPLITTERS: ClassVar[tuple[str, ...]] = ("TE", "echo", "type", "time", "b", "trigger", "TI", "acquisition", "clock")
    """What may tell stacks of one series apart, most telling first."""

    path: Path
    frame: int
    series_uid: str
    series_number: str
    description: str
    modality: str
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    thickness_mm: float
    position_lps_mm: tuple[float, ...]
    row_direction: tuple[float, ...]
    column_direction: tuple[float, ...]
    slope: float
    intercept: float
    marks: Mapping[str, str]

    @property
    def normal(self) -> np.ndarray:
        """LPS unit vector of a right-handed stack: row direction x column direction."""
        return np.cross(self.row_direction, self.column_direction)

    @property
    def along_normal_mm(self) -> float:
        return float(self.normal @ np.asarray(self.position_lps_mm))

    @property
    def orientation_key(self) -> tuple[float, ...]:
        """Directions rounded to what the same plane has in every header."""
        return tuple(round(part, 3) + 0.0 for part in (*self.row_direction, *self.column_direction))

    @property
    def name(self) -> str:
        """The file's name, with the frame's number in a file of several."""
        return self.path.name + (f" frame {self.frame + 1}" if self.frame else "")


def damage() -> tuple[type[Exception], ...]:
    """What pydicom may raise on a damaged file."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    standard = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError)
    return (InvalidDicomError, BytesLengthException, struct.error, *standard)


def slices_of(header: pydicom.Dataset, path: Path) -> list[DicomSlice]:
    """The slices of a file.

    Raises
    ------
    UnreadableFile
        Where it holds no slices of a volume; its ``why`` says what it is.
    """
    kind = header.get("SOPClassUID")
    if "Rows" not in header or "Columns" not in header:
        raise _no_slice(path, f"it is a {getattr(kind, 'name', 'DICOM object')}, which holds no image")
    if kind == _SEGMENTATION_STORAGE:
        raise _no_slice(path, "it is a DICOM segmentation; save it as .seg.nrrd in 3D Slicer")
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise _no_slice(path, "it is a colour image")
    if "MOSAIC" in (header.get("ImageType") or ()):
        raise _no_slice(path, "its slices are laid out as a mosaic in one picture; export it as single slices")
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if frames:
        return [_slice(_Frame(header, frame), path, index) for index, frame in enumerate(frames)]
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise _no_slice(path, "it has several frames without a position for each")
    return [_slice(_Frame(header, None), path, 0)]


class _Frame:
    """Attributes of one frame: its own, else those all frames share, else the file's."""

    def __init__(self, header: pydicom.Dataset, frame: pydicom.Dataset | None) -> None:
        shared = header.get("SharedFunctionalGroupsSequence") or []
        self.header = header
        self._groups = [group for group in (frame, *shared) if group is not None]

    def get(self, name: str, default: Any = None) -> Any:
        for group in self._groups:
            for macro in group:
                if macro.VR == "SQ" and macro.value and name in macro.value[0]:
                    return macro.value[0].get(name)
        value = self.header.get(name)
        return default if value in (None, "") else value


def _slice(frame: _Frame, path: Path, index: int) -> DicomSlice:
    position, orientation = frame.get("ImagePositionPatient"), frame.get("ImageOrientationPatient")
    spacing = frame.get("PixelSpacing")
    if not (position and orientation and spacing) or len(position) != 3 or len(orientation) != 6 or len(spacing) != 2:
        raise _no_slice(path, "it does not say where it lies in the patient, as a radiograph or a secondary capture")
    directions = [float(part) for part in orientation]
    series_uid = frame.get("SeriesInstanceUID", "")
    return DicomSlice(
        path=path,
        frame=index,
        series_uid=str(series_uid),
        series_number=str(frame.get("SeriesNumber", "")),
        description=str(frame.get("SeriesDescription", "")),
        modality=str(frame.get("Modality", "")),
        shape=(int(frame.header.Rows), int(frame.header.Columns)),
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        thickness_mm=float(frame.get("SpacingBetweenSlices") or frame.get("SliceThickness") or 1.0),
        position_lps_mm=tuple(float(part) for part in position),
        row_direction=tuple(directions[:3]),
        column_direction=tuple(directions[3:]),
        slope=float(frame.get("RescaleSlope", 1.0)),
        intercept=float(frame.get("RescaleIntercept", 0.0)),
        marks=_marks(frame),
    )


def _marks(frame: _Frame) -> dict[str, str]:
    names = {
        "TE": frame.get("EchoTime", frame.get("EffectiveEchoTime")),
        "echo": frame.get("EchoNumbers"),
        "type": frame.get("ImageType"),
        "time": frame.get("TemporalPositionIdentifier", frame.get("TemporalPositionIndex")),
        "b": frame.get("DiffusionBValue"),
        "trigger": frame.get("TriggerTime"),
        "TI": frame.get("InversionTime"),
        "acquisition": frame.get("AcquisitionNumber"),
        "clock": frame.get("AcquisitionTime", frame.get("ContentTime")),
    }
    return {name: _plain(value) for name, value in names.items()}


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return "/".join(str(part) for part in value) if isinstance(value, list | tuple) or _is_multi(value) else str(value)


def _is_multi(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str | bytes)


def _no_slice(path: Path, why: str) -> UnreadableFile:
    return UnreadableFile(f"'{path}' is not a slice of a volume.", why=why)
