"""What a PyTorch file holds, put together from its pickle without executing it and without its numbers.

Dictionaries, lists, texts and numbers come out as they are, tensors as `TensorInfo`, everything else as
`UNKNOWN`. Layout of the two kinds of file after ``torch.save`` of PyTorch 1.0 to 2.13.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from MedAILib.errors import InvalidWeights
from MedAILib.models.pickles import Import, Machine, MalformedPickle
from MedAILib.models.tensorinfo import TensorInfo

UNKNOWN: Any = None
"""Stands for every value that is no plain one."""

_LEGACY_HEAD = 3
"""Pickles before the content in a file of the old kind: magic number, version, system."""

_STORAGE_TYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}  # fmt: skip
_STORAGE = re.compile(r"torch\.(?:cuda\.)?(\w+)Storage")
_MAPPINGS = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict"}
_NUMPY_SCALARS = {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
_NUMPY_NUMBER = re.compile(r"[<>=|]?[biufc]\d{1,2}")


def read_zip(path: Path) -> Any:
    """The content of a PyTorch file of the present kind (since 1.6)."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
        return _read_pickle(path, io.BytesIO(archive.read(name)))


def read_legacy(path: Path) -> Any:
    """The content of a PyTorch file of the old kind (before 1.6)."""
    with path.open("rb") as stream:
        for _ in range(_LEGACY_HEAD):
            _read_pickle(path, stream)
        return _read_pickle(path, stream)


def _read_pickle(path: Path, stream: IO[bytes]) -> Any:
    machine = _TensorMachine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, MalformedPickle) as error:
        raise InvalidWeights(
            f"'{path}' is damaged.", why=f"Its list of tensors cannot be read ({error}).", todo="Get it again."
        ) from error
    return machine.result


class _TensorMachine(Machine):
    """The pickle machine that builds containers, and tensors without numbers."""

    def _produce(self, name: str, argument: Any, taken: list[Any]) -> Any:
        match name:
            case "EMPTY_DICT" | "DICT":
                return _fill({}, taken)
            case "SETITEM" | "SETITEMS":
                return _fill(taken[0], taken[1:])
            case "EMPTY_LIST" | "LIST":
                return list(taken)
            case "APPEND" | "APPENDS":
                if isinstance(taken[0], list):
                    taken[0].extend(taken[1:])
                return taken[0]
            case "NEWTRUE" | "NEWFALSE":
                return name == "NEWTRUE"
            case "BINFLOAT" | "FLOAT":
                return argument
            case "REDUCE":
                return _call(*taken)
            case "BUILD":
                return taken[0]
            case "PERSID" | "BINPERSID":
                super()._produce(name, argument, taken)
                return _Storage.of(taken[0] if taken else argument)
        found = super()._produce(name, argument, taken)
        return found if isinstance(found, str | int | tuple | Import) or name == "STOP" else UNKNOWN


class _Storage:
    """A run of numbers that tensors are cut from; only their type is kept."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    @classmethod
    def of(cls, identity: Any) -> _Storage:
        match identity:
            case ("storage", Import(name=kind), *_):
                found = _STORAGE.fullmatch(kind)
                return cls(_STORAGE_TYPES.get(found[1], found[1].lower()) if found else "")
        return cls("")


def _fill(target: Any, items: list[Any]) -> Any:
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str | int):
                target[key] = value
    return target


def _call(function: Any, arguments: Any) -> Any:
    """What a call of one of the known functions would answer, in our terms."""
    name = function.name if isinstance(function, Import) else ""
    arguments = arguments if isinstance(arguments, tuple) else ()
    if name in _MAPPINGS:
        return _mapping(arguments)
    maker = _MAKERS.get(name)
    if maker is not None:
        return maker(arguments)
    if name == "numpy.dtype" and not (arguments and _NUMPY_NUMBER.fullmatch(str(arguments[0]))):
        raise MalformedPickle("it holds a NumPy value that is no number")
    return UNKNOWN


def _mapping(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Of Python 2: ``OrderedDict([[name, tensor], ...])``."""
    pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
    return {pair[0]: pair[1] for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2}


def _tensor(arguments: tuple[Any, ...]) -> Any:
    """``(storage, offset, size, stride, ...)``; of the third version the type follows last."""
    match arguments:
        case (_Storage(dtype=dtype), int(), tuple(size), tuple(), *more):
            named = next((item.name for item in reversed(more) if isinstance(item, Import)), "")
            dtype = dtype or named.removeprefix("torch.")
            if all(isinstance(length, int) and length >= 0 for length in size):
                return TensorInfo(size, dtype)
    raise MalformedPickle("a tensor has no shape")


def _first(arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if arguments else UNKNOWN


def _typed(arguments: tuple[Any, ...]) -> Any:
    """``(function, class, arguments, state)``: a tensor of a class of its own."""
    match arguments:
        case (Import() as function, _, tuple(inner), *_):
            return _call(function, inner)
    return UNKNOWN


_MAKERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.Size": _first,
}
