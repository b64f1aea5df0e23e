"""A structure drawn on a few slices in the scene, and the steps of a user on it."""

from __future__ import annotations

from typing import Any

import numpy as np
from phantoms import ball, ellipsoid

from MedAILib.jobs.runner import InProcessRunner
from MedAILib.mrml.nodes import run_id
from MedAILib.mrml.segment_edit import write_segment_block
from MedAILib.mrml.segmentations import segment_ids, segment_info, segment_mask
from MedAILib.volume import Geometry
from Mem3DPropagateLib.logic import Options, ScenePropagation
from Mem3DPropagateLib.request import TASK, Method

SHAPE = (41, 30, 34)
GRID = Geometry(SHAPE, np.diag([0.9, 0.9, 1.5, 1.0]))
ORGAN = ellipsoid(SHAPE, (20, 15, 15), (18, 12, 13))
DRAWN = (4, 12, 20, 28, 36)


def propagate(node: Any, volume: Any, ids: list[str] | None = None, runner: Any = None, **options: Any) -> Any:
    """Propagate and write, with `Options` by name; answers the result. By geometry: there is no image to look at."""
    plan = ScenePropagation(node, volume, ids, Options(**{"method": Method.GEOMETRY, **options}))
    outcome = (runner or InProcessRunner()).run(TASK, plan.request)
    plan.write(outcome)
    return outcome.result


def draw(node: Any, segment_id: str, index: int, plane: np.ndarray, axis: int = 0, grid: Geometry = GRID) -> None:
    """The user draws a whole slice."""
    block = np.expand_dims(plane, axis)
    origin = [0, 0, 0]
    origin[axis] = index
    write_segment_block(node, segment_id, block, origin, grid, allow_overlap=True)


def mask_of(node: Any, segment_id: str = "organ", grid: Geometry = GRID) -> np.ndarray:
    """The voxels of a segment on a grid."""
    return segment_mask(node, segment_id, grid)


def scene_of(node: Any) -> dict[str, Any]:
    """All that a run may change of a segmentation."""
    return {
        "masks": {one: mask_of(node, one).tobytes() for one in segment_ids(node)},
        "infos": {one: segment_info(node, one) for one in segment_ids(node)},
        "run": run_id(node),
    }


def small_disc(radius: float = 4) -> np.ndarray:
    """A disc in the middle of a slice: what a user might draw."""
    return ball((1, *SHAPE[1:]), (0, 15, 15), radius)[0]
