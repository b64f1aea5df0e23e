"""The engine `llm` with small models made here: training, speed beside transformers' own loop, memory and its estimate.

    python Testing/benchmarks/ct_language.py

No published language model is run. Times are processor seconds on one thread, ratios are from one run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("MedAIExtension", "CTReport", "Testing", "Testing/unit/ct")
sys.path[:0] = [str(REPOSITORY / part) for part in FOLDERS]

import tiny_language as tiny  # noqa: E402
import torch  # noqa: E402
from language_training import CASES, a_trained_model, report_of  # noqa: E402

from CTReportLib.language.basefolder import read_base  # noqa: E402
from CTReportLib.language.decode import greedy  # noqa: E402
from CTReportLib.language.loading import load_base  # noqa: E402
from CTReportLib.language.memory import estimate  # noqa: E402
from CTReportLib.language.sequences import reading  # noqa: E402

SHAPE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
PROMPT_TOKENS, NEW_TOKENS = 256, 48
_PEAK = """
import resource, sys
sys.path[:0] = {folders!r}
from pathlib import Path
from CTReportLib.language.engine import write_report
from CTReportLib.report import Facts
from MedAILib.jobs.task import Context
write_report(Path({folder!r}), (), (), Facts(), None, Context(), 32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def training() -> None:
    """A frozen Llama learns reports of what eight visual tokens show."""
    found = a_trained_model()
    right = sum(found.write(case) == (report_of(case), True) for case in CASES)
    first, last = sum(found.losses[:10]) / 10, sum(found.losses[-10:]) / 10
    print(f"LoRA and projector: loss {first:.2f} -> {last:.3f} in {len(found.losses)} steps, {found.cpu_s:.1f} CPU-s")
    print(f"greedy reports exactly right: {right} of {len(CASES)}")


def speed(folder: Path) -> None:
    """Our loop beside that of transformers, with the same model and prompt; and what keeping keys and values saves."""
    network = load_base(read_base(folder))
    network.generation_config.eos_token_id = None
    with torch.inference_mode():
        batch = reading(network, [list(range(3, 3 + PROMPT_TOKENS))])
        started = process_time()
        ours = greedy(network, batch, (), NEW_TOKENS)
        middle = process_time()
        theirs = network.generate(
            inputs_embeds=batch.embeddings, attention_mask=batch.mask, max_new_tokens=NEW_TOKENS, do_sample=False
        )[0].tolist()
        ended = process_time()
    size = sum(one.numel() for one in network.parameters()) / 1e6
    print(f"{size:.0f} M parameters, {PROMPT_TOKENS} tokens read, {NEW_TOKENS} written, float32")
    print(f"ours {NEW_TOKENS / (middle - started):.1f} tokens per CPU-s; ", end="")
    print(f"{(ended - middle) / (middle - started):.2f} times that of transformers, ", end="")
    print("the same tokens" if list(ours.ids) == theirs else "OTHER TOKENS")


def memory(folder: Path) -> None:
    """The estimate beside the peak of a process that loads the model and writes with it."""
    code = _PEAK.format(folders=sys.path[: len(FOLDERS)], folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak = int(done.stdout.split()[-1]) * 1024
    found = estimate(folder)
    print(f"estimate {found.needed_bytes / 1e6:.0f} MB, measured peak {peak / 1e6:.0f} MB ({found.text})")


if __name__ == "__main__":
    torch.set_num_threads(1)
    training()
    with tempfile.TemporaryDirectory() as where:
        made = tiny.save_base(Path(where) / "llama", **SHAPE)
        speed(made)
        memory(made)
