"""Loaded models under a memory budget, with models that only count."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from MedMNISTRouterLib.cache import ModelCache


class Counted:
    """A model of a size; the house counts who is open."""

    def __init__(self, house: House, key: str, size: int) -> None:
        self.house, self.key, self.nbytes = house, key, size
        self.is_open = True

    def close(self) -> None:
        assert self.is_open, f"{self.key} was closed twice"
        self.is_open = False
        with self.house.lock:
            self.house.open_bytes -= self.nbytes


class House:
    """Loads models of a given size and watches how many are open."""

    def __init__(self, size: int = 10, seconds: float = 0.0) -> None:
        self.lock = threading.Lock()
        self.size, self.seconds = size, seconds
        self.open_bytes = self.most_bytes = 0
        self.loading: set[str] = set()
        self.loads: list[str] = []

    def loader(self, key: str) -> Callable[[], Counted]:
        def load() -> Counted:
            with self.lock:
                assert key not in self.loading, f"{key} is loaded twice at once"
                self.loading.add(key)
                self.loads.append(key)
                self.open_bytes += self.size
                self.most_bytes = max(self.most_bytes, self.open_bytes)
            time.sleep(self.seconds)
            with self.lock:
                self.loading.discard(key)
            return Counted(self, key, self.size)

        return load


def use(cache: ModelCache[Counted], house: House, key: str) -> Counted:
    with cache.using(key, house.size, house.loader(key)) as model:
        assert model.is_open
        return model


def test_a_model_is_loaded_once_and_then_found() -> None:
    house, cache = House(), ModelCache[Counted](100)
    assert use(cache, house, "a") is use(cache, house, "a")
    stats = cache.stats()
    assert (house.loads, stats.hits, stats.misses, stats.bytes_used) == (["a"], 1, 1, 10)


def test_the_least_recently_used_model_goes_first() -> None:
    house, cache = House(), ModelCache[Counted](30)
    for key in "abcad":
        use(cache, house, key)
    assert cache.stats().loaded == ("c", "a", "d")
    assert cache.stats().evictions == 1


def test_a_model_in_use_stays_although_there_is_no_room() -> None:
    house, cache = House(), ModelCache[Counted](10)
    with cache.using("a", 10, house.loader("a")) as a:
        use(cache, house, "b")
        assert a.is_open
    assert cache.stats().bytes_used <= 10


def test_a_model_larger_than_the_budget_is_loaded_alone() -> None:
    house, cache = House(size=50), ModelCache[Counted](30)
    use(cache, house, "a")
    use(cache, house, "b")
    use(cache, house, "b")
    assert house.most_bytes == 50
    assert house.loads == ["a", "b"]


def test_clear_closes_all_that_is_not_in_use_and_gives_memory_back() -> None:
    given_back: list[int] = []
    house = House()
    cache = ModelCache[Counted](100, lambda: given_back.append(house.open_bytes))
    with cache.using("a", 10, house.loader("a")) as a:
        use(cache, house, "b")
        cache.clear()
        assert a.is_open
        assert given_back == [10]
    cache.clear()
    assert given_back == [10, 0]
    assert cache.stats().loaded == ()


def test_a_smaller_budget_takes_effect_at_once() -> None:
    house, cache = House(), ModelCache[Counted](100)
    for key in "abc":
        use(cache, house, key)
    cache.set_budget(15)
    assert cache.stats().loaded == ("c",)
    assert house.open_bytes == 10


def test_a_failed_load_is_told_to_everyone_who_waited_and_tried_again_by_the_next() -> None:
    cache = ModelCache[Counted](100)
    entered, go = threading.Event(), threading.Event()
    errors: list[str] = []

    def fail() -> Counted:
        entered.set()
        assert go.wait(10)
        raise OSError("the disk is gone")

    def ask() -> None:
        try:
            with cache.using("a", 10, fail):
                raise AssertionError("nothing was loaded")
        except OSError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while cache.stats().hits < 2:
        time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join(10)
    assert errors == ["the disk is gone"] * 3
    assert use(cache, House(), "a").is_open


def test_eight_threads_and_twelve_models_stay_within_the_budget_and_load_none_twice_at_once() -> None:
    house, cache = House(seconds=0.0005), ModelCache[Counted](30)
    failures: list[BaseException] = []

    def hammer(seed: int) -> None:
        try:
            for step in range(60):
                key = f"expert-{(seed * 7 + step * (seed + 1)) % 12}"
                assert use(cache, house, key).key == key
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hammer, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "they wait for each other for ever"
    assert not failures
    assert house.most_bytes <= 30
    stats = cache.stats()
    assert stats.hits + stats.misses == 8 * 60
    assert len(house.loads) == stats.misses


def test_threads_that_hold_one_model_and_want_another_do_not_wait_for_each_other() -> None:
    house, cache = House(seconds=0.0005), ModelCache[Counted](20)
    failures: list[BaseException] = []

    def nest(first: str, second: str) -> None:
        try:
            for _ in range(40):
                with cache.using(first, 10, house.loader(first)) as outer:
                    use(cache, house, second)
                    assert outer.is_open
        except BaseException as error:
            failures.append(error)

    pairs = [("a", "b"), ("b", "a"), ("c", "a"), ("b", "c"), ("d", "b")]
    threads = [threading.Thread(target=nest, args=pair, daemon=True) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "they wait for each other for ever"
    assert not failures
    cache.clear()
    assert house.open_bytes == 0


@given(
    budget=st.integers(0, 60),
    keys=st.lists(st.sampled_from("abcdefgh"), max_size=40),
    sizes=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40)),
)
def test_one_user_never_exceeds_the_budget_unless_a_model_alone_does(
    budget: int, keys: list[str], sizes: dict[str, int]
) -> None:
    cache = ModelCache[Counted](budget, lambda: None)
    for key in keys:
        house = House(size=sizes.get(key, 10))
        with cache.using(key, house.size, house.loader(key)):
            used = cache.stats().bytes_used
            assert used <= budget or len(cache.stats().loaded) == 1
    assert cache.stats().bytes_used <= budget or len(cache.stats().loaded) == 1


def test_the_time_spent_loading_is_counted() -> None:
    house, cache = House(seconds=0.01), ModelCache[Counted](100)
    use(cache, house, "a")
    assert cache.stats().load_seconds > 0.005
