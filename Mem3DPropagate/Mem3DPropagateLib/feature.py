"""What Mem3DPropagate offers to the command line and to Slicer."""

from MedAILib.features import Feature

FEATURE = Feature(
    name="mem3d",
    title="Mem3DPropagate",
    tasks=("Mem3DPropagateLib.task:PropagateTask",),
    commands="Mem3DPropagateLib.command:add_commands",
    models="Mem3DPropagateLib:models.json",
)
