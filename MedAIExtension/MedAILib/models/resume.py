"""The state of a training in one file of its folder, from which a run that was ended goes on; and its log.

The file is replaced whole: whenever the process ends, one whole state is there.

    save_state(out / "resume.pt", {"step": 7, "settings": settings}, {"network": network.state_dict()})
    plain, tensors = load_state(out / "resume.pt", "cpu")
    check_same(plain["settings"], settings, out)
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.atomic import replacing, write_text
from MedAILib.errors import InputError, InvalidWeights
from MedAILib.models.torchmodel import import_torch

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_PLAIN = "plain"


def save_state(path: Path, plain: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Replace the state in a file.

    Parameters
    ----------
    path : Path
    plain : mapping
        Values that JSON has.
    tensors : mapping
        States by torch's names, such as that of an optimizer.

    Raises
    ------
    OutputError
        The folder cannot take it; the state before stays.
    """
    torch = import_torch()
    with replacing(path) as partial:
        torch.save({_PLAIN: json.dumps(plain), **tensors}, partial)


def load_state(path: Path, device: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Plain values and tensors of a state; None where there is none.

    Raises
    ------
    InvalidWeights
        It is damaged.
    """
    torch = import_torch()
    if not path.is_file():
        return None
    try:
        stored = torch.load(path, map_location=device, weights_only=True)
        return json.loads(stored.pop(_PLAIN)), stored
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> InvalidWeights:
    """What to raise of a state that cannot be gone on from."""
    return InvalidWeights(
        f"The training state '{path}' is damaged.",
        why=f"{error}.",
        todo="Start the training again in another folder.",
    )


def check_same(before: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> None:
    """`InputError` that names every setting in which a request differs from the training it shall go on with."""
    was, wanted = (json.loads(json.dumps(item)) for item in (before, settings))
    names = sorted(name for name in {*wanted, *was} if wanted.get(name) != was.get(name))
    if names:
        raise InputError(
            f"The training in '{folder}' cannot be resumed: it was begun with other settings.",
            why=f"These differ: {', '.join(names)}.",
            todo="Give the same settings and data as before, or another folder.",
        )


def write_log(path: Path, kind: type[DataclassInstance], rows: Sequence[DataclassInstance]) -> None:
    """A training's log as CSV, a column for each field of its rows; raises `OutputError`."""
    names = [field.name for field in fields(kind)]
    lines = [",".join(names), *(",".join(_cell(getattr(row, name)) for name in names) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
