"""Tissues and cartilage regions of the knee, their label values, and how other label maps name them.

Inside this library a knee has one set of label values, the *canonical* one (`Tissue`). Label maps come
in others: the *native* one of the segmentation networks, or any a file describes. The scheme is always
stated, never guessed: two schemes share their values, so a wrong guess would give plausible nonsense.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from MedAILib.errors import FileMissing, InputError, UnreadableFile
from MedAILib.volume import LabelMap, SegmentInfo


class Tissue(IntEnum):
    """Canonical label values."""

    FEMUR = 1
    TIBIA = 2
    PATELLA = 3
    FEMORAL_CARTILAGE = 4
    MEDIAL_TIBIAL_CARTILAGE = 5
    LATERAL_TIBIAL_CARTILAGE = 6
    PATELLAR_CARTILAGE = 7
    MEDIAL_MENISCUS = 8
    LATERAL_MENISCUS = 9
    FIBULA = 10

    @property
    def key(self) -> str:
        """The name in label files: ``medial_tibial_cartilage``."""
        return self.name.lower()

    @property
    def title(self) -> str:
        """The name for people: ``Medial tibial cartilage``."""
        return self.name.replace("_", " ").capitalize()

    @property
    def color_rgb(self) -> tuple[float, float, float]:
        return _COLORS[self]


_COLORS: Mapping[Tissue, tuple[float, float, float]] = {
    Tissue.FEMUR: (0.89, 0.85, 0.76),
    Tissue.TIBIA: (0.80, 0.75, 0.65),
    Tissue.PATELLA: (0.85, 0.80, 0.60),
    Tissue.FEMORAL_CARTILAGE: (0.20, 0.60, 0.86),
    Tissue.MEDIAL_TIBIAL_CARTILAGE: (0.18, 0.72, 0.51),
    Tissue.LATERAL_TIBIAL_CARTILAGE: (0.55, 0.80, 0.30),
    Tissue.PATELLAR_CARTILAGE: (0.95, 0.61, 0.17),
    Tissue.MEDIAL_MENISCUS: (0.85, 0.33, 0.45),
    Tissue.LATERAL_MENISCUS: (0.66, 0.35, 0.73),
    Tissue.FIBULA: (0.70, 0.66, 0.58),
}

CARTILAGES_OF: Mapping[Tissue, tuple[Tissue, ...]] = {
    Tissue.FEMUR: (Tissue.FEMORAL_CARTILAGE,),
    Tissue.TIBIA: (Tissue.MEDIAL_TIBIAL_CARTILAGE, Tissue.LATERAL_TIBIAL_CARTILAGE),
    Tissue.PATELLA: (Tissue.PATELLAR_CARTILAGE,),
}
"""Each bone and the cartilages that lie on it."""

BONES: tuple[Tissue, ...] = tuple(CARTILAGES_OF)
CARTILAGES: tuple[Tissue, ...] = tuple(c for group in CARTILAGES_OF.values() for c in group)
MENISCI: tuple[Tissue, ...] = (Tissue.MEDIAL_MENISCUS, Tissue.LATERAL_MENISCUS)
EXPECTED: tuple[Tissue, ...] = (*BONES, *CARTILAGES, *MENISCI)
"""Tissues a complete knee has; a fibula may be there."""


@dataclass(frozen=True)
class Region:
    """A part of a cartilage that has a row in the table.

    Attributes
    ----------
    key : str
        Start of the result keys, ``med_tib_cart``.
    value : int
        Label value in sub-region maps and in the meshes' ``labels`` array.
    title : str
    bone : Tissue
        The bone whose surface carries it.
    members : tuple of int
        Label values it is made of, more than one for a whole that is shown beside its parts.
    """

    key: str
    value: int
    title: str
    bone: Tissue
    members: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.members:
            object.__setattr__(self, "members", (self.value,))


FEMORAL_REGIONS: tuple[Region, ...] = (
    Region("ant_fem_cart", 11, "Anterior femoral cartilage", Tissue.FEMUR),
    Region("med_wb_fem_cart", 12, "Medial weight-bearing femoral cartilage", Tissue.FEMUR),
    Region("lat_wb_fem_cart", 13, "Lateral weight-bearing femoral cartilage", Tissue.FEMUR),
    Region("med_post_fem_cart", 14, "Medial posterior femoral cartilage", Tissue.FEMUR),
    Region("lat_post_fem_cart", 15, "Lateral posterior femoral cartilage", Tissue.FEMUR),
)

REGIONS: tuple[Region, ...] = (
    Region("pat_cart", Tissue.PATELLAR_CARTILAGE, "Patellar cartilage", Tissue.PATELLA),
    Region(
        "fem_cart", Tissue.FEMORAL_CARTILAGE, "Femoral cartilage", Tissue.FEMUR,
        (Tissue.FEMORAL_CARTILAGE, *(region.value for region in FEMORAL_REGIONS)),
    ),
    Region("med_tib_cart", Tissue.MEDIAL_TIBIAL_CARTILAGE, "Medial tibial cartilage", Tissue.TIBIA),
    Region("lat_tib_cart", Tissue.LATERAL_TIBIAL_CARTILAGE, "Lateral tibial cartilage", Tissue.TIBIA),
    *FEMORAL_REGIONS,
)  # fmt: skip
"""The regions of the result files, in their order."""


@dataclass(frozen=True)
class LabelScheme:
    """How a label map names the tissues.

    Attributes
    ----------
    name : str
    labels : mapping of Tissue to tuple of (int or str)
        Label values, or ids or names of segments; several are joined.
    """

    name: str
    labels: Mapping[Tissue, tuple[int | str, ...]]

    def __post_init__(self) -> None:
        owner: dict[int | str, Tissue] = {}
        for tissue, values in self.labels.items():
            for value in values:
                if value in owner:
                    raise InputError(
                        f"The label scheme '{self.name}' gives label {value} to both "
                        f"{owner[value].key} and {tissue.key}.",
                        todo="Give every tissue labels of its own.",
                    )
                owner[value] = tissue


_FEMORAL_PARTS = tuple(region.value for region in FEMORAL_REGIONS)

CANONICAL = LabelScheme(
    "canonical",
    {tissue: (int(tissue),) for tissue in Tissue} | {Tissue.FEMORAL_CARTILAGE: (4, *_FEMORAL_PARTS)},
)
"""The values of `Tissue`; sub-regions of the femoral cartilage count as cartilage."""

NATIVE = LabelScheme(
    "native",
    {
        Tissue.PATELLAR_CARTILAGE: (1,),
        Tissue.FEMORAL_CARTILAGE: (2, *_FEMORAL_PARTS),
        Tissue.MEDIAL_TIBIAL_CARTILAGE: (3,),
        Tissue.LATERAL_TIBIAL_CARTILAGE: (4,),
        Tissue.MEDIAL_MENISCUS: (5,),
        Tissue.LATERAL_MENISCUS: (6,),
        Tissue.FEMUR: (7,),
        Tissue.TIBIA: (8,),
        Tissue.PATELLA: (9,),
    },
)
"""What the knee networks (DOSMA, nnU-Net) put out; sub-regions of the femoral cartilage count as cartilage."""


def label_scheme(choice: str | os.PathLike[str] | LabelScheme) -> LabelScheme:
    """``"native"``, ``"canonical"`` or the path of a JSON file as a scheme.

    The file maps tissue keys (`Tissue.key`) to a label value, to a segment's id or name, or to a list
    of these: ``{"femur": 5, "femoral_cartilage": ["Cartilage, femoral"]}``.

    Raises
    ------
    FileMissing, UnreadableFile
        No such file, or it is not JSON.
    InputError
        A key that is no tissue, a value that is no label, or a label given to two tissues.
    """
    if isinstance(choice, LabelScheme):
        return choice
    for known in (NATIVE, CANONICAL):
        if str(choice) == known.name:
            return known
    path = Path(choice)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileMissing(
            f"There is no labels file '{path}'.", todo="Give 'native', 'canonical', or the path of a JSON file."
        ) from error
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"The labels file '{path}' is not readable JSON.", why=str(error)) from error
    return scheme_from_keys(content, path.name)


def scheme_from_keys(content: object, name: str = "labels") -> LabelScheme:
    """A scheme from tissue keys and labels, as `label_scheme` reads them from a file."""
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"The label scheme '{name}' must map tissue names to labels.", todo=_KEYS_TODO)
    tissues = {tissue.key: tissue for tissue in Tissue}
    unknown = [str(key) for key in content if key not in tissues]
    if unknown:
        raise InputError(f"The label scheme '{name}' names unknown tissues: {', '.join(unknown)}.", todo=_KEYS_TODO)
    return LabelScheme(name, {tissues[key]: _labels(key, value) for key, value in content.items()})


def to_canonical(label_map: LabelMap, scheme: LabelScheme) -> LabelMap:
    """The tissues of a label map in canonical label values, one layer of uint8.

    Labels that the scheme does not name are left out. Where segments of several layers overlap,
    cartilage is kept before meniscus and meniscus before bone.

    Raises
    ------
    InputError
        None of the scheme's labels is in the label map, or a label value means two segments of
        different layers.
    """
    canonical = np.zeros(label_map.geometry.shape_kji, dtype=np.uint8)
    for layer, tissue_of in zip(label_map.layers, _tables(label_map, scheme), strict=True):
        if not tissue_of.any():
            continue
        known = layer if int(layer.max()) < tissue_of.size else np.minimum(layer, tissue_of.size - 1)
        painted = tissue_of[known]
        canonical = painted if not canonical.any() else np.where(_RANK[painted] > _RANK[canonical], painted, canonical)
    if not canonical.any():
        raise InputError(
            f"None of the labels of the scheme '{scheme.name}' is in this label map.",
            why=f"It holds {_described(label_map)}.",
            todo="Say which label is which tissue in a JSON file, for example " + '{"femur": 5, "tibia": 6}.',
        )
    return LabelMap((canonical,), label_map.ijk_to_ras, tissue_segments(canonical), label_map.name)


def tissue_segments(canonical: np.ndarray) -> tuple[SegmentInfo, ...]:
    """Names and colours of the tissues that a canonical label array holds."""
    counts = label_counts(canonical)
    return tuple(SegmentInfo(t.key, t.title, int(t), 0, t.color_rgb) for t in Tissue if counts[t])


def label_counts(labels: np.ndarray) -> np.ndarray:
    """Number of voxels of each label above 0, by label: (256,), int64; background is not counted."""
    return np.bincount(labels[labels > 0], minlength=256)


def other_labels(label_map: LabelMap, scheme: LabelScheme) -> tuple[SegmentInfo, ...]:
    """Segments that the scheme does not name and that `to_canonical` leaves out."""
    used = {info.id for tissue in scheme.labels for info in _segments_of(label_map, scheme, tissue)}
    return tuple(info for info in label_map.segments if info.id not in used)


def scheme_notes(label_map: LabelMap, scheme: LabelScheme) -> tuple[str, ...]:
    """What the user should know of a scheme of their own: labels that are not there, and bones that it does not name.

    The schemes of the package name tissues that many label maps lack; of them nothing is said.
    """
    if scheme in (NATIVE, CANONICAL):
        return ()
    absent = [
        f"{tissue.key} {label}"
        for tissue, labels in scheme.labels.items()
        for label in labels
        if not _segments_called(label_map, label)
    ]
    unnamed = [bone.key for bone in BONES if bone not in scheme.labels]
    notes = []
    if absent:
        notes.append(
            f"The label scheme '{scheme.name}' names labels that this label map does not have: {', '.join(absent)}."
        )
    if unnamed:
        notes.append(
            f"The label scheme '{scheme.name}' does not say which label is {' or '.join(unnamed)}: "
            "no thickness is measured there."
        )
    return tuple(notes)


_RANK = np.array([0] + [3 if t in CARTILAGES else 2 if t in MENISCI else 1 for t in Tissue], dtype=np.uint8)
"""Of two tissues in one voxel the one of higher rank is kept."""
_KEYS_TODO = "The tissues are: " + ", ".join(tissue.key for tissue in Tissue) + "."


def _labels(key: str, value: object) -> tuple[int | str, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise InputError(f"{key} is given no label.", todo="Give it one, or leave it out of the labels file.")
    for label in values:
        if isinstance(label, bool) or not isinstance(label, int | str) or label in (0, ""):
            raise InputError(
                f"The label {label!r} of {key} is no label.",
                todo="Give a whole number above zero, or the id or name of a segment.",
            )
    return tuple(values)


def _tables(label_map: LabelMap, scheme: LabelScheme) -> list[np.ndarray]:
    """For every layer, the tissue of each of its label values: uint8; the last entry is for all higher ones."""
    found = [(info, tissue) for tissue in scheme.labels for info in _segments_of(label_map, scheme, tissue)]
    highest = max((info.label_value for info, _ in found), default=0)
    tables = [np.zeros(highest + 2, dtype=np.uint8) for _ in label_map.layers]
    for info, tissue in found:
        tables[info.layer][info.label_value] = tissue
    return tables


def _segments_of(label_map: LabelMap, scheme: LabelScheme, tissue: Tissue) -> list[SegmentInfo]:
    return [info for label in scheme.labels.get(tissue, ()) for info in _segments_called(label_map, label)]


def _segments_called(label_map: LabelMap, label: int | str) -> list[SegmentInfo]:
    if isinstance(label, str):
        by_id = [info for info in label_map.segments if info.id == label]
        return by_id or [info for info in label_map.segments if info.name == label]
    same = [info for info in label_map.segments if info.label_value == label]
    if len(same) > 1:
        raise InputError(
            f"Label {label} means {len(same)} segments here: {', '.join(info.name for info in same)}.",
            why="Segments that overlap lie in several layers, each with its own label values.",
            todo="Name the segments by id or name in a labels file.",
        )
    return same


def _described(label_map: LabelMap) -> str:
    shown = [f"{info.label_value} ({info.name})" for info in label_map.segments[:12]]
    return ", ".join(shown) + (", ..." if len(label_map.segments) > 12 else "") if shown else "no label"
