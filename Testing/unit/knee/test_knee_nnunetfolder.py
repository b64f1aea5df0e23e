"""Trained nnU-Net models on disk: found by their folders, their labels by their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from KneeAnalysisLib.labels import NATIVE, Tissue
from KneeAnalysisLib.nnunetfolder import find_model, labels_of, tissue_named
from MedAILib.errors import ConfigMismatch, FileMissing, InputError, InvalidWeights, UnreadableFile

HUB = "models/Dataset500_KneeMRI/nnUNetTrainer__nnUNetResEncUNetMPlans__"


def _make(root: Path, configuration: str, *checkpoints: str) -> Path:
    folder = root / f"{HUB}{configuration}"
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps({"configurations": {configuration: {}}}), encoding="utf-8")
    (folder / "dataset.json").write_text('{"labels": {"background": 0}}', encoding="utf-8")
    for checkpoint in checkpoints:
        (folder / checkpoint).parent.mkdir(exist_ok=True)
        (folder / checkpoint).touch()
    return folder


def _chosen(*args: Any, **kwargs: Any) -> list[str]:
    return [f"{path.parent.name}/{path.name}" for path in find_model(*args, **kwargs).checkpoints]


@pytest.mark.parametrize("depth", ["", "models", "models/Dataset500_KneeMRI", f"{HUB}3d_fullres"])
def test_a_model_is_found_at_any_depth_and_by_its_folder_alone(depth: str, tmp_path: Path) -> None:
    folder = _make(tmp_path, "3d_fullres", "fold_1/checkpoint_best.pth")
    (folder / "model_config.json").write_text('{"configuration": "3d_lowres", "fold": 3}', encoding="utf-8")
    _make(tmp_path, "3d_cascade_fullres", "fold_1/checkpoint_best.pth")
    if depth.endswith("3d_fullres"):
        assert find_model([tmp_path / depth], "3d_fullres").path == folder
    else:
        assert find_model([tmp_path / depth], "3d_fullres").path == folder
        assert find_model([tmp_path / depth], "3d_cascade_fullres").path != folder
    assert _chosen([folder], "3d_fullres") == ["fold_1/checkpoint_best.pth"]


def test_the_final_checkpoint_comes_before_the_best_unless_one_is_named(tmp_path: Path) -> None:
    _make(tmp_path, "3d_fullres", "fold_0/checkpoint_best.pth", "fold_0/checkpoint_final.pth")
    assert _chosen([tmp_path], "3d_fullres") == ["fold_0/checkpoint_final.pth"]
    assert _chosen([tmp_path], "3d_fullres", checkpoint="checkpoint_best.pth") == ["fold_0/checkpoint_best.pth"]


def test_all_trained_folds_are_used_unless_some_are_named(tmp_path: Path) -> None:
    names = [f"fold_{fold}/checkpoint_final.pth" for fold in ("2", "0", "all")]
    folder = _make(tmp_path, "3d_fullres", *names)
    (folder / "fold_4").mkdir()
    assert _chosen([tmp_path], "3d_fullres") == ["fold_0/checkpoint_final.pth", "fold_2/checkpoint_final.pth"]
    assert _chosen([tmp_path], "3d_fullres", folds=("all",)) == ["fold_all/checkpoint_final.pth"]
    assert _chosen([tmp_path], "3d_fullres", folds=("fold_2",)) == ["fold_2/checkpoint_final.pth"]
    with pytest.raises(FileMissing, match="no trained fold 4"):
        find_model([tmp_path], "3d_fullres", folds=("4",))


def test_fold_all_is_used_where_it_is_the_only_one(tmp_path: Path) -> None:
    _make(tmp_path, "3d_fullres", "fold_all/checkpoint_final.pth")
    assert _chosen([tmp_path], "3d_fullres") == ["fold_all/checkpoint_final.pth"]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="medai models get knee-nnunet-fullres"):
        find_model([tmp_path], "3d_fullres")
    folder = _make(tmp_path, "3d_fullres")
    with pytest.raises(FileMissing, match="no trained fold"):
        find_model([tmp_path], "3d_fullres")
    (folder / "dataset.json").unlink()
    with pytest.raises(FileMissing, match=r"dataset\.json"):
        find_model([tmp_path], "3d_fullres")


def test_two_models_of_one_configuration_are_not_chosen_from(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _make(tmp_path / name, "3d_fullres", "fold_1/checkpoint_best.pth")
    with pytest.raises(InputError, match="Several nnU-Net models"):
        find_model([tmp_path], "3d_fullres")


@pytest.mark.parametrize(
    "content", ["<!DOCTYPE html><html>", "{", "[]", "version https://git-lfs.github.com/spec/v1\noid sha256:0"]
)
def test_plans_that_are_none_are_told(content: str, tmp_path: Path) -> None:
    folder = _make(tmp_path, "3d_fullres", "fold_1/checkpoint_best.pth")
    (folder / "plans.json").write_text(content, encoding="utf-8")
    with pytest.raises(UnreadableFile, match=r"plans\.json"):
        find_model([tmp_path], "3d_fullres")


def test_plans_without_the_configuration_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = _make(tmp_path, "3d_fullres", "fold_1/checkpoint_best.pth")
    (folder / "plans.json").write_text('{"configurations": {"2d": {}}}', encoding="utf-8")
    with pytest.raises(ConfigMismatch, match="2d"):
        find_model([tmp_path], "3d_fullres")


@pytest.mark.parametrize(
    ("name", "tissue"),
    [
        ("femur", Tissue.FEMUR),
        ("Femur bone", Tissue.FEMUR),
        ("tib", Tissue.TIBIA),
        ("patella", Tissue.PATELLA),
        ("femoral_cartilage", Tissue.FEMORAL_CARTILAGE),
        ("fem_cart", Tissue.FEMORAL_CARTILAGE),
        ("patellar cartilage", Tissue.PATELLAR_CARTILAGE),
        ("PatellarCartilage", Tissue.PATELLAR_CARTILAGE),
        ("cartilage_patella", Tissue.PATELLAR_CARTILAGE),
        ("med_tib_cart", Tissue.MEDIAL_TIBIAL_CARTILAGE),
        ("Tibial Cartilage, lateral", Tissue.LATERAL_TIBIAL_CARTILAGE),
        ("ltc", Tissue.LATERAL_TIBIAL_CARTILAGE),
        ("medial meniscus", Tissue.MEDIAL_MENISCUS),
        ("lat_men", Tissue.LATERAL_MENISCUS),
        ("fibula", Tissue.FIBULA),
        ("tibial cartilage", None),
        ("meniscus", None),
        ("cartilage", None),
        ("label_3", None),
        ("", None),
    ],
)
def test_names_of_labels_are_understood_or_left_open(name: str, tissue: Tissue | None) -> None:
    assert tissue_named(name) is tissue


def test_names_that_are_understood_decide_over_the_native_values() -> None:
    scheme = labels_of({"labels": {"background": 0, "femur": 1, "fem_cart": 2}})
    assert scheme.labels == {Tissue.FEMUR: (1,), Tissue.FEMORAL_CARTILAGE: (2,)}


def test_unknown_names_with_native_values_are_native() -> None:
    assert labels_of({"labels": {f"label_{value}": value for value in range(10)}}) is NATIVE


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"background": 0},
        {"background": 0, "whole": [1, 2], "core": [2]},
        {"background": 0, "a": 1, "b": 2},
        {**{f"label_{value}": value for value in range(9)}, "femur": 9},
    ],
)
def test_labels_that_could_mean_anything_are_refused(labels: dict[str, Any]) -> None:
    with pytest.raises(InvalidWeights, match="not known"):
        labels_of({"labels": labels})
