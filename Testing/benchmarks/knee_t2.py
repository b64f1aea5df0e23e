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
