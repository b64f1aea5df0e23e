"""The catalogue: what ships is valid, what is wrong is said with its place, one broken file does not hinder others."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import model_catalogues as make
import pytest

from MedAILib.errors import InputError
from MedAILib.models.card import megabytes, model_card
from MedAILib.models.catalogue import OWN_CATALOGUE, Catalogue, read_catalogue, shipped_catalogues
from MedAILib.models.entries import HashKnowledge, ModelEntry, ModelFile, Place, Repository
from MedAILib.models.sources import DriveSource, HubSource
from MedAILib.models.tensors import file_sha256

SCHEMA_FILE = OWN_CATALOGUE.with_name("catalogue.schema.json")


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    """All catalogues that come with the features of the source tree."""
    return Catalogue(shipped_catalogues())


def test_every_shipped_catalogue_is_valid_and_names_the_public_models(shipped: Catalogue) -> None:
    assert shipped.problems == ()
    ids = {entry.id for entry in shipped}
    assert {"mem3d-vmn-youtube-vos", "knee-nnunet-fullres", "knee-dosma-bones-sagittal", "ct-colipri"} <= ids
    assert len(ids) >= 14


def test_the_sources_are_those_that_their_authors_published(shipped: Catalogue) -> None:
    vmn = shipped.entry("mem3d-vmn-youtube-vos").files[0]
    assert vmn.sources[0].source(vmn.path) == DriveSource("1nzhFYOJx3rzvnO8o6g-D1MMA6iQ4VYpw")
    sagittal = shipped.entry("knee-dosma-bones-sagittal").files[0]
    assert sagittal.sources[0].source(sagittal.path) == HubSource("aagatti/dosma_bones", "sagittal_best_model.h5")
    checkpoint = shipped.entry("knee-nnunet-fullres").files[-1]
    assert checkpoint.agrees_with("ced27b5e" + 51 * "0" + "65d1a")
    assert not checkpoint.agrees_with("ced27b5e" + 56 * "0")
    assert shipped.entry("knee-nsm-femur-bone").gated


def test_no_hash_is_made_up(shipped: Catalogue) -> None:
    for entry in shipped:
        for file in entry.files:
            if file.embedded:
                assert file.sha256 == file_sha256(shipped.embedded_path(entry, file)), "renew the catalogue's entry"
            else:
                assert file.sha256 == "", "enter the full hash here only where it was computed from the real file"


def test_every_shipped_entry_has_a_card_licence_and_intended_use(shipped: Catalogue) -> None:
    for entry in shipped:
        card = model_card(entry)
        for part in (entry.title, entry.id, entry.licence.name or entry.licence.spdx, "Research only"):
            assert part and part in card
        comes_with_us = any(file.embedded for file in entry.files)
        assert comes_with_us or entry.homepage.startswith("https://")
        assert not entry.licence.must_be_accepted or entry.terms


def test_search_finds_words_in_titles_classes_and_modalities(shipped: Catalogue) -> None:
    assert {entry.feature for entry in shipped.search("cartilage patella MR")} == {"knee"}
    assert shipped.search("cartilage", feature="ct") == ()
    assert len(shipped.search("")) == len(shipped)


def test_an_unknown_id_is_answered_with_similar_ones(shipped: Catalogue) -> None:
    with pytest.raises(InputError, match="knee-nnunet-fullres"):
        shipped.entry("knee-nnunet-fulres")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "Big Id"}, "$.models[0].id"),
        ({"title": None}, "'title'"),
        ({"title": 3}, "$.models[0].title must be a text"),
        ({"surprise": 1}, "$.models[0].surprise"),
        ({"files": [make.file(sha256="abc")]}, "$.models[0].files[0].sha256"),
        ({"files": [make.file(path="../x.pth")]}, "files[0].path"),
        ({"files": [make.file(path="/etc/x")]}, "files[0].path"),
        ({"files": [make.file(), make.file()]}, "more than once"),
        ({"files": []}, "either files or a repository"),
        ({"files": [make.file(size=-1)]}, "files[0].size"),
        ({"files": [make.file(sources=[{}])]}, "sources[0] must have exactly one"),
        ({"files": [make.file(sources=[{"drive": "12345678", "url": "https://x.org/y"}])]}, "exactly one"),
        ({"files": [make.file(sources=[{"url": "ftp://x.org/y"}])]}, "sources[0] cannot be used"),
        ({"files": [make.file(sources=[{"hub": "a b"}])]}, "sources[0] cannot be used"),
        ({"files": [make.file(sources=[{"embedded": "../../x"}])]}, "embedded"),
        ({"licence": {"must_be_accepted": "yes"}}, "$.models[0].licence.must_be_accepted"),
        ({"repository": {"hub": "a/b"}}, "either files or a repository"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_catalogue(make.write(tmp_path / "c.json", make.entry(**changes)))
    assert words in caught.value.text
    assert str(tmp_path / "c.json") in caught.value.what


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_catalogue(make.write(tmp_path / "c.json", make.entry(title=1), make.entry("other", task=2)))
    assert "$.models[0].title" in caught.value.what
    assert "$.models[1].task" in caught.value.what


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b'{"schema": 2, "models": []}', b"\xff\xfe"])
def test_a_broken_catalogue_is_named_and_the_others_are_used(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken ü.json"
    broken.write_bytes(content)
    catalogue = Catalogue([broken, make.write(tmp_path / "good.json", make.entry()), tmp_path / "absent.json"])
    assert [entry.id for entry in catalogue] == ["trial"]
    assert len(catalogue.problems) == 2
    assert "broken ü.json" in catalogue.problems[0].text


def test_the_first_of_two_models_of_one_id_counts_and_the_other_is_reported(tmp_path: Path) -> None:
    first = make.write(tmp_path / "1.json", make.entry())
    evil = make.write(tmp_path / "2.json", make.entry(files=[make.file(sha256="0" * 64)]))
    catalogue = Catalogue([first, evil])
    assert catalogue.entry("trial").files[0].sha256 == make.SHA256
    assert "left out" in catalogue.problems[0].what
    assert Catalogue([first, first]).problems == ()


def test_a_hash_finds_every_model_it_belongs_to(tmp_path: Path) -> None:
    partly = make.file(sha256=None, sha256_starts=make.SHA256[:8], sha256_ends=make.SHA256[-4:])
    barely = make.file(sha256=None, sha256_starts=make.SHA256[:4])
    entries = (
        make.entry("a"),
        make.entry("b", partly),
        make.entry("c", barely),
        make.entry("d", make.file("x", sha256=None)),
    )
    catalogue = Catalogue([make.write(tmp_path / "c.json", *entries)])
    assert [entry.id for entry, _ in catalogue.with_hash(make.SHA256)] == ["a", "b"]
    assert [catalogue.entry(name).knowledge for name in "abcd"] == [
        HashKnowledge.FULL,
        HashKnowledge.PART,
        HashKnowledge.PART,
        HashKnowledge.NONE,
    ]


def test_sizes_are_written_for_people() -> None:
    assert [megabytes(count) for count in (None, 20_000, 156_100_000, 16_100_000_000)] == [
        "? MB",
        "20 kB",
        "156 MB",
        "16.1 GB",
    ]


# The schema file agrees with the code


def _properties(kind: type) -> tuple[set[str], set[str]]:
    names = {spec.name for spec in fields(kind) if spec.name != "extra"}  # type: ignore[arg-type]
    required = {s.name for s in fields(kind) if s.default is MISSING and s.default_factory is MISSING}  # type: ignore[arg-type]
    return names, required - {"extra"}


def _records(kind: type, found: dict[str, type]) -> dict[str, type]:
    """The record and all records within it, by name."""
    found[kind.__name__] = kind
    waiting = list(get_type_hints(kind).values())
    while waiting:
        hint = waiting.pop()
        waiting.extend(get_args(hint))
        if is_dataclass(hint) and hint.__name__ not in found:  # type: ignore[union-attr]
            _records(hint, found)  # type: ignore[arg-type]
    return found


def test_the_schema_file_describes_exactly_the_fields_that_are_read() -> None:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    definitions = schema["$defs"]
    kinds = _records(ModelEntry, {})
    assert {ModelEntry, ModelFile, Place, Repository} <= set(kinds.values())
    assert set(definitions) == set(kinds)
    for name, kind in kinds.items():
        properties, required = _properties(kind)
        assert set(definitions[name]["properties"]) == properties, name
        assert set(definitions[name].get("required", [])) == required, name
        for field_name, hint in get_type_hints(kind).items():
            enums = [h for h in (hint, *get_args(hint)) if isinstance(h, type) and issubclass(h, Enum)]
            for enum in enums:
                assert definitions[name]["properties"][field_name]["enum"] == [item.value for item in enum], field_name


def test_the_shipped_catalogues_fit_the_schema_file() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    for path in shipped_catalogues():
        jsonschema.validate(json.loads(path.read_text(encoding="utf-8")), schema)
