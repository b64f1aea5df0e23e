"""Fonts for PDF files: what this machine has, and which of them has a sign for each letter of a text.

The fonts built into PDF know Western European letters only. Where a TrueType font is found its letters are embedded, so
that a page looks the same everywhere; what no font has is replaced, and the document says so.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont

_LOG = logging.getLogger(__name__)

REPLACEMENT = "?"
_FAMILIES = (
    ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"),
    ("NotoSans-Regular.ttf", "NotoSans-Bold.ttf"),
    ("segoeui.ttf", "segoeuib.ttf"),
    ("Arial Unicode.ttf", "Arial Bold.ttf"),
    ("arial.ttf", "arialbd.ttf"),
    ("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf"),
    ("wqy-microhei.ttc", ""),
    ("wqy-zenhei.ttc", ""),
    ("msyh.ttc", "msyhbd.ttc"),
    ("malgun.ttf", "malgunbd.ttf"),
    ("msgothic.ttc", ""),
    ("fonts-japanese-gothic.ttf", ""),
    ("DroidSansFallbackFull.ttf", ""),
)
"""Regular and bold, most wanted first; each adds letters that those before it lack."""
_RTL = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff"
_FROM_RIGHT = re.compile(f"[{_RTL}]+(?:[ '-][{_RTL}]+)*")
_MARKS = "\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670"
_CLUSTER = re.compile(f".[{_MARKS}]*", re.S)


@dataclass(frozen=True)
class Face:
    """A font as PDF pages name it.

    Attributes
    ----------
    regular, bold : str
        Names for `reportlab`.
    letters : frozenset of int or None
        Unicode code points it has; None for the built-in fonts, which have those of Windows-1252.
    """

    regular: str
    bold: str
    letters: frozenset[int] | None = None

    def has(self, letter: str) -> bool:
        """Whether it has a sign for a letter."""
        if self.letters is not None:
            return ord(letter) in self.letters
        try:
            letter.encode("cp1252")
        except UnicodeEncodeError:
            return False
        return True


BUILT_IN = Face("Helvetica", "Helvetica-Bold")


@dataclass
class Fonts:
    """The fonts of one document.

    Attributes
    ----------
    faces : sequence of Face
        First choice first.
    replaced : set of str
        Letters asked for so far that none of them has.
    """

    faces: Sequence[Face]
    replaced: set[str] = field(default_factory=set)

    @property
    def main(self) -> Face:
        return self.faces[0]

    def markup(self, text: str, *, bold: bool = False) -> str:
        """A text as reportlab's paragraphs read it: escaped, with a font for each run, without what no font has."""
        return "".join(self._marked(face, run, bold=bold) for face, run in self._runs(_from_left(text)))

    def _marked(self, face: Face, run: str, *, bold: bool) -> str:
        if face is self.main:
            return escape(run)
        return f'<font name="{face.bold if bold else face.regular}">{escape(run)}</font>'

    def _runs(self, text: str) -> Iterator[tuple[Face, str]]:
        chosen = [(self._face(letter), letter) for letter in text]
        for face, letters in groupby(chosen, key=lambda pair: pair[0]):
            yield (face or self.main), "".join(letter if face else REPLACEMENT for _, letter in letters)

    def _face(self, letter: str) -> Face | None:
        if letter.isspace():
            return self.main
        found = next((face for face in self.faces if face.has(letter)), None)
        if found is None:
            self.replaced.add(letter)
        return found


def _from_left(text: str) -> str:
    """Words of scripts that run from the right turned round, as a page is drawn from the left.

    Marks stay with their letters. Arabic letters are drawn each by itself: they are not joined.
    """
    return _FROM_RIGHT.sub(lambda run: "".join(reversed(_CLUSTER.findall(run[0]))), text)


def document_fonts() -> Fonts:
    """The fonts of this machine for a new document."""
    return Fonts(_faces() or (BUILT_IN,))


@cache
def _faces() -> tuple[Face, ...]:
    """All fonts that can be found, registered with reportlab once."""
    files: dict[str, Path] = {}
    wanted = {name for family in _FAMILIES for name in family if name}
    for folder in _folders():
        for file in _files(folder):
            if file.name in wanted:
                files.setdefault(file.name, file)
    found = (_face(files[regular], files.get(bold)) for regular, bold in _FAMILIES if regular in files)
    return tuple(face for face in found if face is not None)


def _face(regular: Path, bold: Path | None) -> Face | None:
    try:
        font = TTFont(f"MedAI {regular.stem}", str(regular))
        strong = TTFont(f"MedAI {bold.stem}", str(bold)) if bold else font
    except (TTFError, OSError) as error:
        _LOG.info("The font %s is not used: %s.", regular, error)
        return None
    for one in (font, strong):
        pdfmetrics.registerFont(one)
    pdfmetrics.registerFontFamily(font.fontName, font.fontName, strong.fontName, font.fontName, strong.fontName)
    return Face(font.fontName, strong.fontName, frozenset(font.face.charToGlyph))


def _folders() -> Iterator[Path]:
    """Where fonts lie: those that matplotlib brings, then the system's, then the user's."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin:
        yield Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    if sys.platform == "win32":
        yield Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"
    elif sys.platform == "darwin":
        yield from (Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library" / "Fonts")
    else:
        yield from (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts")


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(file for file in folder.rglob("*.tt[fc]") if file.is_file())
    except OSError as error:
        _LOG.info("Fonts in %s are not looked at: %s.", folder, error)
