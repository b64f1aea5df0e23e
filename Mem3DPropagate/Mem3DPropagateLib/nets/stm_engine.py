"""Propagation by a space-time memory network, slice by slice away from the references. Needs torch.

    engine = StmEngine(load_stm("vmn.pth"), image, pixel_mm=(0.8, 0.8))
    for found in engine.propagate({20: masks_20, 44: masks_44}, range(10, 60), context):
        found.level >= 0

What differs from the published programs, and why:

* Each slice is predicted once, from its nearest reference outward. It remembers the references around it, which
  are never dropped, and the last few predictions on its own side: not, as there, the slice on the other side of the
  reference. Memory does not grow with the number of slices.
* What the network sees of a slice without masks is kept, see `Sight`: a correction costs no second look, and objects
  share it.
* The network is shown a region around the references, in a window of brightness taken from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from MedAILib.errors import InputError
from MedAILib.jobs.task import Context
from MedAILib.models.torchuse import chosen_device, exact_arithmetic, torch_threads
from Mem3DPropagateLib.nets.stm import EPSILON, aggregated
from Mem3DPropagateLib.nets.stm_frame import OUTSIDE_LEVEL, Frame, RegionOptions, frame_for
from Mem3DPropagateLib.nets.stm_memory import Memory
from Mem3DPropagateLib.nets.stm_plan import Run, nearest, runs
from Mem3DPropagateLib.nets.stm_sight import Sight
from Mem3DPropagateLib.nets.stm_weights import LoadedStm

EMPTY_SLICES_AT_THE_END = 2
"""An object has ended after so many slices without it."""


@dataclass(frozen=True)
class StmOptions:
    """How to propagate.

    Attributes
    ----------
    region : RegionOptions
    nearest_references : int
        References that a slice remembers: those on both sides of it, then the nearest others.
    working_slices : int
        Predictions on its own side of the reference that a slice remembers.
    stops_at_the_end : bool
        End a run beyond the outermost references after `EMPTY_SLICES_AT_THE_END` slices without any object.
    """

    region: RegionOptions = field(default_factory=RegionOptions)
    nearest_references: int = 4
    working_slices: int = 3
    stops_at_the_end: bool = False


@dataclass(frozen=True, eq=False)
class StmSlice:
    """One predicted slice.

    Attributes
    ----------
    index : int
    level : ndarray, shape (objects, rows, columns), float32
        Log-odds of the object against the likeliest other thing there; 0 or more inside. Objects do not overlap.
    quality : tuple of float or None
        Overlap (intersection over union) with the truth that the network expects, by object; None: it has no such
        head. Not calibrated for medical images.
    used : tuple of int
        References that were remembered.
    """

    index: int
    level: np.ndarray
    quality: tuple[float | None, ...]
    used: tuple[int, ...]


class StmEngine:
    """A network and an image, ready to propagate, again and again after corrections.

    Parameters
    ----------
    network : Sight or LoadedStm
        A `Sight` that is kept between engines keeps what it saw.
    image : ndarray, shape (slices, rows, columns)
        Stored values of any real type; read slice by slice, so it may be memory-mapped.
    pixel_mm : tuple of float
        Spacing of rows and of columns.
    options : StmOptions, optional
    """

    def __init__(
        self,
        network: Sight | LoadedStm,
        image: np.ndarray,
        pixel_mm: tuple[float, float] = (1.0, 1.0),
        options: StmOptions | None = None,
    ) -> None:
        self._sight = network if isinstance(network, Sight) else Sight(network)
        self._image = image
        self._pixel_mm = pixel_mm
        self._options = options or StmOptions()

    def propagate(
        self, references: Mapping[int, np.ndarray], wanted: Sequence[int], context: Context
    ) -> Iterator[StmSlice]:
        """Predict slices, nearest to each reference first.

        Parameters
        ----------
        references : mapping of int to ndarray
            Masks of all objects by slice, shape (objects, rows, columns), bool; an empty mask says that the object
            is not there.
        wanted : sequence of int
            Slices to answer; references among them are left out.
        context : Context
            Device, threads and cancel; progress is the caller's.

        Yields
        ------
        StmSlice
            For each wanted slice, but for those beyond the end of a run that stopped.

        Raises
        ------
        InputError
            Slices out of range, masks of another size, or a device that cannot be used.
        NothingDrawn
        Cancelled
        """
        self._check(references, wanted)
        frame = frame_for(self._image, references.items(), self._pixel_mm, self._options.region)
        self._sight.be_on(chosen_device(context.device))
        context.used_weights(self._sight.name, self._sight.sha256)
        drawn = _Drawn({index: np.asarray(references[index], dtype=bool) for index in sorted(references)})
        asked = set(wanted)
        for run in runs(list(drawn.masks), wanted):
            for found in self._run(run, drawn, frame, context):
                if found.index in asked:
                    yield found

    def _run(self, run: Run, drawn: _Drawn, frame: Frame, context: Context) -> Iterator[StmSlice]:
        stops = self._options.stops_at_the_end and run.is_outward
        empty = np.where(drawn.masks[run.reference].any((1, 2)), 0, EMPTY_SLICES_AT_THE_END)
        working: deque[Memory] = deque(maxlen=max(self._options.working_slices, 0))
        for number, index in enumerate(run.slices, start=1):
            ended = (empty >= EMPTY_SLICES_AT_THE_END) & stops
            if ended.all():
                return
            context.check()
            used = nearest(list(drawn.masks), index, self._options.nearest_references)
            with torch_threads(context.threads), exact_arithmetic():
                memory = Memory.joined([*(self._memory_of(at, drawn, frame) for at in used), *working])
                logits, quality = self._answer(index, memory, ended, frame)
                level = frame.level(_levels(logits))
                if working.maxlen and number < len(run.slices):
                    working.append(self._sight.remember(frame, self._image[index], logits.softmax(0)[1:]))
            level[ended] = OUTSIDE_LEVEL
            empty = np.where((level >= 0).any((1, 2)), 0, empty + 1)
            yield StmSlice(index, level, quality, used)

    def _answer(
        self, index: int, memory: Memory, ended: np.ndarray, frame: Frame
    ) -> tuple[Tensor, tuple[float | None, ...]]:
        """Logits of background and objects, shape (1 + objects, *size), and each object's expected overlap."""
        network = self._sight.network
        query = self._sight.query(frame, self._image[index])
        alone = network.segment(query, memory, frame.size)
        alone[torch.from_numpy(ended).to(alone.device)] = 0.0
        logits = aggregated(alone)
        if not network.has_quality_head:
            return logits, (None,) * len(alone)
        winner = logits.argmax(0)
        masks = torch.stack([winner == number for number in range(1, len(logits))])
        expected = network.assess(query, masks, logits.softmax(0).amax(0))
        return logits, tuple(float(value) for value in expected.cpu())

    def _memory_of(self, index: int, drawn: _Drawn, frame: Frame) -> Memory:
        """A reference as remembered; held as long as the propagation goes on."""
        if index not in drawn.memories:
            drawn.memories[index] = self._sight.reference(frame, self._image[index], drawn.masks[index])
        return drawn.memories[index]

    def _check(self, references: Mapping[int, np.ndarray], wanted: Sequence[int]) -> None:
        count, *plane = self._image.shape
        outside = sorted({index for index in (*references, *wanted) if not 0 <= index < count})
        if outside:
            raise InputError(f"Slices {outside} lie outside the image (0 to {count - 1}).")
        shapes = {np.shape(masks) for masks in references.values()}
        if len(shapes) > 1 or any(len(shape) != 3 or shape[0] < 1 or [*shape[1:]] != plane for shape in shapes):
            raise InputError(
                f"Masks of the references have the shapes {sorted(shapes)}.",
                why=f"All must be (objects, {plane[0]}, {plane[1]}), with the same objects.",
            )


@dataclass(frozen=True, eq=False)
class _Drawn:
    """References by slice, ascending: masks, shape (objects, rows, columns), and what is remembered of them."""

    masks: Mapping[int, np.ndarray]
    memories: dict[int, Memory] = field(default_factory=dict)


def _levels(logits: Tensor) -> Tensor:
    """Each object's logit above the highest of all others, shape (objects, rows, columns).

    0 or more where it is the highest, the first of equals; below 0 everywhere else.
    """
    highest = logits.topk(2, 0).values
    winner = torch.arange(len(logits), device=logits.device)[:, None, None] == logits.argmax(0)
    level = torch.where(winner, highest[0] - highest[1], logits - highest[0] - EPSILON)
    return level[1:]
