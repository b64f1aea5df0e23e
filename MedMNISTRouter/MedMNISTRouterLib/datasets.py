"""The twelve 2D data sets of MedMNIST v2 with an expert slot each: what they show, their classes, how they were made.

Source: Yang et al., MedMNIST v2, Scientific Data 10:41 (2023), and the package ``medmnist`` 3.0.2 (info.py). Not
for clinical use.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class DatasetTask(Enum):
    """What a data set's labels are."""

    MULTI_CLASS = "multi-class"
    BINARY = "binary"
    MULTI_LABEL = "multi-label"
    ORDINAL = "ordinal"


class Crop(Enum):
    """What was cut out of the original image before it was made small."""

    NONE = "none"
    """The whole image was resized; its proportions changed."""
    SHORT_EDGE = "short edge"
    """The square in the middle, as large as the short edge."""
    MIDDLE_200 = "200 pixels"
    """200 x 200 pixels in the middle of an original of 360 x 363; other sizes are taken whole."""
    ORGAN = "organ"
    """The middle slice of one organ's bounding box: a whole abdominal slice is none of these images."""
    PROJECTION = "projection"
    """The maximum over seven slices of a microscope's stack."""


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes
    ----------
    flag : str
        Its short name, as in ``{flag}.npz``.
    title : str
    shows : str
        What one image is, in a few words.
    task : DatasetTask
    channels : int
        1 grey, 3 colour.
    class_names : tuple of str
        By label.
    splits : tuple of int
        Images for training, validation and test.
    crop : Crop
    modalities : tuple of str
        DICOM's words for such images; a hint.
    plane : str
        Of the organ sets.
    licence : str
        SPDX identifier of the images.
    """

    flag: str
    title: str
    shows: str
    task: DatasetTask
    channels: int
    class_names: tuple[str, ...]
    splits: tuple[int, int, int]
    crop: Crop = Crop.NONE
    modalities: tuple[str, ...] = ()
    plane: str = ""
    licence: str = "CC-BY-4.0"

    @property
    def keras_file(self) -> str:
        """Name of the expert's weight file."""
        return f"stage2_{self.flag}_final.keras"


ROUTER_KERAS_FILE = "stage1_final.keras"
SIZES = (28, 64, 128, 224)
"""Edge lengths in pixels that the data sets are published in."""

_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)


def _organs(letter: str, plane: str, splits: tuple[int, int, int]) -> Dataset:
    return Dataset(
        f"organ{letter}mnist",
        f"Organ{letter.upper()}MNIST",
        f"an organ cut out of an abdominal CT, {plane}",
        DatasetTask.MULTI_CLASS,
        1,
        _ORGANS,
        splits,
        Crop.ORGAN,
        ("CT",),
        plane,
    )


DATASETS: tuple[Dataset, ...] = (
    Dataset(
        "bloodmnist",
        "BloodMNIST",
        "a single blood cell under the microscope, stained",
        DatasetTask.MULTI_CLASS,
        3,
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes (myelocytes, metamyelocytes and promyelocytes)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        (11959, 1712, 3421),
        Crop.MIDDLE_200,
        ("SM", "GM"),
    ),
    Dataset(
        "breastmnist",
        "BreastMNIST",
        "a breast ultrasound image",
        DatasetTask.BINARY,
        1,
        ("malignant", "normal, benign"),
        (546, 78, 156),
        Crop.NONE,
        ("US",),
    ),
    Dataset(
        "chestmnist",
        "ChestMNIST",
        "a frontal chest radiograph",
        DatasetTask.MULTI_LABEL,
        1,
        (
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural",
            "hernia",
        ),
        (78468, 11219, 22433),
        Crop.NONE,
        ("DX", "CR"),
    ),
    Dataset(
        "dermamnist",
        "DermaMNIST",
        "a dermatoscopic picture of a skin lesion",
        DatasetTask.MULTI_CLASS,
        3,
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        (7007, 1003, 2005),
        Crop.NONE,
        ("XC", "ES"),
        licence="CC-BY-NC-4.0",
    ),
    Dataset(
        "octmnist",
        "OCTMNIST",
        "an optical coherence tomogram of the retina",
        DatasetTask.MULTI_CLASS,
        1,
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        (97477, 10832, 1000),
        Crop.SHORT_EDGE,
        ("OPT", "OCT"),
    ),
    _organs("a", "axial", (34561, 6491, 17778)),
    _organs("c", "coronal", (12975, 2392, 8216)),
    _organs("s", "sagittal", (13932, 2452, 8827)),
    Dataset(
        "pathmnist",
        "PathMNIST",
        "a patch of a stained colorectal tissue section",
        DatasetTask.MULTI_CLASS,
        3,
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        (89996, 10004, 7180),
        Crop.NONE,
        ("SM", "GM"),
    ),
    Dataset(
        "pneumoniamnist",
        "PneumoniaMNIST",
        "a frontal chest radiograph of a child",
        DatasetTask.BINARY,
        1,
        ("normal", "pneumonia"),
        (4708, 524, 624),
        Crop.SHORT_EDGE,
        ("DX", "CR"),
    ),
    Dataset(
        "retinamnist",
        "RetinaMNIST",
        "a fundus photograph, graded for diabetic retinopathy",
        DatasetTask.ORDINAL,
        3,
        ("grade 0", "grade 1", "grade 2", "grade 3", "grade 4"),
        (1080, 120, 400),
        Crop.SHORT_EDGE,
        ("OP",),
    ),
    Dataset(
        "tissuemnist",
        "TissueMNIST",
        "a kidney cortex cell under the microscope",
        DatasetTask.MULTI_CLASS,
        1,
        (
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
        (165466, 23640, 47280),
        Crop.PROJECTION,
        ("GM", "SM"),
    ),
)
"""In alphabetical order of their flags, which is the class order of the published router."""

FLAGS = tuple(item.flag for item in DATASETS)
BY_FLAG = {item.flag: item for item in DATASETS}
