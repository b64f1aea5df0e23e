"""A result in plain JSON values, for reports and scripts."""

from __future__ import annotations

from typing import Any

from Mem3DPropagateLib.request import PropagatedSegment, PropagateResult


def result_summary(result: PropagateResult) -> dict[str, Any]:
    """The result without its voxels: axis, and per segment method, confidence and every slice's quality."""
    return {"axis": result.axis.value, "segments": [_segment(segment) for segment in result.segments]}


def _segment(segment: PropagatedSegment) -> dict[str, Any]:
    return {
        "id": segment.segment_id,
        "name": segment.name,
        "method": segment.method.value,
        "variant": segment.variant,
        "model": segment.model,
        "confidence": round(segment.confidence, 4),
        "quality_score": round(segment.quality_score, 4),
        "used_slices": list(segment.used_slices),
        "distance_to_nearest": segment.distance_to_nearest,
        "advice": {
            "slice": segment.advice.slice,
            "reason": segment.advice.reason,
            "expected_gain": round(segment.advice.expected_gain, 4),
        },
        "slices": [
            {
                "index": q.index,
                "is_reference": q.is_reference,
                "method": q.method.value,
                "confidence": round(q.confidence, 4),
                "used_slices": list(q.used_slices),
                "distance_to_nearest": q.distance_to_nearest_mm,
            }
            for q in segment.slices
        ],
    }
