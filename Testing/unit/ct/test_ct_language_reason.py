"""NV-Reason-CT: our own loading and asking of it agree with transformers' parts, and what is not known is not guessed.

All of this with small networks of the published names and forms; never with the published weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_language as tiny
import torch
from language_cases import a_table
from safetensors.torch import load_file, save_file

from CTReportLib.guard import guard_generated
from CTReportLib.language.answer import LabelledFindings, labelled_findings, read_answer
from CTReportLib.language.basefolder import read_base
from CTReportLib.language.engine import write_report
from CTReportLib.language.folder import read_language_folder
from CTReportLib.language.loading import load_base, load_language_model
from CTReportLib.language.memory import estimate
from CTReportLib.language.reason import Merger, grid_positions
from CTReportLib.nets.encoders import Encoder, load_encoder
from CTReportLib.nets.features import Features
from CTReportLib.nets.primus import Primus
from CTReportLib.report import Facts
from MedAILib.errors import ConfigError, ConfigMismatch, InvalidWeights
from MedAILib.jobs.task import Context

WIDTH = 396  # the smallest published width: only of these it is known how many heads share them
GRID = (2, 2, 2)


class Case:
    """A small NV-Reason-CT in its folder, and the networks that it was made of."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(3)
        self.folder = folder
        self.encoder = Primus(embed_dim=WIDTH, depth=1, mlp_dim=64).eval()
        self.network, self.merger = tiny.save_reason(folder, self.encoder)
        self.volume = torch.rand(1, 1, 16, 16, 16) * 2 - 1

    @property
    def shard(self) -> Path:
        return self.folder / "model-00002-of-00002.safetensors"


@pytest.fixture(scope="module")
def a_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("reason ü") / "nv")


@pytest.fixture
def folder(a_case: Case, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(a_case.folder, tmp_path / "nv"))


@pytest.fixture(scope="module")
def an_encoder(a_case: Case) -> Encoder:
    return load_encoder(a_case.shard)


def seen(encoder: Encoder, volume: torch.Tensor) -> Features:
    with torch.inference_mode():
        found = encoder.network(volume)
    return Features(pooled=found.pooled.clone(), patches=found.patches.clone(), grid=found.grid)


def write(folder: Path, features: Features | None, context: Context | None = None, limit: int = 20, **more: str) -> Any:
    return write_report(folder, a_table(), (), Facts(), features, context or Context(), limit, **more)


def test_the_encoder_comes_out_of_the_same_files_as_any_other(a_case: Case, an_encoder: Encoder) -> None:
    assert (an_encoder.architecture, an_encoder.width, an_encoder.axes) == ("primus", WIDTH, "SPL")
    with torch.inference_mode():
        assert torch.equal(an_encoder.network(a_case.volume).patches, a_case.encoder(a_case.volume).patches)


def test_what_it_writes_is_what_the_library_writes_of_the_same_parts(a_case: Case, an_encoder: Encoder) -> None:
    """The reference takes its places of tokens, its mask and its language model from transformers."""
    features = seen(an_encoder, a_case.volume)
    ours = write(a_case.folder, features, limit=20)
    model = load_language_model(a_case.folder)
    before, after = model.folder.reason.prompt
    ids = [model.tokens.encode(part, special=False) for part in (before, after)]
    image = a_case.network.config.image_token_id
    whole = torch.tensor([[*ids[0], *[image] * 8, *ids[1]]])
    network = a_case.network.model
    kinds = (whole == image).int()
    places, _ = network.get_rope_index(whole, mm_token_type_ids=kinds, image_grid_thw=torch.tensor([GRID]))
    assert torch.equal(places, grid_positions(len(ids[0]), GRID, len(ids[1]), "cpu"))
    with torch.inference_mode():
        hidden = torch.nn.functional.layer_norm(
            features.patches, (WIDTH,), a_case.merger["norm.weight"], a_case.merger["norm.bias"], 1e-6
        )
        for number, then in ((1, torch.nn.functional.gelu), (2, torch.nn.Identity())):
            layer = (a_case.merger[f"linear_fc{number}.weight"], a_case.merger[f"linear_fc{number}.bias"])
            hidden = then(torch.nn.functional.linear(hidden, *layer))
        embeddings = network.get_input_embeddings()(whole)
        embeddings[0, len(ids[0]) : len(ids[0]) + 8] = hidden[0]
        wanted: list[int] = []
        for _ in range(20):  # without a cache, so that nothing is shared with our own way of writing
            told = a_case.network(
                inputs_embeds=embeddings, position_ids=places, attention_mask=torch.ones(embeddings.shape[:2]).long()
            ).logits[0, -1]
            wanted.append(int(told.argmax()))
            embeddings = torch.cat([embeddings, network.get_input_embeddings()(torch.tensor([[wanted[-1]]]))], dim=1)
            places = torch.cat([places, places.max().reshape(1, 1, 1).expand(3, 1, 1) + 1], dim=2)
    assert len(set(wanted)) > 3
    assert ours.text == read_answer(model.tokens.decode(wanted)).report
    assert ours.tokens == 20 and not ours.complete
    assert ours.prompt == f"{before}[picture]{after}" and "structured chest CT report" in ours.prompt


def test_another_volume_gives_another_text_and_the_place_of_a_patch_counts(a_case: Case, an_encoder: Encoder) -> None:
    features = seen(an_encoder, a_case.volume)
    text = write(a_case.folder, features).text
    assert write(a_case.folder, seen(an_encoder, -a_case.volume)).text != text
    turned = Features(pooled=features.pooled, patches=features.patches.flip(1), grid=GRID)
    assert write(a_case.folder, turned).text != text


def test_places_of_a_cube_of_the_published_size_are_those_of_qwen(a_case: Case) -> None:
    image = a_case.network.config.image_token_id
    whole = torch.tensor([[5, 6, *[image] * 13824, 7, 8, 9]])
    wanted, _ = a_case.network.model.get_rope_index(
        whole, mm_token_type_ids=(whole == image).int(), image_grid_thw=torch.tensor([[24, 24, 24]])
    )
    assert torch.equal(grid_positions(2, (24, 24, 24), 3, "cpu"), wanted)


def test_no_code_of_the_folder_runs_and_the_language_model_is_the_librarys(a_case: Case) -> None:
    model = load_language_model(a_case.folder)
    assert type(model.network).__name__ == "Qwen3_5ForCausalLM"
    assert isinstance(model.picture, Merger)
    assert [name for name, _ in model.used] == ["tiny-reason/base"]
    own = {name.replace("model.language_model.", "model."): t for name, t in a_case.network.state_dict().items()}
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, own[name])


def test_a_published_folder_without_our_description_is_refused_and_says_what_is_missing(folder: Path) -> None:
    (folder / "model_config.json").unlink()
    with pytest.raises(ConfigError, match="before, after, positions are not known") as caught:
        read_language_folder(folder)
    assert "nv_reason_ct" in caught.value.todo


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"before": None}, "'before' is not stated, and is not guessed"),
        ({"positions": None}, "'positions' is not stated"),
        ({"positions": "sequence"}, "'sequence' are not known"),
        ({"after": "<|vision_end|>Report!"}, "no {question}"),
        ({"grid": [24, 24]}, "three numbers"),
        ({"temperature": 1}, "'temperature' is not known"),
    ],
)
def test_descriptions_that_leave_something_open_are_refused(
    folder: Path, changed: Mapping[str, Any], word: str
) -> None:
    path = folder / "model_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    parameters = content["architecture"]["parameters"] | changed
    content["architecture"]["parameters"] = {key: value for key, value in parameters.items() if value is not None}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_language_folder(folder)
    assert word in caught.value.text


def test_weights_that_are_not_exactly_its_own_are_refused_by_name(folder: Path) -> None:
    shard, language = folder / "model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"
    whole = load_file(shard)
    index = folder / "model.safetensors.index.json"
    merger = "model.vision3d.merger.linear_fc2.weight"
    for spoiled, word in (
        ({**whole, merger: torch.zeros(64, WIDTH)}, "64x396"),
        ({name: tensor for name, tensor in whole.items() if name != merger}, "is missing"),
        ({**whole, "model.vision3d.more.weight": torch.zeros(1)}, r"nothing is known, such as model\.vision3d\.more"),
    ):
        save_file(spoiled, shard)
        places = dict.fromkeys(spoiled, shard.name)
        places |= dict.fromkeys(load_file(folder / language), language)
        index.write_text(json.dumps({"weight_map": places}), encoding="utf-8")
        with pytest.raises(InvalidWeights, match=word):
            read_language_folder(folder)


def test_it_needs_the_features_of_its_own_encoder(a_case: Case, an_encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="what its encoder sees"):
        write(a_case.folder, None)
    features = seen(an_encoder, a_case.volume)
    other = Features(pooled=features.pooled, patches=features.patches[:, :4], grid=(1, 2, 2))
    with pytest.raises(ConfigMismatch, match=r"\(1, 2, 2\)"):
        write(a_case.folder, other)
    narrow = Features(pooled=features.pooled, patches=features.patches[..., :24], grid=GRID)
    with pytest.raises(ConfigMismatch, match="features of 396 numbers"):
        write(a_case.folder, narrow)
    own, foreign = Context(), Context()
    write(a_case.folder, features, own, 1, encoder_sha256=an_encoder.sha256)
    write(a_case.folder, features, foreign, 1, encoder_sha256="f" * 64)
    assert not own.warnings and "not checked" in foreign.warnings[0]


def test_the_estimate_counts_the_language_model_and_the_pictures_tokens(a_case: Case) -> None:
    found = read_language_folder(a_case.folder)
    assert found.usual_tokens == 8 + 512 + 2048
    assert found.base.numbers == sum(
        tensor.numel() for name, tensor in a_case.network.state_dict().items() if "visual" not in name
    )
    assert "1024 tokens" in estimate(a_case.folder).text  # it can read and write no more


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_the_language_model_of_a_published_picture_model_is_used_by_itself(family: str, tmp_path: Path) -> None:
    network = tiny.a_picture_model() if family == "qwen" else tiny.a_gemma_with_pictures()
    tiny.quietly_saved(network, tmp_path / "model")
    tiny.a_tokenizer(begins=False).save(str(tmp_path / "model" / "tokenizer.json"))
    base = read_base(tmp_path / "model")
    assert base.nested and base.family.name == family and base.width == 48
    ids = torch.arange(3, 30)[None]
    kinds = {} if family == "qwen" else {"token_type_ids": torch.zeros_like(ids)}
    with torch.inference_mode():
        assert torch.equal(load_base(base)(input_ids=ids).logits, network(input_ids=ids, **kinds).logits)
    with pytest.raises(ConfigError, match="within a larger model"):
        load_base(base, "cuda:0", quantization="int8")


def test_its_form_of_answer_is_read_and_guarded() -> None:
    text = (
        "<think>The right pleura holds fluid.</think>\nFINDINGS:\nCHEST:\nLungs and airways: No emphysema.\n"
        "Pleura: There is a right pleural effusion.\nBones: There is a rib fracture.\n"
        "IMPRESSION:\n1. Right pleural effusion.\n<answer>Pleural effusion, Lung mass, Cardiomegaly</answer>"
    )
    answer = read_answer(text)
    assert answer.complete and answer.labels == ("Pleural effusion", "Lung mass", "Cardiomegaly")
    assert labelled_findings(answer.labels) == LabelledFindings(("pleural_effusion", "cardiomegaly"), ("Lung mass",))
    guarded = guard_generated(answer.report, a_table(pleural_effusion="lower third, right"))
    titles = [section.title for section in guarded.sections]
    assert any("Lungs and airways" in title for title in titles) and "Impression" in titles
    assert "effusion" in guarded.text and "fracture" not in guarded.text


def test_labels_that_contradict_each_other_are_told() -> None:
    assert labelled_findings(("No Chest Finding",)) == LabelledFindings((), ())
    assert labelled_findings(("No Chest Finding", "Emphysema")).contradictory
