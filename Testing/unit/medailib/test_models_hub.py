"""The model hub's protocol against a local hub, asked by its own library and by us."""

from __future__ import annotations

import logging
import sys

import pytest
from weight_servers import COMMIT, HUB_TOKEN, HubServer, WeightServer, loopback, sha256_of, some_bytes

from MedAILib.errors import DownloadFailed
from MedAILib.models.download import HttpsSource, HubSource, Network, download
from MedAILib.models.exchange import NetworkFailed
from MedAILib.models.hub import find_token, has_library, locate_on_hub
from MedAILib.models.partial import partial_bytes
from MedAILib.models.trouble import Trouble

CONTENT = some_bytes(200_000, seed=4)
SHA256 = sha256_of(CONTENT)
REPO = "aagatti/ShapeMedKnee"
SOURCE = HubSource(REPO, "models/weights ü.pth")


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def storage():
    with WeightServer() as running:
        yield running


@pytest.fixture
def hub(storage):
    with HubServer(storage) as running:
        running.add(REPO, SOURCE.path, CONTENT)
        running.small_files[REPO] = {"config.json": b'{"a": 1}'}
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture(params=["library", "our own request"])
def asked_by(request, monkeypatch):
    """Runs the test twice; a function that locates a source in that way."""
    by_library = request.param == "library"
    if by_library:
        pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

    def locate(source, hub, token="", **settings):
        return locate_on_hub(source, loopback(hub_endpoint=hub.address, **settings), token, use_library=by_library)

    locate.by_library = by_library
    return locate


def test_a_file_is_located_with_commit_size_and_sha256(asked_by, hub):
    located = asked_by(SOURCE, hub)
    assert (located.sha256, located.size, located.revision) == (SHA256, len(CONTENT), COMMIT)
    assert located.url == f"{hub.address}/{REPO}/resolve/{COMMIT}/models/weights%20%C3%BC.pth"
    agent = hub.seen[0].headers["user-agent"]
    assert ("hf_hub/" in agent) == asked_by.by_library
    assert {seen.method for seen in hub.seen} == {"HEAD"}


def test_a_small_file_has_no_sha256_and_keeps_its_size(asked_by, hub):
    located = asked_by(HubSource(REPO, "config.json"), hub)
    assert (located.sha256, located.size, located.revision) == ("", 8, COMMIT)


def test_a_repository_that_was_renamed_is_found(asked_by, hub):
    hub.moved["old/name"] = REPO
    assert asked_by(HubSource("old/name", SOURCE.path), hub).sha256 == SHA256


def test_a_gated_repository_names_the_page_of_its_licence(asked_by, hub):
    hub.gated.add(REPO)
    with pytest.raises(Trouble) as caught:
        asked_by(SOURCE, hub)
    error = caught.value.error
    assert "given only to people who accepted its licence" in error.what
    assert f"{hub.address}/{REPO}" in error.todo
    assert "HF_TOKEN" in error.todo


def test_a_gated_repository_tells_an_account_that_is_not_granted_from_a_missing_token(asked_by, hub):
    hub.gated.add(REPO)
    with pytest.raises(Trouble) as caught:
        asked_by(SOURCE, hub, token="hf_somebodyElse")
    assert "account of your access token was not granted" in caught.value.error.why
    assert asked_by(SOURCE, hub, token=HUB_TOKEN).sha256 == SHA256


@pytest.mark.parametrize(
    ("source", "token", "told"),
    [
        (HubSource("nobody/nothing", "w.pth"), "", "shows no repository nobody/nothing.* private and no access token"),
        (HubSource("nobody/nothing", "w.pth"), HUB_TOKEN, "shows no repository nobody/nothing. It does not exist"),
        (HubSource(REPO, "missing.pth"), "", "has no file 'missing.pth'"),
        (HubSource(REPO, SOURCE.path, "v9"), "", "has no revision 'v9'"),
        (SOURCE, "hf_expired", "does not accept the access token"),
    ],
)
def test_refusals_of_the_hub_are_explained(asked_by, hub, source, token, told):
    with pytest.raises(Trouble, match=told) as caught:
        asked_by(source, hub, token=token)
    assert not caught.value.is_temporary
    assert "hf_" not in caught.value.error.text


def test_a_mirror_that_gives_another_commit_than_the_pinned_one_is_refused(asked_by, hub):
    pinned = HubSource(REPO, SOURCE.path, COMMIT)
    assert asked_by(pinned, hub).revision == COMMIT
    hub._refusal = lambda *about: None
    with pytest.raises(Trouble, match="does not give the asked revision"):
        asked_by(HubSource(REPO, SOURCE.path, "f" * 40), hub)


def test_a_hub_that_is_not_there_is_named(asked_by, hub):
    with WeightServer() as gone:
        pass
    with pytest.raises(NetworkFailed):
        asked_by(SOURCE, gone, timeout_s=0.5)


def test_the_file_arrives_from_the_storage_and_the_storage_never_sees_the_token(asked_by, hub, storage, target, caplog):
    caplog.set_level(logging.DEBUG)
    hub.gated.add(REPO)
    network = loopback(hub_endpoint=hub.address)
    if asked_by.by_library:
        network = loopback(hub_endpoint=hub.address, proxies=None)
    got = download(SOURCE, target, token=HUB_TOKEN, network=network)
    assert target.read_bytes() == CONTENT
    assert (got.sha256, got.revision, got.trusted_on_first_use) == (SHA256, COMMIT, True)
    assert [seen.method for seen in hub.seen] == ["HEAD", "GET"]
    assert all(seen.headers["authorization"] == f"Bearer {HUB_TOKEN}" for seen in hub.seen)
    assert all("authorization" not in seen.headers for seen in storage.seen)
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("MedAILib"))
    assert HUB_TOKEN not in ours
    assert "secret-signature" not in ours


def test_an_interrupted_transfer_goes_on_from_the_storage(hub, storage, target):
    storage.add(SHA256, CONTENT, breaks_after=lambda count: 70_000)
    with pytest.raises(DownloadFailed):
        download(SOURCE, target, network=loopback(hub_endpoint=hub.address, attempts=1))
    assert partial_bytes(target) == 70_000
    storage.add(SHA256, CONTENT)
    got = download(SOURCE, target, network=loopback(hub_endpoint=hub.address))
    assert target.read_bytes() == CONTENT
    assert got.received_bytes == len(CONTENT) - 70_000


def test_bytes_that_are_not_what_the_hub_stated_are_refused(hub, storage, target):
    storage.add(SHA256, some_bytes(len(CONTENT), seed=8))
    with pytest.raises(DownloadFailed, match="is not the expected file"):
        download(SOURCE, target, network=loopback(hub_endpoint=hub.address))
    assert list(target.parent.iterdir()) == []


def test_a_hub_with_another_file_than_the_catalogue_is_refused_before_a_byte_is_fetched(hub, storage, target):
    with pytest.raises(DownloadFailed, match=f"sha256 is {SHA256} instead of {'c' * 64}"):
        download(SOURCE, target, sha256="c" * 64, network=loopback(hub_endpoint=hub.address))
    with pytest.raises(DownloadFailed, match="200,000 bytes instead of 5"):
        download(SOURCE, target, size=5, network=loopback(hub_endpoint=hub.address))
    assert storage.seen == []


def test_the_endpoint_of_the_environment_is_used(hub, target, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.address + "/")
    assert download(SOURCE, target, network=loopback()).sha256 == SHA256
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.hospital")
    with pytest.raises(DownloadFailed, match="Only https is safe"):
        download(SOURCE, target.with_name("other"), network=Network())


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_mode_asks_nobody(hub, target, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(DownloadFailed, match=r"Offline mode is on.*medai models import"):
        download(SOURCE, target, network=loopback(hub_endpoint=hub.address))
    assert hub.seen == []


def test_a_mirror_helps_where_the_hub_refuses(hub, storage, target):
    hub.gated.add(REPO)
    mirror = HttpsSource(storage.add("mirror/weights.pth", CONTENT))
    got = download([SOURCE, mirror], target, token="hf_somebodyElse", network=loopback(hub_endpoint=hub.address))
    assert got.source == mirror
    assert all("authorization" not in seen.headers for seen in storage.seen)


def test_without_the_library_our_own_request_asks(hub, target, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert not has_library()
    located = locate_on_hub(SOURCE, loopback(hub_endpoint=hub.address, proxies=None))
    assert located.sha256 == SHA256
    assert "slicer-medai/" in hub.seen[0].headers["user-agent"]


def test_the_token_of_the_user_is_found(monkeypatch, tmp_path):
    assert find_token() == ""
    (tmp_path / "hf home").mkdir()
    (tmp_path / "hf home" / "token").write_text("hf_stored\n")
    monkeypatch.delenv("HF_TOKEN_PATH")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf home"))
    assert find_token() == "hf_stored"
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    assert find_token() == "hf_environment"
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert find_token() == ""


def test_a_stored_token_opens_a_gated_repository(asked_by, hub, monkeypatch, tmp_path):
    hub.gated.add(REPO)
    (tmp_path / "token").write_text(HUB_TOKEN)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    assert asked_by(SOURCE, hub).sha256 == SHA256
