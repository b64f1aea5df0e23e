"""Pictures drawn without a graphics library."""

from __future__ import annotations

import numpy as np
import pytest

from KneeAnalysisLib.meshes import SurfaceMesh
from KneeAnalysisLib.painter import painting

RED, BLUE = (255, 0, 0), (0, 0, 255)
ANTERIOR, SUPERIOR = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
SIZE = 100


def sphere(radius_mm: float, centre: tuple[float, float, float] = (0, 0, 0), rings: int = 40) -> SurfaceMesh:
    """A closed sphere of triangles, as coarse as the number of rings says."""
    polar, turn = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings), indexing="ij")
    unit = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], axis=-1)
    index = np.arange(polar.size).reshape(polar.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    points = radius_mm * unit.reshape(-1, 3) + np.array(centre)
    return SurfaceMesh(points.astype(np.float32), triangles.astype(np.int32))


def both(one: SurfaceMesh, other: SurfaceMesh) -> SurfaceMesh:
    return SurfaceMesh(
        np.concatenate([one.points_ras_mm, other.points_ras_mm]),
        np.concatenate([one.triangles, other.triangles + len(one)]),
    )


def colored(mesh: SurfaceMesh, right: np.ndarray) -> np.ndarray:
    return np.where(right[:, None], RED, BLUE).astype(np.uint8)


def seen(mesh: SurfaceMesh, colors: np.ndarray, from_ras=ANTERIOR, up_ras=SUPERIOR, pixel_mm: float = 0.5):
    picture = painting(mesh, colors, pixel_mm).seen(from_ras, up_ras, np.zeros(3), SIZE)
    assert picture.shape == (SIZE, SIZE, 3) and picture.dtype == np.uint8
    return picture


@pytest.mark.parametrize("rings", [12, 40, 200])
def test_a_sphere_is_a_full_disc_of_its_size_however_large_its_triangles(rings: int) -> None:
    mesh = sphere(20, rings=rings)
    shown = (seen(mesh, colored(mesh, mesh.points_ras_mm[:, 0] > 99)) < 255).any(axis=2)
    true = np.pi * 40**2
    assert shown.sum() == pytest.approx(true, rel=0.04)
    rows, columns = np.nonzero(shown)
    assert rows.mean() == pytest.approx(49.5, abs=0.3) and columns.mean() == pytest.approx(49.5, abs=0.3)
    distance = np.hypot(*(np.indices(shown.shape) - 49.5))
    assert shown[distance < 37].all() and not shown[distance > 42].any()


def test_from_the_front_the_right_of_the_patient_is_on_the_left_of_the_picture_and_above_is_up() -> None:
    mesh = sphere(20)
    red = mesh.points_ras_mm[:, 0] > 0
    front, back = seen(mesh, colored(mesh, red)), seen(mesh, colored(mesh, red), from_ras=-ANTERIOR)
    assert front[50, 30, 0] > front[50, 30, 2] and front[50, 70, 2] > front[50, 70, 0]
    assert back[50, 70, 0] > back[50, 70, 2]
    upper = seen(mesh, colored(mesh, mesh.points_ras_mm[:, 2] > 0))
    assert upper[30, 50, 0] > upper[30, 50, 2] and upper[70, 50, 2] > upper[70, 50, 0]


def test_what_lies_nearer_hides_what_lies_behind_it() -> None:
    near, far = sphere(8, (0, 30, 0)), sphere(16, (0, -30, 0))
    mesh = both(near, far)
    red = np.arange(len(mesh)) < len(near)
    front = seen(mesh, colored(mesh, red))
    assert (front[40:60, 40:60, 0] > front[40:60, 40:60, 2]).all()
    assert front[50, 24, 2] > front[50, 24, 0]
    back = seen(mesh, colored(mesh, red), from_ras=-ANTERIOR)
    assert (back[..., 0] <= back[..., 2]).all()


def test_the_side_turned_to_the_eye_is_brighter_than_the_rim() -> None:
    mesh = sphere(20)
    picture = seen(mesh, np.full((len(mesh), 3), 200, np.uint8)).astype(int)
    assert picture[50, 50, 0] == pytest.approx(200, abs=3)
    assert picture[50, 50, 0] > picture[50, 70, 0] > picture[50, 87, 0] > 40


def test_what_does_not_fit_is_cut_off() -> None:
    large = sphere(60)
    assert (seen(large, colored(large, large.points_ras_mm[:, 0] > 99)) < 255).any(axis=2).all()
