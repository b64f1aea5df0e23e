"""LoRA adapters of language models: made, saved, loaded, merged. Needs torch and peft.

Source: Hu et al. 2021, arXiv 2106.09685. Rank 64, alpha 128 and dropout 0.05 are those of ReCT-VLM (NEWMES-AI, 2025).
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from CTReportLib.language.adapterfolder import CONFIG, WEIGHTS, Adapter
from CTReportLib.language.basefolder import read_json
from CTReportLib.language.families import Family
from CTReportLib.language.packages import import_peft
from MedAILib.atomic import replacing
from MedAILib.errors import ConfigError, InputError
from MedAILib.models.exact import require_exact, require_finite

RANK, ALPHA, DROPOUT = 64, 128, 0.05


def with_adapter(
    network: nn.Module, family: Family, *, rank: int = RANK, alpha: int = ALPHA, dropout: float = DROPOUT
) -> Any:
    """A language model with an untrained adapter, which alone has gradients; at first it changes nothing.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        Its own weights are frozen.
    family : Family
        Decides which layers are changed.
    rank, alpha : int
        The change is of that rank, times alpha / rank.
    dropout : float

    Raises
    ------
    ConfigError
        The model has none of the family's layers, or the numbers cannot be used.
    MissingPackage
    """
    peft = import_peft()
    if rank < 1 or alpha < 1 or not 0 <= dropout < 1:
        raise ConfigError(f"Rank {rank}, alpha {alpha} and dropout {dropout} make no adapter.")
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias="none",
        target_modules=list(family.lora_targets),
        task_type="CAUSAL_LM",
    )
    try:
        with _without_notices():
            return peft.get_peft_model(network, settings)
    except ValueError as error:
        raise ConfigError(
            f"The model has no layers of the family {family.name} that an adapter could change.", why=f"{error}."
        ) from error


def save_adapter(network: Any, folder: str | Path) -> Path:
    """Write an adapter into a folder as peft does: its own tensors and settings, nothing of the model.

    Raises
    ------
    InputError
        The model has no adapter.
    OutputError
    """
    _require_adapter(network)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adapter-", dir=target) as made:
        network.save_pretrained(made, safe_serialization=True, save_embedding_layers=False)
        _forget_folders(Path(made) / CONFIG)
        for name in (WEIGHTS, CONFIG):
            with replacing(target / name) as partial:
                partial.write_bytes((Path(made) / name).read_bytes())
    return target


def load_adapter(network: nn.Module, adapter: Adapter, *, trainable: bool = False) -> Any:
    """A language model with a saved adapter, all of whose tensors come from its file.

    Parameters
    ----------
    network : transformers.PreTrainedModel
    adapter : Adapter
        As `CTReportLib.language.adapterfolder.read_adapter` found it fitting.
    trainable : bool

    Raises
    ------
    InvalidWeights
        It lacks tensors, has more, or holds values that are no numbers.
    MissingPackage
    """
    peft = import_peft()
    with _without_notices():
        changed = peft.PeftModel.from_pretrained(network, str(adapter.path), is_trainable=trainable)
    state = peft.get_peft_model_state_dict(changed, save_embedding_layers=False)
    name = f"{adapter.path.name}/{WEIGHTS}"
    wanted = {key: tuple(tensor.shape) for key, tensor in state.items()}
    require_exact(wanted, adapter.weights.shapes, name, "the adapter that its settings describe")
    require_finite(state, name)
    return changed


def merged(network: Any) -> Any:
    """The plain language model with the adapter's change written into its weights; the adapter is gone.

    Raises
    ------
    InputError
        The model has no adapter.
    """
    _require_adapter(network)
    return network.merge_and_unload(safe_merge=True)


@contextmanager
def _without_notices() -> Iterator[None]:
    """Without warnings between peft and transformers, and of tensors that are checked here anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def _forget_folders(config: Path) -> None:
    """Of the model's path only the name is kept: whose folder it was in is nobody's business."""
    content = read_json(config)
    content["base_model_name_or_path"] = Path(content.get("base_model_name_or_path") or "").name
    config.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _require_adapter(network: Any) -> None:
    if not hasattr(network, "peft_config"):
        raise InputError("The language model has no adapter.", todo="Make one, or load one, first.")
