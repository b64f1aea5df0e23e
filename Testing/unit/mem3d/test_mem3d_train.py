"""Training of our network: data, episodes, steps, and going on after an interruption."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from MedAILib.cli.main import main as medai
from MedAILib.errors import Cancelled, FileMissing, InputError
from MedAILib.imageio import write_label_map, write_volume
from MedAILib.jobs.task import Context
from MedAILib.volume import LabelMap, SegmentInfo, Volume
from Mem3DPropagateLib.train.episodes import MOST_REFERENCES, SIDE_PX, WANTED, EpisodeMaker
from Mem3DPropagateLib.train.painting import painted
from Mem3DPropagateLib.train.request import TrainRequest
from Mem3DPropagateLib.train.subjects import (
    Kind,
    brightness_parts,
    random_shapes,
    read_subjects,
    split_by_patient,
    watershed,
    with_regions,
)

torch = pytest.importorskip("torch")

NETWORK = {"width": 8, "keys": 8}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Four patients, each with an ellipsoid brighter than its surroundings; one case of another split."""
    folder = tmp_path_factory.mktemp("Daten ü")
    entries = []
    for number in range(5):
        random = np.random.default_rng(number)
        k, j, i = np.indices((24, 48, 48))
        mask = ((k - 12) / 9) ** 2 + ((j - 22 - number) / 13) ** 2 + ((i - 24) / 10) ** 2 <= 1
        image = np.where(mask, 220, 100) + random.normal(0, 12, mask.shape)
        geometry = np.diag([1.0, 1.0, 2.0, 1.0])
        write_volume(Volume(image.astype(np.float32), geometry), folder / f"image {number}.nii.gz")
        info = SegmentInfo(id="1", name="egg", label_value=1)
        write_label_map(LabelMap((mask.astype(np.uint8),), geometry, (info,)), folder / f"mask {number}.nii.gz")
        entries.append(
            {
                "kind": "vol3d",
                "case": f"egg_{number:03d}_mr",
                "files": [f"image {number}.nii.gz", f"mask {number}.nii.gz"],
                "split": "train" if number < 4 else "dev",
                "redistribution": "ok",
            }
        )
    entries.append({**entries[0], "case": "egg_009_mr", "redistribution": "nc"})
    path = folder / "manifest.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def request(manifest: Path, out: Path, **changed) -> TrainRequest:
    usual = {
        "steps": 4,
        "episodes": 1,
        "network": NETWORK,
        "shapes": 1,
        "regions": False,
        "validation_share": 0.3,
        "validation_episodes": 2,
        "validate_every": 2,
        "save_every": 2,
        "loaders": 0,
    }
    return TrainRequest(manifest, out, **{**usual, **changed})


def trained(made: TrainRequest, context: Context | None = None):
    from Mem3DPropagateLib.train.task import TrainTask

    return TrainTask().run(made, context or Context())


def test_only_cases_that_may_train_are_read(manifest):
    subjects = read_subjects(manifest)
    assert [s.name for s in subjects] == [f"egg_{n:03d}_mr" for n in range(4)]
    assert {s.patient for s in subjects} == {f"egg_{n:03d}" for n in range(4)}
    assert all(len(s.structures) == 1 and s.spacing_mm == (2.0, 1.0, 1.0) for s in subjects)


def test_new_patients_do_not_move_old_ones_between_learning_and_validation(manifest):
    subjects = read_subjects(manifest)
    many = [replace(subjects[0], name=f"p{n}", patient=f"p{n}") for n in range(200)]
    before = split_by_patient(many[:150], 0.25, 7)
    after = split_by_patient(many, 0.25, 7)
    assert [s.name for s in before[1]] == [s.name for s in after[1] if int(s.name[1:]) < 150]
    assert 0.15 < len(after[1]) / len(many) < 0.35


def test_two_volumes_of_a_patient_stay_together(manifest):
    subjects = read_subjects(manifest)
    pairs = [replace(subjects[0], name=f"p{n}_{m}", patient=f"p{n}") for n in range(40) for m in range(2)]
    learning, validating = split_by_patient(pairs, 0.5, 0)
    assert not {s.patient for s in learning} & {s.patient for s in validating}


def test_regions_of_an_image_end_where_it_changes(manifest):
    subject = read_subjects(manifest)[0]
    for find, least in ((watershed, 0.8), (brightness_parts, 0.65)):
        labels = find(subject)
        inside = subject.labels > 0
        main = np.bincount(labels[inside]).argmax()
        overlap = 2 * ((labels == main) & inside).sum() / ((labels == main).sum() + inside.sum())
        assert overlap > least, find.__name__
    assert [s.kind for s in with_regions([subject])] == [] or subject.image.size >= 40**3


def test_random_shapes_are_the_same_for_the_same_seed_and_large_enough():
    first, again = next(random_shapes(3, 1)), next(random_shapes(3, 1))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert len(first.structures) >= 3
    assert first.kind is Kind.PAINTED


def test_a_painted_structure_differs_from_what_surrounds_it():
    labels = np.zeros((3, 40, 40), int)
    labels[:, 10:30, 10:30] = 5
    differences = []
    for seed in range(10):
        image = painted(labels, 5, np.random.default_rng(seed))
        differences.append(abs(image[labels == 5].mean() - image[labels == 0].mean()))
    assert np.median(differences) > 0.1


def test_an_episode_depends_on_the_seed_and_its_number_alone(manifest):
    subjects = [*read_subjects(manifest), *random_shapes(0, 1)]
    first, again = EpisodeMaker(subjects, 5), EpisodeMaker(subjects, 5)
    first.episode(3)
    for number in (0, 8):
        one, other = first.episode(number), again.episode(number)
        for field in fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
    assert not np.array_equal(first.episode(0).slices, first.episode(1).slices)


def test_episodes_are_what_the_network_takes(manifest):
    maker = EpisodeMaker([*read_subjects(manifest), *random_shapes(0, 1)], 0)
    kinds, ended = set(), 0
    for number in range(30):
        episode = maker.episode(number)
        assert episode.references.shape == (MOST_REFERENCES, 4, SIDE_PX, SIDE_PX)
        assert episode.slices.shape == (WANTED, 4, SIDE_PX, SIDE_PX)
        assert 1 <= episode.held.sum() <= MOST_REFERENCES
        assert (episode.shapes[episode.held, 1].sum(axis=(1, 2)) > 0).all()
        assert (episode.apart_px[:, episode.held] > 0).all(), "a wanted slice is not a reference"
        assert np.isfinite(episode.scalars).all() and np.isfinite(episode.slices).all()
        assert (episode.scalars[:, 2] == episode.one_sided).all()
        kinds.add(episode.one_sided)
        ended += int((~episode.truth.any(axis=(1, 2))).sum())
    assert kinds == {True, False}
    assert ended > 0, "roll-outs must meet the end of structures"


def test_a_training_that_was_interrupted_ends_as_one_that_was_not(manifest, tmp_path):
    whole = trained(request(manifest, tmp_path / "whole"))
    steps = []

    def stop_at_three(progress) -> None:
        if progress.stage == "Training":
            steps.append(progress.fraction)

    context = Context(on_progress=stop_at_three, is_cancelled=lambda: len(steps) >= 3)
    with pytest.raises(Cancelled):
        trained(request(manifest, tmp_path / "parts"), context)
    resumed = trained(request(manifest, tmp_path / "parts", resume=True))
    assert [replace(row, seconds=0) for row in resumed.log] == [replace(row, seconds=0) for row in whole.log]
    from safetensors.torch import load_file

    before, after = load_file(whole.weights), load_file(resumed.weights)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert whole.log[-1].step == 4


def test_a_folder_that_holds_a_training_is_not_overwritten(manifest, tmp_path):
    trained(request(manifest, tmp_path, steps=1, validate_every=1, save_every=1))
    with pytest.raises(InputError, match="already holds a training"):
        trained(request(manifest, tmp_path, steps=1))
    with pytest.raises(InputError, match="other settings") as caught:
        trained(request(manifest, tmp_path, steps=2, seed=9, resume=True))
    assert "seed" in caught.value.why


def test_the_loss_falls_on_one_batch_learnt_by_heart(manifest):
    from Mem3DPropagateLib.nets.gapnet import GapNet
    from Mem3DPropagateLib.train.learning import Batch, Learner

    torch.manual_seed(0)
    maker = EpisodeMaker(read_subjects(manifest), 0)
    batch = Batch.of([maker.episode(0)])
    learner = Learner(GapNet(**NETWORK), 5e-3, 40)
    losses = [learner.learn(batch, step) for step in range(25)]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"validation_share": 1.5}, "validation share"),
        ({"learning_rate": -1}, "learning rate"),
    ],
)
def test_a_request_that_cannot_be_is_refused(manifest, tmp_path, changed, word):
    with pytest.raises(InputError, match=word):
        request(manifest, tmp_path, **changed)


def test_data_that_cannot_train_are_named(tmp_path):
    with pytest.raises(FileMissing):
        read_subjects(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_subjects(tmp_path / "bad.json")
    (tmp_path / "empty.json").write_text('[{"kind": "vol3d", "split": "dev", "redistribution": "ok"}]')
    with pytest.raises(InputError, match="no case to train from"):
        read_subjects(tmp_path / "empty.json")


def test_the_command_trains_and_says_what_it_wrote(manifest, tmp_path, capsys):
    out = tmp_path / "Netz ü"
    arguments = ["train", "propagate", "--data", str(manifest), "--out", str(out), "--steps", "2", "--episodes", "1"]
    arguments += ["--width", "8", "--no-regions", "--loaders", "0", "--threads", "1", "--device", "cpu", "--json"]
    assert medai(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert Path(answer["weights"]).is_file()
    assert answer["log"][-1]["step"] == 2
    assert (out / "log.csv").read_text().startswith("step,loss,")
