"""What the chest CT encoders cost: the formulas as they stand, and ours, which answer the same.

    python Testing/benchmarks/ct_encoder.py                # one thread, the published size: some minutes, 3 GB
    python Testing/benchmarks/ct_encoder.py --parts-only   # a minute
    python Testing/benchmarks/ct_encoder.py --device cuda:0
    python Testing/benchmarks/ct_encoder.py --only primus  # the encoder of the open models of 2026: some minutes, 2 GB

``literal`` is `rect3d_literal`: one table of patches by patches, one loop over patches and regions. Both are run on
the same values, of the published width and heads, at numbers of patches that the literal one can still hold; at the
published 16,384 its tables are computed, not run. Of Primus the literal attention is the softmax of its whole table;
one block is run at all 13,824 patches of a volume of 192 x 192 x 192, and the whole encoder. Seconds are processor
time of one thread (on a GPU: on the clock). ``peak`` is what a call took above what lay there before it. Weights are
random: cost does not depend on them.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path

import rect3d_literal as literal
import torch

from CTReportLib.nets.primus import Block, Primus, attended, rotations, turned
from CTReportLib.nets.rect3d import Rect3D
from CTReportLib.nets.rect3d_attention import SliceAwareAttention, plane_steps
from CTReportLib.nets.rect3d_regions import region_shares
from MedAILib.jobs.report import peak_memory_mb, restart_peak_memory

WIDTH, HEADS, DISTANCES, REGIONS = 768, 12, 33, 20
PATCH = (4, 16, 16)
GRIDS = ((4, 16, 16), (16, 16, 16))
PUBLISHED = 16_384
PRIMUS_WIDTH, PRIMUS_SIDE = 864, 192
GB = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts-only", action="store_true", help="without the whole encoder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=("rect3d", "primus"), help="one of the encoders")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.device}, threads: {arguments.threads}\n")
    print("| part | patches | literal s | ours s | ratio | literal peak MB | ours peak MB | largest difference |")
    print("|---|---|---|---|---|---|---|---|")
    if arguments.only != "primus":
        rect3d(arguments)
    if arguments.only != "rect3d":
        primus(arguments)


def rect3d(arguments: argparse.Namespace) -> None:
    for grid in GRIDS:
        attention(grid, arguments.device)
    shares(GRIDS[0])
    table, entries = 2 * HEADS * PUBLISHED**2 * 4, PUBLISHED**2 * 8
    print(f"\nliteral attention at {PUBLISHED} patches, computed: scores and biases {table / GB:.1f} GB,")
    print(f"entries {entries / GB:.1f} GB, in every one of 12 blocks and for every volume of the batch\n")
    if not arguments.parts_only:
        encoder = Rect3D().eval().to(arguments.device)
        labels = torch.randint(0, REGIONS + 1, (1, *encoder.size), dtype=torch.int16, device=arguments.device)
        whole(encoder, encoder.size, arguments.device, labels)


def primus(arguments: argparse.Namespace) -> None:
    """Attention at part of the patches beside its formula, one block at all of them, and the whole encoder."""
    grid = (12, 12, 24)
    turns = rotations(grid, PRIMUS_WIDTH // HEADS, arguments.device)
    shape = (1, HEADS, len(turns), PRIMUS_WIDTH // HEADS)
    queries, keys, values = (torch.randn(shape, device=arguments.device) for _ in range(3))

    def literally() -> torch.Tensor:
        scores = turned(queries, turns) @ turned(keys, turns).transpose(-2, -1) * shape[-1] ** -0.5
        return scores.softmax(dim=-1) @ values

    def as_ours() -> torch.Tensor:
        return attended(turned(queries, turns), turned(keys, turns), values)

    print(row("rotary attention", len(turns), cost(literally, arguments.device), cost(as_ours, arguments.device)))
    side = PRIMUS_SIDE // 8
    turns = rotations((side, side, side), PRIMUS_WIDTH // HEADS, arguments.device)
    block = Block(PRIMUS_WIDTH, HEADS, 2304).eval().to(arguments.device)
    patches = torch.randn(1, len(turns), PRIMUS_WIDTH, device=arguments.device)
    _, seconds, peak = cost(lambda: block(patches, turns), arguments.device)
    print(f"\none block of Primus at {len(turns)} patches: {seconds:.1f} s, peak {peak} MB above its input")
    print(f"its literal table, computed: {HEADS * len(turns) ** 2 * 4 / GB:.1f} GB\n")
    if not arguments.parts_only:
        encoder = Primus().eval().to(arguments.device)
        whole(encoder, (PRIMUS_SIDE, PRIMUS_SIDE, PRIMUS_SIDE), arguments.device)


def attention(grid: literal.Size, device: str) -> None:
    """One slice-aware attention of the published width."""
    layer = SliceAwareAttention(WIDTH, HEADS, DISTANCES, 0.5).to(device)
    torch.nn.init.normal_(layer.slice_bias)
    count = grid[0] * grid[1] * grid[2]
    patches = torch.randn(1, count, WIDTH, device=device)
    steps = plane_steps(grid[0], DISTANCES, device)
    state = {f"a.{name}": tensor for name, tensor in layer.state_dict().items()}
    centres = literal.positions(grid).to(device)
    theirs = cost(lambda: literal.slice_attention(state, "a", patches, HEADS, centres), device)
    ours = cost(lambda: layer(patches, steps), device)
    print(row("slice-aware attention", count, theirs, ours))


def shares(grid: literal.Size) -> None:
    """Shares of the regions in every patch."""
    size = tuple(count * side for count, side in zip(grid, PATCH, strict=True))
    labels = torch.randint(0, REGIONS + 1, (1, *size), dtype=torch.int16)
    theirs = cost(lambda: literal.shares_of(labels, REGIONS, PATCH), "cpu")
    ours = cost(lambda: region_shares(labels, REGIONS, PATCH), "cpu")
    print(row("shares of regions", grid[0] * grid[1] * grid[2], theirs, ours))


def whole(encoder: torch.nn.Module, size: literal.Size, device: str, *more: torch.Tensor) -> None:
    """A whole encoder at its published size."""
    volume = torch.rand(1, 1, *size, device=device)
    answer, seconds, peak = cost(lambda: encoder(volume, *more).pooled, device)
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    of = " x ".join(str(side) for side in size)
    print(f"whole encoder, {parameters / 1e6:.2f} M parameters, {of}: {seconds:.1f} s,")
    weights = parameters * 4 >> 20
    print(
        f"peak {peak} MB above {weights} MB of weights and the volume; finite: {bool(answer.isfinite().all())}",
        flush=True,
    )


Cost = tuple[torch.Tensor, float, int]


def cost(action: Callable[[], torch.Tensor], device: str) -> Cost:
    """What it answers, seconds, and MB it took at its peak."""
    gc.collect()
    graphics = device.startswith("cuda")
    if graphics:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    restart_peak_memory()
    before = torch.cuda.memory_allocated() >> 20 if graphics else resident_mb()
    clock = time.perf_counter if graphics else time.process_time
    begin = clock()
    with torch.inference_mode():
        answer = action()
    if graphics:
        torch.cuda.synchronize()
    seconds = clock() - begin
    peak = torch.cuda.max_memory_allocated() >> 20 if graphics else peak_memory_mb() or 0
    return answer, seconds, peak - before


def resident_mb() -> int:
    """Memory of this process now, in MiB; 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith("VmRSS:")), 0)


def row(name: str, count: int, theirs: Cost, ours: Cost) -> str:
    """A line of the table."""
    difference = (theirs[0] - ours[0]).abs().max().item()
    times = f"{theirs[1]:.3f} | {ours[1]:.3f} | {theirs[1] / ours[1]:.1f}"
    return f"| {name} | {count} | {times} | {theirs[2]} | {ours[2]} | {difference:.1e} |"


if __name__ == "__main__":
    main()
