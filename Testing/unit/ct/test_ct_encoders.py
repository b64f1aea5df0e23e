"""Encoders behind one interface: recognised, laid out, watched, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chest_phantoms import ChestSpec, make_chest

torch = pytest.importorskip("torch", reason="encoders need torch")

from ct_models import COARSE, SLABS, WIDTHS, a_classifier, an_encoder  # noqa: E402
from primus_cases import small  # noqa: E402

from CTReportLib.anatomy import find_anatomy  # noqa: E402
from CTReportLib.answers import REGIONS, region_map  # noqa: E402
from CTReportLib.layouts import input_of, laid_out, layout_of, moves  # noqa: E402
from CTReportLib.nets.encoders import Encoder, load_encoder  # noqa: E402
from CTReportLib.preprocess import PRIMUS_LAYOUT, RECT_LAYOUT, Layout, Window, prepare  # noqa: E402
from MedAILib.errors import Cancelled, ConfigError, ConfigMismatch, FileMissing, InputError, InvalidWeights  # noqa: E402
from MedAILib.models.config import Architecture, ModelConfig  # noqa: E402
from MedAILib.models.heads import Input, Normalisation, NormalisationKind  # noqa: E402
from MedAILib.models.tensors import file_sha256  # noqa: E402
from MedAILib.volume import Volume  # noqa: E402

CHEST = make_chest(ChestSpec(effusion="right")).volume


def described(*inputs: Input) -> ModelConfig:
    return ModelConfig("m", "f", Architecture("primus"), inputs=inputs)


@pytest.mark.parametrize("layout", [PRIMUS_LAYOUT, RECT_LAYOUT, COARSE, SLABS])
def test_a_layout_is_read_back_from_a_description(layout: Layout) -> None:
    assert replace(layout_of(described(input_of(layout))), name="") == replace(layout, name="")


def test_the_published_window_of_one_channel_is_read_from_the_normalisation() -> None:
    window = Normalisation(NormalisationKind.WINDOW, lower=-160.0, upper=240.0)
    image = Input(modality="CT", channels=("ct",), size=(64, 512, 512), orientation="axial", normalisation=window)
    assert layout_of(described(image)).windows == (Window(-160.0, 240.0),)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Input(), "size"),
        (replace(input_of(COARSE), spacing_mm=(1.0, 2.0, 2.0)), "not the same along all axes"),
        (replace(input_of(COARSE), channels=("window 1", "window 2")), "name no windows"),
        (replace(input_of(COARSE), orientation="RAR"), "orientation 'RAR'"),
    ],
)
def test_a_description_without_a_layout_says_what_is_missing(image: Input, words: str) -> None:
    with pytest.raises(ConfigMismatch, match=words):
        layout_of(described(image))


def test_more_windows_than_the_network_takes_are_refused() -> None:
    config = ModelConfig("m", "f", Architecture("primus", {"in_channels": 1}), inputs=(input_of(RECT_LAYOUT),))
    with pytest.raises(ConfigMismatch, match="names 3 windows, and the network takes 1"):
        layout_of(config)


def test_sides_are_given_along_the_networks_own_axes() -> None:
    image = replace(input_of(COARSE), size=(32, 24, 16), orientation="RAS")
    assert layout_of(described(image)).shape_kji == (16, 24, 32)


def test_a_prepared_ct_is_turned_as_its_description_says() -> None:
    values = np.arange(24.0).reshape(1, 2, 3, 4)
    turned = laid_out(values, "RAS")  # right, anterior, superior from superior, posterior, left
    assert turned.shape == (1, 4, 3, 2)
    assert turned[0, 0, 0, 1] == values[0, 1, 2, 3]
    assert laid_out(values, "SPL").tolist() == laid_out(values, "axial").tolist() == values.tolist()
    assert moves("XYZ") is None and moves("RASL") is None


@pytest.mark.parametrize("kind", WIDTHS)
def test_every_kind_is_recognised_by_its_file_and_answers_features_of_its_width(kind: str, tmp_path: Path) -> None:
    path = an_encoder(kind, tmp_path / "no telling name.safetensors")
    encoder = load_encoder(path)
    assert (encoder.architecture, encoder.id) == (kind, f"small-{kind.removeprefix('ct_')}")
    assert (encoder.width, encoder.sha256, encoder.assumed) == (WIDTHS[kind], file_sha256(path), False)
    told: list[float] = []
    prepared = prepare(CHEST, encoder.layout)
    features = encoder.features(prepared, watch=told.append)
    assert features.pooled.shape == (1, WIDTHS[kind]) and features.pooled.dtype == torch.float32
    assert features.patches.shape == (1, np.prod(features.grid), WIDTHS[kind])
    assert told == sorted(told) and told[-1] == 1.0
    assert not features.pooled.is_inference()  # heads can be trained on it


def test_features_lie_as_the_prepared_ct_does_whatever_the_networks_axes(tmp_path: Path) -> None:
    network = small()
    with torch.no_grad():  # each patch is told by its mean alone, so that axes make no difference to it
        network.down_projection.proj.weight.copy_(network.down_projection.proj.weight.mean((2, 3, 4), keepdim=True))
        for block in network.blocks:
            block.gamma_1.zero_()
    prepared = prepare(CHEST, COARSE)

    def seen(axes: str) -> torch.Tensor:
        encoder = Encoder("e", "0" * 64, "primus", COARSE, 24, network, torch.device("cpu"), axes)
        features = encoder.features(prepared)
        assert features.grid == (8, 6, 8)
        return features.patches

    for axes in ("RAS", "LPS", "IAL", "PSR"):
        assert torch.allclose(seen(axes), seen("SPL"), atol=1e-5), axes


def test_an_encoder_can_be_stopped_between_two_blocks(tmp_path: Path) -> None:
    encoder = load_encoder(an_encoder("primus", tmp_path / "e.safetensors"))
    told: list[float] = []

    def stop(share: float) -> None:
        told.append(share)
        raise Cancelled("Stop.")

    prepared = prepare(CHEST, encoder.layout)
    with pytest.raises(Cancelled):
        encoder.features(prepared, watch=stop)
    assert told == [0.5]
    encoder.features(prepared)  # nothing was left behind


def test_a_ct_prepared_otherwise_is_refused(tmp_path: Path) -> None:
    encoder = load_encoder(an_encoder("primus", tmp_path / "e.safetensors"))
    with pytest.raises(InputError, match="prepared for 'slabs'"):
        encoder.features(prepare(CHEST, SLABS))
    with pytest.raises(InputError, match="knows no anatomical regions"):
        encoder.features(prepare(CHEST, COARSE), CHEST)


def test_an_encoder_with_regions_sees_them(tmp_path: Path) -> None:
    regions = Input(name="regions", channels=REGIONS[:4])
    path = an_encoder("rect3d", tmp_path / "e.safetensors", inputs=(input_of(SLABS), regions))
    encoder = load_encoder(path)
    assert encoder.regions == REGIONS[:4]
    prepared = prepare(CHEST, encoder.layout)
    labels = region_map(find_anatomy(CHEST), encoder.regions)
    assert set(np.unique(labels.array)) <= {0, 1, 2, 3, 4}
    without, with_ = encoder.features(prepared), encoder.features(prepared, labels)
    assert with_.regions is not None and not torch.allclose(without.pooled, with_.pooled)


def test_regions_are_the_patients() -> None:
    anatomy = find_anatomy(CHEST)
    labels = region_map(anatomy, ("right lung", "other body", "left lung"))
    right, body, left = (labels.array == number for number in (1, 2, 3))
    columns = np.arange(labels.array.shape[2])
    assert (right.sum((0, 1)) @ columns) / right.sum() > (
        left.sum((0, 1)) @ columns
    ) / left.sum()  # columns to the right
    assert body.any() and not (body & anatomy.lungs.both).any()
    with pytest.raises(ConfigMismatch, match="spleen"):
        region_map(anatomy, ("spleen",))


def test_a_model_for_another_task_is_refused(tmp_path: Path) -> None:
    head = a_classifier(tmp_path / "head.safetensors", ("emphysema",), vision_dim=8)
    with pytest.raises(ConfigError, match=r"no encoder of chest CTs.*ct_linear_probe"):
        load_encoder(head)


def test_a_missing_a_strange_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        load_encoder(tmp_path / "none.safetensors")
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    with pytest.raises(InvalidWeights):
        load_encoder(tmp_path / "page.safetensors")
    path = an_encoder("primus", tmp_path / "e.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidWeights):
        load_encoder(path)


def test_answers_that_are_no_numbers_are_refused() -> None:
    network = small()
    with torch.no_grad():
        network.eva.norm.bias[0] = float("inf")
    encoder = Encoder("e", "0" * 64, "primus", COARSE, 24, network, torch.device("cpu"))
    with pytest.raises(InvalidWeights, match="no numbers"):
        encoder.features(prepare(Volume(CHEST.array, CHEST.ijk_to_ras), COARSE))
