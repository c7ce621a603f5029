"""The metrics that ship with vans, one module a family; their order here is the order of the columns."""

from vans.score.metric import METRICS, NONE, Metric, available, cell, measure, metric, number, use

# isort: off
from vans.score.metrics import text
from vans.score.metrics import fvd
from vans.score.metrics import clip
from vans.score.metrics import pixels
from vans.score.metrics import oracle
from vans.score.metrics import answer
from vans.score.metrics import futures
# isort: on

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
    "futures",
    "fvd",
    "measure",
    "metric",
    "number",
    "oracle",
    "pixels",
    "text",
    "use",
]
