"""Pickles read as a language, never executed: which Python objects would loading call?

A pickle is a program for a small stack machine. `scan` follows it with symbols in place of objects, so
that every import it would make is known by name, however the name was put together, and storages named
by PyTorch are known with their sizes. Opcodes after PEP 307, PEP 3154 and PEP 574.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import IO, Any

# What PyTorch needs to put tensors together (the same things that torch.load(weights_only=True) knows).
_TORCH = frozenset(
    """
    torch.Size torch.Tensor torch.device torch.layout torch.memory_format torch.strided torch.Storage
    torch.nn.parameter.Parameter torch.storage.TypedStorage torch.storage.UntypedStorage torch.serialization._get_layout
    torch._utils._rebuild_tensor torch._utils._rebuild_tensor_v2 torch._utils._rebuild_tensor_v3
    torch._utils._rebuild_parameter torch._utils._rebuild_parameter_with_state torch._utils._rebuild_sparse_tensor
    torch._utils._rebuild_qtensor torch._utils._rebuild_meta_tensor_no_storage torch._utils._rebuild_nested_tensor
    torch._utils._rebuild_device_tensor_from_numpy torch._tensor._rebuild_from_type_v2
    torch.per_tensor_affine torch.per_channel_affine torch.per_tensor_symmetric torch.per_channel_symmetric
    torch.qint8 torch.quint8 torch.qint32
    """.split()
)
_ITEM_BYTES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1,
    "Bool": 1, "ComplexDouble": 16, "ComplexFloat": 8, "QInt8": 1, "QUInt8": 1, "QInt32": 4,
}  # fmt: skip
_STORAGES = {
    f"{module}.{name}Storage": size for name, size in _ITEM_BYTES.items() for module in ("torch", "torch.cuda")
}
_DTYPES = frozenset(
    f"torch.{name}"
    for name in """float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool complex64
    complex128 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz double float half long int short""".split()
)
# Plain containers, and the numbers that training loops leave in checkpoints.
_PLAIN = frozenset(
    """
    collections.OrderedDict collections.defaultdict collections.Counter builtins.dict builtins.list builtins.set
    builtins.frozenset builtins.bytes builtins.bytearray builtins.complex __builtin__.set __builtin__.frozenset
    __builtin__.bytes __builtin__.bytearray _codecs.encode
    numpy.dtype numpy.ndarray numpy.core.multiarray.scalar numpy.core.multiarray._reconstruct
    numpy._core.multiarray.scalar numpy._core.multiarray._reconstruct numpy.core.numeric._frombuffer
    """.split()
)
HARMLESS = _TORCH | frozenset(_STORAGES) | _DTYPES | _PLAIN
"""Names a weight file may import when it is loaded."""

_OPAQUE = object()


class MalformedPickle(ValueError):
    """Not a pickle, cut short, or one that no pickler writes."""


@dataclass(frozen=True)
class Import:
    """A Python object that loading the pickle would import; ``name`` is ``module.attribute``."""

    name: str


@dataclass(frozen=True)
class PickleScan:
    """What a pickle would do.

    Attributes
    ----------
    imports : tuple of str
        ``module.attribute`` of everything it imports, in order, each once.
    storages : dict of str to int
        Bytes of every PyTorch storage it refers to, by key; -1 where the type is not known.
    value : object
        What it would answer, where that is a number or text; else None.
    """

    imports: tuple[str, ...]
    storages: dict[str, int]
    value: object = None

    @property
    def forbidden(self) -> tuple[str, ...]:
        """The imports that weights do not need, hence would be somebody's code."""
        return tuple(name for name in self.imports if name not in HARMLESS)


def scan(stream: IO[bytes]) -> PickleScan:
    """Follow one pickle from the stream's position to its STOP; the stream is left behind it.

    Raises
    ------
    MalformedPickle
        Where it is none, or is cut short.
    """
    machine = Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode, argument)
    except (ValueError, IndexError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise MalformedPickle(str(error)) from error
    except (OverflowError, MemoryError) as error:
        raise MalformedPickle("it announces more data than a file can hold") from error
    value = machine.result if isinstance(machine.result, int | str) else None
    return PickleScan(tuple(dict.fromkeys(machine.imports)), machine.storages, value)


class Machine:
    """The pickle machine on symbols: text, numbers, tuples and imports are themselves, all else is opaque."""

    def __init__(self) -> None:
        self.imports: list[str] = []
        self.storages: dict[str, int] = {}
        self.result: Any = _OPAQUE
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name == "MARK":
            self._marks.append(len(self._stack))
        elif name == "POP" and self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[int(argument)] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[int(argument)])
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        else:
            taken = self._take(opcode)
            produced = self._produce(name, argument, taken)
            if opcode.stack_after:
                self._stack.append(produced)

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[Any]:
        """Take from the stack what the opcode takes, in the order it was put there."""
        before = opcode.stack_before
        count, above = len(before), []
        if pickletools.markobject in before:
            count = before.index(pickletools.markobject)
            mark = self._marks.pop()
            above = self._stack[mark:]
            del self._stack[mark:]
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) - count < floor:
            raise MalformedPickle(f"{opcode.name} finds too little on the stack")
        below = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return below + above

    def _produce(self, name: str, argument: Any, taken: list[Any]) -> Any:
        match name:
            case "GLOBAL" | "INST":
                found = self._import(*argument.split(" ", 1))
                return found if name == "GLOBAL" else _OPAQUE
            case "STACK_GLOBAL":
                return self._import(*taken)
            case "EXT1" | "EXT2" | "EXT4":
                self.imports.append(f"copyreg extension {argument}")
                return _OPAQUE
            case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                return tuple(taken)
            case "PERSID" | "BINPERSID":
                self._persistent(taken[0] if taken else argument)
                return _OPAQUE
            case "STOP":
                self.result = taken[0]
                return None
        return argument if isinstance(argument, str | int) else _OPAQUE

    def _import(self, module: Any, attribute: Any) -> Import:
        known = isinstance(module, str) and isinstance(attribute, str)
        found = Import(f"{module}.{attribute}" if known else "a name made up while loading")
        self.imports.append(found.name)
        return found

    def _persistent(self, identity: Any) -> None:
        """PyTorch's reference to a storage: ('storage', type, key, location, number of items, ...)."""
        match identity:
            case ("storage", Import(name=kind), str(key), _, int(count), *_):
                item_bytes = 1 if kind == "torch.storage.UntypedStorage" else _STORAGES.get(kind)
                self.storages[key] = -1 if item_bytes is None else count * item_bytes
