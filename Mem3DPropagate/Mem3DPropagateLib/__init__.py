"""Propagation of a structure drawn on a few slices through its volume."""
