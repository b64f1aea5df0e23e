"""Our network as a function: what it must do whatever its weights are."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from Mem3DPropagateLib.nets.gapmodel import EMBEDDED, load_gap_model, save_gap_model  # noqa: E402
from Mem3DPropagateLib.nets.gapnet import IMAGES, SCALARS, GapNet  # noqa: E402

SIDE = 32


def stirred(seed: int = 0) -> GapNet:
    """A network whose every weight is some number, the last layer too."""
    torch.manual_seed(seed)
    network = GapNet(width=8, keys=8).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def some_input(refs: int = 3, wanted: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "references": random(2, refs, IMAGES, SIDE, SIDE),
        "shapes": random(2, refs, 2, SIDE, SIDE),
        "held": torch.ones(2, refs, dtype=torch.bool),
        "slices": random(2, wanted, IMAGES, SIDE, SIDE),
        "priors_px": 4 * random(2, wanted, SIDE, SIDE),
        "scalars": random(2, wanted, SCALARS),
        "apart_px": 1 + 10 * torch.rand((2, wanted, refs), generator=generator),
    }


def ask(network: GapNet, given: dict[str, torch.Tensor]):
    with torch.inference_mode():
        return network(**given)


def test_an_untrained_network_answers_geometry():
    torch.manual_seed(0)
    given = some_input()
    answered = ask(GapNet(width=8, keys=8).eval(), given)
    torch.testing.assert_close(answered.level_px, given["priors_px"])
    assert answered.presence.shape == answered.quality.shape == (2, 4)


def test_at_a_reference_nothing_is_corrected():
    given = some_input()
    given["apart_px"][:, 1, 2] = 0.0
    answered = ask(stirred(), given)
    torch.testing.assert_close(answered.level_px[:, 1], given["priors_px"][:, 1])
    assert (answered.correction_px[:, 0].abs() > 1e-4).any()


def test_corrections_grow_with_the_distance_to_the_nearest_reference():
    given = some_input()
    network = stirred()
    sizes = []
    for apart in (0.5, 5.0, 50.0):
        given["apart_px"][:] = apart
        sizes.append(float(ask(network, given).correction_px.abs().mean()))
    assert sizes[0] < sizes[1] < sizes[2]


def test_references_that_only_fill_up_a_batch_change_nothing():
    given = some_input(refs=3)
    more = {name: tensor.clone() for name, tensor in given.items()}
    for name in ("references", "shapes"):
        more[name] = torch.cat((more[name], 100 * torch.ones_like(more[name][:, :1])), 1)
    more["held"] = torch.cat((given["held"], torch.zeros(2, 1, dtype=torch.bool)), 1)
    more["apart_px"] = torch.cat((given["apart_px"], torch.zeros(2, 4, 1)), 2)
    network = stirred()
    torch.testing.assert_close(ask(network, more).level_px, ask(network, given).level_px, rtol=1e-4, atol=1e-4)


def test_the_order_of_references_does_not_matter():
    given = some_input()
    turned = dict(given)
    for name in ("references", "shapes", "held"):
        turned[name] = given[name].flip(1)
    turned["apart_px"] = given["apart_px"].flip(2)
    network = stirred()
    torch.testing.assert_close(ask(network, turned).level_px, ask(network, given).level_px, rtol=1e-4, atol=1e-4)


def test_a_slice_is_answered_alike_alone_and_in_company():
    given = some_input()
    network = stirred()
    together = ask(network, given)
    alone = {name: tensor[:1] for name, tensor in given.items()}
    for name in ("slices", "priors_px", "scalars", "apart_px"):
        alone[name] = given[name][:1, 2:3]
    answered = ask(network, alone)
    torch.testing.assert_close(answered.level_px[0, 0], together.level_px[0, 2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answered.quality[0, 0], together.quality[0, 2], rtol=1e-4, atol=1e-4)


def test_stating_a_quality_does_not_bend_the_answer():
    given = some_input()
    network = stirred().train()
    network(**given).quality.sum().backward()
    assert network.answer.weight.grad is None
    assert network.encoder.stem.weight.grad is None
    assert network.quality[0].weight.grad.abs().sum() > 0


def test_a_saved_network_is_loaded_as_it_was_to_half_precision(tmp_path):
    network = stirred()
    path = tmp_path / "Gewichte ü" / "model.safetensors"
    path.parent.mkdir()
    save_gap_model(network, path, {"width": 8, "keys": 8}, {"steps": 3})
    loaded = load_gap_model(path)
    assert loaded.licence == "", "it depends on the data"
    given = some_input()
    torch.testing.assert_close(ask(loaded.network, given).level_px, ask(network, given).level_px, rtol=2e-2, atol=2e-2)


def test_the_embedded_network_is_small_and_described():
    loaded = load_gap_model()
    assert loaded.licence == "CC-BY-SA-4.0"
    assert EMBEDDED.stat().st_size < 8_000_000
    assert sum(parameter.numel() for parameter in loaded.network.parameters()) == 1_191_957
    assert all(np.isfinite(parameter.detach().numpy()).all() for parameter in loaded.network.parameters())
    assert (EMBEDDED.parent / "model_config.json").is_file()
    assert "research" in (EMBEDDED.parent / "README.md").read_text(encoding="utf-8").lower()
