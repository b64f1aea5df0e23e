"""Names that training tools put around tensors: wrapper keys of a checkpoint, prefixes of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

WRAPPERS = ("model_state_dict", "state_dict", "model", "network_weights", "ema")
"""Keys under which a checkpoint holds its tensors, in order of preference."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""Of data-parallel training, `torch.compile`, Lightning and usual wrapper classes."""

_DEEPEST = 3

T = TypeVar("T")


def prefixes_of(names: Iterable[str]) -> Iterator[str]:
    """What may be taken from the front of all names: nothing first, then one known prefix more each time."""
    rest, prefix = list(names), ""
    yield prefix
    while rest:
        more = next((known for known in PREFIXES if all(name.startswith(known) for name in rest)), None)
        if more is None:
            return
        rest = [name.removeprefix(more) for name in rest]
        prefix += more
        yield prefix


def without_prefix(items: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The same items under names without the prefix, which all of them have."""
    return {name[len(prefix) :]: value for name, value in items.items()}


def best_prefix(names: Iterable[str], wanted: Iterable[str]) -> str:
    """The prefix whose removal makes most names those that are wanted; the shortest of equals."""
    names, wanted = list(names), set(wanted)
    return max(prefixes_of(names), key=lambda prefix: sum(name[len(prefix) :] in wanted for name in names))


def find_tensors(content: Any, kind: type[T]) -> tuple[str, dict[str, T]] | None:
    """The tensors in a checkpoint's content and the keys that lead to them, ``ema.state_dict``; None: there are none.

    Parameters
    ----------
    content : object
        What the file holds: tensors by name, or such a mapping under one of `WRAPPERS`.
    kind : type
        What a tensor is an instance of.
    """
    return _find(content, kind, "", _DEEPEST)


def _find(content: Any, kind: type[T], path: str, depth: int) -> tuple[str, dict[str, T]] | None:
    if not isinstance(content, Mapping) or depth < 0:
        return None
    for key in WRAPPERS:
        found = _find(content.get(key), kind, f"{path}.{key}" if path else key, depth - 1)
        if found is not None:
            return found
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, kind)}
    return (path, tensors) if tensors else None
