"""The settings of an OpenAI-compatible endpoint: an annotator's, a judge's, the VLM's of a cascade."""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, model_validator

from vans.llm.net import check_url
from vans.params.base import Section


class EndpointParams(Section):
    """An OpenAI-compatible endpoint. Its key is in no file: it comes from the environment."""

    url: str  # the endpoint's address, up to and without /chat/completions
    model: str
    key_variable: str  # name of the environment variable that holds the key
    plain_http: bool  # may http:// go to other machines?
    extra: dict[str, Any]  # further fields of each request; null takes one away
    temperature: float = Field(ge=0, le=2)
    max_tokens: int = Field(ge=1)  # of an answer
    frames: int = Field(ge=1)  # pictures of each clip that is asked about
    side: int = Field(ge=16)  # px, longer side of a picture
    attempts: int = Field(ge=1)  # answers asked for until one can be used
    concurrency: int = Field(ge=1)  # calls under way at once
    timeout: float = Field(gt=0)  # s, for a whole answer
    retries: int = Field(ge=0)  # of a call that failed on the way
    requests_per_minute: int | None = Field(ge=1)
    tokens_per_minute: int | None = Field(ge=1)
    budget: float | None = Field(ge=0)  # in the prices' currency, for all runs together
    price_input: float | None = Field(ge=0)  # of a million tokens
    price_output: float | None = Field(ge=0)
    image_tokens: int = Field(ge=0)  # estimate for a picture
    answer_tokens: int = Field(ge=1)  # estimate for an answer
    cache: str  # file of kept answers

    @model_validator(mode="after")
    def check(self) -> Self:
        check_url(self.url, self.plain_http)
        if self.budget is not None and (self.price_input is None or self.price_output is None):
            raise ValueError("a budget needs price_input and price_output (your provider's, per million tokens)")
        if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", self.key_variable):  # a key put here by mistake is not shown
            raise ValueError("key_variable must be the name of an environment variable, such as VANS_API_KEY")
        if kept := sorted({"model", "messages", "stream", "n"} & set(self.extra)):
            raise ValueError(f"extra.{kept[0]}: cannot be set here")
        return self
