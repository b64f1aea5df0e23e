"""Encoders of a chest CT behind one interface, whatever network is in the file. Needs torch.

    encoder = load_encoder("colipri.safetensors", "cuda:0")
    features = encoder.features(prepare(volume, encoder.layout))

A file is recognised by its description and its tensors, never by its name. A network that is added here has a function
that loads it and takes part in `KINDS`; it is called with the windowed volume, shape (batch, channels, slices, rows,
columns), where it knows anatomical regions with their label map as well, and answers `Features` of its ``width``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from CTReportLib.layouts import PREPARED_AXES, axes_of, laid_out, layout_of, moves
from CTReportLib.nets.features import Features
from CTReportLib.nets.loaded import Loaded
from CTReportLib.preprocess import Layout, Prepared
from MedAILib.errors import ConfigError, InputError, InvalidWeights
from MedAILib.models.resolve import resolve
from MedAILib.models.tensors import WeightFile, inspect_tensors
from MedAILib.models.torchuse import chosen_device, exact_arithmetic
from MedAILib.volume import Volume

Watch = Callable[[float], None]
"""Is told the share of the network that is done, 0..1; may raise, as `Cancelled`, to stop it."""


@dataclass(frozen=True)
class Kind:
    """A network that this module can use as an encoder.

    Attributes
    ----------
    loader : str
        ``module:function`` from a path and a device to `Loaded`; imported when such a file is met.
    part : str
        In the names of its tensors, where it is a part of a larger file; empty: it never is.
    """

    loader: str
    part: str = ""


KINDS: Mapping[str, Kind] = {
    "rect3d": Kind("CTReportLib.nets.rect3d_weights:load_rect3d", "vision_encoder."),
    "primus": Kind("CTReportLib.nets.primus_weights:load_primus", "eva.blocks."),
    "ct_conv": Kind("CTReportLib.nets.conv:load_conv"),
}
"""By the name of the architecture in descriptions."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A loaded encoder.

    Attributes
    ----------
    id : str
        Of the model.
    sha256 : str
        Of its weight file; heads name it.
    architecture : str
        One of `KINDS`.
    layout : Layout
        What it reads: ``prepare(volume, encoder.layout)``.
    width : int
        Of its features.
    network : torch.nn.Module
    device : torch.device
    axes : str
        Where the axes of the network's volume run, see `CTReportLib.layouts`; features lie as the prepared CT does.
    regions : tuple of str
        Names of the anatomical regions it was trained with, number n in the label map being entry n - 1; empty: it
        knows none, or its file does not say which.
    assumed : bool
        Whether nothing in its file says what it reads, so that it is taken to be as published.
    """

    id: str
    sha256: str
    architecture: str
    layout: Layout
    width: int
    network: nn.Module
    device: torch.device
    axes: str = PREPARED_AXES
    regions: tuple[str, ...] = ()
    assumed: bool = False

    @property
    def shared_width(self) -> int | None:
        """Width of the space that its training shared with texts; None: its file has no way there."""
        shared = getattr(self.network, "shared", None)
        return None if shared is None else int(shared.width)

    def features(self, prepared: Prepared, regions: Volume | None = None, *, watch: Watch | None = None) -> Features:
        """Features of one volume, float32, on the encoder's device, without gradients.

        Parameters
        ----------
        prepared : Prepared
            In this encoder's layout.
        regions : Volume, optional
            Label map of anatomical regions, on any grid in the CT's space; for encoders that know `regions`.
        watch : callable, optional
            Told after every block.

        Raises
        ------
        InputError
            Prepared for another layout, or regions for an encoder that knows none.
        InvalidWeights
            It answers values that are no numbers.
        """
        if not _read_alike(prepared.layout, self.layout):
            raise InputError(
                f"The CT was prepared for '{prepared.layout.name}', not for the encoder '{self.id}'.",
                todo="Prepare it with the encoder's own layout.",
            )
        if regions is not None and not self.regions:
            raise InputError(f"The encoder '{self.id}' knows no anatomical regions.", todo="Give it none.")
        arguments = [torch.from_numpy(laid_out(prepared.channels, self.axes))[None].to(self.device)]
        if regions is not None:
            labels = laid_out(prepared.forward(regions)[None].astype("int64"), self.axes)
            arguments.append(torch.from_numpy(labels).to(self.device))
        with exact_arithmetic(), _watched(self.network, watch):
            found = _lying_as_prepared(self.network(*arguments), self.axes)
        answer = Features(
            pooled=_plain(found.pooled),
            patches=_plain(found.patches),
            grid=found.grid,
            regions=None if found.regions is None else _plain(found.regions),
            shared=None if found.shared is None else _plain(found.shared),
        )
        require_numbers(answer, self.id)
        return answer


def load_encoder(path: str | Path, device: str | torch.device | None = "cpu") -> Encoder:
    """Load an encoder from its weight file, or from a larger file that holds one.

    Parameters
    ----------
    path : path
    device : str, torch.device or None
        None: the best one of this machine.

    Raises
    ------
    ConfigError
        The file is a model for another task.
    InvalidWeights, ConfigMismatch
        It is damaged, unsafe, of no network known here, or its description does not fit.
    FileMissing, UnreadableFile, MissingPackage
    """
    where = torch.device(chosen_device(None if device is None else str(device)))
    weights = inspect_tensors(path)
    name = architecture_of(weights)
    loaded = _loader(name)(path, where)
    if loaded.config is None:
        raise InvalidWeights(f"Nothing describes the encoder in '{weights.path.name}'.", todo="Describe its input.")
    return Encoder(
        id=loaded.config.id,
        sha256=loaded.sha256,
        architecture=name,
        layout=layout_of(loaded.config),
        width=int(loaded.network.width),
        network=loaded.network,
        device=where,
        axes=axes_of(loaded.config),
        regions=next((item.channels for item in loaded.config.inputs[1:] if item.name == "regions"), ()),
        assumed=any(path.startswith("$.inputs[0]") for path in loaded.config.assumed),
    )


def architecture_of(weights: WeightFile) -> str:
    """Which of `KINDS` a file holds; errors as of `load_encoder`."""
    for name, kind in KINDS.items():
        if kind.part and any(kind.part in tensor for tensor in weights.shapes):
            return name
    config = resolve(weights).config
    if config.architecture.name in KINDS:
        return config.architecture.name
    raise ConfigError(
        f"'{weights.path.name}' is no encoder of chest CTs.",
        why=f"It holds the network '{config.architecture.name}' ({config.family}).",
        todo=f"Choose a model whose network is one of {', '.join(KINDS)}.",
    )


def require_numbers(features: Features, name: str) -> None:
    """Refuse features with values that are no numbers: `InvalidWeights`."""
    parts = (features.pooled, features.patches, features.regions, features.shared)
    if not all(bool(part.isfinite().all()) for part in parts if part is not None):
        raise InvalidWeights(
            f"The encoder '{name}' answered values that are no numbers.",
            why="Its weights are damaged, or were trained for another precision.",
            todo="Get its weights again.",
        )


def _loader(name: str) -> Callable[..., Loaded[nn.Module]]:
    module, _, function = KINDS[name].loader.partition(":")
    found: Callable[..., Loaded[nn.Module]] = getattr(import_module(module), function)
    return found


def _read_alike(one: Layout, other: Layout) -> bool:
    """Whether two layouts make the same of a CT, whatever they are called."""
    return replace(one, name="") == replace(other, name="")


def _lying_as_prepared(features: Features, axes: str) -> Features:
    """Features whose patches lie along the network's axes, along those of the prepared CT."""
    order, flipped = moves(axes) or ((0, 1, 2), ())
    patches = features.patches.unflatten(1, features.grid).flip([1 + axis for axis in flipped])
    back = [1 + order.index(axis) for axis in range(3)]
    patches = patches.permute(0, *back, 4)
    k, j, i = patches.shape[1:4]
    return replace(features, patches=patches.flatten(1, 3), grid=(k, j, i))


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that heads can learn on: what inference answered cannot be part of a gradient."""
    return tensor.to(torch.float32).clone()


@contextmanager
def _watched(network: nn.Module, watch: Watch | None) -> Iterator[None]:
    """Tell after each of the network's blocks how many are done."""
    blocks = list(getattr(network, "blocks", ())) if watch is not None else []

    def told(number: int) -> Callable[..., None]:
        def tell(*_: object) -> None:
            if watch is not None:
                watch((number + 1) / len(blocks))

        return tell

    hooks = [block.register_forward_hook(told(number)) for number, block in enumerate(blocks)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
