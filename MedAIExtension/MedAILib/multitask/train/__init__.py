"""Training of the multi-task network, as a task: `MedAILib.multitask.train.task.TrainTask`.

Three phases, each of which can be left out or repeated: ``seg`` teaches encoder and decoder to segment, ``cls``
teaches the classification head on the frozen encoder, ``joint`` teaches everything together. All randomness of
a step is a function of the seed, the phase and the step: a run that was killed and resumed ends as one that
was not.

What comes out is as good as the data that went in. No clinical weights exist; none are shipped.
"""
