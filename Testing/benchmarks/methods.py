"""Our network against geometry and copying, through the same task that users run.

    python Testing/benchmarks/methods.py                  # tables on held-out patients (split dev)
    python Testing/benchmarks/methods.py --gaps           # by the number of slices from drawn slice to drawn slice
    python Testing/benchmarks/methods.py --advice         # six rounds of simulated correction

Protocol: N reference slices evenly spaced over the structure, its first and last slice among them; with N = 1 the
middle slice, propagated outwards until the structure vanishes. Volume Dice over all slices of the case that are not
references, those beyond the structure's ends included; copying is told the structure's true extent, the others are
not. ``beyond``: share of the five slices beyond each end that are left non-empty.
How expected and true Dice agree: ``confidence.py --network``.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from baselines import BASELINES
from cases import DATA_SETS, Case, cases

from MedAILib.jobs.task import Context
from MedAILib.volume import Volume
from Mem3DPropagateLib.evaluate import placed
from Mem3DPropagateLib.request import Axis, Drawing, Method, PropagatedSegment, PropagateRequest
from Mem3DPropagateLib.shapes import dice
from Mem3DPropagateLib.task import PropagateTask

REFERENCE_COUNTS = (1, 3, 5, 9)
METHODS = (Method.GEOMETRY, Method.NETWORK, Method.AUTO)
BEYOND = 5
GAPS = ((2, 3), (4, 6), (7, 10), (11, 16), (17, 24), (25, 99))
ROUNDS = 6


@dataclass(frozen=True, eq=False)
class Run:
    """One propagation of a case: masks, shape (slices, rows, columns), and what else the task answers."""

    result: np.ndarray
    segment: PropagatedSegment


def propagate(case: Case, references: Sequence[int], method: Method, extend: int | None) -> Run:
    """Propagate a case's true masks on some slices through its image."""
    spacing_mm = (case.slice_mm, *case.pixel_mm)
    volume = Volume(case.image, np.diag([*reversed(spacing_mm), 1.0]))
    slices = tuple(int(index) for index in references)
    drawing = Drawing("case", "case", slices, case.truth[list(slices)])
    request = PropagateRequest(volume, Axis.K, (drawing,), extend=extend, method=method)
    segment = PropagateTask().run(request, Context()).segments[0]
    return Run(placed(segment, case.truth.shape), segment)


def others(result: np.ndarray, case: Case, references: Sequence[int]) -> float:
    """Dice over all slices that are not references."""
    open_ = np.setdiff1d(np.arange(len(case.truth)), references)
    return dice(result[open_], case.truth[open_])


def copied(case: Case, references: np.ndarray) -> np.ndarray:
    """The nearest reference on every slice that truly holds the structure."""
    if len(references) > 1:
        return BASELINES["copying"](case.truth, references, case.pixel_mm, case.slice_mm)
    result = np.zeros_like(case.truth)
    result[case.first : case.last + 1] = case.truth[references[0]]
    return result


def beyond(result: np.ndarray, case: Case) -> float:
    """Share of the slices just beyond the ends that hold something."""
    around = [*range(case.first - BEYOND, case.first), *range(case.last + 1, case.last + 1 + BEYOND)]
    there = [index for index in around if 0 <= index < len(result)]
    return float(np.mean([result[index].any() for index in there])) if there else float("nan")


def structures(split: str, most: int | None) -> list[tuple[str, list[Case]]]:
    """Data sets with the structures that are long enough for nine references."""
    found = []
    for data_set in DATA_SETS:
        long = [case for case in cases(data_set, split) if case.last - case.first >= max(REFERENCE_COUNTS) + 1]
        if long:
            found.append((data_set.name, long[:most]))
    return found


def table(split: str, most: int | None) -> None:
    """Dice by data set and number of references."""
    print(f"| data set ({split}) | structures | N | copying | geometry | network | auto | beyond |")
    print("|---|---|---|---|---|---|---|---|")
    means: dict[int, list[list[float]]] = defaultdict(list)
    for (name, found), count in itertools.product(structures(split, most), REFERENCE_COUNTS):
        scores, past = defaultdict(list), []
        for case in found:
            references = np.array([(case.first + case.last) // 2]) if count == 1 else case.evenly(count)
            if not case.truth[references].any():
                continue
            scores["copying"].append(others(copied(case, references), case, references))
            for method in METHODS:
                run = propagate(case, references, method, None)
                scores[method.value].append(others(run.result, case, references))
                if method is Method.AUTO:
                    past.append(beyond(run.result, case))
        row = [float(np.mean(scores[key])) for key in ("copying", *(m.value for m in METHODS))]
        row.append(float(np.nanmean(past)) if not np.isnan(past).all() else float("nan"))
        means[count].append(row)
        print(f"| {name} | {len(scores['auto'])} | {count} | " + " | ".join(f"{v:.3f}" for v in row) + " |", flush=True)
    for count, rows in means.items():
        mean = np.nanmean(np.array(rows), axis=0)
        print(f"| **mean of the data sets** | | {count} | " + " | ".join(f"**{v:.3f}**" for v in mean) + " |")


def by_gap(split: str, most: int | None) -> None:
    """Mean Dice of the slices in gaps of some length."""
    scores: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for (_, found), count in itertools.product(structures(split, most), (3, 5, 9, 17)):
        for case in found:
            references = case.evenly(count)
            runs = [propagate(case, references, method, 0).result for method in (Method.GEOMETRY, Method.NETWORK)]
            for first, last in itertools.pairwise(references):
                open_ = slice(first + 1, last)
                kind = next((gap for gap in GAPS if gap[0] <= last - first <= gap[1]), None)
                if kind is not None:
                    values = [dice(result[open_], case.truth[open_]) for result in runs]
                    scores[kind].append((values[0], values[1]))
    print(f"| slices from drawn to drawn ({split}) | gaps | geometry | network | difference |\n|---|---|---|---|---|")
    for kind in GAPS:
        if scores[kind]:
            by_geometry, by_network = np.mean(scores[kind], axis=0)
            print(
                f"| {kind[0]} to {kind[1]} | {len(scores[kind])} | {by_geometry:.3f} | {by_network:.3f} "
                f"| {by_network - by_geometry:+.3f} |"
            )


def advised(split: str, most: int | None) -> None:
    """Dice after rounds of correction: the slice we advise, against the middle of the largest gap."""
    scores: dict[str, list[list[float]]] = {"advised slice": [], "largest gap": []}
    for _, found in structures(split, most):
        for case, rule in itertools.product(found, scores):
            references = [(case.first + case.last) // 2]
            line = []
            for _ in range(ROUNDS + 1):
                run = propagate(case, references, Method.AUTO, None)
                line.append(dice(run.result, case.truth))
                chosen = run.segment.advice.slice if rule == "advised slice" else _largest_gap(references, case)
                if chosen is not None:
                    references = sorted({*references, chosen})
            scores[rule].append(line)
    print(f"| next slice ({split}) | " + " | ".join(f"after {n}" for n in range(ROUNDS + 1)) + " |")
    print("|---" * (ROUNDS + 2) + "|")
    for rule, lines in scores.items():
        print(f"| {rule} | " + " | ".join(f"{value:.3f}" for value in np.mean(lines, axis=0)) + " |")


def _largest_gap(references: Sequence[int], case: Case) -> int:
    """Middle of the largest stretch without a reference, the structure's true ends being known to the user."""
    ends = [case.first - 1, *references, case.last + 1]
    first, last = max(itertools.pairwise(ends), key=lambda gap: gap[1] - gap[0])
    return (first + last) // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("dev", "train"), default="dev")
    parser.add_argument("--most", type=int, help="structures per data set at most")
    parser.add_argument("--gaps", action="store_true")
    parser.add_argument("--advice", action="store_true")
    arguments = parser.parse_args()
    kind = by_gap if arguments.gaps else advised if arguments.advice else table
    kind(arguments.split, arguments.most)


if __name__ == "__main__":
    main()
