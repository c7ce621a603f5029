"""The annotator `openai`: any endpoint that speaks OpenAI's chat completions (vans/llm/client.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vans.data.annotate.base import Refused
from vans.data.annotate.llm import BROKEN, LLM, SAID, Query
from vans.llm import answers, client, prompts
from vans.llm.cache import Reply
from vans.llm.client import Ask, Client
from vans.llm.limits import Timer
from vans.llm.pictures import data_url

NO_ANSWER = f"the annotator's endpoint {client.NO_ANSWER}"
NOT_TAKEN = f"the annotator's endpoint {client.NOT_TAKEN}"
REASONS = {client.NO_ANSWER: NO_ANSWER, client.NOT_TAKEN: NOT_TAKEN, client.BROKEN: BROKEN}


class OpenAI(LLM):
    """The annotator `openai`. Raises UserError if there is no key, or the URL is not safe to send one to."""

    def __init__(
        self, params: Any, root: str | Path | None = None, progress: bool = True, clock: Timer | None = None
    ) -> None:
        super().__init__(params, root, progress)
        self.model = self.llm.model
        self.client = Client(self.llm, "curate.llm", self.meter, clock)
        self.secret = self.client.secret

    def answer(self, keys: Sequence[str], queries: Sequence[Query]) -> list[Reply | Refused]:
        """Answer all, `concurrency` at a time; what was answered before an error is kept."""
        quiet = not self.progress or len(queries) < SAID
        asked = [self._call(key, query) for key, query in zip(keys, queries, strict=True)]
        replies = self.client.ask(asked, "" if quiet else f"annotate, {queries[0].task}")
        return [r if isinstance(r, Reply) else Refused(REASONS[r.why], detail=r.detail) for r in replies]

    def _call(self, key: str, query: Query) -> Ask:
        forms = answers.forms(query.task, query.fields)
        tokens, temperature = self.tokens(query), self.temperature(query)
        return Ask(key, query.task, query.system, lambda: self._content(query), tokens, temperature, forms)

    def _content(self, query: Query) -> list[dict]:
        """The parts of the user message, pictures as JPEG in data URLs. ValueError if a clip is damaged."""

        def shown(name: str) -> list[str] | None:
            clip = query.clips.get(name)
            return None if clip is None else [data_url(p) for p in clip.pictures(query.most, self.llm.side)]

        return prompts.content(query.user, shown)
