"""Run in a process of its own: writes small Keras files with real Keras into the folder that is named."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def main(folder: Path) -> None:
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    layers = keras.layers

    image = keras.Input((32, 32, 3))
    seen = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(image)
    norm = layers.BatchNormalization(name="norm")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3, strides=2, activation="relu")(norm(seen)))
    plain = keras.Model(image, layers.Dense(9, activation="softmax")(layers.Dropout(0.3)(x)))
    pictures = np.random.default_rng(0).uniform(0, 1, (16, 8, 8, 3)).repeat(4, 1).repeat(4, 2).astype(np.float32)
    values = np.asarray(keras.Model(image, seen)(pictures))  # as if it had been trained on 0 to 1
    norm.moving_mean.assign(values.mean(axis=(0, 1, 2)))
    norm.moving_variance.assign(values.var(axis=(0, 1, 2)))
    plain.save(folder / "stage2_pathmnist_final.keras")

    inner = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.05, 0.06, 0.07]),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(8, name="logits"),
        ]
    )
    inner.save(folder / "stage2_bloodmnist_final.keras")

    strange = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(5, 3), layers.GlobalAveragePooling2D()])
    strange.save(folder / "stage2_dermamnist_final.keras")

    batch = np.random.default_rng(1).uniform(-100, 150, (3, 32, 32, 3)).astype(np.float32)
    np.savez(folder / "expected.npz", batch=batch, answers=np.asarray(plain(batch)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
