"""Real Keras files on their way to ONNX: converted once, compared, kept; and what happens where that fails."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from router_models import config_for, dense, input_layer, keras_file, smooth_picture

from MedAILib.errors import Cancelled, InvalidWeights, MissingPackage
from MedAILib.models.config import CONFIG_FILE, ModelConfig
from MedAILib.models.heads import Activation, HeadTask, Input, Normalisation, NormalisationKind, Resize
from MedAILib.models.store import hash_file
from MedMNISTRouterLib import conversion
from MedMNISTRouterLib.conversion import CONVERTED, RECORD_FILE, Converter, made_up_pictures
from MedMNISTRouterLib.describe import describe_keras, with_activation
from MedMNISTRouterLib.engine import RouteEngine
from MedMNISTRouterLib.kerascheck import KerasFacts, check_keras_file
from MedMNISTRouterLib.kerasmodel import KerasModel
from MedMNISTRouterLib.kerasworker import TOLERANCE, Conversion
from MedMNISTRouterLib.prepare import GREY
from MedMNISTRouterLib.request import Engine, PlainImage, RouteRequest
from MedMNISTRouterLib.scaling import BGR, CAFFE, RAW, RGB
from MedMNISTRouterLib.session import OnnxModel

PATH = "stage2_pathmnist_final.keras"
BLOOD = "stage2_bloodmnist_final.keras"
DERMA = "stage2_dermamnist_final.keras"
_NEEDED = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "h5py")
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]

needs_keras = pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}")


@pytest.fixture(scope="module")
def keras_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that Keras itself wrote."""
    folder = tmp_path_factory.mktemp("Keras files")
    script = Path(__file__).with_name("make_keras_models.py")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@needs_keras
def test_a_file_is_converted_once_compared_and_kept(keras_models: Path, tmp_path: Path) -> None:
    told: list[str] = []
    path, converter = keras_models / PATH, Converter(tmp_path)
    found = converter.convert(path, "pathmnist", [smooth_picture(0, 3, 50)], told.append)

    assert found.why_not == ""
    assert found.model is not None
    assert found.sha256 == hash_file(path)
    assert any(PATH in text for text in told)
    with np.load(keras_models / "expected.npz") as expected:
        model = OnnxModel(found.model.graph)
        outputs = model.run(expected["batch"])
        assert outputs.answers == pytest.approx(expected["answers"], abs=TOLERANCE)
        assert outputs.features is not None
        assert outputs.features.shape == (3, 12)
        assert model.run(expected["batch"][:1]).answers == pytest.approx(outputs.answers[:1], abs=1e-6)
    record = json.loads((tmp_path / CONVERTED / found.sha256 / RECORD_FILE).read_text())
    assert record["difference"] <= TOLERANCE
    assert record["pictures"] >= 8
    head, wanted = found.config.heads[0], found.config.inputs[0]
    assert head.activation is Activation.NONE, "its softmax is within the graph"
    assert (wanted.size, wanted.channels, wanted.normalisation) == ((32, 32), BGR, CAFFE)
    assert "$.inputs[0].normalisation" in found.config.assumed
    assert any("values from 0 to 1" in text for text in found.warnings), "it was made as if trained on 0 to 1"

    told.clear()
    for again in (converter, Converter(tmp_path)):
        kept = again.convert(path, "pathmnist", on_stage=told.append)
        assert kept.model is not None
        assert kept.model.sha256 == found.model.sha256
        assert kept.warnings == found.warnings
    assert told == [], "it was converted again"


@needs_keras
def test_a_graph_with_inputs_of_its_own_is_caught_and_written_in_another_way(
    keras_models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    caplog.set_level("INFO", conversion.__name__)
    found = Converter(tmp_path).convert(keras_models / BLOOD, "bloodmnist")

    assert "inputs instead of one" in caplog.text
    assert found.why_not == ""
    assert found.model is not None
    assert found.config.heads[0].activation is Activation.SOFTMAX, "it answers logits"
    assert (found.config.inputs[0].channels, found.config.inputs[0].normalisation) == (RGB, RAW)
    assert found.warnings == ()


@needs_keras
def test_the_number_of_classes_is_checked_where_only_keras_can_tell_it(keras_models: Path, tmp_path: Path) -> None:
    assert check_keras_file(keras_models / DERMA, "dermamnist").outputs is None
    with pytest.raises(InvalidWeights, match="answers 5 numbers, but DermaMNIST has 7 classes"):
        Converter(tmp_path).convert(keras_models / DERMA, "dermamnist")
    assert not (tmp_path / CONVERTED / hash_file(keras_models / DERMA)).exists()


@needs_keras
def test_where_the_conversion_fails_tensorflow_answers_and_the_answer_says_so(
    keras_models: Path, tmp_path: Path
) -> None:
    shutil.copy(keras_models / PATH, tmp_path / PATH)
    record_failure(tmp_path, tmp_path / PATH, "the graph was wrong")
    engine = RouteEngine()
    picture = PlainImage("x", smooth_picture(3, 3))
    request = RouteRequest((picture, picture), "pathmnist", models_folder=tmp_path, without_gate=True)
    first, second = engine.route(request).answers

    assert first.success, first.error
    assert first.engine is Engine.TENSORFLOW
    assert "the graph was wrong" in first.models[0].remark
    assert second.all_class_probs == pytest.approx(first.all_class_probs, abs=1e-6)
    with np.load(keras_models / "expected.npz") as expected:
        model = KerasModel(keras_models / PATH)
        try:
            assert model.run(expected["batch"]).answers == pytest.approx(expected["answers"], abs=1e-6)
        finally:
            model.close()
    engine.clear()
    assert engine.stats().loaded == ()


def record_failure(home: Path, path: Path, why: str) -> None:
    """As a conversion leaves it that could not be done."""
    sha256 = hash_file(path)
    folder = home / CONVERTED / sha256
    folder.mkdir(parents=True)
    facts = check_keras_file(path, "pathmnist")
    with_activation(describe_keras(path, "pathmnist", facts, sha256), Activation.SOFTMAX).save(folder / CONFIG_FILE)
    record = {"version": conversion.VERSION, "slot": "pathmnist", "why_not": why, "warnings": []}
    (folder / RECORD_FILE).write_text(json.dumps(record))


@pytest.fixture
def without_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Worker processes find a Keras that cannot be imported."""
    broken = tmp_path / "broken"
    (broken / "keras").mkdir(parents=True)
    (broken / "keras" / "__init__.py").write_text("raise ImportError('No module named keras', name='keras')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(broken), *(path for path in sys.path if path)]))
    yield


def test_without_keras_a_new_file_names_what_to_install(tmp_path: Path, without_keras: None) -> None:
    path = keras_file(tmp_path / BLOOD, input_layer((32, 32, 3)), dense("answers", 8))
    with pytest.raises(MissingPackage, match=r"slicer-medai\[router-keras\]"):
        Converter(tmp_path).convert(path, "bloodmnist")


def test_a_keras_that_is_too_old_is_not_used(tmp_path: Path, without_keras: None) -> None:
    (tmp_path / "broken" / "keras" / "__init__.py").write_text("__version__ = '3.11.2'\n")
    path = keras_file(tmp_path / BLOOD, input_layer((32, 32, 3)), dense("answers", 8))
    with pytest.raises(MissingPackage, match=r"Keras 3\.11\.2 is too old"):
        Converter(tmp_path).convert(path, "bloodmnist")


def test_a_cancel_ends_a_conversion(tmp_path: Path, without_keras: None) -> None:
    (tmp_path / "broken" / "keras" / "__init__.py").write_text("import time\ntime.sleep(60)\n")
    path = keras_file(tmp_path / BLOOD, input_layer((32, 32, 3)), dense("answers", 8))

    def cancel(stage: str) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        Converter(tmp_path).convert(path, "bloodmnist", on_stage=cancel)
    assert [entry.name for entry in (tmp_path / CONVERTED).rglob("*") if entry.name.startswith(".part")] == []


FACTS = KerasFacts(9, (48, 48, 3), Activation.SOFTMAX, False, "3.15.1")


def test_what_nobody_states_is_taken_as_in_the_published_service_and_marked(tmp_path: Path) -> None:
    config = describe_keras(tmp_path / PATH, "pathmnist", FACTS, "0" * 64)

    assert (config.inputs[0].size, config.inputs[0].channels) == ((48, 48), BGR)
    assert config.heads[0].class_names[-1] == "colorectal adenocarcinoma epithelium"
    assert "$.inputs[0].normalisation" in config.assumed
    assert config.problems() == ()
    grey = describe_keras(tmp_path / PATH, "octmnist", replace(FACTS, input_shape=(28, 28, 1)), "0" * 64)
    assert grey.inputs[0].channels == GREY
    own = describe_keras(tmp_path / PATH, "pathmnist", replace(FACTS, scales_itself=True), "0" * 64)
    assert (own.inputs[0].channels, own.inputs[0].normalisation) == (RGB, RAW)


def test_a_description_that_names_the_files_hash_counts(tmp_path: Path) -> None:
    from MedAILib.models.config import FileEntry, FileRole, FileType

    norm = Normalisation(NormalisationKind.FIXED, scale=255.0, mean=(0.5,), std=(0.5,))
    stated = replace(
        config_for("pathmnist", temperature=1.7, calibrated_on="some"),
        inputs=(Input(channels=RGB, size=(28, 28), resize=Resize.AREA, normalisation=norm),),
        files=(FileEntry(PATH, FileRole.OTHER, FileType.KERAS, 1, "a" * 64),),
    )
    stated.save(tmp_path / CONFIG_FILE)

    bound = describe_keras(tmp_path / PATH, "pathmnist", FACTS, "a" * 64)
    assert (bound.inputs[0].normalisation, bound.heads[0].temperature) == (norm, 1.7)
    assert bound.assumed == ()
    other = describe_keras(tmp_path / PATH, "pathmnist", FACTS, "b" * 64)
    assert other.inputs[0].normalisation == CAFFE


@pytest.mark.parametrize(
    ("slot", "outputs", "applied", "missing"),
    [
        ("pathmnist", 9, Activation.NONE, Activation.SOFTMAX),
        ("pathmnist", 9, Activation.SOFTMAX, Activation.NONE),
        ("chestmnist", 14, Activation.NONE, Activation.SIGMOID),
        ("breastmnist", 1, Activation.NONE, Activation.SIGMOID),
        ("breastmnist", 2, Activation.NONE, Activation.SOFTMAX),
    ],
)
def test_the_activation_that_is_missing_follows_from_task_and_outputs(
    slot: str, outputs: int, applied: Activation, missing: Activation, tmp_path: Path
) -> None:
    config = describe_keras(tmp_path / PATH, slot, replace(FACTS, outputs=outputs), "0" * 64)
    assert with_activation(config, applied).heads[0].activation is missing


def test_a_multi_label_network_that_ends_in_a_softmax_is_warned_about(tmp_path: Path) -> None:
    config = describe_keras(tmp_path / PATH, "chestmnist", replace(FACTS, outputs=14), "0" * 64)
    assert config.heads[0].task is HeadTask.MULTI_LABEL
    done = Conversion("", 14, 3, Activation.SOFTMAX, 0.0, None, None, "")  # type: ignore[arg-type]
    assert "softmax" in conversion._warnings(config, done)[0]


def test_made_up_pictures_are_the_same_every_time_and_different_from_each_other() -> None:
    first, second = made_up_pictures(8, (40, 30)), made_up_pictures(8, (40, 30))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert len({picture.tobytes() for picture in first}) == 8
    assert all(picture.std() > 10 for picture in first)


def test_a_result_for_another_slot_or_of_an_earlier_way_is_not_used(tmp_path: Path) -> None:
    path = keras_file(tmp_path / PATH, input_layer((32, 32, 3)), dense("answers", 9))
    record_failure(tmp_path, path, "no")
    converter = Converter(tmp_path)
    assert converter.convert(path, "pathmnist").why_not == "no"

    place = tmp_path / CONVERTED / hash_file(path) / RECORD_FILE
    for change in ({"version": 0}, {"slot": "octmnist"}):
        before = place.read_text()
        place.write_text(json.dumps({**json.loads(before), **change}))
        assert converter._known(path, hash_file(path), place.parent, "pathmnist") is None
        place.write_text(before)
    assert isinstance(ModelConfig.load(place.parent / CONFIG_FILE), ModelConfig)
