"""Mono-exponential fits: phantoms, noise floors, bounds."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.knee_t2 import ECHO_TIMES_MS, T2_MS, decays, magnitudes
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ive

from KneeAnalysisLib.decay import NoiseFloor, log_linear, non_linear, rician_mean

TIMES = np.array(ECHO_TIMES_MS)
SNR = 50.0


@pytest.mark.parametrize("t2_ms", T2_MS)
def test_phantom_t2_is_within_half_a_millisecond_at_snr_50(t2_ms):
    signals = magnitudes(decays(t2_ms, 20_000), SNR)
    fitted = non_linear(signals, TIMES, floor=NoiseFloor.RICIAN, noise_sd=1000.0 / SNR).t2_ms
    assert np.isfinite(fitted).all()
    assert abs(np.mean(fitted) - t2_ms) < 0.5
    assert abs(np.median(fitted) - t2_ms) < 0.5


def test_a_fit_that_ignores_the_noise_floor_reads_short_t2_higher():
    signals = magnitudes(decays(10.0, 20_000), 20.0)
    aware = non_linear(signals, TIMES, floor=NoiseFloor.RICIAN, noise_sd=50.0).t2_ms
    ignorant = non_linear(signals, TIMES).t2_ms
    assert abs(np.mean(aware) - 10.0) < 0.2
    assert np.mean(ignorant) - 10.0 > 0.5


@given(
    t2_ms=st.floats(5.0, 200.0), amplitude=st.floats(1e-3, 1e5), echoes=st.integers(2, 12), spacing=st.floats(5.0, 15.0)
)
def test_every_fit_finds_a_decay_without_noise(t2_ms, amplitude, echoes, spacing):
    times = spacing * np.arange(1, echoes + 1)
    signals = amplitude * np.exp(-times / t2_ms)[:, None]
    for decay in (log_linear(signals, times), log_linear(signals, times, weighted=True), non_linear(signals, times)):
        assert decay.t2_ms[0] == pytest.approx(t2_ms, rel=1e-3)
        assert decay.amplitude[0] == pytest.approx(amplitude, rel=1e-3)
        assert decay.r2[0] > 0.999


def test_an_offset_is_told_from_the_decay():
    signals = decays(20.0, 1) + 150.0
    fitted = non_linear(signals, TIMES, floor=NoiseFloor.OFFSET)
    assert fitted.t2_ms[0] == pytest.approx(20.0, rel=0.01)
    assert non_linear(signals, TIMES).t2_ms[0] > 22.0


def test_signals_that_do_not_decay_have_no_t2():
    nothing = np.zeros((8, 1))
    rising = np.linspace(1.0, 9.0, 8)[:, None]
    constant = np.full((8, 1), 5.0)
    signals = np.hstack([nothing, rising, constant])
    assert np.isnan(non_linear(signals, TIMES).t2_ms).all()
    assert np.isnan(log_linear(signals, TIMES).t2_ms).all()


def test_zeros_among_the_echoes_are_fitted_by_the_non_linear_fit_only():
    signals = decays(8.0, 1)
    signals[-2:] = 0.0
    assert non_linear(signals, TIMES).t2_ms[0] == pytest.approx(8.0, abs=0.2)
    assert np.isnan(log_linear(signals, TIMES).t2_ms[0])


def test_the_rician_mean_is_the_exact_one():
    signal = np.linspace(0.0, 25.0, 2001)
    half = signal**2 / 4.0
    exact = np.sqrt(np.pi / 2.0) * ((1.0 + 2.0 * half) * ive(0, half) + 2.0 * half * ive(1, half))
    mean, slope = rician_mean(signal)
    assert np.abs(mean - exact).max() < 0.0009
    assert np.abs(slope - np.gradient(mean, signal))[1:-1].max() < 1e-3
