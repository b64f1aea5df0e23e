"""Volumes and masks of many cases on a network's grid, in files that are mapped into memory, made once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CTReportLib import preprocess
from CTReportLib.checks import check_volume
from CTReportLib.findings import FINDINGS, LOCALISED, find
from CTReportLib.preprocess import Layout, Prepared, prepare
from CTReportLib.train.ctrate import CtCase, mask_files
from MedAILib.atomic import replacing
from MedAILib.errors import InputError
from MedAILib.imageio import read_label_map, read_volume
from MedAILib.jobs.task import Context
from MedAILib.volume import LabelMap, Volume

_WIDER = {"ground_glass_opacity": "lung_opacity"}
"""Localised findings outside the eighteen, and that of the eighteen without which they are not there either."""
_BITS = tuple(one.id for one in LOCALISED)


@dataclass(frozen=True, eq=False)
class Store:
    """Cases on a grid.

    Attributes
    ----------
    hu : ndarray, shape (cases, k, j, i), int16
        Mapped from its file.
    drawn : ndarray, shape (cases, k, j, i), uint8
        Bit n: the n-th of the localised findings.
    known : ndarray, shape (cases, findings), bool
        Whether a localised finding's mask is known, be it empty.
    """

    hu: np.ndarray
    drawn: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.hu)


def make_store(
    cases: Sequence[CtCase], layout: Layout, folder: Path, context: Context, stage: str, done: tuple[float, float]
) -> Store:
    """Read and prepare all cases, or take what an earlier run of the same cases left in the folder.

    Parameters
    ----------
    cases : sequence of CtCase
    layout : Layout
    folder : Path
    context : Context
    stage : str
    done : tuple of float
        Share of the whole run before and after.

    Raises
    ------
    InputError
        A volume is no CT in Hounsfield units, or a mask cannot be used; says which.
    OutputError, Cancelled
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / _key(cases, layout)
    paths = [start.with_name(f"{start.name}-{part}.npy") for part in ("hu", "drawn", "known")]
    if not all(path.is_file() for path in paths):
        shape = (len(cases), *layout.shape_kji)
        known = np.zeros((len(cases), len(_BITS)), dtype=bool)
        with replacing(paths[0]) as hu_file, replacing(paths[1]) as drawn_file:
            hu = np.lib.format.open_memmap(hu_file, "w+", np.int16, shape)
            drawn = np.lib.format.open_memmap(drawn_file, "w+", np.uint8, shape)
            for number, case in enumerate(cases):
                share = number / max(len(cases), 1)
                context.progress(stage, done[0] + share * (done[1] - done[0]), f"volume {number + 1} of {len(cases)}")
                prepared = prepared_case(case, layout)
                hu[number] = prepared.hu
                drawn[number], known[number] = _masks(case, prepared)
            hu.flush()
            drawn.flush()
            del hu, drawn
        with replacing(paths[2]) as known_file, known_file.open("wb") as stream:
            np.save(stream, known)
    mapped = [np.load(path, mmap_mode="r") for path in paths]
    return Store(*mapped)


def prepared_case(case: CtCase, layout: Layout) -> Prepared:
    """A case's volume on a layout; `InputError` that names the case where it is no chest CT in Hounsfield units."""
    volume = read_volume(case.volume)
    try:
        check_volume(volume, "CT")
    except InputError as error:
        raise InputError(
            f"'{case.name}' cannot be learned from: {error.what}", why=error.why, todo=error.todo
        ) from error
    return prepare(volume, layout)


def labels_array(cases: Sequence[CtCase], findings: Sequence[str]) -> np.ndarray:
    """Labels of some findings: int64, shape (cases, findings)."""
    places = [next(n for n, one in enumerate(FINDINGS) if one.id == name) for name in findings]
    found = np.array([case.labels for case in cases], dtype=np.int64).reshape(len(cases), len(FINDINGS))
    return found[:, places]


def known_masks(case: CtCase) -> dict[str, Volume | None]:
    """What is known of where localised findings are: a volume of 0 and 1 (uint8), or None where one is not there.

    Of findings that are missing nothing is known. A finding without a mask that the labels deny is not there.
    """
    found: dict[str, Volume | None] = {}
    for name in _BITS:
        place = next(n for n, one in enumerate(FINDINGS) if one.id == _WIDER.get(name, name))
        if case.labels[place] == 0:
            found[name] = None
    if case.masks is not None and not case.masks.is_dir():
        found |= _segments(case, read_label_map(case.masks))
    for name, path in mask_files(case).items():
        labels = read_label_map(path)
        mask = np.any([layer > 0 for layer in labels.layers], axis=0)
        found[name] = Volume(mask.astype(np.uint8), labels.ijk_to_ras, name)
    return found


def _segments(case: CtCase, labels: LabelMap) -> dict[str, Volume | None]:
    found: dict[str, Volume | None] = {}
    unknown = []
    for info in labels.segments:
        finding = find(info.name) or find(info.id)
        if finding is None or finding.id not in _BITS:
            unknown.append(info.name)
        else:
            found[finding.id] = Volume(labels.mask(info.id).astype(np.uint8), labels.ijk_to_ras, finding.id)
    if unknown:
        raise InputError(
            f"Segments in the masks of '{case.name}' bear no name of a localised finding: {', '.join(unknown)}.",
            todo=f"Name them {', '.join(_BITS)}.",
        )
    return found


def _masks(case: CtCase, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.zeros(prepared.hu.shape, np.uint8)
    known = np.zeros(len(_BITS), dtype=bool)
    for name, mask in known_masks(case).items():
        bit = _BITS.index(name)
        known[bit] = True
        if mask is not None and mask.array.any():
            drawn |= (prepared.forward(mask) > 0).astype(np.uint8) << np.uint8(bit)
    return drawn, known


def bits(drawn: np.ndarray, findings: Sequence[int]) -> np.ndarray:
    """Masks of findings out of bits: float32, shape (..., findings, k, j, i) for bits of shape (..., k, j, i)."""
    places = np.array(findings, dtype=np.uint8)[:, None, None, None]
    return ((drawn[..., None, :, :, :] >> places) & 1).astype(np.float32)


def _key(cases: Sequence[CtCase], layout: Layout) -> str:
    """A hash of the files and the layout."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr((preprocess.VERSION, layout.shape_kji, layout.spacing_mm, layout.margin_mm)).encode())
    for case in cases:
        for path in (case.volume, *_mask_paths(case)):
            stat = path.stat()
            digest.update(repr((case.name, path.name, stat.st_size, stat.st_mtime_ns, case.labels)).encode())
    return digest.hexdigest()


def _mask_paths(case: CtCase) -> list[Path]:
    if case.masks is None:
        return []
    return sorted(case.masks.iterdir()) if case.masks.is_dir() else [case.masks]
