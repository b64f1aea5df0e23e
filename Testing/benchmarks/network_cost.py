"""What our propagation network costs beside the reference design, a correction, and memory over many slices.

    python Testing/benchmarks/network_cost.py                 # one thread
    python Testing/benchmarks/network_cost.py --threads 2

The reference design is the space-time memory network of Mem3D at its published size (`stm_literal`, filled by rule):
one slice after the other, at full frame. Times are processor time of one thread; with more threads, time on the clock.
Memory is the peak above what lay there before, image and references excluded.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable

import numpy as np
import torch
from stm_literal import LiteralStm, propagate

from MedAILib.jobs.report import peak_memory_mb, restart_peak_memory
from MedAILib.jobs.task import Context
from MedAILib.volume import Volume
from Mem3DPropagateLib.nets.gapmodel import load_gap_model
from Mem3DPropagateLib.nets.stm import STM
from Mem3DPropagateLib.nets.stm_fill import fill
from Mem3DPropagateLib.nets.stm_frame import RegionOptions, frame_for
from Mem3DPropagateLib.request import Axis, Drawing, Method, PropagateRequest
from Mem3DPropagateLib.task import PropagateTask

SIZE_PX, SLICES = 480, 60
LITERAL_SLICES = 3
SPACING_MM = (3.0, 0.8, 0.8)


def body(slices: int, size_px: int) -> np.ndarray:
    """A structure a third of the frame wide, through all slices: bool, shape (slices, rows, columns)."""
    k, j, i = np.ogrid[:slices, :size_px, :size_px]
    width = 1 - 0.6 * ((k - slices / 2) / (slices / 2)) ** 2
    return ((j - size_px * 0.5) / (0.14 * size_px)) ** 2 + ((i - size_px * 0.48) / (0.17 * size_px)) ** 2 < width


def image_of(mask: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 8, mask.shape[1:]).astype(np.float32)
    return np.where(mask, np.float32(160), np.float32(90)) + noise


def request_of(mask: np.ndarray, references: list[int], only: tuple[int, int] | None = None) -> PropagateRequest:
    volume = Volume(image_of(mask), np.diag([*reversed(SPACING_MM), 1.0]))
    drawing = Drawing("a", "a", tuple(references), mask[references])
    return PropagateRequest(volume, Axis.K, (drawing,), only_slices=only, method=Method.NETWORK)


def seconds(action: Callable[[], object], threads: int) -> float:
    clock = time.thread_time if threads == 1 else time.perf_counter
    started = clock()
    action()
    return clock() - started


def literal_seconds_a_slice(threads: int) -> float:
    """The reference design, after one slice to warm up."""
    mask = body(LITERAL_SLICES + 2, SIZE_PX)
    image = image_of(mask)
    network = STM("plain").eval()
    fill(network)
    frame = frame_for(image, {0: mask[None, 0]}.items(), (1, 1), RegionOptions(full_frame=True, largest_px=4096))
    frames = [frame.picture(plane, unit_range=False) for plane in image]
    steps = [(index, (0, index - 1) if index > 1 else (0,)) for index in range(1, LITERAL_SLICES + 2)]

    def run(count: int) -> None:
        with torch.inference_mode():
            for _ in propagate(
                LiteralStm(network.state_dict()), frames, {0: frame.masks(mask[None, 0])}, steps[:count]
            ):
                pass

    run(1)
    return seconds(lambda: run(LITERAL_SLICES), threads) / LITERAL_SLICES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    context = Context(threads=threads)
    task = PropagateTask()
    mask = body(SLICES, SIZE_PX)
    references = [0, 15, 30, 45, SLICES - 1]
    task.run(request_of(mask, references), context)
    whole = request_of(mask, references)
    ours = seconds(lambda: task.run(whole, context), threads)
    ours /= SLICES - len(references)
    reference = literal_seconds_a_slice(threads)
    parameters = sum(parameter.numel() for parameter in load_gap_model().network.parameters())
    print(f"{SIZE_PX} x {SIZE_PX} x {SLICES} voxels, {threads} thread(s), torch {torch.__version__}\n")
    print("| way | parameters | ms a slice | times cheaper |\n|---|---|---|---|")
    print(f"| reference design, slice by slice, full frame | 38,925,570 | {1000 * reference:.0f} | 1 |")
    print(f"| ours, with its geometric prior | {parameters:,} | {1000 * ours:.0f} | {reference / ours:.0f} |\n")
    corrected = request_of(mask, sorted([*references, 37]), (30, 45))
    took = seconds(lambda: task.run(corrected, context), threads)
    print(f"A correction of one slice of {SLICES}, two gaps anew: {took:.2f} s")
    for count in (100, 1000):
        thin = body(count, 96)
        request = request_of(thin, [0, count // 2, count - 1])
        gc.collect()
        restart_peak_memory()
        before = peak_memory_mb() or 0
        task.run(request, context)
        print(f"Peak memory over {count} slices of 96 x 96: {(peak_memory_mb() or 0) - before} MB, the result's "
              f"{thin.nbytes / 2**20:.0f} MB among them")  # fmt: skip


if __name__ == "__main__":
    main()
