"""An image goes to the right MedMNIST expert, or is not recognised.

====================  ===============================================================================================
file                  what
====================  ===============================================================================================
``request``           `RouteRequest`, `RouteResult`, `Answer`: the values that all faces and runners speak
``datasets``          the twelve data sets: classes, tasks, how their images were made
``engine``, ``task``  pictures through router and experts, in groups; the same as a task for runners
``slots``             the thirteen places for models, and what is in them on this machine
``served``            from a slot to what answers for it
``cache``             loaded models under a memory budget
``session``           a graph in ONNX Runtime
``conversion``        a user's Keras file becomes a graph, once; ``kerascheck`` before Keras sees it, ``kerasworker``
                      in a process of its own, ``describe`` and ``scaling`` for what the file does not say,
                      ``kerasmodel`` where it cannot be converted
``modelfolder``       a model on disk: graph, description, gate
``gate``, ``checks``  what tells images of another kind: by their features, and before any model
``prepare``           from a picture to what a network takes
``answers``           from a network's numbers to probabilities and words; ``routes`` to an expert
``train``             training of routers and experts, gates and calibration
``inputs``            files to pictures; ``picturefile``, ``dicompicture`` and ``slices`` for each kind
``command``           ``medai route``
====================  ===============================================================================================

Research use only: nothing here is a diagnosis.
"""
