"""A tiny language model that learns to write what five patches show: the smoke test of adapter and projector."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import tiny_language as tiny
import torch

from CTReportLib.language.decode import greedy
from CTReportLib.language.families import LLAMA
from CTReportLib.language.lora import with_adapter
from CTReportLib.language.projector import VisualProjector
from CTReportLib.language.prompt import NOTHING, report_prompt
from CTReportLib.language.sequences import reading, reading_loss
from CTReportLib.language.tokens import TextTokens
from CTReportLib.nets.features import Features

NAMES = ("pleural effusion", "emphysema", "cardiomegaly", "consolidation", "lung nodule")
IDS = tuple(name.replace(" ", "_") for name in NAMES)
CASES = tuple(tuple(bool(number >> bit & 1) for bit in range(5)) for number in range(32))
WIDTH, QUERIES = 24, 8
Case = Sequence[bool]


def report_of(case: Case) -> str:
    """What shall be written of a case."""
    findings = " ".join(
        f"There is {name}." if there else f"No {name}." for name, there in zip(NAMES, case, strict=True)
    )
    impression = " ".join(f"{name.capitalize()}." for name, there in zip(NAMES, case, strict=True) if there)
    return f"FINDINGS:\n{findings}\nIMPRESSION:\n{impression or 'None of these.'}"


def features_of(cases: Sequence[Case], seed: int = 5) -> Features:
    """A patch for each of the five findings, which says whether it is there."""
    chance = torch.Generator().manual_seed(seed)
    patches = 1.5 * torch.randn(5, WIDTH, generator=chance)
    signs = torch.tensor([[1.0 if there else -1.0 for there in case] for case in cases])
    seen = signs[:, :, None] * patches
    return Features(pooled=seen.mean(dim=1), patches=seen, grid=(5, 1, 1))


@dataclass(frozen=True, eq=False)
class Trained:
    """What was trained, and how its loss fell."""

    network: Any
    projector: VisualProjector
    tokens: TextTokens
    losses: tuple[float, ...]
    cpu_s: float

    def write(self, case: Case) -> tuple[str, bool]:
        """What it writes of a case, and whether it came to its end."""
        with torch.inference_mode():
            batch = reading(self.network, [self.tokens.encode(PROMPT)], self.projector(features_of([case])))
            written = greedy(self.network, batch, self.tokens.stop_ids, 100)
        return self.tokens.decode(written.ids), written.finished


PROMPT = report_prompt(())
assert PROMPT.startswith(NOTHING)


@cache
def a_trained_model(steps: int = 120, batch_size: int = 16) -> Trained:
    """Train adapter and projector on a frozen Llama with eight visual tokens; about four seconds of a processor.

    It is trained once for all tests of a process: leave it as it is.
    """
    tokenizer = tiny.a_tokenizer([report_of(case) for case in CASES])
    tokens = TextTokens(tokenizer, (2,))
    shape = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.2}
    network = with_adapter(
        tiny.a_network(words=tokenizer.get_vocab_size(), **shape), LLAMA, rank=16, alpha=32, dropout=0.0
    )
    torch.manual_seed(0)
    projector = VisualProjector(WIDTH, 64, queries=QUERIES, depth=1, heads=4)
    learning = [*(one for one in network.parameters() if one.requires_grad), *projector.parameters()]
    optimizer = torch.optim.AdamW(learning, lr=1e-2, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps, pct_start=0.15)
    chance, losses, started = random.Random(0), [], time.process_time()
    prompt = tokens.encode(PROMPT)
    for _ in range(steps):
        cases = [chance.choice(CASES) for _ in range(batch_size)]
        answers = [[*tokens.encode(report_of(case), special=False), 2] for case in cases]
        batch = reading(network, [prompt] * batch_size, projector(features_of(cases)), answers)
        loss = reading_loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return Trained(network.eval(), projector.eval(), tokens, tuple(losses), time.process_time() - started)
