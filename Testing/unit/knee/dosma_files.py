"""Knee networks whose answer is known: 1x1 convolutions that give every pixel the tissue of the nearest grey value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from keras_files import FIRST, KerasModel
from synthetic_knees import synthetic_image, synthetic_labels

FILES = {
    "sagittal": ("sagittal_best_model.h5", (64, 56)),
    "coronal": ("coronal_best_model.h5", (36, 64)),
    "axial": ("axial_best_model.h5", (36, 56)),
}
"""Name and size of the published files' stand-ins: as many rows and columns as the synthetic knee has."""


def grey_classifier(size: tuple[int, int], data_format: str = FIRST) -> KerasModel:
    """Class c has the logit ``2 g_c x - g_c^2``, which is highest for the grey value g_c nearest to x."""
    labels = synthetic_labels()
    image = synthetic_image(labels)
    means = np.array([image[labels == value].mean() for value in range(10)])
    grey = (means - image.mean()) / image.std()
    shape = (1, *size) if data_format == FIRST else (*size, 1)
    model = KerasModel(shape, data_format)
    logits = model.conv(model.input, 10, (1, 1))
    model.weights[logits] = {"kernel": (2 * grey).reshape(1, 1, 1, 10), "bias": -(grey**2)}
    model.weights[logits] = {key: array.astype(np.float32) for key, array in model.weights[logits].items()}
    model.outputs = [model.plain("Softmax", logits, axis=model.channel_axis)]
    return model


def save_classifiers(folder: Path) -> Path:
    """All three networks under their published names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in FILES.values():
        grey_classifier(size).save(folder / name)
    return folder
