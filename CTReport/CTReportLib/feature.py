"""What CTReport offers to the command line and to Slicer."""

from MedAILib.features import Feature

FEATURE = Feature(
    name="ct",
    title="CTReport",
    tasks=(
        "CTReportLib.task:ReportTask",
        "CTReportLib.train.task:TrainTask",
        "CTReportLib.train.evaluation:EvaluateTask",
    ),
    commands="CTReportLib.command:add_commands",
)
