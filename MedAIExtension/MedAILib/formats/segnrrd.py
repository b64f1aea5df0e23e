"""Slicer's segmentation file ``.seg.nrrd``: label layers, and for each segment its name, colour and tags.

The header keys are those that Slicer writes (``Segment0_ID``, ``Segment0_LabelValue``, ...). The file's
voxels may be cut to what is drawn: ``Segmentation_ReferenceImageExtentOffset`` says where they start in
the volume they were drawn on. Their place in space is in the NRRD geometry itself, so reading needs no
more; `MedAILib.grids.placed` brings such a label map back to the volume's grid.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from MedAILib.errors import UnreadableFile
from MedAILib.formats.nrrd import read_layers, write_nrrd
from MedAILib.formats.voxelstream import LABEL_LEVEL
from MedAILib.grids import bounding_box
from MedAILib.palette import default_color
from MedAILib.volume import Geometry, LabelMap, SegmentInfo

_LOG = logging.getLogger(__name__)
_REPRESENTATION = "Binary labelmap"
_EMPTY_EXTENT = "0 -1 0 -1 0 -1"


def is_segmentation(keys: Mapping[str, str]) -> bool:
    """Whether the key/value pairs of an NRRD header describe segments."""
    return bool(_indices(keys)) or any(name.startswith("Segmentation_") for name in keys)


def read_segmentation(path: Path, keys: Mapping[str, str]) -> tuple[LabelMap, tuple[int, int, int]]:
    """Read the layers and segments of a ``.seg.nrrd``.

    Parameters
    ----------
    path : Path
    keys : mapping of str to str
        The header's key/value pairs, from `MedAILib.formats.nrrd.read_keys`.

    Returns
    -------
    label_map : LabelMap
        On the grid of the file, which may be cut to what is drawn.
    offset_ijk : tuple of int
        Index in the reference volume of the file's first voxel.

    Raises
    ------
    UnreadableFile
        Damaged, or a segment refers to a layer that is not there.
    """
    layers, matrix = read_layers(path)
    segments = tuple(_segment(keys, index, len(layers), path) for index in _indices(keys))
    offset = _whole_numbers(keys.get("Segmentation_ReferenceImageExtentOffset", "0 0 0"), 3, path)
    return LabelMap(layers, matrix, segments), (offset[0], offset[1], offset[2])


def write_segmentation(path: Path, label_map: LabelMap) -> None:
    """Write a label map with all it knows of its segments; layers become the file's ``list`` axis."""
    keys: dict[str, str] = {}
    for index, info in enumerate(label_map.segments):
        fields = _fields(info, label_map.layers[info.layer])
        keys.update({f"Segment{index}_{name}": value for name, value in fields.items()})
    keys["Segmentation_ContainedRepresentationNames"] = f"{_REPRESENTATION}|"
    keys["Segmentation_ConversionParameters"] = _reference_geometry(label_map.geometry)
    keys["Segmentation_MasterRepresentation"] = _REPRESENTATION
    keys["Segmentation_ReferenceImageExtentOffset"] = "0 0 0"
    write_nrrd(path, label_map.layers, label_map.ijk_to_ras, keys, level=LABEL_LEVEL)


def _indices(keys: Mapping[str, str]) -> list[int]:
    """The numbers n of all ``Segment<n>_...`` keys, ascending."""
    heads = (name.partition("_")[0].removeprefix("Segment") for name in keys if name.startswith("Segment"))
    return sorted({int(number) for number in heads if number.isdecimal()})


def _segment(keys: Mapping[str, str], index: int, layer_count: int, path: Path) -> SegmentInfo:
    def field(name: str, default: str) -> str:
        return keys.get(f"Segment{index}_{name}", default)

    identifier = field("ID", f"Segment_{index + 1}")
    label_value = _whole_numbers(field("LabelValue", str(index + 1)), 1, path)[0]
    layer = _whole_numbers(field("Layer", "0"), 1, path)[0]
    if not 0 <= layer < layer_count:
        raise UnreadableFile(
            f"'{path}' is damaged.",
            why=f"Its segment '{identifier}' is said to be in layer {layer}, and there are {layer_count} layers.",
            todo="Save the segmentation again from the program that wrote it.",
        )
    return SegmentInfo(
        id=identifier,
        name=field("Name", identifier),
        label_value=label_value,
        layer=layer,
        color_rgb=_color(field("Color", ""), index),
        tags=_tags(field("Tags", "")),
    )


def _color(text: str, index: int) -> tuple[float, float, float]:
    try:
        red, green, blue = (min(max(float(part), 0.0), 1.0) for part in text.split())
    except ValueError:
        return default_color(index)
    return (red, green, blue)


def _tags(text: str) -> dict[str, str]:
    """``name:value|name:value|`` as a mapping; a value may hold colons."""
    pairs = (part.partition(":") for part in text.split("|") if part)
    return {name: value for name, _, value in pairs}


def _whole_numbers(text: str, count: int, path: Path) -> list[int]:
    try:
        numbers = [int(part) for part in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise UnreadableFile(f"'{path}' is damaged.", why=f"Its header says '{text}' where {count} integers belong.")
    return numbers


def _fields(info: SegmentInfo, layer: np.ndarray) -> dict[str, str]:
    box = bounding_box(layer == info.label_value)
    extent = _EMPTY_EXTENT
    if box is not None:
        pairs = zip(reversed(box.start_kji), reversed(box.stop_kji), strict=True)
        extent = " ".join(f"{low} {high - 1}" for low, high in pairs)
    return {
        "Color": " ".join(f"{part:.6g}" for part in info.color_rgb),
        "ColorAutoGenerated": "0",
        "Extent": extent,
        "ID": info.id,
        "LabelValue": str(info.label_value),
        "Layer": str(info.layer),
        "Name": info.name,
        "NameAutoGenerated": "0",
        "Tags": "".join(f"{_tag_text(name, ':|')}:{_tag_text(value, '|')}|" for name, value in info.tags.items()),
    }


def _tag_text(text: str, reserved: str) -> str:
    """A tag's name or value without the signs that separate tags in the file, which knows no escape for them."""
    plain = text.translate({ord(sign): "/" for sign in reserved})
    if plain != text:
        _LOG.warning("The tag text %r was saved as %r: the format reserves the signs %s.", text, plain, reserved)
    return plain


def _reference_geometry(geometry: Geometry) -> str:
    """The grid the segments were drawn on, as Slicer's conversion parameter of that name."""
    k, j, i = geometry.shape_kji
    numbers = [*(repr(float(n) + 0.0) for n in geometry.ijk_to_ras.ravel())]
    numbers += [str(n) for n in (0, i - 1, 0, j - 1, 0, k - 1)]
    return f"Reference image geometry|{';'.join(numbers)};|Image geometry of the volume the segments were drawn on.&"
