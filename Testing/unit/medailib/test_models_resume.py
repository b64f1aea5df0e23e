"""The state of a training: written whole, read back, refused where it is damaged or of other settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="states hold tensors")

from MedAILib.errors import InputError, InvalidWeights, OutputError  # noqa: E402
from MedAILib.models import resume  # noqa: E402


@dataclass(frozen=True)
class Row:
    step: int
    loss: float
    dice: float | None


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "Zustand ü" / "resume.pt"
    path.parent.mkdir()
    assert resume.load_state(path, "cpu") is None
    tensors = {"network": {"weight": torch.arange(6.0).view(2, 3)}, "optimizer": None}
    resume.save_state(path, {"step": 3, "log": [{"loss": 0.5}]}, tensors)
    plain, stored = resume.load_state(path, "cpu") or ({}, {})
    assert plain == {"step": 3, "log": [{"loss": 0.5}]} and stored["optimizer"] is None
    assert torch.equal(stored["network"]["weight"], tensors["network"]["weight"])
    assert [entry.name for entry in path.parent.iterdir()] == ["resume.pt"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"not a state"])
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "resume.pt"
    path.write_bytes(content)
    with pytest.raises(InvalidWeights, match="damaged"):
        resume.load_state(path, "cpu")


def test_a_state_without_its_plain_values_is_refused(tmp_path: Path) -> None:
    torch.save({"network": {}}, tmp_path / "resume.pt")
    with pytest.raises(InvalidWeights, match="damaged"):
        resume.load_state(tmp_path / "resume.pt", "cpu")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        resume.save_state(tmp_path / "none" / "resume.pt", {}, {})


def test_settings_that_differ_are_named_and_tuples_are_lists(tmp_path: Path) -> None:
    resume.check_same({"sizes": [1, 2], "seed": 0}, {"sizes": (1, 2), "seed": 0}, tmp_path)
    with pytest.raises(InputError, match="seed, width"):
        resume.check_same({"seed": 0}, {"seed": 1, "width": 3}, tmp_path)


def test_the_log_has_a_column_for_each_field(tmp_path: Path) -> None:
    resume.write_log(tmp_path / "log.csv", Row, [Row(1, 0.123456789, None), Row(2, 1e-9, 0.5)])
    lines = (tmp_path / "log.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["step,loss,dice", "1,0.123457,", "2,1e-09,0.5"]
