"""Structures with a known shape, and the shortest way to propagate them, for tests of the propagation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MedAILib.jobs.runner import InProcessRunner
from MedAILib.volume import Volume
from Mem3DPropagateLib.drawings import take_drawing
from Mem3DPropagateLib.evaluate import placed
from Mem3DPropagateLib.request import Axis, Method, PropagatedSegment, PropagateRequest, PropagateResult
from Mem3DPropagateLib.task import PropagateTask

Shape = tuple[int, int, int]
Point = tuple[float, float, float]


def ellipsoid(shape: Shape, centre: Point, radii: Point) -> np.ndarray:
    """An ellipsoid: bool, shape (k, j, i); centre and radii in voxels."""
    return sum(((n - c) / r) ** 2 for n, c, r in zip(np.ogrid[_all(shape)], centre, radii, strict=True)) <= 1.0


def ball(shape: Shape, centre: Point, radius: float) -> np.ndarray:
    """A ball: bool, shape (k, j, i)."""
    return ellipsoid(shape, centre, (radius, radius, radius))


def tube(shape: Shape, start: Point, end: Point, radius: float) -> np.ndarray:
    """A straight tube with round ends: bool, shape (k, j, i)."""
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1).astype(float)
    line = np.subtract(end, start)
    share = np.clip((voxels - start) @ line / (line @ line), 0.0, 1.0)
    return np.linalg.norm(voxels - (np.asarray(start) + share[..., None] * line), axis=-1) <= radius


def blob(seed: int, shape: Shape) -> np.ndarray:
    """A few random balls, at least one of them inside: bool, shape (k, j, i)."""
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    for _ in range(int(random.integers(1, 4))):
        centre = tuple(float(random.uniform(0, n - 1)) for n in shape)
        mask |= ball(shape, centre, float(random.uniform(1.0, 1.0 + 0.35 * min(shape))))
    mask[tuple(int(random.integers(0, n)) for n in shape)] = True
    return mask


def a_volume(shape: Shape, ijk_to_ras: np.ndarray | None = None) -> Volume:
    """A volume without contrast: geometry does not look at it."""
    return Volume(np.zeros(shape, np.int16), np.eye(4) if ijk_to_ras is None else ijk_to_ras)


def a_request(
    masks: dict[str, np.ndarray],
    axis: Axis = Axis.K,
    references: Sequence[int] | None = None,
    ijk_to_ras: np.ndarray | None = None,
    **options: object,
) -> PropagateRequest:
    """A request with a drawing per mask; by default every slice that holds a voxel is a reference.

    By geometry unless ``method`` says otherwise: there is no image to look at.
    """
    options.setdefault("method", Method.GEOMETRY)
    volume = a_volume(next(iter(masks.values())).shape, ijk_to_ras)
    drawings = tuple(take_drawing(name, name.title(), mask, axis, references) for name, mask in masks.items())
    return PropagateRequest(volume, axis, drawings, **options)  # type: ignore[arg-type]


def propagated(request: PropagateRequest) -> PropagateResult:
    """The request's result, computed in this process."""
    return InProcessRunner().run(PropagateTask(), request).result


def propagated_one(mask: np.ndarray, *args: object, **options: object) -> tuple[PropagatedSegment, np.ndarray]:
    """One mask's result, and its voxels: bool, shape (k, j, i); arguments as for `a_request`."""
    segment = propagated(a_request({"a": mask}, *args, **options)).segments[0]  # type: ignore[arg-type]
    return segment, placed(segment, mask.shape)


def on_slices(mask: np.ndarray, slices: Sequence[int], axis: Axis = Axis.K) -> np.ndarray:
    """The mask on these slices alone."""
    kept = np.zeros_like(mask)
    np.moveaxis(kept, axis.array_axis, 0)[list(slices)] = np.moveaxis(mask, axis.array_axis, 0)[list(slices)]
    return kept


def _all(shape: Shape) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)
