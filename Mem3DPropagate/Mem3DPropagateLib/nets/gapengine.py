"""Propagation by our network: gaps between references in one batch each, and roll-outs beyond the outermost ones.

Answers are kept on the working grid, in half precision, for one batch of a gap and for the roll-outs: memory does
not grow with the number of slices in between. torch is imported by the network that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from Mem3DPropagateLib.confidence import bracket
from Mem3DPropagateLib.nets.gapinput import (
    FARTHEST_PX,
    Appearance,
    Whereabouts,
    WorkingGrid,
    clipped,
    shape_planes,
)
from Mem3DPropagateLib.shapes import Stack, signed_distance_mm

if TYPE_CHECKING:
    from Mem3DPropagateLib.nets.gapmodel import LoadedGapNet

MOST_REFERENCES = 4
"""Remembered at once."""

AT_ONCE = 16
"""Slices of a gap per batch."""

STRIDE_OUT = 2
"""Slices that a roll-out answers before it stands on the last of them."""

FEWEST_PX = 4
"""Working pixels below which a structure has vanished."""

ISLAND_PX = 1.0
"""A part farther from the prior than so many working pixels is an island."""


@dataclass(frozen=True)
class Ending:
    """When a roll-out ends: where either falls below this. Chosen on training patients.

    Attributes
    ----------
    presence : float
        Probability that the structure is there.
    expected_dice : float
        A structure that the network can no longer outline has mostly ended.
    """

    presence: float
    expected_dice: float


ONE_DRAWN = Ending(0.7, 0.81)
SEVERAL_DRAWN = Ending(0.9, 0.0)
"""Of several drawn slices the outermost are mostly near the structure's ends."""


@dataclass(frozen=True, eq=False)
class GapAnswer:
    """The network's answer for one slice.

    Attributes
    ----------
    level_mm : ndarray, shape (rows, columns), float32
        Signed distance, positive inside, on the stack's pixels.
    expected_dice : float
        The Dice overlap it expects, 0..1; beyond the outermost reference times the probability that the structure
        is there at all.
    """

    level_mm: np.ndarray
    expected_dice: float


@dataclass(frozen=True, eq=False)
class _Known:
    """A slice with a shape to stand on or to remember: drawn, or answered before."""

    index: int
    distance_px: np.ndarray


@dataclass(frozen=True, eq=False)
class _Kept:
    """An answer on the working grid, float16: a correction of geometry, or a level of its own."""

    pixels: np.ndarray
    expected_dice: float
    presence: float


class GapPropagation:
    """One structure through its references, by the network.

    Parameters
    ----------
    loaded : LoadedGapNet
    image : ndarray, shape (slices, rows, columns)
        Any view; rows and columns are the stack's.
    stack : Stack
        At least one reference holds the structure.
    geometry : callable
        Level of a slice between references in millimetres, shape (rows, columns): the prior.
    """

    def __init__(
        self, loaded: LoadedGapNet, image: np.ndarray, stack: Stack, geometry: Callable[[int], np.ndarray]
    ) -> None:
        self._loaded, self._image, self._stack, self._geometry = loaded, image, stack, geometry
        self.grid = WorkingGrid.around(stack.masks, stack.pixel_mm)
        self._slice_px = stack.slice_mm / self.grid.pixel_mm
        self._sampled = lru_cache(maxsize=3 * AT_ONCE)(self._sample)
        self._shape = (stack.masks.shape[1], stack.masks.shape[2])
        self._known = {
            int(index): _Known(int(index), self._distance_px(mask))
            for index, mask, held in zip(stack.slices, stack.masks, stack.holds, strict=True)
            if held
        }
        self._rolled: dict[int, _Kept] = {}
        self._batch: dict[int, tuple[np.ndarray, _Kept]] = {}

    def roll_out(self, way: int, most: int, until_it_vanishes: bool, check: Callable[[], None]) -> int:
        """Go on beyond the outermost reference that holds the structure.

        Parameters
        ----------
        way : int
            1 for higher slice indices, -1 for lower ones.
        most : int
            Slices at most.
        until_it_vanishes : bool
            Stop where the structure is no longer seen.
        check : callable
            Called before every batch; may raise to cancel.

        Returns
        -------
        int
            Slices answered.
        """
        ordered = sorted(self._known.values(), key=lambda known: -way * known.index)
        base = start = ordered[0]
        least = ONE_DRAWN if len(ordered) == 1 else SEVERAL_DRAWN
        done = 0
        while done < most:
            check()
            ahead = [base.index + way * step for step in range(1, min(STRIDE_OUT, most - done) + 1)]
            memory = [*ordered[: MOST_REFERENCES - (base is not start)], *([base] if base is not start else [])]
            where = [
                Whereabouts(
                    abs(index - base.index),
                    abs(index - base.index) * self._slice_px,
                    None,
                    abs(index - start.index) * self._slice_px,
                )
                for index in ahead
            ]
            prior = clipped(base.distance_px)
            answers = self._ask(ahead, memory, [prior] * len(ahead), where, keep_level=True)
            for index, answer in zip(ahead, answers, strict=True):
                ended = answer.presence < least.presence or answer.expected_dice < least.expected_dice
                if until_it_vanishes and (ended or np.count_nonzero(answer.pixels >= 0) < FEWEST_PX):
                    return done
                self._rolled[index] = answer
                done += 1
            last = self._rolled[ahead[-1]].pixels >= 0
            if not last.any():
                return done
            base = _Known(ahead[-1], signed_distance_mm(last, (1.0, 1.0)))
        return done

    def answer(self, index: int, wanted: range) -> GapAnswer | None:
        """The answer for a slice; None where there is none: no reference on its two sides and no roll-out to it.

        ``wanted``: the slices that will be asked for, in ascending order; those of a gap are answered in batches.
        """
        if index in self._rolled:
            kept = self._rolled[index]
            level_px = self.grid.back(kept.pixels, self._shape, -FARTHEST_PX)
            return GapAnswer(level_px * np.float32(self.grid.pixel_mm), kept.expected_dice * kept.presence)
        around = bracket(self._stack.slices, index)
        ends = [int(self._stack.slices[p]) for p in around.positions]
        if len(ends) < 2 or any(end not in self._known for end in ends):
            return None
        gap = (ends[0], ends[1])
        if index not in self._batch:
            some = [i for i in range(index, min(index + AT_ONCE, ends[1])) if i in wanted]
            self._batch = self._fill(some, gap)
        prior_mm, kept = self._batch[index]
        pixel_mm = np.float32(self.grid.pixel_mm)
        correction_mm = self.grid.back(kept.pixels, self._shape, 0.0) * pixel_mm
        return GapAnswer(np.maximum(prior_mm, -FARTHEST_PX * pixel_mm) + correction_mm, kept.expected_dice)

    def _fill(self, some: Sequence[int], gap: tuple[int, int]) -> dict[int, tuple[np.ndarray, _Kept]]:
        """Slices of a gap with what geometry foretells of them, in millimetres, and its correction."""
        middle = sum(gap) / 2
        memory = sorted(self._known.values(), key=lambda known: abs(known.index - middle))[:MOST_REFERENCES]
        priors_mm = [self._geometry(index) for index in some]
        priors_px = [clipped(self.grid.sample(prior) / self.grid.pixel_mm) for prior in priors_mm]
        where = []
        for index in some:
            near, far = sorted((index - gap[0], gap[1] - index))
            where.append(Whereabouts(near, near * self._slice_px, far * self._slice_px, near * self._slice_px))
        kept = self._ask(some, memory, priors_px, where, keep_level=False)
        return dict(zip(some, zip(priors_mm, kept, strict=True), strict=True))

    def _ask(
        self,
        indices: Sequence[int],
        memory: Sequence[_Known],
        priors_px: Sequence[np.ndarray],
        where: Sequence[Whereabouts],
        *,
        keep_level: bool,
    ) -> list[_Kept]:
        """One batch through the network."""
        import torch

        memory = sorted(memory, key=lambda known: known.index)
        distances = np.stack([known.distance_px for known in memory])
        at = [known.index for known in memory]
        look = Appearance.of(np.stack([self._sampled(index) for index in at]), distances)
        apart = np.abs(np.subtract.outer(np.array(indices), np.array(at))) * self._slice_px
        scalars = np.stack([w.scalars(prior) for w, prior in zip(where, priors_px, strict=True)])
        arrays = (
            look.planes(*self._thrice(at)),
            shape_planes(distances),
            np.ones(len(at), bool),
            look.planes(*self._thrice(indices)),
            np.stack(priors_px),
            scalars,
            apart.astype(np.float32),
        )
        tensors = [torch.from_numpy(array)[None].to(self._loaded.device) for array in arrays]
        with torch.inference_mode():
            outputs = self._loaded.network(*tensors)
        expected, presence = torch.sigmoid(outputs.quality)[0].tolist(), torch.sigmoid(outputs.presence)[0].tolist()
        levels = outputs.level_px[0].float().cpu().numpy()
        levels = [without_islands(level, prior) for level, prior in zip(levels, priors_px, strict=True)]
        pixels = levels if keep_level else [level - prior for level, prior in zip(levels, priors_px, strict=True)]
        kept = [np.clip(one, -2 * FARTHEST_PX, 2 * FARTHEST_PX).astype(np.float16) for one in pixels]
        return [_Kept(p, e, s) for p, e, s in zip(kept, expected, presence, strict=True)]

    def _thrice(self, indices: Sequence[int]) -> list[np.ndarray]:
        last = len(self._image) - 1
        return [np.stack([self._sampled(min(max(i + step, 0), last)) for i in indices]) for step in (-1, 0, 1)]

    def _sample(self, index: int) -> np.ndarray:
        window = self.grid.within(self._shape)
        cut = self._image[index][window]
        return self.grid.moved(window[0].start, window[1].start).sample(cut)

    def _distance_px(self, mask: np.ndarray) -> np.ndarray:
        distance_mm = signed_distance_mm(mask, self._stack.pixel_mm)
        return clipped(self.grid.sample(distance_mm) / self.grid.pixel_mm)


def without_islands(level_px: np.ndarray, prior_px: np.ndarray) -> np.ndarray:
    """A level without the parts that do not touch what geometry foretold: the network corrects, it does not invent.

    Both float32, shape (rows, columns), in working pixels; where the prior is empty nothing is taken away.
    """
    inside = level_px >= 0
    parts, count = ndimage.label(inside)
    touched = np.unique(parts[inside & (prior_px >= -ISLAND_PX)])
    if not len(touched) or len(touched) == count:
        return level_px
    return np.where(inside & ~np.isin(parts, touched), np.float32(-1.0), level_px)
