"""MedMNIST's ``.npz`` files, and how images that nobody divided are divided into training, validation and test."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedAILib.errors import FileMissing, InputError, UnreadableFile
from MedAILib.filekind import open_error
from MedMNISTRouterLib.datasets import BY_FLAG, SIZES

SPLITS = ("train", "val", "test")
VALIDATION_SHARE = 0.1
"""Of the training images, where a file has only one other part."""
HELD_OUT_SHARE = 0.2
"""For validation, and as much for test, where a file is not divided at all."""
_SEED = 20240
_NAME = re.compile(r"([a-z]+mnist)(_\d+)?")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images with their labels.

    Attributes
    ----------
    images : ndarray, shape (n, rows, columns) or (n, rows, columns, 3), uint8
    labels : ndarray, shape (n,) or (n, labels), int64
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def taken(self, chosen: np.ndarray) -> Labelled:
        """Some of them, by index or by a mask."""
        return Labelled(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True, eq=False)
class NpzFile:
    """A file, divided.

    Attributes
    ----------
    path : Path
    parts : mapping of str to Labelled
        ``train``, ``val``, ``test``, all of them.
    remark : str
        How it was divided, where its makers did not; else empty.
    """

    path: Path
    parts: Mapping[str, Labelled]
    remark: str = ""


def flag_of(path: Path) -> str:
    """The data set that a file's name tells (``pneumoniamnist_64.npz``); empty where it tells none."""
    found = _NAME.match(path.stem)
    return found[1] if found and found[1] in BY_FLAG else ""


def read_npz(path: Path) -> NpzFile:
    """Read ``{train,val,test}_{images,labels}``.

    Files with fewer parts are divided, always in the same way: with two parts, the second becomes the test images and
    a tenth of each class of the first the validation images; ``images`` and ``labels`` alone are divided by class,
    three fifths, a fifth, a fifth.

    Raises
    ------
    FileMissing, UnreadableFile
    InputError
        It holds other arrays than those.
    """
    arrays = _read_arrays(path)
    given = {name: _labelled(path, arrays, f"{name}_") for name in SPLITS if f"{name}_images" in arrays}
    if not given and "images" in arrays:
        whole = _labelled(path, arrays, "")
        rest, test = _parted(whole, HELD_OUT_SHARE)
        train, val = _parted(rest, HELD_OUT_SHARE / (1 - HELD_OUT_SHARE))
        parts = {"train": train, "val": val, "test": test}
        return NpzFile(
            path,
            parts,
            f"{path.name} is not divided: a fifth of each class was held out for validation, a fifth for the test.",
        )
    if "train" not in given or len(given) < 2:
        raise InputError(
            f"'{path}' is not a MedMNIST file.",
            why=f"It holds {', '.join(sorted(arrays)) or 'nothing'}.",
            todo="Give a file with train_images, train_labels, val_images, val_labels, test_images, test_labels.",
        )
    if len(given) == len(SPLITS):
        return NpzFile(path, given)
    (other,) = (name for name in given if name != "train")
    train, val = _parted(given["train"], VALIDATION_SHARE)
    missing = next(name for name in SPLITS if name not in given)
    return NpzFile(
        path,
        {"train": train, "val": val, "test": given[other]},
        f"{path.name} has no {missing} part: its {other} part is the test, and a tenth of each class of its train "
        "part was held out for validation.",
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    names = [f"{split}{part}" for split in ("", "train_", "val_", "test_") for part in ("images", "labels")]
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            return {name: file[name] for name in names if name in file.files}
    except FileNotFoundError as error:
        raise FileMissing(
            f"There is no file '{path}'.",
            todo=f"MedMNIST's files, in {', '.join(map(str, SIZES))} pixels: https://doi.org/10.5281/zenodo.10519652",
        ) from error
    except (zipfile.BadZipFile, EOFError, ValueError, KeyError) as error:
        raise UnreadableFile(
            f"'{path}' is not a readable .npz file.", why=f"{error}.", todo="Download it again."
        ) from error
    except OSError as error:
        raise open_error(path, error) from error


def _labelled(path: Path, arrays: Mapping[str, np.ndarray], prefix: str) -> Labelled:
    images = arrays[f"{prefix}images"]
    labels = arrays.get(f"{prefix}labels", np.zeros(len(images), np.int64))
    colour = images.ndim == 4 and images.shape[3] == 3
    if images.dtype != np.uint8 or not (images.ndim == 3 or colour) or not len(images):
        raise InputError(
            f"'{path}' holds no images as MedMNIST has them.",
            why=f"{prefix}images has the shape {images.shape} and the type {images.dtype}; expected is "
            "(images, rows, columns) or (images, rows, columns, 3) of type uint8.",
        )
    if len(labels) != len(images) or labels.dtype.kind not in "iub" or labels.ndim not in (1, 2):
        raise InputError(
            f"The labels in '{path}' do not fit its images.",
            why=f"{prefix}labels has the shape {labels.shape} and the type {labels.dtype}, for {len(images)} images.",
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return Labelled(images, labels.astype(np.int64))


def _parted(whole: Labelled, share: float) -> tuple[Labelled, Labelled]:
    """What stays, and a share of each class (of all, where an image has several labels)."""
    kinds = whole.labels if whole.labels.ndim == 1 else np.zeros(len(whole), np.int64)
    rng, away = np.random.default_rng(_SEED), np.zeros(len(whole), bool)
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        away[rng.permutation(members)[: round(share * len(members))]] = True
    return whole.taken(~away), whole.taken(away)
