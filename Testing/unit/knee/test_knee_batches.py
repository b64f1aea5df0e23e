"""Smaller pieces, then the processor, where memory runs out."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="errors of PyTorch need PyTorch, which is not installed")

from KneeAnalysisLib.batches import Batches, Footing, is_out_of_memory  # noqa: E402
from KneeAnalysisLib.segmentation import GpuOutOfMemory  # noqa: E402
from MedAILib.errors import OutOfMemory  # noqa: E402

CUDA = Footing("cuda:0", 8, gathers_on_device=True)


class _Machine:
    """Work that fails like a GPU where a footing asks for more than there is."""

    def __init__(self, most: int, gathers: bool, on_cpu: int = 100) -> None:
        self.most, self.gathers, self.on_cpu = most, gathers, on_cpu
        self.done: list[int] = []
        self.footings: list[Footing] = []

    def work(self, part: range, footing: Footing) -> None:
        self.footings.append(footing)
        on_gpu = footing.device != "cpu"
        if len(part) > (self.most if on_gpu else self.on_cpu) or (on_gpu and footing.gathers_on_device > self.gathers):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.done += part


def _run(machine: _Machine, footing: Footing = CUDA, *, count: int = 20, cpu_fallback: bool = True) -> list[str]:
    warnings: list[str] = []
    progress: list[int] = []
    Batches(footing, cpu_fallback=cpu_fallback, warn=warnings.append).run(count, machine.work, progress.append)
    assert machine.done == list(range(count))
    assert progress == sorted(set(progress))
    assert progress[-1] == count
    return warnings


def test_enough_memory_needs_no_warning() -> None:
    machine = _Machine(8, True)
    assert _run(machine) == []
    assert len(machine.footings) == 3


def test_batches_are_halved_and_finished_pieces_are_not_done_again() -> None:
    machine = _Machine(3, True)
    warnings = _run(machine)
    assert [footing.batch for footing in machine.footings] == [8, 4, *[2] * 10]
    assert len(warnings) == 2


def test_then_results_are_gathered_in_main_memory() -> None:
    machine = _Machine(1, False)
    warnings = _run(machine)
    assert machine.footings[-1] == Footing("cuda:0", 1, gathers_on_device=False)
    assert "main memory" in warnings[-1]


def test_then_the_processor_goes_on_and_the_user_is_told() -> None:
    machine = _Machine(0, False)
    warnings = _run(machine)
    assert machine.footings[-1] == Footing("cpu", 1)
    assert "the processor goes on" in warnings[-1]


def test_memory_that_runs_out_midway_keeps_what_is_done() -> None:
    machine = _Machine(8, True)
    original = machine.work

    def shrinking(part: range, footing: Footing) -> None:
        if part.start >= 8:
            machine.most = 0
        original(part, footing)

    machine.work = shrinking  # type: ignore[method-assign]
    assert "the processor goes on" in _run(machine)[-1]


def test_without_the_processor_the_error_is_that_of_the_gpu() -> None:
    with pytest.raises(GpuOutOfMemory) as caught:
        _run(_Machine(0, False), cpu_fallback=False)
    assert caught.value.code == "GPU_OOM"
    assert "cuda:0" in caught.value.what


def test_where_the_processor_has_too_little_memory_too_it_ends() -> None:
    with pytest.raises(OutOfMemory):
        _run(_Machine(0, False, on_cpu=0))


def test_other_errors_pass_through() -> None:
    def work(part: range, footing: Footing) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        Batches(CUDA, cpu_fallback=True, warn=str).run(1, work, lambda done: None)


def test_what_says_that_memory_ran_out() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("The zoom is out of range"))
    assert not is_out_of_memory(ValueError("out of memory"))
