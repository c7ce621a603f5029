"""The metrics that ship with vans, one module a family; their order here is the order of the columns."""

from vans.score.metric import METRICS, NONE, Metric, available, cell, measure, metric, number, use
from vans.score.metrics import text, fvd, clip, pixels, oracle, answer  # noqa: I001 - the order of the columns

PAPER_METRICS = ("rouge_l", "fvd", "clip_v", "clip_t")

__all__ = [
    "METRICS",
    "NONE",
    "PAPER_METRICS",
    "Metric",
    "answer",
    "available",
    "cell",
    "clip",
    "fvd",
    "measure",
    "metric",
    "number",
    "oracle",
    "pixels",
    "text",
    "use",
]
