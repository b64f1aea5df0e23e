"""What a segmentation is asked and what it answers: plain values that cross any process border."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from MedAILib.errors import InputError, JobError, OutOfMemory
from MedAILib.volume import LabelMap, Volume


class SegmentationFailed(JobError):
    """A network ran and did not come to an end; the message says at what."""

    code = "SEGMENTATION_FAILED"


class GpuOutOfMemory(OutOfMemory):
    """The GPU's memory does not hold the network even with the smallest pieces, and the processor was not allowed."""

    code = "GPU_OOM"


class TimedOut(JobError):
    """A step took longer than it was given."""

    code = "TIMEOUT"


class EngineName(Enum):
    """The engines, as the command line spells them."""

    NNUNET_FULLRES = "nnunet-fullres"
    NNUNET_CASCADE = "nnunet-cascade"
    DOSMA_SAGITTAL = "dosma-sagittal"
    DOSMA_CORONAL = "dosma-coronal"
    DOSMA_AXIAL = "dosma-axial"
    DOSMA_STAPLE = "dosma-staple"
    NONE = "none"
    """Segment nothing: take the label map that is there."""


@dataclass(frozen=True)
class EngineOptions:
    """How to run a network.

    Attributes
    ----------
    tile_step : float
        nnU-Net: distance of neighbouring tiles in tiles, 0 < step <= 1. Larger is faster: the public knee network
        has 150 tiles at 0.5 and 48 at 0.75.
    mirroring : bool
        nnU-Net: predict every tile in all mirrorings the network was trained with, and average (8 times as slow).
    batch_size : int
        Tiles or slices computed at once; 0: the engine's own (one, and 16 slices on a GPU).
    folds : tuple of str
        nnU-Net: folds to use (``"1"``, ``"all"``), averaged; empty: all that are there.
    checkpoint : str
        nnU-Net: file name of the checkpoint; empty: ``checkpoint_final.pth``, else ``checkpoint_best.pth``.
    largest_component : bool
        Keep of every tissue the largest connected piece only.
    fill_bone_holes : bool
        Fill cavities inside bones.
    cpu_fallback : bool
        Go on with the processor where the GPU's memory does not suffice.
    timeout_s : float or None
        Seconds the whole segmentation may take.
    """

    tile_step: float = 0.5
    mirroring: bool = False
    batch_size: int = 0
    folds: tuple[str, ...] = ()
    checkpoint: str = ""
    largest_component: bool = True
    fill_bone_holes: bool = True
    cpu_fallback: bool = True
    timeout_s: float | None = None

    def problems(self) -> list[str]:
        """Everything that is wrong with them."""
        found = []
        if not 0 < self.tile_step <= 1:
            found.append(f"the tile step is {self.tile_step}; it must be above 0 and at most 1")
        if self.batch_size < 0:
            found.append(f"the batch size is {self.batch_size}; it must be 0 (automatic) or more")
        if self.timeout_s is not None and not self.timeout_s > 0:
            found.append(f"the time limit is {self.timeout_s} s; it must be above 0")
        if self.checkpoint and Path(self.checkpoint).name != self.checkpoint:
            found.append(f"the checkpoint '{self.checkpoint}' must be a file name without a folder")
        return found


@dataclass(frozen=True, eq=False)
class SegmentRequest:
    """Segment one knee.

    Attributes
    ----------
    volume : Volume
        In any orientation. Of a qDESS examination the root of the sum of squares of both echoes.
    engine : EngineName
    weights : tuple of Path
        Files, or folders that hold the weights at any depth: an nnU-Net results folder, a model of the store, an
        ``.h5`` file. `EngineName.DOSMA_STAPLE` takes sagittal, coronal and axial from one folder or from three places.
    existing : LabelMap or None
        The label map to take where the engine is `EngineName.NONE`; on the grid of the volume.
    labels : str
        The scheme of the labels that the network puts out, or that ``existing`` has: ``native``, ``canonical`` or the
        path of a JSON file. Empty: what the network's own description says (not for ``existing``). The networks of
        `EngineName.DOSMA_STAPLE` are native.
    options : EngineOptions
    """

    volume: Volume
    engine: EngineName
    weights: tuple[Path, ...] = ()
    existing: LabelMap | None = None
    labels: str = ""
    options: EngineOptions = field(default_factory=EngineOptions)

    def validate(self) -> None:
        """Say every problem at once; raises `InputError`."""
        problems = self.options.problems()
        if self.engine is EngineName.NONE:
            if self.existing is None:
                problems.append("the engine is 'none' and no label map is given")
            elif not self.labels:
                problems.append("it is not said what the values of the label map mean (native, canonical or a file)")
        elif self.engine is EngineName.DOSMA_STAPLE and self.labels not in ("", "native"):
            problems.append("the consensus combines networks with native labels; no other labels can be given for it")
        if self.engine is not EngineName.NONE and not self.weights:
            problems.append(f"no weights are given for the engine '{self.engine.value}'")
        if problems:
            raise InputError("The segmentation cannot start: " + "; ".join(problems) + ".")


@dataclass(frozen=True)
class UsedFile:
    """A weight file that a result rests on.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the bytes that were loaded.
    """

    path: Path
    sha256: str


@dataclass(frozen=True, eq=False)
class SegmentResult:
    """The tissues of a knee.

    Attributes
    ----------
    labels : LabelMap
        Canonical label values (`KneeAnalysisLib.labels.Tissue`), one layer of uint8, on the grid of the volume.
    engine : EngineName
    weights : tuple of UsedFile
    device : str
        Where the network ended up running: ``cuda:0``, or ``cpu`` after the GPU's memory had run out.
    warnings : tuple of str
    """

    labels: LabelMap
    engine: EngineName
    weights: tuple[UsedFile, ...] = ()
    device: str = "cpu"
    warnings: tuple[str, ...] = ()
