"""Lungs of a real CT against an expert's contours, and what finding them and a whole report cost.

    python Testing/benchmarks/ct_lungs.py [--data FOLDER]

Times are processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from time import process_time

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / folder) for folder in ("MedAIExtension", "CTReport")]

from CTReportLib.anatomy import find_anatomy  # noqa: E402
from CTReportLib.request import ReportRequest  # noqa: E402
from CTReportLib.task import ReportTask  # noqa: E402
from MedAILib.grids import resampled  # noqa: E402
from MedAILib.imageio import read_label_map, read_volume  # noqa: E402
from MedAILib.jobs.task import Context  # noqa: E402

CASE = "vol3d/chestct_lung1_001"
LEFT, RIGHT = 1, 2
"""The expert's labels."""


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def main() -> None:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = os.environ.get("MEDAI_TEST_DATA", str(REPOSITORY.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(usual))
    folder = parser.parse_args().data / CASE
    volume = read_volume(folder / "image.nii.gz")
    expert = read_label_map(folder / "mask.nii.gz").layers[0]
    started = process_time()
    anatomy = find_anatomy(volume)
    print(f"lungs found in {process_time() - started:.1f} s")
    ours = [
        resampled(anatomy.grid.volume_of(mask), volume.geometry, "nearest").array > 0
        for mask in (anatomy.lungs.left, anatomy.lungs.right)
    ]
    experts = [expert == LEFT, expert == RIGHT]
    for name, mine, theirs in zip(("left lung", "right lung"), ours, experts, strict=True):
        print(f"{name:12} Dice {dice(mine, theirs):.3f}")
    print(f"{'both':12} Dice {dice(ours[0] | ours[1], experts[0] | experts[1]):.3f}")
    started = process_time()
    ReportTask().run(ReportRequest(volume, modality="CT"), Context())
    print(f"a whole report without models: {process_time() - started:.1f} s")


if __name__ == "__main__":
    main()
