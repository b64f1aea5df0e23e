"""Whether images of unknown kinds are told: the embedded router, and routers that were trained without a modality.

    MEDAI_TEST_DATA=... python Testing/benchmarks/router_ood.py                 # the embedded models
    MEDAI_TEST_DATA=... python Testing/benchmarks/router_ood.py --leave-out     # also six trainings, some minutes

Known images are the test images of the classes that the router was trained on. ``AUROC``: how often an unknown image
is further away than a known one; pictures that the checks before the model turn away (blank, noise, too small) count
as infinitely far, as in use. ``accepted``: within the threshold that 95 % of the validation images are within.
``softmax``: the AUROC of one minus the router's confidence, which is what is usually looked at instead.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import router_outsiders as outsiders

from MedAILib.jobs.task import Context
from MedAILib.models.config import CONFIG_FILE
from MedAILib.multitask.train.measures import auc
from MedMNISTRouterLib.answers import probabilities
from MedMNISTRouterLib.checks import problem_with
from MedMNISTRouterLib.modelfolder import ModelFolder, read_model_folder
from MedMNISTRouterLib.prepare import prepared
from MedMNISTRouterLib.request import PlainImage
from MedMNISTRouterLib.session import OnnxModel
from MedMNISTRouterLib.train.npzfile import read_npz
from MedMNISTRouterLib.train.plan import read_plan
from MedMNISTRouterLib.train.request import Kind, TrainRequest
from MedMNISTRouterLib.train.task import TrainTask

LIBRARY = Path(__file__).resolve().parents[2] / "MedMNISTRouter" / "MedMNISTRouterLib"
PLAN = LIBRARY / "models" / "router" / "plan.json"
RADIOGRAPHS = ("chest radiograph", "chest radiograph of a child")
"""Left out together: one is no unknown modality to a router that knows the other."""
TEST_IMAGES = 100
KNOWN = "(known images)"
_BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MEDAI_TEST_DATA", "../shared/data")))
    parser.add_argument("--leave-out", action="store_true", help="train routers without one modality each")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep these routers there, and use those that are")
    parser.add_argument("--epochs", type=int, help="of these trainings (default: as in use)")
    parser.add_argument("--expert", action="store_true", help="also the gates of the embedded experts")
    parser.add_argument("--models", type=Path, default=LIBRARY / "models", help="default: the embedded ones")
    arguments = parser.parse_args()
    os.environ["MEDAI_TEST_DATA"] = str(arguments.data.resolve())
    strangers = all_strangers(arguments.data)
    known = test_images_by_class()
    print("## The embedded router\n")
    print_table(
        judged(arguments.models / "router", [image for images in known.values() for image in images], strangers)
    )
    if arguments.expert:
        for flag, name in (("pneumoniamnist", RADIOGRAPHS[1]), ("pathmnist", "stained tissue section of the colon")):
            print(f"\n## The embedded expert for {flag}\n")
            others = {f"known: {other}": images for other, images in known.items() if other != name}
            print_table(judged(arguments.models / flag, known[name], {**others, **strangers}))
    if arguments.leave_out:
        leave_one_out(known, strangers, arguments.epochs, arguments.keep)


def leave_one_out(
    known: Mapping[str, list[np.ndarray]], strangers: Mapping[str, list], epochs: int | None, keep: Path | None
) -> None:
    """Train a router without each of the six modalities; print how it takes their images and the strangers."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for name in [name for name in known if "colon" not in name and "child" not in name]:
        left_out = set(RADIOGRAPHS) if name == RADIOGRAPHS[0] else {name}
        with TemporaryDirectory() as folder:
            out = (keep or Path(folder)) / f"without {name}"
            if not (out / CONFIG_FILE).is_file():
                plan = without(left_out, Path(folder))
                TrainTask().run(TrainRequest(Kind.ROUTER, (plan,), out, epochs=epochs, keras=False), Context())
            inside = [image for other, images in known.items() if other not in left_out for image in images]
            unknown = {f"held out: {item}": known[item] for item in sorted(left_out)}
            for row, values in judged(out, inside, {**unknown, **strangers}).items():
                rows.setdefault(row, []).append(values)
        print(f"  trained without {', '.join(sorted(left_out))}", file=sys.stderr, flush=True)
    print("\n## Six routers, each without a modality: mean [worst AUROC]\n")
    print_table(
        {row: tuple(np.mean(values, axis=0)) for row, values in rows.items()},
        {row: min(value[0] for value in values) for row, values in rows.items()},
    )


def without(left_out: set[str], folder: Path) -> Path:
    """The embedded router's plan without some classes, as a file."""
    plan = json.loads(PLAN.read_text(encoding="utf-8"))
    plan["classes"] = [item for item in plan["classes"] if item["name"] not in left_out]
    path = folder / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    return path


def all_strangers(data: Path) -> dict[str, list[np.ndarray]]:
    """Images of no class, by kind."""
    photographs = outsiders.photographs()
    found = {
        "noise": outsiders.noise(),
        "blank": outsiders.blanks(),
        "blood smears": outsiders.blood_cells(data),
        "photographs": photographs,
        "photographs in grey": outsiders.grey(photographs),
    }
    return {name: images for name, images in found.items() if images}


def test_images_by_class() -> dict[str, list[np.ndarray]]:
    """Test images of the embedded router's classes, at the size they have in their files."""
    return {
        item.name: [
            image
            for source in item.sources
            for part in [read_npz(source.file).parts["test"]]
            for image in part.images[np.isin(part.labels, source.labels) if source.labels else slice(None)][
                :TEST_IMAGES
            ]
        ]
        for item in read_plan(PLAN).classes
    }


def judged(
    folder: Path, known: Sequence[np.ndarray], strangers: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, tuple[float, ...]]:
    """By kind: AUROC in use, of the gate alone; share accepted in use, by the gate alone; AUROC of the confidence."""
    model = read_model_folder(folder)
    session = OnnxModel(model.graph)
    assert model.config.gate is not None
    threshold = model.config.gate.threshold
    inside, sure = distances(model, session, known)
    in_use = with_checks(known, inside)
    shares = tuple(float((found <= threshold).mean()) for found in (in_use, inside))
    rows = {KNOWN: (0.5, 0.5, *shares, 0.5)}
    for name, images in strangers.items():
        outside, sure_too = distances(model, session, images)
        in_use_too = with_checks(images, outside)
        rows[name] = (
            separation(in_use, in_use_too),
            separation(inside, outside),
            float((in_use_too <= threshold).mean()),
            float((outside <= threshold).mean()),
            separation(-sure, -sure_too),
        )
    return rows


def separation(inside: np.ndarray, outside: np.ndarray) -> float:
    """AUROC: how often a stranger has the larger number."""
    is_stranger = np.arange(len(inside) + len(outside)) >= len(inside)
    return auc(np.concatenate([inside, outside]), is_stranger) or 0.0


def distances(model: ModelFolder, session: OnnxModel, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Distances, and confidences of the most probable class."""
    assert model.gate is not None
    wanted, head = model.config.inputs[0], model.config.heads[0]
    found, sure = [], []
    for start in range(0, len(images), _BATCH):
        outputs = session.run(np.stack([prepared(image, wanted) for image in images[start : start + _BATCH]]))
        assert outputs.features is not None
        found.append(model.gate.distances(outputs.features))
        sure.append(probabilities(head, outputs.answers).max(axis=1))
    return np.concatenate(found), np.concatenate(sure)


def with_checks(images: Sequence[np.ndarray], found: np.ndarray) -> np.ndarray:
    """The distances, infinite where a check of the picture turns it away before the model."""
    return np.where([bool(problem_with(PlainImage("", image), image)) for image in images], np.inf, found)


def print_table(rows: Mapping[str, tuple[float, ...]], worst: Mapping[str, float] | None = None) -> None:
    print("| images | AUROC | of the gate alone | accepted | by the gate alone | AUROC of softmax |")
    print("|---|---|---|---|---|---|")
    for name, (area, of_gate, in_all, by_gate, softmax) in rows.items():
        low = f" [{worst[name]:.3f}]" if worst else ""
        areas = [f"{area:.3f}{low}", f"{of_gate:.3f}", f"{softmax:.3f}"] if name != KNOWN else ["-"] * 3
        print(f"| {name} | {areas[0]} | {areas[1]} | {100 * in_all:.1f} % | {100 * by_gate:.1f} % | {areas[2]} |")


if __name__ == "__main__":
    main()
