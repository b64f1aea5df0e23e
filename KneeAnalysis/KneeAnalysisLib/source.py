"""Files of a knee as values: an image, a label map, a series with several echoes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from KneeAnalysisLib.echoes import EchoKind, EchoSeries, read_echoes, root_sum_of_squares
from MedAILib.errors import DicomError, InputError, UnreadableFile
from MedAILib.imageio import read_label_map, read_volume
from MedAILib.volume import LabelMap, Volume

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class KneeFiles:
    """What was read.

    Attributes
    ----------
    image : Volume or None
        Of a series with several echoes the root of their sum of squares.
    label_map : LabelMap or None
    echoes : EchoSeries or None
    """

    image: Volume | None = None
    label_map: LabelMap | None = None
    echoes: EchoSeries | None = None


def read_knee(
    source: PathLike,
    *,
    segmentation: PathLike | None = None,
    t2: PathLike | None = None,
    is_label_map: bool = False,
) -> KneeFiles:
    """Read the files of a knee.

    Parameters
    ----------
    source : path
        A volume, a DICOM folder or file, or a label map.
    segmentation : path, optional
        A label map or ``.seg.nrrd``.
    t2 : path, optional
        DICOM folder of the series with several echoes, where it is not the source.
    is_label_map : bool
        The source is the segmentation.

    Raises
    ------
    FileMissing
    DicomError
        A DICOM folder or file is damaged, incomplete, or holds no image.
    UnreadableFile, InputError
        See `MedAILib.imageio`.
    """
    echoes = None if t2 is None else read_echo_folder(t2)
    if is_label_map:
        return KneeFiles(label_map=read_label_map(source), echoes=echoes)
    path = Path(source)
    image = None
    if echoes is None and path.is_dir():
        echoes = _echoes_if_any(path)
        image = None if echoes is None else _as_image(echoes)
    if image is None:
        image = _volume(path)
    return KneeFiles(image, None if segmentation is None else read_label_map(segmentation), echoes)


def _volume(path: Path) -> Volume:
    try:
        return read_volume(path)
    except UnreadableFile as error:
        raise _as_dicom_error(error, path) from error


def read_echo_folder(path: PathLike) -> EchoSeries:
    """The series with several echoes in a DICOM folder.

    Raises
    ------
    FileMissing, DicomError, InputError
        See `KneeAnalysisLib.echoes.read_echoes`.
    """
    try:
        return read_echoes(path)
    except UnreadableFile as error:
        raise _as_dicom_error(error, Path(path)) from error


def _echoes_if_any(path: Path) -> EchoSeries | None:
    """The series with several echoes that a folder holds; None where it holds an ordinary series."""
    try:
        return read_echoes(path)
    except UnreadableFile as error:
        raise _as_dicom_error(error, path) from error
    except InputError:
        return None


def _as_image(echoes: EchoSeries) -> Volume:
    """What to segment: both echoes of qDESS together, the first echo of spin echo."""
    return root_sum_of_squares(echoes) if echoes.kind is EchoKind.QDESS else echoes.echoes[0]


def _as_dicom_error(error: UnreadableFile, path: Path) -> UnreadableFile:
    if not (path.is_dir() or path.suffix.lower() in (".dcm", ".ima", "")) or isinstance(error, DicomError):
        return error
    return DicomError(error.what, why=error.why, todo=error.todo)
