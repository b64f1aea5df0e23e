"""Archives: nothing gets out of its folder, nothing is left behind, and what is wrong is named."""

from __future__ import annotations

import io
import random
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
import weight_files as make
from hypothesis import given
from hypothesis import strategies as st

from MedAILib.errors import Cancelled, InvalidWeights
from MedAILib.models.archives import Limits, extract, is_archive, open_zip, safe_path

SMALL = Limits(members=20, total_bytes=1 << 20, ratio=10, free_bytes=1 << 14)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to unpack into, within another where a way out would show."""
    inner = tmp_path / "outer" / "größe unpacked"
    inner.mkdir(parents=True)
    return inner


def refused(path: Path, folder: Path, *words: str, limits: Limits = SMALL) -> None:
    with pytest.raises(InvalidWeights) as caught:
        extract(path, folder, limits=limits)
    for word in (str(path), *words):
        assert word in caught.value.text
    assert [item for item in folder.parent.rglob("*") if item.is_file() and folder not in item.parents] == []


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_good_archive_is_unpacked_whole(tmp_path: Path, folder: Path, name: str) -> None:
    members = {"fold_1/weights.pth": b"w" * 5000, "größe/plans.json": b"{}"}
    path = (make.zip_file if name.endswith("zip") else make.tar_file)(tmp_path / name, members)
    seen: list[int] = []
    files = extract(path, folder, on_bytes=seen.append)
    assert {file.relative_to(folder).as_posix(): file.read_bytes() for file in files} == members
    assert sum(seen) == 5002
    assert is_archive(path)


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "C:/evil", "a\x07b", "a/../../../b/c"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, folder: Path, name: str, kind: str) -> None:
    made = make.zip_file if kind == "zip" else make.tar_file
    refused(made(tmp_path / f"a.{kind}", {"good": b"x", name: b"x"}), folder, "outside")


def test_links_are_refused(tmp_path: Path, folder: Path) -> None:
    refused(make.zip_with_link(tmp_path / "a.zip"), folder, "link")
    refused(make.tar_file(tmp_path / "a.tar", {}, links={"l": "/etc"}), folder, "link")
    with tarfile.open(tmp_path / "hard.tar", "w") as archive:
        info = tarfile.TarInfo("hard")
        info.type, info.linkname = tarfile.LNKTYPE, "/etc/passwd"
        archive.addfile(info)
    refused(tmp_path / "hard.tar", folder, "link")


def test_a_device_is_refused(tmp_path: Path, folder: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("null")
        info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
        archive.addfile(info)
    refused(tmp_path / "a.tar", folder, "neither a plain file")


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz"])
def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, folder: Path, name: str) -> None:
    made = make.zip_file if name.endswith("zip") else make.tar_file
    refused(made(tmp_path / name, {"zeros": bytes(1 << 19)}), folder, "bomb")
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= SMALL.free_bytes


def test_a_bomb_of_overlapping_members_is_refused(tmp_path: Path, folder: Path) -> None:
    """Many entries that share one piece of data, after Fifield's construction."""
    path = make.zip_file(tmp_path / "a.zip", {"kernel": bytes(8000)})
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.infolist()[0]
        for index in range(15):
            copy = zipfile.ZipInfo(f"copy{index}")
            copy.compress_type, copy.CRC = first.compress_type, first.CRC
            copy.compress_size, copy.file_size, copy.header_offset = first.compress_size, first.file_size, 0
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    refused(path, folder)


def test_a_member_that_is_longer_than_it_says_is_refused(tmp_path: Path, folder: Path) -> None:
    path = make.zip_file(tmp_path / "a.zip", {"x": bytes(9000)})
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24
    content[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    refused(path, folder, "damaged")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_cut_short_is_damaged(tmp_path: Path, folder: Path, name: str, share: float) -> None:
    members = {f"m{index}": random.Random(index).randbytes(5000) for index in range(4)}
    path = (make.zip_file if name.endswith("zip") else make.tar_file)(tmp_path / name, members)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, folder, "damaged")


def test_too_many_members_and_repeated_names_are_refused(tmp_path: Path, folder: Path) -> None:
    many = {f"m{index}": b"" for index in range(30)}
    refused(make.zip_file(tmp_path / "a.zip", many), folder, "more than 20")
    refused(make.tar_file(tmp_path / "a.tar", many), folder, "more than 20")
    refused(make.zip_file(tmp_path / "b.zip", {"Model.pth": b"1", "model.PTH": b"2"}), folder, "twice")


def test_a_locked_zip_is_named(tmp_path: Path, folder: Path) -> None:
    path = make.zip_file(tmp_path / "a.zip", {"x": b"secret"})
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InvalidWeights, match="password"):
        open_zip(path)


def test_unpacking_can_be_cancelled(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(Cancelled):
        extract(make.zip_file(tmp_path / "a.zip", {"x": b"x"}), folder, is_cancelled=lambda: True)


@given(st.text(max_size=30))
def test_every_name_that_passes_stays_below_the_folder(name: str) -> None:
    folder = Path("/a/folder")
    try:
        parts = safe_path(Path("a.zip"), name)
    except InvalidWeights:
        return
    target = folder / parts
    assert folder in target.parents
    assert ".." not in target.parts


@given(st.binary(max_size=400))
def test_no_bytes_break_the_unpacking(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path, folder = Path(name, "a.zip"), Path(name, "out")
        folder.mkdir()
        path.write_bytes(b"PK\x03\x04" + content)
        is_archive(path)
        with pytest.raises(InvalidWeights):
            extract(path, folder)


def test_a_sparse_file_that_claims_gigabytes_is_refused(tmp_path: Path, folder: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("sparse")
        info.size = 4
        info.pax_headers = {"GNU.sparse.map": "0,4", "GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1"}
        archive.addfile(info, io.BytesIO(b"data"))
    (tmp_path / "a.tar").write_bytes(stream.getvalue())
    refused(tmp_path / "a.tar", folder, "neither a plain file")
