"""The description of a model: read, checked, migrated, written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from model_files import FLAT, write_json

from MedAILib.errors import FileMissing, InvalidWeights, UnreadableFile
from MedAILib.models.config import (
    CONFIG_FILE,
    Architecture,
    FileEntry,
    FileRole,
    FileType,
    Licence,
    ModelConfig,
    Provenance,
    Resources,
    Source,
)
from MedAILib.models.heads import (
    Activation,
    ClassInfo,
    Code,
    Head,
    HeadTask,
    Input,
    Normalisation,
    NormalisationKind,
    Resize,
)
from MedAILib.models.migrations import SCHEMA, migrate

COMPLETE = ModelConfig(
    id="brain/tumour-2d",
    family="multitask-unet",
    architecture=Architecture(
        "multitask_unet", {"base_filters": 32, "depth": 4, "bilinear": True, "dropout": 0.1, "note": ["a", {"b": None}]}
    ),
    title="Brain tumour, one slice — größer",
    version="2.1",
    description="d",
    intended_use="research",
    inputs=(
        Input(
            "image", "MR", ("FLAIR",), (256, 256), (1.0, 1.0), "axial", Resize.LINEAR,
            normalisation=Normalisation(NormalisationKind.PERCENTILES, 1.0, 99.0),
        ),
    ),
    heads=(
        Head(
            "seg", HeadTask.SEGMENTATION,
            (ClassInfo(0, "Tumour", Code("SCT", "108369006", "Neoplasm"), (0.9, 0.1, 0.1)),),
            Activation.SIGMOID, 0.5, 1.5,
        ),
        Head(
            "cls", HeadTask.BINARY, (ClassInfo(0, "no"), ClassInfo(1, "yes")), Activation.SOFTMAX, 0.3,
            positive_class=1,
        ),
    ),
    files=(FileEntry("best.safetensors", FileRole.WEIGHTS, FileType.SAFETENSORS, 12, "ab" * 32),),
    source=Source("a/b", "c" * 40, "https://example.org", "arXiv:1"),
    licence=Licence("CC-BY-NC-4.0", non_commercial=True, must_be_accepted=True),
    provenance=Provenance("x", {"lr": 0.1}, {"dice": 0.8}, "2026-11-21", "old.pth"),
    requirements={"torch": ">=2.10"},
    resources=Resources(1, 2.0, 3.0, 0.4, 0.01, "2 cores"),
    assumed=("$.heads[0].threshold",),
)  # fmt: skip


def problems_of(data: object) -> str:
    with pytest.raises(InvalidWeights) as caught:
        ModelConfig.from_dict(data)
    return caught.value.what


def minimal(**more: object) -> dict:
    return {"schema": 1, "id": "m", "family": "f", "architecture": {"name": "net"}, **more}


def test_a_description_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "größe 漢 x"
    folder.mkdir()
    written = COMPLETE.save(folder)
    assert written == folder / CONFIG_FILE
    assert ModelConfig.load(written) == ModelConfig.from_checkpoint_dir(folder) == COMPLETE
    assert ModelConfig.from_checkpoint_dir(folder).content_hash == COMPLETE.content_hash
    assert "größer" in written.read_text(encoding="utf-8")


def test_what_nobody_stated_is_not_written() -> None:
    text = ModelConfig("m", "f", Architecture("net")).text
    assert json.loads(text) == minimal(architecture={"name": "net"})


def test_the_content_hash_depends_on_the_content_alone() -> None:
    data = COMPLETE.to_dict()
    turned = json.loads(json.dumps(dict(reversed(data.items()))))
    assert ModelConfig.from_dict(turned).content_hash == COMPLETE.content_hash
    assert replace(COMPLETE, version="2.2").content_hash != COMPLETE.content_hash


def test_every_problem_is_told_at_once_with_its_place() -> None:
    told = problems_of(
        minimal(
            id="a b",
            family=3,
            architecture={"name": "multitask_unet", "parameters": {"depth": "4", "bilinear": 1, "base_filters": True}},
            inputs=[{"normalisation": {"kind": "window", "lower": 5}, "size": [0, 3], "spacing_mm": [1.0]}],
            heads=[
                {"task": "guessing"},
                {
                    "name": "q",
                    "task": "binary",
                    "classes": [{"index": 1, "name": ""}],
                    "threshold": 1.5,
                    "temperature": 0,
                },
            ],
            files=[{"path": "../x", "role": "weights", "format": "torch", "size": -1, "sha256": "q"}],
            provenance={"date": "yesterday"},
        )
    )
    for place in (
        "$.family must be a text, not 3",
        '$.architecture.parameters.depth must be a whole number above 0, not "4"',
        "$.architecture.parameters.bilinear must be true or false, not 1",
        "$.architecture.parameters.base_filters must be a whole number above 0, not true",
        "$.inputs[0].size must be whole numbers above 0",
        "$.inputs[0].spacing_mm must have as many numbers as 'size'",
        "$.inputs[0].normalisation must have 'lower' and 'upper'",
        "$.heads[0] has no 'name', which is required",
        "$.heads[0].task must be one of segmentation, binary,",
        "$.heads[1].classes[0].name must not be empty",
        "$.heads[1].classes must have the indices 0 to 0",
        "$.heads[1].classes must have exactly 2 classes",
        "$.heads[1].threshold must be a probability",
        "$.heads[1].temperature must be above 0",
        "$.files[0].path must be a relative path",
        "$.files[0].size must not be below 0",
        "$.files[0].sha256 must be 64 hexadecimal digits",
        "$.provenance.date must be a date",
    ):
        assert place in told
    assert told.startswith("The description has 18 problems:")


ONE = [{"index": 0, "name": "a"}]


def one_head(task: str, **more: object) -> dict:
    return {"heads": [{"name": "h", "task": task, **more}]}


def normalised(**more: object) -> dict:
    return {"inputs": [{"normalisation": more}]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": "../etc"}, "$.id must be of letters"),
        ({"architecture": None}, "$.architecture must be an object, not nothing (null)"),
        ({"architecture": {"name": "n", "parameters": []}}, "$.architecture.parameters must be an object, not a list"),
        ({"inputs": "image"}, '$.inputs must be a list, not "image"'),
        ({"inputs": [{"name": "a"}, {"name": "a"}]}, "$.inputs has the name 'a' more than once"),
        ({"inputs": [{"size": [2.5]}]}, "$.inputs[0].size[0] must be a whole number, not 2.5"),
        (normalised(kind="window", lower=2, upper=2), "upper must be above 'lower'"),
        (normalised(kind="percentiles", lower=2, upper=101), "from 0 to 100"),
        (normalised(kind="fixed", mean=[0]), "as many values in 'mean' as in 'std'"),
        (normalised(kind="fixed", mean=[0], std=[0]), "must not divide by 0"),
        (
            {"inputs": [{"channels": ["a"] * 3, "normalisation": {"kind": "fixed", "mean": [0, 0], "std": [1, 1]}}]},
            "$.inputs[0].normalisation.mean must have one number or 3",
        ),
        (one_head("multi-label", classes=ONE, activation="softmax"), "independent"),
        (one_head("regression", activation="softmax"), "answers no probabilities"),
        (one_head("ordinal", classes=ONE), "at least 2"),
        (one_head("regression", positive_class=0), "belongs to a binary head only"),
        (one_head("segmentation", classes=[*ONE, {"index": 1, "name": "a"}]), "'a' more than once"),
        (one_head("segmentation", classes=[{**ONE[0], "color_rgb": [1, 2, 0]}]), "from 0 to 1"),
        (one_head("segmentation", classes=[{**ONE[0], "color_rgb": [1, 0]}]), "must have 3 items, not 2"),
        ({"requirements": {"torch": 2}}, "$.requirements.torch must be a text, not 2"),
        ({"resources": {"memory_mb": -1}}, "$.resources.memory_mb must not be below 0"),
        ({"provenance": {"metrics": {"dice": float("nan")}}}, "$.provenance.metrics.dice must be a finite number"),
        ({"assumed": [1]}, "$.assumed[0] must be a text, not 1"),
    ],
)
def test_a_problem_is_named(change: dict, told: str) -> None:
    assert told in problems_of(minimal(**change))


@pytest.mark.parametrize("path", ["/x", "C:/x", "a\\b", "a/../b", ""])
def test_files_lie_inside_the_folder_of_the_model(path: str) -> None:
    entry = {"path": path, "role": "weights", "format": "torch", "size": 1, "sha256": "0" * 64}
    assert "$.files[0].path must be a relative path" in problems_of(minimal(files=[entry]))


def test_unknown_keys_are_kept_everywhere_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = minimal(
        future={"a": [1, 2]},
        architecture={"name": "net", "opset": 17},
        heads=[{"name": "h", "task": "segmentation", "classes": [{"index": 0, "name": "a", "emoji": "x"}]}],
    )
    config = ModelConfig.load(write_json(tmp_path / CONFIG_FILE, data))
    unknown = ("$.architecture.opset", "$.heads[0].classes[0].emoji", "$.future")
    assert config.unknown_keys() == unknown
    assert all(path in caplog.text for path in unknown)
    again = json.loads(config.text)
    assert again["future"] == {"a": [1, 2]}
    assert again["architecture"]["opset"] == 17
    assert again["heads"][0]["classes"][0]["emoji"] == "x"


def test_a_newer_schema_is_refused_in_clear_words() -> None:
    with pytest.raises(InvalidWeights, match=r"newer version of MedAI.*schema is 7.*up to 1.*Update MedAI") as caught:
        ModelConfig.from_dict(minimal(schema=7, id=None))
    assert caught.value.exit_status == 8


@pytest.mark.parametrize("schema", ["1", None, True, -1, 1.5])
def test_a_schema_that_is_no_number_is_refused(schema: object) -> None:
    with pytest.raises(InvalidWeights, match="not a model description"):
        ModelConfig.from_dict(minimal(schema=schema))


def test_the_flat_form_becomes_the_present_one() -> None:
    config = ModelConfig.from_dict({**FLAT, "owner": "radiology"})
    assert config.schema == SCHEMA
    assert config.get_model_params() == {
        name: FLAT[name] for name in ("base_filters", "depth", "in_channels", "seg_out_channels", "cls_num_classes")
    }
    assert (config.version, config.description) == ("1.0", "joint training")
    assert (config.provenance.trained_on, config.provenance.training) == ("BraTS slices", "joint.yaml")
    assert config.unknown_keys() == ("$.owner",)
    assert [head.class_names for head in config.heads] == [("Tumor",), ("No Tumor", "Tumor")]
    assert "$.inputs[0].normalisation" in config.assumed
    assert "$.heads[1].threshold" in config.assumed


def test_the_flat_form_states_only_what_it_states() -> None:
    assert ModelConfig.from_dict({"depth": 3}).get_model_params() == {"depth": 3}


def test_the_flat_form_with_wrong_values_is_refused_by_place() -> None:
    told = problems_of({**FLAT, "depth": "four", "in_channels": 0})
    assert '$.architecture.parameters.depth must be a whole number above 0, not "four"' in told
    assert "$.architecture.parameters.in_channels must be a whole number above 0, not 0" in told


def test_migrating_what_is_present_changes_nothing() -> None:
    assert migrate(COMPLETE.to_dict()) == COMPLETE.to_dict()


def test_a_missing_description_is_an_error_and_never_a_default(tmp_path: Path) -> None:
    for ask in (ModelConfig.from_checkpoint_dir, lambda folder: ModelConfig.load(folder / CONFIG_FILE)):
        with pytest.raises(FileMissing, match=r"no model description.*medai models describe"):
            ask(tmp_path)


def test_the_description_beside_a_weight_file_is_found(tmp_path: Path) -> None:
    COMPLETE.save(tmp_path)
    (tmp_path / "best.pth").write_bytes(b"x")
    assert ModelConfig.from_checkpoint_dir(tmp_path / "best.pth") == COMPLETE


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b'{"schema": NaN}', b"[1]", b"null", b"[" * 100_000, b'{"a": Infinity}']
)
def test_a_file_that_is_no_description_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / CONFIG_FILE
    path.write_bytes(content)
    with pytest.raises(InvalidWeights):
        ModelConfig.load(path)


def test_a_folder_in_place_of_a_description_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).mkdir()
    with pytest.raises(UnreadableFile):
        ModelConfig.load(tmp_path / CONFIG_FILE)


def test_an_invalid_description_is_not_written(tmp_path: Path) -> None:
    wrong = replace(COMPLETE, id="a b", heads=(replace(COMPLETE.heads[0], temperature=-1.0),))
    assert len(wrong.problems()) == 2
    with pytest.raises(InvalidWeights, match=r"\$\.id .*|\$\.heads\[0\]\.temperature"):
        wrong.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_saving_replaces_the_old_description_whole(tmp_path: Path) -> None:
    COMPLETE.save(tmp_path / "own name.json")
    replace(COMPLETE, version="3").save(tmp_path / "own name.json")
    assert ModelConfig.load(tmp_path / "own name.json").version == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["own name.json"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(sorted({*COMPLETE.to_dict(), *FLAT}))


@example({"base_filters": float("inf")})
@given(st.dictionaries(KEYS, JSON, max_size=6))
def test_whatever_a_file_says_it_is_read_or_refused(change: dict) -> None:
    try:
        config = ModelConfig.from_dict({**COMPLETE.to_dict(), **change})
    except InvalidWeights:
        return
    assert ModelConfig.from_dict(json.loads(config.text)) == config


@given(JSON)
def test_whatever_a_file_holds_it_is_read_or_refused(data: object) -> None:
    with pytest.raises(InvalidWeights):
        ModelConfig.from_dict(data)
