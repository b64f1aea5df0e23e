"""What models say of a CT: opened and held against each other first, then asked, each once. Loads torch in functions.

The encoder sees the CT once for all heads; its features are kept. Heads that were trained on another encoder are
refused before anything is computed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from CTReportLib.anatomy import Anatomy, find_anatomy
from CTReportLib.findings import find
from CTReportLib.language.identity import sha256_of
from CTReportLib.layouts import laid_out, layout_of
from CTReportLib.localised import measured_drawing
from CTReportLib.measurement import Measurement
from CTReportLib.prediction import Prediction
from CTReportLib.preprocess import prepare
from CTReportLib.request import Models
from CTReportLib.stages import Stages
from MedAILib.errors import ConfigError, ConfigMismatch, FileMissing
from MedAILib.models.torchmodel import import_torch
from MedAILib.volume import Volume

if TYPE_CHECKING:
    from CTReportLib.nets.encoders import Encoder
    from CTReportLib.nets.features import Features
    from CTReportLib.nets.heads_weights import LoadedHead

LOADING, ENCODING, CLASSIFYING, DRAWING = (
    "Loading the models", "Reading the CT with the encoder", "Telling findings", "Drawing findings",
)  # fmt: skip
DECIDED_AT = 0.5
"""Probability from which a finding or a voxel is taken, where the head's description states none."""
REGIONS = ("left lung", "right lung", "airways", "heart", "other body")
"""Anatomical regions that are found here by classical means, for encoders that were trained with some of them."""


@dataclass(frozen=True)
class UsedModel:
    """A model that answered.

    Attributes
    ----------
    role : str
        ``encoder``, ``classifier``, ``localizer``.
    id, sha256 : str
    """

    role: str
    id: str
    sha256: str


@dataclass(frozen=True, eq=False)
class OpenModels:
    """Models that are loaded and fit each other; None: not asked for."""

    encoder: Encoder | None = None
    classifier: LoadedHead | None = None
    localizer: LoadedHead | None = None
    device: str = "cpu"

    @property
    def used(self) -> tuple[UsedModel, ...]:
        """Which these are."""
        found = []
        if self.encoder is not None:
            found.append(UsedModel("encoder", self.encoder.id, self.encoder.sha256))
        for role, head in (("classifier", self.classifier), ("localizer", self.localizer)):
            if head is not None:
                found.append(UsedModel(role, head.config.id, head.weights.sha256))
        return tuple(found)


def open_models(models: Models, device: str, *, encode: bool = True) -> OpenModels:
    """Load the models of a request and hold them against each other.

    Parameters
    ----------
    models : Models
    device : str
    encode : bool
        Whether anything reads what the encoder answers.

    Raises
    ------
    ConfigError
        A model is for another task, the classifier was trained on another encoder, or their widths differ.
    InvalidWeights, ConfigMismatch
        A file is not what it should be.
    FileMissing, UnreadableFile, MissingPackage
    """
    import_torch()
    from CTReportLib.nets.encoders import load_encoder
    from CTReportLib.nets.heads_weights import load_head
    from MedAILib.models.torchuse import chosen_device

    device = chosen_device(device)
    classifier = None if models.classifier is None else load_head(models.classifier, device)
    localizer = None if models.localizer is None else load_head(models.localizer, device)
    _check_kinds(classifier, localizer)
    if localizer is not None:
        layout_of(localizer.config)  # says what is missing before anything is computed
    encoder = None if models.encoder is None or not encode else load_encoder(models.encoder, device)
    if encoder is not None and classifier is not None:
        _check_fit(encoder, classifier)
    return OpenModels(encoder, classifier, localizer, device)


class KeptModels:
    """The models that were opened last, kept until others are asked for."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._kept = OpenModels()

    def opened(self, models: Models, device: str, *, encode: bool = True) -> OpenModels:
        """As `open_models`; loaded only where files, device or use are not those of the last time."""
        key = (device, encode, *(_stamp(path) for path in (models.encoder, models.classifier, models.localizer)))
        if key != self._key:
            self.close()
            self._kept = open_models(models, device, encode=encode)
            self._key = key
        return self._kept

    def close(self) -> None:
        """Let go of them."""
        self._key, self._kept = (), OpenModels()


def encoded(
    opened: OpenModels, volume: Volume, anatomy: Anatomy | None, stages: Stages, cache: Path | None
) -> Features:
    """The encoder's features of a CT, from the cache where it was seen before; errors as of the encoder.

    The anatomy is looked at for encoders that know regions only; where none is given it is found for them.
    """
    from CTReportLib.nets.featurecache import FeatureCache

    encoder = opened.encoder
    if encoder is None:
        raise ConfigError("There is no encoder to read the CT with.", todo="Give one.")
    prepared = prepare(volume, encoder.layout)
    regions = region_map(anatomy or find_anatomy(volume), encoder.regions) if encoder.regions else None
    return FeatureCache(cache).features(
        encoder,
        prepared,
        lambda: encoder.features(prepared, regions, watch=stages.within),
        extra="" if regions is None else hashlib.sha256(regions.array.tobytes()).hexdigest(),
    )


def predicted(head: LoadedHead, features: Features) -> tuple[tuple[Prediction, ...], tuple[str, ...]]:
    """What a classifier says of the findings that are known here.

    Returns
    -------
    tuple of Prediction
    tuple of str
        Names of its classes that are no findings here.
    """
    from CTReportLib.nets.heads_calibration import probabilities
    from MedAILib.models.torchuse import exact_arithmetic

    with exact_arithmetic():
        raw = head.network(features)[0].cpu().double().numpy()
    chances = probabilities(head.head, raw)
    described = head.head
    one_for_all = DECIDED_AT if described.threshold is None else described.threshold
    thresholds = described.thresholds or (one_for_all,) * len(described.classes)
    calibrated = set(described.class_names) - set(described.uncalibrated) if described.calibrated_on else set()
    found: dict[str, Prediction] = {}
    others = []
    for name, chance, threshold in zip(described.class_names, chances, thresholds, strict=True):
        known = find(name)
        if known is None:
            others.append(name)
        else:
            one = Prediction(known.id, float(chance), name in calibrated, float(threshold), head.config.id)
            found.setdefault(known.id, one)
    return tuple(found.values()), tuple(others)


def drawings(opened: OpenModels, volume: Volume, anatomy: Anatomy, stages: Stages) -> tuple[Measurement, ...]:
    """What the localizer draws of each of its findings, measured on the CT's grid."""
    from CTReportLib.nets.drawing import drawn

    head = opened.localizer
    if head is None:
        return ()
    prepared = prepare(volume, layout_of(head.config))
    described = head.head
    raw = drawn(
        head.network,
        laid_out(prepared.channels, "SPL"),
        len(described.classes),
        step=getattr(head.network, "step", 1),
        width=int(head.config.get_model_params().get("base", 16)),
        device=opened.device,
        watch=stages.within,
    )
    threshold = DECIDED_AT if described.threshold is None else described.threshold
    least = described.temperature * _logit(threshold)
    noise_ml = described.least_ml or (0.0,) * len(described.classes)
    measured = (
        measured_drawing(
            name, prepared.back(one >= least), anatomy, model=head.config.id, threshold=threshold, least_ml=least_ml
        )
        for name, one, least_ml in zip(described.class_names, raw, noise_ml, strict=True)
    )
    return tuple(one for one in measured if one is not None)


def region_map(anatomy: Anatomy, names: Sequence[str]) -> Volume:
    """Label map of anatomical regions, uint8: region ``names[n]`` is ``n + 1``, 0 elsewhere.

    Parameters
    ----------
    anatomy : Anatomy
    names : sequence of str
        Of `REGIONS`, in the order of the encoder's training.

    Raises
    ------
    ConfigMismatch
        A name is none of these.
    """
    unknown = [name for name in names if name not in REGIONS]
    if unknown:
        raise ConfigMismatch(
            f"The encoder was trained with regions that are not found here: {', '.join(unknown)}.",
            why=f"Without other models only these are: {', '.join(REGIONS)}.",
            todo="Use an encoder without regions.",
        )
    lungs = anatomy.lungs
    masks = dict(zip(REGIONS, (lungs.left, lungs.right, lungs.airways, anatomy.heart_region, lungs.body), strict=True))
    labels = np.zeros(lungs.body.shape, np.uint8)
    for number, name in reversed(list(enumerate(names, start=1))):
        labels[masks[name] & ((labels == 0) | (name != REGIONS[-1]))] = number
    return Volume(labels, anatomy.grid.geometry.ijk_to_ras, "Regions")


def fingerprint_of(models: Models) -> str:
    """Which models a request names, by content: of folders names, sizes and times; empty where it names none.

    Raises
    ------
    FileMissing, UnreadableFile
    """
    problems = models.problems()
    if problems:
        raise FileMissing(f"The models are not all there: {'; '.join(problems)}.")
    parts = [
        f"{role} {sha256_of([path])}"
        for role in ("encoder", "classifier", "localizer")
        if (path := getattr(models, role)) is not None
    ]
    if models.language is not None:
        parts += [f"language {line}" for line in _listed(models.language)]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest() if parts else ""


def _logit(probability: float) -> float:
    if 0 < probability < 1:
        return math.log(probability / (1 - probability))
    return math.inf if probability >= 1 else -math.inf


def _stamp(path: Path | None) -> tuple[object, ...]:
    """What changes when a file does."""
    if path is None:
        return ()
    stat = path.stat()
    return path.absolute(), stat.st_size, stat.st_mtime_ns


def _listed(folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            stat = file.stat()
            yield f"{file.relative_to(folder).as_posix()} {stat.st_size} {stat.st_mtime_ns}"


def _check_kinds(classifier: LoadedHead | None, localizer: LoadedHead | None) -> None:
    from CTReportLib.nets.heads_weights import DRAWING as DRAWING_HEADS

    for head, wanted_drawing, role in ((classifier, False, "classifier"), (localizer, True, "localizer")):
        if head is None:
            continue
        draws = head.config.architecture.name in DRAWING_HEADS
        if draws is not wanted_drawing:
            does = "draws findings" if draws else "tells findings and draws none"
            raise ConfigError(
                f"'{head.weights.path.name}' cannot be the {role}.",
                why=f"It {does}: its network is '{head.config.architecture.name}'.",
                todo=f"Give it as {'localizer' if draws else 'classifier'}, or choose another model.",
            )
        if not any(find(name) for name in head.head.class_names):
            raise ConfigError(
                f"'{head.weights.path.name}' cannot be the {role}.",
                why=f"None of its classes is a finding known here: {', '.join(head.head.class_names)}.",
                todo="Choose a model for findings of the chest.",
            )


def _check_fit(encoder: Encoder, classifier: LoadedHead) -> None:
    name = classifier.weights.path.name
    if classifier.encoder_sha256 and classifier.encoder_sha256 != encoder.sha256:
        raise ConfigError(
            f"The classifier '{name}' was trained on another encoder than '{encoder.id}'.",
            why=f"It names the one of sha256 {classifier.encoder_sha256[:16]}..., this is {encoder.sha256[:16]}...: on "
            "another encoder's features its answers mean nothing.",
            todo="Give the encoder it was trained on.",
        )
    wanted, shared = _width(classifier)
    offered = encoder.shared_width if shared else encoder.width
    if offered is None:
        raise ConfigError(
            f"The classifier '{name}' compares prompts, and the encoder '{encoder.id}' cannot be compared with texts.",
            why="Its file has no projection into a space shared with texts.",
            todo="Give the whole file of the model of images and texts as encoder, or another classifier.",
        )
    if offered != wanted:
        raise ConfigError(
            f"The classifier '{name}' does not fit the encoder '{encoder.id}'.",
            why=f"It takes features of width {wanted}, the encoder's have {offered}.",
            todo="Give the encoder it was trained on.",
        )


def _width(head: LoadedHead) -> tuple[int, bool]:
    """Width of the features that a classifier takes, and whether they are those shared with texts."""
    import inspect

    from CTReportLib.nets.heads_weights import FACTORIES

    name = head.config.architecture.name
    shared = name == "ct_zero_shot"
    parameter = "shared_dim" if shared else "vision_dim"
    given: dict[str, Any] = head.config.get_model_params()
    usual = inspect.signature(FACTORIES[name]).parameters[parameter].default
    return int(given.get(parameter, usual)), shared
