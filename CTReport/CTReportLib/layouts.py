"""A layout in a model's description, and back: the grid and the windows that an encoder or a drawing network reads.

The description's first input says it: ``size`` (slices, rows, columns), ``spacing_mm`` (empty: the grid is fitted to
the lungs) and, as names of its channels, the windows:

    "size": [192, 192, 192], "spacing_mm": [2, 2, 2], "channels": ["-1000..1000 HU to -1..1"]

A single channel of any other name has its window as ``normalisation``, as published encoders are described. Its
``orientation`` says where the axes of the network's volume run, in the order of ``size``: ``SPL`` (also ``axial``) as a
`Prepared` CT lies, slices to superior, rows to posterior, columns to the left; ``RAS`` as COLIPRI was trained.
"""

from __future__ import annotations

import re

import numpy as np

from CTReportLib.preprocess import PRIMUS_LAYOUT, RECT_LAYOUT, Layout, Window
from MedAILib.errors import ConfigMismatch
from MedAILib.models.config import ModelConfig
from MedAILib.models.heads import Input, NormalisationKind

KNOWN_LAYOUTS = (PRIMUS_LAYOUT, RECT_LAYOUT)
PREPARED_AXES = "SPL"
"""Where the axes of a prepared CT run, slowest first."""
_PAIRS = ("SI", "PA", "LR")
"""Of the patient's directions, in the order of `PREPARED_AXES`."""
_NUMBER = r"(-?\d+(?:\.\d+)?)"
_WINDOW = re.compile(rf"{_NUMBER}\.\.{_NUMBER} HU to {_NUMBER}\.\.{_NUMBER}")


_EXAMPLE = "-160..240 HU to 0..1"


def input_of(layout: Layout) -> Input:
    """What a model's description says of a layout; `layout_of` reads it back."""
    return Input(
        name="ct",
        modality="CT",
        channels=tuple(channel_name(window) for window in layout.windows),
        size=layout.shape_kji,
        spacing_mm=() if layout.spacing_mm is None else (float(layout.spacing_mm),) * 3,
        orientation=PREPARED_AXES,
    )


def layout_of(config: ModelConfig) -> Layout:
    """The layout that a model's description states.

    Raises
    ------
    ConfigMismatch
        It states none, or one that cannot be made.
    """
    image = config.inputs[0] if config.inputs else Input()
    problems = []
    if len(image.size) != 3:
        problems.append(f"it states the size {list(image.size)}, not slices, rows and columns")
    if len(set(image.spacing_mm)) > 1:
        problems.append(f"its spacing {list(image.spacing_mm)} is not the same along all axes")
    moved = moves(image.orientation)
    if moved is None:
        problems.append(f"its orientation '{image.orientation}' is none such as '{PREPARED_AXES}'")
    windows = _windows(image)
    if not windows:
        problems.append(
            f"its channels {list(image.channels)} name no windows such as '{channel_name(Window(-160, 240))}'"
        )
    taken = config.architecture.parameters.get("in_channels", len(windows))
    if windows and taken != len(windows):
        problems.append(f"it names {len(windows)} windows, and the network takes {taken}")
    if problems or moved is None:
        raise ConfigMismatch(
            f"The description of '{config.id}' does not say how a CT is prepared for it.",
            why=f"Of its input, {'; '.join(problems)}.",
            todo="State size, spacing and windows in its model_config.json.",
        )
    k, j, i = (image.size[moved[0].index(axis)] for axis in range(3))
    shape = (k, j, i)
    spacing = float(image.spacing_mm[0]) if image.spacing_mm else None
    stated = (shape, spacing, windows)
    known = next((one for one in KNOWN_LAYOUTS if (one.shape_kji, one.spacing_mm, one.windows) == stated), None)
    return known or Layout(config.architecture.name, shape, spacing, windows)


def channel_name(window: Window) -> str:
    """A window as a channel's name: ``-1000..1000 HU to -1..1``."""
    return f"{window.low:g}..{window.high:g} HU to {window.bottom:g}..{window.top:g}"


def axes_of(config: ModelConfig) -> str:
    """Where the axes of the network's volume run, slowest first: three letters such as ``SPL``."""
    stated = config.inputs[0].orientation if config.inputs else ""
    return PREPARED_AXES if stated in ("", "axial") else stated


def moves(axes: str) -> tuple[tuple[int, int, int], tuple[int, ...]] | None:
    """How a prepared CT comes to lie along other axes; None: these are none.

    Returns
    -------
    tuple of int
        For each axis of the network's volume, that of the prepared CT.
    tuple of int
        The axes of the network's volume that run the other way.
    """
    wanted = PREPARED_AXES if axes in ("", "axial") else axes
    found = [next((n for n, pair in enumerate(_PAIRS) if letter in pair), -1) for letter in wanted]
    if sorted(found) != [0, 1, 2]:
        return None
    flipped = tuple(n for n, letter in enumerate(wanted) if letter != PREPARED_AXES[found[n]])
    return (found[0], found[1], found[2]), flipped


def laid_out(channels: np.ndarray, axes: str) -> np.ndarray:
    """Channels (channels, k, j, i) of a prepared CT along a network's axes, in memory of their own."""
    order, flipped = moves(axes) or ((0, 1, 2), ())
    turned = channels.transpose(0, *(1 + axis for axis in order))
    return np.ascontiguousarray(np.flip(turned, tuple(1 + axis for axis in flipped)))


def _windows(image: Input) -> tuple[Window, ...]:
    named = [_WINDOW.fullmatch(name) for name in image.channels]
    if named and all(named):
        return tuple(Window(*(float(part) for part in found.groups())) for found in named if found)
    norm = image.normalisation
    if len(image.channels) > 1 or norm is None or norm.kind is not NormalisationKind.WINDOW:
        return ()
    return () if norm.lower is None or norm.upper is None else (Window(norm.lower, norm.upper),)
