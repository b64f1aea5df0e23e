"""Small catalogues and managers for tests: real files, a store in a temporary folder, servers on this machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import weight_files
from weight_servers import loopback

from MedAILib.models.catalogue import Catalogue
from MedAILib.models.manager import Manager

WEIGHTS = weight_files.safetensors_bytes({"origin": "a test"})
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def file(path: str = "model.safetensors", **changes: Any) -> dict[str, Any]:
    """A file of an entry, its hash and size known."""
    known = {"path": path, "role": "weights", "size": len(WEIGHTS), "sha256": SHA256}
    return {key: value for key, value in (known | changes).items() if value is not None}


def entry(model_id: str = "trial", *files: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A catalogue entry, as JSON."""
    made = {
        "id": model_id,
        "title": f"A model called {model_id}",
        "feature": "mem3d",
        "task": "segmentation",
        "summary": "Finds kidneys in CT.",
        "licence": {"spdx": "MIT", "name": "MIT License"},
        "architecture": {"name": "a-net", "parameters": {"width": 4}},
        "files": list(files) or [file()],
        "intended_use": "Research only.",
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


def write(path: Path, *entries: dict[str, Any]) -> Path:
    """A catalogue file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, "models": list(entries)}), encoding="utf-8")
    return path


def manager(folder: Path, *entries: dict[str, Any], shared: tuple[Path, ...] = (), **network: Any) -> Manager:
    """A manager with a store below a folder and a catalogue of its own."""
    catalogue = Catalogue([write(folder / "catalogue here.json", *(entries or (entry(),)))])
    return Manager(folder / "Größe store", shared=shared, catalogue=catalogue, network=loopback(**network))
