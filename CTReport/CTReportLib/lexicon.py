"""What reports call findings: the phrases by which a sentence is known to speak of one.

The keys are the ids of `CTReportLib.findings` and, with the prefix ``other:``, findings that no model or rule of
this library judges; a report may not assert these either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

OTHER = "other:"
"""Prefix of findings outside the table."""


@dataclass(frozen=True)
class Term:
    """One way to speak of a finding.

    Attributes
    ----------
    finding : str
    pattern : str
        Regular expression of the words that name it.
    needs : str
        Another expression that must stand in the same clause; empty where none must.
    unless : str
        An expression that, standing in the same clause, makes it something else.
    implied : bool
        The words name another finding, of which this one is the wider class (a consolidation is an opacity).
    """

    finding: str
    pattern: str
    needs: str = ""
    unless: str = ""
    implied: bool = False

    @property
    def matcher(self) -> re.Pattern[str]:
        """Of the words that name it."""
        return compiled(self.pattern)

    def fits(self, clause: str) -> bool:
        """Whether the rest of the clause agrees."""
        if self.needs and not compiled(self.needs).search(clause):
            return False
        return not (self.unless and compiled(self.unless).search(clause))


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """The expression, blind to upper and lower case."""
    return re.compile(pattern, re.IGNORECASE)


_VESSEL = (
    r"\b(aorta|aort(ic|as)|thoraco-?abdominal|supra-?aortic|carotid|subclavian|brachiocephalic)\b|"
    r"(?<!coronary )\b(arter(y|ies|ial)|vascular|vessels?)\b"
)
_CORONARY = r"\b(coronar\w*|\blad\b|circumflex)"
_CALCIFIED = r"\b(calci\w*|athero\w*|plaques?)\b"
_ORGAN = (
    r"\b(liver|hepat\w*|kidney\w*|renal|spleen|splenic|gallbladder|pancrea\w*|thyroid|breast|adrenal|bone|vertebr\w*)"
)
_PERICARDIAL = r"\bpericardi\w*"
_SOFT_SITE = (
    r"\b(thyroid|adrenal|surrenal|liver|kidney|spleen|breast|schmorl|subcutaneous|skin|pancrea\w*|lymph nodes?)\b"
)

_TABLE: tuple[Term, ...] = (
    Term(
        "medical_material",
        r"\b(catheters?|stents?|pace-?makers?|electrodes?|prosthe\w+|sutures?|"
        r"clips?|implants?)\b",
    ),
    Term("medical_material", r"\b(sternotomy|metallic|cannula\w*|tracheostomy|(drain(age)?|chest) tubes?|screws?)\b"),
    Term("medical_material", r"\b(nasogastric|endotracheal|feeding|tracheal|intubation) (tubes?|cannula)|\btubes?\b"),
    Term(
        "medical_material",
        r"\bport (chamber|catheter|reservoir)|\b(surgical|foreign) material\w*|"
        r"\bfixat\w+|\bvalve repl\w+",
    ),
    Term("medical_material", r"\bmedical (materials?|devices?)|\bsupport devices?"),
    Term("medical_material", r"\b(icd|picc|defibrillator)\b|\bby-?pass\b|\bcabg\b"),
    Term("arterial_wall_calcification", _CALCIFIED, needs=_VESSEL, unless=r"\bpleura\w*|\blymph nodes?"),
    Term("arterial_wall_calcification", r"\b(athero\w+)\b", unless=_CORONARY),
    Term("coronary_artery_wall_calcification", _CALCIFIED, needs=_CORONARY),
    Term("cardiomegaly", r"\bcardiomegaly\b"),
    Term("cardiomegaly", r"\bcardio-?thoracic (index|ratio)\b"),
    Term(
        "cardiomegaly",
        r"\b(enlarge\w*|increas\w+|larger than normal|dilat\w+|bigger)\b",
        needs=r"\bheart\b|\bcardiac\b|\bventric\w+|\batri(a|um|al)\b",
        unless=r"\bcardiothoracic|lymph|nodes?\b|effusion|appendage",
    ),
    Term("pericardial_effusion", r"\b(effusions?|fluid|thickening-effusion|smear\w*)\b", needs=_PERICARDIAL),
    Term("pericardial_effusion", r"\bhydropericardium|\bhemopericardium"),
    Term(
        "hiatal_hernia",
        r"\b(hiat\w+|esophageal|paraesophageal) herni\w+|\bhernia\w*",
        unless=r"\b(inguinal|umbilical|lumbar|abdominal wall|incisional|morgagni|"
        r"bochdalek|disc)\b",
    ),
    Term("lymphadenopathy", r"\blymph\s?-?adenopath\w+|\blap\b|\badenopath\w+"),
    Term("lymphadenopathy", r"\blymph nodes?\b"),
    Term(
        "emphysema",
        r"\bemphys\w+|\bbull(a|ae|ous)\b|\bblebs?\b",
        unless=r"\bsubcutaneous|under the skin|\bsoft tissue|mediastinal emph|"
        r"pneumatocele",
    ),
    Term(
        "atelectasis",
        r"(?<!fibro )(?<!fibro-)\batelect?\w+|\bcollapsed?\b",
        unless=r"\bvertebra\w*|\bT\d+\b|\bL\d+\b|compression fracture",
    ),
    Term(
        "lung_nodule",
        r"\b(micro-?|pulmonary |parenchymal |pseudo-?)?nodul(es?|"
        r"ar(ity)? (lesions?|formations?|lesion areas?))\b",
        unless=_SOFT_SITE,
    ),
    Term("lung_nodule", r"\bmetasta(sis|ses|tic)\b", needs=r"\blungs?\b|\bpulmonary\b|\bparenchym", unless=_ORGAN),
    Term("lung_opacity", r"\bground[- ]?glass\w*|\bground-glass-like"),
    Term(
        "lung_opacity",
        r"\b(opacit(y|ies)|opacifications?|crazy[- ]paving|tree[- ]in[- ]bud|"
        r"bud(ding)? (tree|branch))\b",
    ),
    Term("lung_opacity", r"\b(infiltrat(es?|ions?|ive lesions?)|infiltrative)\b", unless=_ORGAN),
    Term("lung_opacity", r"\bconsolidat\w+|\bpneumoni[ac]\w*", implied=True),
    Term(
        "pulmonary_fibrotic_sequela",
        r"\bsequela\w*",
        unless=r"\b(renal|kidney\w*|rib|ribs|fracture\w*|liver|granuloma\w*|"
        r"vertebra\w*)\b",
    ),
    Term(
        "pulmonary_fibrotic_sequela",
        r"\bfibro(sis|tic|us|[ -]?atelect\w+)\b|\bparenchymal bands?\b|"
        r"\bhoneycomb\w*|\bscar(s|ring)?\b",
        unless=r"\b(tumor|hepat\w+|liver|skin|incision)\b",
    ),
    Term(
        "pleural_effusion",
        r"\b(effusions?|fluid|hydro(pneumo)?thorax|h(a)?emothorax|empyema)\b",
        needs=r"\bpleura\w*|\bhemithora\w+|\bthora\w+|\bcostophrenic|\blungs?\b|"
        r"\bhydro|\bbilateral|\bemothorax|empyema|\b(right|left)\b",
        unless=r"\b(joint|ascites|perihepatic|abdom\w+|pelvi\w+|kidneys?|"
        r"peri-?(re)?n\w+|cyst\w*|recess|bulla)\b",
    ),
    Term("mosaic_attenuation_pattern", r"\bmosaic\b|\bair[- ]trapping\b"),
    Term(
        "peribronchial_thickening",
        r"\b(peri-?bronch\w*|bronchial walls?|bronchial)\b[^.]{0,40}\bthick\w*|"
        r"\bthick\w*[^.]{0,40}\b(peri-?bronch\w*|bronch\w+)",
        unless=r"\bno bronchial wall pathology",
    ),
    Term("consolidation", r"\bconsolidat\w+"),
    Term("bronchiectasis", r"\bbronch\w*ecta\w+|\b(bronch\w+) (tubular )?ectasi\w+"),
    Term(
        "interlobular_septal_thickening",
        r"\b(inter-?lobular|septal|septa|septum|intra-?lobular)\b",
        needs=r"\bthick\w*|\bprominen\w+|\bcrazy",
        unless=r"\bnasal|ventric\w+",
    ),
)

_OTHERS: tuple[Term, ...] = (
    Term(OTHER + "pneumothorax", r"\b(hydro|h(a)?emo)?-?pneumothora\w+"),
    Term(OTHER + "pneumonia", r"\bpneumoni[ac]\w*|\bcovid\w*"),
    Term(OTHER + "mass", r"\b(mass|masses|tumou?rs?|carcinoma|neoplas\w+|malignan\w+|metasta\w+|cancer)\b"),
    Term(OTHER + "fracture", r"\bfractur\w+"),
    Term(OTHER + "pulmonary embolism", r"\bembol\w+|\bfilling defects?\b"),
    Term(OTHER + "aneurysm", r"\baneurysm\w*|\bdissection\b"),
    Term(OTHER + "edema", r"\b(o?edema)\b"),
    Term(OTHER + "cavity", r"\bcavit\w+|\babscess\w*"),
    Term(OTHER + "pleural thickening", r"\bpleural thickening"),
    Term(OTHER + "cyst", r"\bcysts?\b"),
    Term(OTHER + "pneumomediastinum", r"\bpneumomediastinum|\bpneumopericardium"),
    Term(OTHER + "ascites", r"\bascites\b"),
    Term(OTHER + "tuberculosis", r"\btubercul\w+|\bsarcoid\w+"),
)

TERMS: tuple[Term, ...] = _TABLE + _OTHERS
FINDING_IDS: tuple[str, ...] = tuple(dict.fromkeys(term.finding for term in _TABLE))
"""The eighteen findings that have terms here, in no order that matters."""
