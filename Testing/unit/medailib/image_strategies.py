"""Volumes and label maps of every orientation for hypothesis, and where their voxels lie."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
from hypothesis import strategies as st

from MedAILib.volume import Geometry, LabelMap, SegmentInfo, Volume

ALL_AXES = [
    "".join(pair[axis] for pair, axis in zip((names[a] for a in order), signs, strict=True))
    for names in [("RL", "AP", "SI")]
    for order in permutations(range(3))
    for signs in product((0, 1), repeat=3)
]
"""The 48 axis codes."""

NUMBER_TYPES = [np.dtype(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")]


def axes_matrix(axes: str) -> np.ndarray:
    """Unit directions in RAS, one column for each of i, j, k."""
    matrix = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        row = next(row for row, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        matrix[row, column] = 1.0 if letter in "RAS" else -1.0
    return matrix


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """Rotation by an angle in radians about an axis (Rodrigues)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@st.composite
def geometries(draw: st.DrawFn, *, sheared: bool = False, most: int = 5) -> Geometry:
    """Any of the 48 axes, tilted up to any angle, anisotropic, either handedness; sheared on demand."""
    number = st.integers(-1000, 1000).map(lambda n: n / 7.0)
    shape = draw(st.tuples(*[st.integers(1, most)] * 3))
    spacing = [draw(st.integers(2, 60)) / 11.0 for _ in range(3)]
    axis = np.array([draw(st.integers(-5, 5)) for _ in range(3)]) + np.array([0.01, 0.02, 0.03])
    tilt = rotation(axis, draw(st.sampled_from([0.0, 0.1, 0.5, np.pi / 4, 1.3, 3.0])))
    directions = tilt @ axes_matrix(draw(st.sampled_from(ALL_AXES)))
    if sheared:
        directions = directions @ np.array([[1, 0, draw(st.sampled_from([0.0, 0.2, -0.3]))], [0, 1, 0.1], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = directions * spacing
    matrix[:3, 3] = [draw(number) for _ in range(3)]
    return Geometry(shape, matrix)


@st.composite
def volumes(draw: st.DrawFn, *, sheared: bool = False, types: list[np.dtype] | None = None) -> Volume:
    """A volume in which no value occurs twice (as far as its type allows)."""
    geometry = draw(geometries(sheared=sheared))
    dtype = draw(st.sampled_from(types or NUMBER_TYPES))
    values = np.arange(np.prod(geometry.shape_kji)).reshape(geometry.shape_kji)
    return Volume(values.astype(dtype), geometry.ijk_to_ras, name="numbered")


@st.composite
def label_maps(draw: st.DrawFn, *, layers: int = 2, sheared: bool = False) -> LabelMap:
    """Random labels 0..3 in one or more layers, a segment for each label of each layer."""
    geometry = draw(geometries(sheared=sheared))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    arrays = tuple(random.integers(0, 4, geometry.shape_kji).astype(np.uint8) for _ in range(layers))
    segments = tuple(
        SegmentInfo(
            f"id {layer}.{label}", f"name {label} é", label, layer, (0.25, label / 4, 1.0), {"kind": f"{label}"}
        )
        for layer in range(layers)
        for label in (1, 2, 3)
    )
    return LabelMap(arrays, geometry.ijk_to_ras, segments, name="labels")


def voxel_centres_ras(geometry: Geometry) -> np.ndarray:
    """RAS millimetres of all voxel centres, shape (k, j, i, 3), straight from the definition."""
    k, j, i = np.indices(geometry.shape_kji)
    ijk1 = np.stack([i, j, k, np.ones_like(i)], axis=-1)
    return (ijk1 @ geometry.ijk_to_ras.T)[..., :3]


def places_by_value(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Where each value lies: voxel centres in the order of the values, shape (voxels, 3)."""
    return voxel_centres_ras(geometry).reshape(-1, 3)[np.argsort(array, axis=None, kind="stable")]
