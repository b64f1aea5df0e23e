"""PySide6 with PythonQt's manners: the module ``qt`` that Slicer's Python modules import.

PythonQt and PySide6 differ in a few habits only. `install` gives PySide6 those of PythonQt:

* a Q_PROPERTY is an attribute (``button.enabled = False``, ``spin.value + 1``), never a getter call;
* ``name`` is short for ``objectName``;
* ``sender.connect("clicked()", f)`` exists besides ``sender.clicked.connect(f)``, and ``disconnect`` likewise;
* ``Signal``, ``Slot`` and ``Property`` are absent: a module that makes its own signals crashes in Slicer.

The classes of PySide6 are changed for the whole process, which is why widget tests run in their own.
Anything modal would wait for a user for ever: it raises `WindowOpened` instead.
"""

from __future__ import annotations

import ctypes
import inspect
import re
import sys
from collections.abc import Callable
from types import MethodType, ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from host.host_errors import WindowOpened

ABSENT_FROM_PYTHONQT = {"Signal", "SignalInstance", "Slot", "Property", "ClassInfo"}


class QtProperty:
    """A Q_PROPERTY as PythonQt shows it: a plain attribute on instances, the old method on the class."""

    def __init__(self, owner: type, name: str) -> None:
        self.name = name
        self.on_class = getattr(owner, name, None)
        capital = name[0].upper() + name[1:]
        self._getter = getattr(owner, f"is{capital}", None)
        if self._getter is None and callable(self.on_class):
            self._getter = self.on_class
        self._setter = getattr(owner, f"set{capital}", None)

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self.on_class if self.on_class is not None else self
        return self._getter(instance) if self._getter else instance.property(self.name)

    def __set__(self, instance: Any, value: Any) -> None:
        if self._setter is not None:
            self._setter(instance, value)
        elif not instance.setProperty(self.name, value):
            raise AttributeError(f"{type(instance).__name__}.{self.name} cannot be set to {value!r}")


class _ObjectName:
    """PythonQt's short ``name`` of ``objectName``."""

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else instance.objectName

    def __set__(self, instance: Any, value: str) -> None:
        instance.setObjectName(value)


def _add_properties(kind: type) -> None:
    """Own properties of the class, and inherited ones whose getter it defines anew (which would hide them)."""
    meta = kind.staticMetaObject
    for index in range(meta.propertyCount()):
        name = meta.property(index).name()
        is_own = index >= meta.propertyOffset() or name in vars(kind)
        if is_own and not isinstance(getattr(kind, name, None), QtCore.Signal):
            setattr(kind, name, QtProperty(kind, name))


def _add_string_connections() -> None:
    """PySide6 answers ``connect`` and ``disconnect`` of instances itself, before it looks at the class."""
    original = QtCore.QObject.__getattribute__
    own = {"connect": _connect, "disconnect": _disconnect}

    def find(self: QtCore.QObject, name: str) -> Any:
        if name in own:
            return MethodType(own[name], self)
        return original(self, name)

    QtCore.QObject.__getattribute__ = find


def unknown_attributes(widget: QtWidgets.QWidget) -> list[str]:
    """Attributes that were set on a widget or its children and that their classes do not have.

    Under PythonQt setting one is an error; PySide6 takes any. Classes that a module writes are free.
    """
    found = []
    for one in (widget, *widget.findChildren(QtCore.QObject)):
        if type(one).__module__.startswith(("PySide6.", "host.")):
            names = [name for name in vars(one) if not name.startswith("_") and not hasattr(type(one), name)]
            found += [f"{type(one).__name__} '{one.objectName}' has no property '{name}'" for name in names]
    return found


def _keep_constants_alive() -> None:
    """Before Python 3.12, PySide6 6.12 drops a reference to None at every call of a void method.

    Its limited-API build takes None, True and False for immortal, which they are since 3.12 only; after some
    thousand calls the interpreter aborts. A large reference count makes them as good as immortal.
    """
    if sys.version_info < (3, 12):
        for constant in (None, True, False):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40


def _signal_of(sender: QtCore.QObject, signature: str) -> tuple[Any, int]:
    """The signal a string names and how many arguments it announces."""
    match = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", signature)
    if match is None:
        raise ValueError(f"'{signature}' is no signal signature such as 'clicked()'")
    signal = getattr(sender, match[1], None)
    if not isinstance(signal, QtCore.SignalInstance):
        raise AttributeError(f"{type(sender).__name__} has no signal {match[1]}")
    return signal, len([part for part in match[2].split(",") if part.strip()])


def _connect(sender: QtCore.QObject, signature: str, receiver: Any) -> bool:
    """As many arguments reach the receiver as it takes and the signature announces."""
    signal, announced = _signal_of(sender, signature)
    relay = _relay(receiver, announced)
    signal.connect(relay)
    sender.__dict__.setdefault("_string_connections", {}).setdefault(signature, []).append((receiver, relay))
    return True


def _disconnect(sender: QtCore.QObject, signature: str, receiver: Any) -> bool:
    signal, _ = _signal_of(sender, signature)
    known = sender.__dict__.get("_string_connections", {}).get(signature, [])
    for entry in known:
        if entry[0] == receiver:
            signal.disconnect(entry[1])
            known.remove(entry)
            return True
    return False


def _relay(receiver: Any, announced: int) -> Callable[..., None]:
    """A slot with exactly the announced number of arguments: PySide6 chooses between overloads by that number."""
    accepted = _positional_count(receiver)
    if announced == 0:
        return lambda: receiver()
    if announced == 1:
        return lambda first: receiver(*(first,)[:accepted])
    if announced == 2:
        return lambda first, second: receiver(*(first, second)[:accepted])
    raise ValueError("The test host knows signals of up to two arguments")


def _positional_count(receiver: Any) -> int:
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except (TypeError, ValueError):  # a built-in without a signature takes what comes
        return 99
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 99
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _refuse_modal_windows() -> None:
    def refuse(what: str) -> Any:
        def raise_(*args: Any, **kwargs: Any) -> None:
            raise WindowOpened(f"{what} was opened. Replace it in the test (monkeypatch) or avoid it in the module.")

        return raise_

    for name in ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory"):
        setattr(QtWidgets.QFileDialog, name, staticmethod(refuse(f"QFileDialog.{name}")))
    for name in ("information", "warning", "critical", "question", "about"):
        setattr(QtWidgets.QMessageBox, name, staticmethod(refuse(f"QMessageBox.{name}")))
    for name in ("getText", "getItem", "getInt", "getDouble", "getMultiLineText"):
        setattr(QtWidgets.QInputDialog, name, staticmethod(refuse(f"QInputDialog.{name}")))
    for kind in (QtWidgets.QDialog, QtWidgets.QMenu):
        kind.exec = kind.exec_ = refuse(f"{kind.__name__}.exec")


def install() -> ModuleType:
    """Give PySide6 the manners of PythonQt and return it as the module ``qt`` (once per process)."""
    if "qt" in sys.modules:
        return sys.modules["qt"]
    _keep_constants_alive()
    qt = ModuleType("qt", "Qt as Slicer's Python modules see it.")
    for library in (QtCore, QtGui, QtWidgets, QtUiTools):
        for name in dir(library):
            if not name.startswith("_") and name not in ABSENT_FROM_PYTHONQT:
                setattr(qt, name, getattr(library, name))
    kinds = [k for k in vars(qt).values() if isinstance(k, type) and issubclass(k, QtCore.QObject)]
    for kind in sorted(kinds, key=lambda k: len(k.__mro__)):
        _add_properties(kind)
    QtCore.QObject.name = _ObjectName()
    _add_string_connections()
    _refuse_modal_windows()
    sys.modules["qt"] = qt
    return qt
