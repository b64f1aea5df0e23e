"""An encoder's features, kept on disk by content: the same CT is encoded once, whatever asks for it. Needs torch.

Entries are named by a hash of the prepared CT, the encoder's weights and what is done with both; they hold features
only, no voxels and no names. An entry that is damaged is made again. Past `MOST_BYTES` those used longest ago go.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import torch

from CTReportLib.nets.encoders import Encoder
from CTReportLib.nets.features import Features
from CTReportLib.preprocess import Prepared
from MedAILib.atomic import output_error, replacing
from MedAILib.errors import InvalidWeights, OutputError, UnreadableFile
from MedAILib.models import torchmodel
from MedAILib.models.home import default_home
from MedAILib.models.tensors import inspect_tensors

VERSION = 1
"""Changes with anything in this package that changes a feature."""
MOST_BYTES = 2 << 30
SUFFIX = ".safetensors"
_DIGEST, _GRID = "digest", "grid"
logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """``cache/ct-features`` in the folder of models; users may delete it."""
    return default_home() / "cache" / "ct-features"


class FeatureCache:
    """Features in a folder.

    Parameters
    ----------
    folder : Path, optional
        Default: `default_folder`. It is made when the first entry is.
    most_bytes : int
        Of all entries together.
    """

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        self._folder = default_folder() if folder is None else folder
        self._most_bytes = most_bytes

    def features(self, encoder: Encoder, prepared: Prepared, make: Callable[[], Features], extra: str = "") -> Features:
        """The kept features, or those that ``make`` answers, which are then kept.

        Parameters
        ----------
        encoder : Encoder
        prepared : Prepared
        make : callable
        extra : str
            What else the features depend on, such as the regions that the encoder was given.

        A folder that cannot be written is told in the log; the features are answered all the same.
        """
        path = self._folder / f"{feature_key(encoder, prepared, extra)}{SUFFIX}"
        found = self._read(path)
        if found is not None:
            return _on(found, encoder.device)
        features = make()
        try:
            self._write(path, features)
            self._make_room(path)
        except OutputError as error:
            logger.warning("Features are not kept: %s", error.text)
        return features

    def _read(self, path: Path) -> Features | None:
        if not path.is_file():
            return None
        try:
            weights = inspect_tensors(path)
            state = torchmodel.read_weights(weights)[0]
            metadata = _metadata(path)
            if metadata[_DIGEST] != _digest(state):
                raise ValueError("its values are not those that were written")
            features = Features(grid=tuple(json.loads(metadata[_GRID])), **state)
            os.utime(path)
        except (InvalidWeights, UnreadableFile, OSError, KeyError, TypeError, ValueError) as error:
            logger.warning("The kept features '%s' are damaged and are made again: %s", path.name, error)
            return None
        return features

    def _write(self, path: Path, features: Features) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self._folder, error) from error
        state = _state(features)
        metadata = {_DIGEST: _digest(state), _GRID: json.dumps(list(features.grid))}
        with replacing(path) as partial:
            torchmodel.write_safetensors(partial, state, metadata)

    def _make_room(self, newest: Path) -> None:
        """Remove the entries used longest ago, so that the rest fits; the newest stays."""
        entries = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process made room
                continue
            entries.append((path != newest, -stat.st_mtime_ns, stat.st_size, path))
        total = 0
        for _, _, size, path in sorted(entries):
            total += size
            if total > self._most_bytes and path != newest:
                path.unlink(missing_ok=True)


def feature_key(encoder: Encoder, prepared: Prepared, extra: str = "") -> str:
    """64 hexadecimal digits: of the prepared CT, the encoder's weights and layout, and this code's version."""
    parts = (VERSION, prepared.key, encoder.sha256, encoder.architecture, encoder.axes, encoder.layout.windows, extra)
    return hashlib.sha256(repr(parts).encode("utf-8")).hexdigest()


def _state(features: Features) -> dict[str, torch.Tensor]:
    values = {spec.name: getattr(features, spec.name) for spec in fields(Features)}
    return {name: value.cpu().contiguous() for name, value in values.items() if isinstance(value, torch.Tensor)}


def _on(features: Features, device: torch.device) -> Features:
    return Features(grid=features.grid, **{name: value.to(device) for name, value in _state(features).items()})


def _digest(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)} {state[name].dtype}".encode())
        digest.update(memoryview(state[name].contiguous().numpy()).cast("B"))
    return digest.hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return dict(file.metadata() or {})
