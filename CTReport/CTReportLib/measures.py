"""All measured findings of a chest CT. Measured by rule, not diagnosed."""

from __future__ import annotations

from CTReportLib.anatomy import Anatomy
from CTReportLib.measure_heart import calcium, cardiothoracic_ratio
from CTReportLib.measure_lungs import emphysema, lung_volumes, mean_density
from CTReportLib.measure_nodules import nodule_candidates
from CTReportLib.measure_pleura import pleural_fluid
from CTReportLib.measurement import Measurement
from MedAILib.volume import Volume


def measure(volume: Volume, anatomy: Anatomy) -> tuple[Measurement, ...]:
    """Everything that can be measured without weights.

    Parameters
    ----------
    volume : Volume
        The CT, in Hounsfield units.
    anatomy : Anatomy
        Of the same CT: `CTReportLib.anatomy.find_anatomy`.

    Returns
    -------
    tuple of Measurement
        Lung volumes and density, emphysema index, pleural fluid, cardiothoracic ratio, calcium, nodule
        candidates, in this order; what cannot be measured has the value None and says why, or is left out
        where the image does not hold the region at all.
    """
    return (
        *lung_volumes(anatomy),
        *mean_density(volume, anatomy),
        *emphysema(volume, anatomy),
        *pleural_fluid(anatomy),
        *cardiothoracic_ratio(anatomy),
        *calcium(volume, anatomy),
        *nodule_candidates(anatomy),
    )
