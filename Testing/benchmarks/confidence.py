"""Fits the confidence of propagated slices on training patients and shows what it is worth on others.

python Testing/benchmarks/confidence.py            # reliability table of the shipped calibration
python Testing/benchmarks/confidence.py --fit      # fit it anew and write it into the module
python Testing/benchmarks/confidence.py --network  # the same (also with --fit) for slices that our network answers
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from cases import DATA, DATA_SETS, SMALLEST_VOXELS, Case, DataSet, cases, cut_out
from scipy.optimize import minimize

from MedAILib.imageio import read_label_map
from Mem3DPropagateLib.confidence import (
    CALIBRATION_FILE,
    FEATURES,
    NETWORK_CALIBRATION_FILE,
    NETWORK_FEATURES,
    Calibration,
    load_calibration,
    slice_features,
    with_told,
)
from Mem3DPropagateLib.geometry import Variant, choose_variant
from Mem3DPropagateLib.nets.gapmodel import LoadedGapNet, load_gap_model
from Mem3DPropagateLib.request import Axis
from Mem3DPropagateLib.shapes import Stack, dice
from Mem3DPropagateLib.sources import GeometrySource, NetworkSource, Source
from Mem3DPropagateLib.train.painting import painted

REFERENCE_COUNTS = (1, 2, 3, 3, 4, 5, 5, 6, 7, 9)
ALL_AXES = (Axis.K, Axis.J, Axis.I)
RIDGE = 1e-3
MOST_CASES = 40
LARGEST_BRAIN_STRUCTURE = 60_000


def draws(case: Case, random: np.random.Generator, count: int) -> Iterable[Stack]:
    """Drawings as users make them: even or arbitrary slices, ends included or not."""
    length = case.last - case.first + 1
    for _ in range(count):
        wanted = int(random.choice(REFERENCE_COUNTS))
        if wanted + 2 > length:
            continue
        if wanted == 1:
            slices = np.array([case.first + int(length * random.uniform(0.3, 0.7))])
        elif random.random() < 0.5:
            slices = case.evenly(wanted)
        else:
            slices = np.sort(random.choice(np.arange(case.first, case.last + 1), wanted, replace=False))
        yield Stack(slices, case.truth[slices], case.pixel_mm, case.slice_mm)


@dataclass(frozen=True, eq=False)
class Observations:
    """Propagated slices: features (n, len(FEATURES)), true Dice (n,), and the data set (n,) of each."""

    features: np.ndarray
    scores: np.ndarray
    data_sets: np.ndarray


def observe(structures: Iterable[Case], seed: int, count: int, network: LoadedGapNet | None) -> Observations:
    """Propagate simulated drawings and compare with the truth, slice by slice."""
    random = np.random.default_rng(seed)
    features, scores, data_sets = [], [], []
    for case in structures:
        for stack in draws(case, random, count):
            choice = choose_variant(stack)
            source = _source(case, stack, choice.variant, network)
            first, last = source.span
            wanted = range(max(first, 0), min(last, len(case.truth) - 1) + 1)
            for index in wanted:
                if index in stack.slices:
                    continue
                answer = source.answer(index, wanted)
                mask = answer.level_mm >= 0
                if mask.any() and (answer.expected_dice is None) == (network is None):
                    known = slice_features(stack, index, mask, choice.mean_left_out_dice)
                    told = answer.expected_dice
                    features.append(known if told is None else with_told(known, told))
                    scores.append(dice(mask, case.truth[index]))
                    data_sets.append(case.data_set)
    return Observations(np.array(features), np.array(scores), np.array(data_sets))


def _source(case: Case, stack: Stack, variant: Variant, network: LoadedGapNet | None) -> Source:
    if network is None:
        return GeometrySource(stack, variant, None)
    within = range(len(case.truth))
    return NetworkSource(network, case.image, stack, variant, None, within, True, lambda: None)


def training_structures() -> Iterable[Case]:
    """Training patients under a licence that lets calibrations ship: hippocampi, sarcomas, vessels, brain maps."""
    for data_set in DATA_SETS:
        yield from cases(
            DataSet(data_set.name, data_set.chosen, ALL_AXES, data_set.label_by_label), "train", MOST_CASES
        )
    for path in sorted((DATA / "maps").glob("*.nii.gz"))[:2]:
        label_map = read_label_map(path)
        for info in label_map.segments:
            mask = label_map.layers[0] == info.label_value
            if SMALLEST_VOXELS < mask.sum() < LARGEST_BRAIN_STRUCTURE:
                name = f"{path.name}/{info.name}"
                image = painted(label_map.layers[0], info.label_value, np.random.default_rng(info.label_value))
                yield cut_out("brain maps", name, image, mask, label_map.geometry.spacing_kji_mm, Axis.K)


def fit(seen: Observations) -> Calibration:
    """Ridge-penalised logistic regression of the Dice; every data set has the same weight."""
    features, scores = seen.features, seen.scores
    names, where, counts = np.unique(seen.data_sets, return_inverse=True, return_counts=True)
    share = 1.0 / (len(names) * counts[where])
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    design = np.column_stack([np.ones(len(features)), (features - mean) / spread])

    def loss(weights: np.ndarray) -> float:
        expected = np.clip(1 / (1 + np.exp(-design @ weights)), 1e-6, 1 - 1e-6)
        likelihood = scores * np.log(expected) + (1 - scores) * np.log(1 - expected)
        return float(-(share * likelihood).sum() + RIDGE * (weights[1:] ** 2).sum())

    scaled = minimize(loss, np.zeros(design.shape[1])).x
    weights = scaled[1:] / spread
    return Calibration(float(scaled[0] - weights @ mean), tuple(float(w) for w in weights))


def write(calibration: Calibration, observations: int, network: LoadedGapNet | None) -> None:
    """Write the calibration into the module."""
    path, names = (CALIBRATION_FILE, FEATURES) if network is None else (NETWORK_CALIBRATION_FILE, NETWORK_FEATURES)
    method = "geometry" if network is None else f"{network.name} sha256:{network.sha256}"
    stored = {
        "what": f"Logistic curve from features of a propagated slice to its expected Dice (method: {method}).",
        "fitted_by": f"Testing/benchmarks/confidence.py --fit{' --network' if network else ''}",
        "fitted_on": "split 'train', redistribution 'ok': hippocampus and sarcoma MR, vessels CT, cord, brain maps",
        "slices": observations,
        "intercept": round(calibration.intercept, 5),
        "weights": {name: round(w, 5) for name, w in zip(names, calibration.weights, strict=True)},
    }
    path.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")


def reliability(expected: np.ndarray, true: np.ndarray) -> str:
    """Markdown table: slices by expected Dice, and what they truly reached."""
    rows = ["| expected Dice | slices | mean expected | mean true |", "|---|---|---|---|"]
    edges = np.array([0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0001])
    for low, high in itertools.pairwise(edges):
        chosen = (expected >= low) & (expected < high)
        if chosen.any():
            rows.append(
                f"| {low:.1f} to {min(high, 1):.1f} | {chosen.sum()} "
                f"| {expected[chosen].mean():.3f} | {true[chosen].mean():.3f} |"
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit anew and write the calibration into the module")
    parser.add_argument("--network", action="store_true", help="of our network's answers instead of geometry's")
    arguments = parser.parse_args()
    network = load_gap_model() if arguments.network else None
    if arguments.fit:
        seen = observe(training_structures(), 1, 3 if network is None else 1, network)
        write(fit(seen), len(seen.scores), network)
        load_calibration.cache_clear()
    calibration = load_calibration(CALIBRATION_FILE if network is None else NETWORK_CALIBRATION_FILE)
    print("Held-out patients (split 'dev'), per data set:\n")
    print(
        "| data set | slices | mean expected | mean true | correlation | mean abs. difference |\n"
        "|---|---|---|---|---|---|"
    )
    together: list[tuple[np.ndarray, np.ndarray]] = []
    for data_set in DATA_SETS:
        seen = observe(cases(data_set, "dev"), 2, 6, network)
        if not len(seen.scores):
            continue
        expected, true = np.array([calibration.expected_dice(row) for row in seen.features]), seen.scores
        together.append((expected, true))
        print(
            f"| {data_set.name} | {len(true)} | {expected.mean():.3f} | {true.mean():.3f} "
            f"| {np.corrcoef(expected, true)[0, 1]:.2f} | {np.abs(expected - true).mean():.3f} |"
        )
    expected, true = (np.concatenate(column) for column in zip(*together, strict=True))
    print(
        f"| all | {len(true)} | {expected.mean():.3f} | {true.mean():.3f} "
        f"| {np.corrcoef(expected, true)[0, 1]:.2f} | {np.abs(expected - true).mean():.3f} |\n"
    )
    print(reliability(expected, true))


if __name__ == "__main__":
    main()
