"""What KneeAnalysis offers to the command line and to Slicer."""

from MedAILib.features import Feature

FEATURE = Feature(
    name="knee",
    title="KneeAnalysis",
    tasks=("KneeAnalysisLib.task:KneeTask", "KneeAnalysisLib.engines:SegmentTask"),
    commands="KneeAnalysisLib.command:add_commands",
)
