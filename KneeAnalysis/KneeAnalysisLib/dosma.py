"""The DOSMA family of knee networks: 2D nets that label the slices of one orientation, and their consensus.

Each net is a Keras file whose graph is built in torch (`KneeAnalysisLib.kerasnet`). Recipe of the published
pipeline: turn the volume to the net's orientation, resize every slice to the net's size (cubic), whiten the
whole volume, take for every pixel the class with the highest probability, resize back (nearest).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from KneeAnalysisLib.batches import CPU, Batches, Footing
from KneeAnalysisLib.labels import CANONICAL, NATIVE, LabelScheme, Tissue
from KneeAnalysisLib.postprocess import cleaned, relabelled
from KneeAnalysisLib.resize import resized_labels, resized_slices
from KneeAnalysisLib.segmentation import EngineOptions, UsedFile
from KneeAnalysisLib.staple import staple
from KneeAnalysisLib.watch import Watch
from MedAILib.errors import FileMissing, InputError, InvalidWeights
from MedAILib.models.store import hash_file
from MedAILib.models.torchmodel import import_torch
from MedAILib.volume import Volume

if TYPE_CHECKING:
    from KneeAnalysisLib.kerasnet import KerasNet

CLASSES = 10
"""Background and the nine tissues of `KneeAnalysisLib.labels.NATIVE`."""

GPU_BATCH = 16
"""Slices at once on a GPU. On the processor one at a time: 16 take as long per slice (1.8 against 1.7 CPU seconds for
32 channels at 512 x 512) and 4.3 GB in place of 0.6 GB.
"""

_WHITENING = 1e-8


@dataclass(frozen=True)
class Plane:
    """An orientation of slices.

    Attributes
    ----------
    name : str
    axes : tuple of int
        Slices, rows and columns as axes of an array in canonical orientation (left-right, superior-inferior,
        anterior-posterior).
    unseen : tuple of Tissue
        Tissues that the consensus does not take from this net: their thin side lies across its slices.
    file : str
        Name of the published file.
    """

    name: str
    axes: tuple[int, int, int]
    unseen: tuple[Tissue, ...]
    file: str


SAGITTAL = Plane("sagittal", (0, 1, 2), (), "sagittal_best_model.h5")
CORONAL = Plane("coronal", (2, 0, 1), (Tissue.PATELLAR_CARTILAGE,), "coronal_best_model.h5")
AXIAL = Plane(
    "axial",
    (1, 0, 2),
    (
        Tissue.MEDIAL_TIBIAL_CARTILAGE,
        Tissue.LATERAL_TIBIAL_CARTILAGE,
        Tissue.MEDIAL_MENISCUS,
        Tissue.LATERAL_MENISCUS,
    ),
    "axial_best_model.h5",
)


class DosmaNet:
    """One net: labels for the slices of one orientation.

    Parameters
    ----------
    path : Path
        The ``.h5`` file.
    plane : Plane

    Raises
    ------
    FileMissing, InvalidWeights, MissingPackage
    """

    scheme: LabelScheme = NATIVE

    def __init__(self, path: Path, plane: Plane) -> None:
        import_torch()
        from KneeAnalysisLib.kerasnet import read_network

        self.plane = plane
        self.weights: tuple[UsedFile, ...] = (UsedFile(path, hash_file(path)),)
        self.notes: tuple[str, ...] = ()
        network = read_network(path)
        self._is_channels_first, self._size = _input_size(path, network)
        self._network = network.only(_whole_output(path, network, self._batch_shape(1)))

    def predict(self, volume: Volume, options: EngineOptions, watch: Watch, device: str) -> tuple[np.ndarray, str]:
        """Label a volume in canonical orientation.

        Returns
        -------
        labels : ndarray, shape (k, j, i), uint8
            Native labels.
        device : str
            Where it ended up running.
        """
        slices = volume.array.transpose(self.plane.axes)
        stage = f"Segmenting ({self.plane.name})"
        resized = resized_slices(
            slices, self._size, lambda done: watch.progress("Preparing the image", 0.1 * done / len(slices))
        )
        _whiten(resized)
        batch = options.batch_size or (1 if device.startswith(CPU) else GPU_BATCH)
        batches = Batches(Footing(device, batch), cpu_fallback=options.cpu_fallback, warn=watch.context.warn)
        predicted = np.empty(resized.shape, dtype=np.uint8)
        try:
            with watch.between_layers(self._network):
                batches.run(
                    len(resized),
                    lambda part, footing: self._predict(resized, predicted, part, footing),
                    lambda done: watch.progress(stage, 0.1 + 0.85 * done / len(resized)),
                )
        finally:
            self._network.to(CPU)
        watch.progress(stage, 0.95)
        labels = resized_labels(predicted, slices.shape[1:])
        return np.ascontiguousarray(labels.transpose(np.argsort(self.plane.axes))), batches.footing.device

    def _predict(self, slices: np.ndarray, into: np.ndarray, part: range, footing: Footing) -> None:
        torch = import_torch()
        self._network.to(footing.device)
        with torch.inference_mode():
            batch = torch.from_numpy(slices[part.start : part.stop]).to(footing.device)
            (found,) = self._network(batch.reshape(self._batch_shape(len(part))))
            classes = found.argmax(dim=1 if self._is_channels_first else -1)
            into[part.start : part.stop] = classes.to(torch.uint8).cpu().numpy()

    def _batch_shape(self, count: int) -> tuple[int, ...]:
        return (count, 1, *self._size) if self._is_channels_first else (count, *self._size, 1)


class DosmaConsensus:
    """Sagittal, coronal and axial net, brought together by STAPLE.

    Each net's opinion on the tissues that it does not see well (`Plane.unseen`) is left out. Voxels that cannot be
    decided get the sagittal label.
    """

    scheme: LabelScheme = CANONICAL

    def __init__(self, paths: Sequence[Path]) -> None:
        planes = (SAGITTAL, CORONAL, AXIAL)
        self._nets = [DosmaNet(path, plane) for path, plane in zip(paths, planes, strict=True)]
        self.weights = tuple(used for net in self._nets for used in net.weights)
        self.notes: tuple[str, ...] = ()

    def predict(self, volume: Volume, options: EngineOptions, watch: Watch, device: str) -> tuple[np.ndarray, str]:
        """As `DosmaNet.predict`, with canonical labels."""
        opinions = []
        for number, net in enumerate(self._nets):
            part = watch.part(0.3 * number, 0.3 * (number + 1))
            labels, device = net.predict(volume, options, part, device)
            opinion = cleaned(
                relabelled(labels, net.scheme),
                largest_component=options.largest_component,
                fill_bone_holes=options.fill_bone_holes,
            ).labels
            opinion[np.isin(opinion, net.plane.unseen)] = 0
            opinions.append(opinion)
        watch.progress("Combining three orientations", 0.9)
        return staple(opinions), device


def find_file(plane: Plane, weights: Sequence[Path]) -> Path:
    """The file of a net among files and folders: by its published name, else the only ``.h5`` with the plane's name.

    Raises
    ------
    FileMissing
        There is none.
    InputError
        Several could be meant.
    """
    files = [place for place in weights if place.is_file()]
    for folder in (place for place in weights if place.is_dir()):
        files += sorted(path for path in folder.rglob("*.h5") if path.is_file())
    named = [path for path in files if path.name == plane.file]
    found = named or [path for path in files if plane.name in path.name.lower()] or (files if len(files) == 1 else [])
    if not found:
        raise FileMissing(
            f"The {plane.name} network is not there.",
            why=f"There is no '{plane.file}' in {', '.join(str(place) for place in weights)}.",
            todo=f"Get it: medai models get knee-dosma-bones-{plane.name}, or name the .h5 file itself.",
        )
    if len(found) > 1:
        raise InputError(
            f"It is not clear which file is the {plane.name} network.",
            why="Found: " + ", ".join(str(path) for path in found[:5]),
            todo="Name the .h5 file itself.",
        )
    return found[0]


def _whiten(slices: np.ndarray) -> None:
    """Mean 0 and standard deviation 1 over all slices, in place."""
    mean = slices.mean(dtype=np.float64)
    slices -= np.float32(mean)
    slices /= np.float32(np.sqrt(np.mean(np.square(slices), dtype=np.float64)) + _WHITENING)


def _input_size(path: Path, network: KerasNet) -> tuple[bool, tuple[int, int]]:
    """Whether channels come first, and rows and columns of the net's input."""
    shape = network.spec.input_shape
    match shape:
        case (1, int(rows), int(columns)) if columns != 1:
            return True, (rows, columns)
        case (int(rows), int(columns), 1):
            return False, (rows, columns)
    raise _unsuitable(path, f"its input has the shape {shape}; one channel and a fixed size are needed")


def _whole_output(path: Path, network: KerasNet, input_shape: tuple[int, ...]) -> int:
    """The first output with the size of the input and ten classes; others serve the training only."""
    shapes = network.output_shapes(input_shape)
    is_first = input_shape[1] == 1
    size = input_shape[2:] if is_first else input_shape[1:3]
    wanted = (1, CLASSES, *size) if is_first else (1, *size, CLASSES)
    if wanted not in shapes:
        raise _unsuitable(path, f"its outputs have the shapes {', '.join(map(str, shapes))}; {wanted} is needed")
    return shapes.index(wanted)


def _unsuitable(path: Path, why: str) -> InvalidWeights:
    return InvalidWeights(
        f"'{path}' is not one of the knee networks.",
        why=f"{why[0].upper()}{why[1:]}.",
        todo="Use sagittal_best_model.h5, coronal_best_model.h5 or axial_best_model.h5 of aagatti/dosma_bones.",
    )


PLANES: Mapping[str, Plane] = {plane.name: plane for plane in (SAGITTAL, CORONAL, AXIAL)}
