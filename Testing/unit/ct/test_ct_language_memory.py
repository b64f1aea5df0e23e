"""What a language model will take is told from headers, and what does not fit is refused before it is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_language as tiny
from language_cases import save_whole
from safetensors.torch import load_file

from CTReportLib.language import memory
from CTReportLib.language.basefolder import read_base
from CTReportLib.language.loading import load_base, load_language_model
from CTReportLib.language.memory import estimate, require_memory
from MedAILib.errors import ConfigError, MissingPackage, NotEnoughMemory, OutOfMemory
from MedAILib.jobs.device import free_memory_bytes


@pytest.fixture(scope="module")
def a_whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whole(tmp_path_factory.mktemp("whole") / "model")


def numbers(path: Path) -> int:
    return sum(tensor.numel() for tensor in load_file(path).values())


def test_the_parts_of_an_estimate_are_those_of_the_files(a_whole: Path) -> None:
    found = estimate(a_whole, "cpu", tokens=100)
    base = numbers(a_whole / "base" / "model.safetensors")
    added = numbers(a_whole / "adapter" / "adapter_model.safetensors")
    added += numbers(a_whole / "projector" / "projector.safetensors")
    kept = 100 * 2 * 2 * 2 * 12 * 4  # tokens, layers, key and value, heads, length, float32
    least = 4 * (base + added) + kept + memory.LIBRARIES_BYTES
    assert least <= found.needed_bytes <= 1.05 * least
    assert "float32" in found.text and "free on cpu" in found.text
    assert found.fits and found.free_bytes is not None


def test_sixteen_bits_are_half_and_only_full_attention_layers_keep_tokens(tmp_path: Path) -> None:
    base = read_base(tiny.save_base(tmp_path / "qwen", "qwen3_5_text"))
    assert memory.bytes_per_token(base, "float32") == 1 * 2 * 2 * 16 * 4
    assert memory.bytes_per_token(base, "bfloat16") == 1 * 2 * 2 * 16 * 2


def test_known_models_keep_what_is_published_of_them_per_token(a_whole: Path) -> None:
    base = read_base(a_whole / "base")
    published = {
        "Llama-3.1-8B": ({"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
                          "hidden_size": 4096}, 131e3),
        "Gemma-2-27B": ({"num_hidden_layers": 46, "num_attention_heads": 32, "num_key_value_heads": 16,
                         "hidden_size": 4608, "head_dim": 128}, 377e3),
        "Llama-3.1-70B": ({"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
                           "hidden_size": 8192}, 328e3),
    }  # fmt: skip
    for config, wanted in published.values():
        like = type(base)(base.path, config, base.family, base.weights, base.stop_ids)
        assert memory.bytes_per_token(like, "bfloat16") == pytest.approx(wanted, rel=0.005)


def test_what_does_not_fit_is_refused_before_anything_is_loaded(a_whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory_bytes", lambda device: 100 << 20)
    found = estimate(a_whole)
    assert not found.fits
    with pytest.raises(NotEnoughMemory, match="105 MB are free on cpu") as caught:
        require_memory(found, "tiny")
    assert isinstance(caught.value, OutOfMemory) and "template" in caught.value.todo
    (a_whole / "base" / "tokenizer.json").rename(a_whole / "kept")
    (a_whole / "base" / "tokenizer.json").write_text("{}", encoding="utf-8")  # would fail if it were read
    try:
        with pytest.raises(NotEnoughMemory):
            load_language_model(a_whole)
    finally:
        (a_whole / "kept").replace(a_whole / "base" / "tokenizer.json")


def test_where_nobody_knows_what_is_free_nothing_is_refused(a_whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory_bytes", lambda device: None)
    found = estimate(a_whole)
    assert found.fits and found.free_bytes is None and "not known" in found.text
    require_memory(found, "tiny")


def test_the_estimate_holds_for_what_loading_and_writing_really_take(a_whole: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from CTReportLib.language.engine import write_report\n"
        "from CTReportLib.report import Facts\n"
        "from MedAILib.jobs.task import Context\n"
        f"write_report(Path({str(a_whole / 'base')!r}), (), (), Facts(), None, Context(), 8)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"  # getrusage counts the parent's
    )
    if sys.platform != "linux":
        pytest.skip("the system does not tell the peak of a process's memory in kilobytes")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) * 1024 < estimate(a_whole / "base").needed_bytes


def test_number_formats_follow_the_device_and_the_folder() -> None:
    assert memory.chosen_dtype("auto", "cuda:0") == "bfloat16"
    assert memory.chosen_dtype("auto", "cpu") == memory.chosen_dtype("auto", "mps") == "float32"
    assert memory.chosen_dtype("bfloat16", "cpu") == "bfloat16"


def test_eight_bits_are_refused_where_no_cuda_is(a_whole: Path) -> None:
    with pytest.raises(ConfigError, match="only on CUDA"):
        estimate(a_whole, "cpu", quantization="int8")
    with pytest.raises(ConfigError, match="only on CUDA"):
        load_base(read_base(a_whole / "base"), "cpu", quantization="int8")
    whole, small = (estimate(a_whole, "cuda:0", quantization=how).needed_bytes for how in ("", "int8"))
    assert small < whole


def test_eight_bits_need_bitsandbytes(a_whole: Path) -> None:
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(MissingPackage, match="bitsandbytes"):
        load_base(read_base(a_whole / "base"), "cuda:0", quantization="int8")


def test_free_memory_of_this_machine_is_a_number_or_unknown() -> None:
    found = free_memory_bytes("cpu")
    assert found is None or 0 < found < 1 << 50
    assert free_memory_bytes("cuda:99") is None
