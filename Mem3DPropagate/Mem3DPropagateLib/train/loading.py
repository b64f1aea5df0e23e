"""Batches of episodes by number, so that other processes can prepare them. Needs torch."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from Mem3DPropagateLib.train.episodes import EpisodeMaker
from Mem3DPropagateLib.train.learning import Batch
from Mem3DPropagateLib.train.subjects import Subject


class EpisodeBatches(Dataset[Batch]):
    """The batches of steps ``first`` to ``last`` - 1; what a step gets depends on the seed and its number alone.

    Parameters
    ----------
    subjects : list of Subject
    seed : int
    episodes : int
        Per batch.
    first, last : int
    """

    def __init__(self, subjects: list[Subject], seed: int, episodes: int, first: int, last: int) -> None:
        self._maker = EpisodeMaker(subjects, seed)
        self._episodes, self._first, self._last = episodes, first, last

    def __len__(self) -> int:
        return self._last - self._first

    def __getitem__(self, index: int) -> Batch:
        if index >= len(self):
            raise IndexError(index)
        torch.set_num_threads(1)
        start = (self._first + index) * self._episodes
        return Batch.of([self._maker.episode(start + number) for number in range(self._episodes)])
