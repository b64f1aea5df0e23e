"""Mono-exponential decay fitted to many voxels at once.

S(TE) = A exp(-TE / T2), starting from a weighted straight line through the logarithms and refined on the signal
itself by Levenberg-Marquardt steps for all voxels together. Magnitude images have a floor: where the signal is not
above the noise, its mean is. The floor is modelled by the mean of the Rician distribution with a known noise SD, or
as a free offset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

SHORTEST_T2_MS, LONGEST_T2_MS = 1.0, 1000.0
"""Between these the fit moves; what stops at a bound is reported as no value."""

_VOXELS_AT_ONCE = 32768
_MOST_STEPS = 25
_CONVERGED = 1e-4
"""Relative change of the rate at which a voxel is done."""
_GIVE_UP_DAMPING = 1e6


class NoiseFloor(Enum):
    """How the fit accounts for the floor of magnitude images."""

    NONE = "none"
    RICIAN = "rician"
    """The mean of a Rician distribution; the noise SD is given."""
    OFFSET = "offset"
    """A constant of each voxel, fitted, not below zero; needs at least four echoes."""


@dataclass(frozen=True, eq=False)
class Decay:
    """Fitted decays; all arrays float32 of shape (n,), not a number where there is no fit.

    Attributes
    ----------
    t2_ms : ndarray
    amplitude : ndarray
        Signal at echo time 0.
    r2 : ndarray
        Coefficient of determination: of the logarithms for `log_linear`, else of the signal.
    """

    t2_ms: np.ndarray
    amplitude: np.ndarray
    r2: np.ndarray


def log_linear(signals: np.ndarray, echo_times_ms: np.ndarray, *, weighted: bool = False) -> Decay:
    """Straight line through the logarithms of the signal.

    Parameters
    ----------
    signals : ndarray, shape (echoes, n)
        Voxels with a signal that is not above zero get no fit.
    echo_times_ms : ndarray, shape (echoes,)
    weighted : bool
        Weights each echo by its squared signal, which is what noise of one SD on all echoes asks for.
    """
    times = np.asarray(echo_times_ms, np.float64)
    return _in_batches(signals, lambda part: _line(np.asarray(part, np.float64), times, weighted, 1.0 / LONGEST_T2_MS))


def non_linear(
    signals: np.ndarray,
    echo_times_ms: np.ndarray,
    *,
    floor: NoiseFloor = NoiseFloor.NONE,
    noise_sd: float = 0.0,
) -> Decay:
    """Least squares on the signal itself.

    Parameters
    ----------
    signals : ndarray, shape (echoes, n)
        Magnitudes; zeros are allowed, voxels without any signal get no fit.
    echo_times_ms : ndarray, shape (echoes,)
    floor : NoiseFloor
    noise_sd : float
        Of the real and of the imaginary channel, in the unit of the signals; for `NoiseFloor.RICIAN`.
    """
    times = np.asarray(echo_times_ms, np.float64)
    return _in_batches(signals, lambda part: _fit(np.asarray(part, np.float64), times, floor, noise_sd))


def rician_mean(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a magnitude whose true value is `signal`, and its derivative; both in units of the noise SD.

    The mean is sqrt(pi/2) L(1/2, -s^2/2); here a closed form that meets its limits at 0 and infinity and is nowhere
    farther from it than 0.0009 noise SD (fitted to the exact one on 0..30).
    """
    square = np.square(signal)
    below = 1.0 + square * (_BEND[0] + _BEND[1] * square)
    extra = (np.pi / 2.0 - 1.0) / below
    mean = np.sqrt(square + 1.0 + extra)
    slope = signal * (1.0 - extra * (_BEND[0] + 2.0 * _BEND[1] * square) / below) / mean
    return mean, slope


_BEND = (0.38870072, 0.05339513)


_Fitted = tuple[np.ndarray, np.ndarray, np.ndarray]
"""T2, amplitude, R2."""


def _in_batches(signals: np.ndarray, fit: Callable[[np.ndarray], _Fitted]) -> Decay:
    """Fit a few ten thousand voxels at a time: their arrays stay in the processor's cache."""
    count = signals.shape[1]
    results = np.full((3, count), np.nan, np.float32)
    for first in range(0, count, _VOXELS_AT_ONCE):
        part = slice(first, min(first + _VOXELS_AT_ONCE, count))
        for row, values in zip(results, fit(signals[:, part]), strict=True):
            row[part] = values
    return Decay(*results)


def _line(signals: np.ndarray, times_ms: np.ndarray, weighted: bool, slowest: float) -> _Fitted:
    times = times_ms[:, None]
    usable = (signals > 0).all(axis=0)
    safe = np.where(usable, signals, 1.0)
    logs = np.log(safe)
    weights = np.square(safe / safe.max(axis=0)) if weighted else np.ones_like(logs)
    total = weights.sum(axis=0)
    mean_log = (weights * logs).sum(axis=0) / total
    from_mean = times - (weights * times).sum(axis=0) / total
    slope = (weights * from_mean * (logs - mean_log)).sum(axis=0) / (weights * from_mean**2).sum(axis=0)
    level = mean_log + slope * (from_mean[0] - times[0])
    spread = (weights * (logs - mean_log) ** 2).sum(axis=0)
    missing = ~(usable & (slope < -slowest))
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1.0 - (weights * (logs - mean_log - slope * from_mean) ** 2).sum(axis=0) / spread
        t2_ms = -1.0 / slope
    return _without(t2_ms, missing), _without(np.exp(level), missing), _without(r2, missing)


def _fit(signals: np.ndarray, times_ms: np.ndarray, floor: NoiseFloor, noise_sd: float) -> _Fitted:
    scale = signals.max(axis=0)
    alive = np.isfinite(scale) & (scale > 0)
    scale = np.where(alive, scale, 1.0)
    scaled = np.where(alive, signals / scale, 0.0)
    unit_ms = times_ms.mean()
    times = (times_ms / unit_ms)[:, None]
    model = _Model(times, unit_ms / LONGEST_T2_MS, unit_ms / SHORTEST_T2_MS, floor, noise_sd / scale)
    t2_guess, amplitude_guess, _ = _line(np.maximum(scaled, 1e-3), times[:, 0], True, model.slowest)
    rate = np.where(t2_guess > 0, 1.0 / t2_guess, model.slowest)
    amplitude = np.where(np.isfinite(amplitude_guess), amplitude_guess, 1.0)
    start = [np.minimum(amplitude, 20.0), rate] + ([np.zeros_like(rate)] if floor is NoiseFloor.OFFSET else [])
    parameters, cost = _levenberg_marquardt(model, scaled, model.bounded(np.array(start, np.float64)))

    spread = np.square(scaled - scaled.mean(axis=0)).sum(axis=0)
    at_bound = (parameters[1] <= model.slowest * 1.001) | (parameters[1] >= model.fastest * 0.999)
    missing = ~alive | at_bound
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1.0 - cost / spread
    t2_ms, at_zero = unit_ms / parameters[1], parameters[0] * scale
    return _without(t2_ms, missing), _without(at_zero, missing), _without(r2, missing)


@dataclass(frozen=True, eq=False)
class _Model:
    """Signal and derivatives for parameters (amplitude, rate[, offset]), each of shape (n,)."""

    times: np.ndarray
    slowest: float
    fastest: float
    floor: NoiseFloor
    noise_sd: np.ndarray

    def of(self, voxels: np.ndarray) -> _Model:
        return _Model(self.times, self.slowest, self.fastest, self.floor, self.noise_sd[voxels])

    def bounded(self, parameters: np.ndarray) -> np.ndarray:
        parameters[0] = np.maximum(parameters[0], 0.0)
        parameters[1] = np.clip(parameters[1], self.slowest, self.fastest)
        if len(parameters) > 2:
            parameters[2] = np.clip(parameters[2], 0.0, 1.0)
        return parameters

    def evaluate(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signal (echoes, n) and Jacobian (parameters, echoes, n)."""
        amplitude, rate = parameters[0], parameters[1]
        decay = np.exp(-self.times * rate)
        signal = amplitude * decay
        jacobian = np.empty((len(parameters), *decay.shape))
        jacobian[0] = decay
        np.multiply(-self.times, signal, out=jacobian[1])
        if self.floor is NoiseFloor.OFFSET:
            jacobian[2] = 1.0
            signal = signal + parameters[2]
        elif self.floor is NoiseFloor.RICIAN:
            noise = np.maximum(self.noise_sd, 1e-9)
            mean, slope = rician_mean(signal / noise)
            signal = mean * noise
            jacobian *= slope
        return signal, jacobian


def _levenberg_marquardt(model: _Model, signals: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and sums of squares of all voxels; those that have converged drop out of the work."""
    parameters = start
    cost = np.square(signals - model.evaluate(start)[0]).sum(axis=0)
    damping = np.full(signals.shape[1], 1e-3)
    active = np.arange(signals.shape[1])
    for _ in range(_MOST_STEPS):
        here, values, measured = model.of(active), parameters[:, active], signals[:, active]
        predicted, jacobian = here.evaluate(values)
        gradient = np.einsum("pen,en->pn", jacobian, measured - predicted)
        curvature = np.einsum("pen,qen->pqn", jacobian, jacobian)
        for p in range(len(values)):
            curvature[p, p] = curvature[p, p] * (1.0 + damping[active]) + 1e-12
        moved = here.bounded(values + _solved(curvature, gradient))
        moved_cost = np.square(measured - here.evaluate(moved)[0]).sum(axis=0)
        better = moved_cost <= cost[active]
        still = np.abs(moved[1] - values[1]) <= _CONVERGED * values[1]
        accepted = active[better]
        parameters[:, accepted], cost[accepted] = moved[:, better], moved_cost[better]
        damping[active] *= np.where(better, 0.1, 10.0)
        active = active[~still & (damping[active] < _GIVE_UP_DAMPING)]
        if not active.size:
            break
    return parameters, cost


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution of n small symmetric systems: matrix (p, p, n), right (p, n); elimination without pivots."""
    size = len(right)
    for column in range(size):
        for row in range(column + 1, size):
            factor = matrix[row, column] / matrix[column, column]
            matrix[row, column:] -= factor * matrix[column, column:]
            right[row] -= factor * right[column]
    for row in reversed(range(size)):
        for column in range(row + 1, size):
            right[row] -= matrix[row, column] * right[column]
        right[row] /= matrix[row, row]
    return right


def _without(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    return np.where(missing, np.nan, values)
