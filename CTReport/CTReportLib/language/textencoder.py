"""One vector for each finding's prompt, from a BERT model: what `PromptClassifier.set_prompts` takes. Needs torch.

The vector is that of the token ``[CLS]``, as in ReCT-VLM (NEWMES-AI, 2025), whose own model is
``emilyalsentzer/Bio_ClinicalBERT``. It is needed once, when a classifier is made or gets new prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from CTReportLib.findings import FINDINGS
from CTReportLib.language.basefolder import CONFIG, TOKENIZER, read_json, read_weight_files
from CTReportLib.language.identity import sha256_of
from CTReportLib.language.packages import import_transformers
from CTReportLib.language.tokens import read_tokenizer
from MedAILib.errors import FileMissing, InvalidWeights
from MedAILib.models.exact import require_exact, require_finite, shapes_of
from MedAILib.models.torchmodel import read_weights

_NOT_ITS_OWN = ("cls.", "bert.pooler.", "pooler.", "bert.embeddings.position_ids", "embeddings.position_ids")
"""Tensors in published files that the vector of [CLS] does not need: other heads, and numbers that count up."""


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A BERT model for short texts.

    Attributes
    ----------
    network : transformers.BertModel
        In evaluation mode, without gradients.
    tokenizer : tokenizers.Tokenizer
    sha256 : str
        Of its weights.
    """

    network: Any
    tokenizer: Any
    sha256: str

    @property
    def width(self) -> int:
        """Length of a text's vector."""
        return int(self.network.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors of texts, float32, shape (texts, width); each as if it were alone, whatever is padded."""
        limit = int(self.network.config.max_position_embeddings)
        rows = [self.tokenizer.encode(text).ids[:limit] for text in texts]
        length = max(map(len, rows))
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        device = next(self.network.parameters()).device
        with torch.no_grad():
            told = self.network(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        return told[:, 0].float().cpu()


def load_text_encoder(folder: str | Path, device: str = "cpu") -> TextEncoder:
    """Load a BERT model from its folder; every tensor that counts comes from its file, and no code of it is run.

    Raises
    ------
    FileMissing
        The folder, its ``config.json``, its tokenizer or its weights.
    InvalidWeights
        Another kind of model, unsafe, damaged or incomplete.
    MissingPackage, UnreadableFile
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileMissing(f"There is no folder '{path}' with a text encoder.", todo="Check the path.")
    stated = read_json(path / CONFIG)
    if stated.get("model_type") != "bert":
        raise InvalidWeights(
            f"'{path.name}' holds no text encoder that is known here.",
            why=f"Its type is '{stated.get('model_type')}', not bert.",
            todo="Give a BERT model, such as Bio_ClinicalBERT.",
        )
    if not (path / TOKENIZER).is_file():
        raise FileMissing(f"The text encoder in '{path}' has no tokenizer ({TOKENIZER}).", todo="Get it as well.")
    files = read_weight_files(path)
    transformers = import_transformers()
    config = transformers.BertConfig(**{key: value for key, value in stated.items() if key != "model_type"})
    network = transformers.BertModel(config, add_pooling_layer=False)
    state = {_own(name): tensor for file in files for name, tensor in read_weights(file)[0].items() if _own(name)}
    require_exact(shapes_of(network.state_dict()), shapes_of(state), path.name, "a BERT model")
    require_finite(state, path.name)
    network.load_state_dict(state)
    sha256 = sha256_of(file.path for file in files)
    return TextEncoder(network.to(device).eval().requires_grad_(False), read_tokenizer(path / TOKENIZER), sha256)


def finding_prompts(template: Callable[[str], str] = str.lower) -> tuple[str, ...]:
    """A text for each of the 18 findings in canonical order; ``template`` makes it of the finding's name."""
    return tuple(template(finding.name) for finding in FINDINGS)


def _own(name: str) -> str:
    """A tensor's name in the encoder; empty for those that do not count."""
    return "" if name.startswith(_NOT_ITS_OWN) else name.removeprefix("bert.")
