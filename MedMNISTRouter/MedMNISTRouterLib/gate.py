"""The Mahalanobis gate: how far an image's features lie from those of the images a model was trained on.

Lee et al., A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018: one Gaussian per
class with a common covariance, fitted to the penultimate features. Where there are many features, the covariance is
kept along its strongest directions and taken as equal in all others (probabilistic principal components, Tipping and
Bishop 1999), so that what leaves the space of the training images still counts.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.atomic import replacing
from MedAILib.errors import FileMissing, InvalidWeights

LARGEST_RANK = 128
"""Directions of the covariance that are kept."""
SHRINKAGE = 1e-3
"""Share of the mean variance added in every direction, against directions with too few images."""
FEWEST_FOR_SCALE = 20
"""Held-out images of a kind without which it keeps the common scale."""
_ARRAYS = ("means", "directions", "deviations", "rest")
_SCALES = "scales"


@dataclass(frozen=True, eq=False)
class MahalanobisGate:
    """Statistics of features.

    Attributes
    ----------
    means : ndarray, shape (classes, features), float32
    directions : ndarray, shape (features, rank), float32
        Orthonormal columns, strongest direction first.
    deviations : ndarray, shape (rank,), float32
        Standard deviation within the classes along each direction.
    rest : float
        Standard deviation in every other direction; 0 where there is none.
    scales : ndarray, shape (classes,), float32, optional
        What distances from each class are divided by, see `scaled`; None: 1.
    """

    means: np.ndarray
    directions: np.ndarray
    deviations: np.ndarray
    rest: float
    scales: np.ndarray | None = None

    @classmethod
    def fit(
        cls, features: np.ndarray, labels: np.ndarray | None = None, *, rank: int = LARGEST_RANK
    ) -> MahalanobisGate:
        """Fit to the features of training images.

        Parameters
        ----------
        features : ndarray, shape (images, features)
        labels : ndarray of int, shape (images,), optional
            Class of each image, any numbers. None (multi-label): one Gaussian for all.
        rank : int
            Directions to keep at most.

        Raises
        ------
        ValueError
            Fewer than two images, or values that are not finite.
        """
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
            raise ValueError("features must be finite, of shape (images, features), two images at least")
        groups = np.zeros(len(x), int) if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1]
        means = np.stack([x[groups == group].mean(axis=0) for group in range(groups.max() + 1)])
        centred = x - means[groups]
        _, singular, rows = np.linalg.svd(centred, full_matrices=False)
        variances = singular**2 / len(x)
        count = x.shape[1]
        floor = max(SHRINKAGE * variances.sum() / count, np.finfo(np.float32).tiny)
        kept = min(rank, len(variances))
        others = count - kept
        rest = np.sqrt(variances[kept:].sum() / others + floor) if others else 0.0
        deviations = np.sqrt(variances[:kept] + floor)
        return cls(
            means.astype(np.float32), rows[:kept].T.astype(np.float32), deviations.astype(np.float32), float(rest)
        )

    def scaled(
        self, features: np.ndarray, kinds: np.ndarray, kinds_of_classes: np.ndarray, acceptance: float = 0.95
    ) -> MahalanobisGate:
        """The same gate with a scale for each kind of image: kinds that vary much get more room, others less.

        The common covariance is too narrow for some classes and too wide for others. A scale is the root of the
        kind's own distance quantile over that of all images: half way (in logarithms) between one threshold for all
        and one for each, as quantiles of few images are not certain.

        Parameters
        ----------
        features : ndarray, shape (images, features)
            Of held-out images.
        kinds : ndarray of int, shape (images,)
            Kind of each of them.
        kinds_of_classes : ndarray of int, shape (classes,)
            Kind that each of ``means`` belongs to, in their order.
        acceptance : float
            The quantile.
        """
        squared = self._squared(np.asarray(features, dtype=np.float64))
        common = np.quantile(squared.min(axis=1), acceptance)
        scales = np.ones(len(self.means))
        for kind in np.unique(kinds_of_classes):
            members, own = kinds == kind, kinds_of_classes == kind
            if members.sum() >= FEWEST_FOR_SCALE and common > 0:
                quantile = np.quantile(squared[members][:, own].min(axis=1), acceptance)
                scales[own] = max(quantile / common, np.finfo(np.float32).tiny) ** 0.25  # of squares: root of a root
        return replace(self, scales=scales.astype(np.float32))

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of each image from the nearest class.

        Parameters
        ----------
        features : ndarray, shape (images, features)

        Returns
        -------
        ndarray, shape (images,), float64
            In standard deviations, divided by the square root of the number of features: about 1 for a typical
            image of the right kind. Infinite where a feature is not finite.
        """
        squared = self._squared(np.asarray(features, dtype=np.float64))
        if self.scales is not None:
            squared = squared / self.scales.astype(np.float64) ** 2
        return np.sqrt(squared.min(axis=1) / self.feature_count)

    def _squared(self, x: np.ndarray) -> np.ndarray:
        """Squared distances from every class, shape (images, classes); infinite where a feature is not finite."""
        found = np.empty((len(x), len(self.means)))
        for number, mean in enumerate(self.means.astype(np.float64)):
            with np.errstate(invalid="ignore", over="ignore"):
                offset = x - mean
                along = offset @ self.directions
                squared = ((along / self.deviations) ** 2).sum(axis=1)
                if self.rest:
                    outside = (offset**2).sum(axis=1) - (along**2).sum(axis=1)
                    squared += np.maximum(outside, 0) / self.rest**2
            found[:, number] = np.where(np.isfinite(squared), squared, np.inf)
        return found

    def threshold(self, features: np.ndarray, acceptance: float = 0.95) -> float:
        """The distance that this share of held-out images of the right kind does not exceed."""
        return float(np.quantile(self.distances(features), acceptance, method="higher"))

    @property
    def feature_count(self) -> int:
        return self.means.shape[1]

    def save(self, path: Path) -> None:
        """Write the statistics as ``.npz``; raises `OutputError`."""
        with replacing(path) as partial, partial.open("wb") as stream:
            arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
            np.savez(stream, **arrays if self.scales is None else {**arrays, _SCALES: self.scales})

    @classmethod
    def load(cls, path: Path) -> MahalanobisGate:
        """Read what `save` wrote.

        Raises
        ------
        FileMissing
        InvalidWeights
            Not such a file, damaged, or its arrays do not fit each other.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                means, directions, deviations, rest = (np.asarray(file[name]) for name in _ARRAYS)
                scales = np.asarray(file[_SCALES]) if _SCALES in file.files else None
            gate = cls(means, directions, deviations, float(rest), scales)
            if not gate._is_sound():
                raise ValueError("its arrays do not fit each other")
        except FileNotFoundError as error:
            raise FileMissing(f"There are no statistics '{path}'.", todo="Get the model again.") from error
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise InvalidWeights(
                f"'{path}' holds no statistics of features.", why=f"{error}.", todo="Get the model again."
            ) from error
        return gate

    def _is_sound(self) -> bool:
        scales = np.ones(len(self.means), np.float32) if self.scales is None else self.scales
        arrays = (self.means, self.directions, self.deviations, scales)
        return (
            [array.ndim for array in arrays] == [2, 2, 1, 1]
            and len(scales) == len(self.means)
            and bool((scales > 0).all())
            and self.directions.shape == (self.means.shape[1], len(self.deviations))
            and len(self.means) > 0
            and all(array.dtype.kind == "f" and bool(np.isfinite(array).all()) for array in arrays)
            and bool((self.deviations > 0).all())
            and self.rest >= 0
        )
