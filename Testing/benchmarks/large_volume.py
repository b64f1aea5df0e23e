"""Seconds and memory of a large case: 512 x 512 x 300 voxels, a liver-sized structure, five drawn slices.

    python Testing/benchmarks/large_volume.py

Compares writing the result into the segmentation (only what changed) with the host's full-volume write, in
the same run, and a correction of one slice with the first propagation. Needs the `test` environment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "Testing"), str(REPOSITORY / "Mem3DPropagate"), str(REPOSITORY / "MedAIExtension")]

from host.scene import start_scene  # noqa: E402
from MedAILib.jobs.report import peak_memory_mb, restart_peak_memory  # noqa: E402
from MedAILib.volume import LabelMap, SegmentInfo, Volume  # noqa: E402
from Mem3DPropagateLib.request import PropagateResult  # noqa: E402

SHAPE_KJI, SPACING_MM = (300, 512, 512), (1.0, 0.8, 0.8)
DRAWN = 5


def liver_sized() -> np.ndarray:
    """A tilted ellipsoid with a bay cut into it: about 1.9 litres, bool, shape (k, j, i)."""
    k, j, i = np.ogrid[: SHAPE_KJI[0], : SHAPE_KJI[1], : SHAPE_KJI[2]]
    body = ((k - 150) / 100.0) ** 2 + ((j - 260) / 95.0) ** 2 + ((i - 200 + 0.25 * (k - 150)) / 115.0) ** 2 < 1
    bay = ((k - 110) / 60.0) ** 2 + ((j - 200) / 60.0) ** 2 + ((i - 150) / 60.0) ** 2 < 1
    return body & ~bay


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def main() -> None:
    scene = start_scene()
    from MedAILib.jobs.runner import InProcessRunner
    from MedAILib.mrml.label_maps import segmentation_from_label_map
    from MedAILib.mrml.segment_edit import write_segment_slices
    from MedAILib.mrml.segmentations import segment_mask, set_reference_geometry
    from MedAILib.mrml.volumes import write_volume
    from Mem3DPropagateLib.logic import ScenePropagation
    from Mem3DPropagateLib.request import TASK
    from Mem3DPropagateLib.shapes import dice

    truth = liver_sized()
    filled = np.flatnonzero(truth.any(axis=(1, 2)))
    references = np.linspace(filled[0], filled[-1], DRAWN).round().astype(int)
    drawn = np.zeros(SHAPE_KJI, np.uint8)
    drawn[references] = truth[references]
    matrix = np.diag([*SPACING_MM[::-1], 1.0])
    volume = Volume(np.zeros(SHAPE_KJI, np.int16), matrix, "CT")
    volume_node = write_volume(scene, volume)
    node = segmentation_from_label_map(scene, LabelMap((drawn,), matrix, (SegmentInfo("liver", "Liver", 1),)))
    set_reference_geometry(node, volume_node)

    def propagate() -> PropagateResult:
        plan = ScenePropagation(node, volume_node)
        outcome = InProcessRunner().run(TASK, plan.request)
        plan.write(outcome)
        return outcome.result

    restart_peak_memory()
    before_mb = peak_memory_mb() or 0
    whole_s, result = timed(propagate)
    peak_mb = peak_memory_mb() or 0
    segment = result.segments[0]
    propagated = segment_mask(node, "liver", volume.geometry)
    open_ = np.setdiff1d(np.arange(filled[0], filled[-1] + 1), references)

    corrected = int(segment.advice.slice or (references[1] + references[2]) // 2)
    plane = np.ascontiguousarray(truth[corrected : corrected + 1])
    write_s, _ = timed(
        lambda: write_segment_slices(
            node, "liver", plane, (corrected, 0, 0), volume.geometry, axis=0, slices=[corrected]
        )
    )
    correction_s, _ = timed(propagate)
    full_write_s = full_volume_write(node, volume_node, propagated)

    size = " x ".join(str(n) for n in reversed(SHAPE_KJI))
    print(f"{size} voxels, structure of {truth.sum() * np.prod(SPACING_MM) / 1e6:.1f} litres, {DRAWN} drawn slices\n")
    print("| step | seconds | against the full-volume write |\n|---|---|---|")
    for name, seconds in (
        ("propagate, write, remember", whole_s),
        ("correct one slice and propagate again", correction_s),
        ("write one slice", write_s),
        ("full-volume write of the host", full_write_s),
    ):
        print(f"| {name} | {seconds:.3f} | {seconds / full_write_s:.2f} |")
    print(f"\nDice over the slices that were not drawn: {dice(propagated[open_], truth[open_]):.3f}")
    print(f"Peak memory: {peak_mb} MB ({before_mb} MB before: application, volume and drawing)")


def full_volume_write(node: Any, volume_node: Any, mask: np.ndarray) -> float:
    """Seconds of ``slicer.util.updateSegmentBinaryLabelmapFromArray`` with the whole volume."""
    import slicer

    array = mask.astype(np.uint8)
    return timed(lambda: slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, "liver", volume_node))[0]


if __name__ == "__main__":
    main()
