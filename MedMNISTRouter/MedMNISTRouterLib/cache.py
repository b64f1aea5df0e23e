"""Loaded models under a memory budget: the least recently used one goes first, no model is loaded twice.

Threads that want the same model wait for the one that loads it. A model that is in use is pinned and is not
evicted. A thread that finds no room because everything is pinned by others waits for them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from MedMNISTRouterLib.memory import give_back_free_memory
from MedMNISTRouterLib.request import CacheStats

logger = logging.getLogger(__name__)


class Closable(Protocol):
    """A loaded model, as far as the cache knows it."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes, in bytes."""
        ...

    def close(self) -> None:
        """Give its memory back."""
        ...


ModelT = TypeVar("ModelT", bound=Closable)


class _Place(Generic[ModelT]):
    """A model in the cache, or on its way into it."""

    def __init__(self, expected_bytes: int) -> None:
        self.bytes = expected_bytes
        self.model: ModelT | None = None
        self.error: BaseException | None = None
        self.pins = 1
        self.is_admitted = False
        self.is_urgent = False
        """A thread that holds another model waits for this one: it does not wait for room."""

    @property
    def is_settled(self) -> bool:
        return self.model is not None or self.error is not None


class ModelCache(Generic[ModelT]):
    """Models by key.

    Parameters
    ----------
    budget_bytes : int
        A single model larger than this is still loaded, and kept as long as no other one is wanted.
    give_back : callable
        Called after models were closed.
    """

    def __init__(self, budget_bytes: int, give_back: Callable[[], None] = give_back_free_memory) -> None:
        self._budget = budget_bytes
        self._give_back = give_back
        self._places: OrderedDict[str, _Place[ModelT]] = OrderedDict()
        self._changed = threading.Condition()
        self._held = threading.local()
        self._hits = self._misses = self._evictions = 0
        self._load_seconds = 0.0

    @contextmanager
    def using(self, key: str, expected_bytes: int, load: Callable[[], ModelT]) -> Iterator[ModelT]:
        """The model of a key, loaded where it is not; it stays at least as long as the block runs.

        Parameters
        ----------
        key : str
        expected_bytes : int
            Before it is loaded room is made for this.
        load : callable
            Called in this thread, at most once at a time per key. What it raises goes to every thread that waited.
        """
        place = self._pinned(key, expected_bytes, load)
        self._held.count = getattr(self._held, "count", 0) + 1
        try:
            assert place.model is not None
            yield place.model
        finally:
            self._held.count -= 1
            self._unpin(place)

    def set_budget(self, budget_bytes: int) -> None:
        """Change the budget; what is too much and not in use goes at once."""
        with self._changed:
            self._budget = budget_bytes
            victims = self._victims(0)
        self._close(victims)

    def clear(self) -> None:
        """Close every model that is not in use."""
        with self._changed:
            victims = [key for key, place in self._places.items() if not place.pins]
            gone = [self._places.pop(key) for key in victims]
            self._evictions += len(gone)
        self._close(gone)

    def stats(self) -> CacheStats:
        """What is loaded, and what happened so far."""
        with self._changed:
            loaded = {key: place.bytes for key, place in self._places.items() if place.model is not None}
            return CacheStats(
                tuple(loaded),
                sum(loaded.values()),
                self._budget,
                self._hits,
                self._misses,
                self._evictions,
                self._load_seconds,
            )

    def _pinned(self, key: str, expected_bytes: int, load: Callable[[], ModelT]) -> _Place[ModelT]:
        with self._changed:
            place = self._places.get(key)
            if place is not None:
                return self._joined(key, place)
            self._misses += 1
            place = self._places[key] = _Place(expected_bytes)
            place.is_urgent = self._holds_a_model()
        try:
            self._admit(place)
            started = time.perf_counter()
            model = load()
            seconds = time.perf_counter() - started
        except BaseException as error:
            with self._changed:
                place.error = error
                del self._places[key]
                self._changed.notify_all()
            raise
        with self._changed:
            place.model, place.bytes = model, model.nbytes
            self._load_seconds += seconds
            victims = self._victims(0)
            self._changed.notify_all()
        self._close(victims)
        return place

    def _joined(self, key: str, place: _Place[ModelT]) -> _Place[ModelT]:
        """A place that exists already, once its model is loaded; the lock is held."""
        self._hits += 1
        place.pins += 1
        self._places.move_to_end(key)
        if not place.is_settled and self._holds_a_model():
            place.is_urgent = True
            self._changed.notify_all()
        self._changed.wait_for(lambda: place.is_settled)
        if place.error is not None:
            raise place.error
        return place

    def _admit(self, place: _Place[ModelT]) -> None:
        """Make room for a newcomer; waits for models in use to be let go, unless that could wait for ever."""
        while True:
            with self._changed:
                victims = self._victims(place.bytes)
                fits = self._used() + place.bytes <= self._budget
                if fits or place.is_urgent or not self._used():
                    place.is_admitted = True
                elif not victims:
                    self._changed.wait()
            self._close(victims)
            if place.is_admitted:
                return

    def _victims(self, more_bytes: int) -> list[_Place[ModelT]]:
        """Take least recently used models out until the rest and so many bytes fit; the caller closes them."""
        victims = []
        for key in [key for key, place in self._places.items() if not place.pins and place.model is not None]:
            if self._used() + more_bytes <= self._budget or (not more_bytes and len(self._places) == 1):
                break
            victims.append(self._places.pop(key))
            self._evictions += 1
            logger.debug("%s is evicted", key)
        return victims

    def _used(self) -> int:
        return sum(place.bytes for place in self._places.values() if place.is_admitted)

    def _unpin(self, place: _Place[ModelT]) -> None:
        with self._changed:
            place.pins -= 1
            victims = self._victims(0)
            self._changed.notify_all()
        self._close(victims)

    def _holds_a_model(self) -> bool:
        """Whether this thread is within a block of `using`."""
        return getattr(self._held, "count", 0) > 0

    def _close(self, places: list[_Place[ModelT]]) -> None:
        for place in places:
            if place.model is not None:
                place.model.close()
                place.model = None
        if places:
            self._give_back()
