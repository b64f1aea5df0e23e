"""Preprocessing of a 512 x 512 x 400 CT to 2 mm 192³: ours, and the same grid by scipy; MONAI's chain where installed.

    python Testing/benchmarks/ct_preprocess.py

Times are the best of three in one run, on two threads. `pip install monai` for the comparison with its chain.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / part) for part in ("MedAIExtension", "CTReport", "Testing")]

from chest_phantoms import ChestSpec, make_chest  # noqa: E402

from CTReportLib.preprocess import PRIMUS_LAYOUT, RECT_LAYOUT, Prepared, layout_grid, prepare  # noqa: E402
from MedAILib.grids import resampled  # noqa: E402
from MedAILib.volume import Geometry, Volume  # noqa: E402

SHAPE, SPACING = (400, 512, 512), (0.7, 0.7, 0.85)
THREADS, REPEATS = 2, 3


def large_chest() -> Volume:
    """A phantom as a scanner would give it: 512 x 512 x 400, int16, stored LPS."""
    small = make_chest(ChestSpec(spacing_mm=2.0)).volume
    matrix = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    extent = np.array(SPACING) * (np.array(SHAPE[::-1]) - 1)
    matrix[:3, 3] = extent[0] / 2, extent[1] / 2, -extent[2] / 2
    return resampled(small, Geometry(SHAPE, matrix), "linear", fill=-1000)


def by_scipy(volume: Volume) -> np.ndarray:
    """The same grid by `scipy.ndimage.affine_transform`, first order, windowed."""
    from scipy import ndimage

    grid = layout_grid(volume, PRIMUS_LAYOUT)
    step = np.linalg.inv(volume.ijk_to_ras) @ grid.ijk_to_ras
    matrix, offset = step[:3, :3][::-1, ::-1], step[:3, 3][::-1]
    hu = ndimage.affine_transform(
        volume.array.astype(np.float32), matrix, offset, output_shape=grid.shape_kji, order=1, cval=-1000.0
    )
    return np.clip(hu, -1000, 1000) / 1000


def by_monai(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """MONAI's Orientation and Spacing, windowed, without a crop around the lungs: values (k, j, i) and IJK-to-RAS."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Orientation, Spacing

    torch.set_num_threads(THREADS)
    data = torch.from_numpy(volume.array.transpose(2, 1, 0).astype(np.float32))[None]
    image = Spacing(pixdim=(2.0, 2.0, 2.0))(Orientation("LPS")(MetaTensor(data, affine=volume.ijk_to_ras)))
    values = np.asarray(image[0].clip(-1000, 1000) / 1000).transpose(2, 1, 0)
    return values, np.asarray(image.affine, dtype=float)


def difference(ours: Prepared, values: np.ndarray, ijk_to_ras: np.ndarray) -> float:
    """Mean absolute difference of windowed values at the voxels that both grids hold."""
    shift = np.rint(np.linalg.inv(ijk_to_ras) @ ours.geometry.ijk_to_ras)[:3, 3].astype(int)[::-1]
    first = np.maximum(shift, 0)
    last = np.minimum(shift + ours.hu.shape, values.shape)
    here = tuple(slice(a - s, b - s) for a, b, s in zip(first, last, shift, strict=True))
    there = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    return float(np.abs(ours.channels[0][here] - values[there]).mean())


def best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        started = perf_counter()
        work()
        times.append(perf_counter() - started)
    return min(times)


def main() -> None:
    """Seconds of each way, and how far the values lie apart."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(THREADS)
    volume = large_chest()
    ours = best(lambda: prepare(volume).channels)
    print(f"2 mm 192^3, ours        {ours:6.2f} s")
    print(f"64 x 512 x 512, ours    {best(lambda: prepare(volume, RECT_LAYOUT).channels):6.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        prepare(volume, cache=Path(folder))
        print(f"2 mm 192^3, from cache  {best(lambda: prepare(volume, cache=Path(folder)).channels):6.2f} s")
    other = best(lambda: by_scipy(volume))
    apart = float(np.abs(prepare(volume).channels[0] - by_scipy(volume)).mean())
    print(
        f"2 mm 192^3, scipy       {other:6.2f} s, {other / ours:.1f} times ours; mean absolute difference {apart:.5f}"
    )
    try:
        import monai  # noqa: F401
    except ImportError:
        print("MONAI is not installed: its chain was not timed.")
    else:
        chain = best(lambda: by_monai(volume))
        apart = difference(prepare(volume), *by_monai(volume))
        print(f"MONAI Orientation, Spacing {chain:3.2f} s, {chain / ours:.1f} times ours; ", end="")
        print(f"mean absolute difference {apart:.5f}")


if __name__ == "__main__":
    main()
