"""The engine that writes with a language model: its draft, its honesty about ends, and what the guard leaves of it."""

from __future__ import annotations

import gc
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_language as tiny
import torch
from ct_tables import some_table
from language_cases import a_table, save_whole, some_features
from language_training import CASES, IDS, NAMES, PROMPT, Trained, a_trained_model, features_of, report_of

from CTReportLib.guard import TRUNCATED, guard_generated
from CTReportLib.language.adapterfolder import read_adapter
from CTReportLib.language.basefolder import read_base
from CTReportLib.language.decode import greedy
from CTReportLib.language.engine import LOADING, WRITING, Draft, write_report
from CTReportLib.language.loading import load_base
from CTReportLib.language.lora import save_adapter
from CTReportLib.language.projector import describe_projector, save_projector
from CTReportLib.language.sequences import Reading, reading
from CTReportLib.language.tokens import TextTokens
from CTReportLib.report import Facts
from CTReportLib.request import Decision, FindingRow, Verdict
from MedAILib.errors import Cancelled, ConfigError, ConfigMismatch, InvalidWeights
from MedAILib.jobs.task import Context, Progress

ENCODER = "a" * 64


@pytest.fixture(scope="module")
def a_trained() -> Trained:
    return a_trained_model()


@pytest.fixture(scope="module")
def a_writer(a_trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our folder with what was trained: a base that was not, the adapter, the projector."""
    folder = tmp_path_factory.mktemp("trained modèl") / "writer"
    words = a_trained.tokens.tokenizer.get_vocab_size()
    network = tiny.a_network(words=words, hidden_size=64, intermediate_size=128, initializer_range=0.2)
    tiny.save_base(folder / "base", texts=[report_of(case) for case in CASES], network=network)
    save_adapter(a_trained.network, folder / "adapter")
    (folder / "projector").mkdir()
    config = describe_projector("p", a_trained.projector, encoder_sha256=ENCODER)
    save_projector(a_trained.projector, folder / "projector" / "p.safetensors", config)
    return tiny.describe(folder, adapter="adapter", projector="projector/p.safetensors")


def draft(
    folder: Path, table: Sequence[FindingRow], features, context: Context | None = None, limit: int = 100
) -> Draft:
    return write_report(folder, table, (), Facts(), features, context or Context(), limit)


def test_a_trained_model_reads_the_picture_and_writes_the_report_it_was_taught(a_writer: Path) -> None:
    for case in (CASES[3], CASES[20]):
        found = draft(a_writer, a_table(), features_of([case]))
        assert found.text == report_of(case)
        assert found.complete and found.prompt == PROMPT
        assert 20 < found.tokens < 100 and found.seconds > 0


def test_the_same_request_gives_the_same_text(a_writer: Path) -> None:
    one, two = (draft(a_writer, a_table(emphysema="left"), features_of([CASES[9]])) for _ in range(2))
    assert (one.text, one.tokens, one.models) == (two.text, two.tokens, two.models)


def test_everything_that_answered_is_named_with_its_hash(a_writer: Path) -> None:
    context = Context()
    found = draft(a_writer, a_table(), features_of([CASES[1]]), context)
    assert [name.split(" ")[0] for name in context.weights] == [
        "tiny-language/base", "tiny-language/adapter", "tiny-language/projector",
    ]  # fmt: skip
    assert tuple(context.weights) == found.models
    assert all(len(name.split("sha256:")[1]) == 64 for name in context.weights)


def test_without_features_it_says_that_the_picture_was_not_read(a_writer: Path) -> None:
    context = Context()
    found = draft(a_writer, a_table(), None, context, 5)
    assert any("from the table alone" in text for text in context.warnings)
    assert not any("projector" in name for name in found.models)


def test_progress_goes_up_and_tells_tokens_a_second(a_writer: Path) -> None:
    told: list[Progress] = []
    draft(a_writer, a_table(), features_of([CASES[1]]), Context(on_progress=told.append))
    assert list(dict.fromkeys(one.stage for one in told)) == [LOADING, WRITING]
    assert [one.fraction for one in told] == sorted(one.fraction for one in told)
    assert 0.9 <= told[0].fraction <= told[-1].fraction <= 1.0
    assert told[-1].detail.endswith("tokens/s") and "tokens" in told[-1].detail
    assert all(one.eta_s is not None for one in told if "tokens/s" in one.detail)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_run_is_cancelled_between_two_tokens(a_writer: Path, count: int) -> None:
    told: list[Progress] = []
    context = Context(on_progress=told.append)
    context.is_cancelled = lambda: len([one for one in told if one.stage == WRITING]) > count
    with pytest.raises(Cancelled):
        draft(a_writer, a_table(), features_of([CASES[1]]), context)
    assert len([one for one in told if one.stage == WRITING]) == count + 1


def test_an_error_that_somebody_looks_at_does_not_hold_the_network(a_writer: Path) -> None:
    from transformers import LlamaForCausalLM

    def networks() -> int:
        gc.collect()
        return sum(isinstance(one, LlamaForCausalLM) for one in gc.get_objects())

    before = networks()
    told: list[Progress] = []
    context = Context(on_progress=told.append)
    context.is_cancelled = lambda: len(told) > 3
    with pytest.raises(Cancelled) as caught:
        draft(a_writer, a_table(), features_of([CASES[1]]), context)
    assert caught.value.__traceback__ is not None and networks() == before


def test_a_text_that_was_stopped_at_the_limit_is_never_complete(a_writer: Path) -> None:
    whole = draft(a_writer, a_table(), features_of([CASES[3]]))
    for limit in (1, whole.tokens):
        found = draft(a_writer, a_table(), features_of([CASES[3]]), limit=limit)
        assert found.tokens == limit and not found.complete
        guarded = guard_generated(found.text, a_table(), complete=found.complete)
        assert not guarded.complete and TRUNCATED in guarded.text
    assert draft(a_writer, a_table(), features_of([CASES[3]]), limit=whole.tokens + 1).complete


def test_limits_that_the_model_cannot_hold_are_refused(a_writer: Path) -> None:
    for limit in (0, 2000):
        with pytest.raises(ConfigError, match="can read and write 1024"):
            draft(a_writer, a_table(), None, limit=limit)


def test_prompts_longer_than_those_of_the_training_are_told(a_writer: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(a_writer, tmp_path / "writer"))
    settings = {"adapter": "adapter", "projector": "projector/p.safetensors", "prompt_tokens": 20}
    tiny.describe(folder, **settings)
    context = Context()
    draft(folder, a_table(), features_of([CASES[0]]), context, 3)
    assert any("up to 20" in text for text in context.warnings)


def test_features_of_another_encoder_are_refused(a_writer: Path) -> None:
    with pytest.raises(ConfigMismatch, match="another encoder"):
        write_report(a_writer, a_table(), (), Facts(), features_of([CASES[0]]), Context(), 5, encoder_sha256="b" * 64)
    write_report(a_writer, a_table(), (), Facts(), features_of([CASES[0]]), Context(), 5, encoder_sha256=ENCODER)
    with pytest.raises(ConfigMismatch, match="features of 24 numbers"):
        draft(a_writer, a_table(), some_features(width=32))


def test_weights_that_are_no_numbers_end_the_run_with_a_clear_error(tmp_path: Path) -> None:
    network = tiny.a_network()
    network.lm_head.weight.data[:] = torch.nan
    with pytest.raises(InvalidWeights, match="no numbers"):
        draft(tiny.save_base(tmp_path / "base", network=network), a_table(), None)


def test_nothing_unsupported_survives_in_what_a_model_really_wrote(a_trained: Trained) -> None:
    chance = random.Random(7)
    struck = kept = 0
    for _ in range(40):
        table = some_table(chance)
        decision = {row.finding: row.decision for row in table}
        text, finished = a_trained.write(chance.choice(CASES))
        guarded = guard_generated(text, table, complete=finished)
        for sentence in (one for section in guarded.sections for one in section.sentences if one.shown):
            words = sentence.text.rstrip(".").lower()
            for finding, name in zip(IDS, NAMES, strict=True):
                if sentence.verdict is Verdict.SUPPORTED and words.endswith(name):
                    denied = words == f"no {name}"
                    assert decision[finding] is (Decision.ABSENT if denied else Decision.PRESENT), sentence
                    kept += 1
        struck += sum(not sentence.shown for sentence in guarded.sentences)
        said = {one for sentence in guarded.sentences if sentence.shown for one in sentence.findings}
        assert {row.finding for row in table if row.decision is Decision.PRESENT} <= said
    assert struck > 60 and kept > 60  # both really happened


def test_what_an_untrained_model_babbles_is_struck_altogether(tmp_path: Path) -> None:
    found = draft(tiny.save_base(tmp_path / "base"), a_table(emphysema="upper third, left"), None, limit=120)
    guarded = guard_generated(found.text + ".", a_table(emphysema="upper third, left"), complete=found.complete)
    assert not guarded.complete
    assert all(one.verdict is not Verdict.SUPPORTED for one in guarded.sentences)
    assert any("Emphysema" in one.text and one.verdict is Verdict.ADDED for one in guarded.sentences)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_left_padding_does_not_change_an_answer_and_agrees_with_the_library(kind: str) -> None:
    network = tiny.a_network(kind, initializer_range=0.3, eos_token_id=None, tie_word_embeddings=False)
    visual = torch.randn(1, 4, tiny.SHAPE["hidden_size"])
    with torch.inference_mode():
        batch = reading(network, [[5, 6, 7, 8, 9]], visual)
        padding = torch.full((1, 6, tiny.SHAPE["hidden_size"]), 3.0)
        padded = Reading(
            torch.cat([padding, batch.embeddings], dim=1),
            torch.cat([torch.zeros(1, 6, dtype=torch.long), batch.mask], dim=1),
            batch.labels,
        )
        wanted = network.generate(
            inputs_embeds=batch.embeddings, attention_mask=batch.mask, max_new_tokens=16, do_sample=False
        )[0].tolist()
        plain, left = greedy(network, batch, (), 16), greedy(network, padded, (), 16)
    assert list(plain.ids) == list(left.ids) == wanted
    assert not plain.finished and len(set(wanted)) > 1


def test_the_visual_tokens_come_first_and_change_what_is_written(tmp_path: Path) -> None:
    folder = save_whole(tmp_path / "model")
    with_picture, without = (draft(folder, a_table(), features, limit=16) for features in (some_features(), None))
    assert with_picture.text != without.text
    base = read_base(folder / "base")
    changed = load_base(base)
    assert read_adapter(folder / "adapter", base).config["r"] == 4
    tokens = TextTokens(tiny.a_tokenizer(), (2,))
    batch = reading(changed, [tokens.encode(PROMPT)], torch.ones(1, 8, tiny.SHAPE["hidden_size"]))
    assert batch.embeddings[0, :8].eq(1).all() and tokens.encode(PROMPT)[0] == 1


def test_reports_in_sixteen_bits_are_written_where_the_folder_asks_for_them(tmp_path: Path) -> None:
    base = tiny.save_base(tmp_path / "model" / "base")
    assert load_base(read_base(base), "cpu", dtype="bfloat16").dtype is torch.bfloat16
    folder = tiny.describe(tmp_path / "model", dtype="bfloat16")
    assert draft(folder, a_table(), None, limit=4).tokens == 4


def test_thoughts_and_labels_of_a_model_do_not_reach_the_draft(a_writer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        TextTokens, "decode", lambda self, ids: "<think>hm</think>FINDINGS: x.<answer>Emphysema</answer>"
    )
    found = draft(a_writer, a_table(), features_of([CASES[3]]))
    assert (found.text, found.labels, found.complete) == ("FINDINGS: x.", ("Emphysema",), True)


def test_a_not_judged_finding_is_not_told_to_the_model(a_writer: Path) -> None:
    table = tuple(replace(row, decision=Decision.NOT_JUDGED) for row in a_table(emphysema="left"))
    assert "Emphysema" not in draft(a_writer, table, None, limit=2).prompt
