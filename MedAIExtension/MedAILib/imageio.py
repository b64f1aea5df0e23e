"""Image files as values: one way in and one way out for each of the two.

Files are known by what they hold, not by their names: NIfTI-1/2, NRRD, MetaImage, Slicer's
``.seg.nrrd``, DICOM series. Whatever is something else is named for what it is. Files are written
beside their place and moved onto it, so that a failed write leaves nothing behind.

Voxels come back bit for bit, in their own type. Matrices are exact but for NIfTI, which keeps float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from MedAILib.atomic import replacing
from MedAILib.errors import InputError, UnreadableFile
from MedAILib.filekind import FileKind, file_kind, is_folder, not_an_image
from MedAILib.formats.metaimage import read_metaimage, write_metaimage
from MedAILib.formats.nifti import read_nifti, write_nifti
from MedAILib.formats.nrrd import read_keys, write_nrrd
from MedAILib.formats.segnrrd import is_segmentation, read_segmentation, write_segmentation
from MedAILib.formats.sitkfile import read_sitk
from MedAILib.formats.voxelstream import IMAGE_LEVEL, LABEL_LEVEL
from MedAILib.palette import default_color
from MedAILib.volume import LabelMap, SegmentInfo, Volume

PathLike = str | os.PathLike[str]

SEGMENTATION_SUFFIX = ".seg.nrrd"
_SUFFIXES = (SEGMENTATION_SUFFIX, ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_MOST_LABELS = 1024
"""A label map of more values is taken for an image given by mistake."""


def read_volume(path: PathLike, *, series: str | None = None) -> Volume:
    """Read a 3D scalar image.

    Parameters
    ----------
    path : path
        A NIfTI, NRRD or MetaImage file; or a DICOM folder, or any file of a DICOM series.
    series : str, optional
        Which stack of a DICOM folder, by its key (see `MedAILib.formats.dicom.find_stacks`) or series instance
        UID; needed where the folder holds several. A file of the series chooses its own stack.

    Returns
    -------
    Volume
        In the stored voxel type (true values where the file has a scale), named after the file.

    Raises
    ------
    FileMissing, UnreadableFile
        No such file; or damaged, truncated, not an image, 2D, a time series, colour or complex.
    InputError
        Several DICOM stacks and none chosen.
    """
    place = Path(path)
    if is_folder(place):
        return _dicom(place, series)
    kind = file_kind(place)
    if kind is FileKind.DICOM:
        return _dicom(place, series)
    array, matrix = _read_array(place, kind)
    with _geometry_of(place):
        return Volume(array, matrix, name=_name(place))


def read_label_map(path: PathLike) -> LabelMap:
    """Read segments: Slicer's ``.seg.nrrd``, or any 3D image of whole numbers.

    A plain image gives a segment ``Segment_<value>`` for each label in it, in colours of our own
    palette. Labels are kept in their type where it is unsigned, else in the smallest unsigned one.

    Raises
    ------
    FileMissing, UnreadableFile
        As `read_volume`; or the values are not whole numbers, negative, or so many that it is no label map.
    """
    place = Path(path)
    kind = FileKind.DICOM if is_folder(place) else file_kind(place)
    if kind is FileKind.NRRD:
        keys = read_keys(place)
        if is_segmentation(keys):
            with _geometry_of(place):
                label_map, _ = read_segmentation(place, keys)
            layers = tuple(_as_labels(layer, place) for layer in label_map.layers)
            return replace(label_map, layers=layers, name=_name(place))
    if kind is FileKind.DICOM:
        volume = _dicom(place, None)
        array, matrix = volume.array, volume.ijk_to_ras
    else:
        array, matrix = _read_array(place, kind)
    labels = _as_labels(array, place)
    with _geometry_of(place):
        return LabelMap((labels,), matrix, _default_segments(labels, place), name=_name(place))


def write_volume(volume: Volume, path: PathLike) -> None:
    """Write an image as NIfTI, NRRD or MetaImage, by the path's suffix.

    Raises
    ------
    InputError
        Unknown suffix, or a voxel type the format cannot hold.
    OutputError
        Folder missing, no permission, disk full; nothing half-written is left behind.
    """
    suffix = _suffix(path)
    if suffix == SEGMENTATION_SUFFIX:
        raise InputError(
            f"'{path}' would be taken for a segmentation.",
            todo="Give an image another suffix, such as .nrrd or .nii.gz.",
        )
    with replacing(path) as partial:
        _write_array(partial, volume.array, volume.ijk_to_ras, suffix, IMAGE_LEVEL)


def write_label_map(label_map: LabelMap, path: PathLike) -> None:
    """Write segments: with names, colours and tags as ``.seg.nrrd``, their labels alone in any other format.

    Raises
    ------
    InputError
        Unknown suffix; or segments that overlap, or share a label, where the format has one layer only.
    OutputError
        Folder missing, no permission, disk full; nothing half-written is left behind.
    """
    suffix = _suffix(path)
    if suffix != SEGMENTATION_SUFFIX and len(label_map.layers) > 1:
        raise InputError(
            f"'{path}' cannot hold these segments.",
            why=f"They overlap, and a {suffix} file has one label per voxel.",
            todo=f"Save them as {SEGMENTATION_SUFFIX}.",
        )
    with replacing(path) as partial:
        if suffix == SEGMENTATION_SUFFIX:
            write_segmentation(partial, label_map)
        else:
            _write_array(partial, label_map.layers[0], label_map.ijk_to_ras, suffix, LABEL_LEVEL)


def _dicom(path: Path, series: str | None) -> Volume:
    from MedAILib.formats.dicom import read_dicom

    return read_dicom(path, series=series)


@contextmanager
def _geometry_of(path: Path) -> Iterator[None]:
    """What is wrong with an image as a value, said of the file it came from."""
    try:
        yield
    except UnreadableFile:
        raise
    except InputError as error:
        why = f"{error.what} {error.why}".strip()
        raise UnreadableFile(f"'{path}' cannot be used.", why=why, todo=error.todo) from error


def _read_array(path: Path, kind: FileKind) -> tuple[np.ndarray, np.ndarray]:
    if kind is FileKind.NIFTI:
        return read_nifti(path)
    if kind is FileKind.METAIMAGE:
        return read_metaimage(path)
    if kind is FileKind.NRRD:
        return read_sitk(path)
    raise not_an_image(path, kind)


def _write_array(path: Path, array: np.ndarray, matrix: np.ndarray, suffix: str, level: int) -> None:
    if suffix in (".nii", ".nii.gz"):
        write_nifti(path, array, matrix, level=level)
    elif suffix in (".mha", ".mhd"):
        write_metaimage(path, array, matrix)
    else:
        write_nrrd(path, [array], matrix, level=level)


def _suffix(path: PathLike) -> str:
    name = Path(path).name.lower()
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return suffix
    raise InputError(f"'{path}' names no format to write.", todo=f"End the name in one of {', '.join(_SUFFIXES)}.")


def _name(path: Path) -> str:
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def _as_labels(array: np.ndarray, path: Path) -> np.ndarray:
    """The array as unsigned integers; `UnreadableFile` where a value is no label."""
    if array.dtype.kind == "u":
        return array
    low, high = array.min(), array.max()
    whole = array.dtype.kind == "i" or (np.isfinite([low, high]).all() and all(_is_whole(part) for part in array))
    if not whole or low < 0:
        raise UnreadableFile(
            f"'{path}' is not a label map.",
            why=f"Its values, {low} to {high}, are not " + ("whole numbers." if not whole else "all positive."),
            todo="Give a label map, or a .seg.nrrd, in place of an image or a probability map.",
        )
    return array.astype(np.min_scalar_type(int(high)))


def _is_whole(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all())


def _default_segments(labels: np.ndarray, path: Path) -> tuple[SegmentInfo, ...]:
    values: set[int] = set()
    for plane in labels:
        values.update(np.unique(plane).tolist())
        if len(values) > _MOST_LABELS:
            raise UnreadableFile(
                f"'{path}' is not a label map.",
                why=f"It has more than {_MOST_LABELS} different values; it seems to be an image.",
                todo="Give a label map or a .seg.nrrd.",
            )
    return tuple(
        SegmentInfo(f"Segment_{value}", f"Segment_{value}", value, color_rgb=default_color(index))
        for index, value in enumerate(sorted(values - {0}))
    )
