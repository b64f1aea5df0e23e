"""Failures as errors: exceptions, errors from a worker, exit codes, error output cut anywhere."""

from __future__ import annotations

import io
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedAILib.errors import JobError, MedAIError, MissingPackage, OutOfMemory, WorkerDied, error_types
from MedAILib.jobs.failure import as_medai_error, error_from_values, error_to_values, explain_death
from MedAILib.jobs.process import _read_text


@pytest.mark.parametrize("kind", error_types().values())
def test_every_error_keeps_its_class_and_words_across_the_border(kind: type[MedAIError]) -> None:
    error = kind("What ü漢.", why="Why.", todo="Todo.")
    error.details = "line 1\nline 2"
    found = error_from_values(error_to_values(error))
    assert type(found) is kind
    assert (found.what, found.why, found.todo, found.details) == ("What ü漢.", "Why.", "Todo.", "line 1\nline 2")
    assert str(found) == error.text


def test_an_error_of_a_class_unknown_here_is_still_told() -> None:
    found = error_from_values({"code": "FROM_THE_FUTURE", "what": "Something new."})
    assert type(found) is JobError
    assert found.text == "Something new."


def test_an_error_that_takes_other_arguments_crosses_too() -> None:
    class TooManySlices(MedAIError):
        code = "TOO_MANY_SLICES_TEST"

        def __init__(self, count: int) -> None:
            super().__init__(f"{count} slices are too many.")

    found = error_from_values(error_to_values(TooManySlices(7)))
    assert type(found) is TooManySlices
    assert found.text == "7 slices are too many."


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (MemoryError(), OutOfMemory, "MemoryError"),
        (
            type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch.cuda"})("CUDA out of memory"),
            OutOfMemory,
            "CUDA",
        ),
        (ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"), MissingPackage, "pip install torch"),
        (ImportError("DLL load failed"), MissingPackage, "DLL load failed"),
        (ModuleNotFoundError("No module named 'MedAILib.x'", name="MedAILib.x"), JobError, "unexpected"),
        (ValueError("shapes\n differ"), JobError, "ValueError: shapes differ."),
        (AssertionError(), JobError, "AssertionError"),
        (OSError(28, "No space left on device"), JobError, "No space left"),
    ],
)
def test_an_exception_becomes_an_error_with_details(error: Exception, kind: type[MedAIError], words: str) -> None:
    found = as_medai_error(error)
    assert type(found) is kind
    assert words in found.text
    assert found.details
    assert found.__cause__ is error


def test_an_error_of_ours_passes_as_it_is() -> None:
    error = MissingPackage("x")
    assert as_medai_error(error) is error


@pytest.mark.parametrize(
    ("exit_code", "lines", "words"),
    [
        (-9, (), "memory ran out"),
        (-11, ("Fatal Python error: Segmentation fault",), "SIGSEGV"),
        (-6, (), "SIGABRT"),
        (-15, (), "SIGTERM"),
        (-200, (), "signal 200"),
        (0xC0000005, (), "SIGSEGV"),
        (0xC0000005 - (1 << 32), (), "SIGSEGV"),
        (0xC0000017, (), "memory ran out"),
        (1, ("Traceback", "ModuleNotFoundError: No module named 'numpy'", ""), "No module named 'numpy'"),
        (2, ("can't open file",), "code 2: can't open file"),
        (0, (), "exited with code 0."),
        (None, (), "closed its connection"),
    ],
)
def test_an_exit_code_is_explained(exit_code: int | None, lines: tuple[str, ...], words: str) -> None:
    found = explain_death(exit_code, lines)
    assert type(found) is WorkerDied
    assert words in found.why
    assert found.todo
    assert found.details.splitlines()[1:] == "\n".join(lines).splitlines()


class _Chunks(io.RawIOBase):
    """A stream that gives the chunks it was given."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = [chunk for chunk in chunks if chunk]

    def read1(self, size: int) -> bytes:
        return self._chunks.pop(0) if self._chunks else b""


@given(
    lines=st.lists(st.sampled_from(["Grüße", "漢字", "\U0001f600 !", "plain"]), max_size=6),
    size=st.integers(1, 7),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_error_output_is_read_whole_wherever_it_is_cut(lines: list[str], size: int, newline: str) -> None:
    data = newline.join(lines).encode()
    found: deque[str] = deque(maxlen=40)
    _read_text(_Chunks([data[at : at + size] for at in range(0, len(data), size)]), found, None)  # type: ignore[arg-type]
    assert list(found) == lines


def test_only_the_last_lines_of_error_output_are_kept() -> None:
    found: deque[str] = deque(maxlen=3)
    _read_text(_Chunks([b"\xff bad\n" + b"\n".join(b"%d" % n for n in range(1000))]), found, None)  # type: ignore[arg-type]
    assert list(found) == ["997", "998", "999"]
