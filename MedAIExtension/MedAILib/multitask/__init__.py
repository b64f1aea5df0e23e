"""Multi-task prediction: one 2D network that says whether a slice shows a tumour, and where.

There are no clinical weights for this network: none are public, and none are shipped. What
`MedAILib.multitask.train` makes is as good as the data it was given, and is for research only.

=================  ==============================================================================
file               what
=================  ==============================================================================
``network``        the U-Net with two heads; needs torch
``predictor``      `MultiTaskPredictor`: images in, `Prediction` out
``volume_task``    all slices of a volume in one run: `VolumeTask`
``train``          training, as a task: `TrainTask`
``command``        ``medai multitask predict``, ``medai train multitask``
=================  ==============================================================================

Only ``network`` and ``train.learning`` load torch when they are imported.
"""
