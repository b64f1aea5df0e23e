"""The demo: a hippocampus drawn on five slices, propagated through a real MR volume.

Runs `medai propagate` on the sample that comes with the module, compares with the expert, and prints what
copying and a plain linear mean of masks would have given. Writes into ``build/demo``.
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
    out, picture, report = OUT / "hippocampus.seg.nrrd", OUT / "hippocampus.png", OUT / "run_report.json"
    arguments = ["propagate", "--volume", VOLUME, "--segmentation", DRAWING, "--out", out]
    arguments += ["--reference-segmentation", EXPERT, "--picture", picture, "--report", report]
    print("$ medai " + " ".join(_short(argument) for argument in arguments), flush=True)
    status = medai([str(argument) for argument in arguments])
    if status:
        return status
    segment = json.loads(report.read_text(encoding="utf-8"))["result"]["segments"][0]
    print("\nDice with the expert over the slices that were not drawn:")
    print(f"  ours               {segment['volume_dice']:.3f}")
    for name, value in others().items():
        print(f"  {name:<18} {value:.3f}")
    print(f"\nPicture: {_short(picture)}\nRun report: {_short(report)}")
    return 0


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
