"""Which description of a weight file counts, and that a wrong one never yields a network."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from model_files import FLAT, SMALL, write_json

from MedAILib.errors import ConfigMismatch, InputError, InvalidWeights
from MedAILib.models.checkpoint import load_model_with_config, save_model_with_config
from MedAILib.models.config import CONFIG_FILE, Architecture, ModelConfig
from MedAILib.models.descriptions import Origin

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from tiny_networks import Perceptron, never, same, tiny_config, unet_config  # noqa: E402
from torch import nn  # noqa: E402

from MedAILib.multitask.network import create_multi_task_model  # noqa: E402

FORMATS = pytest.mark.parametrize("name", ["best model 漢.safetensors", "best.pth", "best.pt"])


def saved_unet(folder: Path, **more: Any) -> tuple[Path, nn.Module]:
    model = create_multi_task_model(**SMALL)
    torch.save({"model_state_dict": model.state_dict(), **more}, folder / "best_model.pth")
    return folder / "best_model.pth", model


def test_without_any_description_the_tensors_speak(tmp_path: Path) -> None:
    path, model = saved_unet(tmp_path)
    loaded, config, checkpoint = load_model_with_config(path, create_multi_task_model)
    assert same(loaded, model)
    assert config.get_model_params() == SMALL
    assert checkpoint.resolution.origin is Origin.SHAPES
    for path_ in ("$.inputs[0].normalisation", "$.heads[0].classes", "$.heads[1].threshold"):
        assert path_ in config.assumed


def test_the_flat_description_of_the_folder_is_completed_by_the_tensors(tmp_path: Path) -> None:
    path, model = saved_unet(tmp_path)
    write_json(tmp_path / CONFIG_FILE, {**FLAT, "base_filters": 4, "depth": 2})
    loaded, config, checkpoint = load_model_with_config(path, create_multi_task_model)
    assert same(loaded, model)
    assert config.provenance.trained_on == "BraTS slices"
    origins = checkpoint.resolution.parameter_origins
    assert origins["depth"] is Origin.FOLDER
    assert origins["cls_hidden_dim"] is Origin.SHAPES
    assert checkpoint.resolution.conflicts == ()


def test_the_description_of_the_old_generator_is_refused_in_three_lines(tmp_path: Path) -> None:
    path, _ = saved_unet(tmp_path)
    write_json(tmp_path / CONFIG_FILE, FLAT)
    with pytest.raises(ConfigMismatch) as caught:
        load_model_with_config(path, never)
    first, looks, mend = str(caught.value).splitlines()
    assert first == (
        "'best_model.pth' does not fit its description: tensor 'encoder.inc.double_conv.0.weight' is expected with "
        "shape 64x1x3x3, the file has 4x1x3x3."
    )
    assert "The file looks like multitask_unet with in_channels=1" in looks
    assert (
        "base_filters=4 depth=2 bilinear=True cls_hidden_dim=8; the description says base_filters=64 depth=4" in looks
    )
    assert mend.endswith(f'medai models describe "{path}" --write')
    assert len(str(caught.value)) < 800
    assert caught.value.exit_status == 8


def test_what_the_checkpoint_says_of_itself_comes_before_its_folder(tmp_path: Path) -> None:
    path, model = saved_unet(tmp_path, config={"model": {"base_filters": 4, "depth": 2}, "training": {"epochs": 3}})
    write_json(tmp_path / CONFIG_FILE, FLAT)
    loaded, _, checkpoint = load_model_with_config(path, create_multi_task_model)
    assert same(loaded, model)
    told = [str(conflict) for conflict in checkpoint.resolution.conflicts]
    assert told[0] == (
        "$.architecture.parameters.base_filters: 4 after the description inside the file (best_model.pth), "
        "not 64 after the description in its folder (model_config.json)"
    )
    assert len(told) == 2


def test_a_training_setting_that_is_no_description_is_said_and_not_used(tmp_path: Path) -> None:
    path, _ = saved_unet(tmp_path, config={"lr": 0.1})
    remarks = load_model_with_config(path, create_multi_task_model)[2].resolution.remarks
    assert remarks == ("What the file carries under 'config' is no model description; it is not used.",)


def test_a_bound_description_comes_before_the_one_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    config = save_model_with_config(create_multi_task_model(**SMALL), path, unet_config())
    changed = replace(config, heads=(replace(config.heads[0], threshold=0.25), config.heads[1]), assumed=())
    changed.save(tmp_path)
    _, found, checkpoint = load_model_with_config(path, create_multi_task_model)
    assert found.heads[0].threshold == 0.25
    assert checkpoint.resolution.origin is Origin.BOUND


def test_stated_values_that_differ_are_reported_by_field_and_source(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    stated = ModelConfig.from_dict({**FLAT, "base_filters": 4, "depth": 2})
    config = save_model_with_config(create_multi_task_model(**SMALL), path, replace(stated, assumed=()))
    replace(config, heads=(replace(config.heads[0], threshold=0.25), config.heads[1])).save(tmp_path)
    conflicts = load_model_with_config(path, create_multi_task_model)[2].resolution.conflicts
    assert [str(conflict) for conflict in conflicts] == [
        "$.heads[0].threshold: 0.25 after the description bound to this file (model_config.json), "
        "not 0.5 after the description inside the file (a.safetensors)"
    ]


def test_a_description_given_by_the_caller_comes_first(tmp_path: Path) -> None:
    path, model = saved_unet(tmp_path)
    write_json(tmp_path / CONFIG_FILE, FLAT)
    loaded, config, checkpoint = load_model_with_config(path, create_multi_task_model, config=unet_config())
    assert same(loaded, model)
    assert config.id == "unet"
    assert checkpoint.resolution.origin is Origin.ARGUMENTS
    assert "$.architecture.parameters.base_filters" in {item.field for item in checkpoint.resolution.conflicts}


def test_parameters_given_by_the_caller_are_held_against_the_tensors_too(tmp_path: Path) -> None:
    path, model = saved_unet(tmp_path)
    assert same(load_model_with_config(path, create_multi_task_model, parameters={"depth": 2})[0], model)
    with pytest.raises(ConfigMismatch, match="Leave out what was given"):
        load_model_with_config(path, never, parameters={"depth": 3})


def test_a_description_copied_from_another_checkpoint_is_not_used(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    for folder in (ours, other):
        folder.mkdir()
    path, model = saved_unet(ours)
    save_model_with_config(
        create_multi_task_model(**SMALL), other / "x.safetensors", replace(unet_config(), id="other")
    )
    shutil.copy(other / CONFIG_FILE, ours)
    loaded, config, checkpoint = load_model_with_config(path, create_multi_task_model)
    assert same(loaded, model)
    assert config.id != "other"
    assert checkpoint.resolution.remarks == (
        "'model_config.json' is not used: it is bound to 'x.safetensors', a file of another content.",
    )


def test_a_description_given_for_another_file_is_refused(tmp_path: Path) -> None:
    path, _ = saved_unet(tmp_path)
    config = save_model_with_config(create_multi_task_model(**SMALL), tmp_path / "b.pth", unet_config())
    with pytest.raises(ConfigMismatch, match="SHA-256 differs"):
        load_model_with_config(path, never, config=config)


@FORMATS
def test_a_file_that_is_not_the_described_one_any_more_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_model_with_config(Perceptron(), path, tiny_config(width=3))
    content = bytearray(path.read_bytes())
    at = content.rfind(b"\0\0\x80?") if path.suffix == ".safetensors" else len(content) // 2
    content[at] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InvalidWeights):
        load_model_with_config(path, never)


def test_one_changed_number_is_noticed_by_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_model_with_config(Perceptron(), path, tiny_config(width=3))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InvalidWeights, match=r"damaged, or replaced.*describe"):
        load_model_with_config(path, never)


def test_a_broken_description_that_counts_is_an_error(tmp_path: Path) -> None:
    path, _ = saved_unet(tmp_path)
    (tmp_path / CONFIG_FILE).write_text('{"schema": 1, "id": 3}', encoding="utf-8")
    with pytest.raises(InvalidWeights, match=r"\$\.id must be a text"):
        load_model_with_config(path, never)


def test_a_broken_description_that_does_not_count_is_remarked_on(tmp_path: Path) -> None:
    path, model = saved_unet(tmp_path, config={"base_filters": 4})
    (tmp_path / CONFIG_FILE).write_text("{", encoding="utf-8")
    loaded, _, checkpoint = load_model_with_config(path, create_multi_task_model)
    assert same(loaded, model)
    assert "is not JSON" in checkpoint.resolution.remarks[0]


def test_an_unknown_network_without_a_description_is_an_error_and_never_a_default(tmp_path: Path) -> None:
    torch.save(Perceptron().state_dict(), tmp_path / "a.pth")
    with pytest.raises(InvalidWeights, match=r"Nothing says which network.*describe PATH --write"):
        load_model_with_config(tmp_path / "a.pth", Perceptron)


def test_an_unknown_network_loads_with_parameters_from_the_caller(tmp_path: Path) -> None:
    model = Perceptron(7)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    assert same(load_model_with_config(tmp_path / "a.pth", Perceptron, parameters={"width": 7})[0], model)


def test_more_classes_named_than_answered_are_refused(tmp_path: Path) -> None:
    path, _ = saved_unet(tmp_path)
    document = unet_config().to_dict()
    classes = [{"index": index, "name": str(index)} for index in range(3)]
    document["heads"] = [{"name": "cls", "task": "multi-class", "classes": classes, "activation": "softmax"}]
    write_json(tmp_path / CONFIG_FILE, document)
    with pytest.raises(ConfigMismatch, match=r"\$\.heads\[0\]\.classes asks for 3 outputs, the network answers 2"):
        load_model_with_config(path, never)


def test_the_description_of_a_model_is_found_above_its_weights(tmp_path: Path) -> None:
    (tmp_path / "fold_0").mkdir()
    path = tmp_path / "fold_0" / "checkpoint_final.pth"
    model = Perceptron(5)
    config = save_model_with_config(model, path, tiny_config(width=5))
    (path.parent / CONFIG_FILE).unlink()
    bound = replace(config, files=(replace(config.files[0], path="fold_0/checkpoint_final.pth"),), title="above")
    bound.save(tmp_path)
    assert load_model_with_config(path, Perceptron)[1].title == "above"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InvalidWeights):
        load_model_with_config(path, never)


def test_a_description_above_that_does_not_name_the_weights_is_none_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    path, model = saved_unet(tmp_path / "other")
    write_json(tmp_path / CONFIG_FILE, FLAT)
    assert same(load_model_with_config(path, create_multi_task_model)[0], model)


@pytest.mark.parametrize("absent", list(create_multi_task_model(**SMALL).state_dict())[::3])
def test_a_file_that_leaves_a_tensor_unset_is_refused_by_name(tmp_path: Path, absent: str) -> None:
    state = create_multi_task_model(**SMALL).state_dict()
    del state[absent]
    torch.save(state, tmp_path / "a.pth")
    for config in (None, unet_config()):
        if absent.endswith("num_batches_tracked"):
            load_model_with_config(tmp_path / "a.pth", create_multi_task_model, config=config)
            continue
        with pytest.raises(InvalidWeights, match=absent.replace(".", r"\.")):
            load_model_with_config(tmp_path / "a.pth", never, config=config)


@pytest.mark.parametrize("absent", ["first.weight", "norm.running_var", "second.bias"])
def test_a_file_that_leaves_a_tensor_of_an_unknown_network_unset_is_refused_by_name(
    tmp_path: Path, absent: str
) -> None:
    state = Perceptron(3, deep=True).state_dict()
    del state[absent]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ConfigMismatch, match=f"'{absent}'.*the file does not have it"):
        load_model_with_config(tmp_path / "a.pth", Perceptron, parameters={"width": 3, "deep": True})


def test_a_tensor_that_the_network_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(Perceptron(3, deep=True).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ConfigMismatch, match=r"'second\.weight' of shape 3x3 is in the file"):
        load_model_with_config(tmp_path / "a.pth", Perceptron, parameters={"width": 3})


def test_a_factory_that_does_not_take_the_parameters_is_named(tmp_path: Path) -> None:
    save_model_with_config(Perceptron(), tmp_path / "a.pth", tiny_config(width=3, heads=2))
    with pytest.raises(InputError, match=r"width=3 heads=2.*unexpected keyword argument 'heads'"):
        load_model_with_config(tmp_path / "a.pth", Perceptron)


ARCHITECTURES = st.fixed_dictionaries(
    {
        "in_channels": st.sampled_from([1, 2]),
        "seg_out_channels": st.sampled_from([1, 2]),
        "cls_num_classes": st.sampled_from([2, 3]),
        "base_filters": st.sampled_from([2, 4]),
        "depth": st.sampled_from([1, 2, 3]),
        "bilinear": st.booleans(),
        "cls_hidden_dim": st.sampled_from([3, 4]),
    }
)


@pytest.mark.parametrize("place", ["folder", "embedded", "bound", "argument", "parameters"])
@given(made=ARCHITECTURES, said=ARCHITECTURES)
def test_weights_of_one_architecture_and_a_description_of_another_never_give_a_network(
    tmp_path_factory: pytest.TempPathFactory, place: str, made: dict, said: dict
) -> None:
    assume(made != said)
    folder = tmp_path_factory.mktemp("pair")
    path = folder / "a.pth"
    config = ModelConfig("m", "multitask-unet", Architecture("multitask_unet", said))
    content: dict[str, Any] = {"model_state_dict": create_multi_task_model(**made).state_dict()}
    if place == "embedded":
        content["config"] = config.to_dict()
    torch.save(content, path)
    if place == "bound":
        import hashlib

        entry = {"path": path.name, "role": "weights", "format": "torch", "size": path.stat().st_size}
        entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        write_json(folder / CONFIG_FILE, {**config.to_dict(), "files": [entry]})
    elif place == "folder":
        config.save(folder)
    given_: dict[str, Any] = {"argument": {"config": config}, "parameters": {"parameters": said}}.get(place, {})
    with pytest.raises(ConfigMismatch):
        load_model_with_config(path, never, **given_)


@given(
    made=st.tuples(st.integers(1, 5), st.booleans()),
    said=st.tuples(st.integers(1, 5), st.booleans()),
    suffix=st.sampled_from(["pth", "safetensors"]),
)
def test_networks_of_unknown_families_never_load_after_a_wrong_description(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[int, bool], said: tuple[int, bool], suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    model = Perceptron(*made)
    save_model_with_config(model, folder / f"a.{suffix}", tiny_config(width=made[0], deep=made[1]))
    parameters = {"width": said[0], "deep": said[1]}
    if made == said:
        assert same(load_model_with_config(folder / f"a.{suffix}", Perceptron, parameters=parameters)[0], model)
        return
    copied: list[nn.Module] = []

    def factory(**parameters: Any) -> nn.Module:
        copied.append(Perceptron(**parameters))
        before.append({name: value.clone() for name, value in copied[0].state_dict().items()})
        return copied[0]

    before: list[dict[str, torch.Tensor]] = []
    with pytest.raises(ConfigMismatch):
        load_model_with_config(folder / f"a.{suffix}", factory, parameters=parameters)
    assert all(torch.equal(value, before[0][name]) for name, value in copied[0].state_dict().items())
