"""Bad weight files are refused by name, before any library that would load them is imported."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
import weight_files as make
from hypothesis import given
from hypothesis import strategies as st

from MedAILib.errors import FileMissing, InvalidWeights
from MedAILib.models.inspection import FileFormat, inspect
from MedAILib.models.pickles import MalformedPickle, scan
from MedAILib.models.placeholders import placeholder_in


def refused(path: Path, *words: str, name: str = "") -> InvalidWeights:
    """The refusal of a file, which must name what it is and say what to do."""
    with pytest.raises(InvalidWeights) as caught:
        inspect(path, name=name)
    error = caught.value
    assert str(path) in error.what
    for word in words:
        assert word.lower() in error.text.lower()
    assert error.todo
    return error


def environment() -> dict[str, str]:
    """The environment for a child that finds the libraries where this process does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# What stands in place of a file


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (make.LFS_POINTER, ("Git LFS pointer", "git lfs pull")),
        (make.DRIVE_VIRUS_PAGE, ("Google Drive", "virus scan")),
        (make.DRIVE_QUOTA_PAGE, ("Google Drive", "too many people")),
        (b"\n <HTML><body>404 Not Found</body></HTML>", ("HTML page",)),
        (b'<html><form action="https://accounts.google.com/ServiceLogin"></form></html>', ("sign in",)),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', ("XML error",)),
        (b'{"error": "Invalid username or password."}', ("JSON", "Invalid username")),
        (b'{"message": "Not Found", "status": 404}', ("JSON", "Not Found")),
        (b"", ("0 bytes",)),
        (b" \n\n", ("blanks",)),
        (bytes(100_000), ("zero bytes",)),
    ],
    ids=lambda value: value[0].replace(" ", "-") if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".h5", ".onnx", ".keras", ""])
def test_a_placeholder_is_named_for_what_it_is(
    tmp_path: Path, content: bytes, words: tuple[str, ...], suffix: str
) -> None:
    refused(write(tmp_path / f"größe model{suffix}", content), *words)


def test_a_real_configuration_is_no_error_message(tmp_path: Path) -> None:
    path = write(tmp_path / "config.json", b'{"message": "m", "architectures": ["Bert"]}')
    assert inspect(path).format is FileFormat.TEXT


def test_a_missing_file_is_missing_not_invalid(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        inspect(tmp_path / "nothing.pth")


@given(st.binary(max_size=300))
def test_no_bytes_break_the_placeholder_check(head: bytes) -> None:
    found = placeholder_in(head)
    assert found is None or (found.what and found.todo)


# Good files of every format


def good_files(folder: Path) -> list[tuple[Path, FileFormat]]:
    npz = io.BytesIO()
    np.savez(npz, **make.tensors())
    npy = io.BytesIO()
    np.save(npy, make.tensors()["conv.weight"])
    return [
        (write(folder / "a.safetensors", make.safetensors_bytes({"x": "y"})), FileFormat.SAFETENSORS),
        (make.torch_file(folder / "a.pth"), FileFormat.TORCH),
        (make.torch_file(folder / "legacy.pth", legacy=True), FileFormat.TORCH_LEGACY),
        (make.keras_file(folder / "a.keras", make.layer("Dense"), make.layer("BatchNormalization")), FileFormat.KERAS),
        (make.hdf5_file(folder / "a.h5", make.keras_config(make.layer("Dense"))), FileFormat.HDF5),
        (make.hdf5_file(folder / "weights.h5"), FileFormat.HDF5),
        (write(folder / "a.onnx", make.onnx_bytes()), FileFormat.ONNX),
        (write(folder / "a.npz", npz.getvalue()), FileFormat.NUMPY_ZIP),
        (write(folder / "a.npy", npy.getvalue()), FileFormat.NUMPY),
        (make.zip_file(folder / "a.zip", {"a.txt": b"text"}), FileFormat.ZIP),
        (write(folder / "a.nii.gz", gzip.compress(bytes(range(256)) * 50)), FileFormat.GZIP),
        (make.tar_file(folder / "a.tar", {"x": bytes(5000)}), FileFormat.TAR),
    ]


def test_good_files_of_every_format_pass(tmp_path: Path) -> None:
    for path, kind in good_files(tmp_path):
        found = inspect(path)
        assert (found.format, found.size, found.warnings) == (kind, path.stat().st_size, ())


def test_every_good_file_cut_short_is_refused_as_damaged(tmp_path: Path) -> None:
    for path, kind in good_files(tmp_path):
        if kind is FileFormat.TAR:
            continue  # tar is padded with zeros: only losing a member is damage, see below
        content = path.read_bytes()
        for share in (0.3, 0.7, 0.97):
            path.write_bytes(content[: int(len(content) * share)])
            error = refused(path)
            assert "damaged" in error.what, (path, share, error.text)
            assert "cut short" in error.why or "broken" in error.why or "HDF5 cannot" in error.why, (path, error.text)


def test_a_tar_cut_short_within_a_member_is_damaged(tmp_path: Path) -> None:
    path = make.tar_file(tmp_path / "a.tar", {"x": bytes(5000)})
    path.write_bytes(path.read_bytes()[:3000])
    refused(path, "damaged")


def test_what_torch_and_safetensors_write_agrees_with_our_book_keeping(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    save_file = pytest.importorskip("safetensors.torch", reason="safetensors is not installed").save_file
    state = {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.ones(2, 2, dtype=torch.int64), "c": torch.ones(())}
    save_file(state, tmp_path / "a.safetensors")
    assert inspect(tmp_path / "a.safetensors").format is FileFormat.SAFETENSORS
    views = {"all": state["b"], "row": state["b"][0], "parameter": torch.nn.Parameter(torch.ones(2)), "flag": True}
    for legacy in (False, True):
        assert inspect(make.torch_file(tmp_path / "v.pth", views, legacy=legacy)).format in (
            FileFormat.TORCH,
            FileFormat.TORCH_LEGACY,
        )


def test_a_training_checkpoint_with_optimizer_and_numpy_numbers_passes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {"network_weights": model.state_dict(), "optimizer": optimizer.state_dict(), "dice": np.float64(0.9)}
    assert inspect(make.torch_file(tmp_path / "checkpoint.pth", content)).format is FileFormat.TORCH


# Files that would run code


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_with_a_reducer_is_refused_whatever_its_protocol(tmp_path: Path, protocol: int) -> None:
    path = write(tmp_path / "model.pth", make.evil_pickle(protocol))
    refused(path, "not safe", "system", "safetensors")


def test_a_memo_index_or_length_beyond_reason_fills_no_memory() -> None:
    for bytes_ in (b"\x80\x04N\x72\xff\xff\xff\x7f.", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x0f."):
        with pytest.raises(MalformedPickle) if b"\x8d" in bytes_ else nullcontext():
            scan(io.BytesIO(bytes_))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_with_a_reducer_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = make.torch_file(tmp_path / "model.pth", {"state_dict": make.Evil()}, legacy=legacy)
    refused(path, "not safe", "system")
    assert not (Path.cwd() / "pwned.txt").exists()


def test_an_import_whose_name_is_put_together_while_loading_is_refused() -> None:
    hidden = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93\x8c\x02id\x85R."  # names through the memo
    assert scan(io.BytesIO(hidden)).forbidden == ("os.system",)
    computed = b"\x80\x04]\x8c\x06system\x93."
    assert scan(io.BytesIO(computed)).forbidden == ("a name made up while loading",)
    extension = b"\x80\x02\x82\x07."
    assert scan(io.BytesIO(extension)).forbidden == ("copyreg extension 7",)


_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats() | st.binary(max_size=5)


def _nested(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner)


@given(st.recursive(_LEAVES, _nested, max_leaves=12), st.integers(0, 5))
def test_every_pickle_of_plain_values_is_followed_to_its_end(value: object, protocol: int) -> None:
    stream = io.BytesIO(pickle.dumps(value, protocol) + b"rest")
    found = scan(stream)
    assert not set(found.forbidden)
    assert stream.read() == b"rest"


@given(st.binary(max_size=200))
def test_no_bytes_break_the_pickle_machine(data: bytes) -> None:
    with suppress(MalformedPickle):
        scan(io.BytesIO(b"\x80\x04" + data))


def test_a_torchscript_program_is_no_set_of_weights(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    refused(path, "TorchScript program")


def test_object_arrays_are_pickles_and_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(tmp_path / "a.npy", "Python objects")
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    refused(tmp_path / "a.npz", "Python objects")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (make.layer("Lambda"), ("Lambda", "Python code")),
        (make.layer("TFSMLayer"), ("TFSMLayer",)),
        (make.layer("TorchModuleWrapper"), ("TorchModuleWrapper",)),
        (make.layer("Popen", module="subprocess"), ("subprocess.Popen", "not Keras's own")),
        (make.layer("get_file", module="keras.utils"), ("keras.utils",)),
        (make.layer("function", module="builtins", config="evil"), ("function",)),
        (make.layer("run", module="keras.layers"), ("function 'run'",)),
        (make.layer("Mine", registered_name="Custom>Mine", module=None), ("custom class",)),
        (make.layer("StringLookup", config={"vocabulary": "/etc/passwd"}), ("/etc/passwd",)),
        (make.layer("Dense", config={"activation": make.layer("Lambda")}), ("Lambda",)),
    ],
    ids=lambda value: value["class_name"] if isinstance(value, dict) else "",
)
def test_a_keras_file_with_foreign_code_is_refused_in_both_formats(
    tmp_path: Path, bad: dict, words: tuple[str, ...]
) -> None:
    refused(make.keras_file(tmp_path / "a.keras", make.layer("Dense"), bad), "not safe", *words)
    refused(make.hdf5_file(tmp_path / "a.h5", make.keras_config(make.layer("Dense"), bad)), "not safe")


def test_a_lambda_in_an_old_keras_2_file_is_refused(tmp_path: Path) -> None:
    old = {"class_name": "Sequential", "config": [{"class_name": "Lambda", "config": {"function": ["4wEAAA", None]}}]}
    refused(make.hdf5_file(tmp_path / "a.h5", old), "Lambda")


def test_a_real_keras_2_file_is_whole_and_free_of_code(shared_data: Callable[[str], Path]) -> None:
    found = inspect(shared_data("weights/mobilenetv2_035_224_tm.h5"))
    assert (found.format, found.warnings) == (FileFormat.HDF5, ())


def test_a_keras_file_with_members_it_needs_not_is_refused(tmp_path: Path) -> None:
    refused(make.keras_file(tmp_path / "a.keras", make.layer("Dense"), **{"run.py": b"import os"}), "run.py")


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual", "shape bomb"])
def test_an_hdf5_file_that_reaches_outside_itself_is_refused(tmp_path: Path, kind: str) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = make.hdf5_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        if kind == "external link":
            file["x"] = h5py.ExternalLink("/etc/passwd", "/")
        elif kind == "soft link":
            file["x"] = h5py.SoftLink("/model_weights")
        elif kind == "external storage":
            file.create_dataset("x", (10,), "u1", external=[(str(tmp_path / "secret"), 0, 10)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4,), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "y", (4,))
            file.create_virtual_dataset("x", layout)
        else:
            file.create_dataset("x", (1 << 40,), "f4", chunks=(1 << 20,))
    refused(path, "not safe", "'/x'")


def test_onnx_data_outside_its_folder_is_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.onnx", make.onnx_bytes("../../secret")), "../../secret")
    assert inspect(write(tmp_path / "b.onnx", make.onnx_bytes("b.onnx.data"))).format is FileFormat.ONNX


# Names and formats that do not belong together


def test_a_name_that_promises_another_format_is_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "model.pth", make.safetensors_bytes()), "safetensors file", "ending")
    refused(write(tmp_path / "model.h5", make.onnx_bytes()), "ONNX")
    path = write(tmp_path / "model.part", make.safetensors_bytes())
    assert inspect(path, name="model.safetensors").format is FileFormat.SAFETENSORS


@pytest.mark.parametrize("change", ["gap", "longer", "header"])
def test_a_safetensors_file_that_contradicts_itself_is_refused(tmp_path: Path, change: str) -> None:
    content = make.safetensors_bytes()
    if change == "longer":
        content += b"x"
    elif change == "gap":
        content = content.replace(b'"data_offsets": [0, 144]', b'"data_offsets": [9, 1]  ')
    else:
        content = (1 << 60).to_bytes(8, "little") + content[8:]
    refused(write(tmp_path / "a.safetensors", content), "damaged")


def test_inspection_imports_no_framework(tmp_path: Path) -> None:
    write(tmp_path / "evil.pth", make.evil_pickle())
    make.torch_file(tmp_path / "bad.pth", {"x": make.Evil()})
    make.keras_file(tmp_path / "evil.keras", make.layer("Lambda"))
    write(tmp_path / "pointer.h5", make.LFS_POINTER)
    make.torch_file(tmp_path / "good.pth")
    code = (
        "import sys, json\nfrom pathlib import Path\nfrom MedAILib.errors import InvalidWeights\n"
        "from MedAILib.models.inspection import inspect\nrefused = []\n"
        f"for path in sorted(Path({str(tmp_path)!r}).iterdir()):\n"
        "    try: inspect(path)\n    except InvalidWeights: refused.append(path.name)\n"
        "heavy = [m for m in ('torch', 'keras', 'tensorflow', 'h5py', 'safetensors', 'numpy') if m in sys.modules]\n"
        "print(json.dumps([refused, heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert json.loads(done.stdout) == [["bad.pth", "evil.keras", "evil.pth", "pointer.h5"], []]
