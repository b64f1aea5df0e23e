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
``writing``          the report by the template or by a language model (``language``), guarded
``documents``        a report as a file in any format: the one way out
``document``         what it says to people, in order; ``reporthtml``, ``document_pdf`` (``pdf_fonts``) and
                     ``document_docx`` draw it
``dicom_source``     the DICOM series an image came from; ``dicom_sr``, ``dicom_seg`` (``dicom_codes``) refer to it
``exports``          text, JSON, and the set of files that the command writes; ``label_nifti``
``keyimages``        slices with outlines
``task``, ``source`` the task for runners; what the command line was given
``command``          ``medai ct report``
``choices``          the models of the catalogues by what they do
``edits``            a report that a person edits; ``record`` keeps it as JSON
``scene_report``,    a report in Slicer's scene: nodes, ``logic`` between them and the task, ``history`` for undo
``logic``
``*_panel``,         the parts of the module's panel; ``evidence_text``, ``finding_bars`` what they say
``model_rows``
``example``          a synthetic chest to try it with
``nets``             networks
===================  ================================================================================================

Research use only: nothing here is a diagnosis.
"""
