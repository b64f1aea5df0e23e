"""Puts a trained propagation network into the module: weights, description, and its entry in the catalogue.

medai train propagate --data shared/data/manifest.json --out trained --steps 5000 --half-precision
python Testing/benchmarks/ship_network.py trained      # then write what was measured into its README.md
python Testing/benchmarks/confidence.py --network --fit
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from MedAILib.models.config import CONFIG_FILE, Licence, ModelConfig
from MedAILib.models.tensors import file_sha256
from Mem3DPropagateLib.nets.gapmodel import EMBEDDED, MODEL_ID, load_gap_model, save_gap_model

LIBRARY = EMBEDDED.parents[3]
CATALOGUE = LIBRARY / "models.json"
LICENCE = Licence(spdx="CC-BY-SA-4.0", url="https://creativecommons.org/licenses/by-sa/4.0/")
"""Of the training data with the strictest terms that allow passing weights on."""
CARD = "README.md"


def ship(trained: Path) -> None:
    """Copy the network of a training folder, under the licence its data ask for."""
    config = ModelConfig.load(trained / CONFIG_FILE)
    network = load_gap_model(trained / EMBEDDED.name).network
    provenance = config.provenance
    parameters = config.get_model_params()
    save_gap_model(network, EMBEDDED, parameters, provenance.training, provenance.trained_on, LICENCE)
    EMBEDDED.chmod(0o644)


def entry() -> dict[str, object]:
    """The catalogue's entry of the network as it lies in the module."""
    config = ModelConfig.load(EMBEDDED.parent / CONFIG_FILE)
    files = [
        {
            "path": path.name,
            "role": "weights" if path == EMBEDDED else "other",
            "size": path.stat().st_size,
            "sha256": file_sha256(path),
            "sources": [{"embedded": path.relative_to(LIBRARY).as_posix()}],
        }
        for path in (EMBEDDED, EMBEDDED.parent / CARD, EMBEDDED.parent / CONFIG_FILE)
    ]
    return {
        "id": MODEL_ID,
        "title": config.title,
        "feature": "mem3d",
        "task": "segmentation propagation",
        "summary": "Corrects what geometry foretells of slices between and beyond drawn ones by what the image shows.",
        "family": config.family,
        "architecture": {"name": config.architecture.name, "parameters": dict(config.architecture.parameters)},
        "licence": {"spdx": LICENCE.spdx, "url": LICENCE.url, "non_commercial": False, "must_be_accepted": False},
        "files": files,
        "provenance": {"trained_on": config.provenance.trained_on, "date": config.provenance.date},
        "requirements": dict(config.requirements),
        "intended_use": config.intended_use,
        "notes": [f"Its card: {(EMBEDDED.parent / CARD).relative_to(LIBRARY).as_posix()}"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", nargs="?", type=Path, help="folder of a training; default: renew the catalogue only")
    trained = parser.parse_args().trained
    if trained is not None:
        ship(trained)
    catalogue = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    others = [model for model in catalogue["models"] if model["id"] != MODEL_ID]
    catalogue["models"] = [entry(), *others]
    CATALOGUE.write_text(json.dumps(catalogue, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
