"""Models carried without a network: files recognised by hash whatever their name, and bundles."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_catalogues as make
import pytest
import weight_files
from hostile_system import full_disk

from MedAILib.errors import Cancelled, FileMissing, InputError, InvalidWeights, LicenceNotAccepted, OutputError
from MedAILib.models.bundle import MANIFEST
from MedAILib.models.manager import Manager
from MedAILib.models.states import State

STRICT = {"name": "A Strict Licence", "must_be_accepted": True}
CHECKPOINT = weight_files.safetensors_bytes({"fold": "1"})


def knee(**changes: Any) -> dict[str, Any]:
    """A model of two files, of which only the weights' hash is known, and that in part."""
    digest = hashlib.sha256(CHECKPOINT).hexdigest()
    weights = make.file("net/fold_1/checkpoint.safetensors", size=None, sha256=None, sha256_starts=digest[:10])
    plans = make.file("net/plans.json", role="other", size=None, sha256=None)
    return make.entry("knee", weights, plans, **changes)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def has_no_leftovers(manager: Manager) -> bool:
    """Nothing half-done below the store: no parts, no scratch folders."""
    return not [p for p in manager.home.rglob("*") if p.name.startswith(".") or p.suffix in (".taken", ".part")]


# Recognised by hash


@pytest.mark.parametrize("name", ["model.safetensors", "Neuer Ordner größe (2).bin", "downloaded"])
def test_a_file_is_recognised_by_its_hash_whatever_its_name(tmp_path: Path, name: str) -> None:
    manager = make.manager(tmp_path)
    found = manager.import_(write(tmp_path / "usb stick" / name, make.WEIGHTS))
    assert [record.id for record in found.installed] == ["trial"]
    assert manager.weights("trial").read_bytes() == make.WEIGHTS
    assert manager.verify("trial").state is State.INSTALLED
    assert has_no_leftovers(manager)


def test_an_unknown_file_is_named_by_its_hash_and_can_be_described(tmp_path: Path) -> None:
    manager = make.manager(tmp_path)
    path = write(tmp_path / "other.safetensors", CHECKPOINT)
    with pytest.raises(InputError) as caught:
        manager.import_(path)
    for word in ("SHA-256", "safetensors file", "medai models describe", "--as ID"):
        assert word in caught.value.text
    assert not (manager.home / "models").exists()


def test_one_file_belongs_to_every_model_that_names_its_hash(tmp_path: Path) -> None:
    manager = make.manager(tmp_path, make.entry("a"), make.entry("b", make.file("other name.safetensors")))
    found = manager.import_(write(tmp_path / "x", make.WEIGHTS))
    assert [record.id for record in found.installed] == ["a", "b"]


def test_a_folder_is_searched_and_the_rest_of_a_model_is_found_by_its_place(tmp_path: Path) -> None:
    manager = make.manager(tmp_path, make.entry(), knee())
    usb = tmp_path / "usb"
    write(usb / "deep" / "renamed.dat", make.WEIGHTS)
    write(usb / "net" / "fold_1" / "checkpoint.safetensors", CHECKPOINT)
    write(usb / "net" / "plans.json", b'{"plans": 1}')
    write(usb / "notes.txt", b"hello")
    write(usb / "pointer.pth", weight_files.LFS_POINTER)
    found = manager.import_(usb)
    assert sorted(record.id for record in found.installed) == ["knee", "trial"]
    assert {item.path.name: item.why for item in found.unknown}["pointer.pth"].startswith("It is a Git LFS pointer")
    assert {item.path.name for item in found.unknown} == {"notes.txt", "pointer.pth"}
    files = {file.path: file for file in manager.record("knee").files}  # type: ignore[union-attr]
    assert files["net/plans.json"].first_use
    assert (manager.path("knee") / "net" / "plans.json").read_bytes() == b'{"plans": 1}'


def test_half_a_model_is_not_installed_and_what_is_missing_is_named(tmp_path: Path) -> None:
    manager = make.manager(tmp_path, knee())
    with pytest.raises(InputError, match=r"net/plans\.json"):
        manager.import_(write(tmp_path / "usb" / "checkpoint.safetensors", CHECKPOINT))
    assert manager.state("knee").state is State.NOT_INSTALLED


def test_a_file_of_unknown_hash_can_be_named_and_is_expected_from_then_on(tmp_path: Path) -> None:
    entry = make.entry("trial", make.file(size=None, sha256=None))
    manager = make.manager(tmp_path, entry)
    path = write(tmp_path / "weights from a colleague.safetensors", make.WEIGHTS)
    with pytest.raises(InputError):
        manager.import_(path)
    manager.import_(path, as_model="trial")
    assert manager.record("trial").files[0].first_use  # type: ignore[union-attr]
    manager.remove("trial")
    assert [record.id for record in manager.import_(path).installed] == ["trial"]
    with pytest.raises(InputError):
        manager.import_(write(path, CHECKPOINT), as_model="trial")


def test_the_wrong_file_is_not_taken_for_a_model_of_known_hash(tmp_path: Path) -> None:
    manager = make.manager(tmp_path)
    with pytest.raises(InputError, match="only part of 'trial'"):
        manager.import_(write(tmp_path / "model.safetensors", CHECKPOINT), as_model="trial")


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar", "pack.tar.gz"])
def test_an_archive_is_unpacked_safely_and_taken_over(tmp_path: Path, name: str) -> None:
    manager = make.manager(tmp_path, make.entry(), knee())
    members = {"x/renamed": make.WEIGHTS, "x/net/fold_1/checkpoint.safetensors": CHECKPOINT, "x/net/plans.json": b"{}"}
    made = weight_files.zip_file if name.endswith("zip") else weight_files.tar_file
    found = manager.import_(made(tmp_path / name, members))
    assert sorted(record.id for record in found.installed) == ["knee", "trial"]
    assert has_no_leftovers(manager)


@pytest.mark.parametrize(
    "build",
    [
        lambda path: weight_files.zip_file(path, {"../evil": make.WEIGHTS}),
        lambda path: weight_files.zip_with_link(path),
        lambda path: weight_files.zip_file(path, {"zeros": bytes(200 << 20)}),
        lambda path: write(path, weight_files.LFS_POINTER),
        lambda path: write(path, b"PK\x03\x04" + bytes(50)),
    ],
    ids=["traversal", "link", "bomb", "pointer", "truncated"],
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path: Path, build: Callable[[Path], Path]) -> None:
    manager = make.manager(tmp_path)
    with pytest.raises(InvalidWeights):
        manager.import_(build(tmp_path / "a.zip"))
    assert not (tmp_path / "evil").exists()
    assert has_no_leftovers(manager)
    assert manager.state("trial").state is State.NOT_INSTALLED


def test_a_torch_file_is_no_archive_although_it_is_a_zip(tmp_path: Path) -> None:
    path = weight_files.torch_file(tmp_path / "model.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = make.entry("torch", make.file("model.pth", size=path.stat().st_size, sha256=digest))
    manager = make.manager(tmp_path, entry)
    assert [record.id for record in manager.import_(path).installed] == ["torch"]


def test_a_zip_that_is_itself_the_model_file_is_not_unpacked(tmp_path: Path) -> None:
    path = weight_files.zip_file(tmp_path / "bundle of x.zip", {"weights.txt": b"1 2 3"})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manager = make.manager(tmp_path, make.entry("z", make.file("model.zip", size=path.stat().st_size, sha256=digest)))
    manager.import_(path)
    assert manager.weights("z").name == "model.zip"


def test_a_dangerous_pickle_is_not_imported_even_where_its_hash_is_in_a_catalogue(tmp_path: Path) -> None:
    content = weight_files.evil_pickle()
    file = make.file("model.pth", size=len(content), sha256=hashlib.sha256(content).hexdigest())
    manager = make.manager(tmp_path, make.entry("evil", file))
    with pytest.raises(InvalidWeights, match="not safe"):
        manager.import_(write(tmp_path / "innocent", content))
    assert manager.state("evil").state is State.NOT_INSTALLED


def test_a_repository_folder_is_taken_under_a_name(tmp_path: Path) -> None:
    entry = make.entry("bert", files=None, repository={"hub": "some/bert", "include": ["*.safetensors", "config.json"]})
    manager = make.manager(tmp_path, entry)
    clone = tmp_path / "clone"
    write(clone / "model.safetensors", make.WEIGHTS)
    write(clone / "config.json", b"{}")
    write(clone / "README.md", b"hello")
    found = manager.import_(clone, as_model="bert")
    assert {file.path for file in found.installed[0].files} == {"model.safetensors", "config.json"}
    assert manager.verify("bert").state is State.INSTALLED


def test_a_licence_is_asked_for_before_importing(tmp_path: Path) -> None:
    manager = make.manager(tmp_path, make.entry(licence=STRICT))
    path = write(tmp_path / "x", make.WEIGHTS)
    with pytest.raises(LicenceNotAccepted):
        manager.import_(path)
    manager.import_(path, accept_licences=["trial"])
    assert manager.state("trial").state is State.INSTALLED


def test_what_is_not_there_or_empty_is_said(tmp_path: Path) -> None:
    manager = make.manager(tmp_path)
    with pytest.raises(FileMissing):
        manager.import_(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no files"):
        manager.import_(tmp_path / "empty")
    with pytest.raises(InvalidWeights, match="0 bytes"):
        manager.import_(write(tmp_path / "zero.pth", b""))


def test_an_import_can_be_cancelled_and_leaves_nothing(tmp_path: Path) -> None:
    manager = make.manager(tmp_path)
    with pytest.raises(Cancelled):
        manager.import_(write(tmp_path / "x", make.WEIGHTS), is_cancelled=lambda: True)
    assert has_no_leftovers(manager)


# Bundles


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of two models, made on a machine with a network."""
    there = make.manager(tmp_path / "there", make.entry(), knee())
    write(tmp_path / "usb" / "a", make.WEIGHTS)
    write(tmp_path / "usb" / "net" / "fold_1" / "checkpoint.safetensors", CHECKPOINT)
    write(tmp_path / "usb" / "net" / "plans.json", b"{}")
    there.import_(tmp_path / "usb")
    return there.export(["trial", "knee"], tmp_path / "für die Klinik.zip")


def test_a_bundle_takes_models_to_another_machine(tmp_path: Path, bundle: Path) -> None:
    here = make.manager(tmp_path / "here", make.entry(), knee())
    found = here.import_(bundle)
    assert sorted(record.id for record in found.installed) == ["knee", "trial"]
    assert here.weights("trial").read_bytes() == make.WEIGHTS
    assert here.verify("knee").state is State.INSTALLED
    assert "bundle" in found.installed[0].files[0].source
    with zipfile.ZipFile(bundle) as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}


def test_models_that_no_catalogue_knows_come_with_their_entry(tmp_path: Path, bundle: Path) -> None:
    here = Manager(tmp_path / "bare", shared=())
    here.import_(bundle)
    assert here.state("trial").state is State.INSTALLED
    assert "kidneys" in here.card("trial")
    again = Manager(tmp_path / "bare", shared=())
    assert again.catalogue.entry("trial").files[0].sha256 == make.SHA256


def test_one_model_of_a_bundle_can_be_chosen(tmp_path: Path, bundle: Path) -> None:
    here = make.manager(tmp_path / "here", make.entry(), knee())
    here.import_(bundle, as_model="trial")
    assert here.state("knee").state is State.NOT_INSTALLED
    with pytest.raises(InputError, match="does not hold 'other'"):
        here.import_(bundle, as_model="other")


def _changed(bundle: Path, path: Path, edit: Callable[[str, bytes], bytes | None]) -> Path:
    """A bundle with other contents."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = edit(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


def test_a_bundle_that_contradicts_itself_or_the_catalogue_is_refused(tmp_path: Path, bundle: Path) -> None:
    here = make.manager(tmp_path / "here", make.entry(), knee())

    def other_weights(name: str, content: bytes) -> bytes:
        return CHECKPOINT if name == "models/trial/model.safetensors" else content

    with pytest.raises(InvalidWeights, match="not the file it should be"):
        here.import_(_changed(bundle, tmp_path / "1.zip", other_weights))
    assert here.state("trial").state is not State.INSTALLED

    def other_manifest(name: str, content: bytes) -> bytes:
        return content.replace(make.SHA256.encode(), b"0" * 64) if name == MANIFEST else content

    with pytest.raises(InvalidWeights, match="another version"):
        here.import_(_changed(bundle, tmp_path / "2.zip", other_manifest))

    with pytest.raises(InvalidWeights, match="lacks"):
        here.import_(_changed(bundle, tmp_path / "3.zip", lambda n, c: None if n.endswith("plans.json") else c))

    def evil_path(name: str, content: bytes) -> bytes:
        return content.replace(b"net/plans.json", b"../../../evil") if name == MANIFEST else content

    with pytest.raises((InvalidWeights, InputError)):
        here.import_(_changed(bundle, tmp_path / "4.zip", evil_path))
    assert has_no_leftovers(here)


@pytest.mark.parametrize(
    "manifest", [b"", b"[]", b'{"bundle": 2, "models": []}', b'{"bundle": 1, "models": [3]}', b"{"]
)
def test_a_broken_manifest_is_refused(tmp_path: Path, bundle: Path, manifest: bytes) -> None:
    path = _changed(bundle, tmp_path / "b.zip", lambda name, content: manifest if name == MANIFEST else content)
    with pytest.raises(InvalidWeights):
        make.manager(tmp_path / "here").import_(path)


def test_a_file_that_a_manifest_only_smuggles_in_is_not_installed(tmp_path: Path, bundle: Path) -> None:
    def smuggle(name: str, content: bytes) -> bytes:
        if name != MANIFEST:
            return content
        manifest = json.loads(content)
        files = manifest["models"][0]["record"]["files"]
        files.append({**files[0], "path": "../../models/knee/net/plans.json"})
        return json.dumps(manifest).encode()

    path = _changed(bundle, tmp_path / "b.zip", smuggle)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("models/trial/other.json", b"{}")
    here = make.manager(tmp_path / "here", make.entry(), knee())
    with pytest.raises(InvalidWeights, match="lacks"):
        here.import_(path)


def test_a_bundle_of_a_whole_repository_needs_no_hub(tmp_path: Path) -> None:
    entry = make.entry("bert", files=None, repository={"hub": "some/bert", "include": ["*.safetensors", "config.json"]})
    there = make.manager(tmp_path / "there", entry)
    write(tmp_path / "clone" / "model.safetensors", make.WEIGHTS)
    write(tmp_path / "clone" / "config.json", b"{}")
    there.import_(tmp_path / "clone", as_model="bert")
    here = make.manager(tmp_path / "here", entry)
    here.import_(there.export(["bert"], tmp_path / "b.zip"))
    assert here.verify("bert").state is State.INSTALLED
    assert here.path("bert").joinpath("config.json").read_bytes() == b"{}"


def test_a_bundle_cut_short_is_refused(tmp_path: Path, bundle: Path) -> None:
    bundle.write_bytes(bundle.read_bytes()[:-200])
    with pytest.raises(InvalidWeights, match="cut short"):
        make.manager(tmp_path / "here").import_(bundle)


def test_a_licence_is_asked_for_before_anything_of_a_bundle_is_installed(tmp_path: Path, bundle: Path) -> None:
    here = make.manager(tmp_path / "here", make.entry(), knee(licence=STRICT))
    with pytest.raises(LicenceNotAccepted):
        here.import_(bundle)
    assert here.state("trial").state is State.NOT_INSTALLED
    here.import_(bundle, accept_licences=["knee"])
    assert here.state("knee").state is State.INSTALLED


def test_only_right_files_are_exported(tmp_path: Path, bundle: Path) -> None:
    there = make.manager(tmp_path / "there", make.entry(), knee())
    weights = there.weights("trial")
    stat = weights.stat()
    weights.write_bytes(make.WEIGHTS[:-4] + b"1234")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a fault of the disk changes no date
    with pytest.raises(InvalidWeights, match="not the file it should be"):
        there.export(["trial"], tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()
    with pytest.raises(InputError):
        there.export([], tmp_path / "out.zip")
    with pytest.raises(OutputError):
        there.export(["knee"], tmp_path / "no such folder" / "out.zip")


def test_a_full_disk_leaves_no_half_bundle(tmp_path: Path, bundle: Path) -> None:
    there = make.manager(tmp_path / "there", make.entry(), knee())
    with full_disk(100), pytest.raises(OutputError):
        there.export(["trial"], tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_a_manifest_says_what_is_in_it_for_people(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read(MANIFEST))
    assert manifest["bundle"] == 1
    assert manifest["models"][0]["entry"]["title"] == "A model called trial"
    assert manifest["models"][0]["record"]["files"][0]["sha256"] == make.SHA256
