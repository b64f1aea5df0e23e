"""The manager: states that are true, downloads that are checked, trust on first use, licences, shared stores."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import model_catalogues as make
import pytest
import weight_files
from weight_servers import COMMIT, HUB_TOKEN, HubServer, Reply, Seen, Served, WeightServer, sha256_of

from MedAILib.errors import (
    Cancelled,
    DownloadFailed,
    InputError,
    InvalidWeights,
    LicenceNotAccepted,
    ModelNotInstalled,
    OutputError,
)
from MedAILib.models.config import CONFIG_FILE, ModelConfig
from MedAILib.models.home import default_home, shared_homes
from MedAILib.models.manager import Manager
from MedAILib.models.states import State
from MedAILib.models.store import RECORD_FILE

SECOND = weight_files.safetensors_bytes({"origin": "another"})
MUST_ACCEPT = {"name": "A Strict Licence", "url": "https://example.org/licence", "must_be_accepted": True}


@pytest.fixture
def server() -> Any:
    """A server of weight files on this machine."""
    with WeightServer() as running:
        yield running


def served(
    server: WeightServer, path: str = "model.safetensors", content: bytes = make.WEIGHTS, **changes: Any
) -> dict:
    """A file of an entry, which the server has."""
    url = server.add(f"there/{path}", content)
    return make.file(path, size=len(content), sha256=sha256_of(content), sources=[{"url": url}], **changes)


def folder_of(manager: Manager, model_id: str = "trial") -> Path:
    return manager.home / "models" / model_id


# States


def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    manager = make.manager(tmp_path)
    assert manager.state("trial").state is State.NOT_INSTALLED
    with pytest.raises(ModelNotInstalled, match="medai models get trial"):
        manager.path("trial")
    assert not manager.home.exists()


def test_a_file_that_lies_there_is_not_installed(tmp_path: Path) -> None:
    manager = make.manager(tmp_path)
    folder_of(manager).mkdir(parents=True)
    (folder_of(manager) / "model.safetensors").write_bytes(b"x" * len(make.WEIGHTS))
    assert manager.state("trial").state is State.PARTIAL
    with pytest.raises(ModelNotInstalled, match="never verified"):
        manager.path("trial")
    with pytest.raises(ModelNotInstalled):
        manager.verify("trial")


def test_the_right_file_put_there_by_hand_is_taken_over_by_verifying(tmp_path: Path) -> None:
    manager = make.manager(tmp_path)
    folder_of(manager).mkdir(parents=True)
    (folder_of(manager) / "model.safetensors").write_bytes(make.WEIGHTS)
    assert manager.verify("trial").state is State.INSTALLED
    assert manager.weights("trial").read_bytes() == make.WEIGHTS


def test_a_download_is_verified_recorded_and_described(tmp_path: Path, server: WeightServer) -> None:
    entry = make.entry("trial", served(server), served(server, "parts/größe.json", b'{"a": 1}', role="other"))
    manager = make.manager(tmp_path, entry)
    seen: list[tuple[str, int, int | None]] = []
    folder = manager.get("trial", on_progress=lambda *about: seen.append(about))
    assert manager.state("trial").state is State.INSTALLED
    assert folder == manager.path("trial") == folder_of(manager)
    assert manager.weights("trial").read_bytes() == make.WEIGHTS
    record = manager.record("trial")
    assert record is not None
    assert [file.sha256 for file in record.files] == [make.SHA256, sha256_of(b'{"a": 1}')]
    assert not any(file.first_use for file in record.files)
    config = ModelConfig.load(folder / CONFIG_FILE)
    assert config.file_with_hash(make.SHA256) is not None
    assert (config.id, config.architecture.name, config.licence.spdx) == ("trial", "a-net", "MIT")
    total = len(make.WEIGHTS) + 8
    assert seen[-1] == ("downloading trial", total, total)
    requests = len(server.seen)
    assert manager.get("trial") == folder
    assert len(server.seen) == requests
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert names == {"model.safetensors", "größe.json", RECORD_FILE, CONFIG_FILE}


def test_a_changed_file_is_invalid_and_never_handed_out(tmp_path: Path, server: WeightServer) -> None:
    manager = make.manager(tmp_path, make.entry("trial", served(server)))
    weights = manager.get("trial") / "model.safetensors"
    time.sleep(0.01)
    weights.write_bytes(make.WEIGHTS[:-4] + b"\1\2\3\4")
    assert manager.state("trial").state is State.INVALID
    for ask in (manager.path, manager.verify):
        with pytest.raises(InvalidWeights, match="not the file it should be"):
            ask("trial")
    weights.write_bytes(make.WEIGHTS[:50])
    assert "50 bytes instead of" in manager.state("trial").why
    with pytest.raises(InvalidWeights):
        manager.path("trial")
    assert manager.get("trial") == weights.parent
    assert weights.read_bytes() == make.WEIGHTS


def test_a_file_that_was_only_touched_is_hashed_and_used(tmp_path: Path, server: WeightServer) -> None:
    manager = make.manager(tmp_path, make.entry("trial", served(server)))
    weights = manager.get("trial") / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    assert manager.state("trial").state is State.INVALID
    assert manager.path("trial") == weights.parent
    assert manager.state("trial").state is State.INSTALLED


def test_a_missing_file_makes_the_model_partial(tmp_path: Path, server: WeightServer) -> None:
    manager = make.manager(tmp_path, make.entry("trial", served(server)))
    (manager.get("trial") / "model.safetensors").unlink()
    status = manager.state("trial")
    assert status.state is State.PARTIAL
    assert "missing" in status.why


def test_a_new_version_in_the_catalogue_makes_the_old_file_invalid(tmp_path: Path, server: WeightServer) -> None:
    make.manager(tmp_path, make.entry("trial", served(server))).get("trial")
    newer = make.manager(tmp_path, make.entry("trial", served(server, content=SECOND)))
    assert "another version" in newer.state("trial").why
    assert newer.get("trial").joinpath("model.safetensors").read_bytes() == SECOND


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": 3}'])
def test_a_broken_record_counts_as_none(tmp_path: Path, server: WeightServer, content: str) -> None:
    manager = make.manager(tmp_path, make.entry("trial", served(server)))
    (manager.get("trial") / RECORD_FILE).write_text(content)
    assert manager.state("trial").state is State.PARTIAL
    assert manager.verify("trial").state is State.INSTALLED


def test_an_embedded_model_needs_no_download_and_is_checked(tmp_path: Path) -> None:
    shipped = tmp_path / "weights"
    shipped.mkdir()
    (shipped / "own.safetensors").write_bytes(make.WEIGHTS)
    embedded = make.file("own.safetensors", sources=[{"embedded": "weights/own.safetensors"}])
    manager = make.manager(tmp_path, make.entry("own", embedded))
    assert manager.state("own").state is State.EMBEDDED
    assert manager.weights("own") == shipped / "own.safetensors"
    assert manager.get("own") == shipped
    assert manager.verify("own").state is State.EMBEDDED
    with pytest.raises(OutputError, match="comes with the extension"):
        manager.remove("own")
    (shipped / "own.safetensors").write_bytes(weight_files.LFS_POINTER)
    assert manager.state("own").state is State.INVALID
    with pytest.raises(InvalidWeights, match="install MedAI again"):
        manager.path("own")


# What is downloaded is checked


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (weight_files.LFS_POINTER, "Git LFS pointer"),
        (weight_files.DRIVE_QUOTA_PAGE, "HTML|too many people"),
        (make.WEIGHTS[:200], "cut short|damaged"),
        (weight_files.evil_pickle(), "not safe|called"),
        (SECOND[:-1], "."),
    ],
    ids=["lfs", "quota", "short", "pickle", "shorter"],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_a_wrong_file_never_gets_its_final_name(
    tmp_path: Path, server: WeightServer, content: bytes, words: str, is_known: bool
) -> None:
    file = served(server)
    server.add("there/model.safetensors", content)
    if not is_known:
        file = {key: value for key, value in file.items() if key not in ("size", "sha256")}
    manager = make.manager(tmp_path, make.entry("trial", file))
    with pytest.raises((InvalidWeights, DownloadFailed)) as caught:
        manager.get("trial")
    if not is_known:
        assert re.search(words, caught.value.text)
    assert not (folder_of(manager) / "model.safetensors").exists()
    assert manager.state("trial").state in (State.NOT_INSTALLED, State.PARTIAL)


def test_a_hash_known_in_part_is_checked_and_then_recorded(tmp_path: Path, server: WeightServer) -> None:
    url = server.add("w", make.WEIGHTS)
    good = make.file(
        size=None, sha256=None, sha256_starts=make.SHA256[:8], sha256_ends=make.SHA256[-5:], sources=[{"url": url}]
    )
    manager = make.manager(tmp_path, make.entry("trial", good))
    manager.get("trial")
    assert manager.state("trial").state is State.INSTALLED
    bad = dict(good, sha256_starts="00000000")
    other = make.manager(tmp_path / "other", make.entry("trial", bad))
    with pytest.raises(InvalidWeights, match="00000000"):
        other.get("trial")
    assert not (folder_of(other) / "model.safetensors").exists()


def test_the_first_download_of_an_unknown_hash_is_recorded_and_expected_from_then_on(
    tmp_path: Path, server: WeightServer
) -> None:
    url = server.add("w", make.WEIGHTS)
    entry = make.entry("trial", make.file(size=None, sha256=None, sources=[{"url": url}]))
    manager = make.manager(tmp_path, entry)
    manager.get("trial")
    record = manager.record("trial")
    assert record is not None
    assert record.files[0].first_use
    assert record.files[0].sha256 == make.SHA256
    assert manager.remove("trial") > len(make.WEIGHTS)
    server.add("w", SECOND)
    with pytest.raises(DownloadFailed, match=r"(?i)sha-?256|another file|hash"):
        manager.get("trial")
    manager.remove("trial", forget_first_use=True)
    manager.get("trial")
    assert manager.weights("trial").read_bytes() == SECOND


def test_a_cancelled_download_is_partial_and_goes_on_where_it_stopped(tmp_path: Path, server: WeightServer) -> None:
    content = weight_files.safetensors_bytes({"long": "x" * 3_000_000})
    file = served(server, content=content)
    server.files["there/model.safetensors"].pause_s = 0.005  # type: ignore[union-attr]
    manager = make.manager(tmp_path, make.entry("trial", file))
    arrived = 0

    def on_progress(stage: str, done: int, total: int | None) -> None:
        nonlocal arrived
        arrived = done

    with pytest.raises(Cancelled):
        manager.get("trial", on_progress=on_progress, is_cancelled=lambda: arrived > 500_000)
    status = manager.state("trial")
    assert status.state is State.PARTIAL
    assert "goes on" in status.why
    assert status.bytes_here > 500_000
    sent = server.sent
    manager.get("trial")
    assert server.sent - sent < len(content) - 400_000


def test_two_threads_make_one_download(tmp_path: Path, server: WeightServer) -> None:
    entry = make.entry("trial", served(server))
    server.files["there/model.safetensors"].pause_s = 0.05  # type: ignore[union-attr]
    managers = [make.manager(tmp_path, entry) for _ in range(2)]
    results: list[Path] = []
    threads = [threading.Thread(target=lambda m=m: results.append(m.get("trial"))) for m in managers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 2
    assert len(server.bodies()) == 1


# Whole repositories of a hub


class ListingHub(HubServer):
    """A hub that also answers with the list of a repository's files."""

    def answer(self, asked: Seen) -> Reply | Served:
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", urlsplit(asked.path).path)
        if match is None:
            return super().answer(asked)
        repo, revision = match.groups()
        refusal = self._refusal(asked, repo, revision, next(iter(self.repos.get(repo, {"": b""}))))
        if refusal is not None:
            return refusal
        large = [
            {"rfilename": p, "size": len(c), "lfs": {"sha256": sha256_of(c), "size": len(c)}}
            for p, c in self.repos.get(repo, {}).items()
        ]
        small = [{"rfilename": p, "size": len(c)} for p, c in self.small_files.get(repo, {}).items()]
        body = json.dumps({"id": repo, "sha": self.commit, "siblings": large + small}).encode()
        return Reply(200, {"Content-Type": "application/json"}, body)


@pytest.fixture
def hub(server: WeightServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hub on this machine, and nobody signed in."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    with ListingHub(server) as running:
        running.add("some/model", "model.safetensors", make.WEIGHTS)
        running.add("some/model", "flax_model.msgpack", b"not wanted")
        running.small_files["some/model"] = {"config.json": b'{"model_type": "bert"}'}
        yield running


def repository(**changes: Any) -> dict[str, Any]:
    wanted = {"hub": "some/model", "include": ["*.safetensors", "config.json"]}
    return make.entry("trial", files=None, repository=wanted, **changes)


def test_a_whole_repository_is_fetched_at_one_commit(tmp_path: Path, hub: ListingHub) -> None:
    manager = make.manager(tmp_path, repository(), hub_endpoint=hub.address)
    folder = manager.get("trial")
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.safetensors", "config.json", RECORD_FILE, CONFIG_FILE}
    record = manager.record("trial")
    assert record is not None
    assert record.revision == COMMIT
    assert all(file.first_use for file in record.files)
    assert all("/resolve/main/" not in seen.path for seen in hub.seen)
    (folder / "model.safetensors").unlink()
    assert manager.state("trial").state is State.PARTIAL
    manager.get("trial")
    assert manager.verify("trial").state is State.INSTALLED


def test_a_gated_repository_says_whom_to_ask_and_opens_with_a_token(tmp_path: Path, hub: ListingHub) -> None:
    hub.gated.add("some/model")
    manager = make.manager(tmp_path, repository(gated=True), hub_endpoint=hub.address)
    with pytest.raises(DownloadFailed, match="accepted its licence"):
        manager.get("trial")
    manager.get("trial", token=HUB_TOKEN)
    assert manager.state("trial").state is State.INSTALLED
    assert HUB_TOKEN not in (folder_of(manager) / RECORD_FILE).read_text()


@pytest.mark.parametrize("answer", [b"no json", b"{}", b'{"sha": "x", "siblings": [{"rfilename": "../../evil"}]}'])
def test_a_list_that_cannot_be_understood_is_refused(tmp_path: Path, hub: ListingHub, answer: bytes) -> None:
    hub.answer = lambda asked: Reply(200, {}, answer)  # type: ignore[method-assign]
    manager = make.manager(tmp_path, repository(), hub_endpoint=hub.address)
    with pytest.raises(DownloadFailed, match="cannot be understood"):
        manager.get("trial")


def test_offline_mode_is_heeded(tmp_path: Path, hub: ListingHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE"):
        make.manager(tmp_path, repository(), hub_endpoint=hub.address).get("trial")
    assert hub.seen == []


# Licences


def test_a_licence_must_be_accepted_and_the_acceptance_is_recorded(tmp_path: Path, server: WeightServer) -> None:
    entry = make.entry("trial", served(server), licence=MUST_ACCEPT, terms="Cite it.")
    manager = make.manager(tmp_path, entry)
    with pytest.raises(LicenceNotAccepted) as caught:
        manager.get("trial")
    assert "A Strict Licence" in caught.value.text
    assert "--accept-licence trial" in caught.value.todo
    assert server.seen == []
    manager.get("trial", accept_licence=True)
    book = json.loads((manager.home / "licences.json").read_text())["trial"]
    assert book["licence"] == "A Strict Licence"
    assert len(book["text_sha256"]) == 64
    assert re.match(r"\d{4}-\d\d-\d\dT", book["date"])
    assert not manager.needs_acceptance("trial")
    assert manager.record("trial").licence == "A Strict Licence"  # type: ignore[union-attr]
    changed = make.manager(tmp_path, dict(entry, terms="Cite it, and pay."))
    assert changed.needs_acceptance("trial")


def test_a_model_that_nobody_offers_says_how_to_import_it(tmp_path: Path) -> None:
    manager = make.manager(tmp_path, make.entry("trial", make.file()))
    with pytest.raises(DownloadFailed, match="medai models import FILE --as trial"):
        manager.get("trial")


# Places


def test_a_shared_store_is_used_and_never_written(tmp_path: Path, server: WeightServer) -> None:
    entry = make.entry("trial", served(server))
    admin = make.manager(tmp_path / "shared", entry)
    admin.get("trial")
    (admin.home / "models" / "trial" / "model.safetensors").touch()  # as copying it there would
    before = {path: path.stat().st_mtime_ns for path in admin.home.rglob("*")}
    user = make.manager(tmp_path / "user", entry, shared=(admin.home,))
    status = user.state("trial")
    assert (status.state, status.is_shared) == (State.INVALID, True)
    assert user.path("trial") == folder_of(admin)
    assert user.state("trial").state is State.INSTALLED
    with pytest.raises(OutputError, match="shared store"):
        user.remove("trial")
    assert {path: path.stat().st_mtime_ns for path in admin.home.rglob("*")} == before
    assert user.get("trial") == folder_of(admin)


def test_a_good_model_of_ones_own_counts_before_a_broken_shared_one(tmp_path: Path, server: WeightServer) -> None:
    entry = make.entry("trial", served(server))
    admin = make.manager(tmp_path / "shared", entry)
    (admin.get("trial") / "model.safetensors").write_bytes(b"broken")
    user = make.manager(tmp_path / "user", entry, shared=(admin.home,))
    assert user.state("trial").state is State.INVALID
    assert user.get("trial") == folder_of(user)


def test_the_home_is_where_the_system_keeps_user_data(tmp_path: Path) -> None:
    assert default_home({"MEDAI_HOME": str(tmp_path / "ü x")}) == tmp_path / "ü x"
    assert default_home({"XDG_DATA_HOME": "/data"}, "linux") == Path("/data/medai")
    assert default_home({"XDG_DATA_HOME": "relative"}, "linux") == Path.home() / ".local/share/medai"
    assert default_home({"LOCALAPPDATA": "/local"}, "win32") == Path("/local/MedAI")
    assert default_home({}, "darwin") == Path.home() / "Library/Application Support/MedAI"
    both = os.pathsep.join([str(tmp_path / "a"), "", str(tmp_path / "b")])
    assert shared_homes({"MEDAI_SHARED_HOME": both}) == (tmp_path / "a", tmp_path / "b")


def test_users_add_models_of_their_own(tmp_path: Path) -> None:
    make.write(tmp_path / "catalogues" / "mine.json", make.entry("mine"))
    manager = Manager(tmp_path, shared=())
    assert manager.state("mine").state is State.NOT_INSTALLED
    assert "knee-nnunet-fullres" in manager.catalogue


def test_disk_use_removal_and_unknown_ids(tmp_path: Path, server: WeightServer) -> None:
    manager = make.manager(tmp_path, make.entry("trial", served(server)))
    assert manager.disk_use().total == 0
    manager.get("trial")
    use = manager.disk_use()
    assert use.models["trial"] > len(make.WEIGHTS)
    assert use.free > 0
    assert manager.remove("trial") == use.models["trial"]
    assert manager.remove("trial") == 0
    with pytest.raises(InputError, match="Did you mean trial"):
        manager.remove("trail")


def test_pruning_deletes_old_rests_and_leaves_everything_else(tmp_path: Path, server: WeightServer) -> None:
    manager = make.manager(tmp_path, make.entry("trial", served(server)))
    folder = manager.get("trial")
    old, young = folder / "old.part", folder / "young.part"
    scratch = manager.home / ".unpacked-dead"
    scratch.mkdir()
    stranger = manager.home / "models" / "stranger"
    stranger.mkdir()
    for path in (old, young, scratch / "x", stranger / "weights.pth"):
        path.write_bytes(b"1234")
    for path in (old, scratch):
        os.utime(path, (time.time() - 8 * 86400,) * 2)
    assert {item.path for item in manager.leftovers()} == {old, scratch, stranger}
    assert {item.path for item in manager.prune()} == {old, scratch}
    assert stranger.exists()
    assert young.exists()
    assert {item.path for item in manager.prune(unknown=True)} == {stranger}
    assert manager.state("trial").state is State.INSTALLED


def test_a_model_of_several_weight_files_has_no_single_one(tmp_path: Path, server: WeightServer) -> None:
    entry = make.entry("trial", served(server), served(server, "second.safetensors", SECOND))
    manager = make.manager(tmp_path, entry)
    manager.get("trial")
    with pytest.raises(InputError, match="2 weight files"):
        manager.weights("trial")


def test_looking_at_all_models_opens_no_weights(tmp_path: Path, server: WeightServer) -> None:
    manager = make.manager(tmp_path, make.entry("trial", served(server)))
    (manager.get("trial") / "model.safetensors").chmod(0)
    started = time.perf_counter()
    for _ in range(20):
        assert {entry.id: status.state for entry, status in manager.models()} == {"trial": State.INSTALLED}
    assert (time.perf_counter() - started) / 20 < 0.05
