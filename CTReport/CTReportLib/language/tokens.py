"""Text as the numbers that a language model reads, and back. Needs tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from CTReportLib.language.answer import TAGS
from CTReportLib.language.basefolder import TOKENIZER
from CTReportLib.language.packages import INSTALL
from MedAILib.errors import InvalidWeights, MissingPackage


@dataclass(frozen=True, eq=False)
class TextTokens:
    """A tokenizer.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
    stop_ids : tuple of int
        Tokens that end a text.
    """

    tokenizer: Any
    stop_ids: tuple[int, ...]

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """A text's tokens; ``special``: with the token that begins a text, where the model has one."""
        return list(self.tokenizer.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without those that stand for none; `TAGS` are kept however the tokenizer counts them."""
        text, part = "", []
        for number in ids:
            tag = self._tags.get(number)
            if tag is None:
                part.append(number)
                continue
            text += self._plain(part) + tag
            part = []
        return text + self._plain(part)

    def _plain(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""

    @cached_property
    def _tags(self) -> dict[int, str]:
        found = {self.id_of(tag): tag for tag in TAGS}
        return {number: tag for number, tag in found.items() if number is not None}

    def id_of(self, token: str) -> int | None:
        """The number of a token; None where the tokenizer has none of that name."""
        found = self.tokenizer.token_to_id(token)
        return None if found is None else int(found)


def load_tokens(folder: Path, stop_ids: tuple[int, ...], vocabulary: int) -> TextTokens:
    """Load the tokenizer of a language model.

    Parameters
    ----------
    folder : Path
    stop_ids : tuple of int
    vocabulary : int
        How many tokens the model knows.

    Raises
    ------
    InvalidWeights
        It cannot be read, or gives numbers that the model does not know.
    MissingPackage
    """
    tokenizer = read_tokenizer(folder / TOKENIZER)
    highest = max([*tokenizer.get_vocab(with_added_tokens=True).values(), *stop_ids])
    if highest >= vocabulary:
        raise InvalidWeights(
            f"The tokenizer in '{folder.name}' belongs to another model.",
            why=f"It gives numbers up to {highest}; the model knows {vocabulary} tokens.",
            todo="Get the tokenizer of the same model.",
        )
    return TextTokens(tokenizer, stop_ids)


def read_tokenizer(path: Path) -> Any:
    """A `tokenizers.Tokenizer`, without padding or truncation; errors as `load_tokens`."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingPackage(
            "Language models need the package tokenizers.",
            why=f"{error}.",
            todo=INSTALL,
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception for whatever it cannot read
        raise InvalidWeights(f"'{path}' is no tokenizer.", why=f"{error}.", todo="Get the file again.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
