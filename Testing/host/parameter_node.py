"""``slicer.parameterNodeWrapper``: a typed view of a scene node's parameters, and its ties to widgets.

The values live in the scene, on a vtkMRMLScriptedModuleNode: numbers, texts, enums, paths and
collections as parameters, nodes as node references. They survive saving and loading the scene.
"""

from __future__ import annotations

import enum
import json
import pathlib
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import slicer


@dataclass(frozen=True)
class Default:
    value: Any


@dataclass(frozen=True)
class WithinRange:
    minimum: float
    maximum: float

    def check(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum}..{self.maximum}")


@dataclass(frozen=True)
class Minimum:
    minimum: float

    def check(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"{value} is below {self.minimum}")


@dataclass(frozen=True)
class Maximum:
    maximum: float

    def check(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"{value} is above {self.maximum}")


@dataclass(frozen=True)
class Choice:
    choices: Any

    def check(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


@dataclass(frozen=True)
class Decimals:
    value: int


@dataclass(frozen=True)
class SingleStep:
    value: float


class Parameter:
    """One member of a parameter node: its type, its limits, and how it is written on the node."""

    def __init__(self, name: str, hint: Any) -> None:
        self.name = name
        self.annotations: tuple[Any, ...] = ()
        if typing.get_origin(hint) is typing.Annotated:
            hint, *annotations = typing.get_args(hint)
            self.annotations = tuple(annotations)
        self.kind, self.optional = _without_none(hint)
        self.is_node = isinstance(self.kind, type) and issubclass(self.kind, slicer.vtkMRMLNode)
        self.default = next((a.value for a in self.annotations if isinstance(a, Default)), self._plain_default())

    def _plain_default(self) -> Any:
        if self.is_node or self.optional:
            return None
        if isinstance(self.kind, type) and issubclass(self.kind, enum.Enum):
            return next(iter(self.kind))
        if self.kind is pathlib.Path:
            return pathlib.Path()
        return (typing.get_origin(self.kind) or self.kind)()

    def find(self, kind: type) -> Any:
        return next((a for a in self.annotations if isinstance(a, kind)), None)

    def write(self, node: Any, value: Any) -> None:
        if self.is_node:
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        self._check_kind(value)
        for annotation in self.annotations:
            if hasattr(annotation, "check"):
                annotation.check(value)
        node.SetParameter(self.name, _text_of(value))

    def _check_kind(self, value: Any) -> None:
        base = typing.get_origin(self.kind) or self.kind
        accepted = (int, float) if base is float else base
        if not (value is None and self.optional) and not isinstance(value, accepted):
            raise TypeError(f"{self.name} is {base.__name__}, got {value!r}")

    def read(self, node: Any) -> Any:
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        return self.default if text == "" else _value_of(text, self.kind)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if len(kinds) != 1:
            raise TypeError(f"The test host knows Optional, not other unions: {hint}")
        return kinds[0], True
    return hint, False


def _text_of(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return json.dumps(value.name)
    return json.dumps(str(value) if isinstance(value, pathlib.Path) else value)


def _value_of(text: str, kind: Any) -> Any:
    value = json.loads(text)
    base = typing.get_origin(kind) or kind
    if value is None:
        return None
    return base[value] if issubclass(base, enum.Enum) else base(value)


class ParameterNode:
    """What a class decorated with `parameterNodeWrapper` becomes."""

    allParameters: ClassVar[dict[str, Parameter]] = {}

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._ties: dict[int, list[Callable[[], None]]] = {}
        for parameter in self.allParameters.values():
            if not parameter.is_node and parameterNode.GetParameter(parameter.name) == "":
                parameter.write(parameterNode, parameter.default)

    def getValue(self, name: str) -> Any:
        return self.allParameters[name].read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self.allParameters[name].write(self.parameterNode, value)

    def default(self, name: str) -> Default:
        return Default(self.allParameters[name].default)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, was_modifying: int) -> None:
        self.parameterNode.EndModify(was_modifying)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def connectGui(self, gui: Any) -> int:
        """Tie every widget with a ``SlicerParameterName`` to its parameter, both ways."""
        widgets = vars(gui).values() if not hasattr(gui, "isWidgetType") else _descendants(gui)
        named = [(widget.property("SlicerParameterName"), widget) for widget in widgets]
        return self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        from host.parameter_gui import tie

        unknown = set(mapping) - set(self.allParameters)
        if unknown:
            raise ValueError(f"No parameter {', '.join(sorted(unknown))}; there are {', '.join(self.allParameters)}.")
        tag = max(self._ties, default=0) + 1
        self._ties[tag] = []
        for name, widget in mapping.items():
            self._ties[tag] += tie(self, name, widget)
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        for untie in self._ties.pop(tag, []):
            untie()


def _descendants(widget: Any) -> list[Any]:
    import qt

    return widget.findChildren(qt.QWidget)


def parameterNodeWrapper(cls: type | None = None) -> Any:
    """Class decorator: annotated members become parameters of a scene node."""
    if cls is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {name: Parameter(name, hint) for name, hint in hints.items()}
    members: dict[str, Any] = {"allParameters": parameters, "__module__": cls.__module__, "__doc__": cls.__doc__}
    for name, parameter in parameters.items():
        if hasattr(ParameterNode, name):
            raise ValueError(f"'{name}' is a reserved name in a parameter node")
        parameter.default = getattr(cls, name, parameter.default)
        members[name] = property(
            lambda self, name=name: self.getValue(name), lambda self, value, name=name: self.setValue(name, value)
        )
    own = {n: v for n, v in vars(cls).items() if n not in members and n not in ("__dict__", "__weakref__")}
    return type(cls.__name__, (ParameterNode,), {**own, **members})


def isParameterNodeWrapper(thing: Any) -> bool:
    return issubclass(thing if isinstance(thing, type) else type(thing), ParameterNode)


def install() -> None:
    """Make ``slicer.parameterNodeWrapper`` importable (once per process)."""
    name = "slicer.parameterNodeWrapper"
    if name in sys.modules:
        return
    module = ModuleType(name, "Typed parameter nodes.")
    for member in (Default, WithinRange, Minimum, Maximum, Choice, Decimals, SingleStep):
        setattr(module, member.__name__, member)
    module.parameterNodeWrapper = parameterNodeWrapper  # type: ignore[attr-defined]
    module.isParameterNodeWrapper = isParameterNodeWrapper  # type: ignore[attr-defined]
    sys.modules[name] = slicer.parameterNodeWrapper = module
