"""How features are found, and how a broken one is kept apart."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import MedAILib
from MedAILib.errors import InputError, MissingPackage
from MedAILib.features import Feature, discover_features

GOOD = """
from MedAILib.features import Feature
FEATURE = Feature(name={name!r}, title="A title", tasks=("x.y:Z",), commands={commands!r})
"""


def _write_feature(folder: Path, library: str, text: str) -> None:
    package = folder / library
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "feature.py").write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder on the path of modules; what was imported from it is forgotten afterwards."""
    home = tmp_path / "Module mit ü"
    home.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(home))
    importlib.invalidate_caches()
    yield home
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_features_are_found_by_their_files(folder: Path) -> None:
    _write_feature(folder, "SecondFeatureLib", GOOD.format(name="second", commands=""))
    _write_feature(folder, "FirstFeatureLib", GOOD.format(name="first", commands=""))
    (folder / "OtherLib").mkdir()
    found = discover_features([str(folder)])
    assert [feature.name for feature in found.features] == ["first", "second"]
    assert found.features[0] == Feature("first", "A title", ("x.y:Z",))
    assert found.broken == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import a_package_nobody_has", "a_package_nobody_has"),
        ("1 / 0", "ZeroDivisionError"),
        ("this is no Python", "SyntaxError"),
        ("FEATURE = 3", "not a Feature"),
        ("", "FEATURE"),
    ],
)
def test_a_broken_feature_is_named_and_does_not_hinder_the_others(folder: Path, text: str, words: str) -> None:
    _write_feature(folder, "BadFeatureLib", text)
    _write_feature(folder, "GoodFeatureLib", GOOD.format(name="good", commands=""))
    found = discover_features([str(folder)])
    assert [feature.name for feature in found.features] == ["good"]
    assert [item.name for item in found.broken] == ["BadFeatureLib"]
    assert isinstance(found.broken[0].error, MissingPackage)
    assert words in found.broken[0].error.text


def test_an_error_of_our_hierarchy_is_kept(folder: Path) -> None:
    _write_feature(folder, "BadFeatureLib", "from MedAILib.errors import InputError\nraise InputError('No.')")
    assert isinstance(discover_features([str(folder)]).broken[0].error, InputError)


def test_a_feature_found_twice_is_listed_once(folder: Path) -> None:
    _write_feature(folder, "OneFeatureLib", GOOD.format(name="one", commands=""))
    assert len(discover_features([str(folder), str(folder), str(folder / "nowhere")]).features) == 1


def test_commands_are_imported_when_asked_for(folder: Path) -> None:
    _write_feature(folder, "CommandFeatureLib", GOOD.format(name="c", commands="CommandFeatureLib.command:add"))
    (folder / "CommandFeatureLib" / "command.py").write_text("def add(commands): return 'added'\n", encoding="ascii")
    feature = discover_features([str(folder)]).features[0]
    assert "CommandFeatureLib.command" not in sys.modules
    add = feature.load_commands()
    assert add is not None
    assert add(None) == "added"
    assert Feature("x", "X").load_commands() is None


def test_entry_points_come_first(folder: Path) -> None:
    _write_feature(folder, "PipFeatureLib", GOOD.format(name="pip", commands=""))
    metadata = folder / "pip_feature-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pip-feature\nVersion: 1.0\n", encoding="ascii")
    (metadata / "entry_points.txt").write_text("[medai.features]\np = PipFeatureLib.feature:FEATURE\n", "ascii")
    assert "pip" in [feature.name for feature in discover_features().features]


def test_the_features_beside_this_library_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(MedAILib.__file__).parents[2]
    beside = sorted(file.parent.name for file in home.glob("*/*Lib/feature.py"))
    if not beside:
        pytest.skip("no feature has a feature.py in this source tree")
    monkeypatch.setattr("MedAILib.features.ENTRY_POINTS", "medai.no_such_group")
    found = discover_features()
    assert found.broken == ()
    assert len(found.features) == len(beside)
