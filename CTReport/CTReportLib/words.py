"""Words and numbers of sentences: which say nothing by themselves, and which quantities stand in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from CTReportLib.findings import Section
from CTReportLib.lexicon import compiled

NEUTRAL_WORDS = frozenset(
    """
    a an the this that these those there here it its of in on at to from for by with without within into as than
    and or nor but both also is are was were be been being has have had do does did can could
    no not none neither absent present absence presence free negative positive
    seen observed noted detected identified found visible shown shows show demonstrated demonstrates visualized appears
    finding findings evidence sign signs appearance study examination scan ct chest thorax thoracic image images
    computed tomography section sections current
    left right bilateral bilaterally side sides sided third thirds upper middle lower part parts
    normal size sized limits clear unremarkable
    measured measuring measures rule candidate candidates confirmed probability model threshold volume about
    approximately mm cm ml l cc hu percent
    """.split()
)
"""Words that claim nothing of their own: a sentence of these, and of the words of its rows, says what the rows say."""

STRUCTURE_WORDS: Mapping[Section, frozenset[str]] = {
    section: frozenset(words.split())
    for section, words in {
        Section.DEVICES: "",
        Section.LUNGS: "lung lungs pulmonary parenchyma parenchymal airway airways bronchi bronchus bronchial walls",
        Section.PLEURA: "pleura pleural space spaces hemithorax lung lungs",
        Section.MEDIASTINUM: "mediastinum mediastinal hilum hila hilar",
        Section.HEART: "heart cardiac pericardium pericardial space coronary artery arteries wall walls",
        Section.VESSELS: "aorta aortic artery arteries arterial vascular vessel vessels wall walls",
        Section.ESOPHAGUS: "esophagus esophageal",
    }.items()
}
"""Names of structures, which say nothing more of a finding that is in them."""

SPECIFIC = compiled(
    r"hydro|h(a)?emo|empyema|pneumo|honeycomb|paving|tree|bud|ground|glass|bull|bleb|metasta|trapping|collaps|infiltrat|"
    r"catheter|stent|maker|electrode|prosthe|suture|clip|implant|sternotomy|metallic|cannula|tracheo|tube|screw|port|"
    r"fixat|valve|icd|picc|defibrillator|bypass|cabg|smear|micro|pseudo|scar|band|drain|traction"
)
"""Words that name a finding and say more of it than its row does: an empyema is more than an effusion."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_UNITS = {
    "mm³": ("mm³", 1.0), "mm3": ("mm³", 1.0),
    "millimet": ("mm", 1.0), "centimet": ("mm", 10.0), "mm": ("mm", 1.0), "cm": ("mm", 10.0), "ml": ("ml", 1.0),
          "cc": ("ml", 1.0), "%": ("%", 1.0), "percent": ("%", 1.0), "hu": ("HU", 1.0), "litre": ("ml", 1000.0),
          "liter": ("ml", 1000.0), "l": ("ml", 1000.0)}  # fmt: skip
_QUANTITY = re.compile(
    r"(?<![\w.])((?:\d+(?:\.\d+)?\s*[x×]\s*)*)(-?\d+(?:\.\d+)?)\s*(mm³|mm3|mm|cm|ml|cc|%|percent|HU|millimet\w*|centimet\w*|lit(?:re|er)s?|l)(?![a-z0-9])",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]*\d)")


def words_of(text: str) -> tuple[str, ...]:
    """Its words in lower case, those joined by hyphens taken apart."""
    return tuple(part for match in _WORD.finditer(text.lower()) for part in re.split(r"[-’']", match.group(0)) if part)


@dataclass(frozen=True)
class Quantity:
    """A number as it stands in a text.

    Attributes
    ----------
    text : str
    value : float
        In mm, ml, % or HU, or without a unit.
    unit : str
        ``mm``, ``ml``, ``%``, ``HU`` or empty.
    slack : float
        Half of its last decimal, in the same unit: what rounding may have changed.
    """

    text: str
    value: float
    unit: str
    slack: float

    def agrees_with(self, value: float, unit: str) -> bool:
        """Whether it is that value, rounded."""
        return self.unit == unit and abs(self.value - value) <= self.slack


def quantities_in(text: str) -> Iterator[Quantity]:
    """Each number of a text, with its unit where it has one."""
    for match in _QUANTITY.finditer(text):
        unit, factor = _unit(match.group(3))
        for number in [*re.findall(r"\d+(?:\.\d+)?", match.group(1)), match.group(2)]:
            yield _quantity(f"{number} {match.group(3)}", number, unit, factor)
    for match in _NUMBER.finditer(_QUANTITY.sub(" ", text)):
        yield _quantity(match.group(0), match.group(0), "", 1.0)


def _quantity(text: str, number: str, unit: str, factor: float) -> Quantity:
    decimals = len(number.partition(".")[2])
    return Quantity(text, float(number) * factor, unit, factor * (0.5 * 10**-decimals + 1e-9))


def _unit(text: str) -> tuple[str, float]:
    lower = text.lower()
    return next((found for start, found in _UNITS.items() if lower.startswith(start)), (lower, 1.0))
