"""Frozen dataclasses from and to JSON, with every problem reported at once and by its place.

A record is a frozen dataclass whose fields are texts, numbers, enums, other records, tuples or
mappings of these, or ``Any`` for plain JSON. One that has a field ``extra`` keeps keys it does not
know there, and writes them back.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

EXTRA = "extra"
ROOT = "$"
_WRONG: Any = object()
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}

T = TypeVar("T")


class Problems:
    """What is wrong in a JSON document, as sentences that start with the place, ``$.heads[0].task``."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def add(self, path: str, message: str) -> None:
        self._found.append(f"{path} {message}")

    def __iter__(self) -> Any:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def read_record(kind: type[T], data: Any, problems: Problems, path: str = ROOT) -> T | None:
    """Build a record from parsed JSON.

    Parameters
    ----------
    kind : type
        A dataclass as described in the module's text.
    data : object
        What `json.loads` gave.
    problems : Problems
        Takes all that is wrong: missing and mistyped values, and what the rules in the record's own method
        ``check(path, problems)`` say, where it has one.
    path : str
        Where in the document ``data`` lies.

    Returns
    -------
    record or None
        None where anything is wrong.
    """
    before = len(problems)
    record = _read_record(kind, data, problems, path)
    return record if len(problems) == before else None


def _read_record(kind: type[T], data: Any, problems: Problems, path: str) -> T:
    """As `read_record`, but a record that only breaks rules is built, so that those around it are checked too."""
    if not isinstance(data, Mapping):
        problems.add(path, f"must be an object, not {_shown(data)}.")
        return _WRONG
    hints = _hints(kind)  # type: ignore[arg-type]
    known = {spec.name: spec for spec in fields(kind) if spec.name != EXTRA}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, spec in known.items():
        if name in data:
            values[name] = _read_value(hints[name], data[name], problems, f"{path}.{name}")
        elif _required(spec):
            problems.add(path, f"has no '{name}', which is required.")
            values[name] = _WRONG
    unknown = {str(key): value for key, value in data.items() if key not in known}
    if EXTRA in hints:
        for key, value in unknown.items():
            problem = plain_json_problem(value, f"{path}.{key}")
            if problem:  # such as 1e999, which reads as infinite and cannot be written back
                problems.add(*problem.split(" ", 1))
                values[EXTRA] = _WRONG
        values.setdefault(EXTRA, unknown)
    else:
        for key in unknown:
            problems.add(f"{path}.{key}", "is not a field that belongs there.")
    if any(value is _WRONG for value in values.values()):
        return _WRONG
    record = kind(**values)
    check = getattr(record, "check", None)
    if check is not None:
        check(path, problems)
    return record


def record_to_json(record: Any) -> dict[str, Any]:
    """A record as plain JSON values; fields that are empty by default and still are, are left out."""
    result: dict[str, Any] = {}
    for spec in fields(record):
        value = getattr(record, spec.name)
        if spec.name == EXTRA:
            result.update(_to_json(value))
        elif _required(spec) or value != _default(spec) or not _is_empty(value):
            result[spec.name] = _to_json(value)
    return result


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, no NaN: equal values give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()


def unknown_keys(record: Any, path: str = ROOT) -> tuple[str, ...]:
    """Paths of all keys that were kept without being understood, in the record and in those within."""
    found: list[str] = []
    for spec in fields(record):
        value = getattr(record, spec.name)
        if spec.name == EXTRA:
            found += [f"{path}.{key}" for key in value]
        elif is_dataclass(value):
            found += unknown_keys(value, f"{path}.{spec.name}")
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if is_dataclass(item):
                    found += unknown_keys(item, f"{path}.{spec.name}[{index}]")
    return tuple(found)


def plain_json_problem(value: Any, path: str) -> str:
    """Why a value is not plain JSON (with finite numbers and texts as keys); empty where it is."""
    if value is None or isinstance(value, (str, bool, int)):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{path} must be a finite number, not {value}."
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) for key in value):
            return f"{path} has a key that is not a text."
        problems = (plain_json_problem(item, f"{path}.{key}") for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        problems = (plain_json_problem(item, f"{path}[{index}]") for index, item in enumerate(value))
    else:
        return f"{path} is a {type(value).__name__}, which JSON does not have."
    return next((problem for problem in problems if problem), "")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _required(spec: Field[Any]) -> bool:
    return spec.default is MISSING and spec.default_factory is MISSING


def _default(spec: Field[Any]) -> Any:
    return spec.default if spec.default_factory is MISSING else spec.default_factory()


def _is_empty(value: Any) -> bool:
    """Whether a field at its default says nothing: no text, no items, a record nobody filled in."""
    return value is None or value == "" or value == () or value == {} or is_dataclass(value)


def _to_json(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return record_to_json(value)
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    return value


def _read_value(hint: Any, value: Any, problems: Problems, path: str) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        problem = plain_json_problem(value, path)
        if problem:
            problems.add(*problem.split(" ", 1))
            return _WRONG
        return value
    if origin in (Union, types.UnionType):
        inner = next(option for option in get_args(hint) if option is not type(None))
        return None if value is None else _read_value(inner, value, problems, path)
    if origin is tuple:
        return _read_tuple(get_args(hint), value, problems, path)
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(get_args(hint)[1], value, problems, path)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _read_enum(hint, value, problems, path)
    if is_dataclass(hint):
        return _read_record(hint, value, problems, path)  # type: ignore[arg-type]
    return _read_scalar(hint, value, problems, path)


def _read_scalar(hint: type, value: Any, problems: Problems, path: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        problems.add(path, f"must be {_NAMES.get(hint, hint.__name__)}, not {_shown(value)}.")
        return _WRONG
    if isinstance(value, float) and not math.isfinite(value):
        problems.add(path, f"must be a finite number, not {value}.")
        return _WRONG
    return value


def _read_tuple(hints: tuple[Any, ...], value: Any, problems: Problems, path: str) -> Any:
    if not isinstance(value, (list, tuple)):
        problems.add(path, f"must be a list, not {_shown(value)}.")
        return _WRONG
    if hints[-1] is not Ellipsis and len(value) != len(hints):
        problems.add(path, f"must have {len(hints)} items, not {len(value)}.")
        return _WRONG
    kinds = [hints[0]] * len(value) if hints[-1] is Ellipsis else hints
    items = tuple(
        _read_value(kind, item, problems, f"{path}[{index}]")
        for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )
    return _WRONG if any(item is _WRONG for item in items) else items


def _read_mapping(hint: Any, value: Any, problems: Problems, path: str) -> Any:
    if not isinstance(value, Mapping):
        problems.add(path, f"must be an object, not {_shown(value)}.")
        return _WRONG
    items = {str(key): _read_value(hint, item, problems, f"{path}.{key}") for key, item in value.items()}
    return _WRONG if any(item is _WRONG for item in items.values()) else items


def _read_enum(hint: type[Enum], value: Any, problems: Problems, path: str) -> Any:
    if isinstance(value, hint):
        return value
    try:
        return hint(value)
    except ValueError:
        choices = ", ".join(str(choice.value) for choice in hint)
        problems.add(path, f"must be one of {choices}, not {_shown(value)}.")
        return _WRONG


def _shown(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
