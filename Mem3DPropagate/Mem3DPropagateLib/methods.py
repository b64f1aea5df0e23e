"""Which method a request means on this machine, and the sources of levels it gives for each drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedAILib.errors import InputError, MissingPackage
from MedAILib.jobs.task import Context
from Mem3DPropagateLib.geometry import CLEARLY_BETTER, Choice
from Mem3DPropagateLib.request import Method, PropagateRequest
from Mem3DPropagateLib.shapes import Stack, window_around
from Mem3DPropagateLib.sources import GeometrySource, NetworkSource, PredictedSource, Source, network_gain

if TYPE_CHECKING:
    from Mem3DPropagateLib.nets.gapmodel import LoadedGapNet
    from Mem3DPropagateLib.nets.stm_sight import Sight

Window = tuple[slice, slice]


class Maker:
    """Makes the source of each drawing.

    Parameters
    ----------
    request : PropagateRequest
    context : Context
        The weights used are reported to it.

    Attributes
    ----------
    model : str
        Id of the network; empty: geometry.
    """

    def __init__(self, request: PropagateRequest, context: Context) -> None:
        self.request, self.context = request, context
        self._image = np.moveaxis(request.volume.array, request.axis.array_axis, 0)
        self._network: LoadedGapNet | None = None
        self._stm: Sight | None = None
        self.model = ""
        if request.method in (Method.AUTO, Method.NETWORK):
            self._network = self._our_network()
        elif request.method is Method.STM:
            self._stm = self._stm_network()
        used = self._network or self._stm
        if used is not None:
            self.model = used.name
            context.used_weights(used.name, used.sha256)

    def computing(self) -> AbstractContextManager[None]:
        """Within it torch, where it is needed, uses the threads of the context."""
        if not self.model:
            return nullcontext()
        from MedAILib.models.torchuse import torch_threads

        return torch_threads(self.context.threads)

    def window(self, masks: np.ndarray, pixel_mm: tuple[float, float]) -> Window:
        """Rows and columns to work in, around masks of shape (n, rows, columns)."""
        around = window_around(masks)
        if self._network is None and self._stm is None:
            return around
        from Mem3DPropagateLib.nets.gapinput import WorkingGrid

        seen = WorkingGrid.around(masks, pixel_mm).within(masks.shape[1:])
        rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(around, seen, strict=True))
        return rows, columns

    def source(self, stack: Stack, window: Window, choice: Choice) -> Source:
        """The source for one structure; not for `Method.STM`."""
        reach, variant = self.request.extend, choice.variant
        if self._network is None:
            return GeometrySource(stack, variant, reach)
        image = self._image[(slice(None), *window)]
        always = self.request.method is Method.NETWORK
        if not always:
            gain = network_gain(self._network, image, stack, variant, choice.left_out_dice)
            if gain is not None and gain < 0:
                return GeometrySource(stack, variant, reach)
            always = gain is not None and gain > CLEARLY_BETTER
        count = len(self._image)
        within = range(count)
        if self.request.only_slices is not None:
            within = range(max(self.request.only_slices[0], 0), min(self.request.only_slices[1] + 1, count))
        return NetworkSource(self._network, image, stack, variant, reach, within, always, self.context.check)

    @property
    def predicts_together(self) -> bool:
        """Whether sources come from `predicted` instead."""
        return self._stm is not None

    def predicted(
        self, stacks: Sequence[Stack], windows: Sequence[Window], progress: Callable[[int], None]
    ) -> list[Source]:
        """The sources of structures that were drawn on the same slices, predicted together by a memory network."""
        from Mem3DPropagateLib.nets.stm_engine import StmEngine, StmOptions

        assert self._stm is not None
        request, slices = self.request, [int(index) for index in stacks[0].slices]
        shape = self._image.shape[1:]
        full = np.zeros((len(stacks), len(slices), *shape), bool)
        for number, (stack, window) in enumerate(zip(stacks, windows, strict=True)):
            full[(number, slice(None), *window)] = stack.masks
        references = {index: full[:, position] for position, index in enumerate(slices)}
        engine = StmEngine(
            self._stm, self._image, stacks[0].pixel_mm, StmOptions(stops_at_the_end=request.extend is None)
        )
        found: list[dict[int, tuple[np.ndarray, float | None]]] = [{} for _ in stacks]
        for number, one in enumerate(engine.propagate(references, self._wanted(slices), self.context)):
            progress(number)
            for place, window in enumerate(windows):
                found[place][one.index] = one.level[(place, *window)].astype(np.float16), one.quality[place]
        return [PredictedSource(stack, predicted) for stack, predicted in zip(stacks, found, strict=True)]

    def _wanted(self, slices: Sequence[int]) -> range:
        reach = len(self._image) if self.request.extend is None else self.request.extend
        first, last = max(slices[0] - reach, 0), min(slices[-1] + reach, len(self._image) - 1)
        if self.request.only_slices is not None:
            first, last = max(first, self.request.only_slices[0]), min(last, self.request.only_slices[1])
        return range(first, last + 1)

    def _our_network(self) -> LoadedGapNet | None:
        from Mem3DPropagateLib.nets.gapmodel import EMBEDDED

        path = Path(self.request.weights) if self.request.weights else EMBEDDED
        try:
            return _kept_network(path, self.context.device, _stamp(path))
        except MissingPackage as error:
            if self.request.method is Method.NETWORK:
                raise
            self.context.warn(f"Geometry alone was used: {error.text}")
            return None

    def _stm_network(self) -> Sight:
        if not self.request.weights:
            raise InputError(
                "The method 'stm' needs weights.",
                why="None come with MedAI: those published have licences of their own.",
                todo="Give a weight file of STM or VMN, or choose the method 'network', which needs none.",
            )
        from MedAILib.models.torchmodel import import_torch

        import_torch()
        path = Path(self.request.weights)
        return _kept_stm(path, _stamp(path))


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when a file does."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)  # loading it says what is wrong
    return (stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1)
def _kept_network(path: Path, device: str, stamp: tuple[int, int]) -> LoadedGapNet:
    from Mem3DPropagateLib.nets.gapmodel import load_gap_model

    return load_gap_model(path, device)


@lru_cache(maxsize=1)
def _kept_stm(path: Path, stamp: tuple[int, int]) -> Sight:
    from Mem3DPropagateLib.nets.stm_sight import Sight
    from Mem3DPropagateLib.nets.stm_weights import load_stm

    return Sight(load_stm(path))
