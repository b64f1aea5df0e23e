"""Files appear whole or not at all."""

from __future__ import annotations

import stat

import pytest
from hostile_system import full_disk, ordinary_user

from MedAILib.atomic import replacing, write_text
from MedAILib.errors import OutputError


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_nothing_else_remains(tmp_path):
    with replacing(tmp_path / "a b ü.txt") as partial:
        partial.write_text("new")
        assert contents(tmp_path) != ["a b ü.txt"]
    assert contents(tmp_path) == ["a b ü.txt"]
    assert (tmp_path / "a b ü.txt").read_text() == "new"


def test_files_written_beside_it_move_along(tmp_path):
    with replacing(tmp_path / "image.nhdr") as partial:
        partial.write_text("header")
        partial.with_suffix(".raw").write_text("voxels")
    assert contents(tmp_path) == ["image.nhdr", "image.raw"]


def test_an_error_in_the_block_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "report.json"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert contents(tmp_path) == ["report.json"]
    assert target.read_text() == "old"


def test_the_written_file_has_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    write_text(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_symbolic_link_stays_one_and_its_target_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"folder .*nowhere.* does not exist"):
        write_text(tmp_path / "nowhere" / "file", "x")


def test_a_folder_of_that_name_is_named(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="A folder of that name exists"):
        write_text(tmp_path / "out", "x")


def test_a_folder_one_may_not_write_to_is_named(tmp_path):
    tmp_path.chmod(0o555)
    with ordinary_user(), pytest.raises(OutputError, match="not allowed"):
        write_text(tmp_path / "file", "x")
    assert contents(tmp_path) == []


def test_a_block_that_writes_nothing_is_an_error_and_not_an_empty_file(tmp_path):
    with pytest.raises(OutputError, match="nothing was written"), replacing(tmp_path / "file"):
        pass
    assert contents(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path):
    target = tmp_path / "big"
    target.write_text("old")
    with full_disk(after_bytes=1000), pytest.raises(OutputError, match="disk is full, or a size limit") as caught:
        write_text(target, "x" * 5000)
    assert caught.value.exit_status == 4
    assert contents(tmp_path) == ["big"]
    assert target.read_text() == "old"
