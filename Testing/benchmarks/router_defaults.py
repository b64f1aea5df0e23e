"""Train the router's embedded models anew, by the public commands, and write them into the module.

    MEDAI_TEST_DATA=... python Testing/benchmarks/router_defaults.py --pneumonia pneumoniamnist.npz

``--pneumonia`` is the official file with its test part. Without it the shared data's file is taken, whose second part,
the official validation images, then is the test. Prints the commands with the seconds they took.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from MedAILib.models.config import CONFIG_FILE, FileRole, ModelConfig
from MedMNISTRouterLib.describe import SLOT

LIBRARY = Path(__file__).resolve().parents[2] / "MedMNISTRouter" / "MedMNISTRouterLib"
CATALOGUE = LIBRARY / "models.json"
MODELS = "models"
PNEUMONIA_ORIGIN = (
    "PneumoniaMNIST v2 (CC BY 4.0): frontal chest radiographs of children of one to five years, Guangzhou Women and "
    "Children's Medical Center. Kermany et al., Cell 172:1122, 2018; Yang et al., MedMNIST v2, Scientific Data 10:41, "
    "2023. Official parts; the file was put together from public copies, the order of the training images differs."
)
PATH_ORIGIN = (
    "540 images of the official test part of PathMNIST (CC BY 4.0), which therefore cannot be used to measure this "
    "model. Kather et al., PLoS Medicine 16:e1002730, 2019; Yang et al., MedMNIST v2, Scientific Data 10:41, 2023."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MEDAI_TEST_DATA", "../shared/data")))
    parser.add_argument("--pneumonia", type=Path, help="pneumoniamnist.npz with its test part")
    parser.add_argument("--only", nargs="*", default=["pneumoniamnist", "pathmnist", "router"], help="which of them")
    arguments = parser.parse_args()
    os.environ["MEDAI_TEST_DATA"] = str(arguments.data.resolve())
    images = arguments.data / "img2d"
    pneumonia = arguments.pneumonia or images / "pneumoniamnist_trainval.npz"
    expert = ["train", "expert", "--data"]
    commands = {
        "pneumoniamnist": [*expert, str(pneumonia), "--origin", PNEUMONIA_ORIGIN],
        "pathmnist": [*expert, str(images / "pathmnist_sub.npz"), "--epochs", "100", "--origin", PATH_ORIGIN],
        "router": ["train", "router", "--data", str(LIBRARY / MODELS / "router" / "plan.json")],
    }
    for slot in arguments.only:
        flag = [] if slot == "router" else ["--flag", slot]
        train(slot, [*commands[slot], *flag, "--no-keras", "--device", "cpu"])
    entries = [entry_of(LIBRARY / MODELS / slot) for slot in commands]
    catalogue = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    ids = {entry["id"] for entry in entries}
    catalogue["models"] = [*entries, *(item for item in catalogue["models"] if not is_embedded(item, ids))]
    CATALOGUE.write_text(json.dumps(catalogue, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def train(slot: str, command: list[str]) -> None:
    """Train in a folder of its own; then the model's files take the place of the former ones."""
    with TemporaryDirectory() as folder:
        out, before, started = Path(folder, slot), cpu_seconds(), time.monotonic()
        subprocess.run([sys.executable, "-m", "MedAILib.cli", *command, "--out", str(out)], check=True)
        wall = time.monotonic() - started
        print(
            f"medai {' '.join(command)}\n  {wall:.0f} s, {cpu_seconds() - before:.0f} s of the processor\n", flush=True
        )
        target = LIBRARY / MODELS / slot
        target.mkdir(parents=True, exist_ok=True)
        for name in (*(entry.path for entry in ModelConfig.load(out / CONFIG_FILE).files), CONFIG_FILE):
            shutil.copyfile(out / name, target / name)


def cpu_seconds() -> float:
    """Processor seconds of all ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def is_embedded(item: dict[str, Any], ids: set[str]) -> bool:
    """Whether an entry of the catalogue is of a model that comes with the module."""
    sources = [source for file in item["files"] for source in file.get("sources", [])]
    return item["id"] in ids or any("embedded" in source for source in sources)


def entry_of(folder: Path) -> dict[str, Any]:
    """The catalogue's entry of an embedded model."""
    config = ModelConfig.load(folder / CONFIG_FILE)
    own = config.to_dict()
    files = [*config.files]
    described = [
        {"path": entry.path, "role": entry.role.value, "size": entry.size, "sha256": entry.sha256,
         "sources": [{"embedded": f"{MODELS}/{folder.name}/{entry.path}"}]}
        for entry in files
    ]  # fmt: skip
    described.append(config_file(folder))
    slot = config.architecture.parameters[SLOT]
    return {
        "id": config.id,
        "title": config.title,
        "feature": "router",
        "task": "image classification",
        "summary": config.description,
        "family": config.family,
        "architecture": {"name": config.architecture.name, "parameters": {SLOT: slot}},
        "licence": own["licence"],
        "files": described,
        "inputs": own["inputs"],
        "heads": own["heads"],
        "provenance": {
            "trained_on": config.provenance.trained_on,
            "metrics": config.provenance.metrics,
            "date": config.provenance.date,
        },
        "requirements": dict(config.requirements),
        "intended_use": config.intended_use,
        "notes": [f"Its card: {MODELS}/{folder.name}/MODEL_CARD.md"],
    }


def config_file(folder: Path) -> dict[str, Any]:
    """The description itself, as a file of the model."""
    from MedAILib.models.store import hash_file

    path = folder / CONFIG_FILE
    source = {"embedded": f"{MODELS}/{folder.name}/{CONFIG_FILE}"}
    return {"path": CONFIG_FILE, "role": FileRole.OTHER.value, "size": path.stat().st_size,
            "sha256": hash_file(path), "sources": [source]}  # fmt: skip


if __name__ == "__main__":
    main()
