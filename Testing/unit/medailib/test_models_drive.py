"""Google Drive's pages against a local Drive."""

from __future__ import annotations

import pytest
from weight_servers import CONFIRM_UUID, DRIVE_ID, DriveServer, Reply, loopback, sha256_of, some_bytes

from MedAILib.errors import DownloadFailed
from MedAILib.models.download import DriveSource, download
from MedAILib.models.drive import confirmed_url
from MedAILib.models.partial import partial_bytes

CONTENT = some_bytes(200_000, seed=6)
SHA256 = sha256_of(CONTENT)
SOURCE = DriveSource(DRIVE_ID)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture
def drive():
    with DriveServer(CONTENT) as running:
        yield running


def settings(drive, **more):
    return loopback(drive_endpoint=drive.address, **more)


def test_the_warning_of_a_large_file_is_confirmed_and_the_file_arrives(drive, target):
    got = download(SOURCE, target, sha256=SHA256, network=settings(drive))
    assert target.read_bytes() == CONTENT
    assert got.source == SOURCE
    last = drive.seen[-1].query
    assert (last["confirm"], last["uuid"], last["id"]) == ("t", CONFIRM_UUID, DRIVE_ID)


def test_a_small_file_arrives_without_a_page(target):
    with DriveServer(CONTENT, large=False) as drive:
        assert download(SOURCE, target, sha256=SHA256, network=settings(drive)).size == len(CONTENT)


def test_cookies_of_the_first_answer_are_kept_for_this_visit(drive, target):
    drive.needs_cookie = True
    assert download(SOURCE, target, sha256=SHA256, network=settings(drive)).size == len(CONTENT)


def test_an_interrupted_transfer_goes_on_in_a_later_run(drive, target):
    drive.file.breaks_after = lambda count: 60_000
    with pytest.raises(DownloadFailed, match="broke after 60,000"):
        download(SOURCE, target, network=settings(drive, attempts=1))
    assert partial_bytes(target) == 60_000
    drive.file.breaks_after = lambda count: None
    got = download(SOURCE, target, network=settings(drive))
    assert got.sha256 == SHA256
    assert got.received_bytes == len(CONTENT) - 60_000
    assert drive.seen[-1].headers["if-range"] == drive.file.last_modified


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("quota", "quota is used up.*Too many people downloaded it lately.*Try again after a day"),
        ("missing", "has no file 1nzhFY.*removed, or the id is wrong"),
        ("sign-in", "wants a sign-in.*not shared with everybody"),
        ("new", "page instead of the file.*'Google Drive & you'"),
    ],
)
@pytest.mark.parametrize("sha256", [None, SHA256])
def test_pages_of_drive_are_named_and_never_stored(drive, target, page, told, sha256):
    drive.page = page
    with pytest.raises(DownloadFailed, match=told):
        download(SOURCE, target, sha256=sha256, network=settings(drive))
    assert list(target.parent.iterdir()) == []


def test_a_quota_page_in_the_middle_of_a_transfer_keeps_the_part(drive, target):
    def then_quota(count):
        drive.page = "quota"
        return 60_000

    drive.file.breaks_after = then_quota
    with pytest.raises(DownloadFailed, match="quota is used up"):
        download(SOURCE, target, sha256=SHA256, network=settings(drive))
    assert partial_bytes(target) == 60_000


def test_an_unknown_id_is_named(drive, target):
    with pytest.raises(DownloadFailed, match="Google Drive has no file abcdefghij"):
        download(DriveSource("abcdefghij"), target, network=settings(drive))


def test_a_form_that_leads_away_from_google_is_not_followed(drive, target):
    drive.form_action = "https://evil.example/download"
    with pytest.raises(DownloadFailed, match="leads away from Google"):
        download(SOURCE, target, network=settings(drive))


def test_drive_being_busy_is_told_as_such(drive, target):
    drive.answer = lambda asked: Reply(503, {"Content-Type": "text/html"}, b"<html>busy</html>")
    with pytest.raises(DownloadFailed, match="a problem of its own"):
        download(SOURCE, target, network=settings(drive, attempts=2))
    assert len(drive.seen) == 2


def test_the_form_is_read_however_it_is_written():
    page = (
        "<form id='other' action='/no'><input type=hidden name=x value=1></form>"
        "<FORM method=get id=download-form action='/download?at=A&amp;export=download'>"
        "<input type=hidden name=confirm value='a&amp;b'><input type=submit name=no value=1><input type=hidden></form>"
        "<input type=hidden name=outside value=1>"
    )
    url = confirmed_url(page, "https://drive.usercontent.google.com/uc?id=1")
    assert url == "https://drive.usercontent.google.com/download?at=A&export=download&confirm=a%26b"
    assert confirmed_url("<p>nothing</p>", "https://drive.google.com/") == ""
