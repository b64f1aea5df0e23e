"""Classifiers by prompts, made of the text encoder inside a model of images and texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="text encoders need torch")
transformers = pytest.importorskip("transformers", reason="text encoders need transformers")
save_file = pytest.importorskip("safetensors.torch", reason="weight files need safetensors").save_file

import tiny_language as tiny  # noqa: E402
from test_ct_primus_weights import slim  # noqa: E402

from CTReportLib import answers  # noqa: E402
from CTReportLib.findings import FINDINGS  # noqa: E402
from CTReportLib.language.zeroshot import make_zero_shot  # noqa: E402
from CTReportLib.nets.heads import prompt_pair  # noqa: E402
from CTReportLib.nets.heads_weights import load_head  # noqa: E402
from CTReportLib.nets.primus import SharedSpace  # noqa: E402
from CTReportLib.request import Models  # noqa: E402
from MedAILib.cli.main import main  # noqa: E402
from MedAILib.errors import FileMissing, InvalidWeights  # noqa: E402
from MedAILib.models.tensors import file_sha256  # noqa: E402

WIDTH = 128


class Whole:
    """A model of images and texts as COLIPRI's file holds it, and its parts."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        texts = [text for finding in FINDINGS for text in prompt_pair(finding.name)]
        self.tokenizer = tiny.a_tokenizer(texts)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        config = transformers.BertConfig(
            vocab_size=self.tokenizer.get_vocab_size(), hidden_size=WIDTH, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=64, max_position_embeddings=64,
        )  # fmt: skip
        self.bert = transformers.BertModel(config, add_pooling_layer=False).eval()
        self.pool = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True).eval()
        self.state = {f"image_encoder.backbone.{name}": t for name, t in slim().state_dict().items()}
        self.state |= {f"image_encoder.{name}": t for name, t in SharedSpace(396, WIDTH).state_dict().items()}
        self.state |= {f"text_encoder.backbone.{name}": t for name, t in self.bert.state_dict().items()}
        self.state |= {f"text_encoder.pooler.attn.{name}": t for name, t in self.pool.state_dict().items()}
        self.state |= {"softmax_temperature": torch.tensor(0.25)}
        self.path = folder / "model.safetensors"
        self.save()

    def save(self, without: str = "nothing") -> None:
        kept = {name: t.contiguous().clone() for name, t in self.state.items() if without not in name}
        save_file(kept, str(self.path))

    def vector(self, text: str) -> torch.Tensor:
        """As the published code has it: padded, the padding masked, the mean of the rest asks all."""
        ids = torch.tensor([self.tokenizer.encode(text).ids])
        padded = torch.nn.functional.pad(ids, (0, 7))
        mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 7))
        with torch.no_grad():
            tokens = self.bert(input_ids=padded, attention_mask=mask).last_hidden_state
            query = (tokens * mask[..., None]).sum(1, keepdim=True) / mask.sum()
            return self.pool(query, tokens, tokens, key_padding_mask=mask == 0)[0][0, 0]


@pytest.fixture
def whole(tmp_path: Path) -> Whole:
    return Whole(tmp_path)


def test_the_stored_vectors_are_those_of_the_text_encoder(whole: Whole, tmp_path: Path) -> None:
    make_zero_shot(whole.path, tmp_path, tmp_path / "prompts.safetensors")
    loaded = load_head(tmp_path / "prompts.safetensors")
    assert loaded.encoder_sha256 == file_sha256(whole.path)
    assert loaded.head.class_names == tuple(finding.id for finding in FINDINGS)
    assert float(loaded.network.temperature) == 0.25
    for number, finding in enumerate(FINDINGS):
        present, absent = prompt_pair(finding.name)
        assert torch.allclose(loaded.network.present[number], whole.vector(present), atol=1e-5)
        assert torch.allclose(loaded.network.absent[number], whole.vector(absent), atol=1e-5)


def test_it_classifies_on_the_encoder_it_was_made_of(whole: Whole, tmp_path: Path) -> None:
    make_zero_shot(whole.path, tmp_path, tmp_path / "prompts.safetensors")
    opened = answers.open_models(Models(whole.path, tmp_path / "prompts.safetensors"), "cpu")
    assert opened.encoder is not None and opened.classifier is not None
    with torch.inference_mode():
        predictions, _ = answers.predicted(opened.classifier, opened.encoder.network(torch.randn(1, 1, 8, 8, 8)))
    assert len(predictions) == 18 and not any(one.calibrated for one in predictions)
    assert len({one.probability for one in predictions}) == 18


def test_a_list_of_words_serves_as_tokenizer(whole: Whole, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lung", "nodule", "is", "present", "not", ".", "Lung"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    lung = [finding for finding in FINDINGS if finding.id == "lung_nodule"]
    make_zero_shot(whole.path, folder, tmp_path / "a.safetensors", lung)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}), encoding="utf-8")
    make_zero_shot(whole.path, folder, tmp_path / "b.safetensors", lung)
    one, other = (load_head(tmp_path / f"{name}.safetensors").network.present for name in "ab")
    assert not torch.equal(one, other)


@pytest.mark.parametrize("without", ["softmax_temperature", "pooler.attn.in_proj_weight", "text_encoder"])
def test_a_model_without_texts_is_refused(whole: Whole, tmp_path: Path, without: str) -> None:
    whole.save(without)
    with pytest.raises(InvalidWeights, match="no text encoder"):
        make_zero_shot(whole.path, tmp_path, tmp_path / "p.safetensors")


@pytest.mark.parametrize(
    "without", ["encoder.layer.1.output.dense.bias", "embeddings.word_embeddings", "out_proj.bias"]
)
def test_a_text_encoder_that_is_not_whole_is_refused(whole: Whole, tmp_path: Path, without: str) -> None:
    whole.state = {name: t for name, t in whole.state.items() if without not in name or "image" in name}
    whole.save()
    with pytest.raises(InvalidWeights):
        make_zero_shot(whole.path, tmp_path, tmp_path / "p.safetensors")
    assert not (tmp_path / "p.safetensors").exists()


def test_a_missing_tokenizer_is_named(whole: Whole, tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no tokenizer"):
        make_zero_shot(whole.path, tmp_path / "nowhere", tmp_path / "p.safetensors")


def test_the_command_makes_one(whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "prompts.safetensors"
    words = ["ct", "prompts", "--encoder", str(whole.path), "--tokenizer", str(tmp_path), "--out", str(out)]
    assert main(["--json", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["findings"] == [finding.id for finding in FINDINGS] and out.is_file()
    assert main([*words[:4], str(tmp_path / "gone"), *words[5:-1], str(tmp_path / "other.safetensors")]) == 2
