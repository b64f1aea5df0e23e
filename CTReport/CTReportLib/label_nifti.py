"""Segments as one NIfTI label map, with a JSON file beside it that says what each label is.

NIfTI holds one label per voxel, segments may overlap: a nodule lies in a lung. Smaller segments are therefore painted
over larger ones, and the JSON file says of each how many of its voxels lie hidden beneath others. Whole segments are
in the ``.seg.nrrd`` and the DICOM segmentation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from CTReportLib.request import FINDING_TAG
from MedAILib.atomic import replacing
from MedAILib.errors import InputError
from MedAILib.formats.nifti import write_nifti
from MedAILib.formats.voxelstream import LABEL_LEVEL
from MedAILib.volume import LabelMap

SUFFIXES = (".nii.gz", ".nii")
_OVERLAPS = (
    "One label per voxel: where segments overlap, the smaller one is shown, and hidden_voxels counts what the larger "
    "one has beneath it."
)


@dataclass(frozen=True)
class Label:
    """What a value of the label map is.

    Attributes
    ----------
    value : int
    id, name : str
        Of the segment.
    finding : str
        Id of the finding it shows; empty for anatomy.
    voxels : int
        Of the whole segment.
    hidden_voxels : int
        Of those, how many bear another label because a smaller segment lies over them.
    volume_ml : float
        Of the whole segment.
    """

    value: int
    id: str
    name: str
    finding: str
    voxels: int
    hidden_voxels: int
    volume_ml: float


def flattened(masks: LabelMap) -> tuple[np.ndarray, tuple[Label, ...]]:
    """All segments in one array.

    Returns
    -------
    ndarray, shape (k, j, i), uint8 or uint16
        Value n is the n-th segment, 0 background.
    tuple of Label
        In the segments' order.
    """
    sizes = [int(np.count_nonzero(masks.mask(info.id))) for info in masks.segments]
    values = range(1, len(sizes) + 1)
    flat = np.zeros(masks.geometry.shape_kji, np.uint8 if len(sizes) < 256 else np.uint16)
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        flat[masks.mask(masks.segments[index].id)] = values[index]
    voxel_ml = abs(float(np.linalg.det(masks.ijk_to_ras[:3, :3]))) / 1000
    seen = np.bincount(flat.ravel(), minlength=len(sizes) + 1)
    return flat, tuple(
        Label(
            value=value,
            id=info.id,
            name=info.name,
            finding=info.tags.get(FINDING_TAG, ""),
            voxels=size,
            hidden_voxels=size - int(seen[value]),
            volume_ml=round(size * voxel_ml, 4),
        )
        for value, info, size in zip(values, masks.segments, sizes, strict=True)
    )


def write_label_nifti(masks: LabelMap, path: Path, use: str) -> Path:
    """Write segments as ``.nii.gz`` or ``.nii``, and the meaning of the labels beside it as ``.json``.

    Parameters
    ----------
    masks : LabelMap
    path : Path
    use : str
        What the file may be used for; said in both files.

    Returns
    -------
    Path
        The JSON file.

    Raises
    ------
    InputError
        The name ends otherwise, or NIfTI cannot hold the size.
    OutputError
        Nothing can be written there; none of the two files is left half-written.
    """
    stem = next((path.name[: -len(end)] for end in SUFFIXES if path.name.lower().endswith(end)), "")
    if not stem:
        raise InputError(f"'{path}' is no name for a NIfTI file.", todo="End the name in .nii.gz or .nii.")
    flat, labels = flattened(masks)
    beside = f"{stem}.json"
    told = {"research_use": use, "overlaps": _OVERLAPS, "labels": [asdict(label) for label in labels]}
    with replacing(path) as partial:
        text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
        (partial.parent / beside).write_bytes(text.encode("utf-8"))
        write_nifti(partial, flat, masks.ijk_to_ras, level=LABEL_LEVEL, description=f"MedAI. {use}")
    return path.parent / beside
