"""Signals of known T2 with noise."""

from __future__ import annotations

import numpy as np

ECHO_TIMES_MS = tuple(6.312 * (n + 1) for n in range(8))
T2_MS = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0)


def magnitudes(true: np.ndarray, snr: float, amplitude: float = 1000.0, seed: int = 0) -> np.ndarray:
    """Magnitudes of signals with noise of amplitude / snr on the real and on the imaginary channel."""
    random = np.random.default_rng(seed)
    noise = random.normal(0.0, amplitude / snr, (2, *true.shape))
    return np.hypot(true + noise[0], noise[1])


def decays(t2_ms: float, count: int, amplitude: float = 1000.0) -> np.ndarray:
    """Mono-exponential signals at `ECHO_TIMES_MS`: shape (echoes, count)."""
    return np.repeat(amplitude * np.exp(-np.array(ECHO_TIMES_MS) / t2_ms)[:, None], count, axis=1)


def main() -> None:
    """Bias and spread of both fits by T2, and the CPU time of one as a multiple of the other's."""
    import sys
    from pathlib import Path
    from time import process_time

    repository = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(repository / part) for part in ("MedAIExtension", "KneeAnalysis")]
    from KneeAnalysisLib.decay import NoiseFloor, log_linear, non_linear

    times = np.array(ECHO_TIMES_MS)
    print(f"{'T2 ms':>6}{'log-linear':>18}{'non-linear':>18}  mean error and SD, SNR 50")
    seconds = np.zeros(2)
    for t2_ms in T2_MS:
        signals = magnitudes(decays(t2_ms, 100_000), 50.0)
        line = f"{t2_ms:6.0f}"
        for number, fit in enumerate(
            (log_linear, lambda *values: non_linear(*values, floor=NoiseFloor.RICIAN, noise_sd=20.0))
        ):
            started = process_time()
            found = fit(signals, times).t2_ms
            seconds[number] += process_time() - started
            line += f"{np.nanmean(found) - t2_ms:+10.2f} {np.nanstd(found):7.2f}"
        print(line)
    voxels = 100_000 * len(T2_MS)
    print(f"CPU: log-linear {seconds[0] / voxels * 1e6:.2f} s, non-linear {seconds[1] / voxels * 1e6:.2f} s a million "
          f"voxels ({seconds[1] / seconds[0]:.0f} times)")  # fmt: skip


if __name__ == "__main__":
    main()
