"""Series with several echoes of the same slices: multi-echo spin echo, and qDESS with its two echoes.

Read through the package's DICOM reader, so that every transfer syntax, enhanced file and oblique stack that it
reads is read here. Which echo a slice belongs to is its echo time; qDESS exports that give both echoes one
echo time are told apart by their echo number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib.errors import GeometryMismatch, InputError
from MedAILib.formats.dicom import Stack, find_stacks, read_stack
from MedAILib.formats.dicomslice import damage
from MedAILib.volume import Geometry, Volume

_SHORTEST_SPIN_ECHO_TR_MS = 100.0
"""Two echoes with a shorter repetition time are a steady state (qDESS: about 20 ms; spin echo: above 1000 ms)."""

_GE_CREATOR = "GEMS_ACQU_01"
_GE_GROUP, _GE_SPOILER_AREA, _GE_SPOILER_TIME = 0x0019, 0xB6, 0xB7


class EchoKind(Enum):
    """How the echoes of a series come about, hence which formula holds between them."""

    SPIN_ECHO = "spin echo"
    """Echoes of one excitation; the signal decays with T2."""
    QDESS = "qDESS"
    """Quantitative double echo in steady state: the free induction decay and its echo."""


@dataclass(frozen=True)
class Protocol:
    """How a series was acquired, as far as T2 needs it; None where the header does not say.

    Attributes
    ----------
    repetition_time_ms, flip_angle_deg : float or None
    spoiler_area : float or None
        Area of the spoiler gradient of a GE qDESS sequence, private element (0019,xxB6) of creator
        ``GEMS_ACQU_01`` (GL area): duration in microseconds times amplitude in G/cm.
    spoiler_time_us : float or None
        Duration of that gradient in microseconds, (0019,xxB7) (TG).
    """

    repetition_time_ms: float | None = None
    flip_angle_deg: float | None = None
    spoiler_area: float | None = None
    spoiler_time_us: float | None = None


@dataclass(frozen=True, eq=False)
class EchoSeries:
    """The echoes of one series, on one grid.

    Attributes
    ----------
    echoes : tuple of Volume
        In the order of their echo times.
    echo_times_ms : tuple of float
        Rising; the two of a qDESS series may be equal.
    kind : EchoKind
    protocol : Protocol
    name : str

    Raises
    ------
    InputError
        Fewer than two echoes, an echo time missing, or a kind that needs another number of echoes.
    GeometryMismatch
        Where an echo has another grid than the first.
    """

    echoes: tuple[Volume, ...]
    echo_times_ms: tuple[float, ...]
    kind: EchoKind
    protocol: Protocol = field(default_factory=Protocol)
    name: str = ""

    def __post_init__(self) -> None:
        if len(self.echoes) != len(self.echo_times_ms) or len(self.echoes) < 2:
            raise InputError(
                f"T2 needs at least two echoes with their echo times, got {len(self.echoes)} echoes and "
                f"{len(self.echo_times_ms)} echo times."
            )
        _check_times(self.echo_times_ms, self.kind)
        for number, echo in enumerate(self.echoes[1:], start=2):
            if not echo.geometry.same_grid_as(self.geometry):
                raise GeometryMismatch(
                    f"Echo {number} does not lie on the grid of the first echo.",
                    todo="Use the echoes of one acquisition, or resample them to one grid.",
                )

    @property
    def geometry(self) -> Geometry:
        return self.echoes[0].geometry

    @property
    def spoiler_known(self) -> bool:
        """Whether the header gives what the qDESS formula with diffusion needs."""
        return bool(self.protocol.spoiler_area and self.protocol.spoiler_time_us)


def read_echoes(
    path: str | os.PathLike[str], *, series: str | None = None, kind: EchoKind | str | None = None
) -> EchoSeries:
    """Read the series of several echoes that a DICOM folder holds.

    Parameters
    ----------
    path : path
        A folder, or a file of the series.
    series : str, optional
        Series number or series instance UID, where the folder holds more than one such series.
    kind : EchoKind or its value, optional
        Overrides what is found: two echoes with a repetition time below 100 ms are qDESS, all else spin echo.

    Raises
    ------
    InputError
        No series there has several echoes, or more than one has.
    UnreadableFile
        No DICOM image there, or a stack is damaged or incomplete.
    """
    place = Path(path)
    found = [stacks for stacks in _echo_groups(find_stacks(place)) if series is None or _is_series(stacks, series)]
    if not found:
        raise InputError(
            f"'{place}' holds no series of several echoes" + (f" that is '{series}'." if series else "."),
            why="T2 is calculated from at least two echo times of the same slices.",
            todo="Name the folder of the multi-echo or qDESS series.",
        )
    if len(found) > 1:
        keys = ", ".join(f"'{_series_key(stacks)}'" for stacks in found)
        raise InputError(
            f"'{place}' holds {len(found)} series of several echoes.", todo=f"Choose one of the series {keys}."
        )
    return _read(found[0], None if kind is None else EchoKind(kind))


def root_sum_of_squares(series: EchoSeries) -> Volume:
    """The echoes in one picture: the square root of the sum of their squares, float32.

    It is what networks for qDESS are trained on.
    """
    total = np.zeros(series.geometry.shape_kji, np.float32)
    for echo in series.echoes:
        total += np.square(echo.array, dtype=np.float32)
    return Volume(np.sqrt(total, out=total), series.geometry.ijk_to_ras, series.name or series.echoes[0].name)


def _check_times(echo_times_ms: Sequence[float], kind: EchoKind) -> None:
    times = np.asarray(echo_times_ms, float)
    if not np.isfinite(times).all() or (times <= 0).any():
        raise InputError(f"Echo times must be above zero, got {list(echo_times_ms)} ms.")
    if kind is EchoKind.QDESS and len(times) != 2:
        raise InputError(f"A qDESS series has two echoes, this one has {len(times)}.")
    if kind is EchoKind.SPIN_ECHO and (np.diff(times) <= 0).any():
        raise InputError(f"The echoes must be in the order of their echo times, got {list(echo_times_ms)} ms.")


def _echo_groups(stacks: Iterable[Stack]) -> list[list[Stack]]:
    """Stacks of the same slices that differ in echo, of one series or, failing that, of several."""
    of_series: dict[tuple[object, ...], list[Stack]] = {}
    of_place: dict[tuple[object, ...], list[Stack]] = {}
    for stack in stacks:
        of_series.setdefault((stack.series_uid, *_place(stack)), []).append(stack)
        of_place.setdefault(_place(stack), []).append(stack)
    groups = [group for group in of_series.values() if _differ_in_echo(group)]
    return groups or [group for group in of_place.values() if _differ_in_echo(group)]


def _place(stack: Stack) -> tuple[object, ...]:
    first = stack.slices[0]
    along_mm = [part.along_normal_mm for part in stack.slices]
    ends = (round(min(along_mm), 2), round(max(along_mm), 2))
    return (first.orientation_key, first.shape, first.spacing_mm, len(stack.slices), ends)


def _differ_in_echo(group: Sequence[Stack]) -> bool:
    if len(group) < 2 or not all(_echo_time_ms(stack) for stack in group):
        return False
    marks = {(_echo_time_ms(stack), stack.slices[0].marks.get("echo")) for stack in group}
    return len(marks) == len(group)


def _echo_time_ms(stack: Stack) -> float:
    """0 where the header gives none."""
    try:
        return float(stack.slices[0].marks["TE"] or 0.0)
    except ValueError:
        return 0.0


def _order(stack: Stack) -> tuple[float, float]:
    echo = stack.slices[0].marks.get("echo", "")
    return _echo_time_ms(stack), float(echo) if echo.isdigit() else 0.0


def _is_series(group: Sequence[Stack], series: str) -> bool:
    return any(series in (stack.series_uid, stack.key, stack.slices[0].series_number) for stack in group)


def _series_key(group: Sequence[Stack]) -> str:
    return group[0].slices[0].series_number or group[0].series_uid


def _read(group: Sequence[Stack], kind: EchoKind | None) -> EchoSeries:
    ordered = sorted(group, key=_order)
    protocol = read_protocol(ordered[0].slices[0].path)
    if kind is None:
        short = (protocol.repetition_time_ms or np.inf) < _SHORTEST_SPIN_ECHO_TR_MS
        kind = EchoKind.QDESS if len(ordered) == 2 and short else EchoKind.SPIN_ECHO
    volumes = tuple(read_stack(stack) for stack in ordered)
    times = tuple(_echo_time_ms(stack) for stack in ordered)
    return EchoSeries(volumes, times, kind, protocol, volumes[0].name)


def read_protocol(path: str | os.PathLike[str]) -> Protocol:
    """What a DICOM file says of its acquisition; attributes it lacks are None.

    The spoiler's private elements are looked up by their creator, so that a file of another maker, which may use
    the same numbers for something else, is not misread.
    """
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        return Protocol(
            repetition_time_ms=_number(_attribute(header, "RepetitionTime")),
            flip_angle_deg=_number(_attribute(header, "FlipAngle")),
            spoiler_area=_number(_private(header, _GE_SPOILER_AREA)),
            spoiler_time_us=_number(_private(header, _GE_SPOILER_TIME)),
        )
    except damage() as error:
        raise InputError(f"The header of '{path}' could not be read.", why=str(error)) from error


def _attribute(header: Any, name: str) -> Any:
    """An attribute of the file, or of what the frames of an enhanced file share."""
    if name in header:
        return header[name].value
    for group in header.get("SharedFunctionalGroupsSequence") or ():
        for element in group.iterall():
            if element.keyword == name:
                return element.value
    return None


def _private(header: Any, element: int) -> Any:
    try:
        return header.private_block(_GE_GROUP, _GE_CREATOR)[element].value
    except KeyError:
        return None


def _number(value: Any) -> float | None:
    """A number from what an element holds: text, bytes of an unknown representation, the first of several."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore").strip("\0 ")
    if not isinstance(value, str) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    try:
        return None if value in (None, "") else float(value)
    except (TypeError, ValueError):
        return None
