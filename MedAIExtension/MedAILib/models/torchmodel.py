"""State dicts in and out of weight files. Needs torch, which is imported when a function is called."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.errors import InputError, InvalidWeights, MissingPackage, OutputError
from MedAILib.filekind import open_error
from MedAILib.models.config import FileType
from MedAILib.models.inspection import inspect
from MedAILib.models.tensornames import find_tensors
from MedAILib.models.tensors import WeightFile

if TYPE_CHECKING:
    from torch import Tensor, nn

TRAINING_KEY = "medai_training"
"""In the metadata of a safetensors file: epoch and metrics as JSON."""

_SAFE_TORCH = (2, 10)
"""Earlier versions could be made to run code or corrupt memory by a pickle (CVE-2025-32434, CVE-2026-24747)."""


def import_torch() -> Any:
    """The module torch, or `MissingPackage`."""
    try:
        import torch
    except ImportError as error:
        raise MissingPackage(
            "Networks need PyTorch, which cannot be imported.",
            why=f"{error}.",
            todo="In Slicer install the extension PyTorch; elsewhere: pip install torch",
        ) from error
    return torch


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network on the CPU, each with memory of its own.

    Raises
    ------
    InputError
        Where the state dict holds something else than tensors.
    """
    state: dict[str, Tensor] = {}
    places: set[int] = set()
    torch = import_torch()
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"The network's state '{name}' is a {type(value).__name__}, not a tensor; it cannot be saved safely.",
                todo="Keep such values in the description.",
            )
        tensor = value.detach().to("cpu").contiguous()
        place = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        state[name] = tensor if whole and place not in places else tensor.clone()
        places.add(place)
    return state


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts into a safetensors file; `OutputError` where the disk does not take it."""
    from safetensors import SafetensorError

    try:
        _safetensors().save_file(dict(state), str(path), metadata={"format": "pt", **metadata})
    except SafetensorError as error:
        raise _not_written(path, error) from error


def write_torch(path: Path, content: Any) -> None:
    """Write tensors and plain values into a PyTorch file that ``weights_only=True`` can read.

    Raises
    ------
    InputError
        Something in it is neither.
    OutputError
        The disk does not take it.
    """
    try:
        import_torch().save(content, str(path))
    except RuntimeError as error:
        raise _not_written(path, error) from error
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise _not_plain(path, str(error)) from error
    try:
        inspect(path)
    except InvalidWeights as error:
        raise _not_plain(path, error.why) from error


def read_weights(weights: WeightFile) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of an inspected file by the names in it, and what else the checkpoint holds.

    Raises
    ------
    InvalidWeights
        The format holds no tensors for PyTorch, or the file is refused.
    MissingPackage
        PyTorch or safetensors is missing or too old.
    """
    torch = import_torch()
    if weights.format is FileType.SAFETENSORS:
        return _safetensors().load_file(str(weights.path)), _training_of_safetensors(weights)
    if weights.format is not FileType.TORCH:
        raise InvalidWeights(
            f"'{weights.path.name}' holds no tensors for PyTorch.",
            why=f"It is a file of the format {weights.format.value}.",
            todo="Convert it to safetensors first.",
        )
    content = read_torch(weights.path)
    found = find_tensors(content, torch.Tensor)
    if found is None or found[1].keys() != weights.tensors.keys():
        raise InvalidWeights(f"'{weights.path.name}' changed while it was read.", todo="Try again.")
    wrapper, state = found
    rest = {key: value for key, value in content.items() if key != wrapper.partition(".")[0]} if wrapper else {}
    return state, rest


def read_torch(path: Path) -> Any:
    """The content of a PyTorch file: tensors and plain values, nothing that would run.

    Raises
    ------
    InvalidWeights
        The file is damaged, or holds objects that only its own code could build.
    MissingPackage
        PyTorch is missing, or too old to read such a file safely.
    """
    inspect(path)  # names code in it before PyTorch is even imported
    torch = import_torch()
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _SAFE_TORCH:
        raise MissingPackage(
            f"'{path.name}' is not opened with PyTorch {torch.__version__}.",
            why="Before version 2.10 a prepared file could take over the computer (CVE-2025-32434, CVE-2026-24747).",
            todo="Update PyTorch, or use a safetensors file.",
        )
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise open_error(path, error) from error
    except Exception as error:  # PyTorch raises UnpicklingError, RuntimeError, EOFError, KeyError, ... for bad files
        raise InvalidWeights(
            f"'{path.name}' cannot be read as plain weights.",
            why=f"PyTorch answers: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            todo="Ask its author for a safetensors file.",
        ) from error


def _numpy_numbers() -> list[Any]:
    """What numbers of NumPy in a checkpoint (metrics, mostly) need; the inspection has seen that they are numbers."""
    import numpy as np

    scalar = np.dtype("f8").type(0).__reduce__()[0]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    kinds = {type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")}
    return [*((scalar, name) for name in names), np.dtype, *kinds]


def _training_of_safetensors(weights: WeightFile) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(str(weights.path), framework="pt") as file:
        stated = (file.metadata() or {}).get(TRAINING_KEY)
    try:
        found = json.loads(stated) if stated else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _safetensors() -> Any:
    try:
        from safetensors import torch as module
    except ImportError as error:
        raise MissingPackage(
            "safetensors files cannot be read or written.",
            why="The package safetensors is not installed.",
            todo="pip install safetensors",
        ) from error
    return module


def _not_written(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"'{path.name}' could not be written.", why=f"{error}.", todo="Free some space, or choose a folder."
    )


def _not_plain(path: Path, why: str) -> InputError:
    return InputError(
        f"'{path.name}' cannot be written so that it can be read safely.",
        why=why,
        todo="Keep to tensors, numbers and texts in the state of the optimizer.",
    )
