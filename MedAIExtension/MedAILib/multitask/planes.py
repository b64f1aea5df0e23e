"""In which plane, and which way up, slices are cut."""

from __future__ import annotations

PLANES = {"": "LPS", "axial": "LPS", "coronal": "LIP", "sagittal": "PIL"}
"""Axis code by plane, so that slices look as radiologists view them: columns i, rows j, slices k."""


def axes_of(orientation: str) -> str:
    """The axis code of a model's slices: of a plane by its name, axial where none is stated; a code as it is."""
    return PLANES.get(orientation.strip().lower(), orientation)
