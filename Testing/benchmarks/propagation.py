"""Dice of our geometric propagation against copying and other interpolations, on real structures.

    python Testing/benchmarks/propagation.py                  # held-out patients, the README's table
    python Testing/benchmarks/propagation.py --split train    # the others

Protocol: N reference slices evenly spaced over the structure, its first and last slice among them; volume
Dice over the other slices between them, mean over structures. ``gap`` is the mean number of slices from one
reference to the next; ``worst`` the smallest difference of one structure's Dice to the linear mean's.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from baselines import BASELINES
from cases import DATA_SETS, Case, cases

from Mem3DPropagateLib.geometry import FittedVariant, choose_variant
from Mem3DPropagateLib.shapes import Stack, dice

REFERENCE_COUNTS = (3, 5, 9)


def ours(case: Case, references: np.ndarray) -> tuple[np.ndarray, str]:
    """Our propagation between the references, and the variant it chose."""
    stack = Stack(references, case.truth[references], case.pixel_mm, case.slice_mm)
    choice = choose_variant(stack)
    fitted = FittedVariant(choice.variant, stack)
    result = np.zeros(case.truth.shape, bool)
    for index in range(int(references[0]), int(references[-1]) + 1):
        result[index] = fitted.level(index) >= 0
    return result, choice.variant.name


def others(result: np.ndarray, case: Case, references: np.ndarray) -> float:
    """Dice over the slices between the references that are not references."""
    open_ = np.setdiff1d(np.arange(references[0], references[-1] + 1), references)
    return dice(result[open_], case.truth[open_])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("dev", "train"), default="dev")
    split = parser.parse_args().split
    print(
        f"| data set ({split}) | structures | N | gap | " + " | ".join(BASELINES) + " | **ours** | worst | variants |"
    )
    print("|---" * (len(BASELINES) + 7) + "|")
    for data_set in DATA_SETS:
        structures = [case for case in cases(data_set, split) if case.last - case.first >= max(REFERENCE_COUNTS) + 1]
        for count in REFERENCE_COUNTS if structures else ():
            print(row(data_set.name, structures, count), flush=True)


def row(name: str, structures: list[Case], count: int) -> str:
    """One line of the table."""
    scores: dict[str, list[float]] = {key: [] for key in (*BASELINES, "ours")}
    gaps, variants = [], Counter[str]()
    for case in structures:
        references = case.evenly(count)
        gaps.append((references[-1] - references[0]) / (len(references) - 1))
        for key, baseline in BASELINES.items():
            scores[key].append(others(baseline(case.truth, references, case.pixel_mm, case.slice_mm), case, references))
        result, variant = ours(case, references)
        scores["ours"].append(others(result, case, references))
        variants[variant] += 1
    worst = min(np.subtract(scores["ours"], scores["linear"]))
    means = {key: float(np.mean(values)) for key, values in scores.items()}
    return (
        f"| {name} | {len(structures)} | {count} | {np.mean(gaps):.1f} | "
        + " | ".join(f"{means[key]:.3f}" for key in BASELINES)
        + f" | **{means['ours']:.3f}** | {worst:+.3f} | "
        + ", ".join(f"{key} {n}" for key, n in variants.most_common())
        + " |"
    )


if __name__ == "__main__":
    main()
