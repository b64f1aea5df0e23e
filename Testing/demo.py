"""The demo: a hippocampus drawn on five slices, propagated through a real MR volume.

Runs `medai propagate` on the sample that comes with the module, by our network and by geometry alone, compares both
with the expert, and prints what copying and a plain linear mean of masks would have given. Writes into ``build/demo``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "Testing" / "benchmarks"))

from baselines import BASELINES  # noqa: E402

from MedAILib.cli.main import main as medai  # noqa: E402
from MedAILib.imageio import read_label_map  # noqa: E402
from Mem3DPropagateLib.drawings import filled_slices  # noqa: E402
from Mem3DPropagateLib.request import Axis  # noqa: E402
from Mem3DPropagateLib.shapes import dice  # noqa: E402

SAMPLE = REPOSITORY / "Mem3DPropagate" / "Resources" / "SampleData"
VOLUME = SAMPLE / "Mem3DPropagateHippocampus.nii.gz"
DRAWING = SAMPLE / "Mem3DPropagateHippocampusDrawing.seg.nrrd"
EXPERT = REPOSITORY / "Testing" / "data" / "hippocampus" / "expert.seg.nrrd"
OUT = REPOSITORY / "build" / "demo"


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    found = {}
    for method, title in (("network", "our network"), ("geometry", "our geometry")):
        status, dice_with_expert = propagate(method)
        if status:
            return status
        found[title] = dice_with_expert
    print("\nDice with the expert over the slices that were not drawn:")
    for name, value in {**found, **others()}.items():
        print(f"  {name:<18} {value:.3f}")
    print(f"\nPictures and run reports: {_short(OUT)}")
    return 0


def propagate(method: str) -> tuple[int, float]:
    """Exit status of the command with that method, and the Dice with the expert."""
    report = OUT / f"{method}.json"
    arguments = ["propagate", "--volume", VOLUME, "--segmentation", DRAWING, "--method", method]
    arguments += ["--out", OUT / f"{method}.seg.nrrd", "--reference-segmentation", EXPERT]
    arguments += ["--picture", OUT / f"{method}.png", "--report", report]
    print("$ medai " + " ".join(_short(argument) for argument in arguments), flush=True)
    status = medai([str(argument) for argument in arguments])
    if status:
        return status, 0.0
    segment = json.loads(report.read_text(encoding="utf-8"))["result"]["segments"][0]
    return 0, segment["volume_dice"]


def others() -> dict[str, float]:
    """Dice of copying the nearest drawn slice and of the linear mean of masks, on the same slices."""
    axis = Axis.J
    expert, drawing = (read_label_map(path) for path in (EXPERT, DRAWING))
    truth = np.moveaxis(expert.layers[0] > 0, axis.array_axis, 0)
    references = np.array(filled_slices(drawing.layers[0] > 0, axis))
    pixel_mm = tuple(s for a, s in enumerate(expert.geometry.spacing_kji_mm) if a != axis.array_axis)
    open_ = np.setdiff1d(np.arange(references[0], references[-1] + 1), references)
    named = {"copying": "copying", "linear": "linear mean"}
    return {
        title: dice(
            BASELINES[name](truth, references, pixel_mm, expert.geometry.spacing_kji_mm[axis.array_axis])[open_],
            truth[open_],
        )
        for name, title in named.items()
    }


def _short(argument: object) -> str:
    text = str(argument)
    return text.removeprefix(f"{REPOSITORY}/")


if __name__ == "__main__":
    sys.exit(main())
