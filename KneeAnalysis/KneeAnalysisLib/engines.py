"""The segmentation engines behind one interface, and the task that runs one of them in any runner."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from KneeAnalysisLib.batches import free_device_memory
from KneeAnalysisLib.knee import AXES
from KneeAnalysisLib.labels import LabelScheme, label_scheme, tissue_segments, to_canonical
from KneeAnalysisLib.postprocess import cleaned, relabelled
from KneeAnalysisLib.segmentation import (
    EngineName,
    EngineOptions,
    SegmentationFailed,
    SegmentRequest,
    SegmentResult,
    UsedFile,
)
from KneeAnalysisLib.watch import Watch
from MedAILib.errors import InputError
from MedAILib.grids import axis_code, placed, reoriented
from MedAILib.jobs.task import Context
from MedAILib.models.torchuse import chosen_device, torch_threads
from MedAILib.volume import LabelMap, Volume


class Engine(Protocol):
    """A loaded network, or several, that label a knee.

    Attributes
    ----------
    scheme : LabelScheme
        Of the labels it puts out.
    weights : tuple of UsedFile
    notes : tuple of str
        What the user should know about the model.
    """

    scheme: LabelScheme
    weights: tuple[UsedFile, ...]
    notes: tuple[str, ...]

    def predict(self, volume: Volume, options: EngineOptions, watch: Watch, device: str) -> tuple[np.ndarray, str]:
        """Label a volume in canonical orientation (`KneeAnalysisLib.knee.AXES`).

        Returns
        -------
        labels : ndarray, shape (k, j, i), uint8
            Values of ``scheme``.
        device : str
            Where it ended up running.
        """
        ...


Load = Callable[[Sequence[Path], EngineOptions], Engine]
"""From places of weights and options to an engine."""


@dataclass(frozen=True)
class EngineInfo:
    """What is known of an engine before anything is loaded.

    Attributes
    ----------
    name : EngineName
    title : str
        For people.
    models : tuple of str
        Ids in the catalogue; their folders in the store are the engine's weights.
    packages : tuple of str
        Python packages that it needs.
    load : callable
        Makes the engine from places of weights and options; None for `EngineName.NONE`.
    """

    name: EngineName
    title: str
    models: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    load: Load | None = None


def engine_info(name: EngineName | str) -> EngineInfo:
    """The engine of that name; `InputError` where there is none."""
    try:
        return ENGINES[EngineName(name)]
    except ValueError as error:
        raise InputError(
            f"There is no segmentation engine '{name}'.",
            todo="The engines are: " + ", ".join(known.value for known in EngineName) + ".",
        ) from error


def load_engine(name: EngineName, weights: Sequence[Path], options: EngineOptions) -> Engine:
    """Load an engine's networks onto the processor.

    Raises
    ------
    FileMissing, UnreadableFile, InvalidWeights, ConfigMismatch
        Of the weights.
    MissingPackage
        torch, nnunetv2 or h5py is not installed.
    """
    load = engine_info(name).load
    if load is None:
        raise InputError("The engine 'none' has no network: it takes the label map that is there.")
    return load(weights, options)


class SegmentTask:
    """Segments a knee, or takes the label map that is there; keeps the networks loaded for the next run."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._loaded_for: tuple[object, ...] = ()

    def run(self, request: SegmentRequest, context: Context) -> SegmentResult:
        """Run the request.

        Raises
        ------
        InputError
            What is asked for cannot be done; all problems at once.
        FileMissing, InvalidWeights, MissingPackage
            See `load_engine`.
        SegmentationFailed
            The network failed, or found no knee.
        OutOfMemory, GpuOutOfMemory, TimedOut, Cancelled
        """
        request.validate()
        if request.engine is EngineName.NONE:
            return _existing(request)
        check_image(request.volume)
        watch = Watch(context, timeout_s=request.options.timeout_s)
        watch.progress("Loading the network", 0.0)
        return segmented(request, self._ready(request), watch.part(0.02, 1.0))

    def _ready(self, request: SegmentRequest) -> Engine:
        """The engine of the request: that of the last run, where it is the same and its files have not changed."""
        options = request.options
        wanted = (request.engine, request.weights, options.folds, options.checkpoint)
        if self._engine is None or self._loaded_for != (*wanted, _stamps(self._engine)):
            self._engine = None  # frees its memory before the next one takes its own
            self._engine = load_engine(request.engine, request.weights, options)
            self._loaded_for = (*wanted, _stamps(self._engine))
        return self._engine


def segmented(request: SegmentRequest, engine: Engine, watch: Watch) -> SegmentResult:
    """Segment with a loaded engine: turn, predict, translate the labels, clean, turn back.

    Raises
    ------
    SegmentationFailed
        The network failed, or found no knee.
    OutOfMemory, GpuOutOfMemory, TimedOut, Cancelled
    """
    context, options = watch.context, request.options
    known = len(context.warnings)
    is_told = bool(request.labels) and request.engine is not EngineName.DOSMA_STAPLE
    scheme = label_scheme(request.labels) if is_told else engine.scheme
    for note in () if is_told else engine.notes:
        context.warn(note)
    for used in engine.weights:
        context.used_weights(used.path.name, used.sha256)
    turned = reoriented(request.volume, AXES)
    device = chosen_device(context.device)
    try:
        with torch_threads(context.threads), _as_segmentation_failure(request.engine):
            native, ended_on = engine.predict(turned, options, watch.part(0.0, 0.95), device)
    finally:
        free_device_memory(device)
    watch.progress("Cleaning the segmentation", 0.95)
    clean = cleaned(
        relabelled(native, scheme),
        largest_component=options.largest_component,
        fill_bone_holes=options.fill_bone_holes,
    )
    if not clean.labels.any():
        raise SegmentationFailed(
            "The network found no knee in this image.",
            why="It may show something else than what the network was trained with, DESS images of the knee.",
            todo="Look at the image; choose another engine, or give a label map that you have.",
        )
    for note in clean.notes:
        context.warn(note)
    labels = LabelMap((clean.labels,), turned.ijk_to_ras, tissue_segments(clean.labels), request.volume.name)
    return SegmentResult(
        labels=reoriented(labels, axis_code(request.volume.geometry)),
        engine=request.engine,
        weights=engine.weights,
        device=ended_on,
        warnings=tuple(context.warnings[known:]),
    )


def check_image(volume: Volume) -> None:
    """Refuse an image that shows nothing; raises `InputError`."""
    if not np.isfinite(volume.array).all():
        raise InputError("The image has voxels that are not numbers.", todo="Replace them, or export the image again.")
    if volume.array.min() == volume.array.max():
        raise InputError("All voxels of the image have the same value.", todo="Choose the image of the knee.")


def _existing(request: SegmentRequest) -> SegmentResult:
    """The label map that is there, in canonical labels on the grid of the volume."""
    assert request.existing is not None
    labels = to_canonical(request.existing, label_scheme(request.labels))
    return SegmentResult(placed(labels, request.volume.geometry), EngineName.NONE)


@contextmanager
def _as_segmentation_failure(engine: EngineName) -> Iterator[None]:
    """What a network or its library raises, as an error of ours; the traceback goes into the details."""
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        failure = SegmentationFailed(
            f"The engine '{engine.value}' stopped on an unexpected error.",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}.",
            todo="Try another engine; if it happens again, please report it with the details in the log.",
        )
        failure.details = "".join(traceback.format_exception(error)).rstrip()
        raise failure from error


def _stamps(engine: Engine) -> tuple[object, ...]:
    """Size and time of the engine's files, None for one that is gone."""
    stats = [used.path.stat() if used.path.is_file() else None for used in engine.weights]
    return tuple(None if stat is None else (stat.st_size, stat.st_mtime_ns) for stat in stats)


def _nnunet(configuration: str) -> Load:
    def load(weights: Sequence[Path], options: EngineOptions) -> Engine:
        from KneeAnalysisLib.nnunet import NnUnet

        return NnUnet(weights, configuration, options)

    return load


def _dosma(plane: str) -> Load:
    def load(weights: Sequence[Path], options: EngineOptions) -> Engine:
        from KneeAnalysisLib.dosma import PLANES, DosmaNet, find_file

        return DosmaNet(find_file(PLANES[plane], weights), PLANES[plane])

    return load


def _consensus(weights: Sequence[Path], options: EngineOptions) -> Engine:
    from KneeAnalysisLib.dosma import PLANES, DosmaConsensus, find_file

    return DosmaConsensus([find_file(plane, weights) for plane in PLANES.values()])


_NNUNET = ("torch", "nnunetv2")
_KERAS = ("torch", "h5py")
_SAGITTAL, _CORONAL, _AXIAL = (f"knee-dosma-bones-{plane}" for plane in ("sagittal", "coronal", "axial"))

ENGINES: Mapping[EngineName, EngineInfo] = {
    info.name: info
    for info in (
        EngineInfo(
            EngineName.NNUNET_FULLRES, "nnU-Net, full resolution", ("knee-nnunet-fullres",), _NNUNET,
            _nnunet("3d_fullres"),
        ),
        EngineInfo(
            EngineName.NNUNET_CASCADE, "nnU-Net, cascade", ("knee-nnunet-cascade",), _NNUNET,
            _nnunet("3d_cascade_fullres"),
        ),
        EngineInfo(EngineName.DOSMA_SAGITTAL, "DOSMA, sagittal", (_SAGITTAL,), _KERAS, _dosma("sagittal")),
        EngineInfo(EngineName.DOSMA_CORONAL, "DOSMA, coronal", (_CORONAL,), _KERAS, _dosma("coronal")),
        EngineInfo(EngineName.DOSMA_AXIAL, "DOSMA, axial", (_AXIAL,), _KERAS, _dosma("axial")),
        EngineInfo(
            EngineName.DOSMA_STAPLE, "DOSMA, consensus of three orientations", (_SAGITTAL, _CORONAL, _AXIAL), _KERAS,
            _consensus,
        ),
        EngineInfo(EngineName.NONE, "None: use a label map"),
    )
}  # fmt: skip
