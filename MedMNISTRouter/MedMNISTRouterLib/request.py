"""What the router is asked and what it answers: plain values, so that any runner can carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from MedMNISTRouterLib.datasets import DatasetTask

ROUTE_TASK = "MedMNISTRouterLib.task:RouteTask"
"""Name of the task that answers a `RouteRequest`, as runners know it."""

ROUTER = "router"
"""Name of the router's slot; an expert's slot is called as its data set."""


class Engine(Enum):
    """What ran a model."""

    ONNX = "onnxruntime"
    TENSORFLOW = "tensorflow worker"
    """The conversion to ONNX failed; a process of its own with TensorFlow answers."""


class Stage(Enum):
    """Where an image was found not to be one of those that the models know."""

    NONE = ""
    INPUT = "input"
    """Before any model: too small, constant, noise, colour where grey is expected."""
    ROUTER = "router"
    EXPERT = "expert"


@dataclass(frozen=True, eq=False)
class PlainImage:
    """One 2D picture.

    Attributes
    ----------
    name : str
        For people: the file, or the volume and the slice.
    pixels : ndarray, shape (rows, columns) or (rows, columns, 3), uint8, uint16 or float32
        Grey or RGB, upright as a person looks at it; MONOCHROME1 already inverted, rescale applied.
    value_range : tuple of float, optional
        Pixel values shown as black and as white: the window of a CT slice, (0, 65535) of a 16-bit picture.
        None: (0, 255) for uint8, the picture's own smallest and largest value for uint16; for float it is
        guessed, and the answer says so.
    modality : str
        DICOM's word (CT, DX, CR, OCT, OP, SM, US, ...); empty where not known. A hint, never a proof.
    plane : str
        ``axial``, ``coronal`` or ``sagittal``; empty where not known. Ranks the three organ sets.
    """

    name: str
    pixels: np.ndarray
    value_range: tuple[float, float] | None = None
    modality: str = ""
    plane: str = ""

    @property
    def is_colour(self) -> bool:
        """Whether it has three channels that differ anywhere."""
        p = self.pixels
        return p.ndim == 3 and bool((p[..., 0] != p[..., 1]).any() or (p[..., 1] != p[..., 2]).any())


@dataclass(frozen=True)
class ModelChoice:
    """Use this model for a slot, whatever is installed.

    Attributes
    ----------
    slot : str
        `ROUTER` or a data set's flag.
    path : Path
        A folder with ``model_config.json``, or a ``.keras`` file.
    """

    slot: str
    path: Path


@dataclass(frozen=True, eq=False)
class RouteRequest:
    """Route pictures to experts and let these answer.

    Attributes
    ----------
    images : tuple of PlainImage
        Any number; a whole stack goes in one request.
    expert : str
        Flag of a data set: skip the router. Empty: route.
    top : int
        How many routes to list per picture.
    models_folder : Path, optional
        The weights manager's store, or a plain folder with ``stage1_final.keras`` and its fellows.
        None: the user's store.
    models : tuple of ModelChoice
    memory_budget_bytes : int, optional
        For loaded models. None: a tenth of the machine's memory, 1 GB at most.
    batch_size : int
        Pictures per call of a model.
    without_gate : bool
        Give labels even where no model has statistics that tell pictures of another kind. Default: no label then.
    """

    images: tuple[PlainImage, ...]
    expert: str = ""
    top: int = 3
    models_folder: Path | None = None
    models: tuple[ModelChoice, ...] = ()
    memory_budget_bytes: int | None = None
    batch_size: int = 32
    without_gate: bool = False


@dataclass(frozen=True)
class Route:
    """One place the router could send a picture to.

    Attributes
    ----------
    name : str
        The router's class: a data set's flag, or a kind of image such as ``chest radiograph``.
    dataset : str
        Flag of the data set whose expert would answer; empty where no data set has such images.
    confidence : float
        Probability of the class, 0..1.
    is_installed : bool
        Whether that expert is on this machine.
    """

    name: str
    dataset: str
    confidence: float
    is_installed: bool


@dataclass(frozen=True)
class Positive:
    """A finding of a multi-label expert whose probability reaches its threshold."""

    index: int
    name: str
    probability: float
    threshold: float


@dataclass(frozen=True)
class ModelUsed:
    """A model that took part in an answer.

    Attributes
    ----------
    slot, id : str
    sha256 : str
        Of the file as the user has it (the ``.keras`` file where it was converted).
    engine : Engine
    remark : str
        Such as why the conversion failed; empty where there is nothing to say.
    """

    slot: str
    id: str
    sha256: str
    engine: Engine
    remark: str = ""


@dataclass(frozen=True)
class Answer:
    """What is said about one picture. Research use only: no diagnosis.

    Attributes
    ----------
    image : str
        Name of the picture.
    success : bool
        An expert answered and the picture was recognised.
    routed_dataset : str
        Flag of the expert that was asked, or would be; empty where the router turned the picture away, or no data
        set has such images.
    router_confidence : float, optional
        0..1, calibrated where ``calibrated``; None where the router was skipped or did not run.
    predicted_class_index : int, optional
        Most probable class; None where there is no answer. Of a multi-label expert: the most probable finding,
        which may be below its threshold; see ``positives``.
    predicted_class_confidence : float, optional
        Its probability.
    all_class_probs : tuple of float
        By class; of a multi-label expert they are independent of each other. Empty where there is no answer.
    class_names : tuple of str
    task : DatasetTask, optional
    positives : tuple of Positive
        Multi-label only, most probable first; empty: no finding reached its threshold.
    expected_grade : float, optional
        Ordinal only: mean grade under the probabilities.
    calibrated : bool
        Whether the expert's probabilities were calibrated (a temperature was fitted on held-out images).
    recognised : bool
        Whether the picture is like those the models were trained on. False: no label is given.
    distance, threshold : float, optional
        Mahalanobis distance of the features at the deciding stage, and the largest that is accepted; None where
        no statistics were fitted for that model or no model ran.
    reason : str
        Why it was not recognised, or why that could not be judged; empty where all is well.
    stage : Stage
        Where it was turned away.
    routes : tuple of Route
        The most probable ones, best first.
    models : tuple of ModelUsed
    milliseconds : mapping of str to float
        ``prepare``, ``load``, ``router``, ``expert``, ``total``; in a batch, its time divided by its pictures.
    engine : Engine, optional
        Of the expert, or of the router where no expert answered.
    error : str
        Why there is no answer although the picture may be recognised: weights not installed, a broken file.
    error_code : str
        Code of that error, see `MedAILib.errors`.
    warnings : tuple of str
    """

    image: str
    success: bool = False
    routed_dataset: str = ""
    router_confidence: float | None = None
    predicted_class_index: int | None = None
    predicted_class_confidence: float | None = None
    all_class_probs: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()
    task: DatasetTask | None = None
    positives: tuple[Positive, ...] = ()
    expected_grade: float | None = None
    calibrated: bool = False
    recognised: bool = False
    distance: float | None = None
    threshold: float | None = None
    reason: str = ""
    stage: Stage = Stage.NONE
    routes: tuple[Route, ...] = ()
    models: tuple[ModelUsed, ...] = ()
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    engine: Engine | None = None
    error: str = ""
    error_code: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def predicted_class_name(self) -> str:
        """Name of the most probable class; empty where there is no answer."""
        return "" if self.predicted_class_index is None else self.class_names[self.predicted_class_index]


@dataclass(frozen=True)
class CacheStats:
    """The engine's loaded models.

    Attributes
    ----------
    loaded : tuple of str
        Ids, least recently used first.
    bytes_used, bytes_budget : int
    hits, misses, evictions : int
        Since the engine was made.
    load_seconds : float
        Spent loading, all models together.
    """

    loaded: tuple[str, ...] = ()
    bytes_used: int = 0
    bytes_budget: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    load_seconds: float = 0.0


@dataclass(frozen=True)
class RouteResult:
    """Answers in the order of the request's pictures.

    Attributes
    ----------
    answers : tuple of Answer
    cache : CacheStats
    warnings : tuple of str
        About the whole run.
    """

    answers: tuple[Answer, ...]
    cache: CacheStats = field(default_factory=CacheStats)
    warnings: tuple[str, ...] = ()
