"""Training of routers and experts on MedMNIST's ``.npz`` files, as a task: `MedMNISTRouterLib.train.task.TrainTask`.

A training reads images, teaches a residual network, fits a temperature and the gate on images it did not learn from,
measures on a third part, and writes a folder that the router can use: graph (ONNX), description, gate, model card,
and the same network as a Keras file. All randomness of a step is a function of the seed and the step: a run that was
ended and resumed ends as one that was not.
"""
