"""A model of the router on disk: a folder with its graph (ONNX), its description and the statistics of its features.

The graph takes one input, float32, with an open batch: (batch, channels, rows, columns) or (batch, rows, columns,
channels), already normalised. It has two outputs: the answers, one number per class (or one in all for a binary head
by sigmoid), and the penultimate features, (batch, features). ``heads[0].activation`` says what still has to be
applied to the answers; an ordinal model answers one number per grade.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from MedAILib.atomic import output_error, write_bytes
from MedAILib.errors import InvalidWeights
from MedAILib.models.config import CONFIG_FILE, FileEntry, FileRole, FileType, Gate, ModelConfig
from MedAILib.models.store import hash_file
from MedMNISTRouterLib.gate import MahalanobisGate

GRAPH_FILE = "model.onnx"
GATE_FILE = "gate.npz"
ANSWERS = "answers"
FEATURES = "features"
"""Names of the two outputs."""
FAMILY = "medmnist-router"
"""`ModelConfig.family` of routers and experts alike."""


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """A model that can be served.

    Attributes
    ----------
    folder : Path
    config : ModelConfig
        One input, one head.
    graph : Path
        The ONNX file.
    sha256 : str
        Of ``graph``.
    gate : MahalanobisGate, optional
        None: it cannot tell images of another kind.
    """

    folder: Path
    config: ModelConfig
    graph: Path
    sha256: str
    gate: MahalanobisGate | None = None


@dataclass(frozen=True, eq=False)
class FittedGate:
    """A gate and where it draws the line, see `MedAILib.models.config.Gate`."""

    gate: MahalanobisGate
    threshold: float
    acceptance: float
    least_confidence: float = 0.0


def write_model_folder(
    folder: Path,
    config: ModelConfig,
    graph: bytes,
    fitted: FittedGate | None = None,
    *,
    more_files: Sequence[Path] = (),
) -> ModelConfig:
    """Write a model; the description comes last, so that a folder with one is whole.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    config : ModelConfig
        ``files`` and ``gate`` are filled in here.
    graph : bytes
        The ONNX file.
    fitted : FittedGate, optional
    more_files : sequence of Path
        Files that already lie in the folder and belong to the model, such as the Keras file.

    Returns
    -------
    ModelConfig
        As written.

    Raises
    ------
    OutputError
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    write_bytes(folder / GRAPH_FILE, graph)
    entries = [_entry(folder / GRAPH_FILE, FileRole.WEIGHTS, FileType.ONNX)]
    entries += [_entry(path, FileRole.OTHER, _TYPES.get(path.suffix, FileType.OTHER)) for path in more_files]
    config = replace(config, files=tuple(entries), gate=None)
    if fitted is not None:
        return write_gate(folder, config, fitted)
    (folder / GATE_FILE).unlink(missing_ok=True)
    config.save(folder / CONFIG_FILE)
    return config


def write_gate(folder: Path, config: ModelConfig, fitted: FittedGate) -> ModelConfig:
    """Give a model that is on disk a gate, or another one; answers the description as written."""
    fitted.gate.save(folder / GATE_FILE)
    others = tuple(entry for entry in config.files if entry.path != GATE_FILE)
    gate = Gate(GATE_FILE, FEATURES, fitted.threshold, fitted.acceptance, fitted.least_confidence)
    config = replace(config, gate=gate, files=(*others, _entry(folder / GATE_FILE, FileRole.OTHER, FileType.OTHER)))
    config.save(folder / CONFIG_FILE)
    return config


def read_model_folder(folder: Path, *, check_hashes: bool = True) -> ModelFolder:
    """Read a model's description and gate; the graph itself is not opened.

    Raises
    ------
    FileMissing
        No description, or a file it names.
    InvalidWeights
        The description is not valid or not of a model of the router, or a file is not the one described.
    """
    config = ModelConfig.load(folder / CONFIG_FILE)
    graphs = [entry for entry in config.files if entry.format is FileType.ONNX]
    if config.family != FAMILY or len(graphs) != 1 or len(config.inputs) != 1 or len(config.heads) != 1:
        raise InvalidWeights(
            f"'{folder}' holds no model of the router.",
            why=f"Its description must have the family '{FAMILY}', one ONNX file, one input and one head.",
        )
    if check_hashes:
        for entry in config.files:
            _check(folder, entry)
    gate = MahalanobisGate.load(folder / config.gate.file) if config.gate is not None else None
    return ModelFolder(folder, config, folder / graphs[0].path, graphs[0].sha256, gate)


_TYPES = {".keras": FileType.KERAS, ".onnx": FileType.ONNX}


def _entry(path: Path, role: FileRole, kind: FileType) -> FileEntry:
    return FileEntry(path.name, role, kind, path.stat().st_size, hash_file(path))


def _check(folder: Path, entry: FileEntry) -> None:
    found = hash_file(folder / entry.path)
    if found != entry.sha256:
        raise InvalidWeights(
            f"'{folder / entry.path}' is not the file that its description names.",
            why=f"Its SHA-256 is {found}, not {entry.sha256}.",
            todo="Get the model again, or fit its gate again where that was changed by hand.",
        )
