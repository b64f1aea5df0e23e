"""The U-Net that draws findings after their texts: it learns, it listens to the text, it comes back from its file."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the network needs torch")

from CTReportLib.nets.heads_calibration import fit_calibration  # noqa: E402
from CTReportLib.nets.heads_unet import TextUNet, drawing_loss  # noqa: E402
from CTReportLib.nets.heads_weights import describe_head, load_head, save_head  # noqa: E402
from MedAILib.errors import InputError  # noqa: E402
from MedAILib.models.heads import HeadTask  # noqa: E402

SIDE = 16
STEPS = 80


def cases(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy volumes, and what is in them: a bright ball and a slab half as bright at the end; each in half of them."""
    torch.manual_seed(seed)
    z, y, x = torch.meshgrid(*[torch.arange(SIDE)] * 3, indexing="ij")
    wanted = torch.zeros(count, 2, SIDE, SIDE, SIDE)
    for number in range(count):
        centre = torch.randint(4, 12, (3,))
        if torch.rand(1) < 0.5:
            wanted[number, 0] = ((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < 10).float()
        if torch.rand(1) < 0.5:
            wanted[number, 1] = (y >= 11 + torch.randint(0, 3, (1,))).float() * (1 - wanted[number, 0])
    volume = 0.2 + 0.7 * wanted[:, :1] + 0.35 * wanted[:, 1:] + 0.05 * torch.randn(count, 1, SIDE, SIDE, SIDE)
    return volume, wanted


def dice(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(2 * (found & wanted).sum() / (found.sum() + wanted.sum()))


@pytest.fixture(scope="module")
def taught() -> TextUNet:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = TextUNet(base=8, depth=3, text_dim=6, findings=2)
    network.set_prompts(torch.randn(2, 6))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    slower = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, STEPS)
    for step in range(STEPS):
        volume, wanted = cases(4, seed=step)
        optimiser.zero_grad()
        drawing_loss(network(volume), wanted).backward()
        optimiser.step()
        slower.step()
    return network.eval()


def test_both_findings_are_drawn_in_volumes_it_never_saw(taught: TextUNet) -> None:
    volume, wanted = cases(16, seed=1000)
    with torch.inference_mode():
        found = taught(volume) > 0
    assert [dice(found[:, index], wanted[:, index] > 0) > 0.8 for index in range(2)] == [True, True]


def test_the_text_says_which_finding_is_drawn(taught: TextUNet) -> None:
    volume, _ = cases(3, seed=2000)
    texts = taught.prompt_features.clone()
    with torch.inference_mode():
        before = taught(volume)
        taught.set_prompts(texts.flip(0))
        after = taught(volume)
        taught.set_prompts(texts)
    assert torch.allclose(after, before.flip(1), atol=1e-5)
    assert (before[:, 0] - before[:, 1]).abs().max() > 1


def test_one_volume_with_a_coarsest_level_of_one_voxel_trains() -> None:
    network = TextUNet(base=4, depth=3, text_dim=3, findings=5).train()
    raw = network(torch.rand(1, 1, 4, 4, 4))
    drawing_loss(raw, torch.zeros_like(raw)).backward()
    assert raw.shape == (1, 5, 4, 4, 4)
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())


def test_the_published_task_needs_a_hundredth_of_the_published_parameters() -> None:
    with torch.device("meta"):
        network = TextUNet()
    assert sum(parameter.numel() for parameter in network.parameters()) < 5_000_000


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 1, 16, 16, 18)])
def test_volumes_it_cannot_halve_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="multiples of 4"):
        TextUNet(base=4, depth=3)(torch.zeros(shape))


@pytest.mark.parametrize("wrong", [{"base": 6}, {"base": 0}, {"depth": 0}])
def test_a_network_that_cannot_be_is_not_made(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        TextUNet(**wrong)


def test_it_comes_back_from_its_file_and_takes_no_calibration_of_whole_volumes(
    tmp_path: Path, taught: TextUNet
) -> None:
    names, path = ("nodule", "effusion"), tmp_path / "unet.safetensors"
    config = describe_head("a-unet", "ct_text_unet", names, base=8, depth=3, text_dim=6)
    save_head(taught, path, config)
    found = load_head(path)
    volume, _ = cases(1, seed=3000)
    with torch.inference_mode():
        assert torch.allclose(found.network(volume), taught(volume), atol=1e-5)
    assert (found.head.task, found.head.class_names) == (HeadTask.SEGMENTATION, names)
    raw, labels = torch.randn(40, 2).numpy(), torch.randint(0, 2, (40, 2)).numpy()
    with pytest.raises(InputError, match="does not belong"):
        save_head(taught, path, config, fit_calibration(raw, labels))
