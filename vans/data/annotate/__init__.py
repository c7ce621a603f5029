"""Who chooses the best clip of a segment and writes question, reasoning and caption of a pair.

    asked = annotator(params, root)                       # as curate.annotator says
    starts = asked.choose(candidates)                     # where asked.chooses
    written = asked.write(requests)                       # same order as the requests, refusals among them

| name | who | module |
|---|---|---|
| rules | rules, from the labels that the sources carry (the toy world's) | rulebook.py |
| openai | any endpoint that speaks OpenAI's chat completions: Gemini, vLLM, others | endpoint.py |
| qwen | a local Qwen2.5-VL | qwen.py |

The last two ask the same prompts (prompts/*.md) by the same steps (llm.py) and keep every answer (cache.py).
To add an annotator, write a class with `Annotator`'s members and one line in ANNOTATORS. What it takes to run
and what it costs: docs/annotate.md.

Deviation 1 from the paper: where `rules` is chosen, rules write the texts, from the labels, where the paper asks
a multimodal LLM.
"""

import importlib
from pathlib import Path
from typing import Any

from vans.data.annotate.base import Annotation, Annotator, Candidate, Refused, Request, content_words, leaks
from vans.data.annotate.rulebook import rules

__all__ = [
    "ANNOTATORS",
    "Annotation",
    "Annotator",
    "Candidate",
    "Refused",
    "Request",
    "annotator",
    "content_words",
    "leaks",
    "rules",
]

ANNOTATORS = {  # name in params.yaml -> module:class, called with (params, root, progress)
    "rules": "vans.data.annotate.rulebook:Rules",
    "openai": "vans.data.annotate.endpoint:OpenAI",
    "qwen": "vans.data.annotate.qwen:Qwen",
}


def annotator(params: Any, root: str | Path | None = None, progress: bool = True) -> Annotator:
    """The annotator that `params.curate.annotator` names.

    params: seed, video, curate. root: the repository's, for the file of kept answers. progress: estimates and
    progress bars on standard error. Raises UserError if the settings are not right.
    """
    module, _, kind = ANNOTATORS[params.curate.annotator].partition(":")
    return getattr(importlib.import_module(module), kind)(params, root, progress)
