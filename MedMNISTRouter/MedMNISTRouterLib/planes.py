"""Names of the axis across the slices of a volume."""

from __future__ import annotations

AXES = ("auto", "i", "j", "k", "axial", "coronal", "sagittal")
"""The voxels' own axes, or the plane of the slices; ``auto``: the coarsest axis."""

PLANE_OF = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}
"""The plane of slices across an axis that runs that way."""
