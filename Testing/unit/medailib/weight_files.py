"""Real weight files, good and bad: made by the libraries that people make them with, or byte by byte."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 95135744\n"
)
DRIVE_VIRUS_PAGE = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
    b"<p>Google Drive can't scan this file for viruses.</p><form id='download-form'></form></body></html>"
)
DRIVE_QUOTA_PAGE = (
    b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>"
    b"<p>Sorry, you can't view or download this file at this time. Too many users have viewed or downloaded "
    b"this file recently.</p></body></html>"
)


class Evil:
    """Unpickling this would run a command."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("echo pwned > pwned.txt",)


def tensors() -> dict[str, np.ndarray]:
    """A little state dict."""
    generator = np.random.default_rng(3)
    return {"conv.weight": generator.random((4, 1, 3, 3), np.float32), "conv.bias": np.zeros(4, np.float32)}


def safetensors_bytes(metadata: dict[str, str] | None = None) -> bytes:
    """Written by hand after the format's description, so that these tests need no library."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, array in tensors().items():
        extent = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": extent}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def torch_file(path: Path, content: Any = None, *, legacy: bool = False) -> Path:
    """What ``torch.save`` writes; skips the test where torch is missing."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if content is None:
        content = {"state_dict": {name: torch.from_numpy(array) for name, array in tensors().items()}, "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def layer(kind: str, **changes: Any) -> dict[str, Any]:
    """A layer as Keras 3 writes it."""
    made = {"module": "keras.layers", "class_name": kind, "config": {"name": kind.lower()}, "registered_name": None}
    return made | changes


def keras_config(*layers: dict[str, Any]) -> dict[str, Any]:
    """A sequential model as Keras 3 writes it."""
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "sequential", "dtype": "float32", "layers": list(layers)},
        "registered_name": None,
        "build_config": {"input_shape": [None, 8]},
    }


def keras_file(path: Path, *layers: dict[str, Any], **members: bytes) -> Path:
    """A ``.keras`` file: a zip of two JSON files and the weights."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", json.dumps(keras_config(*layers)))
        archive.writestr("model.weights.h5", keras_weights())
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def keras_weights() -> bytes:
    """The HDF5 file within a ``.keras`` file; skips where h5py is missing."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/dense/vars/0"] = np.zeros((2, 3), np.float32)
    return stream.getvalue()


def hdf5_file(path: Path, config: dict[str, Any] | None = None) -> Path:
    """What Keras 2 writes: the layers in an attribute, the arrays in groups; skips where h5py is missing."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(path, "w") as file:
        for name, array in tensors().items():
            file[f"model_weights/{name.replace('.', '/')}"] = array
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
    return path


def _message(*parts: tuple[int, bytes | int]) -> bytes:
    """A protobuf message of numbers and lengths."""
    out = b""
    for field, value in parts:
        if isinstance(value, int):
            out += _varint(field << 3) + _varint(value)
        else:
            out += _varint(field << 3 | 2) + _varint(len(value)) + value
    return out


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def onnx_bytes(outside: str = "") -> bytes:
    """A minimal ONNX model (onnx.proto's ModelProto): one tensor, one node."""
    entry = [(13, _message((1, b"location"), (2, outside.encode()))), (14, 1)] if outside else [(9, bytes(400))]
    tensor = _message((1, 100), (2, 1), (8, b"weight"), *entry)
    node = _message((1, b"weight"), (2, b"out"), (4, b"Identity"))
    graph = _message((1, node), (2, b"graph"), (5, tensor))
    return _message((1, 10), (2, b"trial"), (7, graph), (8, _message((2, 21))))


def zip_file(path: Path, members: dict[str, bytes], *, deflated: bool = True) -> Path:
    """A zip whose names are taken as they are."""
    kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name) if not deflated else name, content)
    return path


def zip_with_link(path: Path) -> Path:
    """A zip that holds a symbolic link out of its folder."""
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc")
    return path


def tar_file(path: Path, members: dict[str, bytes], *, links: dict[str, str] | None = None) -> Path:
    """A tar, compressed as its name says."""
    mode = "w:gz" if path.suffix in (".gz", ".tgz") else "w"
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def evil_pickle(protocol: int = 2) -> bytes:
    """A pickle that runs a command when it is loaded."""
    return pickle.dumps({"state_dict": Evil()}, protocol)
