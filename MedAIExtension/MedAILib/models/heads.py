"""What goes into a model and what comes out of it: inputs, their normalisation, heads, classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from MedAILib.models.records import ROOT, Problems


class NormalisationKind(Enum):
    """How stored values become what the network was trained on."""

    NONE = "none"
    Z_SCORE = "z-score"
    """Each image minus its own mean, divided by its own standard deviation."""
    MIN_MAX = "min-max"
    """Each image from its own minimum and maximum to 0..1."""
    PERCENTILES = "percentiles"
    """Each image from its own percentiles ``lower`` and ``upper`` (0..100) to 0..1, clipped."""
    WINDOW = "window"
    """From the stored values ``lower`` and ``upper`` (for CT in HU) to 0..1, clipped."""
    FIXED = "fixed"
    """Divided by ``scale``, minus ``mean``, divided by ``std``, channel by channel."""


class Resize(Enum):
    """How an image comes to the network's size."""

    NONE = "none"
    NEAREST = "nearest"
    LINEAR = "linear"
    CUBIC = "cubic"
    AREA = "area"


class HeadTask(Enum):
    """What a head answers."""

    SEGMENTATION = "segmentation"
    BINARY = "binary"
    MULTI_CLASS = "multi-class"
    MULTI_LABEL = "multi-label"
    ORDINAL = "ordinal"
    REGRESSION = "regression"


class Activation(Enum):
    """What turns a head's raw output into probabilities."""

    NONE = "none"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"


_FEWEST_CLASSES = {
    HeadTask.SEGMENTATION: 1,
    HeadTask.BINARY: 2,
    HeadTask.MULTI_CLASS: 2,
    HeadTask.MULTI_LABEL: 1,
    HeadTask.ORDINAL: 2,
    HeadTask.REGRESSION: 0,
}
_NEEDS_BOUNDS = (NormalisationKind.WINDOW, NormalisationKind.PERCENTILES)


@dataclass(frozen=True)
class Code:
    """A term of a terminology, as DICOM writes it: ("SCT", "108369006", "Neoplasm")."""

    scheme: str
    value: str
    meaning: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassInfo:
    """One class of a head.

    Attributes
    ----------
    index : int
        Place among the head's classes, from 0.
    name : str
    terminology : Code, optional
    color_rgb : tuple of float, optional
        Red, green, blue, each 0..1.
    routes_to : tuple of str
        Of a model that chooses another: what the images of this class are given to, most fitting first.
    """

    index: int
    name: str
    terminology: Code | None = None
    color_rgb: tuple[float, float, float] | None = None
    routes_to: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self, path: str, problems: Problems) -> None:
        if not self.name.strip():
            problems.add(f"{path}.name", "must not be empty.")
        if self.color_rgb is not None and not all(0 <= part <= 1 for part in self.color_rgb):
            problems.add(f"{path}.color_rgb", "must be three numbers from 0 to 1.")


@dataclass(frozen=True)
class Head:
    """One output of a model.

    Attributes
    ----------
    name : str
        As the network names it.
    task : HeadTask
    classes : tuple of ClassInfo
        Indices count from 0. A segmentation by sigmoid has one class per channel and no background;
        by softmax, class 0 is the background. Of an ordinal head they are in order.
    activation : Activation
    threshold : float, optional
        Probability from which a class is taken as present.
    temperature : float
        Raw outputs are divided by it before the activation (calibration).
    positive_class : int, optional
        Of a binary head: the class whose probability is compared with ``threshold``.
    unit : str
        Of a regression.
    thresholds : tuple of float
        Of a multi-label head: one per class, instead of ``threshold``.
    slopes, intercepts : tuple of float
        Of a multi-label head: two per class. Raw outputs, divided by ``temperature``, are multiplied by the one and
        the other is added before the activation (calibration of each class, after Platt).
    calibrated_on : str
        The held-out images that the calibration was fitted on; empty: its probabilities are not calibrated.
    uncalibrated : tuple of str
        Names of the classes whose probabilities are not calibrated though others are: too few images held them.
    least_ml : tuple of float
        Of a segmentation of volumes: one per class. Less than this in a whole volume is noise, not the class.
    """

    name: str
    task: HeadTask
    classes: tuple[ClassInfo, ...] = ()
    activation: Activation = Activation.NONE
    threshold: float | None = None
    temperature: float = 1.0
    positive_class: int | None = None
    unit: str = ""
    thresholds: tuple[float, ...] = ()
    slopes: tuple[float, ...] = ()
    intercepts: tuple[float, ...] = ()
    calibrated_on: str = ""
    uncalibrated: tuple[str, ...] = ()
    least_ml: tuple[float, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by index."""
        return tuple(item.name for item in sorted(self.classes, key=lambda item: item.index))

    @property
    def outputs(self) -> int | None:
        """How many numbers (per voxel, for a segmentation) the network must answer; None where that is open."""
        if self.task is HeadTask.BINARY and self.activation is Activation.SIGMOID:
            return 1
        return len(self.classes) or None

    def check(self, path: str, problems: Problems) -> None:
        self._check_classes(path, problems)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            problems.add(f"{path}.threshold", f"must be a probability from 0 to 1, not {self.threshold}.")
        self._check_thresholds(path, problems)
        self._check_calibration(path, problems)
        self._check_least(path, problems)
        if self.temperature <= 0:
            problems.add(f"{path}.temperature", f"must be above 0, not {self.temperature}.")
        if self.task is HeadTask.MULTI_LABEL and self.activation is Activation.SOFTMAX:
            problems.add(f"{path}.activation", "must not be softmax: the labels of a multi-label head are independent.")
        if self.task is HeadTask.REGRESSION and self.activation is Activation.SOFTMAX:
            problems.add(f"{path}.activation", "must not be softmax: a regression answers no probabilities.")
        if self.positive_class is not None and self.task is not HeadTask.BINARY:
            problems.add(f"{path}.positive_class", "belongs to a binary head only.")

    def _check_thresholds(self, path: str, problems: Problems) -> None:
        if not self.thresholds:
            return
        if self.task is not HeadTask.MULTI_LABEL:
            problems.add(f"{path}.thresholds", "belong to a multi-label head only.")
        if len(self.thresholds) != len(self.classes):
            problems.add(f"{path}.thresholds", f"must be {len(self.classes)}, one per class.")
        if not all(0 <= value <= 1 for value in self.thresholds):
            problems.add(f"{path}.thresholds", "must be probabilities from 0 to 1.")

    def _check_least(self, path: str, problems: Problems) -> None:
        if not self.least_ml:
            return
        if self.task is not HeadTask.SEGMENTATION:
            problems.add(f"{path}.least_ml", "belongs to a segmentation only.")
        if len(self.least_ml) != len(self.classes):
            problems.add(f"{path}.least_ml", f"must be {len(self.classes)}, one per class.")
        if not all(value >= 0 for value in self.least_ml):
            problems.add(f"{path}.least_ml", "must be volumes of 0 ml and above.")

    def _check_calibration(self, path: str, problems: Problems) -> None:
        for name, values in (("slopes", self.slopes), ("intercepts", self.intercepts)):
            if values and self.task is not HeadTask.MULTI_LABEL:
                problems.add(f"{path}.{name}", "belong to a multi-label head only.")
            if (self.slopes or self.intercepts) and len(values) != len(self.classes):
                problems.add(f"{path}.{name}", f"must be {len(self.classes)}, one per class.")
        if not all(value > 0 for value in self.slopes):
            problems.add(f"{path}.slopes", "must be above 0: otherwise a class is less probable the more it shows.")
        for name in sorted(set(self.uncalibrated) - set(self.class_names)):
            problems.add(f"{path}.uncalibrated", f"names '{name}', which is no class of this head.")

    def _check_classes(self, path: str, problems: Problems) -> None:
        indices = [item.index for item in self.classes]
        if sorted(indices) != list(range(len(indices))):
            problems.add(f"{path}.classes", f"must have the indices 0 to {len(indices) - 1}, each once, not {indices}.")
        names = [item.name for item in self.classes]
        for name in sorted({name for name in names if names.count(name) > 1}):
            problems.add(f"{path}.classes", f"has the name '{name}' more than once.")
        fewest = _FEWEST_CLASSES[self.task]
        if len(indices) < fewest or (self.task is HeadTask.BINARY and len(indices) != 2):
            needed = "exactly 2 classes" if self.task is HeadTask.BINARY else f"at least {fewest}"
            problems.add(f"{path}.classes", f"must have {needed} for the task {self.task.value}, not {len(indices)}.")
        if self.positive_class is not None and self.positive_class not in indices:
            problems.add(f"{path}.positive_class", f"must be the index of a class, not {self.positive_class}.")


@dataclass(frozen=True)
class Normalisation:
    """How stored values become the network's input; which fields count depends on ``kind``.

    Attributes
    ----------
    kind : NormalisationKind
    lower, upper : float, optional
        Of a window: stored values; of percentiles: 0..100.
    scale : float
        Of ``FIXED``: what stored values are divided by first, 255 for 8-bit pictures.
    mean, std : tuple of float
        Of ``FIXED``: one per channel.
    """

    kind: NormalisationKind
    lower: float | None = None
    upper: float | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self, path: str, problems: Problems) -> None:
        if self.kind in _NEEDS_BOUNDS:
            if self.lower is None or self.upper is None:
                problems.add(path, f"must have 'lower' and 'upper' for the kind {self.kind.value}.")
            elif self.lower >= self.upper:
                problems.add(f"{path}.upper", f"must be above 'lower' ({self.lower}), not {self.upper}.")
            elif self.kind is NormalisationKind.PERCENTILES and not (self.lower >= 0 and self.upper <= 100):
                problems.add(path, "must have percentiles from 0 to 100.")
        if self.kind is NormalisationKind.FIXED:
            if not self.mean or len(self.mean) != len(self.std):
                problems.add(path, "must have as many values in 'mean' as in 'std', at least one.")
            if self.scale == 0 or 0 in self.std:
                problems.add(path, "must not divide by 0 ('scale' or 'std').")


@dataclass(frozen=True)
class Input:
    """One image that a model takes.

    Attributes
    ----------
    name : str
    modality : str
        DICOM's word: MR, CT, DX, OCT, ...; empty where not known.
    channels : tuple of str
        Names of the channels, in order.
    size : tuple of int
        Voxels the network expects, slowest axis first: (rows, columns) or (slices, rows, columns); empty: any.
    spacing_mm : tuple of float
        In the order of ``size``; empty: any.
    orientation : str
        Such as ``axial`` or ``RAS``; empty: any.
    resize : Resize, optional
    keep_aspect : bool
        Whether resizing keeps the image's proportions, in mm, and fills the rest of ``size`` with the image's
        smallest value, evenly on both sides.
    normalisation : Normalisation, optional
        None where nobody stated it: ask, do not guess.
    """

    name: str = "image"
    modality: str = ""
    channels: tuple[str, ...] = ()
    size: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    orientation: str = ""
    resize: Resize | None = None
    keep_aspect: bool = False
    normalisation: Normalisation | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def check(self, path: str, problems: Problems) -> None:
        if any(count < 1 for count in self.size):
            problems.add(f"{path}.size", f"must be whole numbers above 0, not {list(self.size)}.")
        if any(step <= 0 for step in self.spacing_mm):
            problems.add(f"{path}.spacing_mm", f"must be numbers above 0, not {list(self.spacing_mm)}.")
        if self.size and self.spacing_mm and len(self.size) != len(self.spacing_mm):
            problems.add(f"{path}.spacing_mm", "must have as many numbers as 'size'.")
        norm = self.normalisation
        if norm is not None and self.channels and len(norm.mean) not in (0, 1, len(self.channels)):
            problems.add(
                f"{path}.normalisation.mean", f"must have one number or {len(self.channels)}, one per channel."
            )


def index_path(name: str, index: int, *parts: str) -> str:
    """``$.heads[0].threshold`` from ("heads", 0, "threshold")."""
    return ".".join((f"{ROOT}.{name}[{index}]", *parts))
