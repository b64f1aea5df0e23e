"""Seconds from Cancel to a free worker, while a network of the knee is in the middle of its work.

python Testing/benchmarks/knee_cancel.py            # half a minute; one thread
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / part) for part in ("MedAIExtension", "KneeAnalysis", "Testing/unit/knee")]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])

from keras_files import residual_unet  # noqa: E402
from synthetic_knees import synthetic_volume  # noqa: E402

from KneeAnalysisLib.engines import SegmentTask  # noqa: E402
from KneeAnalysisLib.segmentation import EngineName, EngineOptions, SegmentRequest  # noqa: E402
from MedAILib.jobs.worker_runner import WorkerRunner  # noqa: E402


def main(runs: int = 5) -> None:
    with tempfile.TemporaryDirectory() as folder, WorkerRunner(threads=1) as runner:
        weights = residual_unet((1, 512, 512), filters=24).save(Path(folder) / "sagittal_best_model.h5")
        request = SegmentRequest(
            synthetic_volume()[0], EngineName.DOSMA_SAGITTAL, (weights,), options=EngineOptions(batch_size=36)
        )
        for _ in range(runs):
            seen: list[float] = []
            job = runner.start(SegmentTask, request, lambda progress, seen=seen: seen.append(progress.fraction))
            while not any(fraction >= 0.1 for fraction in seen):
                job.poll()
                time.sleep(0.01)
            time.sleep(1.0)  # in the middle of a batch that takes minutes
            began = time.perf_counter()
            job.cancel()
            print(f"cancelled in {time.perf_counter() - began:.3f} s")


if __name__ == "__main__":
    main()
