"""A trained network as convolutions with a bias: each batch normalisation folded into the convolution before it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from MedMNISTRouterLib.train.layout import NORMALISATION_EPSILON, Layout

PAIRS = (("conv1", "norm1"), ("conv2", "norm2"), ("conv3", "norm3"))


def folded(layout: Layout, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights and biases by the convolution's name.

    Parameters
    ----------
    layout : Layout
    tensors : mapping of str to ndarray
        The network's state, by torch's names.

    Returns
    -------
    dict of str to ndarray, float32
        ``NAME.weight``, shape (outputs, inputs, rows, columns), and ``NAME.bias``; the head's as they are,
        shape (outputs, inputs).
    """
    pairs = [("stem", "stem_norm")]
    for stage in layout.stages:
        for block in stage:
            used = PAIRS if block.has_projection else PAIRS[:2]
            pairs += [(f"{block.name}.{conv}", f"{block.name}.{norm}") for conv, norm in used]
    found = {name: np.asarray(tensors[name], np.float32) for name in ("head.weight", "head.bias")}
    for conv, norm in pairs:
        weight, scale, shift, mean, variance = (
            np.asarray(tensors[name], np.float64)
            for name in (
                f"{conv}.weight", f"{norm}.weight", f"{norm}.bias", f"{norm}.running_mean", f"{norm}.running_var",
            )
        )  # fmt: skip
        factor = scale / np.sqrt(variance + NORMALISATION_EPSILON)
        found[f"{conv}.weight"] = (weight * factor[:, None, None, None]).astype(np.float32)
        found[f"{conv}.bias"] = (shift - mean * factor).astype(np.float32)
    return found
