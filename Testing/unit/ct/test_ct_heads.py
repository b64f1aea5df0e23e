"""Heads for findings: what they answer, that they learn, and their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the heads need torch")

from rect3d_cases import some_features  # noqa: E402

from CTReportLib.nets.features import Features  # noqa: E402
from CTReportLib.nets.heads import (  # noqa: E402
    AttentionProbe,
    LinearProbe,
    PromptClassifier,
    finding_loss,
    prompt_pair,
    zero_shot,
)
from CTReportLib.nets.heads_calibration import UNKNOWN, fit_calibration, probabilities  # noqa: E402
from CTReportLib.nets.heads_weights import FACTORIES, describe_head, load_head, save_head  # noqa: E402
from MedAILib.errors import ConfigMismatch, InputError, InvalidWeights  # noqa: E402

NAMES = ("effusion", "nodule", "emphysema")
PARAMETERS = {
    "ct_prompt_classifier": {"vision_dim": 24, "text_dim": 10, "shared_dim": 16},
    "ct_linear_probe": {"vision_dim": 24},
    "ct_attention_probe": {"vision_dim": 24},
}


def a_head(kind: str, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    head = FACTORIES[kind](**PARAMETERS[kind], findings=len(NAMES)).eval()
    if isinstance(head, PromptClassifier):
        head.set_prompts(torch.randn(len(NAMES), 10))
    return head


def test_the_prompt_classifier_is_a_cosine_over_a_temperature_plus_a_bias() -> None:
    head = PromptClassifier(24, 10, 16, 3, live=False).eval()
    with torch.no_grad():
        head.disease_text_embeds.normal_()
        head.disease_bias.normal_()
        features = some_features()
        seen = head.vision_proj((features.pooled + features.regions.mean(dim=1)) / 2)
        texts = head.disease_text_embeds + head.soft_prompts
        cosines = torch.nn.functional.cosine_similarity(seen[:, None], texts[None], dim=-1)
        for temperature, used in ((0.07, 0.07), (0.5, 0.5), (0.001, 0.01), (-1.0, 0.01)):
            head.temperature.fill_(temperature)
            assert torch.allclose(head(features), cosines / used + head.disease_bias, atol=1e-4)
        assert torch.allclose(head.similarities(features), cosines, atol=1e-6)


def test_the_published_classifier_has_the_published_tensors() -> None:
    head = PromptClassifier(live=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    projections = {f"{part}_proj.{index}.weight" for part in ("vision", "text") for index in (0, 1, 3, 4)}
    assert shapes.keys() == {
        *projections,
        *(name.replace("weight", "bias") for name in projections),
        *("temperature", "soft_prompts", "disease_bias", "disease_text_embeds"),
    }
    assert (shapes["temperature"], shapes["soft_prompts"], shapes["vision_proj.0.weight"]) == (
        (),
        (18, 512),
        (512, 768),
    )
    assert sum(parameter.numel() for parameter in head.parameters()) == 1_326_099


def test_the_projection_of_texts_learns_only_where_texts_are_projected_anew() -> None:
    for live in (True, False):
        head = PromptClassifier(24, 10, 16, 3, live=live)
        if live:
            head.set_prompts(torch.randn(3, 10))
        head(some_features()).square().sum().backward()
        assert (head.text_proj[0].weight.grad is not None) is live
        assert head.temperature.grad is not None


def test_prompts_of_another_shape_or_of_no_numbers_are_refused() -> None:
    head = PromptClassifier(24, 10, 16, 3)
    for wrong in (torch.zeros(3, 9), torch.zeros(2, 10), torch.full((3, 10), float("nan"))):
        with pytest.raises(InputError):
            head.set_prompts(wrong)
    with pytest.raises(InputError, match="fixed"):
        PromptClassifier(24, 10, 16, 3, live=False).set_prompts(torch.zeros(3, 10))


def test_features_without_regions_are_taken_too() -> None:
    for kind in PARAMETERS:
        assert a_head(kind)(some_features(regions=None)).shape == (3, 3)


def test_the_attention_probe_finds_one_patch_among_many_and_looks_there() -> None:
    torch.manual_seed(0)
    head = AttentionProbe(24, 1)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.01)
    mark = torch.randn(24) * 2

    def cases(count: int) -> tuple[Features, torch.Tensor, torch.Tensor]:
        patches = torch.randn(count, 64, 24)
        present, place = torch.rand(count) < 0.5, torch.randint(0, 64, (count,))
        patches[present.nonzero()[:, 0], place[present]] = mark + torch.randn(int(present.sum()), 24) * 0.5
        return Features(pooled=patches.mean(dim=1), patches=patches, grid=(4, 4, 4)), present, place

    for _ in range(150):
        features, present, _ = cases(32)
        optimiser.zero_grad()
        finding_loss(head(features), present[:, None]).backward()
        optimiser.step()
    features, present, place = cases(200)
    with torch.no_grad():
        right = ((head(features)[:, 0] > 0) == present).float().mean()
        looked = head.attention(features)
    assert right > 0.95
    assert looked.shape == (200, 1, 4, 4, 4)
    assert torch.allclose(looked.sum(dim=(2, 3, 4)), torch.ones(200, 1), atol=1e-5)
    assert (looked.flatten(1).argmax(dim=1) == place)[present].float().mean() > 0.95


def test_the_linear_probe_learns_what_is_linear() -> None:
    torch.manual_seed(0)
    head, truth = LinearProbe(24, 2), torch.randn(24, 2)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    features = some_features(400)
    labels = (features.pooled @ truth > 0).long()
    for _ in range(150):
        optimiser.zero_grad()
        finding_loss(head(features), labels).backward()
        optimiser.step()
    unseen = some_features(400, seed=9)
    assert (((head(unseen) > 0).long()) == (unseen.pooled @ truth > 0)).float().mean() > 0.93


def test_zero_shot_is_the_softmax_over_two_prompts() -> None:
    torch.manual_seed(0)
    vision, present, absent = torch.randn(4, 8), torch.randn(3, 8), torch.randn(3, 8)
    found = zero_shot(vision, present, absent, 0.1).sigmoid()
    unit = [torch.nn.functional.normalize(part, dim=-1) for part in (vision, present, absent)]
    both = torch.stack([unit[0] @ unit[1].T, unit[0] @ unit[2].T], dim=-1) / 0.1
    assert torch.allclose(found, both.softmax(dim=-1)[..., 0], atol=1e-6)
    assert prompt_pair("Lung nodule") == ("Lung nodule is present.", "Lung nodule is not present.")
    for wrong in (
        (vision[:, :7], present, absent, 0.1),
        (vision, present[:2], absent, 0.1),
        (vision, present, absent, 0),
    ):
        with pytest.raises(InputError):
            zero_shot(*wrong)


def test_findings_nobody_looked_for_take_no_part_in_the_loss() -> None:
    raw, labels = torch.tensor([[2.0, -30.0], [-1.0, 5.0]]), torch.tensor([[1, UNKNOWN], [0, UNKNOWN]])
    known = torch.nn.functional.binary_cross_entropy_with_logits(raw[:, 0], torch.tensor([1.0, 0.0]))
    assert torch.allclose(finding_loss(raw, labels), known)
    assert finding_loss(raw, torch.full_like(labels, UNKNOWN)) == 0


def test_the_focal_loss_is_that_of_its_formula() -> None:
    raw, labels = torch.tensor([[1.5, -0.3]]), torch.tensor([[1, 0]])
    p = raw.sigmoid()[0]
    wanted = -(0.25 * (1 - p[0]) ** 2 * p[0].log() + 0.75 * p[1] ** 2 * (1 - p[1]).log()) / 2
    assert torch.allclose(finding_loss(raw, labels, focal=True), wanted)


@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_head_comes_back_with_classes_calibration_and_thresholds(tmp_path: Path, kind: str) -> None:
    head, path = a_head(kind), tmp_path / "Köpfe und mehr.safetensors"
    features = some_features(80)
    with torch.no_grad():
        raw = head(features).numpy()
    labels = (raw + np.random.default_rng(0).normal(0, raw.std(axis=0), raw.shape) > np.median(raw, axis=0)).astype(int)
    fitted = fit_calibration(raw, labels)
    config = describe_head("a-head", kind, NAMES, encoder_sha256="f" * 64, **PARAMETERS[kind])
    save_head(head, path, config, fitted)
    found = load_head(path)
    with torch.inference_mode():
        assert np.allclose(found.network(features).numpy(), raw, atol=1e-6)
    assert found.head.class_names == NAMES
    assert found.head.thresholds == tuple(item.threshold for item in fitted)
    assert "80 held-out volumes" in found.head.calibrated_on
    assert found.encoder_sha256 == "f" * 64
    assert found.config.intended_use.startswith("Research use only")
    wanted = 1 / (1 + np.exp(-(raw * [item.slope for item in fitted] + [item.intercept for item in fitted])))
    assert np.allclose(probabilities(found.head, raw), wanted)


def test_a_head_without_calibration_says_so(tmp_path: Path) -> None:
    kind = "ct_linear_probe"
    save_head(a_head(kind), tmp_path / "head.safetensors", describe_head("a-head", kind, NAMES, **PARAMETERS[kind]))
    found = load_head(tmp_path / "head.safetensors").head
    assert (found.calibrated_on, found.slopes, found.thresholds) == ("", (), ())


def test_a_head_file_that_lacks_tensors_is_refused_with_all_their_names(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    kind, path = "ct_attention_probe", tmp_path / "head.safetensors"
    save_head(a_head(kind), path, describe_head("a-head", kind, NAMES, **PARAMETERS[kind]))
    with safe_open(path, "pt") as stream:
        state, metadata = {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata()  # noqa: SIM118
    (tmp_path / "model_config.json").unlink()
    del state["key.weight"], state["bias"]
    save_file({**state, "other": torch.zeros(2)}, path, metadata)
    with pytest.raises(InvalidWeights) as caught:
        load_head(path)
    assert {line.split("'")[1] for line in caught.value.details.splitlines()} == {"key.weight", "bias", "other"}


def test_a_head_that_is_not_the_one_described_is_not_written(tmp_path: Path) -> None:
    kind, path = "ct_linear_probe", tmp_path / "head.safetensors"
    config = describe_head("a-head", kind, NAMES, vision_dim=24)
    for network, wrong in (
        (LinearProbe(24, 4), config),
        (AttentionProbe(24, 3), config),
        (LinearProbe(24, 3), replace(config, heads=())),
    ):
        with pytest.raises(ConfigMismatch):
            save_head(network, path, wrong)
    with pytest.raises(InvalidWeights, match="no head for findings"):
        save_head(LinearProbe(24, 3), path, replace(config, architecture=replace(config.architecture, name="other")))
    assert not list(tmp_path.iterdir())
