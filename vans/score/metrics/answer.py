"""The form of the VLM's answers."""

from vans import template
from vans.score.batch import Batch
from vans.score.metric import metric


@metric(
    "format",
    "format",
    better="up",
    about="answers that follow the template",
    unit="%",
    digits=1,
    claim=False,
    needs=("captions",),
)
def follows(batch: Batch) -> list[float] | None:
    return None if batch.answers is None else [template.format_reward(text) for text in batch.answers]


@metric(
    "think_words",
    "thinking",
    better="up",
    about="words of thinking before the caption",
    unit="words",
    digits=1,
    claim=False,
    needs=("captions",),
)
def think_words(batch: Batch) -> list[float] | None:
    return None if batch.answers is None else [template.thinking_length(text) for text in batch.answers]
