"""What a trained network's description says: input, head, licence, origin, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from MedAILib.models.config import Architecture, Licence, ModelConfig, Provenance
from MedAILib.models.heads import Activation, ClassInfo, Head, HeadTask, Input, Normalisation, NormalisationKind, Resize
from MedMNISTRouterLib.datasets import Dataset, DatasetTask
from MedMNISTRouterLib.describe import SLOT
from MedMNISTRouterLib.modelfolder import ANSWERS, FAMILY
from MedMNISTRouterLib.prepare import GREY
from MedMNISTRouterLib.request import ROUTER
from MedMNISTRouterLib.train.card import INTENDED_USE
from MedMNISTRouterLib.train.layout import NAME, Layout
from MedMNISTRouterLib.train.plan import Plan
from MedMNISTRouterLib.train.request import TrainRequest
from MedMNISTRouterLib.train.samples import Samples

_TASKS = {task: HeadTask(task.value) for task in DatasetTask}
_LICENCE_URLS = {
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-NC-4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
}
_POSITIVE = {"breastmnist": 0}
"""The class that a binary data set is about, where it is not class 1."""
_CITATION = "Yang et al., MedMNIST v2, Scientific Data 10:41, 2023, doi:10.1038/s41597-022-01721-8"


@dataclass(frozen=True)
class Identity:
    """Who a model is, before it is trained.

    Attributes
    ----------
    id, title, description, origin : str
    licence : Licence
    limits : tuple of str
    """

    id: str
    title: str
    description: str
    origin: str
    licence: Licence
    limits: tuple[str, ...] = ()


def expert_identity(dataset: Dataset, samples: Samples, origin: str) -> Identity:
    """An expert's; a data set of which only a part was there is called a small one."""
    count, official = len(samples.train), dataset.splits[0]
    small = count < 0.5 * official
    limits = [
        f"It knows one kind of image: {dataset.shows}, prepared as MedMNIST's are, at {samples.size} x {samples.size} "
        "pixels.",
        "All images come from the sources of one data set; those of other scanners, laboratories or populations may be "
        "turned away by the gate or be answered wrongly.",
    ]
    if small:
        limits.insert(0, f"Small: it learned from {count} images; the official training set has {official}.")
    return Identity(
        id=f"medmnist-{dataset.flag}" + ("-small" if small else ""),
        title=f"{dataset.title} expert" + (f" (small: {count} images)" if small else ""),
        description=f"Classifies {dataset.shows}: {len(dataset.class_names)} classes, {dataset.task.value}.",
        origin=" ".join([origin or f"{dataset.title}. {_CITATION}.", *samples.remarks]),
        licence=_licence({"spdx": dataset.licence}),
        limits=tuple(limits),
    )


def router_identity(plan: Plan, samples: Samples, origin: str) -> Identity:
    """A router's, as its plan says."""
    return Identity(
        id=plan.id,
        title=plan.title,
        description=f"Tells {len(plan.classes)} kinds of images apart and knows which experts answer them.",
        origin=" ".join(filter(None, [origin or plan.origin, *samples.remarks])),
        licence=_licence(plan.licence),
        limits=plan.limits,
    )


def description(request: TrainRequest, samples: Samples, layout: Layout, identity: Identity) -> ModelConfig:
    """Of the network before it is measured."""
    colour = samples.channels == 3
    image = Input(
        channels=("R", "G", "B") if colour else GREY,
        size=(samples.size, samples.size),
        resize=Resize.LINEAR,
        normalisation=Normalisation(
            NormalisationKind.FIXED, scale=255.0, mean=(0.5,) * samples.channels, std=(0.5,) * samples.channels
        ),
    )
    several = samples.task is DatasetTask.MULTI_LABEL
    routes = samples.routes or ((),) * len(samples.class_names)
    classes = tuple(
        ClassInfo(index, name, routes_to=targets)
        for index, (name, targets) in enumerate(zip(samples.class_names, routes, strict=True))
    )
    binary = samples.task is DatasetTask.BINARY
    head = Head(
        ANSWERS,
        _TASKS[samples.task],
        classes,
        Activation.SIGMOID if several else Activation.SOFTMAX,
        positive_class=_POSITIVE.get(request.flag, 1) if binary else None,
    )
    return ModelConfig(
        id=identity.id,
        family=FAMILY,
        architecture=Architecture(NAME, {**layout.parameters(), SLOT: request.flag or ROUTER}),
        title=identity.title,
        description=identity.description,
        intended_use=INTENDED_USE,
        inputs=(image,),
        heads=(head,),
        licence=identity.licence,
        provenance=Provenance(
            trained_on=identity.origin, training=request.settings(), date=datetime.now(UTC).date().isoformat()
        ),
        requirements={"onnxruntime": ">=1.20"},
    )


def _licence(stored: Mapping[str, str]) -> Licence:
    spdx = stored.get("spdx", "")
    return Licence(
        spdx=spdx,
        name=stored.get("name", ""),
        url=stored.get("url", "") or _LICENCE_URLS.get(spdx, ""),
        non_commercial="-NC-" in spdx if spdx else None,
    )
