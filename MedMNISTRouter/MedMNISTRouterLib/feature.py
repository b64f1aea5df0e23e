"""What MedMNISTRouter offers to the command line and to Slicer."""

from MedAILib.features import Feature

FEATURE = Feature(
    name="router",
    title="MedMNISTRouter",
    tasks=(
        "MedMNISTRouterLib.files_task:RouteFilesTask",
        "MedMNISTRouterLib.task:RouteTask",
        "MedMNISTRouterLib.train.gatefit:GateTask",
        "MedMNISTRouterLib.train.task:TrainTask",
    ),
    commands="MedMNISTRouterLib.command:add_commands",
    models="MedMNISTRouterLib:models.json",
)
