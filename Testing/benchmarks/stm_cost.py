"""What propagation with published memory networks costs: slice by slice as published, and by our engine.

    python Testing/benchmarks/stm_cost.py                             # 480 x 480 pixels, one thread
    python Testing/benchmarks/stm_cost.py --size 384 --variant quality --threads 2
    python Testing/benchmarks/stm_cost.py --device cuda:0 --taught /tmp/taught.pth

Published weights may not be passed on, so a network of their full size is filled by rule and taught for half a minute
to find bright bodies (``--taught`` keeps what it learned): its masks mean something, which those of random weights do
not. It tells no bright body from another, so rows with three objects show the cost alone; that their masks are right
is tested in ``Testing/unit/mem3d``.

``literal`` is `stm_literal`: the formulas as they stand, one slice after the other, at full frame. Its rows and ours
take the same references and, but for the first row, the same memory. Milliseconds are processor time (with more than
one thread, or on a GPU: time on the clock) and count everything from the references to the masks; ``peak`` is what a
row took above what lay there before it. Dice is that of the masks with those of ``literal`` on the same slices, and
with the bodies themselves.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from stm_literal import LiteralStm, Step, interleaved, propagate
from torch.nn import functional

from MedAILib.jobs.report import peak_memory_mb, restart_peak_memory
from MedAILib.jobs.task import Context
from Mem3DPropagateLib.nets.stm import STM, parameter_count
from Mem3DPropagateLib.nets.stm_engine import StmEngine, StmOptions
from Mem3DPropagateLib.nets.stm_fill import fill
from Mem3DPropagateLib.nets.stm_frame import RegionOptions, frame_for
from Mem3DPropagateLib.nets.stm_plan import nearest, runs
from Mem3DPropagateLib.nets.stm_sight import Precision, Sight
from Mem3DPropagateLib.nets.stm_weights import LoadedStm, load_stm

WHOLE = RegionOptions(full_frame=True, largest_px=4096)
AROUND = RegionOptions()
SLICES, FIRST, LAST = 22, 5, 16
"""Of the volume; the first and the last slice of the structure, which are its references."""
CORRECTED = 9


@dataclass(frozen=True)
class Row:
    """What one way cost, its masks by slice, shape (objects, rows, columns), and the true ones."""

    name: str
    seconds: float
    slices: int
    peak_mb: int
    masks: dict[int, np.ndarray]
    truth: dict[int, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--variant", default="plain", choices=("plain", "aspp", "quality"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=100, help="of teaching")
    parser.add_argument("--taught", type=Path, help="where the taught weights are, or shall be kept")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as folder:
        path = arguments.taught or Path(folder) / "taught.pth"
        if not path.exists():
            teach(path, arguments.variant, arguments.steps)
        loaded = load_stm(path)
    print(f"{loaded.text}: {parameter_count(loaded.network):,} parameters, torch {torch.__version__}")
    print(f"{arguments.size} x {arguments.size} pixels, {arguments.threads} thread(s), {arguments.device}\n")
    show(Bench(loaded, arguments.size, arguments.device, arguments.threads))


def show(bench: Bench) -> None:
    """Run every row and print the table."""
    print(
        "| way | slices | ms a slice | times cheaper | peak MB | Dice | to the truth |\n|---|---|---|---|---|---|---|"
    )
    references, corrected = [FIRST, LAST], [FIRST, CORRECTED, LAST]
    published = bench.published()
    print(line(published, published))
    for objects in (1, 3):
        literal = bench.literal("same memory", objects, references)
        print(line(literal, literal), flush=True)
        for precision, region in ((Precision.FLOAT32, WHOLE), (Precision.AUTO, WHOLE), (Precision.AUTO, AROUND)):
            name = f"{'full frame' if region.full_frame else 'region'}, {precision.value}"
            row = bench.propagated(name, Sight(bench.loaded, precision), region, objects, references)
            print(line(row, literal), flush=True)
    literal = bench.literal("correction", 1, corrected)
    print(line(literal, literal), flush=True)
    for precision, region in ((Precision.FLOAT32, WHOLE), (Precision.AUTO, WHOLE), (Precision.AUTO, AROUND)):
        name = f"{'full frame' if region.full_frame else 'region'}, {precision.value}, correction"
        sight = Sight(bench.loaded, precision)
        bench.propagated("", sight, region, 1, references)
        print(line(bench.propagated(name, sight, region, 1, corrected), literal), flush=True)


def line(row: Row, against: Row) -> str:
    """A row of the table."""
    cost = row.seconds / row.slices
    cheaper = against.seconds / against.slices / cost
    objects = len(next(iter(row.masks.values())))
    many = f", {objects} objects" if objects > 1 else ""
    found = [dice(row.masks, against.masks), dice(row.masks, row.truth)] if objects == 1 else []
    cells = [f"{row.name}{many}", row.slices, f"{1000 * cost:.0f}", f"{cheaper:.2f}", row.peak_mb]
    cells += [f"{value:.4f}" for value in found] or ["", ""]
    return f"| {' | '.join(map(str, cells))} |"


def dice(masks: dict[int, np.ndarray], others: dict[int, np.ndarray]) -> float:
    """Of all slices that both have, together."""
    common = sorted(masks.keys() & others.keys())
    a, b = (np.stack([one[index] for index in common]) for one in (masks, others))
    return float(2 * np.count_nonzero(a & b) / max(np.count_nonzero(a) + np.count_nonzero(b), 1))


class Bench:
    """One volume, one network, and ways to propagate."""

    def __init__(self, loaded: LoadedStm, size: int, device: str, threads: int) -> None:
        self.loaded, self.device, self.threads = loaded, device, threads
        self.cases = {objects: volume(size, objects) for objects in (1, 3)}

    def published(self) -> Row:
        """Every slice of the volume in the published order, from one reference, as published programs do."""
        return self._literal("literal, published order, whole volume", 1, [FIRST], list(interleaved(FIRST, SLICES)))

    def literal(self, name: str, objects: int, references: list[int]) -> Row:
        """The slices of the structure, with the memory that the engine takes."""
        options, steps = StmOptions(), []
        for run in runs(references, range(FIRST, LAST)):
            for number, index in enumerate(run.slices):
                before = run.slices[max(number - options.working_slices, 0) : number]
                steps.append((index, (*nearest(references, index, options.nearest_references), *before)))
        return self._literal(f"literal, {name}", objects, references, steps)

    def _literal(self, name: str, objects: int, references: list[int], steps: list[Step]) -> Row:
        image, truth, drawn = self._case(objects, references)
        frame = frame_for(image, drawn.items(), (1, 1), WHOLE)
        unit_range = self.loaded.network.takes_unit_range
        state = {key: tensor.to(self.device) for key, tensor in self.loaded.network.state_dict().items()}

        def work() -> dict[int, np.ndarray]:
            frames = [frame.picture(plane, unit_range=unit_range).to(self.device) for plane in image]
            masks = {index: frame.masks(mask).to(self.device) for index, mask in drawn.items()}
            found = {}
            with torch.inference_mode():
                for index, probabilities in propagate(LiteralStm(state), frames, masks, steps):
                    winner = probabilities.argmax(0).cpu().numpy()
                    found[index] = np.stack([winner == number for number in range(1, objects + 1)])
            return found

        return measured(name, work, self.device, truth)

    def propagated(self, name: str, sight: Sight, region: RegionOptions, objects: int, references: list[int]) -> Row:
        """The slices of the structure, by the engine."""
        image, truth, drawn = self._case(objects, references)
        engine = StmEngine(sight, image, options=StmOptions(region))
        context = Context(device=self.device, threads=self.threads)

        def work() -> dict[int, np.ndarray]:
            return {found.index: found.level >= 0 for found in engine.propagate(drawn, range(FIRST, LAST), context)}

        return measured(f"engine, {name}", work, self.device, truth)

    def _case(
        self, objects: int, references: list[int]
    ) -> tuple[np.ndarray, dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Image, true masks by slice, and those that are drawn."""
        image, bodies = self.cases[objects]
        return image, {at: bodies[:, at] for at in range(SLICES)}, {at: bodies[:, at] for at in references}


def measured(name: str, work: Callable[[], dict[int, np.ndarray]], device: str, truth: dict[int, np.ndarray]) -> Row:
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    restart_peak_memory()
    before_mb = peak_memory_mb() or 0
    clock = time.thread_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    masks = work()
    return Row(name, clock() - started, len(masks), (peak_memory_mb() or 0) - before_mb, masks, truth)


def volume(size: int, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright bodies among dark ones: image, shape (slices, size, size), and masks, shape (objects, slices, ...)."""
    rng = np.random.default_rng(4)
    z, y, x = np.mgrid[:SLICES, :size, :size].astype(np.float32) / np.float32(size)
    z = (z * size - (FIRST + LAST) / 2) / (LAST - FIRST)
    image = rng.normal(0, 6, z.shape).astype(np.float32)
    bodies = []
    for number, (row, column) in enumerate(((0.45, 0.5), (0.7, 0.3), (0.25, 0.72))[:objects]):
        radius = 0.1 * (1 - 0.9 * z**2)
        angle = np.arctan2(y - row, x - column)
        body = np.hypot(y - row - 0.06 * z, x - column) < radius * (1 + 0.15 * np.cos(3 * angle + number))
        image += 100 * body
        bodies.append(body)
    for row, column in rng.uniform(0.1, 0.9, (12, 2)):
        image -= 40 * (np.hypot(y - row, x - column) < 0.05)
    return image, np.stack(bodies)


def teach(path: Path, variant: str, steps: int) -> None:
    """Teach a network of full width, filled by rule, to find bright bodies again; half a minute on one thread."""
    network = STM(variant).eval()
    fill(network)
    network = network.to(memory_format=torch.channels_last).requires_grad_(False)
    network.Decoder.requires_grad_(True)  # features of random encoders are good enough for bright bodies
    optimiser = torch.optim.Adam(network.Decoder.parameters(), 3e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-4, total_steps=steps)
    generator = torch.Generator().manual_seed(1)
    started = time.perf_counter()
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        losses = []
        for _ in range(2):
            (remembered, mask), (asked, truth) = a_pair(generator)
            with torch.autocast("cpu", torch.bfloat16):
                memory = network.memorise(remembered, mask)
                alone = network.segment(network.query(asked), memory, (mask.shape[1], mask.shape[2]))
            losses.append(functional.binary_cross_entropy(alone.float().clamp(1e-4, 1 - 1e-4), truth))
        loss = torch.stack(losses).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 25 == 0:
            print(f"teaching: step {step}, loss {loss.item():.3f}, {time.perf_counter() - started:.0f} s", flush=True)
    torch.save(network.state_dict(), path)


def a_pair(generator: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two pictures, shape (1, 3, 96, 96), with the same bright body moved and resized, and its masks."""
    side = 96
    y, x = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")

    def uniform(low: float, high: float) -> float:
        return float(torch.rand((), generator=generator)) * (high - low) + low

    row, column, radius = uniform(0.3, 0.7), uniform(0.3, 0.7), uniform(0.12, 0.3)
    dark = [(uniform(0, 1), uniform(0, 1)) for _ in range(3)]
    noise = uniform(0.02, 0.1)
    pairs = []
    for _ in range(2):
        angle = torch.atan2(y - row, x - column)
        edge = radius * (1 + uniform(0, 0.2) * torch.cos(3 * angle + uniform(0, 6)))
        mask = (torch.hypot(y - row, x - column) < edge).float()
        grey = 0.3 + 0.6 * mask + noise * torch.randn(side, side, generator=generator)
        for dark_row, dark_column in dark:
            grey = grey - 0.25 * (torch.hypot(y - dark_row, x - dark_column) < 0.1)
        picture = ((grey.clamp(0, 1) - 0.45) / 0.225).expand(1, 3, -1, -1)
        pairs.append((picture.contiguous(memory_format=torch.channels_last), mask[None]))
        row, column, radius = row + uniform(-0.05, 0.05), column + uniform(-0.05, 0.05), radius * uniform(0.8, 1.2)
    return pairs


if __name__ == "__main__":
    main()
