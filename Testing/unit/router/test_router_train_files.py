"""MedMNIST's files and plans of routers: what is read, how images are divided, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from training_files import write_dataset

from MedAILib.errors import FileMissing, InputError, UnreadableFile
from MedMNISTRouterLib.train.npzfile import flag_of, read_npz
from MedMNISTRouterLib.train.plan import plan_for
from MedMNISTRouterLib.train.request import Kind, Recipe, TrainRequest
from MedMNISTRouterLib.train.samples import expert_samples, resized, router_samples


def test_the_files_name_tells_the_data_set() -> None:
    assert flag_of(Path("pneumoniamnist.npz")) == "pneumoniamnist"
    assert flag_of(Path("organamnist_224.npz")) == "organamnist"
    assert flag_of(Path("mymnist.npz")) == ""


def test_an_official_file_keeps_its_parts(tmp_path: Path) -> None:
    file = read_npz(write_dataset(tmp_path, "bloodmnist", (40, 16, 24)))
    assert [len(file.parts[name]) for name in ("train", "val", "test")] == [40, 16, 24]
    assert file.parts["train"].labels.shape == (40,)
    assert file.remark == ""


def test_without_a_test_part_the_second_part_is_the_test_and_a_tenth_of_each_class_is_held_out(tmp_path: Path) -> None:
    file = read_npz(write_dataset(tmp_path, "pneumoniamnist", (200, 30)))
    assert [len(file.parts[name]) for name in ("train", "val", "test")] == [180, 20, 30]
    assert np.bincount(file.parts["val"].labels).tolist() == [10, 10]
    assert "no test part" in file.remark


def test_images_that_nobody_divided_are_divided_by_class_and_always_alike(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    images = np.arange(100, dtype=np.uint8)[:, None, None] * np.ones((28, 28), np.uint8)
    np.savez(path, images=images, labels=np.arange(100) % 5)
    first, again = read_npz(path), read_npz(path)
    assert [len(first.parts[name]) for name in ("train", "val", "test")] == [60, 20, 20]
    seen = np.concatenate([part.images[:, 0, 0] for part in first.parts.values()])
    assert sorted(seen) == list(range(100))
    np.testing.assert_array_equal(first.parts["test"].images, again.parts["test"].images)


def test_a_missing_file_names_where_the_official_ones_are(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match=r"zenodo\.10519652"):
        read_npz(tmp_path / "pathmnist.npz")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04broken"])
def test_what_is_no_npz_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pathmnist.npz"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile):
        read_npz(path)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pathmnist.npz"
    np.savez(path, train_images=np.array([{"a": 1}], dtype=object), train_labels=np.zeros(1, int))
    with pytest.raises(UnreadableFile, match="allow_pickle"):
        read_npz(path)


def test_arrays_of_other_names_are_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "pathmnist.npz"
    np.savez(path, x_train=np.zeros((3, 28, 28), np.uint8))
    with pytest.raises(InputError, match="train_images"):
        read_npz(path)


def test_float_images_are_refused_rather_than_scaled_by_guess(tmp_path: Path) -> None:
    path = tmp_path / "pathmnist.npz"
    np.savez(path, images=np.zeros((3, 28, 28), np.float32), labels=np.zeros(3, int))
    with pytest.raises(InputError, match="float32"):
        read_npz(path)


@pytest.mark.parametrize(
    ("flag", "of", "word"),
    [("bloodmnist", "pneumoniamnist", "grey"), ("octmnist", "organamnist", "labels go from"),
     ("chestmnist", "pneumoniamnist", "labels have the shape")],
)  # fmt: skip
def test_a_file_of_another_data_set_is_refused(tmp_path: Path, flag: str, of: str, word: str) -> None:
    path = write_dataset(tmp_path, of)
    with pytest.raises(InputError, match=word):
        expert_samples(TrainRequest(Kind.EXPERT, (path,), tmp_path / "out", flag=flag))


def test_an_expert_takes_the_size_of_its_images_unless_told_otherwise(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, "retinamnist", size=64)
    assert expert_samples(TrainRequest(Kind.EXPERT, (path,), tmp_path)).train.images.shape == (60, 64, 64, 3)
    assert expert_samples(TrainRequest(Kind.EXPERT, (path,), tmp_path, size=28)).size == 28


def test_grey_images_become_three_equal_channels_for_a_router() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 50, 40), dtype=np.uint8)
    found = resized(images, 28, 3)
    assert found.shape == (4, 28, 28, 3)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_a_router_from_medmnist_files_has_a_class_per_data_set_which_routes_to_itself(tmp_path: Path) -> None:
    for flag in ("pneumoniamnist", "bloodmnist", "chestmnist"):
        write_dataset(tmp_path, flag)
    plan = plan_for([tmp_path])
    assert [item.name for item in plan.classes] == ["bloodmnist", "chestmnist", "pneumoniamnist"]
    samples = router_samples(TrainRequest(Kind.ROUTER, (tmp_path,), tmp_path, most_per_class=20), plan)
    assert samples.routes == (("bloodmnist",), ("chestmnist",), ("pneumoniamnist",))
    assert np.bincount(samples.train.labels).tolist() == [20, 20, 20]
    assert len(np.unique(samples.train.groups)) == 8 + 1 + 2, "a kind for every label, one for several labels"


def test_a_plan_takes_images_by_their_labels(tmp_path: Path) -> None:
    write_dataset(tmp_path, "pneumoniamnist")
    plan = tmp_path / "plan.json"
    sources = [[{"file": "pneumoniamnist.npz", "labels": [label], "most": 12}] for label in (0, 1)]
    classes = [{"name": f"kind {number}", "sources": source} for number, source in enumerate(sources)]
    plan.write_text(json.dumps({"id": "mine", "classes": classes}), encoding="utf-8")
    samples = router_samples(TrainRequest(Kind.ROUTER, (plan,), tmp_path), plan_for([plan]))
    assert np.bincount(samples.train.labels).tolist() == [12, 12]
    assert np.bincount(samples.test.labels).tolist() == [15, 15]
    assert samples.train.images[samples.train.labels == 0, 0].mean() > 100, "the first strip is bright"


@pytest.mark.parametrize(
    ("stored", "word"),
    [({"id": "a"}, "classes"), ({"id": "a", "classes": []}, "at least 2"),
     ({"id": "a", "classes": [{"name": "x", "sources": []}] * 2}, "more than once"),
     ({"id": "a", "classes": [{"name": "x", "sources": [{"file": "f"}], "routes_to": ["mnist"]},
                              {"name": "y", "sources": [{"file": "f"}]}]}, "'mnist' is no MedMNIST")],
)  # fmt: skip
def test_a_wrong_plan_is_refused_with_its_reason(tmp_path: Path, stored: object, word: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(InputError, match=word):
        plan_for([path])


def test_a_request_names_everything_that_is_wrong_with_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"size is 20.*epochs is 0.*acceptance is 1"):
        TrainRequest(Kind.EXPERT, (tmp_path,), tmp_path, size=20, epochs=0, acceptance=1.0)


def test_few_images_are_seen_more_often_in_smaller_batches(tmp_path: Path) -> None:
    short = TrainRequest(Kind.EXPERT, (tmp_path,), tmp_path)
    assert [(short.batch_for(n), short.epochs_for(n)) for n in (324, 4708, 90_000)] == [(16, 38), (128, 21), (128, 5)]
    published = TrainRequest(Kind.EXPERT, (tmp_path,), tmp_path, recipe=Recipe.PUBLISHED)
    assert (published.batch_for(4708), published.epochs_for(4708)) == (128, 100)
