"""A chest CT becomes findings with evidence, their places, and a report that says nothing it cannot show.

===================  ================================================================================================
file                 what
===================  ================================================================================================
``request``          `ReportRequest`, `ReportResult`, `FindingRow`, `Sentence`: the values that all faces and runners
                     speak
``findings``         the 18 findings of CT-RATE: order, names elsewhere, codes
``checks``           is this a chest CT, and what of it is missing
``workgrid``         the coarse grid along the patient's axes; ``lungs``, ``anatomy``, ``landmarks`` on it
``preprocess``       a CT on a model's grid, and masks back
``measures``         everything that can be measured by rule; ``measure_*`` each, ``measurement`` the value
``localised``        given segments as evidence, found ones as a label map
``table``            measurements become the finding table
``report``           the template engine: a report from the table alone
``lexicon``,         findings read out of sentences: terms, denials, sides; ``words`` and numbers
``extractor``
``guard``            every sentence held against the table
``reporthtml``,      files
``exports``
``keyimages``        slices with outlines
``task``, ``source`` the task for runners; what the command line was given
``command``          ``medai ct report``
``nets``             networks
===================  ================================================================================================

Research use only: nothing here is a diagnosis.
"""
