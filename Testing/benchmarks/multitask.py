"""Seconds a slice of the multi-task network on a processor: the plain network, one slice at a time, a whole volume.

    python Testing/benchmarks/multitask.py                        # network 32/4/64, 256 x 256 pixels, 2 threads
    python Testing/benchmarks/multitask.py --base-filters 16 --depth 2 --cls-hidden-dim 16

``plain`` is the network as it is trained, as published code calls it: one slice, channels first, batch
normalisations of their own. All other rows go the whole way from stored 16-bit slices to probabilities and masks at
the slices' own size, in float32, with the normalisations folded into the convolutions and channels last. The rows
take turns, round by round, so that a machine that is busy now and then treats all alike; the fastest round counts.
``cpu`` is processor time, which other programs disturb less than the clock does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from MedAILib.jobs.report import peak_memory_mb, restart_peak_memory
from MedAILib.jobs.task import Context
from MedAILib.models.checkpoint import save_model_with_config
from MedAILib.models.config import Architecture, ModelConfig
from MedAILib.models.infer import MULTITASK_UNET
from MedAILib.multitask.network import MultiTaskUNet, create_multi_task_model, parameter_count
from MedAILib.multitask.normalise import normalised
from MedAILib.multitask.predictor import Asked, MultiTaskPredictor, Options
from MedAILib.multitask.volume_task import VolumeRequest, VolumeTask
from MedAILib.volume import Volume

BATCHES = (1, 2, 4, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-filters", type=int, default=32)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--cls-hidden-dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slices", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = create_multi_task_model(
        base_filters=arguments.base_filters, depth=arguments.depth, cls_hidden_dim=arguments.cls_hidden_dim
    ).eval()
    config = description(model)
    volume = a_volume(arguments.slices)
    with TemporaryDirectory() as folder:
        save_model_with_config(model, Path(folder) / "model.safetensors", config)
        rows = candidates(model, config, volume, Path(folder), arguments.threads)
        best = measure(rows, arguments.slices, arguments.rounds)
        memory_mb = peak_of(rows["volume run"])
    print(
        f"Network {arguments.base_filters}/{arguments.depth}/{arguments.cls_hidden_dim}, {parameter_count(model):,} "
        f"parameters, {arguments.slices} slices of 256 x 256, {arguments.threads} threads, torch {torch.__version__}\n"
    )
    print("| way | s a slice | cpu s a slice | times as fast as one by one | as plain |\n|---|---|---|---|---|")
    single, plain = best["predict_single"][0], best["plain"][0]
    for name, (wall_s, cpu_s) in best.items():
        print(f"| {name} | {wall_s:.3f} | {cpu_s:.3f} | {single / wall_s:.2f} | {plain / wall_s:.2f} |")
    print(f"\nPeak memory of the process in a volume run: {memory_mb} MB")


def description(model: MultiTaskUNet) -> ModelConfig:
    """As the published model is described; every slice counts as suspicious, so that every slice is segmented."""
    layout = model.layout
    parameters = {name: getattr(layout, name) for name in MULTITASK_UNET.parameters}
    inputs, heads, assumed = MULTITASK_UNET.assumed(parameters)
    return ModelConfig(
        id="benchmark",
        family="multitask-unet",
        architecture=Architecture("multitask_unet", parameters),
        inputs=inputs,
        heads=heads,
        assumed=tuple(assumed),
    )


def a_volume(count: int) -> Volume:
    """12-bit noise with structure, 256 x 256 pixels a slice."""
    rng = np.random.default_rng(0)
    coarse = rng.random((count, 16, 16)).repeat(16, axis=1).repeat(16, axis=2)
    return Volume((3000 * coarse + 500 * rng.random((count, 256, 256))).astype(np.int16), np.diag([-1, -1, 3, 1]))


def candidates(
    model: MultiTaskUNet, config: ModelConfig, volume: Volume, folder: Path, threads: int
) -> dict[str, Callable[[], None]]:
    """By name, a function that answers about every slice."""
    predictor = MultiTaskPredictor.from_model(model, config, Options(threads=threads))
    task = VolumeTask()
    request = VolumeRequest(volume, folder / "model.safetensors", conditional=False)
    half = float(np.median([p.classification.tumor_probability for p in predictor.predict_batch(volume.array[:9])]))  # type: ignore[union-attr]
    gated = VolumeRequest(volume, folder / "model.safetensors", classification_threshold=half)
    gated_task = VolumeTask()

    def plain() -> None:
        normalisation = config.inputs[0].normalisation
        assert normalisation is not None
        with torch.inference_mode():
            for plane in volume.array:
                model(torch.from_numpy(normalised(plane[None], normalisation))[None])

    def one_by_one() -> None:
        for plane in volume.array:
            predictor.predict_single(plane)

    def batched(size: int) -> Callable[[], None]:
        own = MultiTaskPredictor.from_model(model, config, Options(threads=threads, batch_size=size))
        return lambda: [None for _ in own.predictions(iter(volume.array), Asked())].clear()

    rows: dict[str, Callable[[], None]] = {"plain": plain, "predict_single": one_by_one}
    rows |= {f"batches of {size}": batched(size) for size in BATCHES}
    rows["volume run"] = lambda: task.run(request, Context(threads=threads)) and None  # type: ignore[func-returns-value]
    rows["volume run, half of the slices suspicious"] = (
        lambda: gated_task.run(gated, Context(threads=threads)) and None  # type: ignore[func-returns-value]
    )
    return rows


def measure(rows: dict[str, Callable[[], None]], slices: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Wall and processor seconds a slice of each way, of its fastest round."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(rounds + 1):
        for name, run in rows.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            spent = ((time.perf_counter() - wall) / slices, (time.process_time() - cpu) / slices)
            before = best.get(name, (np.inf, np.inf))
            best[name] = (min(before[0], spent[0]), min(before[1], spent[1]))
    return best


def peak_of(run: Callable[[], None]) -> int | None:
    """Highest memory of this process while it runs, MiB."""
    restart_peak_memory()
    run()
    return peak_memory_mb()


if __name__ == "__main__":
    main()
