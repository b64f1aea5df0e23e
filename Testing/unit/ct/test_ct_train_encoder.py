"""The small encoder and one step of learning: shapes, files, losses that leave alone what nobody knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need torch")
pytest.importorskip("safetensors", reason="weight files need safetensors")

from CTReportLib.nets.conv import ConvEncoder, describe_conv, load_conv, save_conv  # noqa: E402
from CTReportLib.nets.encoders import load_encoder  # noqa: E402
from CTReportLib.nets.heads import LinearProbe  # noqa: E402
from CTReportLib.nets.heads_unet import TextUNet  # noqa: E402
from CTReportLib.preprocess import Layout, Window  # noqa: E402
from CTReportLib.train import learning  # noqa: E402
from CTReportLib.train.bank import FeatureBank  # noqa: E402
from CTReportLib.train.phases import ProbingPhase  # noqa: E402
from CTReportLib.train.request import Stage  # noqa: E402
from CTReportLib.train.store import Store, bits  # noqa: E402
from MedAILib.errors import ConfigMismatch, InputError, InvalidWeights  # noqa: E402
from MedAILib.models.config import Architecture  # noqa: E402

torch.set_num_threads(1)
LAYOUT = Layout("ct_conv", (32, 24, 16), 9.0, (Window(-1000, 0), Window(-100, 200)))


def _encoder(seed: int = 0) -> ConvEncoder:
    torch.manual_seed(seed)
    return ConvEncoder(2, 4)


def test_patches_are_a_quarter_of_the_grid_and_as_wide_as_the_whole() -> None:
    encoder = _encoder().eval()
    answer = encoder.answer(torch.rand(2, 2, 32, 24, 16))
    assert answer.features.grid == (8, 6, 4) and answer.features.patches.shape == (2, 8 * 6 * 4, 16)
    assert answer.features.pooled.shape == (2, 16) and answer.drafts.shape == (2, 5, 8, 6, 4)
    assert torch.equal(encoder.pool(answer.statistics), answer.features.pooled)
    assert 290_000 < sum(p.numel() for p in ConvEncoder(4, 12).parameters()) < 330_000


def test_a_volume_is_answered_alike_alone_and_among_others() -> None:
    encoder = _encoder().eval()
    volumes = torch.rand(3, 2, 32, 24, 16)
    together, alone = encoder(volumes), encoder(volumes[1:2])
    assert torch.allclose(together.pooled[1:2], alone.pooled, atol=1e-5)
    assert torch.allclose(together.patches[1:2], alone.patches, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 2, 32, 24, 12), (2, 32, 24, 16)])
def test_other_sides_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="cannot take"):
        _encoder()(torch.zeros(shape))
    with pytest.raises(InputError, match="cannot read"):
        describe_conv("x", Layout("x", (30, 24, 16), 9.0, LAYOUT.windows))
    with pytest.raises(InputError, match="6 channels"):
        ConvEncoder(1, 6)


def test_an_encoder_comes_back_from_its_file_with_its_layout(tmp_path: Path) -> None:
    encoder = _encoder().eval()
    path = tmp_path / "Ordner ü" / "encoder.safetensors"
    path.parent.mkdir()
    save_conv(encoder, path, describe_conv("mine", LAYOUT, base=4, training={"steps": 1}, trained_on="nothing"))
    loaded = load_encoder(path)
    assert loaded.layout == LAYOUT and loaded.width == 16 and loaded.architecture == "ct_conv" and loaded.id == "mine"
    volumes = torch.rand(1, 2, 32, 24, 16)
    assert torch.equal(load_conv(path).network(volumes).pooled, encoder(volumes).pooled)


def test_files_that_are_not_exactly_this_encoder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    config = describe_conv("mine", LAYOUT, base=4)
    save_conv(_encoder(), path, replace(config, architecture=Architecture("ct_text_unet", {})))
    with pytest.raises(InvalidWeights, match="no small convolutional encoder"):
        load_conv(path)
    save_conv(_encoder(), path, describe_conv("mine", LAYOUT, base=8))
    with pytest.raises((InvalidWeights, ConfigMismatch)):
        load_conv(path)


def _store(known: bool = True) -> Store:
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 200, (4, 24, 24, 24)).astype(np.int16)
    drawn = np.zeros(hu.shape, np.uint8)
    drawn[1, 4:8, 4:8, 4:8] |= 1 << 4
    drawn[2, 10:20, 10:20, 10:20] |= 1 << 1
    return Store(hu, drawn, np.full((4, 5), known))


def test_bits_and_masks_are_the_same() -> None:
    masks = bits(_store().drawn, (1, 4))
    assert masks.shape == (4, 2, 24, 24, 24) and masks[2, 0].sum() == 1000 and masks[1, 1].sum() == 64
    assert masks.sum() == 1064


def test_crops_lie_around_lesions_and_small_findings_more_often() -> None:
    store = _store()
    shares = learning.drawing_shares(store, (1, 4))
    assert shares.sum() == pytest.approx(1) and shares[1] / shares[0] == pytest.approx((1000 / 64) ** 0.25)
    hits = 0
    for seed in range(20):
        _, wanted, known = learning.crop_batch(store, (1, 4), shares, 8, 4, np.random.default_rng(seed))
        assert wanted.shape == (4, 2, 8, 8, 8) and known.all()
        hits += int(wanted.any(axis=(1, 2, 3, 4)).sum())
    assert hits > 0.6 * 80
    first, second = (learning.crop_batch(store, (1, 4), shares, 8, 4, np.random.default_rng(3)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_shifted_batch_moves_volume_and_mask_together() -> None:
    store = _store()
    store = Store(np.where(store.drawn > 0, 500, -800).astype(np.int16), store.drawn, store.known)
    _, hu, drawn = learning.encoder_batch(store, 4, np.random.default_rng(1))
    assert ((hu > 0) == (drawn > 0)).all() and (drawn > 0).any()


def test_what_is_not_known_teaches_nothing() -> None:
    torch.manual_seed(0)
    network = TextUNet(1, 4, 2, 8, 2, norm="batch", context=False)
    network.set_prompts(torch.eye(8)[:2])
    volumes, wanted = torch.rand(2, 1, 8, 8, 8), (torch.rand(2, 2, 8, 8, 8) > 0.7).float()
    known = torch.tensor([[True, False], [True, False]])
    other = wanted.clone()
    other[:, 1] = 1 - other[:, 1]
    for balance in (0.0, 1.0):
        losses = [learning.localizer_loss(network, volumes, w, known, balance=balance) for w in (wanted, other)]
        assert losses[0].item() == losses[1].item() > 0
    raw = torch.randn(2, 2, 4, 4, 4)
    first, second = (learning.draft_loss(raw, w[..., :4, :4, :4], known) for w in (wanted, other))
    assert first.item() == second.item()
    nothing = torch.zeros_like(known)
    assert learning.localizer_loss(network, volumes, wanted, nothing, balance=1.0).item() == 0.0


def test_a_network_without_context_draws_a_crop_as_it_draws_the_whole() -> None:
    torch.manual_seed(1)
    network = TextUNet(1, 4, 2, 8, 2, norm="batch", context=False).eval()
    network.set_prompts(torch.eye(8)[:2])
    whole = torch.rand(1, 1, 48, 48, 48)
    with torch.inference_mode():
        drawn, cropped = network(whole), network(whole[..., 8:40, 8:40, 8:40])
    inner = slice(12, 20)
    assert torch.allclose(cropped[..., inner, inner, inner], drawn[..., 20:28, 20:28, 20:28], atol=1e-5)
    with pytest.raises(InputError, match="'layer'"):
        TextUNet(norm="layer")


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [learning.learning_rate(1e-2, step, 100) for step in range(100)]
    assert rates[0] < rates[3] < rates[5] and max(rates) == pytest.approx(1e-2) and rates[-1] < 1e-5


def test_a_probe_learns_what_features_show() -> None:
    torch.manual_seed(0)
    labels = np.random.default_rng(0).integers(0, 2, (64, 2))
    pooled = torch.randn(64, 8)
    pooled[:, :2] += 3.0 * torch.from_numpy(labels)
    head = LinearProbe(8, 2)
    bank = FeatureBank(pooled, None, (1, 1, 1))
    phase = ProbingPhase(Stage(60, 32, 3e-2), head, bank, labels, focal=True, seed=0, device="cpu", half=False)
    losses = [phase.learn(step) for step in range(60)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_least_volumes_are_one_per_drawn_class_and_not_below_nothing() -> None:
    from MedAILib.models.heads import Activation, ClassInfo, Head, HeadTask
    from MedAILib.models.records import Problems

    classes = (ClassInfo(0, "Consolidation"), ClassInfo(1, "Lung nodule"))
    good = Head("findings", HeadTask.SEGMENTATION, classes, Activation.SIGMOID, least_ml=(0.5, 0.0))
    for changed, said in (({"least_ml": (0.5,)}, "2, one per class"), ({"least_ml": (0.5, -1.0)}, "0 ml and above"),
                          ({"task": HeadTask.MULTI_LABEL}, "segmentation only")):  # fmt: skip
        problems = Problems()
        replace(good, **changed).check("$.heads[0]", problems)
        assert said in str(problems.found if hasattr(problems, "found") else vars(problems))
    problems = Problems()
    good.check("$.heads[0]", problems)
    assert not any(vars(problems).values())


def test_a_classifier_of_fewer_findings_answers_them_as_before() -> None:
    from CTReportLib.nets.features import Features
    from CTReportLib.nets.heads_weights import FACTORIES
    from CTReportLib.train.finishing import only, told_apart
    from CTReportLib.train.measures import finding_score
    from CTReportLib.train.request import HEADS, TrainRequest

    torch.manual_seed(2)
    features = Features(pooled=torch.randn(3, 8), patches=torch.randn(3, 12, 8), grid=(3, 2, 2))
    for name, architecture in HEADS.items():
        parameters = {"vision_dim": 8, **({"text_dim": 6, "shared_dim": 6} if name == "prompt" else {})}
        head = FACTORIES[architecture](**parameters, findings=6)
        if name == "prompt":
            head.set_prompts(torch.eye(6))
        with torch.inference_mode():
            whole = head.eval()(features)
            some = only(head, TrainRequest(Path(), Path(), head=name), parameters, [4, 1]).eval()(features)
        assert torch.allclose(some, whole[:, [4, 1]], atol=1e-6), name
    labels = np.arange(40) % 2
    chances = (labels + 0.1, 1.0 - labels, labels * 0.0)
    scores = [finding_score("emphysema", c, labels, list(map(str, labels)), 0.5, calibrated=True) for c in chances]
    assert told_apart(scores) == [0]
    few = finding_score("emphysema", chances[1][:8], labels[:8], list("abcdefgh"), 0.5, calibrated=False)
    assert told_apart([few]) == [0]


def test_the_least_volume_lies_just_above_what_is_drawn_by_mistake() -> None:
    from CTReportLib.train.judging import _least_ml

    there = np.array([False] * 6 + [True] * 6)
    drawn_ml = np.array([0, 0, 0.1, 0.4, 0, 0.2, 40, 90, 100, 160, 250, 400])
    assert _least_ml(drawn_ml, there) == pytest.approx((0.4 * 40) ** 0.5)
    assert _least_ml(drawn_ml[2:9], there[2:9]) == 0.0
    assert _least_ml(np.where(there, 50.0, 0.0), there) == pytest.approx((0.03 * 50) ** 0.5)
