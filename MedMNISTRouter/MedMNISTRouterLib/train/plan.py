"""Which images the classes of a router are made of: MedMNIST's own files, or a plan for other ones.

A plan is a JSON file; paths are relative to it, or to the folder that the environment variable ``MEDAI_TEST_DATA``
names::

    {"id": "my-router", "title": "...", "licence": {"spdx": "CC-BY-4.0"}, "origin": "...", "limits": ["..."],
     "classes": [
       {"name": "chest radiograph of a child", "routes_to": ["pneumoniamnist"],
        "sources": [{"file": "pneumoniamnist.npz"}]},
       {"name": "head CT", "sources": [{"file": "other.npz", "labels": [5], "most": 500}]}]}

``routes_to`` names the data sets whose experts answer, best first; a class without is recognised and no expert
answers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedAILib.errors import InputError
from MedAILib.filekind import open_error
from MedMNISTRouterLib.datasets import BY_FLAG
from MedMNISTRouterLib.train.npzfile import flag_of

DATA_VARIABLE = "MEDAI_TEST_DATA"


@dataclass(frozen=True)
class Source:
    """Images of a class.

    Attributes
    ----------
    file : Path
    labels : tuple of int
        Only images with these labels; empty: all.
    most : int, optional
        At most so many of the training images.
    """

    file: Path
    labels: tuple[int, ...] = ()
    most: int | None = None


@dataclass(frozen=True)
class RouterClass:
    """A kind of image that the router tells from the others."""

    name: str
    sources: tuple[Source, ...]
    routes_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A router to be trained.

    Attributes
    ----------
    id, title : str
    classes : tuple of RouterClass
    licence : mapping of str to str
        Of the weights: fields of `MedAILib.models.config.Licence`.
    origin : str
        Where the images come from.
    limits : tuple of str
        For the model card.
    """

    id: str
    title: str
    classes: tuple[RouterClass, ...]
    licence: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    limits: tuple[str, ...] = ()


def plan_for(paths: Iterable[Path]) -> Plan:
    """The plan in a JSON file, or that of MedMNIST files and of folders with them, one class per data set.

    Raises
    ------
    InputError, FileMissing
    """
    given = list(paths)
    if len(given) == 1 and given[0].suffix == ".json":
        return read_plan(given[0])
    files = [file for path in given for file in (sorted(path.glob("*mnist*.npz")) if path.is_dir() else [path])]
    by_flag: dict[str, Path] = {}
    for file in files:
        flag = flag_of(file)
        if not flag or flag in by_flag:
            todo = "Name it as MedMNIST does (pneumoniamnist.npz, pneumoniamnist_64.npz), or write a plan."
            why = f"'{by_flag[flag]}' is of the same data set." if flag else "Its name is not one of MedMNIST's."
            raise InputError(f"'{file}' cannot be a class of the router.", why=why, todo=todo)
        by_flag[flag] = file
    classes = tuple(RouterClass(flag, (Source(by_flag[flag]),), (flag,)) for flag in sorted(by_flag))
    return _checked(Plan("medmnist-router", "MedMNIST router", classes), ", ".join(map(str, given)))


def read_plan(path: Path) -> Plan:
    """Read a plan; errors as of `plan_for`."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise open_error(path, error) from error
    except ValueError as error:
        raise InputError(f"The plan '{path}' is not JSON.", why=f"{error}.") from error
    try:
        classes = tuple(_class(item, path.parent) for item in stored["classes"])
        plan = Plan(
            id=str(stored["id"]),
            title=str(stored.get("title", stored["id"])),
            classes=classes,
            licence={str(name): str(text) for name, text in stored.get("licence", {}).items()},
            origin=str(stored.get("origin", "")),
            limits=tuple(map(str, stored.get("limits", ()))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"'{path}' is not a plan of a router.",
            why=f"{type(error).__name__}: {error}.",
            todo="It needs 'id' and 'classes', each with 'name' and 'sources', each with 'file'.",
        ) from error
    return _checked(plan, f"'{path}'")


def _class(item: Mapping[str, Any], folder: Path) -> RouterClass:
    sources = tuple(
        Source(_found(folder, str(source["file"])), tuple(map(int, source.get("labels", ()))), source.get("most"))
        for source in item["sources"]
    )
    return RouterClass(str(item["name"]), sources, tuple(map(str, item.get("routes_to", ()))))


def _found(folder: Path, file: str) -> Path:
    elsewhere = os.environ.get(DATA_VARIABLE)
    path = folder / file
    return Path(elsewhere, file) if elsewhere and not path.exists() else path


def _checked(plan: Plan, where: str) -> Plan:
    wrong = []
    if len(plan.classes) < 2:
        wrong.append(f"there are {len(plan.classes)} classes; a router tells at least 2 apart")
    names = [item.name for item in plan.classes]
    wrong += [
        f"the class '{name}' is there more than once" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    for item in plan.classes:
        wrong += [f"'{item.name}' has no sources"] if not item.sources else []
        wrong += [f"'{flag}' is no MedMNIST data set" for flag in item.routes_to if flag not in BY_FLAG]
    if wrong:
        raise InputError(f"{where} cannot be trained as a router: {'; '.join(wrong)}.")
    return plan
