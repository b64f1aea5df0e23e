"""How a feature describes itself to the faces, and how the features of this machine are found.

The shared library imports no feature by name. A feature is a package with a module ``feature`` that has
an attribute ``FEATURE``; it is found through the entry-point group `ENTRY_POINTS` where it was installed
with pip, and by that file's name in Slicer and in a source tree.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedAILib.errors import MedAIError, MissingPackage

logger = logging.getLogger(__name__)

ENTRY_POINTS = "medai.features"
FEATURE_FILES = "*Lib/feature.py"


@dataclass(frozen=True)
class Feature:
    """What a feature offers. Everything is named by text, so that describing it loads nothing.

    Attributes
    ----------
    name : str
        Short, unique, lower case.
    title : str
        For people.
    tasks : tuple of str
        ``package.module:ClassName`` of every task.
    commands : str
        ``package.module:function``; the function takes the command line's sub-parsers and adds to them,
        see `MedAILib.cli.main`. Its module loads nothing heavy. Empty: no commands.
    models : str
        ``package:file.json``, the catalogue of the models it uses, see `MedAILib.models.catalogue`. Empty: none.
    """

    name: str
    title: str
    tasks: tuple[str, ...] = ()
    commands: str = ""
    models: str = ""

    def models_path(self) -> Path | None:
        """Where its catalogue of models lies; None where it has none. Nothing of the package is imported for it."""
        package, _, file = self.models.partition(":")
        spec = importlib.util.find_spec(package) if package else None
        places = (spec.submodule_search_locations or []) if spec else []
        return next((Path(place, file) for place in places if Path(place, file).is_file()), None)

    def load_commands(self) -> Callable[[Any], None] | None:
        """The function behind ``commands``, imported; None where there is none."""
        if not self.commands:
            return None
        module_name, _, function_name = self.commands.partition(":")
        found: Callable[[Any], None] = getattr(importlib.import_module(module_name), function_name)
        return found


@dataclass(frozen=True)
class BrokenFeature:
    """A feature that is there and cannot be used.

    Attributes
    ----------
    name : str
        Its name, or where it was found.
    error : MedAIError
    """

    name: str
    error: MedAIError


@dataclass(frozen=True)
class Discovery:
    """The features of this machine, by name."""

    features: tuple[Feature, ...] = ()
    broken: tuple[BrokenFeature, ...] = ()


def discover_features(search_path: Sequence[str] | None = None) -> Discovery:
    """Find the features of this machine; one that is broken is named and does not hinder the others.

    Parameters
    ----------
    search_path : sequence of str, optional
        Look for feature files on this path only, and not for entry points. Default: entry points, and
        where there are none, feature files on ``sys.path`` beside this library.
    """
    references = _by_entry_points() if search_path is None else []
    if not references:
        path = sys.path if search_path is None else search_path
        references = _by_files(path if search_path is not None else _beside_this_library(path))
    features: dict[str, Feature] = {}
    broken: list[BrokenFeature] = []
    for name, reference in references:
        try:
            feature = _load(reference)
            features.setdefault(feature.name, feature)
        except Exception as error:  # foreign code: whatever it does, the others go on
            broken.append(broken_feature(name, error))
    return Discovery(tuple(sorted(features.values(), key=lambda f: f.name)), tuple(broken))


def broken_feature(name: str, error: Exception) -> BrokenFeature:
    """A feature that failed, logged; any exception becomes an error for the user."""
    logger.info("feature %s cannot be used", name, exc_info=error)
    if not isinstance(error, MedAIError):
        error = MissingPackage(
            f"The feature '{name}' cannot be used.",
            why=f"{type(error).__name__}: {error}.",
            todo="Install the extension again; the other features work without it.",
        )
    return BrokenFeature(name, error)


def _load(reference: str) -> Feature:
    module_name, _, attribute = reference.partition(":")
    feature = getattr(importlib.import_module(module_name), attribute)
    if not isinstance(feature, Feature):
        raise TypeError(f"{reference} is a {type(feature).__name__}, not a Feature")
    return feature


def _by_entry_points() -> list[tuple[str, str]]:
    """Name and reference of every feature installed with pip."""
    from importlib.metadata import entry_points

    return sorted({(entry.name, entry.value) for entry in entry_points(group=ENTRY_POINTS)})


def _by_files(folders: Iterable[str | Path]) -> list[tuple[str, str]]:
    """Package and reference of every feature file on a path, the first of a name winning as in imports."""
    packages = (file.parent.name for folder in folders for file in sorted(Path(folder).glob(FEATURE_FILES)))
    return [(package, f"{package}.feature:FEATURE") for package in dict.fromkeys(packages)]


def _beside_this_library(path: Sequence[str]) -> list[Path]:
    """Folders of a path where our features lie.

    Slicer installs all modules into one folder, the one that holds this library; in a source tree every
    module has a folder of its own, beside the one that holds this library.
    """
    home = Path(__file__).resolve().parents[1]
    folders = dict.fromkeys(Path(entry).resolve() for entry in path if entry)
    return [folder for folder in folders if folder == home or folder.parent == home.parent]
