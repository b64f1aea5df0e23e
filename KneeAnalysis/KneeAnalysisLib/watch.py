"""Progress of a part of a run, and the two reasons to stop early: the user's wish and the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from KneeAnalysisLib.segmentation import TimedOut
from MedAILib.jobs.task import Context

if TYPE_CHECKING:
    from torch import nn


class Watch:
    """A part of a run's progress, from one fraction to another.

    Parameters
    ----------
    context : Context
    span : tuple of float
        Fractions of the whole run at which this part begins and ends.
    timeout_s : float, optional
        Seconds from now that it may take.
    """

    def __init__(
        self, context: Context, span: tuple[float, float] = (0.0, 1.0), timeout_s: float | None = None
    ) -> None:
        self.context = context
        self._span = span
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def part(self, low: float, high: float) -> Watch:
        """A part of this part, under the same time limit."""
        start, width = self._span[0], self._span[1] - self._span[0]
        part = Watch(self.context, (start + low * width, start + high * width))
        part._timeout_s, part._deadline = self._timeout_s, self._deadline
        return part

    def check(self) -> None:
        """Raise `Cancelled` or `TimedOut` where the work is to stop."""
        self.context.check()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TimedOut(
                f"The segmentation took longer than the {self._timeout_s:g} s it was given.",
                todo="Give it more time, use a GPU, or choose a faster engine; steps that were finished stay usable.",
            )

    def progress(self, stage: str, fraction: float, detail: str = "") -> None:
        """Report a fraction of this part; raises as `check` does."""
        self.check()
        low, high = self._span
        self.context.progress(stage, low + min(max(fraction, 0.0), 1.0) * (high - low), detail)

    @contextmanager
    def between_layers(self, network: nn.Module) -> Iterator[None]:
        """Within the block, `check` before every layer of the network: stopping waits for a layer, not for a tile."""
        layers = [module for module in network.modules() if not any(True for _ in module.children())]
        hooks = [layer.register_forward_pre_hook(lambda module, inputs: self.check()) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
