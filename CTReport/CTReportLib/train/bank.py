"""An encoder's features of many cases, kept while a classifier learns on them. Needs torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from CTReportLib.answers import ENCODING, OpenModels, encoded
from CTReportLib.nets.conv import ConvEncoder
from CTReportLib.nets.encoders import Encoder
from CTReportLib.nets.features import Features
from CTReportLib.preprocess import Window
from CTReportLib.stages import Stages
from CTReportLib.train.ctrate import CtCase
from CTReportLib.train.learning import SHIFT_VOXELS, gathered, windowed
from CTReportLib.train.learning import varied as varied_volume
from CTReportLib.train.store import Store
from MedAILib.imageio import read_volume
from MedAILib.jobs.task import Context

_AT_ONCE = 8


class FeatureBank:
    """Features by number of case.

    Parameters
    ----------
    pooled : torch.Tensor
        Shape (cases, width); of an encoder that still learns its last layer, what goes into that.
    patches : ndarray or None
        Float16, shape (cases, patches, width), mapped from a file; None where no head looks at them.
    grid : tuple of int
        Of the patches.
    regions : torch.Tensor or None
        Means over the anatomical regions, shape (cases, 1, width).
    pool : torch.nn.Module or None
        That last layer.
    """

    def __init__(
        self,
        pooled: torch.Tensor,
        patches: np.ndarray | None,
        grid: tuple[int, int, int],
        regions: torch.Tensor | None = None,
        pool: torch.nn.Module | None = None,
    ) -> None:
        self._pooled, self._patches, self._grid = pooled, patches, grid
        self._regions, self.pool = regions, pool

    def __len__(self) -> int:
        return len(self._pooled)

    def features(self, chosen: np.ndarray, device: str) -> Features:
        """Of some cases, on a device."""
        rows = torch.from_numpy(np.asarray(chosen))
        pooled = self._pooled[rows].to(device)
        if self._patches is None:
            patches = pooled[:, None, :]
        else:
            patches = torch.from_numpy(self._patches[chosen].astype(np.float32)).to(device)
        return Features(
            pooled=pooled if self.pool is None else self.pool(pooled),
            patches=patches,
            grid=self._grid,
            regions=None if self._regions is None else self._regions[rows].to(device),
        )


def own_bank(
    encoder: ConvEncoder,
    store: Store,
    windows: Sequence[Window],
    folder: Path,
    context: Context,
    *,
    patches: bool,
    varied: int = 0,
    seed: int = 0,
) -> FeatureBank:
    """Of the encoder that is trained here, in evaluation mode.

    Parameters
    ----------
    encoder : ConvEncoder
    store : Store
    windows : sequence of Window
    folder : Path
        For patches.
    context : Context
    patches : bool
        Whether the head looks at them.
    varied : int
        How often all cases come once more, each a little shifted and brighter or darker; case n is row n of each round.
    seed : int
        Of that.
    """
    encoder.eval()
    kept: list[torch.Tensor] = []
    rows = len(store) * (1 + varied)
    drawer = _PatchFile(folder / f"patches-own-{rows}.npy", rows) if patches else None
    grid = (0, 0, 0)
    with torch.inference_mode():
        for start in range(0, rows, _AT_ONCE):
            context.check()
            hu = np.stack([_volume(store, row, seed) for row in range(start, min(start + _AT_ONCE, rows))])
            answer = encoder.answer(windowed(hu, windows).to(context.device))
            kept.append(answer.statistics.cpu())
            grid = answer.features.grid
            if drawer is not None:
                drawer.put(start, answer.features.patches)
    statistics = torch.cat(kept).clone()
    return FeatureBank(statistics, drawer.mapped if drawer else None, grid, pool=encoder.pool)


def _volume(store: Store, row: int, seed: int) -> np.ndarray:
    """Row n of the first round is case n as it is, of the others a variant of it."""
    hu = np.asarray(store.hu[row % len(store)])
    if row < len(store):
        return hu
    rng = np.random.default_rng([seed, row])
    return varied_volume(hu, rng.integers(-SHIFT_VOXELS, SHIFT_VOXELS + 1, 3), rng)


def given_bank(
    encoder: Encoder,
    cases: Sequence[CtCase],
    folder: Path,
    cache: Path,
    context: Context,
    done: tuple[float, float],
    *,
    patches: bool,
) -> FeatureBank:
    """Of a given encoder; features that were made before, by whatever asked, are taken from the cache.

    ``done``: share of the whole run before and after.
    """
    name = hashlib.sha256(repr([encoder.sha256, *(case.name for case in cases)]).encode()).hexdigest()[:16]
    drawer = _PatchFile(folder / f"patches-{name}.npy", len(cases)) if patches else None
    opened = OpenModels(encoder=encoder, device=str(encoder.device))
    kept = []
    for number, case in enumerate(cases):
        fraction = done[0] + number / len(cases) * (done[1] - done[0])
        context.progress(ENCODING, fraction, f"volume {number + 1} of {len(cases)}")
        volume = read_volume(case.volume)
        features = encoded(opened, volume, None, _Silent(context), cache)
        if drawer is not None:
            drawer.put(number, features.patches)
        mean = None if features.regions is None else features.regions.mean(dim=1, keepdim=True).cpu()
        pooled = features.pooled.cpu()
        kept.append(Features(pooled=pooled, patches=pooled[:, None], grid=features.grid, regions=mean))
    whole = gathered(kept)
    return FeatureBank(whole.pooled, drawer.mapped if drawer else None, whole.grid, whole.regions)


class _PatchFile:
    """Patches of all cases in a file as large as it needs to be."""

    def __init__(self, path: Path, cases: int) -> None:
        self._path, self._cases = path, cases
        self._file: np.ndarray | None = None

    def put(self, first: int, patches: torch.Tensor) -> None:
        values = patches.to("cpu", torch.float16).numpy()
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            shape = (self._cases, *values.shape[1:])
            self._file = np.lib.format.open_memmap(self._path, "w+", np.float16, shape)
        self._file[first : first + len(values)] = values

    @property
    def mapped(self) -> np.ndarray | None:
        return self._file


class _Silent(Stages):
    """Watches for a cancel only: the volumes are counted, not the blocks of the network."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, {ENCODING: 1.0})
        self._watched = context

    def within(self, share: float, detail: str = "") -> None:
        self._watched.check()
