"""The library all MedAI modules share: values, jobs, the MRML door, user interface pieces, command line.

Importing it loads nothing heavy: no torch, no SimpleITK, no slicer.
"""

__version__ = "0.1.0"
