"""Features kept on disk: made once, made again where damaged, and never more than there is room for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from chest_phantoms import ChestSpec, make_chest

torch = pytest.importorskip("torch", reason="features need torch")
pytest.importorskip("safetensors", reason="kept features are safetensors files")

from ct_models import COARSE, an_encoder  # noqa: E402

from CTReportLib.nets.encoders import Encoder, load_encoder  # noqa: E402
from CTReportLib.nets.featurecache import FeatureCache, default_folder, feature_key  # noqa: E402
from CTReportLib.nets.features import Features  # noqa: E402
from CTReportLib.preprocess import Prepared, prepare  # noqa: E402
from MedAILib.volume import Volume  # noqa: E402

CHEST = make_chest(ChestSpec()).volume
PREPARED = prepare(CHEST, COARSE)


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return load_encoder(an_encoder("ct_conv", tmp_path / "encoder.safetensors"))


class Making:
    """Makes features and counts how often."""

    def __init__(self, encoder: Encoder, prepared: Prepared = PREPARED) -> None:
        self._encoder, self._prepared = encoder, prepared
        self.times = 0

    def __call__(self) -> Features:
        self.times += 1
        return self._encoder.features(self._prepared)


def another(number: int) -> Prepared:
    """Another CT."""
    moved = CHEST.ijk_to_ras.copy()
    moved[0, 3] += number
    return prepare(Volume(CHEST.array, moved), COARSE)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def assert_same(one: Features, other: Features) -> None:
    assert one.grid == other.grid and one.regions is other.regions is None
    assert torch.equal(one.pooled, other.pooled) and torch.equal(one.patches, other.patches)


def test_features_are_made_once_and_come_back_to_the_bit(encoder: Encoder, tmp_path: Path) -> None:
    folder, make = tmp_path / "mit Raum ü", Making(encoder)
    first = FeatureCache(folder).features(encoder, PREPARED, make)
    assert_same(FeatureCache(folder).features(encoder, PREPARED, make), first)
    assert make.times == 1 and len(entries(folder)) == 1


def test_another_ct_another_encoder_and_other_regions_are_other_entries(encoder: Encoder, tmp_path: Path) -> None:
    keys = {
        feature_key(encoder, PREPARED),
        feature_key(encoder, another(1)),
        feature_key(replace(encoder, sha256="1" * 64), PREPARED),
        feature_key(replace(encoder, axes="RAS"), PREPARED),
        feature_key(replace(encoder, layout=replace(COARSE, windows=())), PREPARED),
        feature_key(encoder, PREPARED, "regions"),
    }
    assert len(keys) == 6 and all(len(key) == 64 for key in keys)


@pytest.mark.parametrize("harm", ["truncated", "turned bit", "emptied", "another file"])
def test_a_damaged_entry_is_made_again(encoder: Encoder, tmp_path: Path, harm: str) -> None:
    make, folder = Making(encoder), tmp_path / "cache"
    first = FeatureCache(folder).features(encoder, PREPARED, make)
    (path,) = entries(folder)
    content = bytearray(path.read_bytes())
    if harm == "turned bit":
        content[-5] ^= 64
    path.write_bytes({"truncated": content[:-9], "emptied": b"", "another file": b"<html>"}.get(harm, bytes(content)))
    assert_same(FeatureCache(folder).features(encoder, PREPARED, make), first)
    assert make.times == 2
    FeatureCache(folder).features(encoder, PREPARED, make)
    assert make.times == 2  # the entry is whole again


def test_what_was_used_longest_ago_makes_room(encoder: Encoder, tmp_path: Path) -> None:
    make, folder = Making(encoder), tmp_path / "cache"
    ones = [another(number) for number in range(3)]
    FeatureCache(folder).features(encoder, ones[0], make)
    size = entries(folder)[0].stat().st_size
    cache = FeatureCache(folder, most_bytes=2 * size + 10)
    for number, one in enumerate(ones[:3]):
        cache.features(encoder, one, make)
        for path in entries(folder):
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))
        if number == 1:
            cache.features(encoder, ones[0], make)  # used just now
    assert make.times == 3 and len(entries(folder)) == 2
    cache.features(encoder, ones[0], make)
    assert make.times == 3
    cache.features(encoder, ones[1], make)
    assert make.times == 4


def test_an_entry_larger_than_the_room_stays_until_the_next_one(encoder: Encoder, tmp_path: Path) -> None:
    cache, make = FeatureCache(tmp_path / "cache", most_bytes=10), Making(encoder)
    cache.features(encoder, PREPARED, make)
    cache.features(encoder, PREPARED, make)
    assert make.times == 1


def test_where_nothing_can_be_kept_the_features_are_answered_all_the_same(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    features = FeatureCache(tmp_path / "file" / "cache").features(encoder, PREPARED, Making(encoder))
    assert features.grid == (8, 6, 8)
    assert "not kept" in caplog.text


def test_features_are_kept_beside_the_models_and_can_be_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEDAI_HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / "cache" / "ct-features"
