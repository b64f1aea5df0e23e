"""How torch is used for inference: which device, how many threads, in full precision. Loads it in functions only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from MedAILib.errors import InputError
from MedAILib.models.torchmodel import import_torch


def networks_can_run() -> bool:
    """Whether PyTorch and safetensors are installed; neither is loaded."""
    return all(find_spec(name) is not None for name in ("torch", "safetensors"))


def chosen_device(device: str | None) -> str:
    """The device of that name, or the best one of this machine.

    Parameters
    ----------
    device : str or None
        ``cpu``, ``cuda:0``, ``mps``; None: the first GPU that torch can use, else the processor.

    Raises
    ------
    InputError
        Where torch cannot use that device here.
    """
    torch = import_torch()
    if device is None:
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"The device '{device}' cannot be used.",
            why=f"PyTorch says: {str(error).splitlines()[0]}",
            todo="Choose another device, for example cpu.",
        ) from error
    return device


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use that many threads of the processor within the block; None: as many as it is set to.

    torch keeps one number for the whole process, so the former one is put back at the end.
    """
    torch = import_torch()
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Inference without gradients, in full float32, with the same algorithm for every batch size."""
    torch = import_torch()
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        yield
