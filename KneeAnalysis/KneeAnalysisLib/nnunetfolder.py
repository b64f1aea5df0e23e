"""Trained nnU-Net v2 models on disk: which folder, which folds, which checkpoint; without nnU-Net and torch.

Layout, as nnU-Net's training leaves it and the public knee model is published, at any depth below the
folder given::

    nnUNetTrainer__nnUNetResEncUNetMPlans__3d_fullres/
        plans.json  dataset.json
        fold_1/checkpoint_best.pth

The configuration is what follows the last ``__`` in the folder's name. A ``model_config.json`` beside it is
not read: in the published model it names another configuration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from KneeAnalysisLib.labels import NATIVE, LabelScheme, Tissue
from MedAILib.errors import ConfigMismatch, FileMissing, InputError, InvalidWeights, UnreadableFile
from MedAILib.models.placeholders import placeholder_in

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
"""In the order of preference, which is nnU-Net's own."""

_FOLD = re.compile(r"fold_(\d+|all)")
_DEEPEST = 5


@dataclass(frozen=True)
class NnUnetFolder:
    """One trained configuration.

    Attributes
    ----------
    path : Path
    configuration : str
        ``3d_fullres``, ``3d_lowres``, ``3d_cascade_fullres``.
    plans, dataset : mapping
        Contents of ``plans.json`` and ``dataset.json``.
    checkpoints : tuple of Path
        One per fold.
    """

    path: Path
    configuration: str
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    checkpoints: tuple[Path, ...]


def find_model(
    places: Sequence[Path], configuration: str, *, folds: Sequence[str] = (), checkpoint: str = ""
) -> NnUnetFolder:
    """The folder of a configuration below the places given, with the checkpoints to use.

    Raises
    ------
    FileMissing
        There is none, or it lacks a file.
    InputError
        Several could be meant.
    UnreadableFile, ConfigMismatch
        A file of it is damaged, or its plans do not have the configuration.
    """
    found = [folder for place in places for folder in _folders(place, configuration)]
    if not found:
        raise FileMissing(
            f"No nnU-Net model of the configuration '{configuration}' is there.",
            why=f"No folder named '...__{configuration}' with plans.json lies in {_listed(places)}.",
            todo=f"Get it: medai models get {_model_id(configuration)}, or name the results folder of a training.",
        )
    if len(found) > 1:
        raise InputError(
            f"Several nnU-Net models of the configuration '{configuration}' are there.",
            why=f"Found: {_listed(found[:5])}.",
            todo="Name one of these folders.",
        )
    path = found[0]
    plans, dataset = (_json(path / name) for name in ("plans.json", "dataset.json"))
    if configuration not in plans.get("configurations", {}):
        raise ConfigMismatch(
            f"The plans of '{path.name}' have no configuration '{configuration}'.",
            why=f"They have {', '.join(plans.get('configurations', {})) or 'none'}.",
            todo="Get the model again; its folder was renamed or mixed with another one.",
        )
    return NnUnetFolder(path, configuration, plans, dataset, _checkpoints(path, folds, checkpoint))


def labels_of(dataset: Mapping[str, Any]) -> LabelScheme:
    """What the labels of a model mean, from the names in its ``dataset.json``, which is the authority.

    Names that are understood decide. Where some are not understood, the values must be those of the native
    scheme and no name may contradict it.

    Raises
    ------
    InvalidWeights
        The names are not understood, or the model labels something else.
    """
    values = {str(name): value for name, value in dataset.get("labels", {}).items() if value != 0}
    if not values or not all(isinstance(value, int) for value in values.values()):
        raise _unknown_labels("It has regions in place of labels", values)
    tissues = {name: tissue_named(name) for name in values}
    known = {tissue: (values[name],) for name, tissue in tissues.items() if tissue is not None}
    if len(known) == len(values):
        return LabelScheme("dataset.json", known)
    native = {tissue: labels[0] for tissue, labels in NATIVE.labels.items()}
    wrong = [tissue for tissue, labels in known.items() if native.get(tissue) not in labels]
    if wrong or sorted(values.values()) != sorted(native.values(), key=int):
        raise _unknown_labels("Not all of its labels are understood", values)
    return NATIVE


def tissue_named(name: str) -> Tissue | None:
    """The tissue that a label's name in English means; None where it is not understood or could be several."""
    words = re.sub(r"[^a-z]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()).split()
    text = " ".join(_SHORT.get(word, word) for word in words)
    found = [tissue for pattern, tissue in _NAMES if re.fullmatch(pattern, text)]
    return found[0] if len(found) == 1 else None


_SHORT = {
    "pc": "pat cart", "fc": "fem cart", "mtc": "med tib cart", "ltc": "lat tib cart", "tc": "tib cart",
    "mm": "med men", "lm": "lat men",
}  # fmt: skip
_SIDE = {"med": r"(med|medial)", "lat": r"(lat|lateral)"}
_CART, _MEN, _BONE = r"cart(ilage|ilages)?", r"men(iscus|isci)?", r"( bone)?"


def _in_any_order(*words: str) -> str:
    """A pattern for a text that has each of these words once and no others."""
    return "".join(rf"(?=.*\b{word}\b)" for word in words) + r"\S+( \S+){" + str(len(words) - 1) + "}"


_NAMES = (
    (r"fem(ur|oral)?" + _BONE, Tissue.FEMUR),
    (r"tib(ia|ial)?" + _BONE, Tissue.TIBIA),
    (r"pat(ella|ellar)?" + _BONE, Tissue.PATELLA),
    (r"fib(ula|ular)?" + _BONE, Tissue.FIBULA),
    (_in_any_order(r"fem(ur|oral)?", _CART), Tissue.FEMORAL_CARTILAGE),
    (_in_any_order(r"pat(ella|ellar)?", _CART), Tissue.PATELLAR_CARTILAGE),
    (_in_any_order(_SIDE["med"], r"tib(ia|ial)?", _CART), Tissue.MEDIAL_TIBIAL_CARTILAGE),
    (_in_any_order(_SIDE["lat"], r"tib(ia|ial)?", _CART), Tissue.LATERAL_TIBIAL_CARTILAGE),
    (_in_any_order(_SIDE["med"], _MEN), Tissue.MEDIAL_MENISCUS),
    (_in_any_order(_SIDE["lat"], _MEN), Tissue.LATERAL_MENISCUS),
)


def _folders(place: Path, configuration: str) -> list[Path]:
    """Folders of that configuration at or below a place, not looked for inside of each other."""
    found, waiting = [], [(place, 0)]
    while waiting:
        folder, depth = waiting.pop()
        if folder.name.endswith(f"__{configuration}") and (folder / "plans.json").is_file():
            found.append(folder)
        elif depth < _DEEPEST and folder.is_dir():
            waiting += [(child, depth + 1) for child in sorted(folder.iterdir()) if child.is_dir()]
    return found


def _checkpoints(path: Path, folds: Sequence[str], checkpoint: str) -> tuple[Path, ...]:
    """One checkpoint per fold that is asked for, or per fold that is there."""
    there: dict[str, Path] = {}
    for folder in sorted(path.iterdir()):
        name = _FOLD.fullmatch(folder.name)
        names = (checkpoint,) if checkpoint else CHECKPOINTS
        file = next((folder / wanted for wanted in names if (folder / wanted).is_file()), None) if name else None
        if name and file is not None:
            there[name[1]] = file
    wanted_folds = [str(fold).removeprefix("fold_") for fold in folds] or sorted(there.keys() - {"all"}) or ["all"]
    missing = [fold for fold in wanted_folds if fold not in there]
    if missing:
        wanted = checkpoint or " or ".join(CHECKPOINTS)
        raise FileMissing(
            f"'{path}' has no trained fold {', '.join(missing)}." if folds else f"'{path}' has no trained fold.",
            why=f"Each fold is a folder fold_<number> with {wanted}; with one are there: {', '.join(there) or 'none'}.",
            todo="Choose another fold or checkpoint, or get the model again.",
        )
    return tuple(there[fold] for fold in wanted_folds)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileMissing(f"'{path}' is missing.", why=f"{error}.", todo="Get the model again.") from error
    placeholder = placeholder_in(content[:65536])
    try:
        found = json.loads(content.decode("utf-8")) if placeholder is None else None
    except ValueError as error:
        raise UnreadableFile(f"'{path}' is no JSON.", why=f"{error}.", todo="Get the model again.") from error
    if not isinstance(found, dict):
        what = f"It is {placeholder.what}." if placeholder else "It is JSON of another kind."
        raise UnreadableFile(f"'{path}' is not what its name says.", why=what, todo="Get the model again.")
    return found


def _model_id(configuration: str) -> str:
    """In the catalogue."""
    return "knee-nnunet-fullres" if configuration == "3d_fullres" else "knee-nnunet-cascade"


def _unknown_labels(why: str, values: Mapping[str, Any]) -> InvalidWeights:
    return InvalidWeights(
        "What the labels of this nnU-Net model mean is not known.",
        why=f"{why}: {', '.join(f'{name} = {value}' for name, value in values.items()) or 'none'}.",
        todo="Give a labels file that maps tissues to label values.",
    )


def _listed(places: Sequence[Path]) -> str:
    return ", ".join(f"'{place}'" for place in places)
