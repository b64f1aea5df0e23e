"""Which expert a picture goes to, from the router's probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from MedAILib.models.heads import ClassInfo, Head
from MedMNISTRouterLib.datasets import BY_FLAG
from MedMNISTRouterLib.request import Route

_ORGANS = ("organamnist", "organcmnist", "organsmnist")


@dataclass(frozen=True)
class Choice:
    """Where one picture goes.

    Attributes
    ----------
    name : str
        The router's class.
    dataset : str
        Flag; empty where no data set has such images.
    confidence : float
    routes : tuple of Route
        The most probable ones, best first.
    warnings : tuple of str
    """

    name: str
    dataset: str
    confidence: float
    routes: tuple[Route, ...]
    warnings: tuple[str, ...] = ()


def choose(head: Head, row: np.ndarray, is_installed: Callable[[str], bool], top: int, plane: str = "") -> Choice:
    """Choose an expert.

    Parameters
    ----------
    head : Head
        The router's.
    row : ndarray, shape (classes,)
        Probabilities.
    is_installed : callable
        Whether the expert for a data set is on this machine.
    top : int
        Routes to list.
    plane : str
        The picture's, where known. The three organ sets show the same organs in three planes, and a router confuses
        them: among them the plane decides.
    """
    classes = sorted(head.classes, key=lambda item: item.index)
    order = np.argsort(-row, kind="stable")
    routes = [_route(classes[index], float(row[index]), is_installed) for index in order]
    best, warnings = routes[0], ()
    if best.dataset in _ORGANS and plane and BY_FLAG[best.dataset].plane != plane:
        same = next((route for route in routes if route.dataset and BY_FLAG[route.dataset].plane == plane), None)
        if same is not None:
            together = sum(route.confidence for route in routes if route.dataset in _ORGANS)
            routes.remove(same)
            routes.insert(0, same)
            text = f"The router preferred {best.dataset}; the slice is {plane}, so it goes to {same.dataset}."
            return Choice(same.name, same.dataset, together, tuple(routes[:top]), (text,))
    return Choice(best.name, best.dataset, best.confidence, tuple(routes[:top]), warnings)


def _route(item: ClassInfo, confidence: float, is_installed: Callable[[str], bool]) -> Route:
    flags = [flag for flag in item.routes_to or (item.name,) if flag in BY_FLAG]
    flag = next(filter(is_installed, flags), flags[0] if flags else "")
    return Route(item.name, flag, confidence, bool(flag) and is_installed(flag))
