"""What can go wrong with the host itself; loads nothing."""

from __future__ import annotations


class HostUnavailable(RuntimeError):
    """The host cannot run on this machine; the text says what to install."""


class WindowOpened(AssertionError):
    """Code under test opened a modal window, which would stop a test for ever."""
