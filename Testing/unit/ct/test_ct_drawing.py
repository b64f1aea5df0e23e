"""Networks that draw: whole or in tiles alike, padded, measured in the CT, and never with numbers that are none."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from CTReportLib.nets.drawing import drawn  # noqa: E402
from CTReportLib.nets.heads_unet import TextUNet  # noqa: E402
from MedAILib.errors import Cancelled, InvalidWeights  # noqa: E402


class Local(torch.nn.Module):
    """Answers each voxel from that voxel alone, so that tiles must not show at all."""

    def __init__(self, step: int = 1) -> None:
        super().__init__()
        self.step = step
        self.seen: list[tuple[int, ...]] = []

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(volume.shape[2:]))
        assert not any(side % self.step for side in volume.shape[2:])
        return torch.cat([volume, 2 * volume - 1], dim=1)


def an_image(*sides: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, *sides)).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 20)] * 3), st.sampled_from([1, 2, 4]), st.integers(30, 4000))
def test_tiles_do_not_show(sides: tuple[int, int, int], step: int, voxels: int) -> None:
    image, network = an_image(*sides), Local(step)
    raw = drawn(network, image, 2, step=step, width=1, most_bytes=32 * voxels)
    assert raw.shape == (2, *sides)
    assert np.allclose(raw, np.concatenate([image, 2 * image - 1]), atol=1e-5)
    most = max(voxels, step**3)
    assert all(np.prod(seen) <= 2 * most or max(seen) <= step for seen in network.seen)


def test_what_fits_is_read_whole_and_the_rest_in_overlapping_tiles() -> None:
    whole, tiled = Local(), Local()
    drawn(whole, an_image(8, 8, 8), 2, width=1)
    assert whole.seen == [(8, 8, 8)]
    told: list[float] = []
    drawn(tiled, an_image(8, 8, 8), 2, width=1, most_bytes=32 * 64, watch=told.append)
    assert set(tiled.seen) == {(4, 4, 4)} and len(tiled.seen) == 27
    assert told == sorted(told) and told[-1] == 1.0


def test_the_network_of_the_localiser_takes_sides_that_are_no_multiples() -> None:
    torch.manual_seed(0)
    network = TextUNet(1, 4, 3, 8, 2).eval()
    raw = drawn(network, an_image(9, 8, 13), 2, step=network.step, width=4)
    assert raw.shape == (2, 9, 8, 13) and np.isfinite(raw).all()


def test_it_can_be_stopped_between_two_tiles() -> None:
    def stop(share: float) -> None:
        raise Cancelled("Stop.")

    network = Local()
    with pytest.raises(Cancelled):
        drawn(network, an_image(8, 8, 8), 2, width=1, most_bytes=32 * 64, watch=stop)
    assert len(network.seen) == 1


def test_values_that_are_no_numbers_are_refused() -> None:
    image = an_image(4, 4, 4)
    image[0, 2, 2, 2] = np.nan
    with pytest.raises(InvalidWeights, match="no numbers"):
        drawn(Local(), image, 2)
