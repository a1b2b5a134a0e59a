"""Metrics registered with MMEngine."""

from vito_mm.registry import METRICS, register_lazily

register_lazily(METRICS, 'FasterLVISMetric', 'vito_mm.evaluation.lvis_metric')

__all__: list[str] = []
