"""Whether a model can be used, and if not, why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class State(Enum):
    """The value is what to call it."""

    NOT_INSTALLED = "not installed"
    PARTIAL = "partial"
    INSTALLED = "installed"
    INVALID = "invalid"
    EMBEDDED = "embedded"


@dataclass(frozen=True)
class Status:
    """The state of a model in the stores of this machine.

    Attributes
    ----------
    model_id : str
    state : State
    why : str
        One or two sentences for the user; empty where there is nothing to say.
    folder : Path or None
        Where its files lie, whole or not.
    bytes_here : int
        Bytes of what is there, parts included.
    is_shared : bool
        Whether it lies in a shared store.
    """

    model_id: str
    state: State
    why: str = ""
    folder: Path | None = None
    bytes_here: int = 0
    is_shared: bool = False

    @property
    def is_usable(self) -> bool:
        return self.state in (State.INSTALLED, State.EMBEDDED)
