"""Images that no model of the router was trained on: noise, blanks, photographs, blood cells.

Photographs are those that come with the packages scikit-image and scikit-learn (free licences, see their READMEs);
nothing is downloaded or copied.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

_SKIMAGE = """astronaut.png chelsea.png coffee.png rocket.jpg motorcycle_left.png grass.png gravel.png brick.png
camera.png coins.png hubble_deep_field.jpg""".split()
_CROPS = 20


def noise(count: int = 20, seed: int = 0) -> list[np.ndarray]:
    """Uniform and normal noise, grey and in colours, of 28, 64 and 224 pixels; so many of each."""
    rng = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for size in (28, 64, 224):
        for channels in (1, 3):
            for _ in range(count):
                shape = (size, size, channels)
                uniform = rng.integers(0, 256, shape, dtype=np.uint8)
                normal = np.clip(rng.normal(127, rng.uniform(10, 60), shape), 0, 255).astype(np.uint8)
                found += [_as_rgb(uniform), _as_rgb(normal)]
    return found


def blanks(seed: int = 0) -> list[np.ndarray]:
    """Images of one value: 52 greys and 52 colours."""
    rng = np.random.default_rng(seed)
    greys = np.repeat(np.linspace(0, 255, 52).round().astype(np.uint8)[:, None], 3, axis=1)
    colours = rng.integers(0, 256, (52, 3), dtype=np.uint8)
    return [np.ascontiguousarray(np.broadcast_to(value, (64, 64, 3))) for value in (*greys, *colours)]


def photographs(seed: int = 0) -> list[np.ndarray]:
    """Crops of photographs, in colours; empty where neither package is installed."""
    rng = np.random.default_rng(seed)
    return [_crop(picture, rng) for picture in _pictures() for _ in range(_CROPS)]


def grey(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """The same in grey, with three equal channels."""
    return [_as_rgb(np.rint(picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)) for picture in pictures]


def blood_cells(data: Path, most: int = 400) -> list[np.ndarray]:
    """Cells of blood smears (BCCD, MIT licence); ``data`` is the folder of the shared data."""
    with np.load(data / "img2d" / "bccd64.npz", allow_pickle=False) as file:
        images = file["images"]
    return list(images[:: max(len(images) // most, 1)])


def _pictures() -> list[np.ndarray]:
    found = []
    try:
        import skimage.data

        folder = Path(skimage.data.__file__).parent
        found += [
            np.asarray(Image.open(folder / name).convert("RGB")) for name in _SKIMAGE if (folder / name).is_file()
        ]
    except ImportError:
        pass
    try:
        from sklearn.datasets import load_sample_images

        found += list(load_sample_images().images)
    except ImportError:
        pass
    return found


def _crop(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    edge = int(rng.uniform(0.25, 1.0) * min(picture.shape[:2]))
    top, left = (int(rng.integers(0, length - edge + 1)) for length in picture.shape[:2])
    part = Image.fromarray(picture[top : top + edge, left : left + edge])
    return np.asarray(part.resize((128, 128), Image.Resampling.BILINEAR))


def _as_rgb(picture: np.ndarray) -> np.ndarray:
    picture = picture if picture.ndim == 3 else picture[..., None]
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
