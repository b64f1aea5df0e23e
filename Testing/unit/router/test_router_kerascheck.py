"""Keras files judged without Keras: each kind of bad file is refused by its name, and no framework is loaded for it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from router_models import dense, hdf5_weights, input_layer, keras_file, plain_layer

from MedAILib.errors import InvalidWeights, MedAIError
from MedAILib.models.heads import Activation
from MedMNISTRouterLib.datasets import FLAGS
from MedMNISTRouterLib.kerascheck import KerasFacts, allowed_outputs, check_keras_file
from MedMNISTRouterLib.request import ROUTER


def facts(path: Path, *layers: dict[str, object], slot: str = "bloodmnist", **config: object) -> KerasFacts:
    return check_keras_file(keras_file(path / "stage2.keras", *layers, **config), slot)  # type: ignore[arg-type]


def test_a_good_file_says_what_it_is(tmp_path: Path) -> None:
    found = facts(tmp_path, input_layer(), plain_layer("Rescaling", scale=1 / 255), dense("answers", 8))

    assert found == KerasFacts(8, (64, 64, 3), Activation.SOFTMAX, True, "3.15.1")


def test_an_activation_of_its_own_layer_is_found(tmp_path: Path) -> None:
    found = facts(tmp_path, input_layer((28, 28, 1)), dense("answers", 8, "linear"), plain_layer("Softmax", axis=-1))

    assert (found.outputs, found.activation, found.input_shape) == (8, Activation.SOFTMAX, (28, 28, 1))
    assert not found.scales_itself


def test_logits_are_told_from_probabilities(tmp_path: Path) -> None:
    assert facts(tmp_path, input_layer(), dense("answers", 8, "linear")).activation is Activation.NONE


def test_a_model_within_the_model_is_looked_into(tmp_path: Path) -> None:
    inner = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "inner", "layers": [input_layer(), dense("x", 3)]},
        "registered_name": None,
    }
    with pytest.raises(InvalidWeights, match="answers 3 numbers"):
        facts(tmp_path, inner)
    assert facts(tmp_path, inner, dense("y", 8)).input_shape == (64, 64, 3)


@pytest.mark.parametrize("slot", [ROUTER, *FLAGS])
def test_every_slot_takes_its_own_number_of_outputs_and_no_other(slot: str, tmp_path: Path) -> None:
    for count in allowed_outputs(slot):
        assert facts(tmp_path, input_layer(), dense("answers", count), slot=slot).outputs == count
    with pytest.raises(InvalidWeights, match=r"stage2\.keras' answers 33 numbers, but .* has|chooses"):
        facts(tmp_path, input_layer(), dense("answers", 33), slot=slot)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(MedAIError) as caught:
        check_keras_file(path, "bloodmnist")
    assert isinstance(caught.value, InvalidWeights)
    for word in (path.name, *words):
        assert word in caught.value.text


def bad_layers() -> dict[str, tuple[dict[str, object], str]]:
    function = {"class_name": "function", "config": "system", "module": "os", "registered_name": None}
    return {
        "lambda": (plain_layer("Lambda", function={"class_name": "__lambda__", "config": {}}), "Lambda"),
        "foreign class": (plain_layer("Backdoor", module="evil_package.layers"), "evil_package"),
        "saved model": (plain_layer("TFSMLayer", filepath="/tmp/x"), "TFSMLayer"),
        "torch module": (plain_layer("TorchModuleWrapper"), "TorchModuleWrapper"),
        "function": (plain_layer("Dense", units=8, activation=function), "function"),
        "download": (plain_layer("get_file", module="keras.utils", origin="http://x"), "keras.utils"),
        "reads a file": (plain_layer("StringLookup", vocabulary="/etc/passwd"), "/etc/passwd"),
    }


@pytest.mark.parametrize("kind", list(bad_layers()))
def test_a_layer_that_carries_code_or_reaches_out_is_refused(kind: str, tmp_path: Path) -> None:
    layer, words = bad_layers()[kind]
    refused(keras_file(tmp_path / "bad.keras", input_layer(), layer, dense("answers", 8)), "refused", words)


def test_a_corrupt_zip_is_refused(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "cut.keras", input_layer(), dense("answers", 8))
    path.write_bytes(path.read_bytes()[:-40])
    refused(path, "damaged")


def test_a_flipped_byte_within_the_weights_is_found(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "flipped.keras", input_layer(), dense("answers", 8))
    content = bytearray(path.read_bytes())
    content[content.find(b"\x89HDF") + 100] ^= 0xFF
    path.write_bytes(content)
    refused(path, "damaged")


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "bomb.keras", input_layer(), dense("answers", 8))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("assets/x", "w") as stream:
        for _ in range(300):
            stream.write(bytes(1 << 20))
    refused(path, "bomb")


def test_a_way_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "out.keras", input_layer(), dense("answers", 8))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/../../x", b"")
    refused(path)


def test_weights_that_lie_in_another_file_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    for name, link, word in (
        ("external", h5py.ExternalLink("/etc/passwd", "/x"), "/etc/passwd"),
        ("soft", h5py.SoftLink("/layers"), "soft link"),
    ):
        weights = hdf5_weights(**{"layers/evil": link})
        refused(keras_file(tmp_path / f"{name}.keras", input_layer(), dense("a", 8), weights=weights), word)


def test_an_array_that_claims_to_fill_the_memory_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    import io

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("x", shape=(1 << 36,), dtype="f4", chunks=(1 << 10,))
    path = keras_file(tmp_path / "huge.keras", input_layer(), dense("a", 8), weights=stream.getvalue())
    refused(path, "fill the memory")


def test_a_keras_2_file_is_refused_and_the_way_to_renew_it_is_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "stage2_bloodmnist_final.h5"
    with h5py.File(path, "w") as file:
        file["model_weights/dense/kernel"] = np.zeros((2, 3), np.float32)
    refused(path, "Keras 2", "model.save('name.keras')")


def test_a_keras_2_file_that_was_renamed_is_called_what_it_is(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "stage2_bloodmnist_final.keras"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)
    refused(path, "an HDF5 file")


def test_a_real_keras_2_file_is_refused(shared_data: Callable[[str], Path]) -> None:
    files = sorted(shared_data("weights").rglob("*.h5"))
    if not files:
        pytest.skip("the shared data has no .h5 file")
    refused(files[0], "Keras 2")


@pytest.mark.parametrize("key", ["input_layers", "output_layers"])
def test_a_model_of_several_inputs_or_outputs_is_refused(key: str, tmp_path: Path) -> None:
    ends = {"input_layers": [["image", 0, 0]], "output_layers": [["answers", 0, 0]]}
    ends[key] = [["image", 0, 0], ["answers", 0, 0]]
    path = keras_file(tmp_path / "two.keras", input_layer(), dense("answers", 8), **ends)
    refused(path, f"2 {key.split('_')[0]}s")


@pytest.mark.parametrize(
    "content",
    [b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 95135744\n", b"", b"<html>"],
)
def test_a_placeholder_is_named_for_what_it_is(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "stage1_final.keras").write_bytes(content)
    refused(tmp_path / "stage1_final.keras", "not a weight file")


def test_bad_files_are_refused_before_any_framework_is_loaded(tmp_path: Path) -> None:
    layer, _ = bad_layers()["lambda"]
    path = keras_file(tmp_path / "bad.keras", input_layer(), layer, dense("answers", 8))
    code = (
        "import sys; from pathlib import Path\n"
        "from MedMNISTRouterLib.kerascheck import check_keras_file\n"
        "from MedAILib.errors import InvalidWeights\n"
        "try:\n    check_keras_file(Path(sys.argv[1]), 'bloodmnist')\n"
        "except InvalidWeights: pass\n"
        "else: sys.exit('it was not refused')\n"
        "sys.exit(', '.join(n for n in ('keras', 'tensorflow', 'torch', 'onnxruntime') if n in sys.modules) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False, env=_environment()
    )
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
