"""Architectures that can be recognised by the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from MedAILib.models import primus_inference, rect3d_inference, stm_inference, unet_inference
from MedAILib.models.heads import Head, Input
from MedAILib.models.tensornames import best_prefix, prefixes_of, without_prefix

Shape = tuple[int, ...]


@dataclass(frozen=True)
class KnownArchitecture:
    """An architecture whose parameters can be read off a weight file.

    Attributes
    ----------
    name, family : str
        As in the configuration.
    parameters : tuple of str
        Those that decide shapes; all of them are inferred.
    guess : callable
        From names and shapes of all tensors to the parameters after the most telling ones, None where these
        are missing.
    expected_shapes : callable
        From the parameters to name and shape of every tensor, in order.
    outputs : callable
        From the parameters to the number of input channels, and that of each head's outputs by its name.
    assumed : callable
        From the parameters to inputs, heads and the JSON paths of what is assumed in them.
    words : mapping of str to tuple of str
        Of the parameters that are words: those that may be said.
    """

    name: str
    family: str
    parameters: tuple[str, ...]
    guess: Callable[[Mapping[str, Shape]], dict[str, Any] | None]
    expected_shapes: Callable[[Mapping[str, Any]], dict[str, Shape]]
    outputs: Callable[[Mapping[str, Any]], tuple[int, dict[str, int]]]
    assumed: Callable[[Mapping[str, Any]], tuple[tuple[Input, ...], tuple[Head, ...], list[str]]]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


MULTITASK_UNET = KnownArchitecture(
    name=unet_inference.NAME,
    family=unet_inference.FAMILY,
    parameters=unet_inference.PARAMETERS,
    guess=unet_inference.guess,
    expected_shapes=unet_inference.expected_shapes,
    outputs=unet_inference.outputs,
    assumed=unet_inference.assumed_input_and_heads,
)
STM = KnownArchitecture(
    name=stm_inference.NAME,
    family=stm_inference.FAMILY,
    parameters=stm_inference.PARAMETERS,
    guess=stm_inference.guess,
    expected_shapes=stm_inference.expected_shapes,
    outputs=stm_inference.outputs,
    assumed=stm_inference.assumed_input_and_heads,
    words={"variant": stm_inference.VARIANTS, "mask_input": stm_inference.MASK_INPUTS},
)
RECT3D = KnownArchitecture(
    name=rect3d_inference.NAME,
    family=rect3d_inference.FAMILY,
    parameters=rect3d_inference.PARAMETERS,
    guess=rect3d_inference.guess,
    expected_shapes=rect3d_inference.expected_shapes,
    outputs=rect3d_inference.outputs,
    assumed=rect3d_inference.assumed_input_and_heads,
)
PRIMUS = KnownArchitecture(
    name=primus_inference.NAME,
    family=primus_inference.FAMILY,
    parameters=primus_inference.PARAMETERS,
    guess=primus_inference.guess,
    expected_shapes=primus_inference.expected_shapes,
    outputs=primus_inference.outputs,
    assumed=primus_inference.assumed_input_and_heads,
    words={"decoder": primus_inference.DECODERS},
)
KNOWN = {known.name: known for known in (MULTITASK_UNET, STM, RECT3D, PRIMUS)}


@dataclass(frozen=True)
class Recognised:
    """A known architecture found in a file, with its parameters."""

    architecture: KnownArchitecture
    parameters: dict[str, Any]

    @property
    def text(self) -> str:
        """Such as ``multitask_unet with depth=4 base_filters=32``."""
        return f"{self.architecture.name} with {parameters_text(self.parameters)}"


def recognise(shapes: Mapping[str, Shape]) -> Recognised | None:
    """Which known architecture a file holds, from the names and shapes of its tensors; None where it is none.

    Every tensor of the architecture must be there with its shape, and no other (batch counters may be
    missing). Known prefixes of the names are seen through.
    """
    found = _guess(shapes)
    return found[0] if found and not found[1] else None


def nearly(shapes: Mapping[str, Shape]) -> str:
    """Which known architecture a file almost holds and what hinders it, in words; empty where it resembles none."""
    found = _guess(shapes)
    return f"it is nearly a {found[0].text}, but {found[1]}" if found and found[1] else ""


def first_difference(expected: Mapping[str, Shape], actual: Mapping[str, Shape]) -> str:
    """The first tensor that is missing, too many or of another shape, in words; empty where all agree.

    Known prefixes of the actual names are seen through; counters of batch normalisation may be missing.
    """
    return next(differences(expected, actual, counters_may_be_missing=True), "")


def differences(
    expected: Mapping[str, Shape], actual: Mapping[str, Shape], *, counters_may_be_missing: bool
) -> Iterator[str]:
    """Every tensor that is missing, too many or of another shape, in words; known prefixes are seen through."""
    names = without_prefix(actual, best_prefix(actual, expected))
    for name, shape in expected.items():
        if name not in names:
            if not (counters_may_be_missing and is_counter(name)):
                yield f"tensor '{name}' is expected with shape {shape_text(shape)}, the file does not have it"
        elif names[name] != shape:
            yield f"tensor '{name}' is expected with shape {shape_text(shape)}, the file has {shape_text(names[name])}"
    for name, shape in names.items():
        if name not in expected:
            yield f"tensor '{name}' of shape {shape_text(shape)} is in the file, none of that name is expected"


def is_counter(name: str) -> bool:
    """Whether a tensor only counts batches; what the network answers does not depend on it."""
    return name.endswith(".num_batches_tracked")


def shape_text(shape: Shape) -> str:
    """``64x1x3x3`` for a message."""
    return "x".join(str(length) for length in shape) if shape else "of a single number"


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """``depth=4 base_filters=32`` for a message."""
    return " ".join(f"{name}={value}" for name, value in parameters.items())


def _guess(shapes: Mapping[str, Shape]) -> tuple[Recognised, str] | None:
    """The first known architecture whose telling tensors are there, and its first difference from the file."""
    for prefix in prefixes_of(shapes):
        names = without_prefix(shapes, prefix)
        for architecture in KNOWN.values():
            parameters = architecture.guess(names)
            if parameters is not None:
                difference = first_difference(architecture.expected_shapes(parameters), names)
                return Recognised(architecture, parameters), difference
    return None
