"""Findings' prompts as vectors of a text encoder, and the classifier that takes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_language as tiny
import torch
from language_cases import WIDTH, some_features
from safetensors.torch import load_file, save_file

from CTReportLib.findings import FINDINGS
from CTReportLib.language.textencoder import finding_prompts, load_text_encoder
from CTReportLib.nets.heads import PromptClassifier
from MedAILib.errors import FileMissing, InvalidWeights


@pytest.fixture(scope="module")
def a_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_bert(tmp_path_factory.mktemp("bert") / "bért")


@pytest.fixture
def bert(a_bert: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(a_bert, tmp_path / "bert"))


def test_prompts_become_one_vector_for_each_finding_and_feed_the_classifier(a_bert: Path) -> None:
    encoder = load_text_encoder(a_bert)
    vectors = encoder.encode(finding_prompts())
    assert vectors.shape == (len(FINDINGS), encoder.width)
    classifier = PromptClassifier(WIDTH, encoder.width, 16, len(FINDINGS)).eval()
    before = classifier(some_features())
    classifier.set_prompts(vectors)
    after = classifier(some_features())
    assert after.shape == (1, len(FINDINGS)) and (after - before).abs().max() > 1e-3


def test_the_vector_is_that_of_the_first_token_and_padding_does_not_change_it(a_bert: Path) -> None:
    import transformers

    encoder = load_text_encoder(a_bert)
    texts = ["pleural effusion", "no significant abnormalities detected in the lower third of the left lung"]
    together = encoder.encode(texts)
    for row, text in zip(together, texts, strict=True):
        assert torch.allclose(row, encoder.encode([text])[0], atol=1e-6)
    reference = transformers.BertModel.from_pretrained(a_bert, add_pooling_layer=False).eval()
    ids = torch.tensor([encoder.tokenizer.encode(texts[0]).ids])
    assert ids[0, 0] == 2  # [CLS]
    with torch.inference_mode():
        wanted = reference(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, 0]
    assert torch.allclose(together[0], wanted, atol=1e-6)


def test_prompts_are_those_of_the_findings_in_order() -> None:
    assert finding_prompts()[12] == "pleural effusion"
    assert finding_prompts("There is {}.".format)[2] == "There is Cardiomegaly."


def test_text_encoders_that_cannot_be_used_are_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no folder"):
        load_text_encoder(tmp_path / "nowhere")
    whole = load_file(bert / "model.safetensors")
    save_file({**whole, "bert.extra.weight": torch.zeros(1)}, bert / "model.safetensors")
    with pytest.raises(InvalidWeights, match=r"extra\.weight"):
        load_text_encoder(bert)
    name = next(name for name in whole if name.endswith("query.weight"))
    save_file({key: tensor for key, tensor in whole.items() if key != name}, bert / "model.safetensors")
    with pytest.raises(InvalidWeights, match=r"query\.weight"):
        load_text_encoder(bert)
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    with pytest.raises(InvalidWeights, match="run code"):
        load_text_encoder(bert)
    (bert / "tokenizer.json").unlink()
    with pytest.raises(FileMissing, match="no tokenizer"):
        load_text_encoder(bert)
    tiny.change_json(bert / "config.json", model_type="roberta")
    with pytest.raises(InvalidWeights, match="roberta"):
        load_text_encoder(bert)
