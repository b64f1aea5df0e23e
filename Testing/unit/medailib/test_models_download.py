"""A download ends in the right file or in no file, whatever the network, the server and the machine do."""

from __future__ import annotations

import json
import logging
import random
import threading
import time

import pytest
from hostile_system import full_disk
from weight_servers import (
    DRIVE_ID,
    Reply,
    Served,
    TunnelProxy,
    WeightServer,
    loopback,
    make_certificate,
    sha256_of,
    some_bytes,
)

from MedAILib.errors import Cancelled, DownloadFailed, InputError, OutputError
from MedAILib.models.download import DriveSource, HttpsSource, HubSource, Network, download
from MedAILib.models.partial import part_path, partial_bytes, record_path
from MedAILib.models.trouble import retry_after_s

CONTENT = some_bytes(300_000)
SHA256 = sha256_of(CONTENT)
TOKEN = "hf_secretOfTheUser"


@pytest.fixture
def server():
    with WeightServer() as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "models" / "weights.pth"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    made = make_certificate(tmp_path_factory.mktemp("certificate"))
    if made is None:
        pytest.skip("there is no openssl to make a certificate with")
    return made


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def leave_a_part(server, target, sha256=SHA256, after=100_000, **how):
    """An interrupted run of 'weights.pth' from the server; returns the source."""
    url = server.add("weights.pth", CONTENT, breaks_after=lambda count: after, **how)
    with pytest.raises(DownloadFailed):
        download(HttpsSource(url), target, sha256=sha256, network=loopback(attempts=1))
    assert partial_bytes(target) == after
    assert not target.exists()
    server.seen.clear()
    server.add("weights.pth", CONTENT, **how)
    return HttpsSource(url)


# What comes out


def test_a_file_arrives_whole_and_nothing_else_remains(server, target):
    url = server.add("weights.pth", CONTENT)
    got = download(HttpsSource(url), target, size=len(CONTENT), sha256=SHA256.upper(), network=loopback())
    assert target.read_bytes() == CONTENT
    assert (got.path, got.sha256, got.size, got.received_bytes) == (target, SHA256, len(CONTENT), len(CONTENT))
    assert got.source == HttpsSource(url)
    assert got.etag == '"v1"'
    assert not got.trusted_on_first_use
    assert names(target.parent) == ["weights.pth"]
    assert server.seen[0].headers["accept-encoding"] == "identity"


def test_without_a_hash_the_first_download_is_said_to_be_trusted(server, target):
    got = download(HttpsSource(server.add("w", CONTENT)), target, network=loopback())
    assert got.trusted_on_first_use
    assert got.sha256 == SHA256


def test_a_file_that_is_there_with_the_right_hash_needs_no_network(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    (target.parent / "weights.pth.part.json").write_text("{}")
    got = download(HttpsSource(server.url("w")), target, sha256=SHA256, network=loopback())
    assert got.source is None
    assert got.received_bytes == 0
    assert server.seen == []
    assert names(target.parent) == ["weights.pth"]


def test_a_file_that_is_there_with_another_hash_is_replaced(server, target):
    target.parent.mkdir()
    target.write_bytes(b"a placeholder")
    download(HttpsSource(server.add("w", CONTENT)), target, sha256=SHA256, network=loopback())
    assert target.read_bytes() == CONTENT


def test_an_empty_file_is_a_file(server, target):
    got = download(HttpsSource(server.add("w", b"")), target, sha256=sha256_of(b""), network=loopback())
    assert got.size == 0
    assert target.read_bytes() == b""


def test_spaces_and_letters_of_other_alphabets_work_in_addresses_and_paths(server, tmp_path):
    server.add("models/Knie männlich 東.pth", CONTENT)
    target = tmp_path / "Gewichte für 東 京" / "Knie männlich.pth"
    source = HttpsSource(f"{server.address}/models/Knie männlich 東.pth")
    assert download(source, target, sha256=SHA256, network=loopback()).path.read_bytes() == CONTENT


def test_progress_is_told_in_bytes_and_ends_at_the_size(server, target):
    told = []
    url = server.add("w", CONTENT, pause_s=0.02)
    download(HttpsSource(url), target, on_progress=lambda done, total: told.append((done, total)), network=loopback())
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)
    assert 3 <= len(told) <= 20


# Going on


def test_a_later_run_fetches_only_what_is_missing(server, target):
    source = leave_a_part(server, target)
    got = download(source, target, sha256=SHA256, network=loopback())
    assert target.read_bytes() == CONTENT
    assert got.received_bytes == len(CONTENT) - 100_000
    assert [seen.headers["range"] for seen in server.seen] == ["bytes=100000-"]
    assert server.seen[0].headers["if-range"] == '"v1"'
    assert names(target.parent) == ["weights.pth"]


def test_a_later_run_goes_on_without_knowing_a_hash(server, target):
    source = leave_a_part(server, target, sha256=None)
    got = download(source, target, network=loopback())
    assert target.read_bytes() == CONTENT
    assert got.received_bytes == len(CONTENT) - 100_000


def test_connections_that_break_at_random_bytes_do_not_matter(server, target):
    rng = random.Random(1)
    url = server.add("w", CONTENT, breaks_after=lambda count: rng.randrange(count + 1) if count > 30_000 else None)
    download(HttpsSource(url), target, sha256=SHA256, network=loopback(attempts=20))
    assert target.read_bytes() == CONTENT
    assert len(server.seen) > 3


def test_a_file_exchanged_between_two_runs_is_fetched_from_its_beginning(server, target):
    source = leave_a_part(server, target, sha256=None)
    other = some_bytes(200_000, seed=9)
    server.add("weights.pth", other, etag='"v2"')
    got = download(source, target, network=loopback())
    assert target.read_bytes() == other
    assert got.etag == '"v2"'


def test_a_server_that_overlooks_if_range_is_caught_by_its_etag(server, target):
    source = leave_a_part(server, target, sha256=None)
    other = some_bytes(300_000, seed=9)
    server.add("weights.pth", other, etag='"v2"', honours_if_range=False)
    download(source, target, network=loopback())
    assert target.read_bytes() == other


def test_a_server_that_sends_everything_again_is_understood(server, target):
    source = leave_a_part(server, target, honours_range=False)
    got = download(source, target, sha256=SHA256, network=loopback())
    assert target.read_bytes() == CONTENT
    assert got.received_bytes == len(CONTENT)


def test_a_file_that_became_shorter_than_the_part_is_fetched_anew(server, target):
    source = leave_a_part(server, target, sha256=None)
    shorter = some_bytes(50_000, seed=3)
    server.add("weights.pth", shorter, etag='"v1"')  # a server that lies about its version, so that it answers 416
    download(source, target, network=loopback())
    assert target.read_bytes() == shorter
    assert len(server.seen) == 2


def test_without_a_version_and_without_a_hash_nothing_is_stitched(server, target):
    source = leave_a_part(server, target, sha256=None, etag='W/"weak"', last_modified="")
    got = download(source, target, network=loopback())
    assert got.received_bytes == len(CONTENT)
    assert "range" not in server.seen[0].headers


def test_a_part_that_rotted_on_the_disk_is_not_used(server, target):
    source = leave_a_part(server, target, sha256=None)
    with part_path(target).open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"XX")
    got = download(source, target, network=loopback())
    assert target.read_bytes() == CONTENT
    assert got.received_bytes == len(CONTENT)


def test_without_a_hash_bytes_that_were_not_safely_on_the_disk_are_fetched_again(server, target):
    """A power failure may leave zeros at the end of a part."""
    source = leave_a_part(server, target, sha256=None)
    with part_path(target).open("ab") as stream:
        stream.write(bytes(60_000))
    got = download(source, target, network=loopback())
    assert target.read_bytes() == CONTENT
    assert got.received_bytes == len(CONTENT) - 100_000


def test_with_a_hash_a_part_with_a_wrong_end_costs_one_more_transfer_and_no_failure(server, target):
    source = leave_a_part(server, target)
    with part_path(target).open("ab") as stream:
        stream.write(bytes(60_000))
    download(source, target, sha256=SHA256, network=loopback())
    assert target.read_bytes() == CONTENT
    assert [seen.headers.get("range") for seen in server.seen] == ["bytes=160000-", None]


@pytest.mark.parametrize("note", ["", "{", "[]", '{"source": 5}', '{"durable_bytes": -7}'])
def test_a_damaged_note_beside_the_part_vouches_for_nothing(server, target, note):
    source = leave_a_part(server, target, sha256=None)
    record_path(target).write_text(note)
    download(source, target, network=loopback())
    assert target.read_bytes() == CONTENT


def test_a_run_killed_between_the_last_byte_and_the_final_name_needs_no_bytes(server, target):
    source = leave_a_part(server, target)
    part_path(target).write_bytes(CONTENT)
    got = download(source, target, size=len(CONTENT), sha256=SHA256, network=loopback())
    assert target.read_bytes() == CONTENT
    assert got.received_bytes == 0
    assert server.seen == []


def test_without_a_hash_a_complete_part_is_confirmed_by_its_last_byte(server, target):
    source = leave_a_part(server, target, sha256=None)
    part_path(target).write_bytes(CONTENT)
    record = {**json.loads(record_path(target).read_text()), "durable_bytes": len(CONTENT), "durable_sha256": SHA256}
    record_path(target).write_text(json.dumps(record))
    got = download(source, target, network=loopback())
    assert got.received_bytes == 1
    assert target.read_bytes() == CONTENT


def test_a_part_of_another_file_is_not_continued(server, target):
    leave_a_part(server, target)
    other = some_bytes(250_000, seed=7)
    url = server.add("other.pth", other)
    got = download(HttpsSource(url), target, sha256=sha256_of(other), network=loopback())
    assert got.received_bytes == len(other)


# What is refused


def test_a_wrong_hash_leaves_nothing_and_is_not_tried_twice(server, target):
    url = server.add("w", CONTENT)
    with pytest.raises(DownloadFailed, match=rf"sha256 is {SHA256} instead of {'a' * 64}") as caught:
        download(HttpsSource(url), target, sha256="a" * 64, network=loopback())
    assert len(server.seen) == 1
    assert names(target.parent) == []
    assert "medai models import" in caught.value.todo


def test_a_wrong_hash_of_stitched_pieces_earns_one_more_try_and_not_more(server, target):
    url = server.add("w", CONTENT, breaks_after=lambda count: 150_000)
    with pytest.raises(DownloadFailed, match="sha256 is"):
        download(HttpsSource(url), target, sha256="a" * 64, network=loopback())
    assert [seen.headers.get("range") for seen in server.seen] == [None, "bytes=150000-"] * 2


def test_a_wrong_size_is_refused_before_a_byte_is_fetched(server, target):
    url = server.add("w", CONTENT, pause_s=0.5)
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match="300,000 bytes instead of 299,999"):
        download(HttpsSource(url), target, size=299_999, network=loopback())
    assert time.monotonic() - started < 1
    assert names(target.parent) == []


def test_a_chunked_answer_without_a_length_arrives_whole(server, target):
    url = server.add("w", CONTENT, chunked=True)
    assert download(HttpsSource(url), target, network=loopback()).sha256 == SHA256


def test_a_chunked_answer_that_breaks_is_not_taken_for_the_file(server, target):
    url = server.add("w", CONTENT, chunked=True, breaks_after=lambda count: 100_000, honours_range=False)
    with pytest.raises(DownloadFailed, match="connection"):
        download(HttpsSource(url), target, network=loopback(attempts=2))
    assert not target.exists()


def test_a_chunked_answer_longer_than_the_file_is_refused(server, target):
    url = server.add("w", CONTENT, chunked=True)
    with pytest.raises(DownloadFailed, match="is not the expected file"):
        download(HttpsSource(url), target, size=150_000, network=loopback())
    assert names(target.parent) == []


def test_an_answer_whose_end_cannot_be_told_from_a_break_is_refused_without_a_hash(server, target):
    url = server.add("w", CONTENT, tells_length=False)
    with pytest.raises(DownloadFailed, match="complete cannot be known"):
        download(HttpsSource(url), target, network=loopback())
    assert download(HttpsSource(url), target, sha256=SHA256, network=loopback()).size == len(CONTENT)


@pytest.mark.parametrize("sha256", [None, "b" * 64])
def test_a_web_page_in_place_of_the_file_is_named(server, target, sha256):
    page = b"<!DOCTYPE html><html><title>Please log in to the hospital's network</title></html>"
    url = server.add("w", page, headers={"Content-Type": "text/html"})
    with pytest.raises(DownloadFailed, match="an HTML page"):
        download(HttpsSource(url), target, sha256=sha256, network=loopback())
    assert names(target.parent) == []


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"<html><body>no type told</body></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 155\n", "Git LFS pointer"),
        (b'{"error": "Rate limit exceeded"}', "Rate limit exceeded"),
    ],
)
def test_a_placeholder_is_named_from_its_first_bytes(server, target, content, name):
    with pytest.raises(DownloadFailed, match=name):
        download(HttpsSource(server.add("w", content)), target, network=loopback())
    assert names(target.parent) == []


def test_a_compressed_transfer_is_refused(server, target):
    url = server.add("w", CONTENT, headers={"Content-Encoding": "gzip"})
    with pytest.raises(DownloadFailed, match=r"compresses the transfer \(gzip\)"):
        download(HttpsSource(url), target, sha256=SHA256, network=loopback())


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (401, {}, "signed-in people only"),
        (403, {}, "Access to .* was refused"),
        (404, {}, "There is no file at"),
        (418, {}, "with answer 418"),
        (429, {"Retry-After": "3600"}, "too many requests.* Try again in 60 minutes"),
        (500, {}, "a problem of its own"),
        (503, {"Retry-After": "Wed, 01 Jul 2099 10:00:00 GMT"}, "hours"),
        (302, {"Location": "/w"}, "in a circle"),
        (302, {}, "leads nowhere"),
    ],
)
def test_an_answer_other_than_the_file_is_explained(server, target, status, headers, told):
    url = server.add_reply("w", Reply(status, headers))
    with pytest.raises(DownloadFailed, match=told) as caught:
        download(HttpsSource(url), target, network=loopback(attempts=2))
    assert caught.value.todo
    assert names(target.parent) == []


def test_a_server_that_is_busy_for_a_moment_is_asked_again(server, target):
    url = server.add_reply("w", Reply(503), Reply(429, {"Retry-After": "0"}), Served(CONTENT))
    assert download(HttpsSource(url), target, sha256=SHA256, network=loopback()).size == len(CONTENT)


def test_the_pause_a_server_asks_for_is_made(server, target):
    url = server.add_reply("w", Reply(429, {"Retry-After": "1"}), Served(CONTENT))
    started = time.monotonic()
    download(HttpsSource(url), target, sha256=SHA256, network=loopback())
    assert time.monotonic() - started >= 1


def test_a_pause_may_be_asked_for_in_several_ways():
    assert retry_after_s("17") == 17
    assert retry_after_s("Wed, 01 Jul 2015 10:00:00 GMT") == 0
    assert retry_after_s("soon") == retry_after_s("") == 0


def test_a_missing_file_is_not_asked_for_twice(server, target):
    with pytest.raises(DownloadFailed):
        download(HttpsSource(server.url("nothing")), target, network=loopback())
    assert len(server.seen) == 1


# Mirrors


def test_the_next_mirror_is_asked_when_one_has_another_file(server, target):
    bad, good = server.add("bad", some_bytes(300_000, seed=5)), server.add("good", CONTENT)
    got = download([HttpsSource(bad), HttpsSource(good)], target, sha256=SHA256, network=loopback())
    assert got.source == HttpsSource(good)
    assert target.read_bytes() == CONTENT
    assert [seen.path for seen in server.seen] == ["/bad", "/good"]


def test_with_a_hash_a_mirror_continues_what_another_one_began(server, target):
    first = server.add("first", CONTENT, breaks_after=lambda count: 100_000 if count == len(CONTENT) else 0)
    second = server.add("second", CONTENT, etag='"of the mirror"')
    sources = [HttpsSource(first), HttpsSource(second)]
    got = download(sources, target, sha256=SHA256, network=loopback(attempts=2))
    assert got.received_bytes == len(CONTENT) - 100_000
    assert "if-range" not in server.seen[-1].headers
    assert target.read_bytes() == CONTENT


def test_without_a_hash_a_mirror_begins_anew(server, target):
    first = server.add("first", CONTENT, breaks_after=lambda count: 100_000 if count == len(CONTENT) else 0)
    other = some_bytes(300_000, seed=2)
    second = server.add("second", other)
    download([HttpsSource(first), HttpsSource(second)], target, network=loopback(attempts=2))
    assert target.read_bytes() == other


def test_when_all_mirrors_fail_each_reason_is_told(server, target):
    sources = [HttpsSource(server.url("nothing")), HttpsSource(server.add("bad", b"something else"))]
    with pytest.raises(DownloadFailed, match=r"None of the 2 sources.*\(1\).*no file at.*\(2\).*sha256 is"):
        download(sources, target, sha256=SHA256, network=loopback())


# The network


def test_plain_http_is_refused(server, target):
    with pytest.raises(DownloadFailed, match="Only https is safe"):
        download(HttpsSource(server.add("w", CONTENT)), target, network=Network(proxies={}))
    with pytest.raises(DownloadFailed, match="Only https is safe"):
        download(HttpsSource("http://192.0.2.1/w"), target, network=loopback())
    assert server.seen == []


def test_a_redirect_to_plain_http_or_to_a_file_is_refused(server, target):
    for location in ("http://192.0.2.1/w?secret=1", "ftp://192.0.2.1/w", "file:///etc/passwd"):
        url = server.add_reply("w", Reply(302, {"Location": location}))
        with pytest.raises(DownloadFailed, match=r"Only https is safe|leads nowhere") as caught:
            download(HttpsSource(url), target, network=loopback(timeout_s=1, attempts=1))
        assert "secret" not in caught.value.text
        assert names(target.parent) == []


def test_a_redirect_to_another_host_loses_the_token(server, target):
    with WeightServer() as storage:
        there = storage.add("w", CONTENT)
        url = server.add_reply("w", Reply(302, {"Location": there}))
        download(HttpsSource(url, with_token=True), target, token=TOKEN, network=loopback())
        assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert "authorization" not in storage.seen[0].headers


def test_a_redirect_that_comes_back_brings_the_token_back_home_only(server, target):
    with WeightServer() as other:
        back = server.add_reply("home", Reply(404))
        away = other.add_reply("away", Reply(302, {"Location": back}))
        url = server.add_reply("w", Reply(302, {"Location": away}))
        with pytest.raises(DownloadFailed):
            download(HttpsSource(url, with_token=True), target, token=TOKEN, network=loopback())
        assert "authorization" not in other.seen[0].headers


def test_a_source_that_does_not_ask_for_the_token_does_not_get_it(server, target):
    download(HttpsSource(server.add("w", CONTENT)), target, token=TOKEN, network=loopback())
    assert "authorization" not in server.seen[0].headers


def test_the_token_and_signatures_are_written_nowhere(server, target, caplog):
    caplog.set_level(logging.DEBUG)
    url = server.add("w", CONTENT, breaks_after=lambda count: 100_000 if count == len(CONTENT) else 0)
    source = HttpsSource(f"{url}?Signature=very-secret", with_token=True)
    with pytest.raises(DownloadFailed) as caught:
        download(source, target, sha256=SHA256, token=f" {TOKEN}\n", network=loopback(attempts=2))
    written = caplog.text + caught.value.text + record_path(target).read_text()
    assert "GET http" in caplog.text
    assert TOKEN not in written
    assert "very-secret" not in written
    assert server.seen[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_a_token_that_cannot_be_one_is_not_shown(target):
    with pytest.raises(InputError) as caught:
        download(HttpsSource("https://example.org/w"), target, token="my secret\r\nHost: evil")
    assert "secret" not in caught.value.text


def test_a_host_that_does_not_exist_is_named(target):
    started = time.monotonic()
    with pytest.raises(DownloadFailed, match=r"no-such-host\.invalid") as caught:
        download(HttpsSource("https://no-such-host.invalid/w"), target, network=loopback(attempts=2))
    assert "medai models import" in caught.value.todo
    assert time.monotonic() - started < 10


def test_a_port_where_nobody_listens_is_named(target, server):
    with WeightServer() as gone:
        address = gone.url("w")
    with pytest.raises(DownloadFailed, match="The connection was refused"):
        download(HttpsSource(address), target, network=loopback(attempts=2))


def test_a_silent_server_is_given_up(server, target):
    url = server.add("w", CONTENT, pause_s=5)
    with pytest.raises(DownloadFailed, match="did not answer in time"):
        download(HttpsSource(url), target, network=loopback(attempts=1, timeout_s=0.3))
    assert partial_bytes(target) > 0


def test_an_unknown_certificate_is_refused_and_the_way_out_named(certificate, target):
    with WeightServer(certificate) as secure:
        url = secure.add("w", CONTENT)
        with pytest.raises(DownloadFailed, match=r"identity of 127\.0\.0\.1.*SSL_CERT_FILE"):
            download(HttpsSource(url), target, network=Network(proxies={}))
        assert secure.seen == []
        got = download(HttpsSource(url), target, sha256=SHA256, network=Network(proxies={}, ca_file=certificate))
        assert got.size == len(CONTENT)


def test_certificates_named_by_the_usual_variable_are_trusted(certificate, target, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with WeightServer(certificate) as secure:
        assert download(HttpsSource(secure.add("w", CONTENT)), target, network=Network(proxies={})).sha256 == SHA256


def test_a_file_without_certificates_is_named(target, tmp_path):
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(InputError, match="PEM file"):
        download(HttpsSource("https://127.0.0.1:9/w"), target, network=Network(ca_file=tmp_path / "empty.pem"))


def test_https_goes_through_the_proxy_with_its_password(certificate, target):
    with WeightServer(certificate) as secure, TunnelProxy() as proxy:
        settings = Network(proxies={"https": f"http://me:pass@127.0.0.1:{proxy.port}"}, ca_file=certificate)
        got = download(HttpsSource(secure.add("w", CONTENT)), target, sha256=SHA256, network=settings)
        assert got.size == len(CONTENT)
        assert proxy.asked == [f"127.0.0.1:{secure.port}"]
        assert proxy.authorizations == ["Basic bWU6cGFzcw=="]


def test_the_proxy_of_the_environment_is_used(certificate, target, monkeypatch):
    with WeightServer(certificate) as secure, TunnelProxy() as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        download(HttpsSource(secure.add("w", CONTENT)), target, network=Network(ca_file=certificate))
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [("407 Proxy Authentication Required", "wants a name and password"), ("403 Forbidden", "403 Forbidden")],
)
def test_a_proxy_that_refuses_is_named_without_its_password(target, answer, told):
    with TunnelProxy(refuses_with=answer) as proxy:
        settings = Network(proxies={"https": f"http://me:hidden@127.0.0.1:{proxy.port}"})
        with pytest.raises(DownloadFailed, match=rf"proxy 127\.0\.0\.1:{proxy.port} .*{told}") as caught:
            download(HttpsSource("https://example.org/w"), target, network=settings)
        assert "hidden" not in caught.value.text


def test_a_kind_of_proxy_that_cannot_be_used_is_named(target):
    settings = Network(proxies={"https": "socks5://127.0.0.1:1080"})
    with pytest.raises(DownloadFailed, match="kind 'socks5'"):
        download(HttpsSource("https://example.org/w"), target, network=settings)


# The disk and the user


def test_a_disk_that_is_too_small_is_told_before_the_start(server, target):
    url = server.add("w", CONTENT)
    with pytest.raises(OutputError, match="does not fit on the disk"):
        download(HttpsSource(url), target, free_space_factor=1e12, network=loopback())
    assert names(target.parent) == []


def test_a_full_disk_keeps_what_has_arrived(server, target):
    source = HttpsSource(server.add("w", CONTENT))
    with full_disk(after_bytes=150_000), pytest.raises(OutputError, match=r"disk is full.*goes on where it stopped"):
        download(source, target, sha256=SHA256, network=loopback())
    assert not target.exists()
    assert download(source, target, sha256=SHA256, network=loopback()).size == len(CONTENT)


def test_a_folder_in_place_of_the_file_is_told_before_the_start(server, target):
    target.mkdir(parents=True)
    with pytest.raises(OutputError, match="A folder of that name exists"):
        download(HttpsSource(server.add("w", CONTENT)), target, network=loopback())
    assert server.seen == []


def test_cancelling_a_slow_download_takes_less_than_a_second_and_keeps_the_part(server, target):
    url = server.add("w", CONTENT, pause_s=0.3)
    wish = time.monotonic() + 0.8
    with pytest.raises(Cancelled, match="goes on from there"):
        download(
            HttpsSource(url), target, sha256=SHA256, is_cancelled=lambda: time.monotonic() > wish, network=loopback()
        )
    assert 0 < time.monotonic() - wish < 1
    kept = partial_bytes(target)
    assert kept > 0
    server.add("w", CONTENT)
    got = download(HttpsSource(url), target, sha256=SHA256, network=loopback())
    assert got.received_bytes == len(CONTENT) - kept


def test_cancelling_while_a_server_is_silent_takes_less_than_a_second(server, target):
    released = threading.Event()
    server.files["w"] = lambda seen: Reply(500 + released.wait(10))
    started = time.monotonic()
    with pytest.raises(Cancelled):
        download(
            HttpsSource(server.url("w")),
            target,
            is_cancelled=lambda: time.monotonic() - started > 0.3,
            network=loopback(),
        )
    assert time.monotonic() - started < 1
    released.set()
    assert names(target.parent) == []


def test_two_threads_that_ask_at_once_make_one_download(server, target):
    url = server.add("w", CONTENT, pause_s=0.02)
    results, told = [], []

    def work():
        network = loopback()
        report = lambda done, total: told.append((done, total))  # noqa: E731
        results.append(download(HttpsSource(url), target, on_progress=report, network=network))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [got.sha256 for got in results] == [SHA256] * 3
    assert sorted(got.received_bytes for got in results) == [0, 0, len(CONTENT)]
    assert server.sent == len(CONTENT)


# Values


@pytest.mark.parametrize(
    "make",
    [
        lambda: HttpsSource("ftp://example.org/w"),
        lambda: HttpsSource("https:///w"),
        lambda: HttpsSource("https://name:password@example.org/w"),
        lambda: HttpsSource("https://example.org/w\nHost: evil"),
        lambda: HttpsSource("https://[::1/w"),
        lambda: HubSource("owner/../name", "w"),
        lambda: HubSource("owner/name/more", "w"),
        lambda: HubSource("owner/name", "../w"),
        lambda: HubSource("owner/name", "/w"),
        lambda: HubSource("owner/name", "w", revision="../main"),
        lambda: DriveSource("https://drive.google.com/file/d/x"),
    ],
)
def test_a_source_that_cannot_be_one_is_refused_and_no_password_shown(make):
    with pytest.raises(InputError) as caught:
        make()
    assert "password@" not in caught.value.text


def test_sources_say_what_they_are():
    assert str(HttpsSource("https://example.org:8/a b?sig=1")) == "https://example.org:8/a b"
    assert str(HubSource("o/n", "d/w.pth", "v1")) == "hub:o/n@v1/d/w.pth"
    assert str(DriveSource(DRIVE_ID)) == f"drive:{DRIVE_ID}"
    assert HttpsSource("https://example.org/w?a=1").key != HttpsSource("https://example.org/w?a=2").key


def test_a_hash_that_is_none_and_no_source_at_all_are_refused(target):
    with pytest.raises(InputError, match="is not a sha256"):
        download(HttpsSource("https://example.org/w"), target, sha256="abc")
    with pytest.raises(InputError, match="No source"):
        download([], target)
