"""Work in pieces on a device, with smaller pieces and then the processor where memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from KneeAnalysisLib.segmentation import GpuOutOfMemory
from MedAILib.errors import OutOfMemory
from MedAILib.models.torchmodel import import_torch

CPU = "cpu"
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "CUDNN_STATUS_ALLOC_FAILED")
"""What PyTorch says where it has no class for it: Metal, cuDNN and the allocator of the processor."""


@dataclass(frozen=True)
class Footing:
    """Where and in what pieces the work goes on.

    Attributes
    ----------
    device : str
        ``cuda:0``, ``mps``, ``cpu``.
    batch : int
        Pieces at once.
    gathers_on_device : bool
        Whether results are summed up in the memory of the device too.
    """

    device: str
    batch: int
    gathers_on_device: bool = False

    def smaller(self) -> Footing | None:
        """The next that needs less memory of the device; None where there is none."""
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        if self.gathers_on_device and self.device != CPU:
            return replace(self, gathers_on_device=False)
        return None if self.device == CPU else Footing(CPU, 1)


class Batches:
    """Runs pieces of work one batch after the other; pieces that are done stay done when memory runs out.

    Parameters
    ----------
    footing : Footing
        Where to start.
    cpu_fallback : bool
        Whether the processor may take over.
    warn : callable
        Receives a sentence for the user at every step down.
    """

    def __init__(self, footing: Footing, *, cpu_fallback: bool, warn: Callable[[str], None]) -> None:
        self.footing = footing
        self._cpu_fallback = cpu_fallback
        self._warn = warn

    def run(self, count: int, work: Callable[[range, Footing], None], on_done: Callable[[int], None]) -> None:
        """Do the pieces 0 to ``count - 1``.

        Parameters
        ----------
        count : int
        work : callable
            Does the pieces of a range on a footing; where it raises for want of memory it has done none of them.
        on_done : callable
            Receives the number of pieces done so far, after each batch.

        Raises
        ------
        GpuOutOfMemory, OutOfMemory
            Memory does not suffice for one piece.
        """
        done = 0
        while done < count:
            batch = range(done, min(done + self.footing.batch, count))
            if self.tried(lambda batch=batch: work(batch, self.footing)):  # type: ignore[misc]
                done = batch.stop
                on_done(done)

    def tried(self, work: Callable[[], Any]) -> bool:
        """Run something; where memory runs out, step down and answer False."""
        try:
            work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = " ".join(str(error).split()[:40])
        else:
            return True
        self._step_down(message)  # outside of the handler: the exception has let go of its tensors
        return False

    def _step_down(self, message: str) -> None:
        before, after = self.footing, self.footing.smaller()
        free_device_memory(before.device)
        if after is None:
            raise OutOfMemory(
                "The network needs more memory than there is.",
                why=f"It ran out with one piece at a time: {message}.",
                todo="Close other programs, or use a machine with more memory.",
            )
        if after.device != before.device and not self._cpu_fallback:
            raise GpuOutOfMemory(
                f"The memory of {before.device} does not suffice for this network.",
                why=f"It ran out with one piece at a time: {message}.",
                todo="Close other programs that use the GPU, let the processor take over, or choose another engine.",
            )
        self.footing = after
        if after.device != before.device:
            self._warn(
                f"The memory of {before.device} ran out even with one piece at a time: "
                "the processor goes on, which takes much longer."
            )
        elif after.batch != before.batch:
            self._warn(
                f"The memory of {before.device} ran out: going on with {after.batch} instead of {before.batch} pieces"
                " at once."
            )
        else:
            self._warn(f"The memory of {before.device} ran out: results are now gathered in the main memory.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of PyTorch or Python says that memory ran out."""
    torch = import_torch()
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return type(error) is RuntimeError and any(text in str(error) for text in _MESSAGES)


def free_device_memory(device: str) -> None:
    """Give back what PyTorch keeps of a GPU's memory for later."""
    torch = import_torch()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device.startswith("mps"):
        torch.mps.empty_cache()
