"""The images that a training learns from, is tuned on and is measured on, at the network's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from MedAILib.errors import InputError
from MedMNISTRouterLib.datasets import BY_FLAG, Dataset, DatasetTask
from MedMNISTRouterLib.train.npzfile import SPLITS, Labelled, NpzFile, flag_of, read_npz
from MedMNISTRouterLib.train.plan import Plan
from MedMNISTRouterLib.train.request import LARGEST_SIZE, TrainRequest

_SEED = 11


@dataclass(frozen=True, eq=False)
class Part:
    """Images of one of the three parts.

    Attributes
    ----------
    images : ndarray, shape (n, size, size, channels), uint8
    labels : ndarray, shape (n,), or of 0 and 1, shape (n, classes), int64
    groups : ndarray, shape (n,), int64
        What the gate takes as one kind of image: the label, and of a router the source's own labels too.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Samples:
    """All images of a training.

    Attributes
    ----------
    train, val, test : Part
    task : DatasetTask
    class_names : tuple of str
    routes : tuple of tuple of str
        Of a router, by class: data sets whose experts answer; empty for an expert.
    size : int
        Edge in pixels.
    remarks : tuple of str
        How images were divided or brought to size.
    """

    train: Part
    val: Part
    test: Part
    task: DatasetTask
    class_names: tuple[str, ...]
    routes: tuple[tuple[str, ...], ...]
    size: int
    remarks: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[3])

    def facts(self) -> dict[str, list[int]]:
        """Numbers by which a training that is resumed knows its data again."""
        parts = {name: getattr(self, name) for name in SPLITS}
        return {
            name: [len(part), int(part.labels.sum()), int(part.images[:: 1 + len(part) // 512].sum(dtype=np.int64))]
            for name, part in parts.items()
        }


def dataset_of(request: TrainRequest) -> Dataset:
    """The data set that an expert is trained for.

    Raises
    ------
    InputError
        Neither the request nor the file's name tells it.
    """
    flag = request.flag or flag_of(request.data[0])
    if flag not in BY_FLAG:
        raise InputError(
            f"It is not clear which data set '{request.data[0]}' is of." if not flag else f"'{flag}' is no data set.",
            todo=f"Say it: --flag NAME, one of {', '.join(BY_FLAG)}.",
        )
    return BY_FLAG[flag]


def expert_samples(request: TrainRequest) -> Samples:
    """An expert's images; raises `InputError` where they are not those of the data set."""
    dataset, file = dataset_of(request), read_npz(request.data[0])
    for part in file.parts.values():
        _check_expert(file, part, dataset)
    size = request.size or _size_of([file])
    parts = {name: _part(part, part.labels, size, dataset.channels) for name, part in file.parts.items()}
    if dataset.task is DatasetTask.MULTI_LABEL:  # one kind for the gate: labels come in any combination
        parts = {name: Part(p.images, p.labels, np.zeros(len(p), np.int64)) for name, p in parts.items()}
    remarks = (file.remark,) if file.remark else ()
    return Samples(**parts, task=dataset.task, class_names=dataset.class_names, routes=(), size=size, remarks=remarks)


def router_samples(request: TrainRequest, plan: Plan) -> Samples:
    """A router's images, in colour, grey ones with three equal channels."""
    files = {source.file: read_npz(source.file) for item in plan.classes for source in item.sources}
    size = request.size or _size_of(list(files.values()))
    rng = np.random.default_rng(_SEED)
    parts: dict[str, list[Part]] = {name: [] for name in SPLITS}
    first_group = 0
    for label, item in enumerate(plan.classes):
        own: list[Part] = []
        for source in item.sources:
            for name, whole in files[source.file].parts.items():
                chosen = _with_labels(whole, source.labels)
                if name == "train" and source.most is not None:
                    chosen = _thinned(chosen, source.most, rng)
                if not len(chosen):
                    raise InputError(f"'{source.file}' has no {name} images with the labels {list(source.labels)}.")
                part = _part(chosen, np.full(len(chosen), label), size, 3, first_group)
                if name == "train":
                    own.append(part)
                else:
                    parts[name].append(part)
            first_group = int(own[-1].groups.max()) + 1
        parts["train"].append(_capped(_joined(own), request.most_per_class, rng))
    remarks = tuple(dict.fromkeys(file.remark for file in files.values() if file.remark))
    return Samples(
        **{name: _joined(found) for name, found in parts.items()},
        task=DatasetTask.MULTI_CLASS if len(plan.classes) > 2 else DatasetTask.BINARY,
        class_names=tuple(item.name for item in plan.classes),
        routes=tuple(item.routes_to for item in plan.classes),
        size=size,
        remarks=remarks,
    )


def resized(images: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Images as the network takes them, by the same filter as pictures that are routed later.

    Returns
    -------
    ndarray, shape (n, size, size, channels), uint8
    """
    from PIL import Image

    if images.shape[1:3] != (size, size):
        linear = Image.Resampling.BILINEAR
        images = np.stack([np.asarray(Image.fromarray(image).resize((size, size), linear)) for image in images])
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[3] == channels:
        return np.ascontiguousarray(images)
    return np.repeat(images, 3, axis=3) if channels == 3 else images[..., 1:2]


def _part(chosen: Labelled, labels: np.ndarray, size: int, channels: int, first_group: int = 0) -> Part:
    kinds = chosen.labels if chosen.labels.ndim == 1 else np.zeros(len(chosen), np.int64)
    return Part(resized(chosen.images, size, channels), np.asarray(labels, np.int64), first_group + kinds)


def _check_expert(file: NpzFile, part: Labelled, dataset: Dataset) -> None:
    classes, several = len(dataset.class_names), dataset.task is DatasetTask.MULTI_LABEL
    wrong = ""
    if (part.images.ndim == 4) != (dataset.channels == 3):
        wrong = f"its images are {'in colour' if part.images.ndim == 4 else 'grey'}"
    elif several and (part.labels.ndim != 2 or part.labels.shape[1] != classes):
        wrong = f"its labels have the shape {part.labels.shape}, not ({len(part)}, {classes})"
    elif not several and part.labels.ndim != 1:
        wrong = f"its labels have the shape {part.labels.shape}, not ({len(part)},)"
    elif part.labels.min() < 0 or part.labels.max() >= (2 if several else classes):
        wrong = f"its labels go from {part.labels.min()} to {part.labels.max()}, and there are {classes} classes"
    if wrong:
        raise InputError(
            f"'{file.path}' does not hold {dataset.title}.", why=f"{wrong[0].upper()}{wrong[1:]}.", todo="Check --flag."
        )


def _size_of(files: Sequence[NpzFile]) -> int:
    """The smallest edge of all images, within what can be trained."""
    smallest = min(min(part.images.shape[1:3]) for file in files for part in file.parts.values())
    return min(smallest, LARGEST_SIZE)


def _with_labels(whole: Labelled, labels: tuple[int, ...]) -> Labelled:
    return whole.taken(np.isin(whole.labels, labels)) if labels else whole


def _thinned(whole: Labelled, most: int, rng: np.random.Generator) -> Labelled:
    return whole.taken(np.sort(rng.permutation(len(whole))[:most]))


def _capped(part: Part, most: int | None, rng: np.random.Generator) -> Part:
    if most is None or len(part) <= most:
        return part
    chosen = np.sort(rng.permutation(len(part))[:most])
    return Part(part.images[chosen], part.labels[chosen], part.groups[chosen])


def _joined(parts: Sequence[Part]) -> Part:
    arrays: Mapping[str, np.ndarray] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels", "groups")
    }
    return Part(**arrays)
